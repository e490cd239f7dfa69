"""Tensors and texts in one safetensors file with a checksum: the format of weights and checkpoints.

It belongs to this package because all others may import it.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

_CHECKSUM = "checksum"


class TensorFile(NamedTuple):
    """The content of a file, unchecked.

    Args:
        tensors: Tensors by name, on the CPU.
        metadata: Texts by name.
        infinite: Names of the tensors that hold NaN or infinity.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    infinite: list[str]

    @property
    def mismatch(self) -> str | None:
        """How the checksum differs from the stored one; None if it agrees or none is stored."""
        actual = _checksum(self.tensors, self.metadata)
        written = self.metadata.get(_CHECKSUM, actual)
        return None if written == actual else f"its checksum is {actual[:12]}…, but {written[:12]}… was written"


def encode_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file, with a checksum of everything else in its metadata.

    Args:
        tensors: Tensors by name, moved to the CPU.
        metadata: Texts by name.
    """
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(stored, {**metadata, _CHECKSUM: _checksum(stored, metadata)})


def parse_tensors(content: bytes) -> TensorFile:
    """Parses any safetensors file, without checking values or checksum.

    Args:
        content: The whole file.

    Raises:
        ValueError: If it is not a safetensors file, or a name occurs twice.
    """
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")], object_pairs_hook=_unique)
        infinite = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor.view(-1)).all())]
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:  # unknown dtypes, endless shapes
        raise ValueError(error) from error
    return TensorFile(tensors, header.get("__metadata__") or {}, infinite)


def decode_tensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Parses and checks a file written by ``encode_tensors``; files without a checksum are accepted.

    Args:
        content: The whole file.

    Returns:
        Tensors on the CPU and metadata.

    Raises:
        ValueError: If it is not a safetensors file, a name occurs twice, an entry is not finite, or the checksum
            does not match the content.
    """
    file = parse_tensors(content)
    if file.infinite:
        raise ValueError(f"'{file.infinite[0]}' holds NaN or infinity")
    if file.mismatch:
        raise ValueError(file.mismatch)
    return file.tensors, file.metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name is given twice")
    return entries


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of metadata and tensors, hexadecimal, without the entry of the checksum."""
    texts = {name: text for name, text in metadata.items() if name != _CHECKSUM}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
