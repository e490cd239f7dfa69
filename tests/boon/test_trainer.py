"""Operators in the Trainer of neuraloperator."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from boon import BOON, FNO, FNOConfig
from boon.errors import InvalidArgumentError, MissingBoundaryError
from boon.trainer import ForTrainer, normalised_by
from solvers import Dirichlet, Neumann

SAMPLES, NODES = 32, 17
CONFIG = FNOConfig(width=8, modes=(4,), depth=2)
CONDITIONS = [(Dirichlet(), Neumann(0.0))]


class Normalizer(nn.Module):
    """The formula of their UnitGaussianNormalizer."""

    def __init__(self, mean, std, eps=1e-7):
        super().__init__()
        self.mean, self.std, self.eps = mean, std, eps

    def transform(self, x):
        return (x - self.mean) / (self.std + self.eps)

    def inverse_transform(self, x):
        return x * (self.std + self.eps) + self.mean


class Processor:
    """The members of their DefaultDataProcessor that count here."""

    def __init__(self, in_normalizer=None, out_normalizer=None):
        self.in_normalizer, self.out_normalizer = in_normalizer, out_normalizer


def samples():
    """Smooth fields with values of their own on the left, flat on the right, in units of a few hundred."""
    torch.manual_seed(0)
    x, inflow, bump = torch.linspace(0, 1, NODES), 300 + 10 * torch.rand(SAMPLES, 1), 20 * torch.rand(SAMPLES, 1)
    y = inflow + bump * (1 - torch.cos(2 * torch.pi * x))
    return [{"x": 5 + y[i : i + 1] / 100, "y": y[i : i + 1], "inflow": inflow[i]} for i in range(SAMPLES)]


def fitted(name, kind=Normalizer):
    fields = torch.stack([sample[name] for sample in samples()])
    return kind(fields.mean(dim=(0, 2), keepdim=True), fields.std(dim=(0, 2), keepdim=True))


def batch(normalizer):
    data = next(iter(DataLoader(samples(), batch_size=SAMPLES)))
    return {**data, "x": data["x"] if normalizer is None else normalizer.transform(data["x"])}


def test_conditions_hold_for_the_physical_field_whatever_the_processor_does():
    processor = Processor(fitted("x"), fitted("y"))
    operator = BOON(normalised_by(FNO(CONFIG), processor), CONDITIONS)
    data = batch(processor.in_normalizer)
    normalised = ForTrainer(operator, processor, [("inflow", None)])(**data)
    u = processor.out_normalizer.inverse_transform(normalised)
    torch.testing.assert_close(u[:, :, 0], data["inflow"], rtol=3e-7, atol=0)  # a rounding or two of float32
    assert 0.01 < normalised.std() < 10, "what the network gives is of the size of what it is compared with"
    physical = batch(None)
    expected = operator(physical["x"], [(physical["inflow"], None)])
    torch.testing.assert_close(u, expected, rtol=1e-6, atol=0)
    plain = ForTrainer(operator, None, [("inflow", None)])
    assert torch.equal(plain(**physical), expected)


def test_without_values_at_the_call_samples_need_none():
    operator = BOON(FNO(CONFIG), [(Dirichlet(300.0), None)])
    assert (ForTrainer(operator, Processor())(**batch(None))[:, :, 0] == 300).all()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:LpLoss")  # of every entry of a sample, "x" as well
def test_their_trainer_trains_it(tmp_path, monkeypatch, capsys):
    neuralop = pytest.importorskip("neuralop", reason="needs neuraloperator: pip install '.[neuraloperator]'")
    transforms = pytest.importorskip("neuralop.data.transforms.data_processors")
    normalizers = pytest.importorskip("neuralop.data.transforms.normalizers")
    monkeypatch.chdir(tmp_path)
    parts = (fitted(name, lambda mean, std: normalizers.UnitGaussianNormalizer(mean, std)) for name in ("x", "y"))
    processor = transforms.DefaultDataProcessor(*parts)
    operator = BOON(normalised_by(FNO(CONFIG), processor), CONDITIONS)
    model = ForTrainer(operator, processor, [("inflow", None)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    trainer = neuralop.Trainer(model=model, n_epochs=15, data_processor=processor, device="cpu")
    loss = neuralop.LpLoss(d=1)
    result = trainer.train(
        train_loader=DataLoader(samples(), batch_size=8),
        test_loaders={"test": DataLoader(samples(), batch_size=8)},
        optimizer=optimizer,
        scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 100),
        training_loss=loss,
        eval_losses={"l2": loss},
    )
    capsys.readouterr()
    assert result["test_l2"] < 8 * 5e-3  # their evaluation sums over a batch
    data = batch(None)
    u = operator(data["x"], [(data["inflow"], None)])
    assert torch.equal(u[:, :, 0], data["inflow"])


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:LpLoss", "ignore:Attempting to update metadata")
@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("saving", [{"save_every": 1}, {"save_best": "test_l2"}], ids=str)
def test_their_trainer_saves_it_and_resumes(tmp_path, saving, kind, capsys):
    neuralop = pytest.importorskip("neuralop", reason="needs neuraloperator: pip install '.[neuraloperator]'")
    states = []
    for resumed in ({}, {"resume_from_dir": tmp_path}):
        torch.manual_seed(len(states))
        network = FNO(CONFIG) if kind == "ours" else neuralop.models.FNO((8,), 1, 1, 8, n_layers=2)
        model = ForTrainer(BOON(network, CONDITIONS), None, [("inflow", None)])
        optimizer, loss = torch.optim.AdamW(model.parameters(), lr=1e-3), neuralop.LpLoss(d=1)
        trainer = neuralop.Trainer(model=model, n_epochs=1 + len(states), device="cpu")
        trainer.train(
            train_loader=DataLoader(samples(), batch_size=8),
            test_loaders={"test": DataLoader(samples(), batch_size=8)},
            optimizer=optimizer,
            scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 100),
            training_loss=loss,
            eval_losses={"l2": loss},
            save_dir=tmp_path,
            **saving,
            **resumed,
        )
        states.append({name: entry.clone() for name, entry in model.state_dict().items()})
    capsys.readouterr()
    first, second = states
    moved = max(float((first[name] - second[name]).abs().max()) for name in first)
    assert 0 < moved < 0.02  # a few steps of 1e-3 from the stored weights, not from others


def test_the_saved_state_is_that_of_the_model_and_holds_tensors_only(tmp_path):
    operator = BOON(FNO(CONFIG), CONDITIONS)
    operator.register_state_dict_post_hook(lambda _, state, *__: state.update(_metadata={"activation": print}))
    model = ForTrainer(operator, None)  # as neuraloperator's models do
    model.save_checkpoint(tmp_path / "folder", "model")
    state = torch.load(tmp_path / "folder" / "model_state_dict.pt")
    twin = ForTrainer(BOON(FNO(CONFIG), CONDITIONS), None)
    twin.load_state_dict(state)
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), twin.parameters(), strict=True))


POINTWISE = Normalizer(torch.zeros(1, 1, NODES), torch.ones(1, 1, NODES))
WRONG = {
    "no entry of that name": (
        lambda: ForTrainer(BOON(FNO(CONFIG), CONDITIONS), None, [("left", None)]),
        "sides names 'left'",
    ),
    "no sides": (lambda: ForTrainer(BOON(FNO(CONFIG), CONDITIONS), None), "(?i)value"),
    "a normalizer for a processor": (lambda: ForTrainer(FNO(CONFIG), fitted("x")), "got Normalizer"),
    "the class of a processor": (lambda: ForTrainer(FNO(CONFIG), "default"), "got str"),
    "no normalizers": (lambda: normalised_by(FNO(CONFIG), Processor()), "in_normalizer must be .*got none"),
    "no normalizer of outputs": (lambda: normalised_by(FNO(CONFIG), Processor(fitted("x"))), "out_normalizer must"),
    "no processor": (lambda: normalised_by(FNO(CONFIG), None), "in_normalizer must be"),
    "a normalizer that is not fitted": (
        lambda: normalised_by(FNO(CONFIG), Processor(Normalizer(None, None), fitted("y"))),
        "got none",
    ),
    "a normalizer of every node": (
        lambda: normalised_by(FNO(CONFIG), Processor(fitted("x"), POINTWISE)),
        r"\(1, 1, 17\)",
    ),
    "one mean for all": (
        lambda: normalised_by(FNO(CONFIG), Processor(fitted("x"), Normalizer(torch.tensor(1.0), torch.tensor(1.0)))),
        "one mean for every channel",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case):
    make, message = WRONG[case]
    with pytest.raises((InvalidArgumentError, MissingBoundaryError), match=f"(?s){message}"):
        make()(**batch(None))
