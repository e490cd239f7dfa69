"""The covariance left by structured rows, as a lazy operator of gpytorch."""

from typing import Any

import torch
from linear_operator.operators import LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import Tensor

from probconserv._linalg.innovation import Innovation
from probconserv._linalg.structured import StructuredGain


class ConditionedDiagonalLinearOperator(LinearOperator):
    """D′ = D − D Gᵀ S₀⁻¹ G D ``(*batch, n, n)``.

    gpytorch selects, repeats and reorders batch entries by doing so with the tensors among the arguments, and
    differentiates in these alone.

    Args:
        diagonal: diag D′ ``(*batch, n)``, in the dtype of the result.
        metric: D ``(*batch, n)``.
        noise: N ``(*batch, k)``.
        position: Number of every entry in the flattened batch of S₀ ``(*batch,)``.
        *entries: Entries of G ``(*batch, m)``, if derivatives in them are recorded.
        innovation: S₀.
    """

    def __init__(
        self,
        diagonal: Tensor,
        metric: Tensor,
        noise: Tensor,
        position: Tensor,
        *entries: Tensor,
        innovation: Innovation,
    ) -> None:
        super().__init__(diagonal, metric, noise, position, *entries, innovation=innovation)
        self._parts, self._innovation = (diagonal, metric, noise, position, *entries), innovation

    def _matmul(self, rhs: Tensor) -> Tensor:
        columns = rhs[..., None] if rhs.ndim == 1 else rhs
        _, metric, noise, position, *entries = self._parts
        parts = (part.to(torch.float64) for part in (metric, noise, *entries))
        innovation = self._innovation.at(position.to(torch.int64), *parts)
        scaled = columns.to(torch.float64).mT * innovation.metric[..., None, :]
        multipliers = innovation.solve(innovation.rows.functional(scaled))
        result = innovation.rows.subtract(scaled, innovation.metric, multipliers).mT.to(rhs.dtype)
        return result[..., 0] if rhs.ndim == 1 else result

    def _diagonal(self) -> Tensor:
        return self._parts[0]

    def _size(self) -> torch.Size:
        return torch.Size([*self._parts[0].shape, self._parts[0].shape[-1]])

    def _transpose_nonbatch(self) -> LinearOperator:
        return self

    def _expand_batch(self, batch_shape: Any) -> LinearOperator:
        diagonal, metric, noise, position, *entries = self._parts
        diagonal, metric, noise, *entries = (
            part.expand(*batch_shape, part.shape[-1]) for part in (diagonal, metric, noise, *entries)
        )
        position = position.expand(batch_shape)
        return ConditionedDiagonalLinearOperator(
            diagonal, metric, noise, position, *entries, innovation=self._innovation
        )


def conditioned_covariance(gain: StructuredGain, batch: torch.Size, dtype: torch.dtype) -> LinearOperator:
    """Σ′ = D′ + R′ M⁻¹ R′ᵀ ``(*batch, n, n)``."""
    own, entries = gain.innovation.batch_shape, gain.innovation.rows.entries
    tracked = torch.is_grad_enabled() and entries.requires_grad
    diagonal, metric, noise, *entries = (
        part.expand(*batch, part.shape[-1])
        for part in (gain.diagonal_part(), gain.metric, gain.noise, *([torch.atleast_1d(entries)] if tracked else []))
    )
    position = torch.arange(own.numel(), device=metric.device).reshape(own).expand(batch)
    kept = ConditionedDiagonalLinearOperator(
        diagonal.to(dtype), metric, noise, position, *entries, innovation=gain.innovation
    )
    if not gain.root.shape[-2]:
        return kept
    root = gain.root_of_covariance.mT.to(dtype)
    return PsdSumLinearOperator(kept, RootLinearOperator(root.expand(*batch, *root.shape[-2:])))
