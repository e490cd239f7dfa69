"""Laws that a user writes as functions of numbers, compiled when they are first solved."""

import dis
import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from solvers._arguments import checked_values
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.laws import _scalar_kernels as kernels
from solvers.finite_volume.laws._scalar_kernels import Call
from solvers.finite_volume.laws.coefficients import Arguments, align
from solvers.finite_volume.laws.laws import ConvectiveLaw, DiffusiveLaw, Source
from solvers.finite_volume.laws.parametrised import Parametrised
from solvers.grids import CellGrid

Function = Callable[..., float]


@dataclass(frozen=True, kw_only=True)
class ScalarLaw:
    """u_t + ∇·f(u) = ∇·(k ∇u) + s by functions of numbers, which numba compiles; give a conductivity, a flux or both.

    Each function takes the state u first, then any of x, t and the names of ``parameters``, in any order, by these
    names. With several axes x is a tuple of numbers. A first solve compiles for about a second; a function that is
    defined anew is compiled anew. An example, a porous medium with growth for three exponents at once::

        def conductivity(u, m):
            return max(u, 0.0) ** m

        def growth(u, x, t):
            return 2.0 * u * (x - u)

        law = ScalarLaw(conductivity=conductivity, source=growth, parameters={"m": [1.0, 2.0, 3.0]})
        solve(law, CellGrid(0.0, 1.0, 200), (Dirichlet(1.0), Dirichlet(0.0)), 0.0, [0.1])

    Args:
        conductivity: k(u, …) ≥ 0. The flux between two cells takes its mean over the states between them by five
            points, exact for polynomials of degree 7 in u.
        potential: Φ(u, …) = ∫ k du, for a mean that is exact where k has kinks, too; required where it jumps.
        flux: f(u, …), the same along every axis.
        stationary_points: States where ∂f/∂u changes sign, for Godunov's flux; without them pass ``flux=Rusanov()``
            to ``solve``.
        inflection_points: States where ∂²f/∂u² changes sign, if they are known: time steps are then a tenth longer.
        source: s(u, …), on the right-hand side.
        parameters: Numbers, or arrays with one number per function of the batch ``(*batch,)``, by name.

    Raises:
        InvalidArgumentError: If neither conductivity nor flux is given, a function takes other arguments or raises
            errors itself, or a parameter is not finite.
    """

    conductivity: Function | None = None
    potential: Function | None = None
    flux: Function | None = None
    stationary_points: tuple[float, ...] | None = None
    inflection_points: tuple[float, ...] | None = None
    source: Function | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.conductivity is None and (self.flux is None or self.potential is not None):
            raise InvalidArgumentError(
                "ScalarLaw needs conductivity or flux, and with potential its derivative, the conductivity."
            )
        if not all(name.isidentifier() and name not in ("x", "t") for name in self.parameters):
            raise InvalidArgumentError(
                f"ScalarLaw: parameters must have names other than x and t, got {', '.join(map(str, self.parameters))}."
            )
        values = {name: checked_values(value, f"ScalarLaw: {name}") for name, value in self.parameters.items()}
        object.__setattr__(self, "parameters", values)
        taken = [self._given(name)[1].names for name in ("conductivity", "potential", "flux", "source")]
        unused = set(values) - {each for names in taken for each in names}
        if unused:
            raise InvalidArgumentError(
                f"ScalarLaw: no function takes {', '.join(sorted(unused))} of parameters; leave it out or name it "
                "as an argument."
            )

    @cached_property
    def diffusion(self) -> "ScalarDiffusion | None":
        """The diffusive part."""
        given = self._given("conductivity", "potential")
        return ScalarDiffusion(*given) if given[0] else None

    @cached_property
    def convection(self) -> "ScalarConvection | None":
        """The convective part."""
        given = self._given("flux")
        return ScalarConvection(*given, self.stationary_points, self.inflection_points) if given[0] else None

    @cached_property
    def reaction(self) -> "ScalarSource | None":
        """The source."""
        given = self._given("source")
        return ScalarSource(*given) if given[0] else None

    def check(self, grid: CellGrid) -> None:
        """Compiles the functions; an error where that fails or one does not return a number."""
        for part in (self.diffusion, self.convection, self.reaction):
            for name in part.functions if part else ():
                kernels.value_of(part.at(grid).call(name))  # type: ignore[union-attr]

    def _given(self, *names: str) -> tuple[dict[str, tuple[Function, tuple[str, ...]]], Arguments]:
        """Functions with what they take, and arguments that at least one of them takes."""
        functions = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        taken = {name: (each, _taken(name, each, tuple(self.parameters))) for name, each in functions.items()}
        used = {each for _, takes in taken.values() for each in takes}
        parameters = {name: value for name, value in self.parameters.items() if name in used}
        return taken, Arguments(
            names=tuple(parameters), values=tuple(parameters.values()), placed="x" in used, timed="t" in used
        )


def _taken(name: str, function: Any, parameters: tuple[str, ...]) -> tuple[str, ...]:
    """The names of what a function takes after the state; an error for others, or where it raises errors itself."""
    plain = getattr(function, "py_func", function)
    if not inspect.isfunction(plain):
        raise InvalidArgumentError(f"ScalarLaw: {name} must be a Python function of numbers, got {function!r}.")
    allowed, (first, *rest) = ("x", "t", *parameters), (*inspect.signature(plain).parameters.values(), None)
    takes = tuple(each.name for each in rest if each and (each.name in allowed or each.default is each.empty))
    if first is None or first.kind > first.POSITIONAL_OR_KEYWORD or not set(takes) <= set(allowed):
        raise InvalidArgumentError(
            f"ScalarLaw: {name} must take the state and then any of {', '.join(allowed)}, got {name}"
            f"{inspect.signature(plain)}; give other names a value in parameters."
        )
    if any(line.opname == "RAISE_VARARGS" for line in dis.get_instructions(plain)):
        raise InvalidArgumentError(
            f"ScalarLaw: {name} raises an error or asserts, which compiled steps cannot pass on; return math.nan there."
        )
    return takes


@dataclass(frozen=True, eq=False)
class AtPoints(Parametrised):
    """Parts of a ``ScalarLaw``: functions with what they take, and the arguments."""

    functions: Mapping[str, tuple[Function, tuple[str, ...]]]
    arguments: Arguments

    label: ClassVar = "ScalarLaw"

    @property
    def varies_in_space(self) -> bool:
        return not self.arguments.bound

    @property
    def varies_in_time(self) -> bool:
        return self.arguments.timed and not self.arguments.bound

    def at(self, grid: CellGrid, time: float | Tensor = 0.0, axis: int | None = None, periodic: bool = False) -> Any:
        return replace(self, arguments=self.arguments.at(grid, time, axis, periodic))  # type: ignore[type-var]

    def call(self, name: str) -> Call:
        """A function as the kernels take it, after ``at``."""
        function, takes = self.functions[name]
        return Call(name, function, takes, self.arguments.names)

    def value(self, name: str, u: Tensor) -> Tensor:
        """A function at states ``(*batch, *points)``."""
        return _Evaluated.apply(u, self, self.call(name))  # type: ignore[return-value]


@dataclass(frozen=True, eq=False)
class ScalarDiffusion(AtPoints, DiffusiveLaw):
    """The diffusive part of a ``ScalarLaw``."""

    def potential(self, u: Any) -> Any:
        return self.value("potential", u)

    def conductivity(self, u: Any) -> Any:
        return self.value("conductivity", u)

    def potential_difference(self, left: Any, right: Any) -> Any:
        return _evaluate(kernels.difference_of(*self.calls), self.arguments, left, right)

    @property
    def calls(self) -> tuple[Call, Call | None]:
        """Conductivity and, if it is given, potential."""
        return self.call("conductivity"), self.call("potential") if "potential" in self.functions else None


@dataclass(frozen=True, eq=False)
class ScalarConvection(AtPoints, ConvectiveLaw):
    """The convective part of a ``ScalarLaw``."""

    stationary: tuple[float, ...] | None
    inflection: tuple[float, ...] | None

    def convective_flux(self, u: Any) -> Any:
        return self.value("flux", u)

    def characteristic_speed(self, u: Any) -> Any:
        return _evaluate(kernels.slope_of(self.call("flux")), self.arguments, u)

    def stationary_points(self) -> tuple[float, ...] | None:
        return self.stationary

    def inflection_points(self) -> tuple[float, ...] | None:
        return self.inflection


@dataclass(frozen=True, eq=False)
class ScalarSource(AtPoints, Source):
    """The source of a ``ScalarLaw``."""

    label: ClassVar = "ScalarLaw: source"

    def __call__(self, u: Tensor, x: Tensor, t: Tensor) -> Tensor:  # noqa: ARG002 - they are among the arguments
        return self.value("source", u)


class _Evaluated(torch.autograd.Function):
    """A scalar function at states, with the derivative by them by differences."""

    @staticmethod
    def forward(context: Any, u: Tensor, part: AtPoints, call: Call) -> Tensor:  # type: ignore[override]
        context.given = part, call, u
        return _evaluate(kernels.value_of(call), part.arguments, u)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        part, call, u = context.given
        return gradient * _evaluate(kernels.slope_of(call), part.arguments, u), None, None


def _evaluate(function: Any, arguments: Arguments, *states: Tensor) -> Tensor:
    """A compiled function at one or two states ``(*batch, *points)``, of their precision."""
    first = states[0].detach().to("cpu", torch.float64)
    given = [first, *states[1:], *(align(each, first) for each in arguments.values)]
    parts = torch.broadcast_tensors(*given)
    flat = [part.contiguous().reshape(-1).numpy() for part in parts]
    columns, out = np.concatenate([np.zeros(1), *flat[len(states) :]])[1:], np.full(len(flat[0]), np.nan)
    pair = len(states) == 2
    with suppress(Exception):  # what raises after all gives no result
        kernels.points_of(function, pair)(flat[0], flat[1] if pair else flat[0], columns, out)
    return torch.from_numpy(out).reshape(parts[0].shape).to(states[0])
