"""Sources and coefficients that change with time are examined by few calls for many times, with the same result."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from solvers import (
    TRBDF2,
    Advection,
    CellGrid,
    ConvectionDiffusion,
    Diffusion,
    Dirichlet,
    Field,
    Neumann,
    Source,
    align,
    solve,
)
from solvers.errors import InvalidArgumentError
from solvers.finite_volume._operator import build_operator
from solvers.finite_volume.laws.coefficients import FaceValue
from solvers.finite_volume.laws.laws import Transport

SIZE = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)


def grid_of(dimension):
    return CellGrid((0.0,) * dimension, (1.0,) * dimension, (12, 5)[:dimension])


def swinging(t):
    """A wave, and a step that ends a panel."""
    return torch.sin(9.0 * t) + 0.5 * (t > 0.37)


@dataclass(frozen=True)
class Heating(Source):
    """A rate per row, a field and a function of x and t."""

    varying: ClassVar = {"rate": FaceValue.ARITHMETIC, "place": FaceValue.ARITHMETIC}

    rate: Any
    size: Any
    place: Any
    wave: Callable[[torch.Tensor], torch.Tensor]

    def __call__(self, u, x, t):  # noqa: ARG002 - one signature for all sources
        return align(self.size, u) * (align(self.rate, u) + align(self.place, u) * self.wave(t)) - 0.3 * u


def setting(kind: str, dimension: int, rows: int, wave: Callable[..., Any]) -> tuple[Any, dict[str, Any]]:
    """A law and options whose values in time are those of ``wave``."""

    def along(x):
        return x if dimension == 1 else x.sum(-1)

    size = SIZE[:rows]
    if kind == "function":
        return Diffusion(size), {"source": lambda u, x, t: wave(t) * torch.cos(along(x)) - u}
    if kind == "function per row":
        return Diffusion(0.1), {"source": lambda u, _x, t: size.reshape(-1, *[1] * dimension) * wave(t) - u}
    if kind == "class":
        place = Field(torch.linspace(0.0, 1.0, 12 * 5 ** (dimension - 1)).reshape(grid_of(dimension).shape))
        return Diffusion(size), {"source": Heating(lambda x, t: along(x) * wave(t), size, place, wave)}
    if kind == "conductivity":
        return Diffusion(lambda x, t: 0.1 + 0.04 * wave(t) + 0.0 * along(x)), {}
    velocity = lambda x, t: torch.stack([wave(t) + 0.0 * along(x)] * dimension, -1)  # noqa: E731
    law = Transport(velocity) if dimension > 1 else Advection(lambda x, t: wave(t) + 0.0 * x)
    return ConvectionDiffusion(law, Diffusion(0.1)), {}


def solved(law: Any, options: dict[str, Any], dimension: int, rows: int) -> Any:
    grid = grid_of(dimension)
    initial = torch.rand((rows, *grid.shape), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    sides = [(Dirichlet(0.2), Neumann(flux=0.0))] * dimension
    return solve(law, grid, sides if dimension > 1 else sides[0], initial, [0.4, 1.0], **options)


KINDS = ["function", "function per row", "class", "conductivity", "velocity"]


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_what_changes_with_time_is_examined_by_few_calls(kind, dimension, rows):
    """The scan has 480 times at first, and 32 halvings to locate the step; all were a call each."""
    calls = []

    def counted(t):
        calls.append(t.shape)
        return swinging(t)

    law, options = setting(kind, dimension, rows, counted)
    grid = grid_of(dimension)
    u = torch.zeros((rows, *grid.shape), dtype=torch.float64) + grid.points.reshape(*grid.shape, -1)[..., 0]
    build_operator(law, grid, u, ((Dirichlet(0.0), Dirichlet(0.0)),) * dimension, {**options, "span": (0.0, 1.0)})
    assert len(calls) < 450


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("dimension", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_steps_are_those_of_a_call_for_each_time(kind, dimension, rows):
    def single(t):
        if t.ndim > dimension + 1:
            raise TypeError("one time per row, please")
        return swinging(t)

    together, alone = (solved(*setting(kind, dimension, rows, wave), dimension, rows) for wave in (swinging, single))
    assert torch.equal(together.work.steps, alone.work.steps)
    # a jump is located to 1e-10 of the span, by the same halvings of the same values
    np.testing.assert_allclose(together.values, alone.values, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "take", [lambda t: t[0], lambda t: t.flatten()[:1], lambda t: t.max(), lambda t: t.mean(), lambda t: t.squeeze()]
)
@pytest.mark.parametrize("end", [0.3735, 1.0])
def test_a_function_that_takes_one_time_of_a_tensor_has_its_events(take, end):
    """It may: in a batch without axes there is one. Of many times it would be wrong, and a short event be missed."""
    grid = CellGrid(0.0, 1.0, 8)

    def source(u, _x, t):
        time = take(t)
        return 0.0 * u + 1.0 * ((time > 0.371) & (time < end))

    closed = (Neumann(flux=0.0), Neumann(flux=0.0))
    result = solve(Diffusion(1.0), grid, closed, 0.0, [1.0], source=source)
    assert float(result.total) == pytest.approx(end - 0.371, rel=1e-6)


def test_an_error_at_some_time_names_the_shapes_of_one_time():
    def source(u, _x, t):
        if bool(((t > 0.65) & (t < 0.67)).any()):
            raise ValueError("no data")
        return torch.sin(t) + 0.0 * u

    with pytest.raises(InvalidArgumentError, match=r"u of shape \(3, 12\), .* t a tensor of shape \(3, 1\).*no data"):
        solved(Diffusion(1.0), {"source": source}, 1, 3)


def test_a_coefficient_is_evaluated_once_a_stage_however_many_iterations_it_takes():
    """On cells and on sides, at the three stages of a step; the two of TR-BDF2 take 2 iterations each, or more."""
    calls = []

    def conductivity(x, t):
        calls.append(t)
        return 0.1 + 0.05 * torch.sin(9.0 * t) + 0.0 * x

    law, grid, sides = Diffusion(conductivity), CellGrid(0.0, 1.0, 30), (Dirichlet(1.0), Dirichlet(0.0))
    build_operator(law, grid, grid.points, (sides,), {"span": (0.0, 1.0)})
    examined = len(calls)
    calls.clear()
    work = solve(law, grid, sides, 0.0, [1.0], stepper=TRBDF2()).work
    steps = int(work.steps + work.rejected)
    assert int(work.evaluations) > 2 * steps
    assert len(calls) - examined <= 2 * 3 * steps + 16  # checks of the law
