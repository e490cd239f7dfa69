"""The rows of both experiments: what is trained, what is joined, and which constraints act on it.

Colours say which constraints act (neither, boundary conditions, the law), dashes which operator they act on.
"""

from dataclasses import dataclass, replace

from boon import Correction, Prescription
from experiments.combined.networks import Network
from experiments.experiment import Style
from experiments.plots import BARE, BLACK, CONSERVED, SKY

PLAIN = Network(name="fno")
BOUNDED = Network(name="boon", correction=Prescription())
THROUGH_UPDATE = Network(name="end-to-end", conserved=True)
AFTER, IN_TRAINING = "after-training", "in-training"
DASHED, DOTTED, MIXED = "--", ":", "-."


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row.

    Args:
        network: What is trained; None for the truth.
        joined: Whether a group is an ensemble of trainings, else a single one.
        bounded: The correction of a BOON that is put around the operators after training; None for none.
        conserved: Whether the prediction is conditioned on the law.
        correlated: Whether what is joined has the covariance of its members, else their variances alone.
    """

    key: str
    label: str
    network: Network | None
    joined: bool = False
    bounded: Correction | None = None
    conserved: bool = False
    correlated: bool = False
    dashes: str = "-"
    information: str = ""

    @property
    def style(self) -> Style:
        if self.network is None:
            return Style(BLACK)
        if self.conserved or self.network.conserved:
            return Style(CONSERVED, self.dashes)
        return Style(SKY if self.bounded or self.network.correction else BARE, self.dashes)


TRUTH = Method(key="truth", label="truth", network=None)


def _conserved(method: Method) -> Method:
    return replace(method, key=f"probconserv-{method.key}", label=f"ProbConserv-{method.label}", conserved=True)


_INSIDE = (
    Method(key="fno", label="FNO", network=PLAIN, joined=True, dashes=DASHED),
    Method(key="boon", label="BOON", network=PLAIN, joined=True, bounded=Prescription()),
    Method(key="boon-in-training", label="BOON in training", network=BOUNDED, joined=True, dashes=DOTTED),
)
_OUTSIDE = tuple(map(_conserved, _INSIDE))
CONSTRAINTS = (
    TRUTH,
    *_INSIDE,
    *_OUTSIDE,
    replace(
        _OUTSIDE[1],
        key=f"{_OUTSIDE[1].key}-members-covariance",
        label=f"{_OUTSIDE[1].label} (members' covariance)",
        correlated=True,
        dashes=MIXED,
    ),
)
"""An ensemble with neither constraint, each alone and both; boundaries also in training, the law by covariances."""
TRAININGS = (
    TRUTH,
    Method(key="fno", label="FNO", network=PLAIN),
    Method(key=AFTER, label="ProbConserv after training", network=PLAIN, conserved=True),
    Method(key=IN_TRAINING, label="ProbConserv in training", network=THROUGH_UPDATE, conserved=True, dashes=DASHED),
)
"""One operator: without the update, with it after training, and trained through it."""
