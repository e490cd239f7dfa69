"""Weights on disk: safetensors with the config in the metadata, written atomically, never pickled."""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from probconserv.errors import DataFileError, LibraryError
from solvers.tensor_files import decode_tensors, encode_notes, encode_tensors, existing, write_atomically

FORMAT = 1


@dataclass(frozen=True)
class Weights:
    """Contents of a file of weights: class and config of the model, its tensors by name, further metadata."""

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    notes: dict[str, Any]


def write_weights(path: str | Path, weights: Weights) -> None:
    """Writes weights atomically: a reader sees the old file or the new one, never a part.

    Raises:
        DataFileError: If the file cannot be written.
    """
    path = Path(path)
    metadata = {
        "format": str(FORMAT),
        "kind": weights.kind,
        "config": json.dumps(weights.config),
        "notes": encode_notes(weights.notes),
        "torch": torch.__version__,
    }
    content = encode_tensors(weights.tensors, metadata)
    try:
        write_atomically(path, content)
    except OSError as error:
        raise DataFileError(f"'{path}' cannot be written ({error.strerror}); choose another folder.") from error


def read_weights(path: str | Path, kind: str) -> Weights:
    """Reads weights, to the CPU, and checks that they are complete and of the expected class of model.

    Raises:
        DataFileError: If the file is missing, damaged, of another format version, or of another kind.
    """
    path = existing(path, "file of weights")
    damaged = f"'{path}' is damaged, perhaps cut off, or not a file of weights"
    try:
        tensors, metadata = decode_tensors(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataFileError(f"{damaged} ({error}); restore it or train again.") from error
    if not str(metadata.get("format")).isdigit():
        raise DataFileError(
            f"'{path}' was not written by a model of this package (format {metadata.get('format')}); operators are "
            "read by boon.load, other files by the library that wrote them."
        )
    if metadata.get("format") != str(FORMAT):
        raise DataFileError(
            f"'{path}' has format version {metadata.get('format')}, but this library reads version {FORMAT}; "
            "install the library that wrote it, or train again."
        )
    if metadata.get("kind") != kind:
        raise DataFileError(
            f"'{path}' holds weights of {metadata.get('kind')}, not of {kind}; load them with that class."
        )
    try:
        config, notes = (json.loads(metadata[name]) for name in ("config", "notes"))
    except (KeyError, ValueError, RecursionError) as error:
        raise DataFileError(f"{damaged}: it has no config or notes ({error}); restore it or train again.") from error
    if not isinstance(config, dict) or not isinstance(notes, dict):
        raise DataFileError(f"{damaged}: config and notes must be JSON objects; restore it or train again.")
    return Weights(kind, config, tensors, notes)


@contextmanager
def stored_config(path: str | Path, kind: str) -> Iterator[None]:
    """Within, a model is built from the config in a file; what does not fit raises DataFileError with the reason."""
    try:
        yield
    except DataFileError:
        raise
    except (LibraryError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise DataFileError(
            f"The content of '{path}' is not that of {kind} ({error}); restore it or make it again."
        ) from error


def is_alike(value: Any, usual: Any) -> bool:
    """Whether a value has the type of the usual one; numbers must be finite, integers count as numbers."""
    if isinstance(usual, tuple | list):
        return isinstance(value, tuple | list) and all(is_alike(entry, usual[0]) for entry in value)
    if isinstance(usual, float):
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    return type(value) is type(usual)


def check_size(path: str | Path, stored: Mapping[str, Tensor], numbers: int, blocks: int) -> None:
    """Raises DataFileError if a file holds fewer numbers or tensors than a network of its config has at least.

    Called before the network is built, which would take memory for them.
    """
    held = sum(tensor.numel() for tensor in stored.values())
    if numbers > held or blocks > len(stored):
        raise DataFileError(
            f"'{path}' holds {held} numbers in {len(stored)} tensors, but a network of its config has at least "
            f"{numbers} in {blocks} blocks; restore it or train again."
        )


def fill(path: str | Path, module: nn.Module, stored: Mapping[str, Tensor], way_out: str = "train again") -> None:
    """Gives a module the stored tensors, in their dtypes and on its own devices.

    Raises:
        DataFileError: If names or shapes differ; ``way_out`` says what to do then.
    """
    state = module.state_dict()
    check_tensors(path, stored, state, way_out)
    dtypes = {
        entry.dtype: stored[name].dtype
        for name, entry in state.items()
        if _is_inexact(stored[name]) and entry.is_complex() == stored[name].is_complex()
    }
    for entry in (*module.parameters(), *module.buffers()):  # buffers that are not stored among them
        if _is_inexact(entry):
            entry.data = entry.data.to(dtypes.get(entry.dtype, entry.dtype))
    module.load_state_dict(stored)


def _is_inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def check_tensors(
    path: str | Path, stored: Mapping[str, Tensor], expected: Mapping[str, Tensor], way_out: str = "train again"
) -> None:
    """Raises DataFileError unless both hold the same names with the same shapes."""
    wrong = sorted(set(stored) ^ set(expected)) + [
        name for name in expected if name in stored and stored[name].shape != expected[name].shape
    ]
    if wrong:
        raise DataFileError(
            f"'{path}' does not fit this version of the model: {len(wrong)} tensors differ, first '{wrong[0]}'; "
            f"{way_out}."
        )
