"""Rollouts meet the balance of an open system in every step, around any operator."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from torch import Tensor, nn

from probconserv import Rollout, condition, fit_covariance, integral
from probconserv.errors import (
    ConvergenceError,
    DependentConstraintsError,
    IncompatibleQueryError,
    InvalidArgumentError,
)
from probconserv.rollout import FluxModel, StepUpdate, with_errors
from probconserv.rollout.run import RolloutState
from solvers import CellGrid, NodeGrid, Periodic
from tests.strategies import normal

GRID, TIMES = NodeGrid(0.0, 2.0, 17), torch.tensor([0.0, 0.1, 0.3, 0.4, 0.6], dtype=torch.float64)
STEPS = len(TIMES) - 1
EQUAL = 0.1 * torch.arange(STEPS + 1, dtype=torch.float64)


def smear(u: Tensor, *inputs: Tensor) -> Tensor:
    """An operator that keeps no total."""
    return 0.97 * u + 0.02 * u.roll(1, dims=-1) + sum(inputs, torch.zeros(()))


def conductive(u: Tensor, gradient: Tensor) -> Tensor:
    return -0.3 * (1 + u**2) * gradient


FIELD, CLOSED, CELLS17 = normal(3, 1, 17), [(0.0, 0.0)], CellGrid(0.0, 1.0, 17)


@pytest.mark.parametrize(
    ("grid", "channels"),
    [
        (GRID, 1),
        (CellGrid((0.0, 0.0), (1.0, 2.0), (4, 6)), 2),
        (NodeGrid((0.0, 0.0, 0.0), (1.0, 2.0, 1.0), (3, 4, 5)), 2),
    ],
)
def test_given_fluxes_change_the_totals_in_any_number_of_axes(grid: NodeGrid | CellGrid, channels: int):
    faces = [grid.shape[:axis] + grid.shape[axis + 1 :] for axis in range(grid.dimension)]
    walls = [tuple(normal(3, STEPS, channels, *face, seed=side) for side in (1, 2)) for face in faces]
    field = normal(3, channels, *grid.shape)
    result = Rollout(smear, grid)(field, TIMES, fluxes=walls)
    gained = torch.zeros(3, STEPS, channels, dtype=torch.float64)
    for axis, (first, last) in enumerate(walls):
        area = torch.ones(())
        for other, along in enumerate(grid.axis_weights):
            area = area if other == axis else area[..., None] * along
        gained += ((first - last) * area).flatten(3).sum(dim=3) if grid.dimension > 1 else first - last
    totals = (result.fields * grid.weights).flatten(3).sum(dim=3)
    torch.testing.assert_close(totals.diff(dim=1), gained, rtol=0, atol=1e-13)
    torch.testing.assert_close(result.totals, totals, rtol=0, atol=1e-13)
    u = field  # restated: every value of a channel moves by the same amount
    for step in range(STEPS):
        target, u = (u * grid.weights).flatten(2).sum(dim=2) + gained[:, step], smear(u)
        missing = (target - (u * grid.weights).flatten(2).sum(dim=2)) / grid.volume
        moved = result.moved[:, step + 1]
        u = u + missing.reshape(*missing.shape, *[1] * grid.dimension)
        torch.testing.assert_close(result.fields[:, step + 1], u, rtol=0, atol=1e-13)
        torch.testing.assert_close(moved, missing.abs(), rtol=0, atol=1e-13)
    assert torch.equal(result.fields[:, 0], field)


def test_fluxes_are_numbers_functions_of_time_or_values_at_the_times():
    waves = lambda t: torch.cos(t)[:, None]  # noqa: E731
    totals = Rollout(smear, GRID)(FIELD, TIMES, fluxes=[(waves, 0.5)]).totals
    expected = totals[:, :1] + (TIMES.sin() - 0.5 * TIMES)[:, None]
    torch.testing.assert_close(totals, expected, rtol=0, atol=1e-13)
    values = waves(TIMES)
    totals = Rollout(smear, GRID)(FIELD, TIMES, fluxes=[(values, 0.5)]).totals
    trapezoids = torch.cumulative_trapezoid(values[:, 0], TIMES) - 0.5 * TIMES[1:]
    torch.testing.assert_close(totals[:, 1:] - totals[:, :1], trapezoids[:, None].expand(3, -1, 1))


def test_the_error_of_the_trapezoid_rule_counts_as_variance():
    times = torch.linspace(0.0, 1.0, 9, dtype=torch.float64)
    values = (4 * times**2)[:, None]  # F″ = 8, so that the rule misses Δt³/12 · 8 in every step
    update = StepUpdate(total_variance=1e-4, noise_variance=1e-5)
    result = Rollout(smear, GRID, update=update)(FIELD, times, fluxes=[(values, 0.0)])
    law = 1e-5 + (8 / 12 / 8**3) ** 2
    u, gained = FIELD[:, 0], torch.trapezoid(values[:2, 0], times[:2])
    target, predicted = u @ GRID.weights + gained, smear(FIELD)[:, 0] @ GRID.weights
    expected = predicted + (target - predicted) * 1e-4 / (1e-4 + law)
    torch.testing.assert_close(result.totals[:, 1, 0], expected, rtol=0, atol=1e-14)
    torch.testing.assert_close(result.fields[:, 1, 0] @ GRID.weights, expected, rtol=0, atol=1e-13)


def test_fluxes_of_time_are_integrated_adaptively_and_their_error_counts_as_variance():
    """A jump inside a step: what is left of it is far below the stated variance, and nothing with a breakpoint."""
    jump = lambda t: (t > 0.37).double()[:, None].expand(-1, 1)  # noqa: E731
    exact = (TIMES - 0.37).clamp_min(0.0)
    for update in (None, StepUpdate(total_variance=1e-4)):
        rollout = Rollout(smear, GRID, update=update)
        for breakpoints, tolerance in (((), 1e-9), ([0.37], 1e-13)):
            totals = rollout(FIELD, TIMES, fluxes=[(jump, 0.0)], breakpoints=breakpoints).totals[..., 0]
            torch.testing.assert_close(totals - totals[:, :1], exact.expand(3, -1), rtol=0, atol=tolerance)
            last = list(rollout.iterate(FIELD, TIMES, fluxes=[(jump, 0.0)], breakpoints=breakpoints))[-1]
            assert torch.equal(last.total[..., 0], totals[:, -1])
    state, walls = rollout.state_of(FIELD), [(jump, 0.0)]
    assert float(rollout.run(state, TIMES, walls).exchange.noise.max()) > 0
    assert rollout.run(state, TIMES, walls, [0.37]).exchange.noise is None
    trajectories = Rollout(smear, GRID)(FIELD, TIMES, fluxes=walls, breakpoints=[0.37]).fields
    diagnosis = Rollout(smear, GRID).diagnose(trajectories, TIMES, fluxes=walls, breakpoints=[0.37])
    assert float(diagnosis.law_error) < 1e-13
    band = rollout.fit_band(trajectories, TIMES, fluxes=walls, level=0.5, breakpoints=[0.37])
    assert float(band.totals.max()) < 1e-13


def test_fluxes_and_sources_that_depend_on_the_field_are_solved_for_the_new_one():
    gradients = normal(3, STEPS + 1, 1)
    source = lambda u, t: t + u - u**3  # noqa: E731
    result = Rollout(smear, GRID, flux=conductive, source=source)(FIELD, TIMES, values=[(gradients, 0.0)])
    u = result.fields[:, :, 0]
    rate = conductive(u[..., 0], gradients[..., 0]) + source(u, TIMES[:, None]) @ GRID.weights
    expected = 0.5 * TIMES.diff() * (rate[:, 1:] + rate[:, :-1])
    torch.testing.assert_close((u @ GRID.weights).diff(dim=1), expected, rtol=0, atol=1e-11)
    mixed = Rollout(smear, GRID, flux=[(conductive, None)])(
        FIELD, TIMES, values=[(gradients, None)], fluxes=[(None, 0.0)]
    )
    alone = Rollout(smear, GRID, flux=conductive)(FIELD, TIMES, values=[(gradients, 0.0)])
    torch.testing.assert_close(mixed.fields, alone.fields, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["diagonal", "fitted", "dense"])
def test_the_update_is_that_of_conditioning(kind: str):
    errors, fixed = normal(8, 17) * torch.linspace(0.1, 1.0, 17), torch.arange(17) == 0
    fitted, variance = fit_covariance(errors, shrinkage=0.3), errors.var(dim=0)
    dense = to_linear_operator(fitted.covariance.to_dense())
    covariance = {"diagonal": variance[None], "fitted": fitted, "dense": dense}[kind]
    update = StepUpdate(covariance=covariance, fixed=fixed)
    result = Rollout(smear, GRID, update=update)(FIELD, TIMES, fluxes=[(1.0, 0.0)])
    matrix = torch.diag(variance) if kind == "diagonal" else fitted.covariance.to_dense()
    moving = to_linear_operator((matrix * ~fixed * ~fixed[:, None]).expand(3, 17, 17))
    prior = MultivariateNormal(smear(FIELD)[:, 0], moving)
    expected = condition(prior, integral(GRID, FIELD[:, 0] @ GRID.weights + 0.1)).mean
    torch.testing.assert_close(result.fields[:, 1, 0], expected, rtol=0, atol=1e-12)
    assert torch.equal(result.fields[:, 1, 0, 0], smear(FIELD)[:, 0, 0])


def test_one_channel_may_have_a_balance_and_others_none():
    field, inputs = normal(2, 2, 17), normal(2, STEPS, 2, 17, seed=3)
    result = Rollout(smear, GRID, conserved=(0,))(field, TIMES, inputs, fluxes=CLOSED)
    assert torch.equal(result.fields[:, 1, 1], smear(field, inputs[:, 0])[:, 1])
    torch.testing.assert_close(result.fields[:, -1, 0] @ GRID.weights, field[:, 0] @ GRID.weights)
    assert result.totals.shape == (2, STEPS + 1, 1)


def test_a_rollout_goes_on_from_a_state_to_the_last_bit():
    walls = [(normal(3, STEPS, 1), 0.0)]
    rollout = Rollout(smear, GRID)
    whole, states = rollout(FIELD, TIMES, fluxes=walls), list(rollout.iterate(FIELD, TIMES, fluxes=walls))
    assert isinstance(states[1], RolloutState)
    rest = rollout(states[1], TIMES, fluxes=walls)
    assert torch.equal(rest.fields, whole.fields[:, 2:])
    assert torch.equal(rest.totals, whole.totals[:, 2:])


def test_totals_do_not_drift_in_single_precision():
    times = torch.linspace(0.0, 1.0, 401)
    result = Rollout(smear, GRID)(FIELD.float(), times, fluxes=[(1.0, 0.0)])
    assert result.fields.dtype == torch.float32
    totals = result.fields[:, :, 0].double() @ GRID.weights
    torch.testing.assert_close(totals, totals[:, :1] + times.double(), rtol=0, atol=3e-7)  # of one field, no sum


def test_rollouts_can_be_differentiated():
    rollout = Rollout(smear, GRID, flux=conductive, source=lambda u, t: -0.1 * t * u)
    field, gradients = FIELD[:1].clone().requires_grad_(), normal(1, 3, 1).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda u, g: (rollout(u, TIMES[:3], values=[(g, 0.0)]).fields, rollout(u, TIMES[:3], values=[(0.0, g)]).moved),
        (field, gradients),
    )


@pytest.mark.long
def test_rollouts_are_compiled_and_exported():
    torch.manual_seed(0)
    rollout = Rollout(nn.Conv1d(1, 1, 3, padding=1).double(), GRID, flux=conductive)
    arguments, given = (FIELD, TIMES[:3]), {"values": [(normal(3, 3, 1), normal(3, 3, 1, seed=1))]}
    expected = rollout(*arguments, **given).fields
    compiled = torch.compile(rollout, fullgraph=True, backend="eager")(*arguments, **given).fields
    exported = torch.export.export(rollout, arguments, given).module()(*arguments, **given).fields
    torch.testing.assert_close(compiled, expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(exported, expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("law_error", "helps"), [(1e-3, True), (0.1, False)])
def test_a_diagnosis_says_whether_the_law_helps_over_all_steps_and_by_how_much(law_error: float, helps: bool):
    """The operator misses the total by .02 in every step, whatever it starts from; errors of the law add up."""
    truth = torch.cumsum(normal(6, STEPS + 1, 1, 17), dim=1)
    totals = truth[:, :, 0] @ GRID.weights
    passed = totals.diff(dim=1)[..., None] + law_error
    operator = lambda u, after: after + 0.01 + 0 * u  # noqa: E731
    given = TIMES, truth[:, 1:]
    fluxes = [(passed, 0.0)]
    diagnosis = Rollout(operator, GRID).diagnose(truth, *given, fluxes=fluxes)
    assert bool(diagnosis.helps) is helps
    summed = (sum(step**2 for step in range(1, STEPS + 1)) / STEPS) ** 0.5 * law_error
    expected = {"law_error": summed, "operator_error": 0.02, "step_error": 0.02, "field_error": 0.01}
    for name, value in {**expected, "corrected_error": summed / 2}.items():
        assert float(getattr(diagnosis, name)) == pytest.approx(value, rel=1e-9)
    moves = [0.01 - step * law_error / 2 for step in range(1, STEPS + 1)]
    assert float(diagnosis.moved) == pytest.approx((sum(each**2 for each in moves) / STEPS) ** 0.5, rel=1e-9)
    trust = 0.02**2 / (0.02**2 + summed**2) if helps else 0.0
    assert float(diagnosis.trust) == pytest.approx(trust, rel=1e-9)
    assert f"Over 4 steps the law {'helps' if helps else 'does harm'} in channel 0" in str(diagnosis)
    weighed = Rollout(operator, GRID, update=diagnosis.weighed()).diagnose(truth, *given, fluxes=fluxes)
    assert torch.equal(weighed.law_error, diagnosis.law_error)  # of the exact law, whatever the update
    step = (
        Rollout(operator, GRID, update=diagnosis.weighed())(truth[:, 0], *given, fluxes=fluxes).totals[:, 1, 0]
        - totals[:, 1]
    )
    torch.testing.assert_close(step, torch.full_like(step, 0.02 + trust * (law_error - 0.02)), rtol=1e-9, atol=1e-12)


def test_a_law_whose_errors_add_up_is_found_to_do_harm_though_single_steps_speak_for_it():
    """An operator that is wrong by turns of its own sign, and fluxes that are wrong by a fifth of that, always."""
    steps = 60
    times, sign = torch.linspace(0.0, 1.0, steps + 1), 1 - 2 * (torch.arange(steps + 1) % 2).double()
    truth = torch.zeros(3, steps + 1, 1, 17, dtype=torch.float64)
    wrong = sign[1:].expand(3, steps)[..., None, None]
    rollout = Rollout(lambda u, error: 0.5 * u + 0.01 * error, GRID)
    walls = [(torch.full((3, steps, 1), 0.002 * 2.0, dtype=torch.float64), 0.0)]
    assert bool(rollout.diagnose(truth[:, :2], times[:2], wrong[:, :1], fluxes=[(walls[0][0][:, :1], 0.0)]).helps)
    diagnosis = rollout.diagnose(truth, times, wrong, fluxes=walls)
    assert not diagnosis.helps
    assert float(diagnosis.trust) == 0
    weighed = Rollout(rollout.operator, GRID, update=diagnosis.weighed())
    covariance = StepUpdate(covariance=torch.full((17,), 1e-4, dtype=torch.float64))
    also = Rollout(rollout.operator, GRID, update=diagnosis.weighed(covariance))
    for each in (weighed, also):
        error = each(truth[:, 0], times, wrong, fluxes=walls).fields[:, 1:].square().mean().sqrt()
        assert float(error) == pytest.approx(float(diagnosis.field_error), rel=1e-6)


def test_an_operator_that_diverges_alone_is_helped_by_a_law_that_holds_it():
    truth = FIELD[:, None].expand(3, STEPS + 1, 1, 17)

    def operator(u: Tensor) -> Tensor:
        drift = (u - FIELD).mean(dim=-1, keepdim=True)
        return FIELD + 1e-3 + torch.where(drift.abs() > 1e-9, 1e300 * drift, 0.0)

    diagnosis = Rollout(operator, GRID).diagnose(truth, TIMES, fluxes=CLOSED)
    assert bool(diagnosis.field_error.isinf().all())
    assert bool(diagnosis.helps)
    assert float(diagnosis.trust) == 1.0


@pytest.mark.parametrize("law_error", [0.0, 0.1])
def test_a_law_is_not_trusted_where_the_operator_makes_no_error(law_error: float):
    truth = FIELD[:, None].expand(3, STEPS + 1, 1, 17)
    walls = [(torch.full((3, STEPS, 1), law_error), 0.0)]
    diagnosis = Rollout(lambda u: u.clone(), GRID).diagnose(truth, TIMES, fluxes=walls)
    assert not diagnosis.trust.any()
    result = Rollout(lambda u: u.clone(), GRID, update=diagnosis.weighed())(FIELD, TIMES, fluxes=walls)
    assert torch.equal(result.fields, truth)


def test_bands_hold_for_new_functions_at_every_time_and_point():
    errors = normal(4000, STEPS, 1, 17) * TIMES[1:, None, None]
    truth = torch.zeros(4000, STEPS + 1, 1, 17, dtype=torch.float64)
    rollout = Rollout(lambda u, error: u + error, GRID)
    band = rollout.fit_band(truth[:400], TIMES, errors[:400], fluxes=CLOSED, level=0.8)
    new = rollout(truth[:3600, 0], TIMES, errors[400:], fluxes=CLOSED)
    lower, upper = band.ends(new)
    inside = ((lower <= 0) & (upper >= 0)).double().mean(dim=0)
    assert float((inside[1:].mean(dim=(1, 2)) - 0.8).abs().max()) < 0.02
    assert not band.fields[0].any()
    assert band.totals.shape == (STEPS + 1, 1)
    with pytest.raises(InvalidArgumentError, match="at least one batch axis"):
        rollout.fit_band(truth[0], TIMES, errors[0], fluxes=CLOSED)


def test_members_with_errors_of_the_operator_are_draws_given_the_law():
    fitted = fit_covariance(normal(9, 17), shrinkage=0.5)
    prior = fitted.around(smear(FIELD)[0, 0], level=0.9)
    operator = with_errors(smear, fitted.around(torch.zeros(17), level=0.9), torch.Generator().manual_seed(0))
    members = FIELD[:1].expand(20000, 1, 17)
    update = StepUpdate(covariance=fitted)
    drawn = Rollout(operator, GRID, update=update)(members, TIMES[:2], fluxes=CLOSED).fields[:, 1, 0]
    posterior = condition(prior, integral(GRID, FIELD[0, 0] @ GRID.weights))
    torch.testing.assert_close(drawn.mean(dim=0), posterior.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(drawn.var(dim=0), posterior.variance, rtol=0.05, atol=1e-3)


def roll(*, operator=smear, start=FIELD, times=TIMES, sides=CLOSED, inputs=(), grid=GRID, **options):
    kind = "values" if "flux" in options else "fluxes"
    return Rollout(operator, grid, **options)(start, times, *inputs, **{kind: sides})


def state(**changed) -> RolloutState:
    return Rollout(smear, GRID).state_of(FIELD)._replace(**changed)


CELLS, ALL = CellGrid(0.0, 1.0, 4), torch.ones(17, dtype=torch.bool)
INVALID, UNFIT = InvalidArgumentError, IncompatibleQueryError
WRONG = [
    (lambda: roll(sides=[]), INVALID, "fluxes needs one pair .* for each of the 1 axes.*got 0"),
    (lambda: roll(sides=[(0.0, None)]), INVALID, "Nothing says what passes the last side of axis 0"),
    (lambda: roll(sides=[(normal(3, 7, 1), 0.0)]), INVALID, r"axis 0 must be \(\*batch, 4 or 5, 1\).*got \(3, 7, 1\)"),
    (lambda: roll(sides=[(normal(4, 4, 1), 0.0)]), UNFIT, "batch axes"),
    (lambda: roll(sides=[(math.nan, 0.0)]), INVALID, "axis 0 hold 4 NaN"),
    (lambda: roll(start=FIELD[..., 1:]), INVALID, "channels, 17"),
    (lambda: roll(start=state(step=5)), INVALID, "after 5 steps, but the times have 4"),
    (lambda: roll(start=state(total=torch.full((3, 1), math.nan))), INVALID, "needs finite totals"),
    (lambda: roll(times=TIMES.flip(0)), INVALID, "strictly increasing"),
    (lambda: roll(inputs=[normal(3, 2, 1, 17)]), INVALID, r"each of the 4 steps.*got \[\(3, 2, 1, 17\)\]"),
    (lambda: roll(operator=lambda u: u * math.nan), INVALID, "at step 0, from t = 0, holds 51"),
    (lambda: roll(operator=lambda u: u[..., 1:]), INVALID, "shape of its input"),
    (lambda: roll(operator=lambda u: (u,)), INVALID, "its input.*got tuple"),
    (lambda: roll(operator=3), INVALID, "must map fields to fields, got int"),
    (lambda: roll(source=lambda u, t: 40 * u + t), ConvergenceError, "not settled in 50 iterations at step 0"),
    (lambda: roll(source=lambda u, t: math.nan * u * t), ConvergenceError, "at step 0: the total still changes by nan"),
    (lambda: roll(source=lambda u, t: t * u.sum(-1)), INVALID, r"source .* must be \(\*batch, 1, 17\), got \(3, 1\)"),
    (lambda: roll(conserved=(1,)), INVALID, "conserved must name"),
    (lambda: roll(conserved=(0, 0)), INVALID, "different channels, at least one"),
    (lambda: roll(grid=CELLS, flux=conductive), INVALID, "needs a NodeGrid"),
    (lambda: roll(grid=CELLS, flux=[(conductive, None)]), INVALID, "needs a NodeGrid"),
    (lambda: roll(flux=[None, None]), INVALID, "None for each of 1 axes, got 2"),
    (lambda: roll(flux=FluxModel(NodeGrid(0.0, 1.0, 17))), INVALID, "flux model was built for"),
    (lambda: roll(flux=FluxModel(GRID), sides=[(normal(5, 2), 0.0)]), INVALID, "1 values at a point of a wall, got 2"),
    (lambda: roll(flux=lambda u, g: (u + g).sum(-1)), INVALID, "flux at the first side of axis 0"),
    (lambda: roll(update=StepUpdate(fixed=ALL)), DependentConstraintsError, "contradicts the walls"),
    (lambda: roll(update=StepUpdate(covariance=torch.ones(3))), INVALID, r"covariance must be \(1, 17\)"),
    (lambda: StepUpdate(total_variance=1.0, noise_variance=-1.0), INVALID, "must be finite and not negative"),
    (lambda: StepUpdate(noise_variance=0.1), INVALID, "weighed against the error of the operator"),
    (
        lambda: Rollout(smear, GRID).diagnose(normal(6, STEPS, 1, 17), TIMES, fluxes=CLOSED),
        INVALID,
        r"trajectories \(\*batch, 5, c, \*space\), at all times",
    ),
    (
        lambda: Rollout(smear, GRID).fit_band(normal(6, STEPS + 1, 1, 17), TIMES, fluxes=CLOSED, level=1.5),
        INVALID,
        "level must lie between 0 and 1, got 1.5",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_invalid_arguments_raise_with_reason(call, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        call()


def former(call: Callable[[], Any], words: str = "takes what is given at the sides as values=") -> Any:
    """The result of a call of release 0.4, which warns where it is written."""
    with pytest.warns(DeprecationWarning, match=words) as found:
        result = call()
    assert [each.filename for each in found] == [__file__]
    return result


def test_walls_of_0_4_are_fluxes_and_values_with_a_warning():
    """Before the times or after them, by position or by name, None for a periodic axis; in all methods."""
    gradients, inputs = normal(3, STEPS + 1, 1), normal(3, STEPS, 1, 17)
    rollout, walls = Rollout(smear, GRID, flux=[(conductive, None)]), [(gradients, 0.5)]
    expected = rollout(FIELD, TIMES, inputs, values=[(gradients, None)], fluxes=[(None, 0.5)]).fields
    assert torch.equal(former(lambda: rollout(FIELD, TIMES, walls, inputs)).fields, expected)
    assert torch.equal(former(lambda: rollout(FIELD, walls, TIMES, inputs)).fields, expected)
    assert torch.equal(former(lambda: rollout(FIELD, TIMES, inputs, walls=walls)).fields, expected)
    states = former(lambda: rollout.iterate(FIELD, TIMES, walls, inputs))
    assert torch.equal(list(states)[-1].field, expected[:, -1])
    steps = former(
        lambda: rollout.steps(FIELD, TIMES, inputs, values=[(gradients, None)], fluxes=[(None, 0.5)]),
        "Rollout.steps is Rollout.iterate",
    )
    assert torch.equal(list(steps)[-1].field, expected[:, -1])
    plain, truth, closed = Rollout(smear, CELLS17), normal(6, STEPS + 1, 1, 17), [(0.0, 0.0)]
    both = former(lambda: plain.diagnose(truth, TIMES, closed)), plain.diagnose(truth, TIMES, fluxes=closed)
    assert str(both[0]) == str(both[1])
    old = former(lambda: plain.fit_band(truth, TIMES, [None], level=0.5))
    new = plain.fit_band(truth, TIMES, fluxes=[Periodic()], level=0.5)
    assert torch.equal(old.fields, new.fields)


@pytest.mark.parametrize("sides", [[Periodic()], [(Periodic(), Periodic())]])
def test_a_periodic_axis_is_one_in_either_argument(sides: list):
    expected = Rollout(smear, CELLS17)(FIELD, TIMES, fluxes=[(0.0, 0.0)]).fields
    for kind in ("values", "fluxes"):
        assert torch.equal(Rollout(smear, CELLS17)(FIELD, TIMES, **{kind: sides}).fields, expected)


def test_values_are_not_taken_for_fluxes():
    """Temperatures at the walls of a heat equation say nothing of the heat that passes."""
    temperatures = FIELD[:, None, :, 0].expand(3, STEPS + 1, 1)
    with pytest.raises(InvalidArgumentError, match=r"values\[0\]\[0\] says nothing of what passes the first side"):
        Rollout(smear, GRID)(FIELD, TIMES, values=[(temperatures, temperatures)])
    with pytest.raises(InvalidArgumentError, match="flux through the last side of axis 0 is computed by flux= from"):
        Rollout(smear, GRID, flux=conductive)(FIELD, TIMES, values=[(0.0, None)], fluxes=[(None, 0.0)])
    with pytest.raises(InvalidArgumentError, match="Axis 0 is periodic, but has data of sides"):
        Rollout(smear, GRID, flux=[(conductive, None)])(FIELD, TIMES, values=[Periodic()], fluxes=[(None, 0.0)])
    with pytest.raises(InvalidArgumentError, match="iterate takes values= and fluxes= in place of the walls"):
        Rollout(smear, GRID).iterate(FIELD, TIMES, CLOSED, fluxes=CLOSED)
    with pytest.raises(
        InvalidArgumentError, match=r"values\[0\] must be a pair \(first, last\), Periodic\(\), or None"
    ):
        Rollout(smear, GRID, flux=conductive)(FIELD, TIMES, values=[0.0])
    with pytest.raises(InvalidArgumentError, match="Nothing says what passes the first side of axis 0: give fluxes"):
        Rollout(smear, GRID)(FIELD, TIMES)


@pytest.mark.parametrize("axis", [0, 1])
def test_fields_on_nodes_repeat_their_first_node_along_a_periodic_axis_or_a_warning_says_so(axis: int):
    whole, grid = normal(2, 1, 6, 6), NodeGrid((0.0, 0.0), (1.0, 1.0), (6, 6))
    repeated = whole.clone()
    repeated.select(2 + axis, -1).copy_(whole.select(2 + axis, 0))
    walls: list[tuple[float, float] | Periodic] = [(0.0, 0.0)] * 2
    walls[axis] = Periodic()
    rollout = Rollout(lambda u: u, grid)
    rollout(repeated, TIMES, fluxes=walls)  # warnings are errors
    with pytest.warns(UserWarning, match=f"Axis {axis} is periodic, but its last node differs .* need a CellGrid"):
        rollout(whole, TIMES, fluxes=walls)
    Rollout(lambda u: u, CellGrid((0.0, 0.0), (1.0, 1.0), (6, 6)))(whole, TIMES, fluxes=walls)


def test_rollouts_print_what_they_are():
    rollout = Rollout(nn.Identity(), GRID, flux=conductive, conserved=(0,))
    assert repr(rollout).splitlines()[1].strip() == f"{GRID}, flux=…, conserved=…"
    result = rollout(FIELD, TIMES, values=[(0.0, 0.0)])
    assert repr(result) == "Trajectory(fields (3, 5, 1, 17), totals (3, 5, 1))"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fluxes_that_are_the_values_of_the_field_are_named(dtype: torch.dtype):
    """Temperatures at a wall in place of the heat that passes; not where a flux is computed from them."""
    temperatures = FIELD[:, None, :, 0].expand(3, STEPS + 1, 1).to(dtype)
    with pytest.warns(UserWarning, match="fluxes given at the first side of axis 0 begin with the values") as found:
        Rollout(smear, GRID)(FIELD, TIMES, fluxes=[(temperatures, 0.0)])
    assert [each.filename for each in found] == [__file__]
    Rollout(smear, GRID, flux=conductive)(FIELD, TIMES, values=[(temperatures, temperatures)])
    Rollout(smear, GRID)(0 * FIELD, TIMES, fluxes=[(0 * temperatures, 0.0)])
    plane, face = NodeGrid((0.0, 0.0), (1.0, 1.0), (4, 5)), normal(3, 2, 4, 5)
    fluxes = [(0.0, 0.0), (0.0, face[:, None, :, :, -1].expand(3, STEPS + 1, 2, 4))]
    with pytest.warns(UserWarning, match="fluxes given at the last side of axis 1 begin with"):
        Rollout(lambda u: u, plane)(face, TIMES, fluxes=fluxes)
