"""Lid-driven cavity: Ghia's benchmark, the impulsive start, the discrete equations, scaling, observed order."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from experiments.boundary.equations import cavity
from experiments.boundary.equations.cavity import solve_cavity
from solvers.errors import InvalidArgumentError, SolverDivergedError

GHIA = json.loads((Path(__file__).parents[4] / "experiments" / "reference" / "ghia1982.json").read_text("utf-8"))
MISPRINTS = {("v_on_horizontal_centreline", "Re400", 0.9063)}


def deviation_from_ghia(reynolds: int, nodes: int, time: float) -> float:
    """Largest deviation of the centreline velocities, which must have become steady."""
    flow = solve_cavity(1.0, nodes, [0.8 * time, time], 1 / reynolds)
    u, v = (component.numpy() for component in flow.velocity)
    assert np.abs(u[1] - u[0]).max() <= 1e-3
    positions, middle, column = flow.grid.axes[0].numpy(), nodes // 2, f"Re{reynolds}"
    lines = {"u_on_vertical_centreline": ("y", u[1, middle]), "v_on_horizontal_centreline": ("x", v[1, :, middle])}
    return max(
        abs(np.interp(position, positions, ours) - theirs)
        for line, (axis, ours) in lines.items()
        for position, theirs in zip(GHIA[line][axis], GHIA[line][column], strict=True)
        if (line, column, position) not in MISPRINTS
    )


def test_steady_flow_is_ghias_on_a_coarse_grid() -> None:
    assert deviation_from_ghia(100, 33, 20.0) <= 0.01


@pytest.mark.slow
@pytest.mark.parametrize(("reynolds", "time"), [(100, 20.0), (400, 40.0)])
def test_steady_flow_is_ghias(reynolds: int, time: float) -> None:
    assert deviation_from_ghia(reynolds, 129, time) <= 0.01


def test_lid_starts_like_a_plate_in_still_fluid() -> None:
    """Stokes' first problem: ω = −U/√(πνt) on the lid; the walls' return flow adds a few times √(4νt/π) = 1.6 %."""
    flow = solve_cavity(torch.tensor([1.0, 1.5]), 97, [0.02])
    expected = -flow.lid_speed / np.sqrt(np.pi * 0.01 * 0.02)
    torch.testing.assert_close(flow.vorticity[:, 0, 48, -1], expected, rtol=0.07, atol=0.0)


@pytest.mark.long
def test_velocity_is_of_second_order() -> None:
    """Differences between successive grids at common nodes; the jump at the upper corners stays near them."""
    fields = [solve_cavity(1.0, 12 * r + 1, [0.5]).velocity[0][0, ::r, ::r] for r in (1, 2, 4, 8, 16)]
    errors = np.array([float((a - b).abs().max()) for a, b in pairwise(fields)])
    orders = np.log2(errors[:-1] / errors[1:])
    assert abs(orders.mean() - 2.0) <= 0.2, (errors, orders)


def test_time_steps_are_of_fourth_order() -> None:
    """The start is smooth once the wall vorticity is set, so the method keeps its order from the first step on."""
    times, steps = [0.4], 0.4 / np.array([32, 64, 128, 256, 2048])
    fields = [solve_cavity(1.0, 17, times, step=step).stream for step in steps]
    errors = np.array([float((field - fields[-1]).abs().max()) for field in fields[:-1]])
    orders = np.log2(errors[:-1] / errors[1:])
    assert abs(orders.mean() - 4.0) <= 0.2, (errors, orders)


@settings(deadline=None, max_examples=8)
@given(nodes=st.integers(5, 24), lid=st.floats(0.5, 2.0), time=st.floats(0.01, 0.5))
def test_output_satisfies_the_discrete_equations(nodes: int, lid: float, time: float) -> None:
    flow = solve_cavity(lid, nodes, [time])
    omega, psi, h = flow.vorticity[0], flow.stream[0], flow.grid.spacing[0]
    around = psi[2:, 1:-1] + psi[:-2, 1:-1] + psi[1:-1, 2:] + psi[1:-1, :-2]
    # Round-off of four matrix products of size n, times 1/h².
    size = float(omega.abs().max())
    torch.testing.assert_close((around - 4 * psi[1:-1, 1:-1]) / h**2, -omega[1:-1, 1:-1], rtol=0, atol=1e-11 * size)
    u, v = flow.velocity
    assert bool((u[0, 1:-1, -1] == lid).all())
    assert float(u[0, :, 0].abs().max()) == float(v[0, :, [0, -1]].abs().max()) == float(v[0, [0, -1]].abs().max()) == 0
    divergence = (u[0, 2:, 1:-1] - u[0, :-2, 1:-1] + v[0, 1:-1, 2:] - v[0, 1:-1, :-2])[1:-1, 1:-1] / (2 * h)
    assert float(divergence.abs().max() if divergence.numel() else 0) <= 1e-11 * size
    for turn, speed in ((lambda f: f.mT.flip(0), lid), (lambda f: f.mT, 0), (lambda f: f, 0), (lambda f: f.flip(0), 0)):
        inward, wall = turn(psi)[:, 1:-1], turn(omega)[0, 1:-1]  # lid, floor, left and right wall as first rows
        wilkes = (inward[2] - 8 * inward[1]) / (2 * h * h) - 3 * speed / h
        torch.testing.assert_close(wall, wilkes, rtol=0, atol=1e-11 * size)


def test_circulation_is_that_of_the_lid() -> None:
    """∫ω dx dy = ∮ u·dl = −U: trapezoid rule, first order next to the upper corners."""
    flow = solve_cavity(torch.tensor([1.0, 1.4]), 49, [0.1, 1.0])
    total = (flow.grid.weights * flow.vorticity).sum(dim=(-1, -2))
    torch.testing.assert_close(total, -flow.lid_speed[:, None].expand(2, 2), rtol=0.02, atol=0.0)


@settings(deadline=None, max_examples=8)
@given(factor=st.floats(0.5, 3.0), nodes=st.integers(5, 16))
def test_flows_of_one_reynolds_number_are_one_flow(factor: float, nodes: int) -> None:
    """U → aU, ν → aν, t → t/a turns ω into aω; time steps scale alike, so the numbers agree to round-off."""
    one = solve_cavity(1.0, nodes, [0.1, 0.3])
    other = solve_cavity(factor, nodes, one.times / factor, 0.01 * factor, step=None)
    torch.testing.assert_close(other.vorticity, factor * one.vorticity, rtol=1e-9, atol=1e-9)


def test_batches_are_flows_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    lid, step = torch.tensor([[1.0, 1.1, 1.2], [1.3, 1.4, 1.5]], dtype=torch.float64), 0.01
    alone = torch.stack([solve_cavity(speed, 17, [0.2], step=step).vorticity for speed in lid.reshape(-1)])
    monkeypatch.setattr(cavity, "_NODES_TOGETHER", 2 * 17**2)  # groups of two flows
    together = solve_cavity(lid, 17, [0.2], step=step)
    assert together.vorticity.shape == (2, 3, 1, 17, 17)
    torch.testing.assert_close(together.vorticity.reshape(6, 1, 17, 17), alone, rtol=0, atol=1e-10)


def test_corners_hold_the_mean_of_their_neighbours() -> None:
    omega = solve_cavity(1.2, 12, [0.1]).vorticity[0]
    assert omega[0, -1].item() == 0.5 * (omega[1, -1] + omega[0, -2]).item()
    assert omega[-1, -1].item() == 0.5 * (omega[-2, -1] + omega[-1, -2]).item()
    assert omega[0, 0].item() == omega[-1, 0].item() == 0.0


def test_float32_lid_speed_gives_float64_flows() -> None:
    flow = solve_cavity(torch.tensor([1.25], dtype=torch.float32), 9, [0.1])
    torch.testing.assert_close(flow.vorticity[0], solve_cavity(1.25, 9, [0.1]).vorticity, rtol=0, atol=0)


@pytest.mark.parametrize(("nodes", "viscosity", "limit"), [(33, 0.01, 2.78 / 8 * 100 / 32**2), (9, 0.001, 2.8 / 8)])
def test_a_step_beyond_the_stability_of_the_method_is_refused(nodes: int, viscosity: float, limit: float) -> None:
    """Diffusion limits the first flow, convection the second."""
    assert solve_cavity(1.0, nodes, [10 * limit], viscosity, step=0.999 * limit).stream.abs().max() < 0.2
    with pytest.raises(InvalidArgumentError, match=f"step must be at most {limit:.3g}, .* take a smaller step"):
        solve_cavity(1.0, nodes, [10 * limit], viscosity, step=1.001 * limit)


def test_a_flow_that_has_blown_up_is_an_error_also_where_it_is_finite() -> None:
    with pytest.raises(SolverDivergedError, match=r"blown up at time 0\.4 .* take a smaller step or more nodes"):
        cavity._integrate(np.ones(1), 33, torch.tensor([0.4], dtype=torch.float64), 0.01, 0.5)
    with pytest.raises(SolverDivergedError, match="blown up"):
        solve_cavity(1.0, 9, [90.0], 1e-4, step=0.3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lid_speed": torch.tensor([1.0, -1.0])}, "lid_speed must be one or more positive numbers"),
        ({"lid_speed": torch.zeros(0)}, r"lid_speed must be one or more positive numbers, got \[\]"),
        ({"lid_speed": float("nan")}, "lid_speed is not finite"),
        ({"lid_speed": torch.tensor([1.0], requires_grad=True)}, r"lid_speed requires a gradient"),
        ({"nodes": 4}, "an integer of at least 5 along each side, got 4"),
        ({"nodes": 9.0}, "an integer of at least 5 along each side, got 9.0"),
        ({"times": [0.0, 0.1]}, "increasing and later than start = 0, got"),
        ({"times": [float("inf")]}, "times is not finite"),
        ({"times": []}, "times must be finite, strictly increasing"),
        ({"viscosity": 0.0}, "viscosity must be one finite number above 0, got 0.0"),
        ({"viscosity": float("inf")}, "viscosity must be one finite number above 0, got inf"),
        ({"viscosity": torch.tensor([0.1, 0.2])}, "viscosity must be one finite number .* solve once for each"),
        ({"step": float("nan")}, "step must be one finite number above 0, got nan"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        solve_cavity(**{"lid_speed": 1.0, "nodes": 9, "times": [0.1]} | changes)
