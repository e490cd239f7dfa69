"""Training of operators by CRPS: what the loss is, what is shared, how it resumes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import boon
from experiments import train_field as module
from experiments.errors import TrainingInterruptedError
from experiments.field_data import field_samples
from experiments.field_experiments import BOUNDED, PLAIN, THROUGH_UPDATE
from experiments.field_models import UNIT, Network, build, diversity_penalty, inputs, surrogate
from experiments.train_field import FieldLoss, FieldTraining, train_field, trained_field
from experiments.training import Progression
from probconserv import ProbConserv
from probconserv.scores import crps
from probconserv.surrogates.operator import as_gaussian
from tests.experiments.fields import CASES, TINY

HEADS = Network(name="heads", heads=2, diversity=0.5)
DROPOUT = Network(name="dropout", dropout=0.2)
EVERY = pytest.mark.parametrize("network", [PLAIN, BOUNDED, THROUGH_UPDATE, HEADS, DROPOUT], ids=lambda n: n.name)


def of(network: Network, steps: int = 4) -> FieldTraining:
    sizes = replace(TINY, training=replace(TINY.training, steps=steps))
    return sizes.field_training(sizes.sized(CASES["stefan"]), network, seed=0)


def test_the_loss_through_the_update_is_that_of_the_conditioned_prediction(tmp_path: Path) -> None:
    case = TINY.sized(CASES["stefan"])
    samples = field_samples(case, 3, tmp_path)
    operator = build(THROUGH_UPDATE, case, TINY.network)
    loss = FieldLoss(operator, THROUGH_UPDATE, case)
    found = loss(*loss.prepared(samples, torch.device("cpu")).take(slice(None)))
    model = ProbConserv(surrogate([operator], PLAIN, case, passes=1), case.law(samples.parameter))
    prediction = model(*inputs(case, PLAIN, samples.parameter, torch.float32))
    expected = crps(samples.fields, prediction.mean, prediction.variance).mean()
    # The update casts its result back to single precision here, the loss does not.
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    found.backward()
    gradients = [parameter.grad for parameter in operator.parameters()]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)


def test_the_loss_of_heads_is_their_mean_score_and_the_penalty(tmp_path: Path) -> None:
    case = TINY.sized(CASES["porous_medium"])
    samples = field_samples(case, 3, tmp_path)
    operator = build(HEADS, case, TINY.network)
    loss = FieldLoss(operator, HEADS, case)
    parts = loss.prepared(samples, torch.device("cpu")).take(slice(None))
    with torch.no_grad():
        output = operator(*parts[0]).double()
        each = [as_gaussian(part, UNIT) for part in output.chunk(2, dim=1)]
        expected = sum(crps(samples.fields, one.mean, one.variance).mean() for one in each) / 2
        assert float(loss.score(*parts)) == pytest.approx(float(expected), rel=1e-12)
        penalty = 0.5 * float(diversity_penalty(operator, 2))
        assert float(loss(*parts)) == pytest.approx(float(expected) + penalty, rel=1e-6)


@EVERY
def test_training_lowers_the_score_and_says_how_it_went(network: Network, tmp_path: Path) -> None:
    case = TINY.sized(CASES["stefan"])
    path = trained_field(case, of(network, steps=40), tmp_path)
    notes = boon.read_notes(path)
    history = [entry["crps"] for entry in notes["history"]]
    assert history[-1] < 0.9 * history[0]
    assert notes["training"] == of(network, steps=40).content
    assert notes["seconds"] > 0
    assert notes["environment"]["packages"]["torch"] == torch.__version__


def test_a_finished_training_is_found_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = TINY.sized(CASES["stefan"])
    path = trained_field(case, of(PLAIN), tmp_path)
    monkeypatch.setattr(module, "train_field", lambda *_: pytest.fail("trained again"))
    assert trained_field(case, of(PLAIN), tmp_path) == path
    assert of(replace(PLAIN, name="other")).identity == of(PLAIN).identity
    assert len({of(network).identity for network in (PLAIN, BOUNDED, THROUGH_UPDATE, HEADS, DROPOUT)}) == 5


@EVERY
def test_an_interrupted_training_ends_as_one_that_was_not(network: Network, tmp_path: Path) -> None:
    case = TINY.sized(CASES["stefan"])
    config = of(network)
    samples = (field_samples(case, 6, tmp_path), field_samples(case, 2, tmp_path))
    whole, _ = train_field(case, config, samples, tmp_path / "whole", progress=False)

    class Stopped(Exception):
        pass

    original = FieldLoss.forward
    calls = 0

    def stopping(self: FieldLoss, *arguments: object) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Stopped
        return original(self, *arguments)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FieldLoss, "forward", stopping)
        with pytest.raises(Stopped):
            train_field(case, config, samples, tmp_path / "parts", progress=False)
    resumed, progression = train_field(case, config, samples, tmp_path / "parts", progress=False)
    assert progression.step == 4
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_stopped_training_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = TINY.sized(CASES["stefan"])
    monkeypatch.setattr(module, "train", lambda *_: Progression(step=2))
    with pytest.raises(TrainingInterruptedError, match=r"was stopped; .* holds its checkpoint"):
        trained_field(case, of(PLAIN), tmp_path)
    assert not list(tmp_path.glob("**/weights.safetensors"))
