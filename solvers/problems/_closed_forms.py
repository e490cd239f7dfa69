"""Arguments of closed forms: numbers or tensors, as float64 tensors, and checks of them."""

import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError

Value = float | Tensor


def float64(*values: Value) -> tuple[Tensor, ...]:
    """Numbers or tensors as float64 tensors."""
    return tuple(torch.as_tensor(value, dtype=torch.float64) for value in values)


def require(holds: Tensor, name: str, expected: str, got: Tensor) -> None:
    """Raises an error unless a condition on an argument holds everywhere.

    Args:
        holds: Whether it does, in the shape of the argument.
        name: Name of the argument in the message.
        expected: The condition in words, after "must be".
        got: The argument.

    Raises:
        InvalidArgumentError: If it does not; the text has the first value that is wrong.
    """
    if not bool(holds.all()):
        raise InvalidArgumentError(f"{name} must be {expected}, got {got.detach()[~holds][0].item():g}.")
