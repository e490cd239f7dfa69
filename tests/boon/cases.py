"""The corrections that tests go through."""

from boon import Elimination, MixedTransform, Prescription, SmoothExtension
from boon.corrections.without_schur import EliminationWithoutSchur
from boon.domain import Domain, domain_of

ONE_OF_A_KIND = [Prescription(hidden=True), SmoothExtension(hidden=True), MixedTransform()]
EVERY = [
    Prescription(),
    SmoothExtension(),
    SmoothExtension(reach=0.0),
    SmoothExtension(hidden=True, reach=0.0),
    *ONE_OF_A_KIND,
    EliminationWithoutSchur(),
    EliminationWithoutSchur(hidden=False),
    MixedTransform(share=0.0),
]
ON_ONE_AXIS = [*EVERY, Elimination(), Elimination(hidden=False)]


def nodes_on(*lengths: float) -> Domain:
    """Nodes on axes of these lengths."""
    return domain_of(lengths, None, len(lengths))
