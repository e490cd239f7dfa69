"""The corrections that tests go through, and conditions on a grid without an operator."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from boon import Elimination, MixedTransform, Prescription, SmoothExtension
from boon.conditions import discretisation
from boon.conditions.functionals import Boundary
from boon.conditions.sides import check_conditions
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


def discretise(conditions: Sequence[Any], domain: Domain, values: Any, u: Tensor, order: int) -> Boundary:
    """Conditions as ``BOON`` takes them, with their data on the grid of u."""
    return discretisation.discretise(check_conditions(conditions), domain, values, u, order)
