"""A model on its device and in the number format of its training; gradients averaged over several processes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from inspect import ismethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from probconserv.errors import InvalidArgumentError
from probconserv.training.config import TrainingConfig
from probconserv.training.distributed import Ranks


def place(model: nn.Module, config: TrainingConfig, ranks: Ranks) -> nn.Module:
    """The model as a loss calls it: on the device of this process, with gradients averaged over the processes.

    In ``64-true`` the weights, the inputs and all tensors that the model makes are float64. In ``bf16-mixed`` matrices
    are multiplied in bfloat16. In both the outputs are of the default dtype.

    Raises:
        InvalidArgumentError: If PyTorch finds no such GPU.
    """
    device = ranks.device(config.device)
    if device.type == "cuda":
        device = torch.device("cuda", device.index or 0)
        if device.index >= torch.cuda.device_count():
            raise InvalidArgumentError(
                f"device is '{device}', but PyTorch finds {torch.cuda.device_count()} GPUs here; choose another one, "
                "or cpu."
            )
        torch.cuda.set_device(device)
    if config.precision == "64-true":
        model.double()
    model.to(device)
    return _Placed(model, config, device, several=ranks.world_size > 1)


class _Placed(nn.Module):
    """A model in the precision of a training; its attributes are those of the model."""

    def __init__(self, model: nn.Module, config: TrainingConfig, device: torch.device, several: bool) -> None:
        super().__init__()
        gpus = None if device.type == "cpu" else [device]
        self._shared = DistributedDataParallel(model, device_ids=gpus) if several else model
        self._precision, self._device = config.precision, device

    def forward(self, *arguments: Any, **named: Any) -> Any:
        if self._precision == "32-true":
            return self._shared(*arguments, **named)
        if self._precision == "64-true":
            arguments, named = _converted((arguments, named), torch.float64)
            with _default_dtype(torch.float64):
                outputs = self._shared(*arguments, **named)
        else:  # inputs stay as they are: rounded coordinates would move every front by a few thousandths
            with torch.autocast(self._device.type, torch.bfloat16):
                outputs = self._shared(*arguments, **named)
        return _converted(outputs, torch.get_default_dtype())

    def __getattr__(self, name: str) -> Any:
        if name == "_shared":
            return super().__getattr__(name)
        several = isinstance(self._shared, DistributedDataParallel)
        value = getattr(self._shared.module if several else self._shared, name)
        if several and ismethod(value):
            raise InvalidArgumentError(
                f"The loss calls the method '{name}' of its model, but several processes only average the gradients of "
                "what the model's forward computes; call the model, and put that into its forward."
            )
        return value


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _converted(data: Any, dtype: torch.dtype) -> Any:
    """Nested data with its real tensors in another dtype; all else as it is."""
    if isinstance(data, Tensor):
        return data.to(dtype) if data.is_floating_point() else data
    if isinstance(data, Mapping):
        return {key: _converted(value, dtype) for key, value in data.items()}
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(_converted(value, dtype) for value in data))
    if isinstance(data, list | tuple):
        return type(data)(_converted(value, dtype) for value in data)
    if is_dataclass(data) and not isinstance(data, type):
        parts = {entry.name: getattr(data, entry.name) for entry in fields(data) if entry.init}
        return replace(data, **{name: _converted(value, dtype) for name, value in parts.items()})
    return data
