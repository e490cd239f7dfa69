"""What an emulator chooses from: regression and fluxes, fitted; rollouts of validation functions; and their band."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from probconserv.calibration.conformal import conformal_rank
from probconserv.errors import ConvergenceError, InvalidArgumentError
from probconserv.rollout.diagnosis import RolloutBand
from probconserv.rollout.flux_model import CONFIG, FluxModel
from probconserv.rollout.regression import ComponentRegression
from probconserv.rollout.rollout import Rollout
from probconserv.rollout.step_network import EmulatorConfig
from probconserv.rollout.trajectories import Candidate, Functions, predict

Name = tuple[str, str]
"""Of a candidate: its base, and "alone" or its law."""
RESIDUALS = 200  # single steps of validation functions whose errors are looked at
_REGRESSED = 1000  # steps that a regression is fitted to


def fit_regressions(training: Functions, choice: Functions) -> list[ComponentRegression]:
    """Regressions of changes, one for every ridge, whose kernels are chosen on other functions."""
    return ComponentRegression.fit_path(training.single.thinned(_REGRESSED), choice.single.thinned(RESIDUALS))


def fit_flux(known: Functions, config: EmulatorConfig, folder: Path | None = None, progress: bool = False) -> FluxModel:
    """The model of fluxes through walls with conditions, from what they gave to the totals.

    Raises:
        InvalidArgumentError: If walls have different numbers of values at a point.
    """
    setting, gained = known.setting, known.gained(known.setting.modelled)
    walls = [pair if of_model else None for pair, of_model in zip(known.of_law(), setting.modelled, strict=True)]
    data = {side.shape[2] for pair in walls for side in pair or ()} or {1}
    if len(data) > 1:
        raise InvalidArgumentError(
            f"Walls whose fluxes are modelled need as many values at a point each, got {sorted(data)}; give law a flux."
        )
    sizes = {"channels": known.fields.shape[2], "data": data.pop(), "totals": gained.shape[2]}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = FluxModel(setting.grid, **sizes)
    steps = config.flux_steps
    how = replace(CONFIG, steps=steps, seed=config.seed, validate_every=max(1, steps // 20))
    trajectories = known.fields.float(), walls, gained.float()
    model.fit(trajectories, times=known.times, config=how, folder=folder, progress=progress)
    return model.requires_grad_(False).eval()


def best_of(errors: Mapping[Name, Tensor], imposed: bool, steps: int) -> Name:
    """The candidate with the least mean error; under the law where it is imposed.

    Raises:
        ConvergenceError: If every candidate diverges in these steps.
    """
    open_to = [name for name in errors if not imposed or name[1] != "alone"]
    best = min(open_to, key=lambda name: float(errors[name].mean()))
    if not bool(errors[best].mean().isfinite()):
        raise ConvergenceError(
            f"Every base diverges in {steps} steps from some validation function, under the law and not; train on more "
            "or longer trajectories, or validate on fewer steps."
        )
    return best


def report_of(best: Name, errors: Mapping[Name, Tensor], steps: int) -> str:
    """One sentence: what was chosen, and why."""
    means = {name: float(error.mean()) for name, error in errors.items()}
    base, law = best
    text = f"Over {steps} steps of {len(errors[best])} validation functions, {base}"
    text += " without the law" if law == "alone" else f" under the {law}"
    text += f" has the least error, {means[best]:.2g}"
    if law != "alone":
        better = int((errors[best] < errors[base, "alone"]).sum())
        text += f"; without the law it has {means[base, 'alone']:.2g}, more in {better} of the functions"
    elif (base, "law") in means:
        under = min(mean for name, mean in means.items() if name[0] == base and name[1] != "alone")
        text += f"; under the law it has {under:.2g}"
    others = {name: mean for name, mean in means.items() if name[0] != base}
    other = min(others, key=lambda name: others[name])
    return f"{text}; the best of {other[0]} is {others[other]:.2g}."


def band_of(candidate: Candidate, part: Functions, level: float) -> RolloutBand:
    """Split conformal half widths at every time and point."""
    fields, totals = predict(*candidate, part)
    counted = Rollout(nn.Identity(), part.setting.grid, conserved=(part.setting.law or {}).get("conserved"))
    true = torch.stack([counted.totals_of(field) for field in part.fields.unbind(dim=1)], dim=1)
    rank = conformal_rank(len(fields), 1, level)
    widths = [each.abs().kthvalue(rank, dim=0).values for each in (fields - part.fields, totals - true)]
    bounds = None if candidate[1] is None else candidate[1].bounds
    return RolloutBand(level=level, fields=widths[0], totals=widths[1], bounds=bounds)
