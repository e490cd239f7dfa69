"""Checks of shapes and of the numbers in an update, with the errors that they raise."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

from probconserv._linalg.rows import Rows
from probconserv.errors import DependentConstraintsError, InfeasibleConstraintError, InvalidArgumentError

SMALL = 1 << 20
"""Entries of structured rows up to which they may become a matrix where nothing hangs on their speed."""


def non_negative(reduced: Tensor, variance: Tensor, slack: float, floor: float) -> Tensor:
    """Sets negative entries to zero in place if they are within ``slack * variance + floor``."""
    smallest = smallest_of(reduced)
    if smallest >= 0:
        return reduced
    if bool((reduced < -(slack * variance + floor)).any()):
        raise indefinite(smallest)
    return reduced.clamp_(min=0.0)


def smallest_of(values: Tensor) -> float:
    """The smallest number, ∞ of none."""
    return values.min().item() if values.numel() else math.inf


def largest_of(values: Tensor) -> float:
    """The largest absolute number, 0 of none, NaN if one is NaN."""
    if not values.numel():
        return 0.0
    smallest, largest = torch.aminmax(values.detach())  # without derivatives forward, which torch 2.6 lacks here
    return max(-smallest.item(), largest.item())


def indefinite(smallest: float) -> InvalidArgumentError:
    """The error for a conditioned variance that is negative beyond round-off."""
    return InvalidArgumentError(
        f"The conditioned variance is negative ({smallest:.3g}) beyond round-off: the prior covariance is not positive "
        "semi-definite. Check how it was computed."
    )


def require_finite_multipliers(multipliers: Tensor) -> None:
    """Raises InvalidArgumentError if S⁻¹ (G u − b) is not finite, as u is not."""
    if not are_finite(multipliers):
        raise InvalidArgumentError(
            "The mean of the prior (or a draw) holds entries that are not finite; repair the prediction before "
            "conditioning it."
        )


def require_finite(innovation: Tensor) -> None:
    """Raises InvalidArgumentError if S is not finite."""
    if not are_finite(innovation):
        raise InvalidArgumentError(
            "The prior covariance holds entries that are not finite (or G Σ Gᵀ overflows); repair the prediction "
            "before conditioning it."
        )


def require_finite_prior(mean: Tensor, variance: Tensor) -> float:
    """The smallest variance, 0 of none.

    Raises:
        InvalidArgumentError: If a mean or a variance is not finite, or a variance negative.
    """
    smallest = float(variance.detach().min()) if variance.numel() else 0.0
    if not (smallest >= 0 and are_finite(mean) and are_finite(variance)):
        raise InvalidArgumentError(
            "The prior must be finite with variances that are not negative; repair the prediction before conditioning."
        )
    return smallest


def are_finite(values: Tensor) -> bool:
    """Whether all entries are finite; their sum says so at once, unless it overflows."""
    return math.isfinite(values.sum().item()) or bool(torch.isfinite(values).all())


def non_negative_variance(variance: Tensor, readable: bool, checked: bool) -> Tensor:
    """The variances of the prior, NaN for negative ones where values are not checked.

    Raises:
        InvalidArgumentError: If values are checked and one is negative.
    """
    smallest = smallest_of(variance) if readable else -math.inf
    if not smallest < 0:
        return variance
    if checked:
        raise InvalidArgumentError(f"The prior variance must not be negative, got a smallest entry of {smallest:g}.")
    return torch.where(variance < 0, math.nan, variance)


def require_independent(independent: Tensor, k: int, members: int | None = None) -> None:
    """Raises DependentConstraintsError unless the k rows are independent, under the covariance of this many members."""
    if not bool(independent):
        if members is not None and k >= members:
            raise DependentConstraintsError(
                f"An ensemble of {members} members varies in at most {members - 1} directions, too few for {k} rows. "
                'Let correlations fade that so few members cannot support, by shrinkage="auto" of from_samples or '
                "condition_fields, or give every value an independent variance, by the noise_variance of these "
                "functions (that of the law would only make the law inexact)."
            )
        raise DependentConstraintsError(
            f"The {k} constraint rows are not independent under this prior: S = G Σ Gᵀ + σ² I is singular. Drop "
            "redundant rows, do not condition twice on one exact law, or set noise_variance > 0."
        )


def independent_rows(matrix: Tensor, least: float) -> Tensor:
    """Mask of the rows of S ``(*batch, k, k)`` with unit diagonal that have a pivot ``(*batch, k)``.

    A pivot up to ``least`` makes its row depend on rows before it, in Cholesky's factorisation without such rows.
    """
    chol, independent = torch.zeros_like(matrix), torch.zeros_like(matrix[..., 0], dtype=torch.bool)
    for j in range(matrix.shape[-1]):
        column = matrix[..., j:, j] - (chol[..., j:, :j] @ chol[..., j, :j, None])[..., 0]
        independent[..., j] = column[..., 0] > least
        pivot = column[..., :1].clamp_min(least)
        chol[..., j:, j] = torch.where(independent[..., j, None], column / pivot.sqrt(), 0.0)
    return independent


@contextmanager
def contradictions_named(G: Tensor | LinearOperator | Rows, b: Tensor, noise: Tensor) -> Iterator[None]:
    """Turns the error for dependent rows into InfeasibleConstraintError if no field at all meets the exact ones.

    Args:
        G: Rows ``(*batch, k, n)``; structured ones are not looked at where they are too many for a matrix.
        b: Right-hand sides ``(*batch, k)``.
        noise: σ² ``(*batch, k)``.
    """
    try:
        yield
    except DependentConstraintsError:
        require_consistent(G, b, noise)
        raise


def require_consistent(G: Tensor | LinearOperator | Rows, b: Tensor, noise: Tensor) -> None:
    """Raises InfeasibleConstraintError if no field meets the exact rows; arguments as of ``contradictions_named``."""
    if isinstance(G, Rows) and G.shape.numel() > SMALL:
        return
    rows = G if isinstance(G, Tensor) else G.to_dense()
    scale = torch.where(noise == 0, 1 / torch.linalg.vector_norm(rows, dim=-1), 0.0)
    rows, b = scale[..., None] * rows, scale * b
    basis, size, _ = torch.linalg.svd(rows, full_matrices=False)
    rounding = max(rows.shape[-2:]) * torch.finfo(torch.float64).eps * size[..., :1]
    basis = torch.where((size > rounding)[..., None, :], basis, 0.0)
    missed = b - (basis @ (basis.mT @ b[..., None]))[..., 0]
    if bool((missed.abs() > 1e-8 * b.abs().amax(dim=-1, keepdim=True)).any()):
        raise InfeasibleConstraintError(
            "The rows of the law contradict each other: the same combination of values is given two totals, so no "
            "field meets them all. Correct the right-hand sides, or set noise_variance > 0."
        )


def refuse_missing(values: Tensor, subject: str) -> None:
    """Raises InvalidArgumentError, which starts with the subject, as "values hold", if an entry is not finite."""
    missing = int((~torch.isfinite(values)).sum())
    if missing:
        raise InvalidArgumentError(f"{subject} {missing} NaN or infinite entries; drop or repair them.")


def require_tensors(**values: object) -> None:
    """Refuses arrays, lists and other named values that are no tensors.

    Raises:
        InvalidArgumentError: If one is none.
    """
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise InvalidArgumentError(
                f"{name} must be a tensor, got {type(value).__name__}; use torch.as_tensor, or torch.stack for a list."
            )


def joint_shape(**shapes: torch.Size) -> torch.Size:
    """The shape to which named shapes broadcast; one of them must be as large, so that not each is repeated.

    Raises:
        InvalidArgumentError: If they do not broadcast, or if each of them is smaller than what they broadcast to.
    """
    named = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
    way_out = "give them the same axes; only leading batch axes may be left out (u[:, 0] drops a channel axis)."
    try:
        joint = torch.broadcast_shapes(*shapes.values())
    except RuntimeError as error:
        raise InvalidArgumentError(f"The shapes do not fit together: {named}; {way_out}") from error
    if math.prod(joint) > max(math.prod(shape) for shape in shapes.values()):
        raise InvalidArgumentError(
            f"The shapes {named} fit only if each is repeated, to {tuple(joint)}, which compares every function with "
            f"every other; {way_out}"
        )
    return joint


def axes_agree(first: Sequence[int], second: Sequence[int]) -> bool:
    """Whether a field of one shape, flattened row by row, may be one of the other shape: one joins neighbouring axes of
    the other, or has more axes of length 1.
    """
    strides = [{math.prod(shape[axis:]) for axis in range(len(shape) + 1)} for shape in (first, second)]
    return math.prod(first) == math.prod(second) and (strides[0] <= strides[1] or strides[1] <= strides[0])


def joint_axes(first: tuple[int, ...] | None, second: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """The shape of two constraints together: the one that says more."""
    if first is None or second is None:
        return first or second
    if not axes_agree(first, second):
        raise InvalidArgumentError(
            f"Constraints join only on the same field, got fields of the shapes {first} and {second}; build both on "
            "one grid, with its axes in one order."
        )
    return second if len(second) > len(first) else first
