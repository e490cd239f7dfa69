"""Random set-ups of ``solve``: law, sides, amplitude, offset, span, cells, initial data, pulses in the boundary, source."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from solvers import (
    Advection,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    Diffusion,
    Dirichlet,
    Field,
    Logistic,
    Neumann,
    Outflow,
    Periodic,
    PorousMedium,
    Stefan,
    solve,
)

LAWS = ("diffusion", "field", "porous medium", "stefan", "advection", "burgers", "viscous burgers", "logistic")


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One call of ``solve`` and what is expected of it.

    Attributes:
        law: The law.
        grid: Cells.
        boundary: Pair of conditions.
        initial: Initial cell averages.
        times: Output times.
        options: Further options.
        bounds: Smallest and largest value that the maximum principle allows, or None where it does not hold.
        label: What was drawn.
    """

    law: Any
    grid: CellGrid
    boundary: tuple[Any, Any]
    initial: torch.Tensor
    times: list[float]
    options: dict[str, Any] = field(default_factory=dict)
    bounds: tuple[float, float] | None
    label: str

    def run(self, **options: Any) -> Any:
        """The solution, with further options."""
        return solve(self.law, self.grid, self.boundary, self.initial, self.times, **self.options, **options)


def draw(seed: int) -> Setup:
    """A set-up from a seed: the law first, then scales, then data."""
    rng = np.random.default_rng(seed)
    name = LAWS[seed % len(LAWS)]
    cells = int(np.exp(rng.uniform(0.0, np.log(500.0))))
    amplitude = 10.0 ** rng.uniform(-8.0, 8.0)
    if name in ("stefan", "logistic"):
        amplitude = 1.0
    periodic = cells >= 3 and rng.random() < 0.3
    grid = CellGrid(0.0, 1.0, cells)
    initial = amplitude * _initial(rng, grid)
    law, scale = _law(rng, name, amplitude, grid)
    span = 10.0 ** rng.uniform(-3.0, 0.5) / scale
    boundary, values = _boundary(rng, name, amplitude, span, periodic)
    pulses = [value for value in values if value is not None]
    low = min(float(initial.min()), *pulses) if pulses else float(initial.min())
    high = max(float(initial.max()), *pulses) if pulses else float(initial.max())
    options = {"source": Logistic(rng.uniform(1.0, 30.0) * scale)} if name == "logistic" else {}
    principle = all(value is not None for value in values) and name != "logistic"
    return Setup(
        law=law,
        grid=grid,
        boundary=boundary,
        initial=initial,
        times=[0.3 * span, span],
        options=options,
        bounds=(low, high) if principle else None,
        label=f"seed {seed}: {name}, {cells} cells, amplitude {amplitude:.1e}, span {span:.1e}",
    )


def _initial(rng: np.random.Generator, grid: CellGrid) -> torch.Tensor:
    """Values in [0, 1]: zero, a constant, a step, a hat, or several modes."""
    x = grid.points.numpy()
    kind = rng.integers(5)
    if kind < 2:
        values = np.full_like(x, float(kind) * rng.random())
    elif kind == 2:
        values = (x < rng.random()).astype(float)
    elif kind == 3:
        values = np.clip(1.0 - np.abs(x - rng.random()) / rng.uniform(0.05, 0.5), 0.0, None)
    else:
        values = 0.5 + sum(rng.uniform(-0.1, 0.1) * np.sin(2 * np.pi * k * x) for k in range(1, 6))
    return torch.from_numpy(values)


def _law(rng: np.random.Generator, name: str, amplitude: float, grid: CellGrid) -> tuple[Any, float]:
    """The law and its rate: 1/rate is the time in which it acts over the domain."""
    if name == "porous medium":
        exponent = rng.uniform(0.5, 6.0)
        return PorousMedium(exponent), amplitude**exponent
    if name == "stefan":
        return Stefan(rng.uniform(0.2, 0.8)), 1.0
    if name == "advection":
        speed = 10.0 ** rng.uniform(-3.0, 3.0) * rng.choice([-1.0, 1.0])
        return Advection(speed), abs(speed)
    if name == "burgers":
        return Burgers(), amplitude
    if name == "viscous burgers":
        return ConvectionDiffusion(Burgers(), Diffusion(10.0 ** rng.uniform(-3.0, 0.0) * amplitude)), amplitude
    diffusivity = 10.0 ** rng.uniform(-3.0, 3.0)
    if name == "diffusion":
        return Diffusion(diffusivity), diffusivity
    values = diffusivity * torch.from_numpy(np.exp(rng.uniform(-1.0, 1.0, grid.shape)))
    return Diffusion(Field(values)), diffusivity


def _boundary(
    rng: np.random.Generator, name: str, amplitude: float, span: float, periodic: bool
) -> tuple[tuple[Any, Any], list[float | None]]:
    """Conditions of both sides, and the extreme values of their data (None: no maximum principle)."""
    if periodic:
        return (Periodic(), Periodic()), []
    sides, values = [], []
    for _ in range(2):
        kind = rng.integers(4)
        if kind == 0 and name in ("advection", "burgers"):
            sides.append(Outflow())
        elif kind == 0:
            sides.append(Neumann(flux=0.0))
        elif kind == 1:
            value = amplitude * rng.random()
            sides.append(Dirichlet(value))
            values.append(value)
        else:
            datum, extremes = _datum(rng, amplitude, span)
            sides.append(Dirichlet(datum))
            values += extremes
    return (sides[0], sides[1]), values


def _datum(rng: np.random.Generator, amplitude: float, span: float) -> tuple[Any, list[float | None]]:
    """A wave or a pulse in time, with its extremes."""
    base, height = amplitude * rng.uniform(0.0, 0.5), amplitude * rng.uniform(0.0, 0.5)
    if rng.random() < 0.5:
        frequency = rng.uniform(0.5, 8.0) / span
        return lambda t: base + height * np.sin(2 * np.pi * frequency * t) ** 2, [base, base + height]
    centre, width = rng.uniform(0.1, 0.9) * span, rng.uniform(0.02, 0.2) * span
    if rng.random() < 0.5:
        return lambda t: base + height * np.exp(-(((t - centre) / width) ** 2)), [base, base + height]
    return lambda t: base + (height if abs(t - centre) < width else 0.0), [base, base + height]
