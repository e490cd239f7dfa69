"""Random set-ups of ``solve``: law, sides, amplitude, offset, span, cells, data, pulses in the boundary, source."""

from dataclasses import dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import torch

from solvers import RKL2, SSPRK3, TRBDF2, BackwardEuler, CellGrid, Dirichlet, Neumann, Outflow, Periodic, Robin, solve
from tests.solvers.solve.random_laws import FAMILIES, Balance, Draw

_MOST_EXPLICIT_STEPS = 3000.0


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One call of ``solve`` and what is expected of it.

    Attributes:
        law: The law.
        grid: Cells.
        boundary: One pair of conditions per axis.
        initial: Initial cell averages ``(*batch, *space)``.
        times: Output times.
        options: Further options.
        data: Smallest and largest state that the sides prescribe ``(*batch,)``; infinite without any.
        bounds: Smallest and largest value that the maximum principle allows ``(*batch,)``, or None where it does not
            hold.
        label: What was drawn.
    """

    law: Any
    grid: CellGrid
    boundary: tuple[tuple[Any, Any], ...]
    initial: torch.Tensor
    times: list[float]
    options: dict[str, Any] = field(default_factory=dict)
    data: tuple[np.ndarray, np.ndarray]
    bounds: tuple[np.ndarray, np.ndarray] | None
    label: str

    def run(self, **options: Any) -> Any:
        """The solution, with further options."""
        return solve(self.law, self.grid, self.boundary, self.initial, self.times, **{**self.options, **options})


@dataclass(frozen=True)
class _Side:
    """A condition with the range of its states ``(*batch,)``, whether it keeps to a maximum principle, break points."""

    condition: Any
    range: tuple[Any, Any] = (np.inf, -np.inf)
    principle: bool = True
    breaks: tuple[float, ...] = ()


def draw(seed: int, only: int | None = None) -> Setup:
    """A set-up from a seed: the law first, then scales, then data.

    Args:
        seed: The seed.
        only: One row of the batch instead of all.

    Returns:
        The set-up.
    """
    random = np.random.default_rng(seed)
    name = tuple(FAMILIES)[seed % len(FAMILIES)]
    family, states = FAMILIES[name]
    grid = _grid(random)
    amplitude, offset = _scales(random, states)
    rows = [None, 1, 3][random.choice(3, p=[0.5, 0.2, 0.3])]
    numbers = Draw(random=random, rows=rows, only=only, grid=grid, amplitude=amplitude, offset=offset)
    balance = family(numbers)
    span = numbers.power(-3.0, 0.5) / balance.rate
    initial = offset + amplitude * _initial(numbers)
    pairs = [_pair(numbers, balance, span, axis, states) for axis in range(grid.dimension)]
    sides = [side for pair in pairs for side in pair]
    data = reduce(np.minimum, [side.range[0] for side in sides]), reduce(np.maximum, [side.range[1] for side in sides])
    breaks = tuple(time for side in sides for time in side.breaks)
    options = {**balance.options, **({"breakpoints": sorted(breaks)} if breaks else {})}
    stepper = _stepper(random, balance, span, grid)
    return Setup(
        law=balance.law,
        grid=grid,
        boundary=tuple((first.condition, last.condition) for first, last in pairs),
        initial=torch.from_numpy(np.ascontiguousarray(initial)),
        times=[0.3 * span, 0.55 * span, span],
        options={**options, **({} if stepper is None else {"stepper": stepper})},
        data=data,
        bounds=_widened(initial, data, grid) if balance.principle and all(side.principle for side in sides) else None,
        label=f"seed {seed}: {name}, {grid.shape} cells, batch of {rows}, amplitude {amplitude:.1e}, offset "
        f"{offset:.1e}, span {span:.1e}, {[type(side.condition).__name__ for side in sides]}, {stepper or ''}",
    )


def closer(setup: Setup, stepper: Any) -> Setup:
    """The same set-up at a hundredth of the tolerance, with steps of a 500th of the span and a tenth of a cell."""
    if isinstance(stepper, BackwardEuler):
        stepper = TRBDF2(tolerance=stepper.tolerance)
    finer = replace(stepper, tolerance=0.01 * stepper.tolerance, largest_step=setup.times[-1] / 500.0)
    if isinstance(finer, SSPRK3):
        finer = replace(finer, courant=0.1)
    return replace(setup, options={**setup.options, "stepper": finer})


def _grid(random: np.random.Generator) -> CellGrid:
    if random.random() < 0.2:
        shape = [int(np.exp(random.uniform(0.0, np.log(24.0)))) for _ in range(2)]
        return CellGrid((0.0, -1.0), (1.0, 1.0), tuple(shape))
    return CellGrid(0.0, 1.0, int(np.exp(random.uniform(0.0, np.log(500.0)))))


def _scales(random: np.random.Generator, states: str) -> tuple[float, float]:
    """Amplitude of the states and the constant added to them."""
    amplitude = 1.0 if states == "unit" else 10.0 ** random.uniform(-8.0, 8.0)
    if states == "offset":
        return amplitude, amplitude * random.choice([0.0, 1.0, -3.0, 100.0])
    return amplitude, -0.5 * amplitude if states == "negative" and random.random() < 0.5 else 0.0


def _initial(draw: Draw) -> np.ndarray:
    """Values in [0, 1] ``(*batch, *space)``: zero, a constant, a step, a hat, several modes, or noise."""
    points = draw.grid.points.numpy()
    x = points if draw.grid.dimension == 1 else points[..., 0] + 0.2 * points[..., 1]
    ones = [1] * draw.grid.dimension
    kind, place = draw.random.integers(6), draw.uniform(0.0, 1.0, *ones)
    if kind < 2:
        return kind * place + 0.0 * x
    if kind == 2:
        return (x < place).astype(float)
    if kind == 3:
        return np.clip(1.0 - np.abs(x - place) / draw.uniform(0.05, 0.5, *ones), 0.0, None)
    if kind == 4:
        modes = [draw.uniform(-0.1, 0.1, *ones) * np.sin(2 * np.pi * k * x) for k in range(1, 6)]
        return 0.5 + np.sum(modes, axis=0)
    return draw.uniform(0.0, 1.0, *draw.grid.shape)


def _pair(draw: Draw, balance: Balance, span: float, axis: int, states: str) -> tuple[_Side, _Side]:
    """Both sides of an axis."""
    if draw.grid.shape[axis] >= 3 and draw.chance(0.25):
        return _Side(Periodic()), _Side(Periodic())
    return _side(draw, balance, span, (axis, 0), states), _side(draw, balance, span, (axis, 1), states)


def _side(draw: Draw, balance: Balance, span: float, at: tuple[int, int], states: str) -> _Side:
    """A side that suits the law."""
    axis, last = at
    face = draw.grid.shape[:axis] + draw.grid.shape[axis + 1 :]
    kind = draw.random.choice(6, p=[0.15, 0.1, 0.1, 0.15, 0.2, 0.3])
    if kind == 0 and balance.convects and not balance.diffusivity:
        return _Side(Outflow())
    if kind == 0:
        return _Side(Neumann(flux=0.0), principle=not balance.convects)
    if kind == 1:
        sign = -1.0 if last else 1.0
        flux = sign * 0.1 * balance.rate * draw.amplitude * draw.uniform(0.0, 1.0, *face)
        return _Side(Neumann(flux=flux), principle=False)
    if kind == 2:
        steep = states == "offset" and draw.chance(0.5)
        gradient = draw.amplitude * draw.uniform(-1.0, 1.0, *face) if steep else 0.0
        return _Side(Neumann(gradient=gradient), principle=not steep)
    if kind == 3:
        value = draw.offset + draw.amplitude * draw.uniform(0.0, 1.0, *face)
        width = (1.0 if last else -1.0) * draw.power(-2.0, 1.0)
        return _Side(Robin(1.0, width, value), _range(draw, value, value))
    if kind == 4:
        value = draw.offset + draw.amplitude * draw.uniform(0.0, 1.0, *face)
        return _Side(Dirichlet(value), _range(draw, value, value))
    return _changing_side(draw, span, face)


def _changing_side(draw: Draw, span: float, face: tuple[int, ...]) -> _Side:
    """A Dirichlet side with a wave, a pulse or a jump in time."""
    base = draw.offset + draw.amplitude * draw.uniform(0.0, 0.5, *face)
    height = draw.amplitude * draw.uniform(0.0, 0.5, *face)
    kind, centre = draw.random.integers(3), draw.random.uniform(0.1, 0.9) * span
    frequency, width = draw.random.uniform(0.5, 8.0) / span, draw.random.uniform(0.02, 0.2) * span

    def wave(t: Any) -> Any:
        return base + height * np.sin(2 * np.pi * frequency * t) ** 2

    def pulse(t: Any) -> Any:
        return base + height * np.exp(-(((t - centre) / width) ** 2))

    def jump(t: Any) -> Any:
        return base + (height if abs(t - centre) < width else 0.0)

    stated = kind == 2 and draw.chance(0.5)
    breaks = tuple(t for t in (centre - width, centre + width) if 0.0 < t < span) if stated else ()
    return _Side(Dirichlet((wave, pulse, jump)[kind]), _range(draw, base, base + height), breaks=breaks)


def _range(draw: Draw, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    faces = tuple(range(-(draw.grid.dimension - 1), 0))
    return low.min(axis=faces), high.max(axis=faces)


def _widened(initial: np.ndarray, data: tuple[Any, Any], grid: CellGrid) -> tuple[np.ndarray, np.ndarray]:
    """Range of initial values and data ``(*batch,)``."""
    cells = tuple(range(-grid.dimension, 0))
    return np.minimum(initial.min(axis=cells), data[0]), np.maximum(initial.max(axis=cells), data[1])


def _stepper(random: np.random.Generator, balance: Balance, span: float, grid: CellGrid) -> Any:
    """The default, or one of the steppers that suit the law and are not too slow."""
    steppers = [SSPRK3()]
    if balance.diffusivity:
        explicit = span * balance.diffusivity * sum(h**-2.0 for h in grid.spacing) * 8.0
        steppers = [TRBDF2(), BackwardEuler()] + ([SSPRK3()] if explicit < _MOST_EXPLICIT_STEPS else [])
        steppers += [] if balance.convects else [RKL2()]
    return None if random.random() < 0.5 else steppers[random.integers(len(steppers))]
