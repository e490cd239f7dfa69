"""Which networks there are, how they are trained and found again, and the weights that ship."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from experiments import networks
from experiments.commands import main
from experiments.errors import InvalidArgumentError, TrainingInterruptedError, UnknownNameError
from experiments.experiment import RunOptions
from experiments.networks import data_of, load_pretrained, network_training, pretrained_path, roles, trained_network
from experiments.train_anp import ANPTraining, TrainedANP, train_anp
from experiments.training import Progression
from probconserv import ANP, Context, NonNegative, Query, WeightsError, condition, integral, scores
from probconserv.weights import read_weights
from solvers import PROBLEMS, NodeGrid, Protocol
from solvers.sampling import SolutionBank, sample_exact

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
    assert configs["softc"].soft_penalty == 1.0
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
    stored = notes["training"]
    assert stored["training"]["seed"] == expected.training.seed
    assert stored["training"]["steps"] == expected.training.steps == notes["last"]["step"]
    assert (stored["data"], stored["soft_penalty"], stored["batch"]) == (
        expected.data,
        expected.soft_penalty,
        expected.batch,
    )
    assert network.config == expected.network


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
    """Ten fresh functions and 20 latent samples: mean scores of the conditioned prediction, inequalities or not."""
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
    errors, likelihoods = [], []
    for constraint in (law, law & NonNegative()) if problem == "porous_medium" else (law,):
        posterior = condition(prior, constraint)
        errors.append(float(scores.mse(truth, posterior.mean).mean()))
        likelihoods.append(float(scores.log_likelihood(truth, posterior.mean, posterior.variance).mean()))
    best_error, best_likelihood = BEST_KNOWN[problem, parameter]
    assert min(errors) <= best_error
    assert max(likelihoods) >= best_likelihood
