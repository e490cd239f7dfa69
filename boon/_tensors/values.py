"""Whether the numbers of tensors may be read, and whether a function transform or a compiler is at work."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

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


def is_traced() -> bool:
    """Whether a graph is recorded: ``torch.compile``, ``torch.export`` or ``torch.jit.trace``."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def is_transformed() -> bool:
    """Whether a graph is recorded or a transform of ``torch.func`` or forward-mode differentiation is at work."""
    if is_traced():
        return True
    return _functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
