"""The rows of the three experiments: what is trained, what is joined, and which constraints act on it.

Colours say which constraints act (neither, boundary conditions, the law), dashes which operator they act on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from boon import Correction, Prescription
from experiments.combined.networks import Network
from experiments.experiment import Style
from experiments.report.plots import BARE, BLACK, CONSERVED, SKY

PLAIN = Network(name="fno")
BOUNDED = Network(name="boon", correction=Prescription())
THROUGH_UPDATE = Network(name="end-to-end", conserved=True)
DROPOUT = Network(name="dropout", dropout=0.1)
DIVERSITY = 1e-2
AFTER, IN_TRAINING = "after-training", "in-training"
SOLID, DASHED, DOTTED, MIXED = "-", "--", ":", "-."


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row.

    Args:
        key: Name in files and options.
        label: Name in tables and figures.
        network: What is trained; None for the truth.
        joined: Whether a group is an ensemble of trainings, else a single one.
        bounded: The correction of a BOON that is put around the operators after training; None for none.
        conserved: Whether the prediction is conditioned on the law.
        correlated: Whether what is joined has the covariance of its members, else their variances alone.
        dashes: Matplotlib's line style.
    """

    key: str
    label: str
    network: Network | None
    joined: bool = False
    bounded: Correction | None = None
    conserved: bool = False
    correlated: bool = False
    dashes: Any = SOLID

    @property
    def style(self) -> Style:
        """Colour by the constraints, dashes by the operator."""
        if self.network is None:
            return Style(BLACK)
        if self.conserved or self.network.conserved:
            return Style(CONSERVED, self.dashes)
        return Style(SKY if self.bounded or self.network.correction else BARE, self.dashes)

    @property
    def information(self) -> str:
        """Empty: all operators take the same input."""
        return ""


Methods = Callable[[int], tuple[Method, ...]]
"""From the number of members to the rows."""
TRUTH = Method(key="truth", label="truth", network=None)


def _conserved(method: Method) -> Method:
    return replace(method, key=f"probconserv-{method.key}", label=f"ProbConserv-{method.label}", conserved=True)


def combined_methods(members: int) -> tuple[Method, ...]:  # noqa: ARG001 - one signature for all experiments
    """An ensemble with neither constraint, with each alone, and with both.

    With boundaries also trained under them, and with both also by the covariance of the members.
    """
    inside = (
        Method(key="fno", label="FNO", network=PLAIN, joined=True, dashes=DASHED),
        Method(key="boon", label="BOON", network=PLAIN, joined=True, bounded=Prescription()),
        Method(key="boon-in-training", label="BOON in training", network=BOUNDED, joined=True, dashes=DOTTED),
    )
    outside = tuple(map(_conserved, inside))
    both = outside[1]
    by_members = replace(
        both,
        key=f"{both.key}-members-covariance",
        label=f"{both.label} (members' covariance)",
        correlated=True,
        dashes=MIXED,
    )
    return (TRUTH, *inside, *outside, by_members)


def uncertainty_methods(members: int) -> tuple[Method, ...]:
    """Single operator, ensemble, diverse heads, Monte-Carlo dropout; each before and after the update."""
    heads = Network(name="heads", heads=members, diversity=DIVERSITY)
    before = (
        Method(key="single-operator", label="single operator", network=PLAIN, dashes=DOTTED),
        Method(key="ensemble", label="Ensemble", network=PLAIN, joined=True),
        Method(key="diverse-heads", label="diverse heads", network=heads, dashes=DASHED),
        Method(key="mc-dropout", label="MC dropout", network=DROPOUT, dashes=MIXED),
    )
    return (TRUTH, *(row for method in before for row in (method, _conserved(method))))


def training_methods(members: int) -> tuple[Method, ...]:  # noqa: ARG001
    """One operator: without the update, with it after training, and trained through it."""
    return (
        TRUTH,
        Method(key="fno", label="FNO", network=PLAIN),
        Method(key=AFTER, label="ProbConserv after training", network=PLAIN, conserved=True),
        Method(
            key=IN_TRAINING,
            label="ProbConserv in training",
            network=THROUGH_UPDATE,
            conserved=True,
            dashes=DASHED,
        ),
    )
