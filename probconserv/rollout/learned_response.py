"""The place in the field of a missing total, learnt from the errors of single steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import nnls
from torch import Tensor

from probconserv.errors import InvalidArgumentError
from probconserv.rollout.wall_response import WallResponse

ResponseOfField = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From a predicted field ``(*batch, c, *space)`` to how it moves when a total changes by one ``(*batch, k, c·points)``,
and the variances of that metric ``(*batch, c·points)``."""
_TERMS = ("1", "|u|", "u²")


@dataclass(frozen=True, kw_only=True, eq=False)
class LearnedResponse:
    """How fields move when a total changes: r(u) = Σₖ aₖ φₖ(u) / ∫ φₖ(u), with φ = 1, |u| and u².

    What is correlated with the total decides where its error belongs, not where errors are large. Walls are kept: φₖ is
    a multiple of their response. Fields of any size have the response of their shape.

    Args:
        coefficients: aₖ ≥ 0 of every conserved channel, Σₖ aₖ = 1, ``(k, 3)``.
    """

    coefficients: Float[Tensor, "k terms"]

    def __post_init__(self) -> None:
        a = self.coefficients
        sums = a.sum(dim=-1)
        if a.ndim != 2 or a.shape[1] != len(_TERMS) or bool((a < 0).any()) or bool(((sums - 1).abs() > 1e-6).any()):
            raise InvalidArgumentError(
                f"coefficients must be (k, {len(_TERMS)}), of {', '.join(_TERMS)}, not negative and of sum 1, got {a}."
            )

    @classmethod
    def fit(
        cls,
        predicted: Float[Tensor, "samples k *space"],
        true: Float[Tensor, "samples k *space"],
        shape: Float[Tensor, "..."],
        weights: Float[Tensor, "*space"],
    ) -> Self:
        """The least squares of e − Σₖ aₖ φₖ ∫e / ∫φₖ over errors e of single steps.

        Args:
            predicted: Fields after one step from true ones, conserved channels alone.
            true: True fields then.
            shape: How fields move without it ``(k, *space)``, as at walls.
            weights: Quadrature weights.
        """
        predicted, errors = predicted.double().flatten(2), (true.double() - predicted.double()).flatten(2)
        w = weights.flatten()
        parts = _parts(predicted, _of_unit_total(shape.flatten(1), w), w)
        missing, coefficients = errors @ w, []
        for channel, error in enumerate((errors * w.sqrt()).unbind(dim=1)):
            moves = (parts[:, :, channel] * missing[:, channel, None] * w.sqrt()).flatten(1)
            gram, right = (moves @ moves.mT).cpu().numpy(), (moves @ error.flatten()).cpu().numpy()
            coefficients.append(_on_simplex(gram, right))
        return cls(coefficients=torch.tensor(np.stack(coefficients)))

    def within(
        self, shape: Float[Tensor, "..."], channels: list[int], weights: Tensor, walls: WallResponse | None
    ) -> ResponseOfField:
        """The response in a rollout, as a function of the predicted field, float64.

        Args:
            shape: How every channel moves without it.
            channels: The conserved ones.
            weights: Quadrature weights.
            walls: What moves without leaving the walls that the operator meets; None if it meets none.
        """
        d, w = weights.ndim, weights.flatten()
        own = torch.eye(len(shape), dtype=torch.float64, device=weights.device)[channels]
        a = self.coefficients.to(own)
        a = (a / a.sum(dim=1, keepdim=True)).mT[..., None]  # of sum 1 in float64, too
        first = _of_unit_total(shape[channels].flatten(1), w)

        def response(field: Tensor) -> tuple[Tensor, Tensor]:
            parts = _parts(field.flatten(-d)[..., channels, :], first, w)
            r = own.mT @ sum(each * part for each, part in zip(a, parts, strict=True))
            moves = r
            if walls is not None:
                moves = walls.homogeneous(r.view(field.shape)).flatten(-d)
                totals = (moves @ w)[..., None]
                moves = torch.where(totals > 0, moves / torch.where(totals > 0, totals, 1.0), own.mT @ first)
            variance = torch.where(moves > 0, moves, r) / w
            return (own[..., None] * moves.unsqueeze(-3)).flatten(-2), variance.flatten(-2)

        return response


def _of_unit_total(shape: Tensor, w: Tensor) -> Tensor:
    return shape / (shape @ w)[:, None]


def _parts(field: Tensor, first: Tensor, w: Tensor) -> Tensor:
    """φₖ / ∫ φₖ ``(terms, *batch, k, points)``, of which the first is given; all are that one where a field is zero."""
    size = field.abs()
    largest = size.amax(dim=-1, keepdim=True)
    size = size / torch.where(largest > 0, largest, 1.0)
    of_size = size * first
    powers = torch.stack([of_size, of_size * size])
    totals = (powers @ w)[..., None]
    powers = torch.where(totals > 0, powers / torch.where(totals > 0, totals, 1.0), first)
    return torch.cat([first.expand_as(size)[None], powers])


def _on_simplex(gram: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The a ≥ 0 of sum 1 with the least aᵀ gram a − 2 aᵀ right: least squares with a heavy row for the sum."""
    scale = float(np.trace(gram))
    if not scale > 0:  # no errors of totals
        return np.eye(len(gram))[0]
    values, vectors = np.linalg.eigh(gram / scale)
    root = np.sqrt(values.clip(min=0.0))
    kept = root > 1e-9
    rows, targets = (root * vectors).T[kept], (vectors.T @ right / scale)[kept] / root[kept]
    heavy = 1e4
    a = nnls(np.vstack([rows, np.full(len(gram), heavy)]), np.append(targets, heavy))[0]
    return a / a.sum()
