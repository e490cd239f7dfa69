"""Whether a graph is recorded or a function transformed, so that numbers cannot be read, and by which PyTorch."""

import re
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from solvers.errors import MissingPackageError

NEEDED = (2, 11)
"""The first PyTorch that records laws and boundary conditions as one graph."""

# Only these private names tell vmap from grad and jvp, whose numbers can be read.
_functorch: Any = torch._C._functorch  # pyright: ignore[reportAttributeAccessIssue]

TOO_OLD = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < NEEDED


def check_recording() -> None:
    """Refuses to be recorded by a PyTorch that is too old for it; without a recording any one will do."""
    if TOO_OLD and torch.compiler.is_compiling():
        raise MissingPackageError(
            f"torch.compile and torch.export of a constraint need torch 2.11 or newer, got {torch.__version__}; call "
            "the model without them, or install a newer torch."
        )


def is_traced() -> bool:
    """Whether a graph is recorded: ``torch.compile``, ``torch.export`` or ``torch.jit.trace``."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def is_transformed() -> bool:
    """Whether a graph is recorded or a transform of ``torch.func`` or forward-mode differentiation is at work."""
    if is_traced():
        return True
    return _functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0


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


def are_recorded(*tensors: Tensor) -> bool:
    """Whether loops outside of torch cannot have the numbers; ``torch.compile`` leaves its graph for such loops."""
    if torch.compiler.is_compiling():
        return torch.compiler.is_exporting()
    wrapped = any(_functorch.is_functorch_wrapped_tensor(tensor) for tensor in tensors)
    return wrapped or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def are_plain(*tensors: Tensor) -> bool:
    """Whether compiled code may work on the tensors: readable, on the CPU, and without derivatives to record."""
    if not are_readable(*tensors) or any(tensor.device.type != "cpu" for tensor in tensors):
        return False
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    if _functorch.peek_interpreter_stack() is not None:
        return False
    return forward_ad._current_level < 0 or all(forward_ad.unpack_dual(each).tangent is None for each in tensors)


def overwritable(temporary: Tensor, *others: Tensor) -> Tensor | None:
    """The temporary if a result of all may be written over it, None if derivatives are recorded or a transform acts."""
    recorded = is_transformed() or any(tensor.requires_grad for tensor in (temporary, *others))
    return None if recorded else temporary
