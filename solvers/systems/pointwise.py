"""Systems whose flux is a function of numbers: it is compiled when the law is first used."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from numba import njit
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

from solvers.errors import InvalidArgumentError
from solvers.finite_volume._kernels import written_kernel

State = tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class PointFunctions:
    """What a law is at one point: plain functions that numba can compile.

    Each takes the components u as a tuple of numbers and, as its last arguments, the ``parameters``.

    Args:
        flux: ``flux(u, axis, *parameters)``: flux of every component along an axis, a tuple of c numbers.
        eigenvalues: ``eigenvalues(u, axis, *parameters)``: eigenvalues of ∂f_axis/∂u, all of them or any that include
            the smallest and the largest, as a tuple.
        admissible: ``admissible(u, *parameters)``: whether a state makes sense; all that are finite by default.
        reflect: ``reflect(u, axis, *parameters)``: u as seen in a wall across an axis, for ``Reflecting``.
        parameters: Numbers.
    """

    flux: Callable[..., State]
    eigenvalues: Callable[..., State]
    admissible: Callable[..., bool] | None = None
    reflect: Callable[..., State] | None = None
    parameters: tuple[float, ...] = ()


class PointwiseLaw(ABC):
    """A hyperbolic system written as functions of numbers; derive from it for ``solve_system``."""

    @abstractmethod
    def components(self, dimension: int) -> tuple[str, ...]:
        """Names of the c unknowns, in order, with so many space axes."""

    @abstractmethod
    def functions(self, dimension: int) -> PointFunctions:
        """The law at one point, with so many space axes."""


@lru_cache
def faces_kernel(
    functions: tuple[Callable[..., State], Callable[..., State]], sizes: tuple[int, int, int], axis: int, rusanov: bool
) -> Any:
    """Fluxes between states on the two sides of faces, by Rusanov or HLL.

    ``functions`` are flux and eigenvalues, ``sizes`` the numbers of components, of eigenvalues and of parameters.
    """
    components, speeds, parameters = sizes
    each, rest = range(components), "".join(f", numbers[{2 + k}]" for k in range(parameters))
    slow = ", ".join(f"{name}[{k}]" for name in "xy" for k in range(speeds))
    lines = [
        "for i in range(count):",
        *(f"    l{k}, r{k} = a[{k} * stride + i], b[{k} * stride + i]" for k in each),
        f"    f = flux(({_listed('l', each)}), {axis}{rest})",
        f"    g = flux(({_listed('r', each)}), {axis}{rest})",
        f"    x = eigenvalues(({_listed('l', each)}), {axis}{rest})",
        f"    y = eigenvalues(({_listed('r', each)}), {axis}{rest})",
        f"    slowest, fastest = min({slow}), max({slow})",
        "    extra[i] = max(-slowest, fastest)",
    ]
    if not rusanov:
        lines += [
            "    low, high = min(slowest, 0.0), max(fastest, 0.0)",
            "    between = low * high",
            "    scale = 1.0 / (high - low) if high > low else 0.0",
            *(
                f"    out[{k} * stride + i] = (high * f[{k}] - low * g[{k}] + between * (r{k} - l{k})) * scale"
                f" if high > low else f[{k}]"
                for k in each
            ),
        ]
    else:
        lines += [f"    out[{k} * stride + i] = 0.5 * (f[{k}] + g[{k}] - extra[i] * (r{k} - l{k}))" for k in each]
    names = {"flux": compiled_function(functions[0]), "eigenvalues": compiled_function(functions[1])}
    return law_kernel("rusanov" if rusanov else "hll", lines, names, functions, axis)


@lru_cache
def check_kernel(admissible: Callable[..., bool] | None, components: int, parameters: int) -> Any:
    """Whether states are finite and admissible."""
    each, rest = range(components), "".join(f", numbers[{2 + k}]" for k in range(parameters))
    finite = " + ".join(f"(u{k} - u{k})" for k in each)
    also = f" and admissible(({_listed('u', each)}){rest})" if admissible else ""
    lines = [
        "for i in range(count):",
        *(f"    u{k} = a[{k} * stride + i]" for k in each),
        f"    extra[i] = 1.0 if {finite} == 0.0{also} else 0.0",
    ]
    functions = (admissible,) if admissible else ()
    return law_kernel(
        "check", lines, {"admissible": admissible and compiled_function(admissible)}, functions, components
    )


@lru_cache
def reflect_kernel(reflect: Callable[..., State], components: int, parameters: int, axis: int) -> Any:
    """States as a wall across an axis mirrors them."""
    each, rest = range(components), "".join(f", numbers[{2 + k}]" for k in range(parameters))
    inside = "".join(f"a[{k} * stride + i], " for k in each)
    lines = [
        "for i in range(count):",
        f"    mirrored = reflect(({inside}), {axis}{rest})",
        *(f"    out[{k} * stride + i] = mirrored[{k}]" for k in each),
    ]
    return law_kernel("reflect", lines, {"reflect": compiled_function(reflect)}, (reflect,), axis)


def _listed(letter: str, each: range) -> str:
    return "".join(f"{letter}{k}, " for k in each)


def compiled_function(function: Callable[..., Any]) -> Any:
    """The function for numba; only those of this package are kept on disk, see ``written_kernel``."""
    return function if isinstance(function, Dispatcher) else njit(error_model="numpy")(function)


def law_kernel(name: str, lines: list[str], names: dict[str, Any], functions: tuple[Any, ...], number: int) -> Any:
    """A kernel that calls functions of a law; an error says so where numba cannot compile them."""
    ours = all(isinstance(each, Dispatcher) and each.__module__.startswith("solvers.") for each in functions)
    label = "_".join(["kernel", name, *(each.__name__ for each in functions), str(number)]) if ours else "kernel"
    try:
        return written_kernel(label, lines, names, cache=ours).ready()
    except NumbaError as error:
        which = " or ".join(each.__name__ for each in functions)
        reason = str(error).strip().splitlines()
        raise InvalidArgumentError(
            f"numba cannot compile {which} for u, a tuple of numbers: {' '.join(reason[:4])[:300]}. Use numbers, "
            "tuples, and functions of math or numpy on numbers."
        ) from None
