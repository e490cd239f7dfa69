"""The standard problems: viscous Burgers, a growing population, Darcy flow, a stirred box, a basin.

``recipe`` has the resolution and sizes. ``beyond`` are the sizes of the data of the sides in units of the largest in
training, for tests out of range; None for those of training.
"""

from dataclasses import dataclass
from math import pi
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import Dirichlet, Neumann
from solvers.data_files.field_set import FieldSet
from solvers.finite_volume.convection.schemes import MUSCL
from solvers.finite_volume.laws.coefficients import FaceVelocity, Field
from solvers.finite_volume.laws.laws import Burgers, ConvectionDiffusion, Diffusion, Logistic, Transport
from solvers.finite_volume.solve import solve
from solvers.finite_volume.steppers.steppers import LeastCost
from solvers.grids import CellGrid, Grid, NodeGrid
from solvers.problems.operator_problems.problem import (
    LEVEL,
    ZERO,
    Beyond,
    Draws,
    OperatorProblem,
    Recipe,
    draw_field,
    draw_uniform,
    field_beyond,
    field_values,
    random_field,
    restrict,
    uniform_beyond,
)
from solvers.random_fields import log_normal, two_phase
from solvers.steady.linear import Direct
from solvers.steady.solve import node_values, solve_steady
from solvers.systems.boundary import Reflecting
from solvers.systems.laws import HLL, ShallowWater
from solvers.systems.solve import solve_system

_TENTHS = tuple(n / 10 for n in range(1, 11))
_WAVES = random_field(0.5, 15.0, 40, LEVEL, smoothness=1.5)


@dataclass(frozen=True, kw_only=True)
class ViscousBurgers(OperatorProblem):
    """u_t + (u²/2)_x = ν u_xx with random values at both ends that are independent of the initial field.

    The initial field has 40 cosines and standard deviation 0.5; the values at the ends are constants in [−1, 1], which
    it does not meet: layers and shocks as thin as ν form at once.

    Args:
        viscosity: ν.
    """

    viscosity: float = 1e-3
    beyond: Beyond = None
    recipe: Recipe = Recipe(intervals=256, refinement=4, times=_TENTHS, error=0.005)

    name: ClassVar[str] = "viscous_burgers"
    inputs: ClassVar[tuple[str, ...]] = ("u",)
    conditions: ClassVar[tuple[tuple[str, str], ...]] = (("Dirichlet", "Dirichlet"),)
    data: ClassVar[str] = "u at the start in 40 modes, u at both ends"

    @property
    def equation(self) -> str:
        return f"u_t + (u^2/2)_x = {self.viscosity:g} u_xx"

    def draw(self, random: np.random.Generator) -> dict[str, Tensor]:
        return {
            "initial": draw_field(_WAVES, random),
            **{name: uniform_beyond(draw_uniform(-1.0, 1.0, random), 1.0, self.beyond) for name in ("left", "right")},
        }

    def evaluate(self, draws: Draws, refinement: int | None = None) -> FieldSet:
        cells, left, right = self.cells(refinement), draws["left"], draws["right"]
        law = ConvectionDiffusion(Burgers(), Diffusion(self.viscosity))
        initial = field_values(_WAVES, draws["initial"], cells)
        sides, times = (Dirichlet(left), Dirichlet(right)), self.recipe.times
        solution = solve(law, cells, sides, initial, times, stepper=LeastCost())
        ends = (Dirichlet(left[:, None]), Dirichlet(right[:, None]))
        later = restrict(solution.values, (ends,), self.recipe.intervals)
        start = field_values(_WAVES, draws["initial"], self.nodes)[:, None]
        return self.field_set({"u": torch.cat([start, later], dim=1)}, {}, ((left, right),))


_MEDIUM = random_field(0.7, 10.0, 12, LEVEL)
_POPULATION = random_field(1.5, 15.0, 20, LEVEL)


@dataclass(frozen=True, kw_only=True)
class ReactionDiffusion(OperatorProblem):
    """u_t = (k(x) u_x)_x + r u (1 − u) (Fisher; Kolmogorov, Petrovsky, Piskunov): u at the left end, u_x at the right.

    k is log-normal with a given median. The initial field is Φ(v − 1) with the normal distribution function Φ and a
    Gaussian field v, so that it lies between 0 and 1 and is near 0 in places. The left value is in [0, 1] and the right
    gradient in [0, 2], an inflow: u stays positive.

    Args:
        median: Median of k.
        rate: r.
    """

    median: float = 0.01
    rate: float = 5.0
    beyond: Beyond = None
    recipe: Recipe = Recipe(intervals=128, refinement=4, times=_TENTHS, error=0.002)

    name: ClassVar[str] = "reaction_diffusion"
    inputs: ClassVar[tuple[str, ...]] = ("conductivity", "u")
    conditions: ClassVar[tuple[tuple[str, str], ...]] = (("Dirichlet", "Neumann"),)
    data: ClassVar[str] = "k(x), u at the start, u on the left, ∂u/∂x on the right"

    @property
    def equation(self) -> str:
        return f"u_t = (k u_x)_x + {self.rate:g} u (1 - u)"

    def draw(self, random: np.random.Generator) -> dict[str, Tensor]:
        return {
            "medium": draw_field(_MEDIUM, random),
            "initial": draw_field(_POPULATION, random),
            "left": uniform_beyond(draw_uniform(0.0, 1.0, random), 1.0, self.beyond),
            "right": uniform_beyond(draw_uniform(0.0, 2.0, random), 2.0, self.beyond),
        }

    def evaluate(self, draws: Draws, refinement: int | None = None) -> FieldSet:
        cells, left, right = self.cells(refinement), draws["left"], draws["right"]
        solution = solve(
            Diffusion(Field(self._conductivity(draws, cells))),
            cells,
            (Dirichlet(left), Neumann(gradient=right)),
            _population(draws, cells),
            self.recipe.times,
            source=Logistic(self.rate),
            stepper=LeastCost(),
        )
        ends = (Dirichlet(left[:, None]), Neumann(gradient=right[:, None]))
        later = restrict(solution.values, (ends,), self.recipe.intervals)
        start = _population(draws, self.nodes)[:, None]
        return self.field_set(
            {"u": torch.cat([start, later], dim=1)},
            {"conductivity": self._conductivity(draws, self.nodes)},
            ((left, right),),
        )

    def _conductivity(self, draws: Draws, grid: Grid) -> Tensor:
        return log_normal(field_values(_MEDIUM, draws["medium"], grid), self.median)


def _population(draws: Draws, grid: Grid) -> Tensor:
    return torch.special.ndtr(field_values(_POPULATION, draws["initial"], grid) - 1)


_SUBDIVISIONS = 4
_MATERIAL = random_field(1.0, 6.0, 12, LEVEL, LEVEL)
_PRESSURE = random_field(0.3, 3.0, 8, LEVEL)
_GRADIENT = random_field(0.5, 3.0, 8, ZERO)
SIDES = {"left": _PRESSURE, "right": _PRESSURE, "bottom": _GRADIENT, "top": _GRADIENT}


@dataclass(frozen=True, kw_only=True)
class Darcy(OperatorProblem):
    """−∇·(k ∇u) = f with k of two values; u is given on the sides of axis 0, ∂u/∂y on those of axis 1.

    The phases are the sets where a smooth random field, 12 half waves along each axis, is below and above 0. Their
    interface is a curve, and cells that it cuts have the geometric mean of k over 4 × 4 points: the solution
    converges at about first order. Phases drawn cell by cell would meet at points and converge far slower. Values on
    the sides of axis 0 have no slope at the corners and gradients on the others vanish there, so that they agree.

    Args:
        conductivities: k below and above.
        source: f.
    """

    conductivities: tuple[float, float] = (3.0, 12.0)
    source: float = 10.0
    beyond: Beyond = None
    recipe: Recipe = Recipe(intervals=32, refinement=4, error=0.01)

    name: ClassVar[str] = "darcy"
    inputs: ClassVar[tuple[str, ...]] = ("conductivity",)
    conditions: ClassVar[tuple[tuple[str, str], ...]] = (("Dirichlet", "Dirichlet"), ("Neumann", "Neumann"))
    data: ClassVar[str] = "two-phase k(x, y), u on two sides, ∂u/∂y on the others"

    @property
    def equation(self) -> str:
        low, high = self.conductivities
        return f"-div(k grad u) = {self.source:g}, k = {low:g} or {high:g}"

    def draw(self, random: np.random.Generator) -> dict[str, Tensor]:
        draws = {name: draw_field(field, random) for name, field in {"material": _MATERIAL, **SIDES}.items()}
        return draws | {name: field_beyond(field, draws[name], self.beyond, random) for name, field in SIDES.items()}

    def evaluate(self, draws: Draws, refinement: int | None = None) -> FieldSet:
        cells, n = self.cells(refinement), self.recipe.intervals
        every = cells.count[0] // n
        solution = solve_steady(
            self._averages(draws, cells),
            cells,
            _conditions(*_sides(draws, cells)),
            self.source,
            solver=Direct(),
        )
        corners = NodeGrid(cells.low, cells.high, tuple(count + 1 for count in cells.count))
        u = node_values(solution, _conditions(*_sides(draws, corners)))[:, None, ::every, ::every]
        left, right, bottom, top = _sides(draws, self.nodes)
        u[:, 0, 0], u[:, 0, -1] = left, right
        return self.field_set(
            {"u": u}, {"conductivity": self._conductivity(draws, self.nodes)}, ((left, right), (bottom, top))
        )

    def _averages(self, draws: Draws, cells: CellGrid) -> Tensor:
        """Geometric means of k over the cells."""
        shape = tuple(size for n in cells.count for size in (n, _SUBDIVISIONS))
        points = CellGrid(cells.low, cells.high, tuple(_SUBDIVISIONS * n for n in cells.count))
        return self._conductivity(draws, points).log().reshape(-1, *shape).mean((2, 4)).exp()

    def _conductivity(self, draws: Draws, grid: Grid) -> Tensor:
        return two_phase(field_values(_MATERIAL, draws["material"], grid), *self.conductivities)


def _sides(draws: Draws, grid: Grid) -> tuple[Tensor, ...]:
    """Data of the four sides at the points of a grid along them ``(b, n)``."""
    line = type(grid)(grid.low[0], grid.high[0], grid.count[0])  # pyright: ignore[reportCallIssue]
    return tuple(field_values(field, draws[name], line) for name, field in SIDES.items())


def _conditions(left: Tensor, right: Tensor, bottom: Tensor, top: Tensor) -> tuple:
    return (Dirichlet(left), Dirichlet(right)), (Neumann(gradient=bottom), Neumann(gradient=top))


_MODES = 4
_STREAM = random_field(0.1, 5.0, _MODES, ZERO, ZERO)
_ALONG = tuple(
    random_field(1.0, 5.0, _MODES, *(LEVEL if other == axis else ZERO for other in range(2))) for axis in range(2)
)  # only their eigenfunctions count: cosines along the axis of a derivative of the stream function
_HEAT = random_field(0.5, 6.0, 8, LEVEL, LEVEL)
WALL = random_field(0.5, 3.0, 6, LEVEL)


@dataclass(frozen=True, kw_only=True)
class AdvectionDiffusion(OperatorProblem):
    """u_t + ∇·(v u) = κ ∇²u in a box: u is given on the walls of axis 0, those of axis 1 are insulated.

    v = (∂ψ/∂y, −∂ψ/∂x) with a random stream function ψ that is 0 on all walls: v is free of divergence, on faces to
    round-off, and does not cross the walls.

    Args:
        diffusivity: κ.
    """

    diffusivity: float = 0.01
    beyond: Beyond = None
    recipe: Recipe = Recipe(intervals=32, refinement=2, times=_TENTHS, error=0.02)

    name: ClassVar[str] = "advection_diffusion"
    inputs: ClassVar[tuple[str, ...]] = ("velocity_x", "velocity_y", "u")
    conditions: ClassVar[tuple[tuple[str, str], ...]] = (("Dirichlet", "Dirichlet"), ("Neumann", "Neumann"))
    data: ClassVar[str] = "v(x, y) without divergence, u at the start, u on two walls"

    @property
    def equation(self) -> str:
        return f"u_t + div(v u) = {self.diffusivity:g} laplace(u), div v = 0"

    def draw(self, random: np.random.Generator) -> dict[str, Tensor]:
        fields = {"stream": _STREAM, "initial": _HEAT, "left": WALL, "right": WALL}
        draws = {name: draw_field(field, random) for name, field in fields.items()}
        return draws | {name: field_beyond(WALL, draws[name], self.beyond, random) for name in ("left", "right")}

    def evaluate(self, draws: Draws, refinement: int | None = None) -> FieldSet:
        cells, n = self.cells(refinement), self.recipe.intervals
        corners = NodeGrid(cells.low, cells.high, tuple(count + 1 for count in cells.count))
        velocity = FaceVelocity.from_stream_function(field_values(_STREAM, draws["stream"], corners), cells)
        insulated = (Neumann(gradient=0.0), Neumann(gradient=0.0))
        left, right = (_wall(draws[name], cells) for name in ("left", "right"))
        solution = solve(
            ConvectionDiffusion(Transport(velocity), Diffusion(self.diffusivity)),
            cells,
            ((Dirichlet(left), Dirichlet(right)), insulated),
            field_values(_HEAT, draws["initial"], cells),
            self.recipe.times,
            stepper=LeastCost(),
        )
        left, right = (_wall(draws[name], self.nodes) for name in ("left", "right"))
        walls = (Dirichlet(left[:, None]), Dirichlet(right[:, None]))
        later = restrict(solution.values, (walls, insulated), n)
        start = field_values(_HEAT, draws["initial"], self.nodes)[:, None]
        along_x, along_y = (_derivative(draws["stream"], axis, self.nodes) for axis in range(2))
        level = torch.zeros_like(left)
        return self.field_set(
            {"u": torch.cat([start, later], dim=1)},
            {"velocity_x": along_y, "velocity_y": -along_x},
            ((left, right), (level, level)),
        )


def _derivative(stream: Tensor, axis: int, grid: Grid) -> Tensor:
    """∂ψ/∂x along an axis at the points of a grid: d/dx sin kπx = kπ cos kπx."""
    waves = pi * torch.arange(_MODES + 1, dtype=torch.float64)
    coefficients = torch.nn.functional.pad(stream.movedim(axis - 2, -1), (1, 0)) * waves
    return field_values(_ALONG[axis], coefficients.movedim(-1, axis - 2), grid)


def _wall(coefficients: Tensor, grid: Grid) -> Tensor:
    """Values along a wall ``(b, n)``."""
    line = type(grid)(grid.low[1], grid.high[1], grid.count[1])  # pyright: ignore[reportCallIssue]
    return field_values(WALL, coefficients, line)


_BUMPS = 3
_WALLS = ((Reflecting(), Reflecting()),) * 2
_LEVEL, _STILL = (Neumann(gradient=0.0),) * 2, (Dirichlet(0.0),) * 2


@dataclass(frozen=True, kw_only=True)
class Basin(OperatorProblem):
    """Shallow water between four reflecting walls, at rest with three bumps of the surface at the start.

    The depth is 1 plus Gaussian bumps a exp(−|x − c|²/(2 r²)) with a in [−0.1, 0.2], r in [0.12, 0.18] and c in
    [0.1, 0.9]². The walls have no data: the momentum across them is 0 at their nodes, the total depth is constant.

    Args:
        gravity: g; long waves have speed √g.
    """

    gravity: float = 1.0
    recipe: Recipe = Recipe(intervals=32, refinement=3, times=_TENTHS, error=0.03)

    name: ClassVar[str] = "basin"
    inputs: ClassVar[tuple[str, ...]] = ("h",)
    conditions: ClassVar[tuple[tuple[str, str], ...]] = (("Reflecting", "Reflecting"),) * 2
    data: ClassVar[str] = "three bumps of the surface"

    @property
    def equation(self) -> str:
        return f"h_t + div(h v) = 0, (h v)_t + div(h v v) + grad(g h^2/2) = 0, g = {self.gravity:g}"

    def draw(self, random: np.random.Generator) -> dict[str, Tensor]:
        return {
            "centre": draw_uniform(0.1, 0.9, random, _BUMPS, 2),
            "height": draw_uniform(-0.1, 0.2, random, _BUMPS),
            "radius": draw_uniform(0.12, 0.18, random, _BUMPS),
        }

    def evaluate(self, draws: Draws, refinement: int | None = None) -> FieldSet:
        cells, n = self.cells(refinement), self.recipe.intervals
        depth = initial_depth(draws, cells)
        still = torch.zeros_like(depth)
        initial = torch.stack([depth, still, still], dim=1)
        solution = solve_system(
            ShallowWater(self.gravity),
            cells,
            _WALLS,
            initial,
            self.recipe.times,
            flux=HLL(),
            reconstruction=MUSCL(),
            courant=0.4,
        )
        mirrored = {"h": (_LEVEL, _LEVEL), "hu": (_STILL, _LEVEL), "hv": (_LEVEL, _STILL)}
        depth = initial_depth(draws, self.nodes)[:, None]
        fields = {
            name: torch.cat([torch.zeros_like(depth) if i else depth, restrict(u, sides, n)], dim=1)
            for i, ((name, sides), u) in enumerate(zip(mirrored.items(), solution.values.unbind(2), strict=True))
        }
        return self.field_set(fields, {})


def initial_depth(draws: Draws, grid: Grid) -> Tensor:
    """Depth at the start ``(b, *space)``."""
    centre, height, radius = (draws[name][:, None, None] for name in ("centre", "height", "radius"))
    squares = ((grid.points[..., None, :] - centre) ** 2).sum(-1)
    return 1 + (height * torch.exp(-squares / (2 * radius**2))).sum(-1)


OPERATOR_PROBLEMS: dict[str, OperatorProblem] = {
    problem.name: problem for problem in (ViscousBurgers(), ReactionDiffusion(), Darcy(), AdvectionDiffusion(), Basin())
}
"""The standard problems by name."""
