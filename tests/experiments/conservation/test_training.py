"""Trainings of neural processes: the penalty of SoftC, solver data, and what the files say."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.conservation.data import BankConfig, training_bank
from experiments.conservation.networks import NetworkConfig, NetworkPlan, network_config
from experiments.conservation.training import train_network
from experiments.experiment import RunContext, RunOptions, Training
from probconserv import ANP
from probconserv.surrogates.weights import read_weights
from solvers.problems import PROBLEMS
from solvers.tensor_files import decode_tensors

TRAINING = {"steps": 2, "validate_every": 6, "checkpoint_every": 4, "precision": "32-true"}


def tiny(problem: str, training: dict[str, Any] | None = None, **changes: Any) -> NetworkConfig:
    config = network_config(PROBLEMS[problem], NetworkPlan(), "anp", "smoke", "exact")
    network = replace(config.network, width=8, heads=2, latent_width=4, frequencies=2, latent_samples=3)
    schedule = replace(config.training, **TRAINING | (training or {}))
    return replace(config, network=network, training=schedule, batch=4, validation_functions=5, **changes)


def trained(config: NetworkConfig, out: Path, device: str = "cpu") -> Path:
    """Trains a network; the file of its weights."""
    training = Training(key="anp", label="anp", folder="networks", config=config, data_version=1)
    context = RunContext(options=RunOptions(out=out, device=device), progress=False)
    train_network(PROBLEMS[config.problem], training, None, context)
    return training.weights(out)


@pytest.mark.parametrize("problem", list(PROBLEMS))
def test_every_problem_trains_with_the_soft_penalty(tmp_path: Path, problem: str) -> None:
    config = tiny(problem, soft_penalty=1e-3, penalty_functions=2, penalty_points=5)
    network = ANP.load(trained(config, tmp_path), problem=problem)
    assert network.config == config.network
    weights = network.state_dict()
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    # The same seed without penalty: equal first steps, other second ones.
    plain = ANP.load(trained(replace(config, soft_penalty=0.0), tmp_path), problem=problem).state_dict()
    assert any(not torch.equal(value, weights[name]) for name, value in plain.items())


def test_solver_data_are_cached_and_close_to_the_closed_form(tmp_path: Path) -> None:
    config, problem = BankConfig(members=3, cells=100, keep_every=2, times=20), PROBLEMS["porous_medium"]
    bank = training_bank(problem, config, tmp_path)
    assert bank.values.shape == (3, 20, 50)
    exact = problem.solution(bank.times[:, None], bank.places, bank.parameter[:, None, None])
    # First-order scheme on 100 cells: the L1 error is below one cell times the size of the field.
    assert float((bank.values - exact).abs().mean()) < 0.01
    (path,) = tmp_path.glob("*.safetensors")
    stamp = path.stat().st_mtime_ns
    assert torch.equal(training_bank(problem, config, tmp_path).values, bank.values)
    assert path.stat().st_mtime_ns == stamp


def test_a_neural_process_learns_from_solver_data_and_its_file_says_how(tmp_path: Path) -> None:
    bank = BankConfig(members=4, cells=16, keep_every=1, times=20)
    schedule = {"steps": 40, "peak_rate": 1e-2, "validate_every": 20}
    path = trained(tiny("porous_medium", schedule, data="solver", bank=bank), tmp_path)
    notes = read_weights(path, kind="ANP").notes
    assert {"MSE", "LL", "seconds", "rate"} <= notes["last"].keys()
    assert notes["training"]["data"] == "solver"
    checkpoint = path.with_name("checkpoint.safetensors").read_bytes()
    first, last = json.loads(decode_tensors(checkpoint)[1]["content"])["history"]
    assert (last, last["loss"] < first["loss"]) == (notes["last"], True)
