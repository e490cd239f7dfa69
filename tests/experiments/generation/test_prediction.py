"""The study of flows as predictions: what all rows are given, how the law enters, and a run in small sizes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from experiments.conservation.cases import Sizes, laws_of
from experiments.driver import run
from experiments.errors import InvalidArgumentError
from experiments.experiment import RunContext, RunOptions
from experiments.prediction import STUDIES, PredictionStudy
from experiments.prediction.rows import METHODS, PredictionCase, law_of_fields, of_training_fields, resampled
from experiments.prediction.study import score_draws
from experiments.registry import experiment
from probconserv.scores import mse
from tests.experiments.conservation.tiny import tiny as tiny_conservation
from tests.experiments.generation.tiny import tiny as tiny_generation

SIZES = Sizes(functions=5, points=41, samples=40)
BARE, TOLD = METHODS[0], METHODS[1]


def tiny() -> PredictionStudy:
    """The study of the Stefan problem with networks that are trained for a few steps."""
    entry = STUDIES["generate_stefan-prediction"]
    base = tiny_conservation("stefan", problem=entry.base.problem, data="exact")
    return PredictionStudy(
        name="prediction", base=base, flows=tiny_generation("generate_stefan"), sizes={"smoke": SIZES}
    )


def case(parameter: float = 0.6) -> PredictionCase:
    """One of its cases."""
    cases = tiny().cases(RunContext(options=RunOptions()))
    return next(entry for entry in cases if entry.base.parameter == parameter)


def field(of: PredictionCase) -> Tensor:
    """The true field ``(t, x)``."""
    return of.family.fields(torch.tensor([[of.base.parameter]], dtype=torch.float64), of.nodes)[0]


def test_observations_are_values_of_the_true_field_at_nodes_and_differ_between_functions() -> None:
    chosen = case()
    context, (times, points) = chosen.observations(), chosen.family.axes(chosen.nodes)
    assert context.points.shape == (5, 100, 2)
    rows, columns = (
        torch.searchsorted(axis, context.points[..., i].contiguous()) for i, axis in enumerate((times, points))
    )
    assert torch.equal(torch.stack([times[rows], points[columns]], dim=-1), context.points)
    assert torch.equal(field(chosen)[rows, columns], context.values)
    assert not torch.equal(context.points[0], context.points[1])


def test_the_target_is_a_time_of_the_grid_and_the_law_acts_on_it_alone() -> None:
    chosen, u = case(), field(case())
    time = int((chosen.family.axes(chosen.nodes)[0] - 0.05).abs().argmin())
    assert torch.allclose(u[time], chosen.target.truth()[0, 0], rtol=0, atol=1e-14)
    assert torch.equal(u.flatten()[chosen.row], u[time])
    law, expected = law_of_fields(chosen), laws_of(chosen.target).exact.residual(u[time])
    assert torch.allclose(law.residual(u.flatten()), expected.flatten(), rtol=0, atol=1e-15)
    changed = u.clone()
    changed[time - 1] += 1.0
    assert torch.equal(law.residual(changed.flatten()), law.residual(u.flatten()))


def test_draws_are_drawn_again_in_proportion_to_their_likelihood() -> None:
    chosen = replace(case(), base=replace(case().base, sizes=Sizes(functions=5, points=41, samples=4000)))
    draws = torch.arange(3, dtype=torch.float64)[:, None, None].expand(3, 2, 4)
    weights = torch.tensor([[0.2, 0.0], [0.3, 0.0], [0.5, 1.0]], dtype=torch.float64)
    drawn = resampled(draws, weights.log() + 700.0, chosen)
    assert drawn.shape == (4000, 2, 4)
    frequency = torch.stack([(drawn[:, 0, 0] == value).double().mean() for value in range(3)])
    assert torch.allclose(frequency, weights[:, 0], rtol=0, atol=5 * (0.25 / 4000) ** 0.5)
    assert bool((drawn[:, 1] == 2.0).all())


@pytest.mark.long
def test_training_fields_find_the_parameter_in_the_range_and_its_end_outside() -> None:
    inside, outside = (replace(case(parameter), fields=2000) for parameter in (0.6, 0.5))
    found = of_training_fields(inside, ())
    assert bool((mse(inside.target.truth()[0], found.mean(dim=0)) < 1e-5).all())
    end = outside.family.fields(torch.tensor([[0.55]], dtype=torch.float64), outside.nodes)[0].flatten()[outside.row]
    assert float((of_training_fields(outside, ()) - end).abs().max()) < 1e-2


def test_scores_are_those_of_the_draws_alone() -> None:
    chosen, generator = case(), torch.Generator().manual_seed(0)
    truth = chosen.target.truth()[0]
    noise = torch.randn(2000, 5, chosen.nodes, dtype=torch.float64, generator=generator)
    arrays = score_draws(truth + 0.1 + 0.2 * noise, chosen, BARE)
    assert arrays["MSE"] == pytest.approx(0.01, rel=0.2)
    # of N(truth + 0.1, 0.2²): ½ in units of the deviation
    assert arrays["CRPS"] == pytest.approx(0.2 * 0.3314, rel=0.03)
    assert arrays["coverage90"] == pytest.approx(1.0)
    assert arrays["law_residual"].min() > arrays["CE"].max() > 0
    assert "squared_residual" not in score_draws(truth + noise, chosen, TOLD)


@pytest.mark.long
def test_a_run_meets_the_law_in_every_draw_and_draws_the_overview(tmp_path: Path) -> None:
    report = run(tiny(), RunOptions(out=tmp_path, cases=("u=0.6",)))
    means = report.records.set_index(["score", "method"])["mean"]
    assert set(means["CRPS"].index) == {method.key for method in METHODS}
    largest = means["law_residual"]
    assert largest[["probconserv-gp", "probconserv-anp", "flow-law"]].max() < 1e-12
    assert largest[["gp", "anp", "flow", "training-fields"]].min() > 1e-4
    assert {file.name for file in report.files} >= {"overview.png"}
    assert "u* in [0.55, 0.7]" in report.description.title


def test_what_makes_no_fair_comparison_is_refused() -> None:
    entry, context = tiny(), RunContext(options=RunOptions())
    other = replace(entry, flows=tiny_generation("generate_porous_medium"))
    with pytest.raises(InvalidArgumentError, match=r"trained on \(\(1.0, 6.0\),\) and the networks of stefan on"):
        other.cases(context)


def test_the_study_is_found_by_the_experiment_of_its_flow() -> None:
    assert experiment("generate_stefan-prediction") is STUDIES["generate_stefan-prediction"]
    context = RunContext(options=RunOptions(preset="laptop"))
    entry = STUDIES["generate_stefan-prediction"]
    chosen = entry.cases(context)[0]
    released = {training.release for method in METHODS for training in entry.trainings(chosen, method, 0, context)}
    assert released == {"stefan-anp.safetensors", "generation/stefan-flow-0.safetensors"}
