"""Weights on disk: safetensors with the config in their metadata, never pickle, whole or not there."""

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from probconserv.errors import WeightsError

FORMAT = 1


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds.

    Args:
        kind: The class the weights belong to, for instance ``ANP``.
        config: Its config, as JSON can hold it.
        tensors: Parameters and buffers by name.
        notes: Whatever else was stored: seed, steps, versions.
    """

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    notes: dict[str, Any]


def write_weights(path: str | Path, weights: Weights) -> None:
    """Writes weights atomically: a reader sees the old file or the new one, never a part.

    Args:
        path: The file, usually ending in ``.safetensors``; its folder must exist.
        weights: What to store; tensors are moved to the CPU.

    Raises:
        WeightsError: If the file cannot be written.
    """
    path = Path(path)
    metadata = {
        "format": str(FORMAT),
        "kind": weights.kind,
        "config": json.dumps(weights.config),
        "notes": json.dumps(weights.notes),
        "torch": torch.__version__,
    }
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.tensors.items()}, metadata)
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            Path(temporary).chmod(0o644)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise WeightsError(f"'{path}' cannot be written ({error.strerror}); choose another folder.") from error


def read_weights(path: str | Path, kind: str) -> Weights:
    """Reads weights and checks that they are whole and of the wanted kind.

    Args:
        path: The file.
        kind: The class they must belong to.

    Returns:
        The weights, tensors on the CPU.

    Raises:
        WeightsError: If the file is missing, damaged, of another format version, or of another kind.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no file of weights '{path}'; check the path, or train the model first.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"'{path}' is damaged, perhaps cut off, or no safetensors file ({error}); restore it or train again."
        ) from error
    if metadata.get("format") != str(FORMAT):
        raise WeightsError(
            f"'{path}' has format version {metadata.get('format')}, but this library reads version {FORMAT}; "
            "install the library that wrote it, or train again."
        )
    if metadata["kind"] != kind:
        raise WeightsError(f"'{path}' holds weights of {metadata['kind']}, not of {kind}; load them with that class.")
    return Weights(kind, json.loads(metadata["config"]), tensors, json.loads(metadata["notes"]))


def check_tensors(path: str | Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises WeightsError unless both hold the same names with the same shapes."""
    wrong = sorted(set(found) ^ set(expected)) + [
        name for name in expected if name in found and found[name].shape != expected[name].shape
    ]
    if wrong:
        raise WeightsError(
            f"'{path}' does not fit this version of the model: {len(wrong)} tensors differ, first '{wrong[0]}'; "
            "train again."
        )
