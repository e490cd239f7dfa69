"""The registry of boundary-condition problems: samples meet their conditions, are those of the references, repeat."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.boundary.equations import exact
from experiments.boundary.equations.cavity import solve_cavity
from experiments.boundary.equations.problem import BoundaryProblem, BoundarySamples, Uniform
from experiments.boundary.equations.standard import (
    BOUNDARY_PROBLEMS,
    burgers_dirichlet,
    cavity,
    heat_independent,
    heat_neumann,
    stokes,
    wave_neumann,
)
from solvers import Dirichlet, Neumann, Outflow, Periodic, Robin
from solvers.errors import InvalidArgumentError
from solvers.stencils import one_sided_gradient
from tests.strategies import seeds

ALL = list(BOUNDARY_PROBLEMS.values())
SMOOTH = [problem for problem in ALL if problem.name != "cavity"]
NAMES = {"stokes", "burgers_dirichlet", "heat_neumann", "wave_neumann", "burgers_periodic", "cavity"}
by_name = pytest.mark.parametrize("problem", ALL, ids=lambda problem: problem.name)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(problem: BoundaryProblem, seed: int = 0, count: int = 3, nodes: int = 0, times: int = 5) -> BoundarySamples:
    nodes = nodes or (13 if len(problem.conditions) == 2 else 33)
    return problem.sample(count, nodes, problem.multi_step(times), generator(seed))


def test_every_problem_is_there_under_its_name() -> None:
    assert set(BOUNDARY_PROBLEMS) >= NAMES | {"heat_independent"}
    assert all(name == problem.name for name, problem in BOUNDARY_PROBLEMS.items())
    reconstructed = {name for name in NAMES if BOUNDARY_PROBLEMS[name].reconstructed}
    assert reconstructed == NAMES - {"heat_neumann"}


@by_name
def test_samples_have_the_stated_shapes_and_are_finite(problem: BoundaryProblem) -> None:
    s = sample(problem)
    space = s.grid.shape
    assert s.grid.location == "node"
    assert s.input.shape == (3, *space)
    assert s.output.shape == (3, 5, *space)
    assert bool(torch.isfinite(s.output).all() & torch.isfinite(s.input).all())
    assert s.output.dtype == s.input.dtype == torch.float64
    for axis, pair in enumerate(s.boundary):
        face = tuple(n for other, n in enumerate(space) if other != axis)
        assert (pair is None) == isinstance(problem.conditions[axis][0], Periodic)
        assert pair is None or all(values.shape == (3, 5, *face) for values in pair)


@by_name
def test_output_meets_its_conditions(problem: BoundaryProblem) -> None:
    """Dirichlet and periodic exactly; gradients as one-sided differences of fifth order find them on 65 nodes.

    Their error is h⁵/6 times the sixth derivative: (1/64)⁵/6·(4π)⁶ = 6e-4 of the amplitude for the shortest wave, 4π.
    """
    s = sample(problem, nodes=17 if problem.name == "cavity" else 65, times=3)
    for axis, pair in enumerate(problem.conditions):
        for last, side in enumerate(pair):
            nodes = s.output.movedim(2 + axis, -1)
            inward = nodes.flip(-1) if last else nodes
            values = s.boundary[axis]
            if isinstance(side, Periodic):
                assert torch.equal(inward[..., 0], inward[..., -1])
            elif isinstance(side, Dirichlet):
                assert values is not None
                assert torch.equal(inward[..., 0], values[last])
            else:
                assert values is not None
                weights = one_sided_gradient(5, "last" if last else "first") / s.grid.spacing[axis]
                scale = float(nodes.abs().max())
                torch.testing.assert_close((inward[..., :6] * weights).sum(-1), values[last], rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize("problem", SMOOTH, ids=lambda problem: problem.name)
@settings(deadline=None, max_examples=2)
@given(seed=seeds, count=st.integers(1, 3))
def test_one_draw_is_the_same_function_on_every_grid(problem: BoundaryProblem, seed: int, count: int) -> None:
    coarse = sample(problem, seed, count, nodes=9, times=2)
    fine = sample(problem, seed, count, nodes=17, times=2)
    every_second = (..., *[slice(None, None, 2)] * len(problem.conditions))
    torch.testing.assert_close(fine.output[every_second], coarse.output, rtol=0, atol=1e-12)
    torch.testing.assert_close(fine.input[every_second], coarse.input, rtol=0, atol=1e-12)


@by_name
def test_equal_generators_give_equal_samples_and_others_do_not(problem: BoundaryProblem) -> None:
    one, again, other = sample(problem, 1, times=2), sample(problem, 1, times=2), sample(problem, 2, times=2)
    assert torch.equal(one.output, again.output)
    assert not torch.equal(one.input, other.input)


@by_name
def test_uniform_parameters_fill_their_range(problem: BoundaryProblem) -> None:
    draws = problem.draw(2000, generator(0))
    for parameter in problem.parameters:
        assert draws[parameter.name].shape == (2000, *parameter.shape)
        if isinstance(parameter.distribution, Uniform):
            low, high = parameter.distribution.low, parameter.distribution.high
            scaled = (draws[parameter.name] - low) / (high - low)
            # 2000 or more uniform numbers: deviation of the mean at most 0.29/√2000 = 0.0065.
            assert 0 <= float(scaled.min()) <= float(scaled.max()) <= 1
            assert float(scaled.mean()) == pytest.approx(0.5, abs=0.03)


def test_stated_ranges_are_those_of_the_papers() -> None:
    ranges = {
        (problem.name, p.name): (p.distribution.low, p.distribution.high)
        for problem in ALL
        for p in problem.parameters
        if isinstance(p.distribution, Uniform)
    }
    assert ranges["stokes", "frequency"] == (3.0, 4.0)
    assert ranges["burgers_dirichlet", "left"] == (1.0, 1.5)
    assert ranges["burgers_dirichlet", "right"] == (-0.5, 0.0)
    assert ranges["heat_neumann", "frequency"] == (2.01, 3.99)
    assert ranges["wave_neumann", "amplitude"] == (3.0, 4.0)
    assert ranges["cavity", "lid_speed"] == (1.0, 1.5)


def test_output_times_never_include_the_start() -> None:
    for problem in ALL:
        times = problem.multi_step()
        assert len(times) == 25
        assert float(times[0]) > problem.start
        assert float(times[-1]) == pytest.approx(problem.final_times[0], rel=1e-15)
    assert BOUNDARY_PROBLEMS["cavity"].start == 0.08
    assert heat_neumann().multi_step(25, 2.0)[-1].item() == 2.0
    assert stokes().single_step().tolist() == [2.0]


def test_values_are_those_of_the_references() -> None:
    times = [0.1, 0.4]
    s = stokes(0.005).evaluate({"frequency": torch.tensor([3.2], dtype=torch.float64)}, 9, times)
    one = exact.stokes(0.4, 3 / 8, 3.2, 0.005).item()
    assert s.output[0, 1, 3].item() == pytest.approx(one, rel=1e-13)  # exp and sin of arguments up to 10
    left, right = torch.tensor([1.2], dtype=torch.float64), torch.tensor([-0.3], dtype=torch.float64)
    s = burgers_dirichlet(0.1).evaluate({"left": left, "right": right}, 9, times)
    assert s.output[0, 0, 8].item() == pytest.approx(exact.burgers_wave(0.1, 1.0, 1.2, -0.3, 0.1).item())
    s = wave_neumann().evaluate({"amplitude": torch.tensor([3.5], dtype=torch.float64)}, 9, times)
    x = torch.tensor(torch.pi / 8, dtype=torch.float64)
    expected = 3.5 * torch.cos(x) * torch.cos(2 * x) * torch.cos(torch.pi * 2**0.5 * torch.tensor(0.4).double())
    assert s.output[0, 1, 1, 2].item() == pytest.approx(expected.item())


def test_cavity_keeps_every_second_node_of_the_refined_flow() -> None:
    lid = torch.tensor([1.1, 1.4], dtype=torch.float64)
    s = cavity(refinement=2).evaluate({"lid_speed": lid}, 11, [0.2])
    flow = solve_cavity(lid, 21, [0.08, 0.2])
    assert torch.equal(s.output[:, 0, 1:-1, 1:-1], flow.vorticity[:, 1, 2:-2:2, 2:-2:2])
    assert torch.equal(s.input[:, 1:-1, 1:-1], flow.vorticity[:, 0, 2:-2:2, 2:-2:2])
    torch.testing.assert_close(s.output[..., 0, -1], 0.5 * (s.output[..., 1, -1] + s.output[..., 0, -2]))


def test_series_at_the_ends_swing_as_stated() -> None:
    problem = heat_independent(Neumann(), harmonics=2)
    parameters = problem.draw(2, generator(3))
    s = problem.evaluate(parameters, 9, [0.3, 0.7])
    a, b = parameters["right"][..., 0], parameters["right"][..., 1]
    j, t = torch.arange(3, dtype=torch.float64), torch.tensor([0.3, 0.7], dtype=torch.float64)
    angle = torch.pi * j * t[:, None]
    expected = ((a[:, None] * torch.cos(angle) + b[:, None] * torch.sin(angle)) / (1 + j)).sum(-1)
    assert s.boundary[0] is not None
    torch.testing.assert_close(s.boundary[0][1], expected)


@pytest.mark.parametrize("side", [Neumann, Robin(1.0, 1.0), Periodic(), Outflow(), "Neumann", Dirichlet(0.5)])
def test_independent_heat_takes_two_kinds_of_sides_alone(side: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"must be Dirichlet\(\) or Neumann\(\), without a value"):
        heat_independent(side)
    assert heat_independent(Dirichlet()).name == heat_independent().name


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({}, r"needs all its parameters, missing: \['left', 'right'\]"),
        ({"left": torch.ones(2)}, r"missing: \['right'\]"),
        ({"left": [1.0], "right": torch.zeros(1)}, r"'left' .* must be a tensor \(batch, \*shape\) .* got list"),
        ({"left": torch.tensor(1.0), "right": torch.zeros(1)}, r"'left' .* such as \(1,\), got \(\)"),
        ({"left": torch.ones(2), "right": torch.zeros(1)}, r"'right' .* such as \(2,\), got \(1,\)"),
        ({"left": torch.ones(2, 2), "right": torch.zeros(2)}, r"'left' .* such as \(2,\), got \(2, 2\)"),
        ({"left": torch.ones(0), "right": torch.zeros(0)}, r"at least one sample, such as \(1,\), got \(0,\)"),
        ({"left": torch.ones(1), "right": torch.tensor([torch.nan])}, "'right' .* must be finite"),
        ({"left": torch.tensor([-0.2]), "right": torch.tensor([1.2])}, "left − right of the Burgers wave .* got -1.4"),
    ],
)
def test_wrong_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        burgers_dirichlet().evaluate(parameters, 9, [1.0])


def test_messages_say_what_to_do() -> None:
    problem = stokes()
    with pytest.raises(InvalidArgumentError, match="increasing and later than start = 0"):
        problem.sample(2, 9, [0.0, 1.0], generator(0))
    with pytest.raises(InvalidArgumentError, match="times is not finite"):
        problem.sample(2, 9, [float("inf")], generator(0))
    with pytest.raises(InvalidArgumentError, match=r"increasing and later than start = 0\.08"):
        cavity().sample(1, 5, [0.08], generator(0))
    with pytest.raises(InvalidArgumentError, match="modes of wave_neumann must be an integer of at least 1"):
        wave_neumann(modes=0)
    with pytest.raises(InvalidArgumentError, match="Uniform needs low < high"):
        Uniform(1.0, 1.0)
    with pytest.raises(InvalidArgumentError, match="harmonics of heat_independent must be 0 or more"):
        heat_independent(harmonics=-1)
