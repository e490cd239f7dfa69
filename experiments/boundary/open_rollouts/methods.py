"""The rows: an operator of one step, and what is done with the balance of the walls after every step.

bare      the operator alone
uniform   every value moves by the same amount (HardC)
fitted    values move by the covariance of the operator's errors in single steps, as far as the law is to be trusted
"""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from experiments import plots
from experiments.boundary.open_rollouts.networks import (
    OperatorConfig,
    Sizes,
    data_of,
    fit_regression,
    load,
    pairs_of,
)
from experiments.boundary.open_rollouts.systems import OpenSystem, Split, Trajectories
from experiments.experiment import Style, Training
from experiments.records.release import data_version
from experiments.records.store import as_json
from probconserv import Rollout, fit_covariance
from probconserv.errors import ConvergenceError
from probconserv.rollout import FluxModel, StepUpdate
from probconserv.rollout.diagnosis import RolloutBand
from probconserv.training import TrainingConfig
from solvers import Dirichlet, Neumann

NAME = "open_rollouts"
DIAGNOSED = 20
"""Steps of the validation's trajectories from which the covariance and the trust in the law are learnt."""
RANK = 20
FLUX_STEPS = 3000
STOPPED = 10.0


LONGER, FEWER = 10, 8
"""How many times more steps, and fewer functions, a long rollout has."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One open system, or a long rollout of its operators."""

    system: OpenSystem
    sizes: Sizes
    seed: int
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
        described = {"system": as_json(self.system), "sizes": as_json(self.sizes), "seed": self.seed}
        return {**described, "long": self.long, "data_version": data_version(NAME)}

    def trajectories(self, split: Split) -> Trajectories:
        """Trajectories of a part; those to learn from are shorter."""
        sizes = self.sizes
        count, steps = getattr(sizes, split), sizes.trained_steps if split == "training" else sizes.steps
        if self.long and split == "test":
            count, steps = max(2, count // FEWER), LONGER * steps
        return _read(self.system, split, count, steps, self.seed, self.folder)


@lru_cache(maxsize=3)
def _read(*what: Any) -> Trajectories:
    system, *rest = what
    return system.trajectories(*rest)


@dataclass(frozen=True)
class Kind:
    """A kind of operators.

    Args:
        network: Whether it has weights; a regression has none.
        walls: Kinds of conditions that it meets, and which a system must have; none for all systems.
    """

    key: str
    label: str
    colour: str
    _: KW_ONLY
    network: bool = True
    walls: tuple[type, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row."""

    key: str
    label: str
    style: Style
    kind: Kind
    treatment: str
    information: str = ""


KINDS = (
    Kind("regression", "regression", plots.GREY, network=False),
    Kind("fno", "FNO", plots.BARE),
    Kind("fno-increments", "FNO, increments", plots.ORANGE),
    Kind("boon", "BOON", plots.CONSERVED, walls=(Dirichlet, Neumann)),
    Kind("cosine", "CosineFNO", plots.GREEN, walls=(Neumann,)),
)
TREATMENTS = {"": ("", "-"), "uniform": (" + balance", "--"), "fitted": (" + fitted balance", ":")}
METHODS = tuple(
    Method(
        key=f"{kind.key}-{treatment}".rstrip("-"),
        label=f"{kind.label}{suffix}",
        style=Style(kind.colour, dashes),
        kind=kind,
        treatment=treatment,
        information="walls" + (", balance" if treatment else ""),
    )
    for kind in KINDS
    for treatment, (suffix, dashes) in TREATMENTS.items()
)


def training_of(kind: Kind, case: Case, seed: int) -> Training:
    """The training of a network."""
    steps = case.sizes.optimiser_steps
    config = OperatorConfig(
        system=case.system,
        sizes=case.sizes,
        seed=case.seed,
        architecture=kind.key,  # type: ignore[arg-type]
        training=TrainingConfig(
            steps=steps,
            peak_rate=4e-3,
            weight_decay=1e-5,
            validate_every=max(1, steps // 6),
            checkpoint_every=max(1, steps // 6),
            precision="32-true",
            seed=seed,
        ),
    )
    return Training(
        key=f"{case.system.name}-{kind.key}-{seed}",
        label=f"{kind.label} of {case.system.name}",
        folder=f"{NAME}/networks",
        config=config,
        data_version=data_version(NAME),
    )


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """A rollout of the test's functions.

    Args:
        fields: u at the start and after every step ``(b, t, c, *space)``.
        band: Its conformal band; None without the balance.
        helps: Whether the law helps by the validation; None without it.
    """

    fields: Tensor
    band: RolloutBand | None = None
    helps: bool | None = None


@torch.no_grad()
def predict(case: Case, method: Method, seed: int, weights: Sequence[Path]) -> Predicted:
    """The rollout of a row from the start of every test function; NaN where fluxes and sources find no solution."""
    system, test = case.system, case.trajectories("test")
    network = load(weights[0], system) if method.kind.network else _regression(replace(case, long=False))
    operator = _within(network, case)
    if method.treatment:
        try:
            return _balanced(operator, case, method, seed)
        except ConvergenceError:
            return Predicted(fields=torch.full_like(test.fields, torch.nan))
    data, fields = data_of(system, test.walls), [test.fields[:, 0]]
    for step in range(test.steps):
        fields.append(operator(fields[-1], *(side[:, step] for side in data)))
    return Predicted(fields=torch.stack(fields, dim=1))


def _balanced(operator: Callable[..., Tensor], case: Case, method: Method, seed: int) -> Predicted:
    """The rollout under the balance; what it needs to know of the operator's errors is learnt on the validation."""
    system, test, known = case.system, case.trajectories("test"), case.trajectories("validation")
    short = known.take(len(known.fields), min(DIAGNOSED, known.steps))
    valued = system.given is Dirichlet
    update = StepUpdate(fixed=_given_values(system) if valued and method.kind.walls else None)
    rollout = Rollout(
        operator,
        system.grid,
        flux=_flux_model(case, seed) if valued else system.flux,
        source=system.source,
        conserved=system.conserved,
        update=update,
    )
    seen, times = data_of(system, short.walls), system.times(test.steps)
    diagnosis = rollout.diagnose(short.fields, times[: short.steps + 1], short.walls, *seen)
    band = None
    if method.treatment == "fitted":
        before, after, given = pairs_of(system, short)
        errors = (operator(before, *given) - after).flatten(1).double()
        rollout.update = diagnosis.weighed(replace(update, covariance=fit_covariance(errors, rank=RANK)))
        if not case.long:
            band = rollout.fit_band(known.fields, times, known.walls, *data_of(system, known.walls))
    fields = rollout(test.fields[:, 0], times, test.walls, *data_of(system, test.walls)).fields
    return Predicted(fields=fields, band=band, helps=bool(diagnosis.helps.all()))


def _within(operator: Callable[..., Tensor], case: Case) -> Callable[..., Tensor]:
    """An operator whose values stop at ``STOPPED`` times the largest of the training, where a rollout that blows up
    then stays."""
    largest = STOPPED * float(case.trajectories("training").fields.abs().max())

    def stopped(field: Tensor, *data: Tensor) -> Tensor:
        return operator(field, *data).nan_to_num(largest, largest, -largest).clamp(-largest, largest)

    return stopped


@lru_cache(maxsize=1)
def _regression(case: Case) -> Callable[..., Tensor]:
    known = case.trajectories("validation")
    return fit_regression(case.system, case.trajectories("training"), known.take(10, min(DIAGNOSED, known.steps)))


@lru_cache(maxsize=5)  # as many as there are seeds, over which the driver goes method by method
def _flux_model(case: Case, seed: int) -> FluxModel:
    """The fluxes where values are given, learnt from those of the training's functions."""
    known, system = case.trajectories("training"), case.system
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        model = FluxModel(system.grid)
        steps = FLUX_STEPS if case.sizes.optimiser_steps > 100 else case.sizes.optimiser_steps
        times = system.times(known.steps)
        model.fit(known.fields, known.walls, known.passed, times=times, steps=steps, seed=seed)
    return model


def _given_values(system: OpenSystem) -> Tensor:
    """The nodes of an interval whose values are given ``(n,)``."""
    fixed = torch.zeros(system.grid.shape, dtype=torch.bool)
    fixed[[0, -1]] = True
    return fixed
