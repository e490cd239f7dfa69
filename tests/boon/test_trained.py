"""A warning where trained weights get a correction inside their layers, and nowhere else."""

import copy
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import boon
from boon import BOON, FNO, FNOConfig, MixedTransform, Normalised, Prescription, SmoothExtension
from boon.errors import TrainedWeightsWarning
from solvers import Dirichlet, Neumann
from tests import neuralop_stub

CONDITIONS = [(Dirichlet(0.0), Neumann(0.0))]
INSIDE = [None, Prescription(hidden=True), MixedTransform(), boon.Elimination()]
AT_THE_OUTPUT = [Prescription(), SmoothExtension(length=1 / 16)]
CONFIGS = [
    FNOConfig(width=4, modes=(4,), depth=2),
    FNOConfig(width=8, modes=(4,), depth=1, channel_mlp=0.5),
    FNOConfig(width=4, modes=(3, 3), depth=1),
]


def trained(operator: nn.Module, axes: int = 1, optimiser: type[torch.optim.Optimizer] = torch.optim.Adam) -> nn.Module:
    """The operator after three small steps."""
    a = torch.randn(4, 1, *(17,) * axes, generator=torch.Generator().manual_seed(0))
    optimisation = optimiser(operator.parameters(), lr=1e-3)  # type: ignore[call-arg]
    for _ in range(3):
        optimisation.zero_grad()
        (operator(a) - a.square()).square().mean().backward()
        optimisation.step()
    return operator


def conditions(config: FNOConfig) -> list:
    return [CONDITIONS[0], *[None] * (config.dimension - 1)]


@pytest.mark.parametrize("correction", INSIDE)
def test_trained_weights_under_an_inside_correction_warn(correction: boon.Correction | None) -> None:
    operator = trained(FNO(CONFIGS[0]))
    with pytest.warns(TrainedWeightsWarning, match=r"Prescription\(\), or SmoothExtension\(length=1 / \(n - 1\)\)"):
        BOON(operator, CONDITIONS, correction=correction)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("optimiser", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
@pytest.mark.parametrize("seed", range(4))
def test_a_few_steps_are_seen(
    config: FNOConfig, optimiser: type[torch.optim.Optimizer], seed: int, tmp_path: Path
) -> None:
    torch.manual_seed(seed)
    operator = trained(FNO(config), config.dimension, optimiser)
    boon.save(operator, tmp_path / "operator.safetensors")
    zero, one = torch.zeros(1), torch.ones(1)
    others = [
        operator,
        copy.deepcopy(operator).double().requires_grad_(False),
        pickle.loads(pickle.dumps(operator)),
        boon.load(tmp_path / "operator.safetensors"),
        Normalised(operator, zero, one, torch.zeros(1, *(17,) * config.dimension), one),
    ]
    for other in others:
        with pytest.warns(TrainedWeightsWarning):
            BOON(other, conditions(config))


@pytest.mark.parametrize("correction", AT_THE_OUTPUT)
def test_corrections_at_the_output_do_not_warn(correction: boon.Correction) -> None:
    BOON(trained(FNO(CONFIGS[0])), CONDITIONS, correction=correction)


def test_the_default_extension_leaves_the_interior_of_a_trained_operator_as_it_is() -> None:
    operator = trained(FNO(CONFIGS[0]))
    a = torch.randn(2, 1, 101, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        moved = BOON(operator, CONDITIONS, correction=SmoothExtension())(a) - operator(a)
    assert float(moved[..., 10:-10].abs().max()) < 1e-6 * float(moved.abs().max())


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_new_operators_do_not_warn(config: FNOConfig, dtype: torch.dtype) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        operator = FNO(config).to(dtype)
        BOON(operator, conditions(config))
        BOON(copy.deepcopy(operator), conditions(config))


def test_what_was_wrapped_before_its_training_does_not_warn(tmp_path: Path) -> None:
    operator = trained(BOON(FNO(CONFIGS[0]), CONDITIONS))
    boon.save(operator, tmp_path / "operator.safetensors")
    again = boon.load(tmp_path / "operator.safetensors")
    trained(again)
    resumed = BOON(FNO(CONFIGS[0]), CONDITIONS)
    resumed.load_state_dict(operator.state_dict())
    trained(pickle.loads(pickle.dumps(copy.deepcopy(resumed))))


def test_operators_of_neuraloperator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    neuralop_stub.install(monkeypatch)
    operator = neuralop_stub.FNO((8,), 1, 1, hidden_channels=16)
    BOON(operator, CONDITIONS, correction=MixedTransform())
    for _ in range(5):
        trained(operator)
    with pytest.warns(TrainedWeightsWarning):
        corrected = BOON(operator, CONDITIONS, correction=MixedTransform())
    boon.save(corrected, tmp_path / "operator.safetensors")
    boon.load(tmp_path / "operator.safetensors", copy.deepcopy(operator))
    BOON(operator, CONDITIONS)


def test_the_warning_names_the_line_of_the_user() -> None:
    operator = trained(FNO(CONFIGS[0]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        BOON(operator, CONDITIONS)
    assert [warning.filename for warning in caught] == [__file__]
