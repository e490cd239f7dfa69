"""Which networks a problem has, how presets train them, and those that are released."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from experiments import load_pretrained
from experiments.conservation import EXPERIMENTS, NetworkPlan
from experiments.conservation.networks import NetworkConfig, network_config, network_names
from experiments.errors import NotReleasedError, UnknownNameError
from experiments.experiment import Data, Preset, RunContext, RunOptions
from experiments.records.release import manifest, released_weights
from experiments.records.weights import read_notes
from probconserv import ANP, Context, NonNegative, Query, condition, integral, scores
from solvers import NodeGrid
from solvers.problems.sampling import Protocol, SolutionBank, sample_exact

MEMBERS = ("member-0", "member-1", "member-2", "member-3")


def names(problem: str, data: Data | None = None) -> tuple[str, ...]:
    entry = EXPERIMENTS[problem]
    return network_names(entry.problem, entry.networks or NetworkPlan(), data or entry.data)


def config(problem: str, name: str, preset: Preset = "laptop", data: Data | None = None) -> NetworkConfig:
    entry = EXPERIMENTS[problem]
    return network_config(entry.problem, entry.networks or NetworkPlan(), name, preset, data or entry.data)


def test_a_problem_has_the_networks_that_its_methods_need() -> None:
    assert names("diffusion") == ("anp", "softc", *MEMBERS)
    assert names("porous_medium") == ("anp", "anp-exact", "anp-authors", "softc", *MEMBERS)
    assert names("stefan") == ("anp", "anp-exact", "anp-authors", "softc", *MEMBERS, "extrapolation")
    assert names("stefan", "exact") == ("anp", "softc", *MEMBERS, "extrapolation")


@pytest.mark.parametrize(
    ("problem", "name", "data"),
    [("diffusion", "extrapolation", None), ("stefan", "anp-exact", "exact"), ("stefan", "member-4", None)],
)
def test_networks_that_a_problem_does_not_have_are_refused(problem: str, name: str, data: Data | None) -> None:
    with pytest.raises(UnknownNameError, match=rf"There is no network '{name}' of {problem}\. Available: anp, "):
        config(problem, name, data=data)


def test_trainings_differ_where_their_networks_do() -> None:
    configs = {name: config("stefan", name) for name in names("stefan")}
    assert configs["anp"].data == "solver"
    assert configs["anp-exact"] == replace(configs["anp"], data="exact")
    authors = config("stefan", "anp", preset="paper", data="exact")
    how = {
        name: getattr(configs["anp-authors"].training, name) for name in ("steps", "validate_every", "checkpoint_every")
    }
    assert configs["anp-authors"] == replace(authors, training=replace(authors.training, **how))
    assert configs["extrapolation"].parameters == pytest.approx((0.6, 0.7))
    small = config("stefan", "extrapolation-small")
    assert (small.parameters, small.network) == (configs["extrapolation"].parameters, configs["member-0"].network)
    assert len({configs[f"member-{index}"].training.seed for index in range(4)}) == 4
    assert len(set(map(str, configs.values()))) == len(configs)
    assert {problem for problem in EXPERIMENTS if config(problem, "anp").end_weighted} == {"diffusion"}
    for problem, entry in EXPERIMENTS.items():
        plain, soft = config(problem, "anp"), config(problem, "softc")
        assert (soft.network, bool(soft.start), bool(plain.start)) == (plain.network, True, False)
        assert (soft.training.steps, soft.training.peak_rate, soft.training.precision) == (800, 2e-4, "32-true")
        assert (soft.soft_penalty, soft.tempering) == (1e-4 if entry.problem.front and problem != "advection" else 1, 0)


@pytest.mark.parametrize("problem", EXPERIMENTS)
def test_paper_preset_trains_as_the_authors_do(problem: str) -> None:
    """Hansen et al. 2023, appendices C and D: the plain evidence bound on functions of uniform parameters."""
    for name in names(problem):
        assert (config(problem, name, "paper").tempering, config(problem, name, "paper").end_weighted) == (0, False)
    paper = config(problem, "anp", "paper")
    sizes = {"width": 128, "heads": 4, "self_layers": 2, "cross_layers": 2, "dropout": 0.1}
    sizes |= {"frequencies": 0, "value_frequencies": 0}
    assert {name: getattr(paper.network, name) for name in sizes} == sizes
    assert (paper.protocol, paper.batch, paper.training.steps) == (Protocol(), 250, 20_000)
    assert config(problem, "softc", "paper").soft_penalty == 1.0


def test_banks_are_restricted_to_a_range_of_parameters() -> None:
    values = torch.arange(24.0).reshape(4, 2, 3)
    bank = SolutionBank(torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.arange(2.0), torch.arange(3.0), values)
    assert bank.within(2.0, 3.5).parameter.tolist() == [2.0, 3.0]
    assert torch.equal(bank.within(2.0, 3.5).values, values[1:3])
    with pytest.raises(ValueError, match=r"No member of the bank has its parameter in \[5, 6\]"):
        bank.within(5.0, 6.0)


@pytest.mark.parametrize(
    ("problem", "name"),
    [
        (problem, name)
        for problem in EXPERIMENTS
        for name in names(problem)
        if f"{problem}-{name}.safetensors" in manifest()["weights"]
    ],
)
def test_every_released_network_is_as_its_config_says(problem: str, name: str) -> None:
    path = released_weights(f"{problem}-{name}.safetensors")
    network, expected, notes = load_pretrained(problem, name), config(problem, name), read_notes(path)
    assert path.stat().st_size < 5_000_000
    assert (network.training, network.config) == (False, expected.network)
    stored: dict[str, Any] = notes["training"]
    same = ("data", "batch", "tempering", "soft_penalty", "validation_functions")
    assert {key: stored[key] for key in same} == {key: getattr(expected, key) for key in same}
    assert stored.get("end_weighted", False) == expected.end_weighted  # younger than some files
    assert tuple(stored.get("parameters") or EXPERIMENTS[problem].problem.training_range) == expected.parameters
    for key in ("seed", "peak_rate", "precision", "steps"):
        assert stored["training"][key] == getattr(expected.training, key)
    assert notes["steps"] == expected.training.steps
    assert bool(stored["start"]) == bool(expected.start)


@pytest.mark.parametrize("problem", EXPERIMENTS)
def test_the_released_network_under_the_penalty_went_on_from_the_other(problem: str) -> None:
    """Weights of equal seed and other data lie a quarter of their size apart; fine-tuning moves them less."""
    start, end = (load_pretrained(problem, name).state_dict() for name in ("anp", "softc"))
    moved = sum(float((end[name] - start[name]).double().square().sum()) for name in start)
    assert 0 < moved / sum(float(value.double().square().sum()) for value in start.values()) < 0.2**2


def test_weights_that_are_not_released_are_named() -> None:
    with pytest.raises(NotReleasedError, match=r"'diffusion-extrapolation\.safetensors' are not part of the release"):
        load_pretrained("diffusion", "extrapolation")


@pytest.mark.parametrize(
    ("problem", "parameter"), [("diffusion", 1), ("stefan", 0.6), *(("porous_medium", m) for m in (1, 3, 6))]
)
def test_released_networks_beat_the_best_published_numbers(problem: str, parameter: float) -> None:
    """Ten fresh functions and 20 latent samples: one conditioned prediction, inequalities or not, is best in both."""
    spec, shipped = EXPERIMENTS[problem].problem, load_pretrained(problem)
    parameters, generator = torch.full((10,), parameter, dtype=torch.float64), torch.Generator().manual_seed(7)
    batch, grid = sample_exact(spec, parameters, Protocol(), generator), NodeGrid(*spec.domain, 201)
    points = torch.stack((torch.full_like(grid.points, spec.test_time), grid.points), dim=-1).expand(10, -1, -1)
    network = ANP(replace(shipped.config, latent_samples=20))
    network.load_state_dict(shipped.state_dict())
    prior = network.predict(Context(batch.context_points, batch.context_values, problem), Query(points, problem))
    truth = spec.solution(spec.test_time, grid.points, parameter)
    law, results = integral(grid, spec.total(spec.test_time, parameter)), []
    for constraint in (law, law & NonNegative()) if problem == "porous_medium" else (law,):
        mean, variance = (posterior := condition(prior, constraint)).mean, posterior.variance
        likelihood = float(scores.log_likelihood(truth, mean, variance).mean())
        results.append((float(scores.mse(truth, mean).mean()), likelihood))
    cases = EXPERIMENTS[problem].cases(RunContext(options=RunOptions(preset="laptop")))
    records = EXPERIMENTS[problem].published(next(case for case in cases if case.parameter == parameter))
    best_error = min(record.mean for record in records if record.score == "MSE")
    best_likelihood = max(record.mean for record in records if record.score == "LL")
    assert any(error <= best_error and likelihood >= best_likelihood for error, likelihood in results), results
