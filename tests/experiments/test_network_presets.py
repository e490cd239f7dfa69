"""What presets and roles of the networks stand for, and which networks a problem does not have."""

import pytest

from experiments.commands import main
from experiments.errors import UnknownNameError
from experiments.experiment import Data, RunOptions
from experiments.networks import network_training, roles, trained_network
from solvers import PROBLEMS
from solvers.problems.sampling import Protocol


@pytest.mark.parametrize("problem", PROBLEMS)
def test_paper_preset_trains_as_the_authors_do(problem: str) -> None:
    """Hansen et al. 2023, appendices C and D: the plain evidence bound on functions of uniform parameters."""
    for role in roles(problem, "exact"):
        config = network_training(problem, role, "paper", "exact")
        assert config.tempering == 0.0
        assert not config.end_weighted
    config = network_training(problem, "anp", "paper", "exact")
    network = config.network
    assert (network.width, network.heads, network.self_layers, network.cross_layers) == (128, 4, 2, 2)
    assert (network.dropout, network.frequencies, network.value_frequencies) == (0.1, 0, 0)
    assert config.protocol == Protocol()
    assert config.batch == 250


def test_laptop_preset_tempers_and_draws_more_diffusivities_near_the_ends() -> None:
    configs = {problem: network_training(problem, "anp", "laptop", "exact") for problem in PROBLEMS}
    assert all(config.tempering == 0.5 for config in configs.values())
    assert [problem for problem, config in configs.items() if config.end_weighted] == ["diffusion"]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_softc_is_the_network_trained_on_under_the_penalty(problem: str) -> None:
    plain, soft = (network_training(problem, role, "laptop", "exact") for role in ("anp", "softc"))
    assert soft.start
    assert soft.network == plain.network
    assert soft.training.steps == 800
    assert soft.training.precision == "32-true"
    penalty = 1.0 if problem in ("diffusion", "advection") else 1e-4
    assert (soft.training.peak_rate, soft.soft_penalty, soft.tempering) == (2e-4, penalty, 0.0)
    assert network_training(problem, "softc", "paper", "exact").soft_penalty == 1.0


@pytest.mark.parametrize(
    ("problem", "role", "data"),
    [
        ("diffusion", "edge", "exact"),
        ("stefan", "anp-exact", "exact"),
        ("stefan", "member-4", "solver"),
        ("stefan", "member--1", "solver"),
        ("stefan", "", "solver"),
    ],
)
def test_networks_that_a_problem_does_not_have_are_refused(problem: str, role: str, data: Data) -> None:
    known = ", ".join(roles(problem, data))
    message = rf"There is no network '{role}' of {problem}\. Known: {known} \(with --data {data}\)"
    with pytest.raises(UnknownNameError, match=message):
        network_training(problem, role, "laptop", data)
    with pytest.raises(UnknownNameError, match=message):
        trained_network(problem, role, RunOptions(data=data))


def test_train_command_refuses_what_a_problem_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "diffusion", "--role", "edge"]) == 2
    assert "There is no network 'edge' of diffusion. Known: anp, softc, member-0" in capsys.readouterr().err
    assert main(["train", "stefan", "--role", "anp-exact", "--data", "exact"]) == 2
    assert "There is no network 'anp-exact' of stefan" in capsys.readouterr().err
