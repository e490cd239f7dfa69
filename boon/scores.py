"""Scores of predicted fields: relative L2 error and boundary error."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from boon._tensors.values import check_real
from boon.conditions.functionals import Boundary
from boon.errors import InvalidArgumentError

_SMALL = 0.1
"""Of the root mean square of a field: what terms of a residual have at least in a loss."""


@dataclass(frozen=True)
class BoundaryError:
    """Errors of a field in the boundary conditions.

    Args:
        maximum: Largest |B u − g| over all sides, in the units of the conditions.
        relative_l2: ‖B u − g‖₂ over all sides relative to the norm of |g| + Σ_j |w_j u_j|, dimensionless.
        relative_maximum: Largest |B u − g| relative to |g| + Σ_j |w_j u_j| at the same node, dimensionless.
    """

    maximum: float
    relative_l2: float
    relative_maximum: float


def relative_l2(
    u: Float[Tensor, "batch channels *space"], truth: Float[Tensor, "batch channels *space"]
) -> Float[Tensor, ""]:
    """Mean over samples of ‖u − truth‖₂ / ‖truth‖₂.

    Args:
        u: Predicted fields.
        truth: True fields.

    Returns:
        A number, differentiable, in the dtype of u.

    Raises:
        InvalidArgumentError: If shapes differ, a true field is zero everywhere, or the fields are no tensors of real
            floating-point numbers.
    """
    check_real(u)
    check_real(truth)
    if u.shape != truth.shape or u.ndim < 2:
        raise InvalidArgumentError(
            f"relative_l2 needs two fields of one shape (batch, …), got {tuple(u.shape)} and {tuple(truth.shape)}."
        )
    norm = truth.flatten(1).norm(dim=1)
    if bool((norm == 0).any()):
        raise InvalidArgumentError("relative_l2 is not defined for a true field that is zero everywhere; drop it.")
    return ((u - truth).flatten(1).norm(dim=1) / norm).mean()


def boundary_error(u: Float[Tensor, "batch channels *space"], boundary: Boundary | Sequence[Boundary]) -> BoundaryError:
    """Errors of a field in the conditions: value, gradient, Robin residual, or mismatch of periodic ends.

    Of derivatives that a correction enforced, its own difference is right for any field and says nothing of the slope:
    take ``discretise(u, values, order=...)`` of another order, and a field on a finer grid as well.

    Args:
        u: Predicted fields.
        boundary: ``BOON.discretise(u, values)``, or ``ChannelBOON.discretise(u, values)``, one for every channel; at
            corners with compatible data.

    Raises:
        InvalidArgumentError: If there are conditions of another number of channels than the field has, or the field is
            on another grid than the conditions.
    """
    check_real(u)
    parts = [(u, boundary)] if isinstance(boundary, Boundary) else _channels(u, boundary)
    pairs = [pair for part, conditions in parts for pair in residuals(part.detach(), conditions)]
    if not pairs:
        return BoundaryError(0.0, 0.0, 0.0)
    residual, scale = _of_all_sides(pairs)
    relative = residual.abs() / torch.where(scale == 0, 1.0, scale)
    return BoundaryError(
        maximum=float(residual.abs().max()),
        relative_l2=float(_ratio(residual, scale)),
        relative_maximum=float(relative.max()),
    )


def relative_residual(
    u: Float[Tensor, "batch channels *space"], boundary: Boundary | Sequence[Boundary]
) -> Float[Tensor, ""]:
    """‖B u − g‖₂ over all sides relative to the norm of its terms, for a loss; 0 without conditions.

    As ``BoundaryError.relative_l2``, but of terms |g| + Σ_j |w_j| max(|u_j|, s/10), with s the root mean square of the
    channel, and without derivatives of the terms: ‖u‖/‖u‖ would be 1, without a slope, where all values are to be 0.
    Terms of a gradient grow as nodes come closer, so that a value in the same condition counts for less on fine grids.

    Args:
        u: Predicted fields.
        boundary: As in ``boundary_error``; of conditions per channel the result is the mean over channels that have
            any, whatever their units.

    Returns:
        A number, differentiable, in the dtype of u.

    Raises:
        InvalidArgumentError: See ``boundary_error``.
    """
    if not isinstance(boundary, Boundary):
        missed = [relative_residual(*part) for part in _channels(u, boundary) if part[1].has_any]
        return torch.stack(missed).mean() if missed else u.new_zeros(())
    pairs = residuals(u, boundary)
    if not pairs:
        return u.new_zeros(())
    field = u.detach().to(torch.float64)
    size = field.square().mean(dim=(0, *range(2, u.ndim)), keepdim=True).sqrt()
    terms = residuals(torch.maximum(field.abs(), _SMALL * size), boundary)
    return _ratio(_of_all_sides(pairs)[0], _of_all_sides(terms)[1]).to(u.dtype)


def residuals(u: Float[Tensor, "batch channels *space"], boundary: Boundary) -> list[tuple[Tensor, Tensor]]:
    """B u − g on every side and u_0 − u_n on every periodic axis, each with the scale |g| + Σ_j |w_j u_j|, float64.

    Raises:
        InvalidArgumentError: If the field is on another grid than the conditions.
    """
    boundary.check_grid(u)
    result = []
    for side, data in zip(boundary.sides, boundary.data, strict=True):
        result.append((side.read(u) - data, data.abs() + side.scale(u)))
    for axis in boundary.periodic:
        first, last = (u.select(2 + axis, index).to(torch.float64) for index in (0, -1))
        result.append((first - last, first.abs() + last.abs()))
    return result


def _of_all_sides(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Residuals and their scales as two vectors."""
    residual, scale = (torch.cat([part.flatten() for part in parts]) for parts in zip(*pairs, strict=True))
    return residual, scale


def _ratio(residual: Tensor, scale: Tensor) -> Tensor:
    """Ratio of norms; where all scales are 0, all residuals are."""
    return residual.norm() / scale.norm().clamp(min=torch.finfo(scale.dtype).tiny)


def _channels(u: Tensor, boundary: Sequence[Boundary]) -> list[tuple[Tensor, Boundary]]:
    """Every channel of a field with its conditions."""
    if len(boundary) != u.shape[1]:
        raise InvalidArgumentError(
            f"The field has {u.shape[1]} channels but conditions are given for {len(boundary)}; give one for each."
        )
    return list(zip(u.split(1, dim=1), boundary, strict=True))
