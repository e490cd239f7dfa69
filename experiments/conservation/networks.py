"""The neural processes of a conservation experiment: which there are, how each is trained, and the released ones.

A problem has a network (``anp``), one fine-tuned under the penalty of SoftC (``softc``), the small members of an
ensemble (``member-0`` …); where training data come from the solver, one trained on closed forms (``anp-exact``) and
one in the authors' settings (``anp-authors``); and where it is tested outside its training range, one that lacks a
third of that range (``extrapolation``; in the study of calibration a small one, ``extrapolation-small``).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from experiments.conservation.cases import tested_outside
from experiments.conservation.data import BankConfig
from experiments.conservation.methods import EXTRAPOLATION, SMALL_EXTRAPOLATION
from experiments.errors import UnknownNameError, require_at_least
from experiments.experiment import Data, Preset
from experiments.records.release import released_weights
from experiments.records.store import as_json, config_hash
from probconserv.surrogates.anp import ANP, ANPConfig
from probconserv.training import TrainingConfig
from solvers.problems import Problem
from solvers.problems.sampling import Protocol

STARTS = {"softc": "anp"}
"""Networks that go on from another one, and which."""
NO_FEATURES = {"frequencies": 0, "context_frequencies": 0, "value_frequencies": 0}
PRESETS: Mapping[Preset, Mapping[str, Any]] = {
    "smoke": {  # trained in seconds
        "network": {"width": 32, "self_layers": 1, "decoder_layers": 2, "latent_width": 16, "latent_samples": 20},
        "training": {"steps": 300, "peak_rate": 1e-3, "validate_every": 100, "checkpoint_every": 100},
        "protocol": Protocol(target_times=10, target_places=10),
        "validation_functions": 20,
        "bank": BankConfig(members=32, cells=200, keep_every=1, times=100),
    },
    "laptop": {},
    "paper": {  # the authors' sizes, their loss without tempering, and their uniform parameters
        "network": {"heads": 4, "cross_layers": 2, "latent_width": 128, "dropout": 0.1, **NO_FEATURES},
        "training": {"steps": 20_000, "peak_rate": 1e-3, "precision": "32-true"},
        **{"protocol": Protocol(), "batch": 250, "tempering": 0.0, "end_weighted": False},
    },
}
"""Differences from the laptop's config."""
AUTHORS_STEPS = 600
"""Optimiser steps of ``anp-authors`` on a laptop, of the authors' 20,000: about 50 minutes of one core."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """All settings of a trained neural process, except the functions of its problem.

    Parameters lie in a range (``parameters``), more near its ends if ``end_weighted``. β of the loss, see
    ``TrainingPrediction.loss``, falls linearly from ``tempering`` to 0 over a ``tempering_fraction`` of the steps.
    ``soft_penalty`` is λ of the penalty λ·mean((u_t + F(u)_x)²) on the predicted mean (SoftC), added to the loss summed
    over a function's targets as in Hansen et al. 2023; it is reached linearly over the first fifth of the steps, since
    an untrained mean is far from any equation. ``start`` is the config hash of the network that the training goes on
    from; ``bank`` is for solver data.
    """

    problem: str
    parameters: tuple[float, float]
    test_time: float
    data: Data
    network: ANPConfig
    training: TrainingConfig
    protocol: Protocol = field(default_factory=lambda: Protocol(target_times=20, target_places=20))
    batch: int = 8
    tempering: float = 0.5
    tempering_fraction: float = 0.7
    soft_penalty: float = 0.0
    penalty_functions: int = 4
    penalty_points: int = 100
    validation_functions: int = 100
    end_weighted: bool = False
    start: str = ""
    bank: BankConfig = field(default_factory=BankConfig)


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """How the presets below ``paper`` train the networks of a problem.

    Args:
        steps: Optimiser steps of the laptop network; no training of these presets has more.
        soft_penalty: λ of SoftC: the one of 1, 1e-2 and 1e-4 with the best log-likelihood in validation. At λ = 1 the
            residual at a sharp front rules the loss, and the network gives up the field.
        end_weighted: Whether more parameters are drawn near the ends of the range, where networks are worst.
    """

    steps: int = 5000
    soft_penalty: float = 1.0
    end_weighted: bool = False
    members: int = 4

    def __post_init__(self) -> None:
        require_at_least(self, steps=1, members=2)


def network_names(problem: Problem, plan: NetworkPlan, data: Data) -> tuple[str, ...]:
    """Names of a problem's networks, without the small one of the study of calibration."""
    members = tuple(f"member-{index}" for index in range(plan.members))
    closed_form = ("anp-exact", "anp-authors") if data == "solver" else ()
    return ("anp", *closed_form, "softc", *members, *((EXTRAPOLATION,) if tested_outside(problem) else ()))


def with_starts(names: Iterable[str]) -> tuple[str, ...]:
    """The networks and, before each, the one that it starts from; every network once."""
    return tuple(dict.fromkeys(part for name in names for part in (STARTS.get(name, name), name)))


def network_config(
    problem: Problem, plan: NetworkPlan, name: str, preset: Preset, data: Data, seed: int = 0
) -> NetworkConfig:
    """How one network is trained; ``paper`` has the authors' sizes, their loss and their uniform parameters."""
    if name not in (names := network_names(problem, plan, data)) and name != SMALL_EXTRAPOLATION:
        available = f"{', '.join(names)} (with --data {data})"
        raise UnknownNameError(f"There is no network '{name}' of {problem.name}. Available: {available}.")
    authors = name == "anp-authors" and preset == "laptop"
    exact = name in ("anp-exact", "anp-authors")
    config = _anp(problem, plan, "paper" if authors else preset, "exact" if exact else data, seed)
    if name in STARTS:  # at a lower rate, and in float32, since the penalty differentiates the predicted mean twice
        start = config_hash(as_json(network_config(problem, plan, STARTS[name], preset, data, seed)))
        steps, penalty = {"smoke": 20, "laptop": 800, "paper": 2000}, 1.0 if preset == "paper" else plan.soft_penalty
        how = {"steps": steps[preset], "peak_rate": 2e-4, "precision": "32-true"}
        config = _changed(config, training=how, tempering=0.0, soft_penalty=penalty, start=start)
    elif authors:
        config = _changed(config, training={"steps": AUTHORS_STEPS, "validate_every": 50, "checkpoint_every": 50})
    elif name == EXTRAPOLATION:
        steps = {"smoke": 300, "laptop": 3000, "paper": 8000}
        config = _changed(config, training={"steps": steps[preset]}, parameters=_upper(config.parameters))
    elif name == SMALL_EXTRAPOLATION:
        network, how = _small(preset)
        config = _changed(config, network=network, training=how, parameters=_upper(config.parameters))
    elif name.startswith("member-"):  # with another seed
        network, how = _small(preset)
        other = 1000 * (seed + 1) + int(name.removeprefix("member-"))
        config = _changed(config, network=network, training={**how, "seed": other})
    most = config.training.steps if preset == "paper" else plan.steps
    return _changed(config, training={"steps": min(config.training.steps, most)})


def load_pretrained(problem: str, network: str = "anp") -> ANP:
    """A trained network that comes with the library, in evaluation mode: ``load_pretrained("stefan")``.

    Args:
        problem: Name of the problem.
        network: ``anp``, ``softc``, ``member-0`` to ``member-3``; for stefan and porous_medium also ``anp-exact``,
            for stefan also ``extrapolation``, for advection ``extrapolation-small``.

    Returns:
        The network; its ``config`` says what it is, ``experiments/weights/README.md`` how it was trained.

    Raises:
        NotReleasedError: If there are no such weights, or none in this installation.
        DataFileError: If the file is damaged or of another version.
    """
    return ANP.load(released_weights(f"{problem}-{network}.safetensors"), problem)


def _anp(problem: Problem, plan: NetworkPlan, preset: Preset, data: Data, seed: int) -> NetworkConfig:
    parameters = torch.linspace(*problem.training_range, 101, dtype=torch.float64)
    scale = 1.0 if problem.bounds is None else float(torch.stack(problem.bounds(parameters)).abs().max())
    low, high = (0.0, problem.domain[0]), (problem.final_time, problem.domain[1])
    laptop = NetworkConfig(
        problem=problem.name,
        parameters=problem.training_range,
        test_time=problem.test_time,
        data=data,
        network=ANPConfig(problem=problem.name, low=low, high=high, value_scale=scale),
        training=TrainingConfig(steps=plan.steps, peak_rate=7e-4, seed=seed),
        end_weighted=plan.end_weighted,
    )
    return _changed(laptop, **PRESETS[preset])


def _upper(parameters: tuple[float, float]) -> tuple[float, float]:
    """The upper two thirds, which a network for extrapolation is restricted to."""
    low, high = parameters
    return low + (high - low) / 3, high


def _small(preset: Preset) -> tuple[dict[str, Any], dict[str, Any]]:
    """A smaller network and how it is trained; above smoke all presets train as the laptop does."""
    small = {"width": 64, "latent_width": 32, "decoder_layers": 3, "latent_samples": 20}
    return ({}, {"steps": 100}) if preset == "smoke" else (small, {"steps": 2000, "peak_rate": 1e-3})


def _changed(
    config: NetworkConfig, network: Mapping[str, Any] = {}, training: Mapping[str, Any] = {}, **changes: Any
) -> NetworkConfig:
    """The config with changes of its network, of its training and of itself."""
    parts = {"network": replace(config.network, **network), "training": replace(config.training, **training)}
    return replace(config, **parts, **changes)
