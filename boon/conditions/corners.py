"""Whether values agree where sides meet, judged for every sample and channel."""

from collections.abc import Sequence

import torch
from torch import Tensor

from boon.errors import IncompatibleCornersError
from solvers.recording import are_readable

_UNITS, _UNITS_OF_HALF = 100, 4


def tolerance_of(dtype: torch.dtype) -> float:
    """Largest disagreement of values in this dtype that is rounding, relative to the largest value.

    Half precision has few units of rounding: a hundred of bfloat16 would be three quarters of the value.
    """
    return (_UNITS_OF_HALF if dtype.itemsize < 4 else _UNITS) * torch.finfo(dtype).eps


def check_gap(gap: Tensor, values: Sequence[Tensor], tolerance: float, name: str) -> None:
    """Refuses values that differ where sides meet.

    Args:
        gap: Differences ``(batch, channels, *nodes)``.
        values: What is given on the sides, ``(batch, channels, *face)`` each.
        tolerance: Largest difference, relative to the largest value of the same sample and channel on all sides.
        name: Name of the side where they differ, see ``name_of``.
    """
    if not are_readable(gap, *values) or not bool((found := _largest(gap)).any()):
        return
    size = torch.stack(torch.broadcast_tensors(*map(_largest, values))).amax(0)
    if bool((found > tolerance * size).any()):
        raise IncompatibleCornersError(
            f"The values on the {name} disagree by {float(found.max()):.3g} with another Dirichlet side or "
            "the other end of a periodic axis where they meet. Give values that agree at the corners, smooth the jump "
            "in the data, or leave the corners to the other side: Part(Dirichlet(1.0), where=lambda x: (x > 0) & (x < "
            "1)) on an axis of length 1."
        )


def name_of(axis: int, last: bool) -> str:
    """A side in messages."""
    return f"{'last' if last else 'first'} side of axis {axis}"


def _largest(values: Tensor) -> Tensor:
    """Largest magnitude of every sample and channel, ``(batch, channels)``."""
    return values.detach().abs().reshape(*values.shape[:2], values.shape[2:].numel()).amax(-1)
