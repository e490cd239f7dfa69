"""The covariance left by structured rows, as a lazy operator of gpytorch."""

from typing import Any

import torch
from linear_operator.operators import LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import Tensor

from probconserv._linalg.structured import StructuredGain


class ConditionedDiagonalLinearOperator(LinearOperator):
    """D′ = D − D Gᵀ S₀⁻¹ G D ``(*batch, n, n)``.

    Args:
        diagonal: diag D′ ``(*batch, n)``, in the dtype of the result.
        gain: The factorised update.
    """

    def __init__(self, diagonal: Tensor, gain: StructuredGain) -> None:
        super().__init__(diagonal, gain=gain)
        self._kept, self._gain = diagonal, gain

    def _matmul(self, rhs: Tensor) -> Tensor:
        columns = rhs[..., None] if rhs.ndim == 1 else rhs
        gain, fields = self._gain, columns.to(torch.float64).mT
        scaled = fields * gain.metric[..., None, :]
        result = gain.rows.subtract(scaled, gain.metric, gain.innovation.solve(gain.rows.functional(scaled)))
        result = result.mT.to(rhs.dtype)
        return result[..., 0] if rhs.ndim == 1 else result

    def _diagonal(self) -> Tensor:
        return self._kept

    def _size(self) -> torch.Size:
        return torch.Size([*self._kept.shape, self._kept.shape[-1]])

    def _transpose_nonbatch(self) -> LinearOperator:
        return self

    def _expand_batch(self, batch_shape: Any) -> LinearOperator:
        return ConditionedDiagonalLinearOperator(self._kept.expand(*batch_shape, self._kept.shape[-1]), self._gain)


def conditioned_covariance(gain: StructuredGain, batch: torch.Size, dtype: torch.dtype) -> LinearOperator:
    """Σ′ = D′ + R′ M⁻¹ R′ᵀ ``(*batch, n, n)``."""
    kept = gain.diagonal_part()
    diagonal = ConditionedDiagonalLinearOperator(kept.expand(*batch, kept.shape[-1]).to(dtype), gain)
    if not gain.root.shape[-2]:
        return diagonal
    root = gain.root_of_covariance.mT.to(dtype)
    return PsdSumLinearOperator(diagonal, RootLinearOperator(root.expand(*batch, *root.shape[-2:])))
