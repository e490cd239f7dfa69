"""Weights on disk: safetensors with the config in their metadata, never pickle, whole or not there."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from probconserv.errors import WeightsError

FORMAT = 1
_CHECKSUM = "checksum"


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
    content = encode_tensors(weights.tensors, metadata)
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
    damaged = f"'{path}' is damaged, perhaps cut off, or no file of weights"
    try:
        tensors, metadata = decode_tensors(path.read_bytes())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{damaged} ({error}); restore it or train again.") from error
    if metadata.get("format") != str(FORMAT):
        raise WeightsError(
            f"'{path}' has format version {metadata.get('format')}, but this library reads version {FORMAT}; "
            "install the library that wrote it, or train again."
        )
    if metadata.get("kind") != kind:
        raise WeightsError(
            f"'{path}' holds weights of {metadata.get('kind')}, not of {kind}; load them with that class."
        )
    try:
        config, notes = (json.loads(metadata[name]) for name in ("config", "notes"))
    except (KeyError, ValueError, RecursionError) as error:
        raise WeightsError(f"{damaged}: it has no config or notes ({error}); restore it or train again.") from error
    if not isinstance(config, dict) or not isinstance(notes, dict):
        raise WeightsError(f"{damaged}: config and notes must be JSON objects; restore it or train again.")
    return Weights(kind, config, tensors, notes)


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


def encode_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file, with a checksum of everything else in its metadata.

    Args:
        tensors: Tensors by name, moved to the CPU.
        metadata: Texts by name.
    """
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(stored, {**metadata, _CHECKSUM: _checksum(stored, metadata)})


def decode_tensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads what ``encode_tensors`` made; files without a checksum are read too.

    Args:
        content: The whole file.

    Returns:
        Tensors on the CPU and metadata.

    Raises:
        ValueError: If it is no safetensors file, a name is given twice, an entry is not finite, or the checksum is
            not that of the content.
    """
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")], object_pairs_hook=_unique)
        infinite = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor.view(-1)).all())]
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:  # unknown dtypes, endless shapes
        raise ValueError(error) from error
    if infinite:
        raise ValueError(f"'{infinite[0]}' holds NaN or infinity")
    metadata = header.get("__metadata__") or {}
    found = _checksum(tensors, metadata)
    if metadata.get(_CHECKSUM, found) != found:
        raise ValueError(f"its checksum is {found[:12]}…, but {metadata[_CHECKSUM][:12]}… was written")
    return tensors, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name is given twice")
    return entries


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of metadata and tensors, hexadecimal; the entry for itself does not count."""
    texts = {name: text for name, text in metadata.items() if name != _CHECKSUM}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
