"""Which networks there are, how they are trained and found again, and the weights that ship."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments import networks
from experiments.commands import main
from experiments.errors import InvalidArgumentError, TrainingInterruptedError, UnknownNameError
from experiments.experiment import RunOptions
from experiments.networks import data_of, load_pretrained, network_training, pretrained_path, roles, trained_network
from experiments.runs import as_json
from experiments.train_anp import ANPTraining, TrainedANP, train_anp
from experiments.training import Progression, TrainingConfig
from probconserv import ANP, Context, NonNegative, Query, WeightsError, condition, integral, scores
from probconserv.surrogates.anp import ANPConfig
from probconserv.surrogates.weights import read_weights
from solvers import PROBLEMS, NodeGrid
from solvers.problems.sampling import Protocol, SolutionBank, sample_exact

BEST_KNOWN = {
    # parameter: MSE, LL of the best method in reference/probconserv.json, dropout on or off
    ("diffusion", 1.0): (1.37e-4, 3.08),
    ("porous_medium", 1.0): (1.727e-5, 3.821),
    ("porous_medium", 3.0): (1.515e-4, 3.721),
    ("porous_medium", 6.0): (6.563e-4, 3.848),
    ("stefan", 0.6): (1.887e-3, 3.76),
}


def shipped() -> list[tuple[str, str]]:
    return [
        (problem, role)
        for problem in PROBLEMS
        for role in roles(problem, data_of(problem, RunOptions(preset="laptop")))
    ]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of a few steps."""
    original = networks.network_training

    def small(*arguments: object) -> ANPTraining:
        config = original(*arguments)
        network = dataclasses.replace(config.network, width=8, heads=2, latent_width=4, latent_samples=3)
        training = dataclasses.replace(config.training, steps=3, validate_every=3, checkpoint_every=1)
        return dataclasses.replace(config, network=network, training=training, batch=2, validation_functions=3)

    monkeypatch.setattr(networks, "network_training", small)


def test_roles_say_what_a_problem_needs() -> None:
    assert roles("diffusion", "exact") == ("anp", "softc", "member-0", "member-1", "member-2", "member-3")
    assert roles("stefan", "solver")[:3] == ("anp", "anp-exact", "softc")
    assert roles("stefan", "solver")[-1] == "edge"
    assert data_of("stefan", RunOptions()) == data_of("porous_medium", RunOptions()) == "solver"
    assert data_of("advection", RunOptions()) == "exact"
    assert data_of("advection", RunOptions(data="solver")) == "solver"


def test_trainings_differ_where_their_roles_do() -> None:
    configs = {role: network_training("stefan", role, "laptop", "solver") for role in roles("stefan", "solver")}
    assert configs["anp"].data == "solver"
    assert configs["anp-exact"] == dataclasses.replace(configs["anp"], data="exact")
    assert configs["softc"].soft_penalty == 1e-4
    assert network_training("diffusion", "softc", "laptop", "exact").soft_penalty == 1.0
    assert configs["softc"].start == networks.identity(configs["anp"])
    assert configs["softc"].network == configs["anp"].network
    assert configs["edge"].parameters == pytest.approx((0.6, 0.7))
    assert len({configs[f"member-{i}"].training.seed for i in range(4)}) == 4
    assert len({networks.identity(config) for config in configs.values()}) == len(configs)
    with pytest.raises(UnknownNameError, match=r"no network 'anq' of stefan\. Known: anp, anp-exact"):
        network_training("stefan", "anq", "laptop", "solver")


@pytest.mark.usefixtures("tiny")
def test_a_finished_training_is_found_again_and_softc_goes_on_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RunOptions(preset="smoke", data="exact", out=tmp_path)
    soft = trained_network("advection", "softc", options)
    plain = trained_network("advection", "anp", options)
    assert {path.name for path in (tmp_path / "advection" / "networks").iterdir()} == {
        plain.parent.name,
        soft.parent.name,
    }
    monkeypatch.setattr(networks, "train_anp", lambda *arguments: pytest.fail("trained again"))  # noqa: ARG005
    assert trained_network("advection", "softc", options) == soft
    start, end = ANP.load(plain).state_dict(), ANP.load(soft).state_dict()
    # Three steps of at most 2e-4 each: near the network it started from, and no copy of it.
    change = max(float((end[name] - start[name]).abs().max()) for name in start)
    assert 0 < change < 1e-2


@pytest.mark.usefixtures("tiny")
def test_a_stopped_training_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(config: ANPTraining, *arguments: object) -> object:  # noqa: ARG001 - the signature of train_anp
        return TrainedANP(ANP(config.network), Progression(step=1), None)

    monkeypatch.setattr(networks, "train_anp", stopped)
    with pytest.raises(TrainingInterruptedError, match=r"'anp' for stefan was stopped.*Start the same command again"):
        trained_network("stefan", "anp", RunOptions(preset="smoke", data="exact", out=tmp_path))


@pytest.mark.usefixtures("tiny")
def test_train_command_prints_validation_and_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "diffusion", "--role", "member-1", "--out", str(tmp_path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["network"] == "member-1"
    assert {"MSE", "LL", "step"} <= printed.keys()
    notes = read_weights(printed["weights"], kind="ANP").notes
    assert notes["training"]["training"]["seed"] == 1001
    assert notes["environment"]["packages"]["torch"] == torch.__version__
    assert main(["train", "diffusion", "--role", "edgy", "--out", str(tmp_path)]) == 2
    assert "There is no network 'edgy' of diffusion" in capsys.readouterr().err


def test_a_network_to_start_from_belongs_to_its_config(tmp_path: Path) -> None:
    config = network_training("diffusion", "softc", "smoke", "exact")
    with pytest.raises(InvalidArgumentError, match="Give the network to go on from exactly when"):
        train_anp(config, tmp_path, tmp_path)


def test_banks_are_restricted_to_a_range_of_parameters() -> None:
    values = torch.arange(24.0).reshape(4, 2, 3)
    bank = SolutionBank(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.arange(2.0), torch.arange(3.0), values)
    part = bank.within(2.0, 3.5)
    assert torch.equal(part.parameter, torch.tensor([2.0, 3.0]))
    assert torch.equal(part.values, values[1:3])
    with pytest.raises(ValueError, match=r"No member of the bank has its parameter in \[5, 6\]"):
        bank.within(5.0, 6.0)


@pytest.mark.parametrize(("problem", "role"), shipped())
def test_every_network_ships_with_its_config_and_seed(problem: str, role: str) -> None:
    path = pretrained_path(problem, role)
    assert path.stat().st_size < 5_000_000
    network = load_pretrained(problem, role)
    assert not network.training
    assert network.config.problem == problem
    notes = read_weights(path, kind="ANP").notes
    expected = network_training(problem, role, "laptop", data_of(problem, RunOptions(preset="laptop")))
    assert differences(notes["training"], as_json(expected), as_json(plain_training(problem))) == {}
    assert bool(notes["training"]["start"]) == bool(expected.start)
    assert network.config == expected.network
    assert notes["last"]["step"] == expected.training.steps
    assert notes["seconds"] > 0
    assert re.fullmatch(r"[0-9a-f]{12}\+?", notes["environment"]["revision"]), "of which source is not known"


def plain_training(problem: str) -> ANPTraining:
    """A training with every default, for fields that older files do not have."""
    network = ANPConfig(problem=problem, low=(0.0, 0.0), high=(1.0, 1.0))
    return ANPTraining(problem=problem, data="exact", network=network, training=TrainingConfig(steps=1, peak_rate=1.0))


def differences(stored: dict[str, Any], expected: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Fields of a stored config that differ from the expected one, by name: what is stored and what is expected.

    A field that the file does not have had its default. The device, and the identity of the network to go on from,
    which holds the version of the library, may differ.
    """
    found: dict[str, Any] = {}
    for name in (stored.keys() | expected.keys()) - {"type", "device", "start"}:
        if name not in expected:
            found[name] = (stored[name], "nothing")
        elif isinstance(expected[name], dict) and name in stored:
            inner = differences(stored[name], expected[name], defaults[name])
            found |= {f"{name}.{key}": pair for key, pair in inner.items()}
        elif (mine := stored.get(name, plain(defaults[name]))) != plain(expected[name]):
            found[name] = (mine, plain(expected[name]))
    return found


def plain(value: object) -> object:
    """A value as it comes back from JSON."""
    return json.loads(json.dumps(value))


def test_differences_of_configs_are_found_at_every_depth() -> None:
    config = network_training("stefan", "edge", "laptop", "solver")
    defaults = as_json(plain_training("stefan"))
    stored = json.loads(json.dumps(dataclasses.asdict(config)))
    assert differences(stored, as_json(config), defaults) == {}
    del stored["end_weighted"]
    stored["training"]["device"] = "cuda"
    assert differences(stored, as_json(config), defaults) == {}
    stored["bank"]["cells"] = 9
    stored["parameters"] = [0.6, 0.8]
    del stored["training"]["steps"]
    stored["further"] = 1
    assert differences(stored, as_json(config), defaults) == {
        "bank.cells": (9, 1600),
        "parameters": ([0.6, 0.8], pytest.approx([0.6, 0.7])),
        "training.steps": (1, 3000),
        "further": (1, "nothing"),
    }
    del stored["parameters"]
    assert differences(stored, as_json(config), defaults)["parameters"] == (None, pytest.approx([0.6, 0.7]))


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_network_under_the_penalty_went_on_from_the_one_that_ships(problem: str) -> None:
    """Weights of equal seed and other data lie a quarter of their size apart; a tenth of a training moves less."""
    start, end = (load_pretrained(problem, role).state_dict() for role in ("anp", "softc"))
    moved = sum(float((end[name] - start[name]).double().square().sum()) for name in start)
    assert 0 < moved / sum(float(value.double().square().sum()) for value in start.values()) < 0.2**2


def test_weights_that_do_not_ship_and_those_of_another_problem_are_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"No weights ship for network 'edge' of problem 'diffusion'"):
        load_pretrained("diffusion", "edge")
    with pytest.raises(WeightsError, match="holds weights for problem 'stefan', not for 'diffusion'"):
        ANP.load(pretrained_path("stefan"), "diffusion")
    half = tmp_path / "half.safetensors"
    half.write_bytes(pretrained_path("stefan").read_bytes()[:100_000])
    with pytest.raises(WeightsError, match="is damaged, perhaps cut off"):
        ANP.load(half)


@pytest.mark.parametrize(("problem", "parameter"), BEST_KNOWN)
def test_shipped_networks_beat_the_best_known_numbers(problem: str, parameter: float) -> None:
    """Ten fresh functions and 20 latent samples: one conditioned prediction, inequalities or not, is best in both."""
    spec = PROBLEMS[problem]
    generator = torch.Generator().manual_seed(7)
    batch = sample_exact(spec, torch.full((10,), parameter, dtype=torch.float64), Protocol(), generator)
    grid = NodeGrid(*spec.domain, 201)
    points = torch.stack((torch.full_like(grid.points, spec.test_time), grid.points), dim=-1).expand(10, -1, -1)
    shipped_network = load_pretrained(problem)
    network = ANP(dataclasses.replace(shipped_network.config, latent_samples=20))
    network.load_state_dict(shipped_network.state_dict())
    prior = network.predict(Context(batch.context_points, batch.context_values, problem), Query(points, problem))
    truth = spec.solution(spec.test_time, grid.points, parameter)
    law = integral(grid, spec.total(spec.test_time, parameter))
    found = []
    for constraint in (law, law & NonNegative()) if problem == "porous_medium" else (law,):
        posterior = condition(prior, constraint)
        error = float(scores.mse(truth, posterior.mean).mean())
        found.append((error, float(scores.log_likelihood(truth, posterior.mean, posterior.variance).mean())))
    best_error, best_likelihood = BEST_KNOWN[problem, parameter]
    assert any(error <= best_error and likelihood >= best_likelihood for error, likelihood in found), found
