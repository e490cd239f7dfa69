"""Open systems whose walls are measured, and trajectories of them.

Data of the walls are sums of cosines in time; initial fields are Gaussian. All quantities are dimensionless, and the
domain is the unit interval or square.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from experiments.errors import require_at_least
from experiments.records.release import data_version
from experiments.records.storage import cached_arrays, writable_folder
from experiments.records.store import as_json, config_hash
from probconserv.rollout.trajectories import Setting
from solvers import (
    MUSCL,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    Diffusion,
    Dirichlet,
    Field,
    GaussianField,
    LeastCost,
    Matern,
    Neumann,
    NodeGrid,
    Robin,
    ScalarLaw,
    ShallowWater,
    solve,
    solve_system,
)
from solvers.grids import Grid
from solvers.problems.operator_problems.problem import restrict
from solvers.systems.laws import HLL
from solvers.systems.solve import SystemOptions

Split = Literal["training", "validation", "test"]
STREAMS: Mapping[Split, int] = {"training": 0, "validation": 1, "test": 2}
Pair = tuple[Tensor, Tensor]
WAVES = 5
"""Cosines in time of which the data of a wall are made, with frequencies between .5 and 6."""


class Trajectories(NamedTuple):
    """Fields at equal steps, and what is known of the walls.

    Attributes:
        fields: u ``(b, t, c, *space)``.
        walls: Per axis what ``Rollout`` takes for (first, last): values ``(b, t, m, *face)`` at the times, or fluxes
            that are integrated over the steps ``(b, t − 1, k, *face)``.
        media: Coefficients ``(b, m, *space)``; None where all functions have the same.
    """

    fields: Tensor
    walls: tuple[Pair, ...]
    media: Tensor | None = None


@dataclass(frozen=True)
class Signals:
    """Σ a cos(ωt + φ), several at once; every number ``(b, WAVES)``."""

    amplitude: Tensor
    frequency: Tensor
    phase: Tensor

    @classmethod
    def drawn(cls, count: int, size: float, generator: Generator) -> "Signals":
        """Random ones of variance ``size``²/2."""
        amplitude = torch.randn(count, WAVES, generator=generator, dtype=torch.float64) * size / WAVES**0.5
        frequency, phase = torch.rand(2, count, WAVES, generator=generator, dtype=torch.float64)
        return cls(amplitude, 0.5 + 5.5 * frequency, 2 * torch.pi * phase)

    def __call__(self, t: Any) -> Tensor:
        """At a time ``(b,)``, or at many ``(k, 1)`` as ``(k, b)``."""
        time = torch.as_tensor(t, dtype=torch.float64)[..., None]
        return (self.amplitude * torch.cos(self.frequency * time + self.phase)).sum(dim=-1)


@dataclass(frozen=True, kw_only=True)
class OpenSystem(ABC):
    """A problem whose walls are open and measured.

    Args:
        interval: Time of a step.
        intervals: Cells, or intervals between nodes, along every axis.
        refinement: Cells of the reference solution in each of them.

    Attributes:
        conditions: What an operator at nodes can meet at the walls; None at cells.
        conserved: Channels that have a balance.
        open_axes: Axes whose sides are open.
    """

    name: str
    interval: float = 0.05
    intervals: int = 128
    refinement: int = 2

    dimension: ClassVar[int] = 1
    conditions: ClassVar[tuple[Any, ...] | None] = None
    channels: ClassVar[int] = 1
    conserved: ClassVar[tuple[int, ...] | None] = None
    open_axes: ClassVar[tuple[int, ...]] = (0,)

    def __post_init__(self) -> None:
        require_at_least(self, intervals=8, refinement=1)

    @abstractmethod
    def draw(self, count: int, times: Tensor, generator: Generator) -> Trajectories:
        """Trajectories at times ``(t,)``, the first of them 0, solved."""

    @property
    def grid(self) -> Grid:
        """Points of the fields."""
        d, n = self.dimension, self.intervals
        if self.conditions is None:
            return CellGrid((0.0,) * d, (1.0,) * d, (n,) * d)
        return NodeGrid((0.0,) * d, (1.0,) * d, (n + 1,) * d)

    @property
    def cells(self) -> CellGrid:
        """Cells of the reference solution."""
        d, n = self.dimension, self.intervals * self.refinement
        return CellGrid((0.0,) * d, (1.0,) * d, (n,) * d)

    @property
    def flux(self) -> Any:
        """The flux by the value at a wall and its data; None where the data are fluxes, or values."""
        return None

    @property
    def source(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The source by field and time."""
        return None

    @property
    def setting(self) -> Setting:
        """Grid, conditions and law, as emulators take them."""
        law = {"flux": self.flux, "source": self.source, "conserved": self.conserved}
        known = {name: part for name, part in law.items() if part is not None}
        return Setting.of(self.grid, self.conditions, known, self.interval)

    def times(self, steps: int) -> Tensor:
        """The start and the ends of steps."""
        return self.interval * torch.arange(steps + 1, dtype=torch.float64)

    def trajectories(self, split: Split, count: int, steps: int, seed: int, folder: Path) -> Trajectories:
        """Trajectories from their file, or solved and kept there."""
        key = {"system": as_json(self), "split": split, "count": count, "steps": steps, "seed": seed}
        name = config_hash({**key, "data_version": data_version("open_rollouts")})
        path = writable_folder(folder) / f"open-{self.name}-{split}-{name}.safetensors"

        def build() -> dict[str, Any]:
            drawn = self.draw(count, self.times(steps), Generator().manual_seed(10 * seed + STREAMS[split]))
            sides = {
                f"walls_{axis}_{last}": side for axis, pair in enumerate(drawn.walls) for last, side in enumerate(pair)
            }
            parts = {"fields": drawn.fields, **sides, **({} if drawn.media is None else {"media": drawn.media})}
            return {key: value.float().numpy() for key, value in parts.items()}

        notes = {"location": self.grid.location, "axes": "function, t, channel, x", "units": "dimensionless"}
        arrays = {key: torch.from_numpy(value) for key, value in cached_arrays(path, build, notes).items()}
        walls = tuple((arrays[f"walls_{axis}_0"], arrays[f"walls_{axis}_1"]) for axis in range(self.dimension))
        return Trajectories(arrays["fields"], walls, arrays.get("media"))

    def _smooth(self, count: int, deviation: float, generator: Generator) -> Tensor:
        """Gaussian fields at the cells ``(count, *cells)`` of this deviation."""
        level, d = (Neumann(gradient=0.0), Neumann(gradient=0.0)), self.dimension
        spectrum = Matern(amplitude=1.0, inverse_length=10.0, smoothness=4.0)
        random = GaussianField(
            low=(0.0,) * d, high=(1.0,) * d, spectrum=spectrum, boundary=(level,) * d, modes=24 if d == 1 else 12
        )
        drawn = random.values(random.draw(count, generator=generator), self.cells)
        return drawn * deviation / random.variance(self.cells).mean().sqrt()


def _conductivity(u: float, k: float, rise: float) -> float:
    return k * (1.0 + rise * u * u)


def _growth(u: float, rate: float) -> float:
    return rate * (u - u**3)


@dataclass(frozen=True, kw_only=True)
class Heat(OpenSystem):
    """u_t = (k uₓ)ₓ + s, k = conductivity·(1 + rise·u²), s = growth·(u − u³); ∂u/∂x is given at both walls."""

    conductivity: float = 0.03
    rise: float = 1.0
    growth: float = 0.0

    conditions: ClassVar = ((Neumann(), Neumann()),)

    def draw(self, count: int, times: Tensor, generator: Generator) -> Trajectories:
        start = self._smooth(count, 0.7, generator)
        gradients = [Signals.drawn(count, 1.0, generator) for _ in range(2)]
        conditions = (Neumann(gradient=gradients[0]), Neumann(gradient=gradients[1]))
        parameters = {"k": self.conductivity, "rise": self.rise}
        law = ScalarLaw(conductivity=_conductivity, parameters=parameters)
        if self.growth:
            law = replace(law, source=_growth, parameters={**parameters, "rate": self.growth})
        solution = solve(law, self.cells, conditions, start, times=times[1:], stepper=LeastCost())
        data = [signal(times[:, None]).mT for signal in gradients]
        at_times = (Neumann(gradient=data[0]), Neumann(gradient=data[1]))
        fields = restrict(torch.cat([start[:, None], solution.values], dim=1), (at_times,), self.intervals)
        walls = (data[0][..., None], data[1][..., None])
        return Trajectories(fields[:, :, None], (walls,))

    @property
    def flux(self) -> Callable[[Tensor, Tensor], Tensor]:
        return self.conducted

    def conducted(self, u: Tensor, slope: Tensor) -> Tensor:
        """The heat that passes a wall along x, by the value and its slope there."""
        return -self.conductivity * (1 + self.rise * u.square()) * slope

    @property
    def source(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        return (lambda u, _: self.growth * (u - u**3)) if self.growth else None


@dataclass(frozen=True, kw_only=True)
class ViscousBurgers(OpenSystem):
    """u_t + (u²/2)ₓ = viscosity·uₓₓ, u is given at both walls."""

    viscosity: float = 0.01

    conditions: ClassVar = ((Dirichlet(), Dirichlet()),)

    def draw(self, count: int, times: Tensor, generator: Generator) -> Trajectories:
        random, x = self._smooth(count, 0.7, generator), self.cells.points
        values = [Signals.drawn(count, 1.0, generator) for _ in range(2)]
        data = [signal(times[:, None]).mT for signal in values]
        ends = [side[:, :1] - random[:, end, None] for side, end in zip(data, (0, -1), strict=True)]
        start = random + ends[0] * (1 - x) + ends[1] * x
        conditions = (Dirichlet(values[0]), Dirichlet(values[1]))
        solution = solve(
            ConvectionDiffusion(Burgers(), Diffusion(self.viscosity)),
            self.cells,
            conditions,
            start,
            times=times[1:],
            stepper=LeastCost(),
        )
        averages = torch.cat([start[:, None], solution.values], dim=1)
        fields = restrict(averages, ((Dirichlet(data[0]), Dirichlet(data[1])),), self.intervals)
        return Trajectories(fields[:, :, None], ((data[0][..., None], data[1][..., None]),))


@dataclass(frozen=True, kw_only=True)
class RobinRod(OpenSystem):
    """u_t = (k uₓ)ₓ in random media; u ∓ length·uₓ is given at the walls, where k is ``conductivity``.

    Media are k = conductivity·exp(s), s Gaussian of deviation ``deviation`` inside and 0 at the walls.
    """

    intervals: int = 64
    conductivity: float = 0.03
    deviation: float = 0.7

    length: ClassVar = 0.2
    conditions: ClassVar[tuple[Any, ...]] = ((Robin(1.0, -0.2), Robin(1.0, 0.2)),)

    def draw(self, count: int, times: Tensor, generator: Generator) -> Trajectories:
        start, inside = self._smooth(count, 0.7, generator), torch.sin(torch.pi * self.cells.points).square()
        exponent = self._smooth(count, self.deviation, generator) * inside
        outside = [Signals.drawn(count, 1.0, generator) for _ in range(2)]
        data = [signal(times[:, None]).mT for signal in outside]
        conditions = tuple(replace(side, value=v) for side, v in zip(self.conditions[0], outside, strict=True))
        law = Diffusion(Field(self.conductivity * exponent.exp()))
        solution = solve(law, self.cells, conditions, start, times=times[1:], stepper=LeastCost())
        averages, part = torch.cat([start[:, None], solution.values], dim=1), self.cells.spacing[0] / (3 * self.length)
        slopes = []
        for sign, inner, g in ((1, averages, data[0]), (-1, averages.flip(-1), data[1])):  # of the parabola that fits
            wall = ((7 * inner[..., 0] - inner[..., 1]) / 6 + part * g) / (1 + part)
            slopes.append(Neumann(gradient=sign * (wall - g) / self.length))
        fields = restrict(averages, ((slopes[0], slopes[1]),), self.intervals)
        media = restrict(exponent, ((Neumann(gradient=0.0), Neumann(gradient=0.0)),), self.intervals)
        return Trajectories(fields[:, :, None], ((data[0][..., None], data[1][..., None]),), media[:, None])

    @property
    def flux(self) -> Any:
        k = self.conductivity / self.length
        return ((lambda u, g: -k * (u - g), lambda u, g: -k * (g - u)),)

    def conducted(self, _: Tensor, slope: Tensor) -> Tensor:
        """The heat that passes a wall along x, by the slope there."""
        return -self.conductivity * slope


@dataclass(frozen=True, kw_only=True)
class Channel(OpenSystem):
    """Shallow water (h, hv) between two gates whose discharges are measured, integrated over the steps."""

    refinement: int = 1

    channels: ClassVar = 2
    conserved: ClassVar = (0,)

    def draw(self, count: int, times: Tensor, generator: Generator) -> Trajectories:
        depth = 1 + self._smooth(count, 0.1, generator)
        start = torch.stack([depth, torch.zeros_like(depth)], dim=1)
        conditions = (_gate(Signals.drawn(count, 0.15, generator)), _gate(Signals.drawn(count, 0.15, generator)))
        step = float(times[-1] - times[0]) / 1000  # that of the data of this version
        scheme = SystemOptions(flux=HLL(), reconstruction=MUSCL(), courant=0.4, largest_step=step)
        solution = solve_system(ShallowWater(1.0), self.cells, conditions, start, times[1:], **scheme)
        averages = torch.cat([start[:, None], solution.values], dim=1)
        fields = averages.unflatten(-1, (self.intervals, self.refinement)).mean(dim=-1)
        passed = _passed(solution.boundary_flux[..., :1])
        return Trajectories(fields, (passed,))


@dataclass(frozen=True, kw_only=True)
class Plate(OpenSystem):
    """u_t = conductivity·Δu on a square; heat flows in through a part of the bottom and a part of the top."""

    intervals: int = 32
    conductivity: float = 0.03
    width: float = 0.1

    dimension: ClassVar = 2
    open_axes: ClassVar = (1,)

    def draw(self, count: int, times: Tensor, generator: Generator) -> Trajectories:
        start, x = self._smooth(count, 0.7, generator), self.cells.axes[0]
        insulated, heaters = (Neumann(flux=0.0), Neumann(flux=0.0)), []
        for _ in range(2):
            place = 0.2 + 0.6 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
            profile = torch.exp(-((x - place) / self.width).square() / 2)
            heaters.append(_Heater(Signals.drawn(count, 0.3, generator), profile))
        conditions = (insulated, (Neumann(flux=heaters[0]), Neumann(flux=heaters[1])))
        solution = solve(
            Diffusion(self.conductivity), self.cells, conditions, start, times=times[1:], stepper=LeastCost()
        )
        averages = torch.cat([start[:, None], solution.values], dim=1)
        n, r = self.intervals, self.refinement
        fields = averages.unflatten(-1, (n, r)).mean(dim=-1).unflatten(-2, (n, r)).mean(dim=-2)
        closed = torch.zeros(count, len(times) - 1, 1, n, dtype=torch.float64)
        sides = tuple(heater.passed(times, n) for heater in heaters)
        passed = ((closed, closed), (sides[0], sides[1]))
        return Trajectories(fields[:, :, None], passed)


@dataclass(frozen=True)
class _Heater:
    """A flux along +y whose profile ``(b, cells)`` rises and falls with time."""

    signal: Signals
    profile: Tensor

    def __call__(self, t: Any) -> Tensor:
        return self.signal(torch.as_tensor(t)[..., 0] if getattr(t, "ndim", 0) else t)[..., None] * self.profile

    def passed(self, times: Tensor, parts: int) -> Tensor:
        """The flux integrated over the steps, on coarser cells ``(b, t − 1, 1, parts)``."""
        signal = self.signal
        primitive = Signals(signal.amplitude / signal.frequency, signal.frequency, signal.phase - torch.pi / 2)
        coarse = self.profile.unflatten(-1, (parts, -1)).mean(dim=-1)
        return primitive(times[:, None]).mT.diff(dim=1)[..., None, None] * coarse[:, None, None]


SYSTEMS: tuple[OpenSystem, ...] = (
    Heat(name="heat"),
    Heat(name="reaction", conductivity=0.02, rise=0.0, growth=1.0),
    ViscousBurgers(name="burgers"),
    Channel(name="channel"),
    Plate(name="plate"),
    RobinRod(name="robin"),
)


def _gate(discharge: Signals) -> Dirichlet:
    """The state beyond a gate: depth 1 and a discharge."""
    return Dirichlet(lambda t: torch.stack([torch.ones_like(discharge(t)), discharge(t)], dim=-1))


def _passed(budget: Tensor) -> Pair:
    """Fluxes through the two sides of an interval in every step ``(b, t − 1, 1)``, from those since the start.

    The budget is ``(b, t, sides)``, or ``(b, t, sides, 1)`` of a system.
    """
    budget = budget.reshape(*budget.shape[:2], 2)
    each = torch.cat([torch.zeros_like(budget[:, :1]), budget], dim=1).diff(dim=1)
    return each[..., :1], each[..., 1:]
