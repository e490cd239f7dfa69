"""The covariance left by structured rows, as a lazy operator of gpytorch."""

from typing import Any

import torch
from linear_operator.operators import LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import Tensor

from probconserv._linalg.innovation import Innovation
from probconserv._linalg.structured import StructuredGain


class ConditionedDiagonalLinearOperator(LinearOperator):
    """D′ = D − D Gᵀ S₀⁻¹ G D ``(*batch, n, n)``.

    gpytorch selects, repeats and reorders batch entries by doing so with the tensors among the arguments.

    Args:
        diagonal: diag D′ ``(*batch, n)``, in the dtype of the result.
        metric: D ``(*batch, n)``.
        position: Number of every entry in the flattened batch of S₀ ``(*batch,)``.
        innovation: S₀.
    """

    def __init__(self, diagonal: Tensor, metric: Tensor, position: Tensor, *, innovation: Innovation) -> None:
        super().__init__(diagonal, metric, position, innovation=innovation)
        self._kept, self._metric, self._position, self._innovation = diagonal, metric, position, innovation

    def _matmul(self, rhs: Tensor) -> Tensor:
        columns = rhs[..., None] if rhs.ndim == 1 else rhs
        metric = self._metric.to(torch.float64)
        innovation = self._innovation.at(self._position.to(torch.int64), metric)
        scaled = columns.to(torch.float64).mT * metric[..., None, :]
        multipliers = innovation.solve(innovation.rows.functional(scaled))
        result = innovation.rows.subtract(scaled, metric, multipliers).mT.to(rhs.dtype)
        return result[..., 0] if rhs.ndim == 1 else result

    def _diagonal(self) -> Tensor:
        return self._kept

    def _size(self) -> torch.Size:
        return torch.Size([*self._kept.shape, self._kept.shape[-1]])

    def _transpose_nonbatch(self) -> LinearOperator:
        return self

    def _expand_batch(self, batch_shape: Any) -> LinearOperator:
        diagonal, metric = (part.expand(*batch_shape, part.shape[-1]) for part in (self._kept, self._metric))
        position = self._position.expand(batch_shape)
        return ConditionedDiagonalLinearOperator(diagonal, metric, position, innovation=self._innovation)


def conditioned_covariance(gain: StructuredGain, batch: torch.Size, dtype: torch.dtype) -> LinearOperator:
    """Σ′ = D′ + R′ M⁻¹ R′ᵀ ``(*batch, n, n)``."""
    own = gain.innovation.batch_shape
    diagonal, metric = (part.expand(*batch, part.shape[-1]) for part in (gain.diagonal_part(), gain.metric))
    position = torch.arange(own.numel(), device=metric.device).reshape(own).expand(batch)
    kept = ConditionedDiagonalLinearOperator(diagonal.to(dtype), metric, position, innovation=gain.innovation)
    if not gain.root.shape[-2]:
        return kept
    root = gain.root_of_covariance.mT.to(dtype)
    return PsdSumLinearOperator(kept, RootLinearOperator(root.expand(*batch, *root.shape[-2:])))
