"""Checkpoints of a training: weights, optimiser state and history in one safetensors file, never pickle."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from experiments.errors import DataFileError
from experiments.storage import write_bytes
from solvers.tensor_files import decode_tensors, encode_tensors

FORMAT = 1
_OF_A_PARAMETER = {"step", "exp_avg", "exp_avg_sq"}  # what Adam keeps


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint keeps besides tensors.

    Args:
        identity: What decides the result; a checkpoint resumes only a training of the same identity.
        step: Steps done.
        seconds: Wall time of them.
        history: Entries of the training's history.
    """

    identity: dict[str, Any]
    step: int
    seconds: float
    history: list[dict[str, float]]


def write_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, content: Checkpoint) -> None:
    """Writes a checkpoint atomically.

    Args:
        path: The file.
        model: Its parameters and buffers are stored.
        optimizer: Its state per parameter is stored.
        content: What else to keep.

    Raises:
        OutputFolderError: If the folder cannot be written.
    """
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    metadata = {
        "format": str(FORMAT),
        "torch": torch.__version__,
        "content": json.dumps(
            {
                "identity": content.identity,
                "step": content.step,
                "seconds": content.seconds,
                "history": content.history,
            }
        ),
    }
    write_bytes(path, encode_tensors(tensors, metadata))


def read_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, identity: dict[str, Any]) -> dict[str, Any]:
    """Restores model and optimiser in place.

    Args:
        path: The file.
        model: The model that was trained.
        optimizer: An optimiser of its parameters.
        identity: Identity that the checkpoint must have.

    Returns:
        ``step``, ``seconds`` and ``history``.

    Raises:
        DataFileError: If the file is damaged, of another version, or of another training.
    """
    content, tensors = _read(path)
    found = content.pop("identity")
    if found != identity:
        raise DataFileError(
            f"The checkpoint '{path}' belongs to another training ({_difference(found, identity)}); choose another "
            "output folder, or delete it to train from the start."
        )
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    try:
        state = _optimizer_state(tensors, optimizer)
        model.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        raise DataFileError(f"The checkpoint '{path}' does not fit this model; delete it ({error}).") from error
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return content


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        tensors, metadata = decode_tensors(path.read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    if metadata.get("format") != str(FORMAT):
        raise DataFileError(
            f"The checkpoint '{path}' has format version {metadata.get('format')}, this library reads {FORMAT}; "
            "delete it to train from the start."
        )
    try:
        content = json.loads(metadata["content"])
    except (KeyError, ValueError, RecursionError) as error:
        raise _damaged(path, f"no content: {error}") from error
    types = {"identity": dict, "step": int, "seconds": float, "history": list}
    if (
        not isinstance(content, dict)
        or {name: type(entry) for name, entry in content.items()} != types
        or content["step"] < 0
        or not all(isinstance(entry, dict) for entry in content["history"])
    ):
        raise _damaged(path, f"its content must have {', '.join(types)}")
    return content, tensors


def _damaged(path: Path, reason: str) -> DataFileError:
    return DataFileError(
        f"The checkpoint '{path}' is damaged, perhaps cut off ({reason}); delete it to train from the start."
    )


def _optimizer_state(tensors: dict[str, Tensor], optimizer: Optimizer) -> dict[int, dict[str, Tensor]]:
    """What the optimiser keeps for each parameter; ValueError if it is not that of these parameters."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".")
            if int(index) not in range(len(parameters)):
                raise ValueError(f"'{name}' belongs to no parameter")
            expected = value.new_zeros((), dtype=torch.float32) if key == "step" else parameters[int(index)]
            if value.shape != expected.shape or value.is_complex() != expected.is_complex():
                raise ValueError(f"'{name}' {tuple(value.shape)} {value.dtype} does not fit its parameter")
            state.setdefault(int(index), {})[key] = value
    for index, entries in state.items():
        if entries.keys() != _OF_A_PARAMETER:
            raise ValueError(f"parameter {index} has {', '.join(entries)} instead of {', '.join(_OF_A_PARAMETER)}")
    return state


def _difference(found: dict[str, Any], wanted: dict[str, Any], prefix: str = "") -> str:
    """The first entry in which two nested dictionaries differ, for an error message."""
    for name in sorted(found.keys() | wanted.keys()):
        old, new = found.get(name), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict) and old != new:
            return _difference(old, new, f"{prefix}{name}.")
        if old != new:
            return f"{prefix}{name} is {old!r} there and {new!r} here"
    return "no difference"
