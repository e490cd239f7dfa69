"""Damages of a file, and replacements that an attacker would choose."""

import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

GROWTH = 64 * 2**20  # bytes that reading a small hostile file may take at its peak


class Bomb:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """The content cut off anywhere, with bits flipped anywhere, or with a piece written over or pushed in anywhere."""
    offset = st.integers(0, len(content) - 1)

    def flip(positions: list[tuple[int, int]]) -> bytes:
        changed = bytearray(content)
        for index, bit in positions:
            changed[index] ^= 1 << bit
        return bytes(changed)

    def put(index: int, piece: bytes, over: bool) -> bytes:
        return content[:index] + piece + content[index + over * len(piece) :]

    cut = offset.map(lambda length: content[:length])
    flipped = st.lists(st.tuples(offset, st.integers(0, 7)), min_size=1, max_size=4).map(flip)
    return st.one_of(cut, flipped, st.builds(put, offset, st.binary(min_size=1, max_size=12), st.booleans()))


def pickles(marker: Path) -> dict[str, bytes]:
    """Files that create ``marker`` if anything in them is unpickled."""
    bomb = Bomb(marker)
    saved, array = io.BytesIO(), io.BytesIO()
    torch.save({"weights": bomb}, saved)
    np.save(array, np.array([bomb, bomb], dtype=object), allow_pickle=True)
    return {"pickle": pickle.dumps(bomb), "torch": saved.getvalue(), "numpy": array.getvalue()}


def safetensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file as it is written byte by byte; the header may be text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def _entry(dtype: str = "F32", shape: tuple[int, ...] = (1,), size: int = 4) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, size]}


_NUMBER = struct.pack("<f", 1.0)

HOSTILE_TENSORS = {
    "empty": b"",
    "shorter than its length field": b"abc",
    "header beyond the file": safetensors(b"{}", length=10**6),
    "header beyond any file": safetensors(b"{}", length=2**64 - 1),
    "negative header length": safetensors(b"{}", length=2**63),
    "header is a list": safetensors([]),
    "header is null": safetensors(None),
    "header in UTF-16": safetensors("{}".encode("utf-16-le")),
    "header nested without end": safetensors(b'{"a":' + b"[" * 100_000),
    "no metadata": safetensors({"a": _entry()}, _NUMBER),
    "metadata are null": safetensors({"__metadata__": None, "a": _entry()}, _NUMBER),
    "metadata are numbers": safetensors({"__metadata__": {"format": 1}}),
    "tensor twice": safetensors(
        b'{"a":%s,"a":%s}' % (json.dumps(_entry()).encode(), json.dumps(_entry()).encode()), _NUMBER
    ),
    "metadata twice": safetensors(b'{"__metadata__":{"format":"1"},"__metadata__":{"format":"1"}}'),
    "metadata entry twice": safetensors(b'{"__metadata__":{"format":"1","format":"1"}}'),
    "half a character": safetensors(b'{"__metadata__":{"format":"\\ud800"}}'),
    "data missing": safetensors({"a": _entry()}),
    "data left over": safetensors({"a": _entry()}, _NUMBER + b"rest"),
    "huge tensor": safetensors({"a": _entry(shape=(2**40,), size=2**42)}, _NUMBER),
    "overflowing size": safetensors({"a": _entry(shape=(2**33, 2**33))}, _NUMBER),
    "dimension beyond 63 bits": safetensors({"a": _entry(shape=(0, 2**63), size=0)}),
    "many dimensions": safetensors({"a": _entry(shape=(1,) * 100_000)}, _NUMBER),
    "dimension of a thousand digits": safetensors(b'{"a":{"dtype":"F32","shape":[' + b"9" * 1000 + b"]}}", _NUMBER),
    "fractional dimension": safetensors({"a": _entry() | {"shape": [1.0]}}, _NUMBER),
    "unknown number format": safetensors({"a": _entry("F3")}, _NUMBER),
    "four bits": safetensors({"a": _entry("F4", (2,), 1)}, b"\0"),
    "eight bits": safetensors({"a": _entry("F8_E4M3", (4,))}, _NUMBER),
    "complex": safetensors({"a": _entry("C64", (1,), 8)}, 2 * _NUMBER),
    "NaN": safetensors({"a": _entry()}, struct.pack("<f", float("nan"))),
    "infinity": safetensors({"a": _entry()}, struct.pack("<f", float("-inf"))),
}


def peak_growth(action: Callable[[], object]) -> int:
    """How far the process's memory rises above what it holds before, in bytes, while the action runs (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status("VmRSS")
    action()
    return _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))
