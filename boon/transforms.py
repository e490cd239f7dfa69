"""Fourier series: where the values of a field are, the period on axes that are not periodic, and weights of the values.

A field on an interval of length L is extended by zero to a period P > L. Its coefficients are integrals over the
interval, which a grid with n nodes turns into sums. Period and sums decide whether a trained network gives the same
answer on another grid.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

_GREGORY = (3 / 8, 7 / 6, 23 / 24)


class FourierTransform(ABC):
    """How the Fourier series of an axis that is not periodic follows from its grid.

    Attributes:
        cells: Whether fields are averages over cells, else at nodes.
    """

    cells: ClassVar[bool] = False

    @abstractmethod
    def period(self, count: int, padding: float) -> float:
        """The period in units of the distance between nodes.

        Args:
            count: Number n of nodes, both ends included.
            padding: Length by which the axis is extended, as a fraction of its length.
        """

    @abstractmethod
    def end_weights(self, count: int) -> tuple[float, ...]:
        """Weights of the nodes next to either end in the coefficients, the end node first; all others have weight 1."""


@dataclass(frozen=True)
class DomainFourier(FourierTransform):
    """The period is (1 + padding) times the length of the axis, a real number, and coefficients are integrals.

    The integrals are the trapezoid rule with corrected ends, weights 3/8, 7/6, 23/24, 1 … 1, 23/24, 7/6, 3/8, of
    order 4 (Press et al., Numerical Recipes, 3rd ed., eq. 4.1.14); with fewer than six nodes the trapezoid rule. So a
    network is a function of the field, not of the grid, up to the error of these integrals.
    """

    def period(self, count: int, padding: float) -> float:
        return (1.0 + padding) * (count - 1)

    def end_weights(self, count: int) -> tuple[float, ...]:
        return _GREGORY if count >= 2 * len(_GREGORY) else (0.5,)


@dataclass(frozen=True)
class CellFourier(FourierTransform):
    """For averages over n cells: as ``DomainFourier``, with sums over the cells as integrals, of order 2."""

    cells: ClassVar[bool] = True

    def period(self, count: int, padding: float) -> float:
        return (1.0 + padding) * count

    def end_weights(self, count: int) -> tuple[float, ...]:  # noqa: ARG002
        return ()


@dataclass(frozen=True)
class NodeFourier(FourierTransform):
    """The period is n + round(padding · (n − 1)) nodes, all of weight 1, as in an FFT of padded nodes.

    All operators of version 0.1 have it. A trained network belongs to its number of nodes: one more changes the period
    as a length, and by rounding even in steps.
    """

    def period(self, count: int, padding: float) -> float:
        return count + round(padding * (count - 1))

    def end_weights(self, count: int) -> tuple[float, ...]:  # noqa: ARG002
        return ()
