"""What an emulator chooses from: regression and fluxes, fitted; rollouts of validation functions; and their band."""

from collections.abc import Mapping, Sequence
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
from probconserv.rollout.step_network import EmulatorConfig, StepOperator
from probconserv.rollout.trajectories import Candidate, Functions, errors_of, predict

Chosen = tuple[StepOperator, Rollout | None]
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


def candidates_of(
    operators: Mapping[str, Sequence[StepOperator]], flux: FluxModel | None, choice: Functions, imposed: bool
) -> tuple[dict[Name, Chosen], dict[Name, Tensor]]:
    """Operators alone and under the law, by name of base and law, and the errors of their rollouts.

    Of several operators of one base that with the least error, alone or under the law.
    """

    def least(tried: tuple[dict[Name, Chosen], dict[Name, Tensor]]) -> float:
        return min(float(error.mean()) for (_, law), error in tried[1].items() if not (imposed and law == "alone"))

    candidates: dict[Name, Chosen] = {}
    errors: dict[Name, Tensor] = {}
    for name, several in operators.items():
        under = [_under_laws(name, operator, flux, choice) for operator in several]
        scored = [(each, {key: errors_of(one, choice) for key, one in each.items()}) for each in under]
        best = min(scored, key=least)
        candidates, errors = candidates | best[0], errors | best[1]
    return candidates, errors


def _under_laws(name: str, operator: StepOperator, flux: FluxModel | None, choice: Functions) -> dict[Name, Chosen]:
    """An operator alone and, where there is a law, under it by the walls' response and by one that is learnt."""
    setting = choice.setting
    if setting.law is None:
        return {(name, "alone"): (operator, None)}
    rollout = setting.rollout(operator, flux)
    learnt = setting.rollout(operator, flux, rollout.fit_response(choice.fields, *choice.inputs))
    laws = {"alone": None, "law": rollout, "law, learnt response": learnt}
    return {(name, law): (operator, under) for law, under in laws.items()}


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
    least = means[best] <= min(means.values())
    text += f" has the least error, {means[best]:.2g}" if least else f" is imposed and has the error {means[best]:.2g}"
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
