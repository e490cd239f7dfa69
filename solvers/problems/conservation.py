"""The five conservation problems: law, domain, conditions, closed form, training and test parameters.

A problem has one scalar parameter; all its functions take a batch of it.
Source: Hansen et al. 2023, sec. 4 and appendix B.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from solvers.conditions import AxisConditions, Dirichlet, Outflow, Periodic
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.laws.laws import Advection, Burgers, Diffusion, Law, PorousMedium, Stefan
from solvers.grids import CellGrid
from solvers.problems import exact
from solvers.problems.exact import Value

Field = Callable[[Value, Value, Value], Tensor]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A conservation law on an interval with initial and boundary data, one scalar parameter and a closed form.

    Args:
        name: Name on the command line and in files.
        symbol: The parameter's symbol in tables.
        domain: Ends of the interval.
        final_time: Last time of the training data.
        test_time: Time of the tables.
        training_range: Interval of the parameter in training.
        test_parameters: Parameters in tables.
        law: Parameter ``(*batch,)`` → conservation law.
        boundary: Parameter ``(*batch,)`` → conditions at the two ends, for ``solve``.
        solution: (t, x, parameter) → field, broadcasting.
        antiderivative: (t, x, parameter) → antiderivative of the field in x, broadcasting.
        total: (t, parameter) → conserved total ∫ u dx over the domain, broadcasting.
        boundary_flux: (t, parameter) → fluxes through the first and the last end, positive along +x, broadcasting.
        front: (t, parameter) → position of the front or shock; None without one.
        front_level: Parameter → level of the front: the front is the first point where the field is at or below it.
        bounds: Lower and upper bound of the field for this parameter, or None without bounds.
        monotone: Whether the field never increases along x.

    Raises:
        InvalidArgumentError: If an interval is empty or a time is not within (0, final_time].
    """

    name: str
    symbol: str
    domain: tuple[float, float]
    final_time: float
    test_time: float
    training_range: tuple[float, float]
    test_parameters: tuple[float, ...]
    law: Callable[[Value], Law]
    boundary: Callable[[Value], AxisConditions]
    solution: Field
    antiderivative: Field
    total: Callable[[Value, Value], Tensor]
    boundary_flux: Callable[[Value, Value], tuple[Tensor, Tensor]]
    front: Callable[[Value, Value], Tensor] | None = None
    front_level: Callable[[Value], Tensor] | None = None
    bounds: Callable[[Value], tuple[Tensor, Tensor]] | None = None
    monotone: bool = False

    def __post_init__(self) -> None:
        for name in ("domain", "training_range"):
            low, high = getattr(self, name)
            if not low < high:
                raise InvalidArgumentError(f"{name} of problem '{self.name}' needs low < high, got ({low}, {high}).")
        if not 0 < self.test_time <= self.final_time:
            raise InvalidArgumentError(
                f"test_time of problem '{self.name}' must lie within (0, final_time = {self.final_time}], "
                f"got {self.test_time}."
            )
        if (self.front is None) != (self.front_level is None):
            raise InvalidArgumentError(f"Problem '{self.name}' needs front and front_level, or neither.")

    def averages(self, t: Value, grid: CellGrid, parameter: Value) -> Tensor:
        """Exact averages ``(*batch, n)``, float64, of cells within the domain for parameters ``(*batch,)``."""
        t, parameter = (torch.as_tensor(value, dtype=torch.float64)[..., None] for value in (t, parameter))
        return self.antiderivative(t, grid.faces[0], parameter).diff(dim=-1) / grid.spacing[0]

    def initial(self, grid: CellGrid, parameter: Value) -> Tensor:
        """Exact cell averages ``(*batch, n)`` of the initial field."""
        return self.averages(0.0, grid, parameter)


def _porous_medium_boundary(exponent: Value) -> AxisConditions:
    return Dirichlet(lambda time: exact.porous_medium_inflow(time, exponent)), Dirichlet(0.0)


def _unit_bounds(parameter: Value) -> tuple[Tensor, Tensor]:
    return _constant(0.0)(parameter), _constant(1.0)(parameter)


def _constant(level: float) -> Callable[[Value], Tensor]:
    return lambda parameter: torch.full_like(torch.as_tensor(parameter, dtype=torch.float64), level)


DIFFUSION = Problem(
    name="diffusion",
    symbol="k",
    domain=(0.0, 2 * pi),
    final_time=1.0,
    test_time=0.5,
    training_range=(1.0, 5.0),
    test_parameters=(1.0, 5.0),
    law=Diffusion,
    boundary=lambda diffusivity: (Periodic(), Periodic()),  # noqa: ARG005 - one signature for all problems
    solution=exact.diffusion,
    antiderivative=exact.diffusion_antiderivative,
    total=exact.diffusion_total,
    boundary_flux=exact.diffusion_boundary_flux,
    bounds=lambda diffusivity: (_constant(-1.0)(diffusivity), _constant(1.0)(diffusivity)),
)

POROUS_MEDIUM = Problem(
    name="porous_medium",
    symbol="m",
    domain=(0.0, 1.0),
    final_time=1.0,
    test_time=0.5,
    training_range=(1.0, 6.0),
    test_parameters=(1.0, 3.0, 6.0),
    law=PorousMedium,
    boundary=_porous_medium_boundary,
    solution=exact.porous_medium,
    antiderivative=exact.porous_medium_antiderivative,
    total=exact.porous_medium_total,
    boundary_flux=exact.porous_medium_boundary_flux,
    front=exact.porous_medium_front,
    front_level=_constant(0.0),
    bounds=lambda exponent: (_constant(0.0)(exponent), exact.porous_medium_inflow(1.0, exponent)),
    monotone=True,
)

STEFAN = Problem(
    name="stefan",
    symbol="u*",
    domain=(0.0, 1.0),
    final_time=0.1,
    test_time=0.05,
    training_range=(0.55, 0.7),
    test_parameters=(0.6, 0.5),
    law=Stefan,
    boundary=lambda threshold: (Dirichlet(1.0), Dirichlet(0.0)),  # noqa: ARG005 - one signature for all problems
    solution=exact.stefan,
    antiderivative=exact.stefan_antiderivative,
    total=exact.stefan_total,
    boundary_flux=exact.stefan_boundary_flux,
    front=exact.stefan_front,
    front_level=_constant(0.0),
    bounds=_unit_bounds,
    monotone=True,
)

ADVECTION = Problem(
    name="advection",
    symbol="a",
    domain=(0.0, 1.0),
    final_time=1.0,
    test_time=0.1,
    training_range=(1.0, 5.0),
    test_parameters=(1.0, 3.0),
    law=Advection,
    boundary=lambda speed: (Dirichlet(1.0), Outflow()),  # noqa: ARG005 - one signature for all problems
    solution=exact.advection,
    antiderivative=exact.advection_antiderivative,
    total=exact.advection_total,
    boundary_flux=exact.advection_boundary_flux,
    front=exact.advection_front,
    front_level=_constant(0.5),
    bounds=_unit_bounds,
    monotone=True,
)

BURGERS = Problem(
    name="burgers_shock",
    symbol="a",
    domain=(-1.0, 1.0),
    final_time=1.0,
    test_time=0.5,
    training_range=(1.0, 4.0),
    test_parameters=(1.0, 3.0),
    law=lambda slope: Burgers(),  # noqa: ARG005 - one signature for all problems
    boundary=lambda slope: (Dirichlet(slope), Outflow()),
    solution=exact.burgers,
    antiderivative=exact.burgers_antiderivative,
    total=exact.burgers_total,
    boundary_flux=exact.burgers_boundary_flux,
    front=exact.burgers_front,
    front_level=lambda slope: 0.5 * torch.as_tensor(slope, dtype=torch.float64),
    bounds=lambda slope: (_constant(0.0)(slope), torch.as_tensor(slope, dtype=torch.float64)),
    monotone=True,
)

PROBLEMS = {problem.name: problem for problem in (DIFFUSION, POROUS_MEDIUM, STEFAN, ADVECTION, BURGERS)}
