"""A neural process is fitted by the library: resumption, early stopping, and a law with a learnt precision."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor

from probconserv import ANP, LinearConstraint
from probconserv.errors import DataFileError, InvalidArgumentError
from probconserv.surrogates.anp import ANPConfig
from probconserv.surrogates.fitting import FitOptions, FunctionSet, LearntLaw, UnderLaw, evidence_loss
from probconserv.training import StepContext, TrainingConfig
from tests.probconserv.training.test_training import assert_equal

TRAINING = TrainingConfig(steps=12, peak_rate=1e-2, validate_every=2, checkpoint_every=3, precision="32-true")
SIZES: dict[str, Any] = {"width": 8, "self_layers": 1, "decoder_layers": 1, "latent_width": 4, "latent_samples": 3}


CONFIG = ANPConfig(low=(0.0, 0.0), high=(1.0, 1.0), frequencies=2, **SIZES)


def network(seed: int = 0) -> ANP:
    torch.manual_seed(seed)
    return ANP(CONFIG)


def waves(functions: int = 20, n: int = 24, seed: int = 0) -> FunctionSet:
    """a·sin(2πx) at random points, a from 0 to 1."""
    generator = Generator().manual_seed(seed)
    points = torch.rand(functions, n, 2, generator=generator, dtype=torch.float64)
    size = torch.rand(functions, 1, generator=generator, dtype=torch.float64)
    return FunctionSet(points=points, values=size * torch.sin(2 * math.pi * points[..., 1]), context=8)


def weights_of(model: ANP) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def rising(_: ANP, generator: Generator) -> dict[str, float]:
    """Scores that get worse from the second validation on, told apart by the number of calls."""
    del generator
    rising.calls += 1  # type: ignore[attr-defined]
    return {"NLL": abs(rising.calls - 2.0)}  # type: ignore[attr-defined]


@pytest.fixture
def worsening() -> FitOptions:
    rising.calls = 0  # type: ignore[attr-defined]
    return FitOptions(batch=3, patience=2)


def test_a_fit_lowers_the_error_on_functions_it_has_not_seen(tmp_path: Path) -> None:
    options = FitOptions(batch=8, validation_functions=30)
    training = replace(TRAINING, steps=120, validate_every=60)
    model = network()
    fit = model.fit(waves(), waves(seed=1), config=training, folder=tmp_path, options=options, progress=False)
    first, last = fit.state.history
    assert (first["step"], last["step"], last["NLL"] < first["NLL"]) == (60, 120, True)
    assert (fit.best_step, fit.noise_variance, model.training) == (120, None, False)


@pytest.mark.parametrize("law", [None, LearntLaw(build=lambda batch: total_of(batch))])
def test_an_interrupted_fit_goes_on_to_the_same_weights(tmp_path: Path, law: LearntLaw | None) -> None:
    options, whole, broken = FitOptions(batch=3, law=law), network(), network()
    expected = whole.fit(waves(), config=TRAINING, folder=tmp_path / "whole", options=options, progress=False)

    class Stop(Exception):
        pass

    def stop(step: int, *_: float) -> None:
        if step == 7:
            raise Stop

    with pytest.raises(Stop):
        broken.fit(waves(), config=TRAINING, folder=tmp_path / "broken", options=options, progress=stop)
    resumed = network(seed=5)
    fit = resumed.fit(waves(), config=TRAINING, folder=tmp_path / "broken", options=options, progress=False)
    assert_equal(weights_of(resumed), weights_of(whole))
    assert fit.noise_variance == expected.noise_variance


def test_training_stops_early_and_keeps_the_best_weights(tmp_path: Path, worsening: FitOptions) -> None:
    stopped, short = network(), network()
    stopping: Any = {"config": TRAINING, "folder": tmp_path / "stopped", "options": worsening, "progress": False}
    fit = stopped.fit(waves(), rising, **stopping)
    assert [entry["NLL"] for entry in fit.state.history] == [1.0, 0.0, 1.0, 2.0]
    assert (fit.state.step, fit.best_step) == (8, 4)
    steps = {}
    plain = replace(worsening, patience=None)
    short.fit(
        waves(),
        config=TRAINING,
        options=plain,
        progress=lambda step, *_: steps.setdefault(step, weights_of(short)),
    )
    assert_equal(weights_of(stopped), steps[4])
    assert not all(torch.equal(value, steps[8][name]) for name, value in weights_of(stopped).items())
    again = network(seed=3)
    assert again.fit(waves(), rising, **stopping).state.step == 8
    assert_equal(weights_of(again), steps[4])
    assert rising.calls == 4, "nothing is trained again"  # type: ignore[attr-defined]


def total_of(batch: Any) -> LinearConstraint:
    """Σ u = Σ of the truth."""
    values = batch.target_values.double()
    rows = torch.ones(1, values.shape[-1], dtype=torch.float64)
    return LinearConstraint(rows, values.sum(dim=-1, keepdim=True))


def test_the_loss_under_a_law_is_that_of_the_update_written_out() -> None:
    """μ − s² gᵀ(gμ − b)/(g s² gᵀ + σ²) for one row g of ones; the gradient of σ² agrees with a difference quotient."""
    options = FitOptions(batch=3, tempering=0.0, law=LearntLaw(build=total_of, noise_variance=0.04))
    assert options.law is not None
    model = UnderLaw(network(), options.law)

    def loss(dataset: Any = waves()) -> Tensor:  # noqa: B008
        torch.manual_seed(1)
        return evidence_loss(model, StepContext(0, 0.0, Generator().manual_seed(2)), dataset, options)

    batch = waves()(Generator().manual_seed(2), 3)
    torch.manual_seed(1)
    values = batch.target_values
    mean, scale, divergence = model.network(
        batch.context_points, batch.context_values.float(), batch.target_points, values.float()
    )
    variance, residual = scale.double().square(), (mean - values.float()).double().sum(dim=-1, keepdim=True)
    gain = variance / (variance.sum(dim=-1, keepdim=True) + 0.04)
    moved, left = mean.double() - gain * residual, variance - gain * variance
    misfit = -torch.distributions.Normal(moved, left.sqrt()).log_prob(values.float()).mean()
    expected = misfit + divergence.mean() / values.shape[-1]
    torch.testing.assert_close(loss(), expected, rtol=1e-6, atol=0.0, check_dtype=False)
    loss().backward()
    slope, parameter, step = model.log_noise_variance.grad, model.log_noise_variance, 1e-4
    with torch.no_grad():
        upper, lower = (parameter.add_(change) and loss() for change in (step, -2 * step))
    assert slope is not None
    assert float(slope) == pytest.approx(float((upper - lower) / (2 * step)), rel=1e-3)


def test_the_precision_of_a_law_that_holds_rises_and_can_be_kept(tmp_path: Path) -> None:
    training = replace(TRAINING, steps=20, peak_rate=0.1)
    learnt, kept = (LearntLaw(build=total_of, noise_variance=0.5, learnt=learn) for learn in (True, False))
    first = network().fit(
        waves(), config=training, folder=tmp_path / "learnt", options=FitOptions(batch=3, law=learnt), progress=False
    )
    second = network().fit(
        waves(), config=training, folder=tmp_path / "kept", options=FitOptions(batch=3, law=kept), progress=False
    )
    assert first.noise_variance is not None
    assert first.noise_variance < 0.3
    assert second.noise_variance == pytest.approx(0.5, rel=1e-15)


def test_other_options_refuse_the_checkpoint(tmp_path: Path) -> None:
    network().fit(
        waves(), config=TRAINING, folder=tmp_path, options=FitOptions(batch=3, config="waves"), progress=False
    )
    for other in (FitOptions(batch=4, config="waves"), FitOptions(batch=3, config="steps")):
        with pytest.raises(DataFileError, match="belongs to another training"):
            network().fit(waves(), config=TRAINING, folder=tmp_path, options=other, progress=False)


@given(functions=st.integers(1, 5), n=st.integers(2, 9), d=st.integers(1, 3), shared=st.booleans(), data=st.data())
def test_a_set_of_functions_splits_points_of_one_function(
    functions: int, n: int, d: int, shared: bool, data: st.DataObject
) -> None:
    context, seed = data.draw(st.integers(1, n - 1)), data.draw(st.integers(0, 99))
    values = torch.arange(functions * n, dtype=torch.float64).reshape(functions, n)
    points = torch.arange(n, dtype=torch.float64)[:, None].expand(n, d)
    points = points if shared else points + n * torch.arange(functions, dtype=torch.float64)[:, None, None]
    sample = FunctionSet(points=points, values=values, context=context)(Generator().manual_seed(seed), 4)
    assert sample.context_values.shape == (4, context)
    joined = torch.cat((sample.context_values, sample.target_values), dim=-1)
    places = torch.cat((sample.context_points, sample.target_points), dim=-2)[..., 0]
    torch.testing.assert_close(joined % n if shared else joined, places, rtol=0.0, atol=0.0)
    assert torch.equal(joined.sort(dim=-1).values, values[(joined[:, 0] / n).long()])


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: FunctionSet(points=torch.zeros(3, 5, 2), values=torch.zeros(3, 4), context=2), r"got \(3, 5, 2\) and"),
        (lambda: FunctionSet(points=torch.zeros(5, 2), values=torch.full((3, 5), torch.nan), context=2), "hold 15 NaN"),
        (
            lambda: FunctionSet(points=torch.zeros(5, 2), values=torch.zeros(3, 5), context=5),
            "context must be from 1 to 4",
        ),
        (lambda: LearntLaw(build=total_of, noise_variance=0.0), "must be positive and finite, got 0.0"),
        (lambda: LearntLaw(build=total_of, noise_variance=-1.0), "must be positive and finite, got -1.0"),
        (lambda: LearntLaw(build=total_of, noise_variance=math.nan), "must be positive and finite, got nan"),
        (lambda: FitOptions(batch=0), "batch must be at least 1, got 0"),
        (lambda: FitOptions(tempering=2.0), r"tempering must lie in \[0, 1\]"),
        (lambda: FitOptions(tempering_unit=0.0), r"tempering_unit must be positive and finite"),
        (lambda: network().fit(waves(), config=TRAINING, options=FitOptions(patience=3)), "patience needs validation"),
        (
            lambda: network().fit(waves(), waves(seed=1), config=TRAINING, options=FitOptions(patience=3)),
            "and a folder for the best weights",
        ),
        (
            lambda: network().fit(torch.zeros(3), config=TRAINING),  # type: ignore[arg-type]
            "training must be a FunctionSet .* got Tensor; put",
        ),
    ],
)
def test_what_is_no_fit_is_refused(build: Any, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        build()


def test_validation_without_the_followed_score_is_refused(tmp_path: Path) -> None:
    options = FitOptions(batch=3, patience=2)
    with pytest.raises(InvalidArgumentError, match=r"patience follows 'NLL', .* got \{'MSE': 1.0\}"):
        network().fit(
            waves(), lambda *_: {"MSE": 1.0}, config=TRAINING, folder=tmp_path, options=options, progress=False
        )


@pytest.mark.parametrize("unit", [2.0**-30, 2.0**-2, 2.0**30])
def test_the_same_data_in_another_unit_train_the_same_network(unit: float) -> None:
    """Bit for bit where the unit is a power of two, by which fields and scales are multiplied without rounding."""

    def trained(unit: float) -> ANP:
        torch.manual_seed(0)
        model = ANP(replace(CONFIG, value_scale=unit, scale_floor=unit * CONFIG.scale_floor))
        model.fit(waves_of(unit), config=TRAINING, options=FitOptions(batch=3), progress=False)
        return model

    assert_equal(weights_of(trained(unit)), weights_of(trained(1.0)))


def test_a_checkpoint_of_another_tempering_unit_is_refused(tmp_path: Path) -> None:
    """Checkpoints of 0.4, which weighs by the scale in the unit of the field, resume where the loss is the same."""
    coarse = ANP(replace(CONFIG, value_scale=4.0))
    fitted(tmp_path / "former", coarse, tempering_unit=1.0)
    with pytest.raises(DataFileError, match=r"task\.tempering_unit is None there and 4\.0 here"):
        fitted(tmp_path / "former", coarse)
    fitted(tmp_path / "plain", coarse, tempering=0.0, tempering_unit=1.0)
    fitted(tmp_path / "plain", coarse, tempering=0.0)


# Checkpoints of another fit in the same folder


def fitted(folder: Path, model: ANP | None = None, training: Any = None, validation: Any = None, **options: Any) -> ANP:
    model = network() if model is None else model
    data: Any = waves() if training is None else training
    model.fit(data, validation, config=TRAINING, folder=folder, options=FitOptions(batch=3, **options), progress=False)
    return model


def partly_frozen() -> ANP:
    model = network()
    model.embed_target.requires_grad_(False)
    return model


def drawing(size: float) -> Any:
    return lambda generator, count: waves_of(size)(generator, count)


def waves_of(size: float) -> FunctionSet:
    data = waves()
    return replace(data, values=size * data.values)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"training": waves_of(2.0)}, r"data\.training\.values is 'float64 \(20, 24\) \w{16}' there and 'float64"),
        ({"training": replace(waves(), context=9)}, r"data\.training\.context is 8 there and 9 here"),
        ({"training": drawing(1.0)}, r"data\.training\.context is 8 there and None here"),
        ({"validation": waves(seed=1)}, r"data\.validation is None there and \{"),
        ({"validation": rising}, r"data\.validation is None there and 'function' here"),
        ({"penalty": lambda *_: torch.zeros(())}, r"data\.penalty is None there and 'function' here"),
        (
            {"model": ANP(replace(CONFIG, value_scale=100.0))},
            r"network\.model\.config\.value_scale is 1\.0 there and 100",
        ),
        (
            {"model": ANP(replace(CONFIG, low=(-10.0, 0.0)))},
            r"network\.model\.config\.low is \[0\.0, 0\.0\] there and \[-10",
        ),
        ({"model": ANP(replace(CONFIG, heads=4))}, r"network\.model\.config\.heads is 2 there and 4 here"),
        (
            {"model": ANP(replace(CONFIG, problem="heat"))},
            r"network\.model\.config\.problem is '' there and 'heat' here",
        ),
        ({"model": partly_frozen()}, r"network\.embed_target\.frozen is \[\] there and \['weight', 'bias'\] here"),
    ],
)
def test_a_folder_with_another_fit_is_refused_and_what_differs_is_named(
    other: dict[str, Any], named: str, tmp_path: Path
) -> None:
    first = weights_of(fitted(tmp_path))
    with pytest.raises(DataFileError, match=rf"belongs to another training \({named}.*choose another output folder"):
        fitted(tmp_path, **other)
    assert_equal(weights_of(fitted(tmp_path, network(seed=4))), first)


def test_another_validation_set_is_refused(tmp_path: Path) -> None:
    fitted(tmp_path, validation=waves(seed=1))
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        ({"validation": waves(seed=2)}, r"data\.validation\.points"),
        ({"validation": waves(seed=1), "validation_functions": 5}, r"data\.validation_functions is 100 there and 5"),
        ({}, r"data\.validation is \{.*there and None here"),
    )
    for other, named in cases:
        with pytest.raises(DataFileError, match=named):
            fitted(tmp_path, **other)


def test_a_function_that_draws_others_is_refused_unless_a_config_names_the_data(tmp_path: Path) -> None:
    fitted(tmp_path / "drawn", training=drawing(1.0))
    with pytest.raises(DataFileError, match=r"data\.training\.context_values is 'float64 \(1, 8\)"):
        fitted(tmp_path / "drawn", training=drawing(2.0))
    fitted(tmp_path / "named", training=drawing(1.0), config="waves")
    fitted(tmp_path / "named", training=drawing(2.0), config="waves")


def test_a_function_that_draws_others_in_every_call_resumes(tmp_path: Path) -> None:
    """As one that goes through a data loader does."""
    seeds = iter(range(1000))

    def following(_: Generator, count: int) -> Any:
        return waves()(Generator().manual_seed(next(seeds)), count)

    first = weights_of(fitted(tmp_path, training=following))
    assert_equal(weights_of(fitted(tmp_path, network(seed=4), following)), first)


def test_drawing_for_a_checkpoint_leaves_the_training_as_it_is(tmp_path: Path) -> None:
    def of_global_numbers(_: Generator, count: int) -> Any:
        return waves()(Generator().manual_seed(int(torch.randint(1000, ()))), count)

    torch.manual_seed(3)
    with_folder = weights_of(fitted(tmp_path, training=of_global_numbers))
    after = torch.rand(())
    torch.manual_seed(3)
    alone = network()
    alone.fit(of_global_numbers, config=TRAINING, options=FitOptions(batch=3), progress=False)
    assert_equal(weights_of(alone), with_folder)
    assert torch.rand(()) == after
