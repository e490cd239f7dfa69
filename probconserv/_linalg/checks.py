"""Checks of what is given, its shapes above all, with the errors that they raise."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from probconserv._linalg.values import are_finite
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError


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


def check_batch(prior: torch.Size, constraint: torch.Size) -> torch.Size:
    """The batch axes of a conditioned prediction: those of the prior, or of the constraint for a single field."""
    if prior == constraint or len(constraint) == 0:
        return prior
    try:
        batch = torch.broadcast_shapes(prior, constraint)
    except RuntimeError as error:
        raise IncompatibleQueryError(
            f"The batch axes of the prediction {tuple(prior)} and of the constraint {tuple(constraint)} do not "
            "broadcast; give the constraint one total per function."
        ) from error
    if batch != prior and prior.numel() != 1:
        raise IncompatibleQueryError(
            f"The constraint has the batch axes {tuple(constraint)} but the prediction {tuple(prior)}, so that every "
            f"field would be combined with several totals, to {tuple(batch)}; give the constraint the axes of the "
            "prediction, or expand the prediction if that is meant."
        )
    return batch
