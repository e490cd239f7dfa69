"""The neural processes of a conservation experiment: which there are, how each is trained, and those that ship.

A problem has a network (``anp``), one trained further under the penalty of SoftC (``softc``), the small members of an
ensemble (``member-0`` …); where training data come from the solver, one trained on closed forms (``anp-exact``); and
where it is tested outside its training range, one that has not seen the end of that range (``edge``), from which
``experiments.shift`` learns how far off such a network is beyond what it knows.
"""

from dataclasses import replace
from importlib import resources
from pathlib import Path

import torch

from experiments.data import BankConfig
from experiments.errors import TrainingInterruptedError, UnknownNameError
from experiments.experiment import Data, Preset, RunOptions
from experiments.processes import say_once
from experiments.runs import as_json, digest
from experiments.stages import made_once
from experiments.train_anp import ANPTraining, find_problem, train_anp
from experiments.training import TrainingConfig
from probconserv.errors import WeightsError
from probconserv.surrogates.anp import ANP, ANPConfig
from solvers import Problem
from solvers.problems.sampling import Protocol

MEMBERS = 4
END_WEIGHTED = ("diffusion",)
"""Problems whose network is worst near the ends of the range, where one is tested: more parameters are drawn there."""
LAPTOP_STEPS = {"porous_medium": 8000, "stefan": 8000, "diffusion": 6000}
"""Optimiser steps of the LAPTOP network where they are not 5,000: sharp fronts take longer to place."""
SOFT_PENALTY = {"porous_medium": 1e-4, "stefan": 1e-4, "burgers_shock": 1e-4}
"""λ of SoftC where the presets below ``paper`` do not take the paper's 1.

It is the one of 1, 1e-2 and 1e-4 with the best log-likelihood in validation. At λ = 1 the residual
at a sharp front rules the loss, and the network gives up the field.
"""


def roles(problem: str, data: Data) -> tuple[str, ...]:
    """Names of a problem's networks, a network before those that start from it.

    Args:
        problem: Name of the problem.
        data: Where training functions come from.

    Returns:
        The names.
    """
    members = tuple(f"member-{i}" for i in range(MEMBERS))
    exact = ("anp-exact",) if data == "solver" else ()
    edge = ("edge",) if tested_outside(find_problem(problem)) else ()
    return ("anp", *exact, "softc", *members, *edge)


def tested_outside(problem: Problem) -> bool:
    """Whether a test parameter lies outside the training range."""
    low, high = problem.training_range
    return any(not low <= parameter <= high for parameter in problem.test_parameters)


def network_training(problem: str, role: str, preset: Preset, data: Data, seed: int = 0) -> ANPTraining:
    """The training of one network.

    Args:
        problem: Name of the problem.
        role: Name of the network, see ``roles``.
        preset: ``smoke`` (seconds), ``laptop`` (two cores, under an hour) or ``paper`` (the authors' sizes, their
            loss and their uniform parameters).
        data: Where training functions come from.
        seed: Seed of weights and data.

    Returns:
        The config.

    Raises:
        UnknownNameError: If there is no such problem, or it has no such network with these data.
    """
    known = roles(problem, data)
    if role not in known:
        raise UnknownNameError(
            f"There is no network '{role}' of {problem}. Known: {', '.join(known)} (with --data {data})."
        )
    config = _anp(problem, preset, "exact" if role == "anp-exact" else data, seed)
    if role == "softc":
        return _softc(config, preset)
    if role == "edge":
        return _edge(config, preset)
    if role.startswith("member-"):
        return _member(config, preset, int(role.removeprefix("member-")))
    return config


def identity(config: ANPTraining) -> str:
    """Twelve hexadecimal digits that a training is known by."""
    return digest(as_json(config))


def train_network(config: ANPTraining, role: str, out: Path, start: ANP | None = None, device: str = "cpu") -> Path:
    """Trains a network or goes on where an earlier start stopped; a finished one is not trained again.

    Weights that cannot be read are named on standard error and made again, from the checkpoint if there is one.

    Args:
        config: The training.
        role: Name of the network.
        out: Folder of all stored runs.
        start: The network to go on from, if the config names one.
        device: Torch device of the training; does not change what is trained.

    Returns:
        The file of weights.

    Raises:
        TrainingInterruptedError: If it was stopped before its end.
        TrainingDivergedError: If the loss is not finite.
        DataFileError: If the checkpoint is damaged.
    """
    folder = network_folder(config, role, out)
    path = folder / "weights.safetensors"

    def make() -> None:
        say_once(f"Training network '{role}' of {config.problem}: {config.training.steps} steps.")
        on_device = replace(config, training=replace(config.training, device=device))
        if train_anp(on_device, folder, out / "data", start).weights is None:
            raise TrainingInterruptedError(
                f"The training of network '{role}' for {config.problem} was stopped; '{folder}' holds its checkpoint. "
                "Start the same command again to go on."
            )

    return made_once(path, make, lambda: _is_whole(path, config.problem))


def _is_whole(path: Path, problem: str) -> bool:
    """Whether the weights can be read; damaged ones are named on standard error."""
    if not path.exists():
        return False
    try:
        ANP.load(path, problem)
    except WeightsError as error:
        say_once(f"{error} They are made again.")
        return False
    return True


def network_folder(config: ANPTraining, role: str, out: Path) -> Path:
    """Where a network's checkpoint and weights live."""
    return out / config.problem / "networks" / f"{role}-{identity(config)}"


def trained_network(problem: str, role: str, options: RunOptions) -> Path:
    """Trains one network of a problem after the one it goes on from, or finds what an earlier start finished.

    Args:
        problem: Name of the problem.
        role: Name of the network.
        options: Preset, data, seed, device and output folder.

    Returns:
        The file of weights.

    Raises:
        UnknownNameError: If there is no such problem, or it has no such network with these data.
        TrainingInterruptedError: If a training was stopped before its end.
        TrainingDivergedError: If a loss is not finite.
    """
    config = network_training(problem, role, options.preset, data_of(problem, options), options.seed)
    start = ANP.load(trained_network(problem, "anp", options), problem) if config.start else None
    return train_network(config, role, options.out, start, options.device)


def data_of(problem: str, options: RunOptions) -> Data:
    """Where the functions of a problem come from: as the user says, or what suits the problem.

    Porous medium and Stefan take finite-volume solutions, the library's own way from solver to surrogate; the
    others, whose closed forms cost nothing, take those.
    """
    return options.data or ("solver" if problem in ("porous_medium", "stefan") else "exact")


def pretrained_path(problem: str, role: str = "anp") -> Path:
    """The file of weights that ships for a network.

    Raises:
        UnknownNameError: If none ships.
    """
    folder = Path(str(resources.files("experiments").joinpath("weights")))
    path = folder / f"{problem}-{role}.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in folder.glob("*.safetensors"))) or "none"
        raise UnknownNameError(f"No weights ship for network '{role}' of problem '{problem}'. Known: {known}.")
    return path


def load_pretrained(problem: str, role: str = "anp") -> ANP:
    """A trained network that ships with the library, in evaluation mode: ``load_pretrained("stefan")``.

    Args:
        problem: Name of the problem.
        role: Which of its networks, see ``roles``.

    Returns:
        The network; its ``config`` says what it is, ``experiments/weights/README.md`` how it was trained.

    Raises:
        UnknownNameError: If no weights ship under these names.
        WeightsError: If the file is damaged or of another version.
    """
    return ANP.load(pretrained_path(problem, role), problem)


def value_scale(problem: Problem) -> float:
    """Largest magnitude of the field over the training range, from its bounds; 1 where there are none."""
    if problem.bounds is None:
        return 1.0
    ends = torch.linspace(*problem.training_range, 101, dtype=torch.float64)
    return float(torch.stack(problem.bounds(ends)).abs().max())


def _anp(problem: str, preset: Preset, data: Data, seed: int) -> ANPTraining:
    spec = find_problem(problem)
    low, high = (0.0, spec.domain[0]), (spec.final_time, spec.domain[1])
    network = ANPConfig(problem=problem, low=low, high=high, value_scale=value_scale(spec))
    training = TrainingConfig(steps=LAPTOP_STEPS.get(problem, 5000), peak_rate=7e-4, seed=seed)
    config = ANPTraining(
        problem=problem, data=data, network=network, training=training, end_weighted=problem in END_WEIGHTED
    )
    return {"smoke": _smoke, "laptop": lambda laptop: laptop, "paper": _paper}[preset](config)


def _smoke(laptop: ANPTraining) -> ANPTraining:
    """A small network, trained in seconds."""
    return replace(
        laptop,
        network=replace(laptop.network, width=32, self_layers=1, decoder_layers=2, latent_width=16, latent_samples=20),
        training=replace(laptop.training, steps=300, peak_rate=1e-3, validate_every=100, checkpoint_every=100),
        protocol=Protocol(target_times=10, target_places=10),
        validation_functions=20,
        bank=BankConfig(members=32, cells=200, keep_every=1, times=100),
    )


def _paper(laptop: ANPTraining) -> ANPTraining:
    """The authors' sizes, their loss without tempering, and their uniform parameters."""
    features = {"frequencies": 0, "context_frequencies": 0, "value_frequencies": 0}
    return replace(
        laptop,
        network=replace(laptop.network, heads=4, cross_layers=2, latent_width=128, dropout=0.1, **features),
        training=replace(laptop.training, steps=20_000, peak_rate=1e-3, precision="32-true"),
        protocol=Protocol(),
        batch=250,
        tempering=0.0,
        end_weighted=False,
    )


def _softc(config: ANPTraining, preset: Preset) -> ANPTraining:
    """The trained network, trained on for some steps at a lower rate under the penalty, without tempering.

    In float32, since the penalty differentiates the predicted mean twice.
    """
    steps = {"smoke": 20, "laptop": 800, "paper": 2000}[preset]
    training = replace(config.training, steps=steps, peak_rate=2e-4, precision="32-true")
    penalty = 1.0 if preset == "paper" else SOFT_PENALTY.get(config.problem, 1.0)
    return replace(config, training=training, tempering=0.0, soft_penalty=penalty, start=identity(config))


def _edge(config: ANPTraining, preset: Preset) -> ANPTraining:
    """A network that sees the upper two thirds of the parameters only, on a shorter schedule."""
    low, high = find_problem(config.problem).training_range
    steps = {"smoke": 300, "laptop": 3000, "paper": 8000}[preset]
    parameters = (low + (high - low) / 3, high)
    return replace(config, training=replace(config.training, steps=steps), parameters=parameters)


def _member(config: ANPTraining, preset: Preset, index: int) -> ANPTraining:
    """A smaller network on its own seed; members train on the laptop's schedule whatever the preset above smoke."""
    seed = 1000 * (config.training.seed + 1) + index
    if preset == "smoke":
        return replace(config, training=replace(config.training, steps=100, seed=seed))
    network = replace(config.network, width=64, latent_width=32, decoder_layers=3, latent_samples=20)
    return replace(config, network=network, training=replace(config.training, steps=2000, peak_rate=1e-3, seed=seed))
