"""Refusal of numbers too small to divide by, in inference, in training and where a graph is recorded."""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from boon.errors import SingularKernelError
from solvers.recording import are_readable

_REMEDY = "use another correction, or an FNO of this package with padding, whose kernels start positive."


def checked(divisor: Tensor, small: Tensor, reason: Callable[[], str], warning: str) -> Tensor:
    """A divisor that is large enough, or that is trained; NaN in place of a small one whose size cannot be read.

    Args:
        divisor: The divisor, of any shape.
        small: Whether it is too small, one boolean.
        reason: The first half of the error's text, with numbers.
        warning: The same for a training, without numbers, so that a training says it once.

    Raises:
        SingularKernelError: If it is too small and not trained.
    """
    exported = torch.compiler.is_compiling() and torch.compiler.is_exporting()
    trained = divisor.requires_grad and not exported
    if are_readable(divisor) and bool(small):
        if not trained:
            raise SingularKernelError(f"{reason()}; {_REMEDY}")
        warnings.warn(
            f"{warning}, and features grow many times. In the first steps of a training this may pass, as kernels are "
            f"learnt; if the loss stays large, {_REMEDY}",
            RuntimeWarning,
            stacklevel=1,
        )
    return divisor if trained else torch.where(small, torch.nan, divisor)
