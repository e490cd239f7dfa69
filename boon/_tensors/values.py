"""Whether the numbers of tensors may be read, and whether a function transform or a compiler is at work."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from boon.errors import InvalidArgumentError

# Only these private names tell vmap from grad and jvp, whose numbers can be read.
_functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]


def are_readable(*tensors: Tensor) -> bool:
    """False in ``torch.compile``, ``torch.export`` and ``torch.jit.trace``, under ``vmap``, and for meta tensors.

    Checks of values are left out where it is False, so bad values give NaN instead of an error.
    """
    if is_traced():
        return False
    stack = _functorch.get_interpreter_stack()
    if stack and any(level.key() == _functorch.TransformType.Vmap for level in stack):
        return False
    return not any(tensor.is_meta for tensor in tensors)


def check_tensor(u: Any) -> None:
    """Raises an error for a field that is an array or anything else but a tensor."""
    if not isinstance(u, Tensor):
        raise InvalidArgumentError(f"Fields are tensors, got {type(u).__name__}; use torch.as_tensor.")


def check_real(u: Tensor) -> None:
    """Refuses arrays, and fields of complex numbers or integers.

    Raises:
        InvalidArgumentError: If it is one.
    """
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


def is_traced() -> bool:
    """Whether a graph is recorded: ``torch.compile``, ``torch.export`` or ``torch.jit.trace``."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def is_transformed() -> bool:
    """Whether a graph is recorded or a transform of ``torch.func`` or forward-mode differentiation is at work."""
    if is_traced():
        return True
    return _functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
