"""Fields and values as tensors of real numbers."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from boon.errors import InvalidArgumentError


def check_tensor(u: Any) -> None:
    """Raises an error for a field that is an array or anything else but a tensor."""
    if not isinstance(u, Tensor):
        raise InvalidArgumentError(f"Fields are tensors, got {type(u).__name__}; use torch.as_tensor.")


def check_real(u: Tensor) -> None:
    """Refuses arrays, and fields of complex numbers or integers."""
    check_tensor(u)
    if not u.dtype.is_floating_point:
        raise InvalidArgumentError(
            f"Needed are fields of real numbers, got {u.dtype}; give real and imaginary parts as channels, or "
            "integers as floats."
        )


def real_tensor(value: Any, dtype: torch.dtype, device: torch.device, name: str) -> Tensor:
    """A number, an array or a tensor as a tensor.

    Args:
        value: The value.
        dtype: Dtype of the result.
        device: Device of the result.
        name: What it is, in messages.

    Raises:
        InvalidArgumentError: If it is complex.
    """
    complex_array = isinstance(value, np.ndarray) and np.iscomplexobj(value)
    if isinstance(value, complex) or complex_array or (isinstance(value, Tensor) and value.is_complex()):
        raise InvalidArgumentError(f"{name} needs real numbers, got complex ones.")
    return torch.as_tensor(value, dtype=dtype, device=device)
