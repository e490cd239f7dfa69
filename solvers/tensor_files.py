"""Tensors and texts in one safetensors file that is checked when it is read: the format of weights and checkpoints.

It stands in this package since all others may import it.
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
    """The content of a file as it stands there.

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
        """How the checksum differs from the one that was written; None if it does not, or none was."""
        found = _checksum(self.tensors, self.metadata)
        written = self.metadata.get(_CHECKSUM, found)
        return None if written == found else f"its checksum is {found[:12]}…, but {written[:12]}… was written"


def encode_tensors(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """The content of a safetensors file, with a checksum of everything else in its metadata.

    Args:
        tensors: Tensors by name, moved to the CPU.
        metadata: Texts by name.
    """
    stored = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(stored, {**metadata, _CHECKSUM: _checksum(stored, metadata)})


def parse_tensors(content: bytes) -> TensorFile:
    """Reads what ``encode_tensors`` made, or any other safetensors file, whatever its values.

    Args:
        content: The whole file.

    Raises:
        ValueError: If it is no safetensors file, or a name is given twice.
    """
    try:
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")], object_pairs_hook=_unique)
        infinite = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor.view(-1)).all())]
    except (SafetensorError, KeyError, TypeError, RuntimeError) as error:  # unknown dtypes, endless shapes
        raise ValueError(error) from error
    return TensorFile(tensors, header.get("__metadata__") or {}, infinite)


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
    """SHA-256 of metadata and tensors, hexadecimal; the entry for itself does not count."""
    texts = {name: text for name, text in metadata.items() if name != _CHECKSUM}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
