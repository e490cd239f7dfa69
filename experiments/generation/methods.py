"""The rows: true draws, what training fields give without a flow, and samplers on one trained model."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from experiments.experiment import Style
from experiments.generation.cases import Case
from experiments.generation.without_flow import (
    gaussian_fields,
    likely_fields,
    nearest_fields,
    smoothed_fields,
    true_fields,
)
from experiments.plots import BARE, BLACK, CONSERVED, GREEN, GREY, ORANGE, SKY, YELLOW
from experiments.records.record import TRUTH
from probconserv import LinearConstraint
from probconserv.surrogates.flow import SamplingOptions, conditioned, eci, pcfm, unconstrained
from probconserv.surrogates.flow.tasks import Sampler


def _plain(case: Case) -> SamplingOptions:
    """Steps of first order, with which the released rows were drawn."""
    return SamplingOptions(steps=case.sizes.steps, order=1)


def _eci(case: Case) -> SamplingOptions:
    """As many evaluations as the others have."""
    mixing = case.condition.mixing
    return SamplingOptions(steps=case.sizes.steps // mixing, mixing=mixing, resample=case.condition.resample, order=1)


def _local(case: Case) -> SamplingOptions:
    return SamplingOptions(steps=case.sizes.steps, local=True, order=1)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row.

    Args:
        drawn: Fields of a case by seed, where no flow draws them.
        sampler: How a flow draws fields, with ``options`` of a case; None for its own choice by the law.
        redraws: Whether rounding decides what is drawn, see ``Table.redraws``.
    """

    key: str
    label: str
    drawn: Callable[[Any, int], Float[Tensor, "s t x"]] | None = None
    sampler: Sampler | None = None
    options: Callable[[Case], SamplingOptions] = _plain
    conditional: bool = True
    linear: bool = False
    bounded: bool = False
    style: Style
    information: str = ""
    redraws: bool = False


_BOUNDS = "bounds where the problem has any"
METHODS = (
    Method(key="truth", label="true draws", drawn=true_fields, conditional=False, style=Style(BLACK)),
    Method(
        key="training-fields",
        label="training fields",
        drawn=nearest_fields,
        bounded=True,
        redraws=True,
        style=Style(GREY),
        information=f"those nearest to the law, moved onto it, {_BOUNDS}",
    ),
    Method(
        key="gaussian",
        label="Gaussian",
        drawn=gaussian_fields,
        linear=True,
        bounded=True,
        redraws=True,
        style=Style(GREY, "--"),
        information=f"moments of the training fields, {_BOUNDS}",
    ),
    Method(
        key="unconstrained",
        label="flow",
        sampler=unconstrained,
        conditional=False,
        style=Style(BARE),
        information="without the law",
    ),
    Method(key="eci", label="ECI", sampler=eci, options=_eci, style=Style(ORANGE)),
    Method(key="pcfm", label="PCFM", sampler=pcfm, options=_plain, style=Style(GREEN)),
    Method(
        key="conditioned-gaussian",
        label="ours, Gaussian",
        sampler=conditioned,
        bounded=True,
        style=Style(SKY),
        information=_BOUNDS,
    ),
    Method(
        key="conditioned",
        label="ours",
        sampler=conditioned,
        options=_local,
        linear=True,
        bounded=True,
        redraws=True,
        style=Style(CONSERVED),
        information=f"products with the Jacobian of the velocity, {_BOUNDS}",
    ),
)


_BY_KEY = {method.key: method for method in METHODS}
OURS = "ours"
"""Key of the row whose sampler the flow chooses by the law."""
TOLD_METHODS = (
    Method(key=TRUTH, label="true draws", drawn=true_fields, style=Style(BLACK)),
    replace(
        _BY_KEY["training-fields"],
        label="search",
        drawn=likely_fields,
        information="training fields in proportion to their likelihood, moved onto totals and bounds",
    ),
    _BY_KEY["gaussian"],
    Method(
        key="smoother",
        label="ensemble smoother",
        drawn=smoothed_fields,
        bounded=True,
        style=Style(YELLOW),
        information="training fields moved by the gain of all, and into the bounds",
    ),
    *(_BY_KEY[key] for key in ("unconstrained", "eci", "pcfm", "conditioned-gaussian")),
    Method(
        key=OURS,
        label="ours",
        options=lambda case: SamplingOptions(steps=case.sizes.steps),
        bounded=True,
        redraws=True,
        style=Style(CONSERVED),
        information=f"{_BOUNDS}; the sampler is chosen by the law",
    ),
)
"""The rows where every true field has a different law."""


def methods_of(case: Case) -> tuple[Method, ...]:
    """The rows of a case; without a law there are true draws and the flow."""
    if not case.condition.conditional:
        return tuple(method for method in METHODS if not method.conditional)
    linear = isinstance(case.law, LinearConstraint)
    return tuple(method for method in METHODS if linear or not method.linear)
