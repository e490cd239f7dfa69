"""Files of all packages: written completely or not at all, and tensors and texts in one safetensors file.

The latter have a checksum; it is the format of weights and checkpoints.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from solvers.errors import InvalidArgumentError, MissingFileError

_READABLE = 0o644  # temporary files are readable for their owner only
_CHECKSUM = "checksum"
_COMPLEX = "complex128"
"""Metadata that names tensors of this dtype, which the format lacks: their real and imaginary parts are stored."""


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old content or the new one, never a part; see ``replacing``."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def existing(path: str | Path, what: str = "file") -> Path:
    """The path of a file that is there.

    Raises:
        MissingFileError: If it is not.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingFileError(f"There is no {what} '{path}'; check the path.")
    return path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file to write, which takes the place of a file at the end; after an error the file stays as it was.

    Args:
        path: The file; its folder must exist.

    Raises:
        OSError: If the folder cannot be written.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(_READABLE)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
        if _CHECKSUM not in self.metadata and any(map(_like_checksum, self.metadata.items())):
            return "the name of its checksum is damaged"
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
    entries = {**metadata, _CHECKSUM: _checksum(stored, metadata)}
    wide = [name for name, tensor in stored.items() if tensor.dtype == torch.complex128]
    if wide:
        entries[_COMPLEX] = json.dumps(wide)
    return save(stored | {name: torch.view_as_real(stored[name]) for name in wide}, entries)


def encode_notes(notes: Mapping[str, Any]) -> str:
    """Notes as JSON; arrays, tensors and NumPy's numbers become numbers or lists of numbers.

    Raises:
        InvalidArgumentError: If they contain what JSON does not know.
    """

    def of_array(value: Any) -> Any:
        if isinstance(value, np.ndarray | np.generic | Tensor):
            return value.tolist()
        raise TypeError(f"got {type(value).__name__}")

    try:
        return json.dumps(dict(notes), default=of_array)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(
            f"notes takes what JSON knows: numbers, texts, lists, and dicts whose keys are texts ({error}); convert "
            "the others, for instance with str()."
        ) from error


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
        metadata = header.get("__metadata__") or {}
        tensors |= {name: torch.view_as_complex(tensors[name]) for name in json.loads(metadata.pop(_COMPLEX, "[]"))}
        infinite = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor.view(-1)).all())]
    except (SafetensorError, LookupError, TypeError, RuntimeError) as error:  # unknown dtypes, endless shapes
        raise ValueError(error) from error
    return TensorFile(tensors, metadata, infinite)


def decode_tensors(content: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors on the CPU and metadata of a file by ``encode_tensors``, checked; it may lack the checksum.

    Raises:
        ValueError: If it is not a safetensors file, a name occurs twice, an entry is not finite, or the checksum does
            not match the content.
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


def _like_checksum(entry: tuple[str, str]) -> bool:
    name, text = entry
    return len(name) == len(_CHECKSUM) and len(text) == hashlib.sha256().digest_size * 2


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of metadata and tensors, hexadecimal, without the entry of the checksum."""
    texts = {name: text for name, text in metadata.items() if name != _CHECKSUM}
    digest = hashlib.sha256(json.dumps(texts, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
