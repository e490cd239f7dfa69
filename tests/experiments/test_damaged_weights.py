"""Weights in the output folder that were cut off, by a full disk or a kill, are named and made again."""

import dataclasses
from pathlib import Path

import pytest
import torch

from experiments import networks
from experiments.errors import DataFileError
from experiments.experiment import RunOptions
from experiments.networks import trained_network
from experiments.train_anp import ANPTraining
from probconserv import ANP


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of three steps."""
    original = networks.network_training

    def small(*arguments: object) -> ANPTraining:
        config = original(*arguments)
        network = dataclasses.replace(config.network, width=8, heads=2, latent_width=4, latent_samples=3)
        training = dataclasses.replace(config.training, steps=3, validate_every=3, checkpoint_every=1)
        return dataclasses.replace(config, network=network, training=training, batch=2, validation_functions=3)

    monkeypatch.setattr(networks, "network_training", small)


def options(folder: Path) -> RunOptions:
    return RunOptions(preset="smoke", data="exact", out=folder)


def cut(path: Path) -> None:
    """Leaves the first half of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_weights_cut_in_half_are_named_and_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained_network("advection", "anp", options(tmp_path))
    before = ANP.load(path).state_dict()
    cut(path)
    capsys.readouterr()
    assert trained_network("advection", "anp", options(tmp_path)) == path
    printed = capsys.readouterr()
    assert f"'{path}' is damaged, perhaps cut off" in printed.err
    assert "They are made again" in printed.err
    assert printed.out == ""
    after = ANP.load(path).state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    trained_network("advection", "anp", options(tmp_path))
    assert capsys.readouterr().err == ""


def test_weights_without_their_checkpoint_are_trained_from_the_start(tmp_path: Path) -> None:
    path = trained_network("advection", "anp", options(tmp_path))
    before = ANP.load(path).state_dict()
    cut(path)
    path.with_name("checkpoint.safetensors").unlink()
    trained_network("advection", "anp", options(tmp_path))
    after = ANP.load(path).state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_network_that_goes_on_from_damaged_weights_waits_for_them(tmp_path: Path) -> None:
    start = trained_network("advection", "anp", options(tmp_path))
    cut(start)
    soft = trained_network("advection", "softc", options(tmp_path))
    assert ANP.load(start, "advection").config == ANP.load(soft, "advection").config


def test_a_damaged_checkpoint_beside_damaged_weights_says_what_to_do(tmp_path: Path) -> None:
    path = trained_network("advection", "anp", options(tmp_path))
    cut(path)
    cut(path.with_name("checkpoint.safetensors"))
    with pytest.raises(DataFileError, match=r"checkpoint .* is damaged, perhaps cut off.*delete it to train from the"):
        trained_network("advection", "anp", options(tmp_path))
