"""The benchmark of the neural process: attention written out, the forms compared, and when a training stops."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from experiments.benchmarks import anp, anp_accuracy
from experiments.benchmarks.anp_accuracy import Goal, train_until
from experiments.conservation.networks import NetworkConfig
from experiments.conservation.training import evidence_loss
from probconserv.surrogates.surrogate import Context, Query
from probconserv.training import StepContext, Task, TrainingConfig, random_seed, train
from probconserv.training.loop import TRAINING
from solvers import NodeGrid
from solvers.problems import STEFAN, exact
from solvers.problems.sampling import Protocol, sample_exact

SCHEDULE = TrainingConfig(steps=30, peak_rate=1e-2, precision="32-true")


def tiny(*_: str) -> NetworkConfig:
    """A network of the laptop preset's make that steps in milliseconds."""
    config = anp.stefan_config("laptop")
    network = replace(config.network, width=16, decoder_layers=1, latent_width=8, latent_samples=3)
    return replace(config, network=network, protocol=Protocol(target_times=8), batch=3)


@settings(deadline=None, max_examples=20)
@given(sizes=st.lists(st.integers(1, 8), min_size=4, max_size=4), dtype=st.sampled_from((torch.float32, torch.float64)))
def test_explicit_attention_is_what_torch_fuses(sizes: list[int], dtype: torch.dtype) -> None:
    heads, q, n, d = sizes
    torch.manual_seed(sum(sizes))
    query, key, value = (torch.randn(2, heads, length, d, dtype=dtype) for length in (q, n, n))
    fused = nn.functional.scaled_dot_product_attention(query, key, value)
    # Exponents below about 20 carry 20 eps of rounding into the weights, and the sums about ten more.
    tolerance = 32 * torch.finfo(dtype).eps * float(value.abs().max())
    torch.testing.assert_close(anp.explicit_attention(query, key, value), fused, rtol=0.0, atol=tolerance)


def test_forms_are_what_their_names_say() -> None:
    fused = nn.functional.scaled_dot_product_attention
    for form in (*anp.OURS, anp.BASELINE):
        with form.applied():
            used, product = nn.functional.scaled_dot_product_attention, torch.ones(2, 2) @ torch.ones(2, 2)
        assert used is (anp.explicit_attention if "explicit" in form.name else fused)
        assert product.dtype == (torch.bfloat16 if "bfloat16" in form.name else torch.float32)
        assert nn.functional.scaled_dot_product_attention is fused


def test_forms_of_the_network_differ_by_rounding_and_attention_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny()
    network, batch = anp.moved_network(config), anp.training_batch(config)
    explicit = anp.predicted_mean(network, batch, anp.BASELINE)

    def difference(form: anp.Form) -> float:
        return float((anp.predicted_mean(network, batch, form) - explicit).abs().max() / explicit.abs().max())

    assert difference(anp.FUSED) <= anp.AGREEMENT
    # Seven bits of mantissa: 2⁻⁸ a product, over about ten layers at most.
    assert anp.AGREEMENT < difference(anp.OURS[0]) < 10 * 2**-8
    wrong = lambda query, key, value: 1.1 * anp.explicit_attention(query, key, value)  # noqa: E731
    monkeypatch.setattr(nn.functional, "scaled_dot_product_attention", wrong)
    assert difference(anp.FUSED) > 10 * anp.AGREEMENT


def test_the_timed_step_is_that_of_the_training(tmp_path: Path) -> None:
    """Loss, clipping, rate and update: the same weights after one step as the training loop leaves."""
    config, batch = tiny(), anp.training_batch(tiny())
    config = replace(config, training=replace(config.training, steps=1, precision="32-true"))
    trained, timed = anp.moved_network(config), anp.moved_network(config)
    loss = Task(trained, lambda model, step: evidence_loss(model, step, config, lambda *_: batch, STEFAN))
    train(loss, config.training, tmp_path, progress=False)
    torch.manual_seed(random_seed(config.training.seed, TRAINING))
    anp.training_step(timed, batch, config, anp.FUSED)()
    # Rounding of the update; a weight decay of 0.01 would move weights by 7e-6 of themselves.
    torch.testing.assert_close(timed.state_dict(), trained.state_dict(), rtol=1e-6, atol=1e-9)


def line_task() -> Task:
    torch.manual_seed(0)

    def loss(model: nn.Module, step: StepContext) -> Tensor:
        x = torch.rand(8, 1, generator=step.generator)
        return (model(x) - 2 * x).square().mean()

    return Task(nn.Linear(1, 1), loss)


@pytest.mark.parametrize(("cap", "steps"), [(30, [5, 10]), (15, [5, 10, 15]), (40, [5, 10, 15, 20, 25, 30])])
def test_training_stops_at_the_goal_at_the_cap_or_with_the_schedule(cap: int, steps: list[int]) -> None:
    errors = [0.5, 0.1] if cap == 30 else [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    following = iter(errors)
    _, seen = train_until(line_task(), SCHEDULE, Goal(lambda _: next(following), 0.1, 5, cap))
    assert seen == list(zip(steps, errors, strict=False))


def test_evaluations_are_not_counted_as_training_time() -> None:
    """A clock that only losses (1 s) and evaluations (100 s) move."""
    clock, task = [], line_task()

    def loss(model: nn.Module, step: StepContext) -> Tensor:
        clock.append(1.0)
        return task.loss(model, step)

    goal = Goal(lambda _: clock.append(100.0) or 1.0, 0.1, 5, 20)
    assert train_until(replace(task, loss=loss), SCHEDULE, goal, clock=lambda: sum(clock))[0] == 20.0


def test_watched_training_is_the_training_itself(tmp_path: Path) -> None:
    """Same weights as without evaluations: rates are those of the whole schedule, whatever an evaluation draws."""
    plain, watched = line_task(), line_task()
    train(plain, SCHEDULE, tmp_path, progress=False)
    train_until(watched, SCHEDULE, Goal(lambda _: float(torch.rand(())), 1e-9, 10, 30))
    torch.testing.assert_close(watched.model.state_dict(), plain.model.state_dict(), rtol=0.0, atol=0.0)


def test_an_interrupted_training_has_no_outcome() -> None:
    task = line_task()

    def loss(model: nn.Module, step: StepContext) -> Tensor:
        if step.step == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return task.loss(model, step)

    with pytest.raises(KeyboardInterrupt):
        train_until(replace(task, loss=loss), SCHEDULE, Goal(lambda _: 1.0, 1e-9, 5, 30))


def test_conditioned_error_is_that_of_the_update_written_out() -> None:
    """μ′ = μ − Σ w (wᵀμ − b)/(wᵀ Σ w) component by component, then the mean over components."""
    config = tiny()
    network = anp.moved_network(config).eval()
    error = anp_accuracy.conditioned_error()(network)
    grid = NodeGrid(0.0, 1.0, 201)
    weights = torch.full((201,), 1 / 200, dtype=torch.float64)
    weights[[0, -1]] /= 2
    truth, total = exact.stefan(0.05, grid.points, 0.6), exact.stefan_total(0.05, 0.6)
    functions = torch.full((50,), 0.6, dtype=torch.float64)
    batch = sample_exact(STEFAN, functions, Protocol(), torch.Generator().manual_seed(60))
    points = torch.stack((torch.full_like(grid.points, 0.05), grid.points), dim=-1).expand(50, -1, -1)
    with torch.no_grad():
        parts = network.components(Context(batch.context_points, batch.context_values), Query(points))
    mean, variance = parts[0].double(), parts[1].double().square()
    residual = (mean @ weights - total)[..., None]
    corrected = mean - variance * weights * residual / (variance @ weights.square())[..., None]
    # 201 products and sums in float64.
    assert error == pytest.approx(float((corrected.mean(dim=0) - truth).square().mean()), rel=1e-12)
    assert error != pytest.approx(float((mean.mean(dim=0) - truth).square().mean()), rel=1e-3)


def test_run_reports_steps_and_accuracy(capsys: pytest.CaptureFixture[str]) -> None:
    report = anp.run(tiny, {"laptop": 1, "paper": 1}, functions=2, every=2, most_steps=4)
    assert json.loads(json.dumps(report)) == report
    *steps, accuracy = report["cases"]
    assert [case["case"].split(",")[0] for case in steps] == ["laptop preset"] * 2 + ["paper preset"] * 2
    for case, form in zip(steps, 2 * anp.OURS, strict=True):
        assert case["case"].endswith(f"batch 3, 100 context and 80 target points: {form.name}")
        assert (case["difference"] > anp.AGREEMENT) is form.bfloat16
    assert anp_accuracy.paper_error() == 1.887e-3
    assert accuracy["baseline"] == "ProbConserv-ANP of the released weights, MSE 0.001887 (an accuracy, not a time)"
    assert (accuracy["steps"], accuracy["minutes"]) == (4, accuracy["seconds"] / 60)
    assert accuracy["result"].startswith("not reached in 4 steps; the lowest was ")
    out, err = capsys.readouterr()
    assert (out, "step 4: 0.0 minutes, error" in err) == ("", True)
