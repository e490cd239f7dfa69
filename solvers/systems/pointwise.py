"""Systems whose flux is a function of numbers: it is compiled when the law is first used."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from typing import Any

from numba import njit
from numba.core.dispatcher import Dispatcher
from numba.core.errors import NumbaError

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.march.kernels import Kernel, carray

State = tuple[float, ...]
_ARGUMENTS = "u_, p_, c_, d_, out_, f_, g_, count, axis"


@dataclass(frozen=True, kw_only=True)
class PointFunctions:
    """A law at one point: plain functions that numba can compile.

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
        """Names of the c unknowns, in order, for ``dimension`` space axes."""

    @abstractmethod
    def functions(self, dimension: int) -> PointFunctions:
        """The law at one point, for ``dimension`` space axes."""


@lru_cache
def fluxes_kernel(functions: PointFunctions, components: int, dimension: int) -> Kernel:
    """Fluxes of states along an axis, slowest and fastest wave; NaN for the waves where a state is not admissible."""
    each = range(components)
    lines = [f"u, p, out = carray(u_, ({components}, count)), carray(p_, 1), carray(out_, ({components + 2}, count))"]
    lines += [f"u{k}, f{k} = u[{k}], out[{k}]" for k in each]
    lines += [f"slow, fast = out[{components}], out[{components + 1}]"]
    state = f"({''.join(f'u{k}[i], ' for k in each)})"
    exists = f"exists({state}{_listed(functions)})" if functions.admissible else "True"
    for axis in range(dimension):
        given = f"{state}, {axis}{_listed(functions)}"
        lines += [
            f"if axis == {axis}:",
            "    for i in range(count):",
            f"        f, w, fine = flux({given}), eigenvalues({given}), {exists}",
            *(f"        f{k}[i] = f[{k}]" for k in each),
            "        slow[i] = min(w) if fine else nan",
            "        fast[i] = max(w) if fine else nan",
        ]
    names = {"flux": functions.flux, "eigenvalues": functions.eigenvalues, "exists": functions.admissible}
    return law_kernel("fluxes", lines, names, components)


@lru_cache
def check_kernel(functions: PointFunctions, components: int) -> Kernel:
    """Whether states are finite and admissible."""
    each = range(components)
    finite = " + ".join(f"(u{k}[i] - u{k}[i])" for k in each)
    state = f"({''.join(f'u{k}[i], ' for k in each)})"
    also = f" and exists({state}{_listed(functions)})" if functions.admissible else ""
    lines = [f"u, p, good = carray(u_, ({components}, count)), carray(p_, 1), carray(out_, count)"]
    lines += [f"u{k} = u[{k}]" for k in each]
    lines += ["for i in range(count):", f"    good[i] = 1.0 if {finite} == 0.0{also} else 0.0"]
    return law_kernel("check", lines, {"exists": functions.admissible}, components)


@lru_cache
def mirror_kernel(functions: PointFunctions, components: int) -> Kernel:
    """States as a wall across an axis mirrors them."""
    each = range(components)
    lines = [f"u, p, out = carray(u_, ({components}, count)), carray(p_, 1), carray(out_, ({components}, count))"]
    lines += [
        "for i in range(count):",
        f"    v = mirror(({''.join(f'u[{k}, i], ' for k in each)}), axis{_listed(functions)})",
    ]
    lines += [f"    out[{k}, i] = v[{k}]" for k in each]
    return law_kernel("mirror", lines, {"mirror": functions.reflect}, components)


def _listed(functions: PointFunctions) -> str:
    """The parameters, as further arguments."""
    return "".join(f", p[{k}]" for k in range(len(functions.parameters)))


def law_kernel(name: str, lines: list[str], functions: dict[str, Any], number: int) -> Kernel:
    """A kernel from the lines of its body, which call functions of a law; an error where numba cannot compile them.

    It is cached on disk for functions of this package alone, by a name that differs for each of them and each number:
    numba does not see that a function has changed that a kernel calls.
    """
    given = {key: each for key, each in functions.items() if each is not None}
    ours = all(isinstance(each, Dispatcher) and each.__module__.startswith("solvers.") for each in given.values())
    label = "_".join(["kernel", name, *(each.__name__ for each in given.values()), str(number)]) if ours else "kernel"
    source = "\n    ".join([f"def {label}({_ARGUMENTS}):", *lines])
    names: dict[str, Any] = {key: compiled_function(each) for key, each in given.items()}
    names |= {"carray": carray, "nan": nan, "__name__": __name__}  # where numba looks for the globals of cached code
    exec(compile(source, __file__, "exec"), names)
    kernel = Kernel(names[label], cache=ours)
    try:
        _ = kernel.address
    except NumbaError as error:
        which = " or ".join(each.__name__ for each in given.values())
        reason = str(error).strip().splitlines()
        raise InvalidArgumentError(
            f"numba cannot compile {which} for u, a tuple of numbers: {' '.join(reason[:4])[:300]}. Use numbers, "
            "tuples, and functions of math or numpy on numbers."
        ) from None
    return kernel


def compiled_function(function: Callable[..., Any]) -> Any:
    """The function for numba."""
    return function if isinstance(function, Dispatcher) else njit(error_model="numpy")(function)
