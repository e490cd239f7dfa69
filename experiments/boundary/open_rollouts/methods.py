"""The rows: a base of one step, how it meets its walls, and the law that its rollouts are under.

bases  FNO, single steps; increments with pushforward; regression between principal components
walls  their data are channels alone; prescribed after every step, too; BOON's default correction of single steps
law    none; the balance by a uniform move of all values; by the walls' response
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments import plots
from experiments.boundary.open_rollouts.networks import OperatorConfig, Sizes, emulated, load
from experiments.boundary.open_rollouts.systems import OpenSystem, Split, Trajectories
from experiments.experiment import Style, Training
from experiments.records.release import data_version
from experiments.records.store import as_json
from probconserv import Emulator
from probconserv.emulator import fit_flux, fit_regressions, met
from probconserv.errors import ConvergenceError
from probconserv.rollout import FluxModel
from probconserv.rollout.diagnosis import RolloutBand
from probconserv.rollout.step_network import StepOperator
from probconserv.rollout.trajectories import Functions, given_sides, predict
from solvers import Neumann

NAME = "open_rollouts"
STOPPED = 10.0
LONGER, FEWER = 10, 8
"""How many times more steps, and fewer functions, a long rollout has."""
DATA_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Case:
    """One open system, or a long rollout of its operators."""

    system: OpenSystem
    sizes: Sizes
    folder: Path
    long: bool = False

    @property
    def key(self) -> str:
        return self.system.name + ("-long" if self.long else "")

    @property
    def label(self) -> str:
        return self.system.name + (f", {LONGER * self.sizes.steps} steps" if self.long else "")

    @property
    def config(self) -> dict[str, Any]:
        described = {"system": as_json(self.system), "sizes": as_json(self.sizes), "seed": DATA_SEED}
        return {**described, "long": self.long, "data_version": data_version(NAME)}

    def functions(self, split: Split) -> Functions:
        """Trajectories of a part; those to learn from are shorter."""
        sizes = self.sizes
        count, steps = getattr(sizes, split), sizes.trained_steps if split == "training" else sizes.steps
        if self.long and split == "test":
            count, steps = max(2, count // FEWER), LONGER * steps
        drawn = _read(self.system, split, count, steps, DATA_SEED, self.folder)
        return Functions(fields=drawn.fields, walls=drawn.walls, media=drawn.media, setting=self.system.setting)


@lru_cache(maxsize=3)
def _read(system: OpenSystem, *rest: Any) -> Trajectories:
    return system.trajectories(*rest)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row; ``emulator`` chooses base, walls and law by the validation."""

    base: str
    walls: str = ""
    law: str = ""

    @property
    def key(self) -> str:
        return "-".join(part for part in (self.base, self.walls, self.law) if part)

    @property
    def label(self) -> str:
        return BASES[self.base][0] + "".join(WORDS[part] for part in (self.walls, self.law) if part)

    @property
    def style(self) -> Style:
        return Style(BASES[self.base][1], {"": ":", "uniform": "-.", "response": "-"}[self.law])

    @property
    def information(self) -> str:
        return "walls, balance" if self.law or self.base == "emulator" else "walls"

    @property
    def architectures(self) -> tuple[str, ...]:
        """The networks that are trained."""
        if self.base == "emulator":
            return "increments-walls", "fno"
        if self.base == "fno":
            return ("default" if self.walls == "default" else "fno",)
        return () if self.base == "regression" else ("increments-walls" if self.walls else "increments",)


BASES = {
    "regression": ("regression", plots.GREY),
    "fno": ("FNO", plots.BARE),
    "increments": ("increments", plots.CONSERVED),
    "emulator": ("Emulator", plots.ORANGE),
}
WORDS = {"walls": " + walls", "default": " + default", "uniform": " + uniform balance", "response": " + balance"}


def methods_of(system: OpenSystem) -> tuple[Method, ...]:
    """The factorial of a system, and the emulator; without conditions, or where all are gradients, the response of the
    walls is the uniform one.
    """
    rows, conditions = [], system.conditions
    flat = conditions is None or all(isinstance(side, Neumann) for pair in conditions for side in pair)
    for base, walls in product(("regression", "fno", "increments"), ("", "walls", "default")):
        if (walls and conditions is None) or (walls == "default" and base != "fno"):
            continue
        laws = ("", "response") if flat and walls else ("", "uniform", "response") if walls else ("", "uniform")
        rows += [Method(base=base, walls=walls, law=law) for law in laws]
    return (*rows, Method(base="emulator"))


def trainings_of(method: Method, case: Case, seed: int) -> list[Training]:
    """The trainings of the networks of a row."""
    return [_training(architecture, case, seed) for architecture in method.architectures]


def _training(architecture: str, case: Case, seed: int) -> Training:
    if architecture == "increments-walls" and case.system.conditions is None:
        architecture = "increments"
    config = OperatorConfig(
        system=case.system,
        sizes=case.sizes,
        data_seed=DATA_SEED,
        architecture=architecture,  # type: ignore[arg-type]
        training=case.sizes.config(seed, unrolled=16 if architecture.startswith("increments") else 1),
    )
    return Training(
        key=f"{case.system.name}-{architecture}-{seed}",
        label=f"{architecture} of {case.system.name}",
        folder=f"{NAME}/networks",
        config=config,
        data_version=data_version(NAME),
    )


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A rollout of the test's functions.

    Args:
        fields: u at the start and after every step ``(b, t, c, *space)``.
        band: The conformal band of an emulator.
        chosen: What an emulator chose.
    """

    fields: Tensor
    band: RolloutBand | None = None
    chosen: str = ""


@torch.no_grad()
def predicted(case: Case, method: Method, seed: int, weights: Sequence[Path]) -> Predicted:
    """The rollout of a row from the start of every test function; NaN where fluxes and sources find no solution."""
    known, test = case.functions("training"), case.functions("test")
    setting, sides = known.setting, given_sides(known.walls)
    if method.base == "emulator":
        emulator = _emulator(replace(case, long=False), seed, tuple(weights))
        fields = predict(emulator.operator, emulator.under_law, test)[0]
        return Predicted(fields=fields, band=None if case.long else emulator.band, chosen=emulator.report)
    networks = _loaded(case, method, seed, weights)
    base = networks[0] if networks else _regression(case.system, case.sizes, case.folder)
    operator = met(base, setting, sides) if method.walls == "walls" else StepOperator(base, None, ())
    stopped = _stopped(operator, known)
    if not method.law:
        return Predicted(fields=predict(stopped, None, test)[0])
    rollout = setting.rollout(stopped, _flux_model(case.system, case.sizes, case.folder, seed))
    if method.law == "uniform":
        rollout.wall_response = None
    try:
        return Predicted(fields=predict(stopped, rollout, test)[0])
    except ConvergenceError:
        return Predicted(fields=torch.full_like(test.fields, torch.nan))


def _loaded(case: Case, method: Method, seed: int, weights: Sequence[Path]) -> list[nn.Module]:
    """The stored networks of a row."""
    known, trained = case.functions("training"), trainings_of(method, case, seed)
    return [load(path, training.config, known) for path, training in zip(weights, trained, strict=True)]


@lru_cache(maxsize=2)  # long rollouts have the emulator of the others
def _emulator(case: Case, seed: int, weights: tuple[Path, ...]) -> Emulator:
    """An emulator of trained networks, which sees the validation's functions alone."""
    known, unseen = case.functions("training"), case.functions("validation")
    networks = _loaded(case, Method(base="emulator"), seed, weights)
    are_values = known.setting.computes_flux(0, 0)
    with torch.enable_grad():
        return Emulator.fit(
            known.fields,
            known.times,
            known.setting.grid,
            known.setting.conditions,
            values=known.walls if are_values else None,
            fluxes=None if are_values else known.walls,
            balance=known.setting.law,
            media=known.media,
            validation={
                "trajectories": unseen.fields,
                "values" if are_values else "fluxes": unseen.walls,
                "media": unseen.media,
            },
            base=[emulated(each, known.setting.grid.shape) for each in networks],
            config=case.sizes.config(seed),
            progress=False,
        )


def _stopped(operator: Callable[..., Tensor], known: Functions) -> Callable[..., Tensor]:
    """An operator whose values stop at ``STOPPED`` times the largest of the training, where a rollout that blows up
    then stays."""
    largest = STOPPED * float(known.fields.abs().max())

    def stopped(field: Tensor, *data: Tensor) -> Tensor:
        return operator(field, *data).nan_to_num(largest, largest, -largest).clamp(-largest, largest)

    return stopped


@lru_cache(maxsize=1)
def _regression(system: OpenSystem, sizes: Sizes, folder: Path) -> nn.Module:
    case = Case(system=system, sizes=sizes, folder=folder)
    return fit_regressions(case.functions("training"), case.functions("validation").take(slice(0, None, 2)))[0]


@lru_cache(maxsize=5)  # as many as there are seeds, over which the driver goes method by method
def _flux_model(system: OpenSystem, sizes: Sizes, folder: Path, seed: int) -> FluxModel | None:
    """The fluxes where values are given, learnt from what they gave to the totals of the training's functions."""
    known = Case(system=system, sizes=sizes, folder=folder).functions("training")
    if not any(known.setting.modelled):
        return None
    with torch.enable_grad():
        return fit_flux(known, sizes.config(seed))
