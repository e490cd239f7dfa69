"""Weights, operators and checkpoints: a damaged or hostile file is refused by name, or gives what was stored."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import boon
from boon import BOON, FNO, FNOConfig
from boon.errors import DataFileError
from probconserv import ANP
from probconserv.surrogates.anp import ANPConfig
from probconserv.training.checkpoint import TrainingState, read_checkpoint, write_checkpoint
from solvers import Dirichlet, Robin
from solvers.tensor_files import decode_tensors, encode_tensors
from tests.fuzz.damage import GROWTH, HOSTILE_TENSORS, damaged, peak_growth, pickles

CONFIG = {"name": "line"}
SIZES = {"width": 4, "heads": 2, "self_layers": 1, "decoder_layers": 1, "latent_width": 2}
FEATURES = {"frequencies": 1, "context_frequencies": 1, "value_frequencies": 1}


@dataclass(frozen=True)
class Kind:
    """A kind of file: how it is written, and what reading it gives in a form that can be compared."""

    write: Callable[[Path], object]
    read: Callable[[Path], Any]


def trainable() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(2, 1)
    return model, torch.optim.AdamW(model.parameters())


def write_training(path: Path) -> None:
    model, optimizer = trainable()
    model(torch.ones(3, 2)).sum().backward()
    optimizer.step()
    write_checkpoint(path, model, optimizer, TrainingState(1, 0.5, [{"loss": 2.0}]), CONFIG)


def read_training(path: Path) -> Any:
    model, optimizer = trainable()
    content = read_checkpoint(path, model, optimizer, CONFIG)
    model(torch.ones(3, 2)).sum().backward()
    optimizer.step()  # what was restored can be trained on
    return content, in_lists(model)


def in_lists(model: nn.Module) -> dict[str, Any]:
    state = {name: torch.view_as_real(t) if t.is_complex() else t for name, t in model.state_dict().items()}
    return {name: tensor.tolist() for name, tensor in state.items()}


def network() -> ANP:
    torch.manual_seed(0)
    return ANP(ANPConfig(low=(0.0,), high=(1.0,), **SIZES, **FEATURES))


def operator() -> BOON:
    torch.manual_seed(0)
    return BOON(FNO(FNOConfig(width=2, modes=(2,), depth=1)), [(Dirichlet(1.0), Robin(1.0, 0.3, 2.0))])


def write_operator(path: Path) -> None:
    boon.save(operator(), path, {"seed": 3})


KINDS = {
    "weights": Kind(
        lambda path: network().save(path, seed=3),
        lambda path: (lambda actual: (actual.config, in_lists(actual)))(ANP.load(path)),
    ),
    "operator": Kind(write_operator, lambda path: (lambda actual: (str(actual), in_lists(actual)))(boon.load(path))),
    "notes": Kind(write_operator, boon.read_notes),
    "checkpoint": Kind(write_training, read_training),
}
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)


@cache
def written(kind: Kind) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        kind.write(Path(folder) / "file")
        return (Path(folder) / "file").read_bytes()


def attempt(kind: Kind, path: Path) -> tuple[Any, Exception | None]:
    """What reading gives, and the named error where it is refused; any other exception is a failure."""
    try:
        return kind.read(path), None
    except DataFileError as error:
        return None, error


def rewritten(content: bytes, /, **changes: str | None) -> bytes:
    """The file with other metadata and the checksum that belongs to them, as an attacker would make it."""
    tensors, metadata = decode_tensors(content)
    del metadata["checksum"]
    return encode_tensors(tensors, {n: t for n, t in (metadata | changes).items() if t is not None})


@every_kind
def test_a_damaged_file_is_refused_or_gives_what_was_stored(kind: Kind, tmp_path: Path) -> None:
    content, path = written(kind), tmp_path / "file"
    path.write_bytes(content)
    stored = kind.read(path)

    @settings(max_examples=60, deadline=None)
    @given(damaged(content))
    def check(other: bytes) -> None:
        path.write_bytes(other)
        actual, error = attempt(kind, path)
        assert error is None or str(path) in str(error)
        assert error is not None or actual == stored

    check()


@pytest.mark.parametrize("bit", range(8))
def test_a_checksum_whose_name_is_damaged_still_protects_the_file(bit: int) -> None:
    content = bytearray(encode_tensors({"a": torch.zeros(3)}, {"kind": "line"}))
    content[content.index(b"checksum") + 3] ^= 1 << bit
    content[-1] ^= 1
    with pytest.raises(ValueError, match=r"checksum|UTF-8|invalid|unknown|control"):
        decode_tensors(bytes(content))


@every_kind
@pytest.mark.parametrize("content", HOSTILE_TENSORS.values(), ids=HOSTILE_TENSORS)
def test_a_hostile_file_is_refused_without_taking_memory(kind: Kind, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    def read() -> None:
        with pytest.raises(DataFileError):
            kind.read(path)

    assert peak_growth(read) < GROWTH


@every_kind
def test_pickles_are_refused_and_not_run(kind: Kind, tmp_path: Path) -> None:
    path, marker = tmp_path / "file", tmp_path / "marker"
    for content in pickles(marker).values():
        path.write_bytes(content)
        with pytest.raises(DataFileError):
            kind.read(path)
    assert not marker.exists()


@every_kind
def test_other_versions_and_kinds_are_refused(kind: Kind, tmp_path: Path) -> None:
    content, path = written(kind), tmp_path / "file"
    others = [written(other) for other in KINDS.values() if other.write is not kind.write]
    for hostile in (rewritten(content, format="0"), rewritten(content, format=None), *others):
        path.write_bytes(hostile)
        with pytest.raises(DataFileError, match=r"format|version|checksum|content|kind|holds"):
            kind.read(path)


@pytest.mark.parametrize(
    ("kind", "entry"),
    [
        ("weights", "config"),
        ("weights", "notes"),
        ("operator", "operator"),
        ("notes", "notes"),
        ("checkpoint", "content"),
    ],
)
@pytest.mark.parametrize("text", [None, "", "{", "[]", "null", "1", '"x"', "NaN", "[" * 100_000, "9" * 5000])
def test_metadata_that_are_no_json_object_are_refused(kind: str, entry: str, text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(rewritten(written(KINDS[kind]), **{entry: text}))
    if (kind, text) == ("notes", None):  # an operator may be stored without notes
        assert KINDS[kind].read(path) == {}
        return
    with pytest.raises(DataFileError):
        KINDS[kind].read(path)


@pytest.mark.parametrize("text", ["3", "null", "{", '"a"', '["b"]', "[3]", '["a"]', "[" * 100_000, '["a", "a"]'])
def test_names_of_complex_tensors_that_do_not_fit_are_refused(text: str) -> None:
    content = safetensors.torch.save({"a": torch.ones(2, 3)}, {"complex128": text})
    with pytest.raises(ValueError):  # noqa: PT011 - of safetensors, json and torch
        decode_tensors(content)


def test_complex_tensors_of_both_precisions_come_back() -> None:
    stored = {"a": (1 + 2j) * torch.ones(2, dtype=torch.complex128), "b": 3j * torch.ones(1)}
    tensors, metadata = decode_tensors(encode_tensors(stored, {"n": "x"}))
    assert tensors["a"].tolist() == [1 + 2j, 1 + 2j]
    assert {name: tensor.dtype for name, tensor in tensors.items()} == {"a": torch.complex128, "b": torch.complex64}
    assert set(metadata) == {"n", "checksum"}


plain_values = [None, True, -3, -1, 0, 1, 2, 5, 0.5, float("nan"), "", "x", "Periodic", "FNO"]
huge_values = [10**9, 10**400, -(2**63), 1e308]
json_values = st.recursive(
    st.sampled_from(plain_values + huge_values),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["class", "value", "a"]), inner),
    max_leaves=5,
)


def with_entry(document: Any, number: int, value: Any) -> Any:
    """A JSON document with the entry number ``place`` (modulo their count, in depth) replaced, or one more put in."""
    slots = list(_entries(document))
    holder, key = slots[number % len(slots)]
    holder[key] = value
    return document


def _entries(document: Any) -> Any:
    for key in list(document) if isinstance(document, dict) else range(len(document)):
        yield document, key
        if isinstance(document[key], dict | list):
            yield from _entries(document[key])


@pytest.mark.parametrize(
    ("kind", "entry"), [("weights", "config"), ("operator", "operator"), ("checkpoint", "content")]
)
def test_any_other_value_in_the_configuration_is_refused_or_builds_the_model(
    kind: str, entry: str, tmp_path: Path
) -> None:
    content, path = written(KINDS[kind]), tmp_path / "file"

    @settings(max_examples=80, deadline=None)
    @given(st.integers(0, 40), json_values)
    def check(number: int, value: Any) -> None:
        document = with_entry(json.loads(decode_tensors(content)[1][entry]), number, value)
        path.write_bytes(rewritten(content, **{entry: json.dumps(document)}))
        _, error = attempt(KINDS[kind], path)
        assert error is None or str(path) in str(error)

    check()


@pytest.mark.parametrize(
    ("kind", "entry", "change"),
    [
        ("weights", "config", {"width": 10**6}),
        ("weights", "config", {"width": 10**400}),
        ("weights", "config", {"width": 1, "heads": 1, "self_layers": 40_000}),
        ("weights", "config", {"width": 1, "heads": 1, "decoder_layers": 10**9}),
        ("weights", "config", {"frequencies": 10**9}),
        ("operator", "operator", {"width": 10**6}),
        ("operator", "operator", {"modes": [10**9]}),
        ("operator", "operator", {"modes": [1] * 100_000}),
        ("operator", "operator", {"width": 1, "modes": [1], "projection": 1, "depth": 90_000}),
        ("operator", "operator", {"projection": 10**12}),
        ("operator", "operator", {"in_channels": 10**12}),
    ],
)
def test_declared_sizes_that_the_file_cannot_hold_take_no_memory(
    kind: str, entry: str, change: dict[str, Any], tmp_path: Path
) -> None:
    """Also where the file has numbers enough for many tiny layers, each of which takes kilobytes to build."""
    _, metadata = decode_tensors(written(KINDS[kind]))
    document = json.loads(metadata[entry])
    config = document if kind == "weights" else document["operator"]["config"]
    config |= change
    del metadata["checksum"]
    path = tmp_path / "file"
    path.write_bytes(encode_tensors({"a": torch.zeros(100_000)}, metadata | {entry: json.dumps(document)}))

    def read() -> None:
        with pytest.raises(DataFileError):
            KINDS[kind].read(path)

    assert peak_growth(read) < GROWTH


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("optimizer.0.exp_avg", None),
        ("optimizer.0.exp_avg", torch.zeros(())),
        ("optimizer.0.exp_avg", torch.zeros(5)),
        ("optimizer.0.step", torch.zeros(2, 1)),
        ("optimizer.0.exp_avg", torch.zeros(1, 2, dtype=torch.complex64)),
        ("optimizer.0.more", torch.zeros(1, 2)),
        ("optimizer.7.step", torch.zeros(())),
        ("optimizer.x.step", torch.zeros(())),
        ("optimizer.step", torch.zeros(())),
        ("model.weight", torch.zeros(3)),
        ("model.weight", None),
    ],
)
def test_checkpoints_whose_tensors_do_not_belong_to_the_model_are_refused(
    name: str, tensor: torch.Tensor | None, tmp_path: Path
) -> None:
    tensors, metadata = decode_tensors(written(KINDS["checkpoint"]))
    del metadata["checksum"], tensors[name if tensor is None else "model.bias"]
    tensors |= {} if tensor is None else {name: tensor, "model.bias": torch.zeros(1)}
    (tmp_path / "file").write_bytes(encode_tensors(tensors, metadata))
    with pytest.raises(DataFileError, match="does not fit this model; delete it"):
        read_training(tmp_path / "file")
