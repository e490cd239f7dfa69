"""Rollouts of an imperfect stepper under fixers, and their scores."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from scipy.fft import dctn
from torch import Tensor

from experiments.fields.basins import WATER, Basins, State, States, Stepper, fit_stepper, pairs_of
from experiments.fields.fixers import Fixer, mean_depth
from experiments.records.record import Arrays

SHARE = 0.1
"""Part of the cells that ``changed_share`` is about."""


@dataclass(frozen=True)
class Fitted:
    """A stepper, and its errors, truth − state, and corrections in the single steps that it was fitted to."""

    stepper: Stepper
    error: Float[Tensor, "pairs 3 rows columns"]
    correction: Float[Tensor, "pairs 3 rows columns"]


@lru_cache(maxsize=2)
def fitted(training: Basins, every: int, penalty: float, folder: Path) -> Fitted:
    """The stepper of some basins. ``every`` is the number of steps from one pair to the next."""
    pairs = pairs_of(training, training.states(folder), every)
    stepper = fit_stepper(training, pairs, penalty)
    state, correction = stepper(pairs.state)
    return Fitted(stepper, pairs.truth - state, correction)


def roll_out(stepper: Stepper, fixer: Fixer, start: State, steps: int) -> tuple[States, State]:
    """Steps and fixes in turn; the mass is that of the start. All states, and the sum of |changes| over the steps."""
    depth, states, changed = mean_depth(start), [start], torch.zeros_like(start)
    for _ in range(steps):
        state, correction = stepper(states[-1])
        fixed = fixer(state, correction, depth)
        changed += (fixed - state).abs()
        states.append(fixed)
    return torch.stack(states, dim=1), changed


def score_rollout(states: States, changed: State, truth: States) -> Arrays:
    """Scores per basin; for the figures means over basins by step, spectra, and a map of the first basin's change."""
    final, waves = states[:, -1], waves_of(truth)
    error = _norm(states[:, :, 0] - truth[:, :, 0]) / _norm(waves)
    drift = (mean_depth(states) / mean_depth(states[:, :1]) - 1).abs()
    energy = wave_energy(states) / wave_energy(truth)
    power, true_power = spectrum(final), spectrum(truth[:, -1])
    moved = changed / waves.square().mean(dim=(1, 2, 3)).sqrt()[:, None, None, None]
    depth = moved[:, 0].flatten(1)
    top = depth.sort(dim=1, descending=True).values[:, : round(SHARE * depth.shape[1])]
    arrays = {
        "rollout_error": error[:, 1:].mean(dim=1),
        "final_error": error[:, -1],
        "mass_drift": drift.amax(dim=1),
        "energy_error": (energy[:, -1] - 1).abs(),
        "spectrum_error": (power / true_power).log10().square().mean(dim=1).sqrt(),
        "changed": depth.mean(dim=1),
        "changed_momentum": moved[:, 1:].mean(dim=(1, 2, 3)),
        "changed_share": top.sum(dim=1) / depth.sum(dim=1),  # NaN, and so no score, where nothing changed
        "error_by_step": error.mean(dim=0),
        "drift_by_step": drift.mean(dim=0),
        "energy_by_step": energy.mean(dim=0),
        "power": power.mean(dim=0),
        "map": moved[0, 0],
        "depth": final[0, 0],
    }
    return {name: values.numpy() for name, values in arrays.items()}


def score_truth(truth: States) -> Arrays:
    """How well the reference keeps its mass, and its spectrum and last depth for the figures."""
    drift = (mean_depth(truth) / mean_depth(truth[:, :1]) - 1).abs().amax(dim=1)
    power = spectrum(truth[:, -1]).mean(dim=0)
    return {"mass_drift": drift.numpy(), "power": power.numpy(), "depth": truth[0, -1, 0].numpy()}


def waves_of(states: Float[Tensor, "basins times 3 rows columns"]) -> Float[Tensor, "basins times rows columns"]:
    """Depth minus its mean."""
    return states[:, :, 0] - mean_depth(states)[..., None, None]


def wave_energy(states: Float[Tensor, "*batch 3 rows columns"]) -> Float[Tensor, "*batch"]:
    """Kinetic and potential energy over that of water of the same mass at rest, ½ |hv|²/h + ½ g (h − mean h)²."""
    depth, momentum = states[..., 0, :, :], states[..., 1:, :, :]
    waves = depth - mean_depth(states)[..., None, None]
    density = momentum.square().sum(dim=-3) / depth + WATER.gravity * waves.square()
    return 0.5 * density.mean(dim=(-2, -1))


def spectrum(states: Float[Tensor, "basins 3 rows columns"]) -> Float[Tensor, "basins wavenumbers"]:
    """Mean squared cosine coefficient of the depth by wavenumber |k| rounded, from 1 to the number of cells minus 1.

    Cosines are the waves between walls; k counts half wavelengths along an axis.
    """
    n = states.shape[-1]
    squares = torch.from_numpy(dctn(states[:, 0].numpy(), axes=(-2, -1), norm="ortho")).square()
    k = torch.arange(n, dtype=torch.float64)
    shell = (k[:, None].square() + k.square()).sqrt().round().long()
    return torch.stack([squares[:, shell == number].mean(dim=1) for number in range(1, n)], dim=1)


def _norm(field: Float[Tensor, "basins times rows columns"]) -> Float[Tensor, "basins times"]:
    return field.square().mean(dim=(-2, -1)).sqrt()
