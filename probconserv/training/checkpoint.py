"""Checkpoints of a training: weights, optimiser state and history in one safetensors file, never pickled."""

import json
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from probconserv.errors import DataFileError
from probconserv.training.files import write_bytes
from probconserv.training.fingerprint import difference_between
from solvers.tensor_files import decode_tensors, encode_tensors

FORMAT = 2
_ADAM_STATE = {"step", "exp_avg", "exp_avg_sq"}  # of each parameter
_SINCE_RELEASE_5 = {"data", "network"}  # entries of a config
_TYPES = {"config": dict, "step": int, "seconds": float, "history": list}


@dataclass
class TrainingState:
    """Progress of a training: what a checkpoint keeps besides weights and optimiser.

    Args:
        step: Steps done.
        seconds: Wall time of them, over all interruptions.
        history: One entry per validation or checkpoint: step, mean loss since the last entry, rate, seconds, scores.
    """

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


def write_checkpoint(
    path: Path, model: nn.Module, optimizer: Optimizer, state: TrainingState, config: dict[str, Any]
) -> None:
    """Writes a checkpoint atomically: parameters and buffers, the optimiser's state per parameter, steps and history.

    Raises:
        OutputFolderError: If the folder cannot be written.
    """
    entries = model.state_dict()  # to which some Modules add what is no tensor
    tensors = {f"model.{name}": entry for name, entry in entries.items() if isinstance(entry, Tensor)}
    for index, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in values.items()}
    content = json.dumps({"config": config, **asdict(state)})
    metadata = {"format": str(FORMAT), "torch": torch.__version__, "content": content}
    write_bytes(path, encode_tensors(tensors, metadata))


def read_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, config: dict[str, Any]) -> TrainingState:
    """Restores model and optimiser in place; ``config``, what decides the result, must be that of the checkpoint.

    Entries that files of release 0.4 lack are not compared; a warning names them.

    Raises:
        DataFileError: If the file is damaged, of another version, or of another training.
    """
    content, tensors = _read(path)
    stored = content.pop("config")
    unknown = sorted(_SINCE_RELEASE_5 & config.keys() - stored.keys())
    difference = difference_between(stored, {name: entry for name, entry in config.items() if name not in unknown})
    if difference is not None:
        raise DataFileError(
            f"The checkpoint '{path}' belongs to another training ({difference}); choose another output folder, or "
            "delete it to train from the start."
        )
    if unknown:
        warnings.warn(
            f"The checkpoint '{path}' does not hold the {' and the '.join(unknown)} of its training, as those of "
            "release 0.4, and is taken for one of this training. If it is not, delete it and train from the start.",
            stacklevel=4,
        )
    weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    try:
        state = _optimizer_state(tensors, optimizer)
        model.load_state_dict(weights)
    except (ValueError, RuntimeError) as error:
        raise DataFileError(f"The checkpoint '{path}' does not fit this model; delete it ({error}).") from error
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return TrainingState(**content)


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
    if (
        not isinstance(content, dict)
        or {name: type(entry) for name, entry in content.items()} != _TYPES
        or content["step"] < 0
        or not all(isinstance(entry, dict) for entry in content["history"])
    ):
        raise _damaged(path, f"its content must have {', '.join(_TYPES)}")
    return content, tensors


def _damaged(path: Path, reason: str) -> DataFileError:
    return DataFileError(
        f"The checkpoint '{path}' is damaged, perhaps cut off ({reason}); delete it to train from the start."
    )


def _optimizer_state(tensors: dict[str, Tensor], optimizer: Optimizer) -> dict[int, dict[str, Tensor]]:
    """State of the optimiser per parameter; ValueError if it does not fit these parameters."""
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
        if entries.keys() != _ADAM_STATE:
            raise ValueError(f"parameter {index} has {', '.join(entries)} instead of {', '.join(_ADAM_STATE)}")
    return state
