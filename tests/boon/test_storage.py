import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from boon import (
    BOON,
    FNO,
    DomainFourier,
    Elimination,
    FNOConfig,
    InvalidArgumentError,
    MatchedTransform,
    NodeFourier,
    Prescription,
    SmoothExtension,
    StoredOperatorError,
    load,
    read_notes,
    save,
)
from boon.storage import FORMAT, OLDER
from solvers import Dirichlet, Neumann, Periodic, Robin

SMALL = FNOConfig(width=4, modes=(3, 3), depth=2, padding=(0.2, 0.0), periodic=(False, True), projection=5)
CONDITIONS = [(Robin(1.0, 0.4871, 2.0), Neumann()), (Periodic(), Periodic())]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(
    "correction",
    [None, Prescription(hidden=True), Elimination(block=False), SmoothExtension(length=0.3), MatchedTransform()],
)
def test_a_loaded_operator_gives_the_same_fields(tmp_path, correction, double):
    operator = FNO(SMALL) if correction is None else BOON(FNO(SMALL), CONDITIONS, (2.0, 1.0), correction, order=3)
    operator = operator.double() if double else operator
    a = torch.randn(2, 1, 9, 8, dtype=torch.float64 if double else torch.float32)
    options = {} if correction is None else {"boundary": [(None, 0.3), None]}
    save(operator, tmp_path / "operator.safetensors")
    assert torch.equal(load(tmp_path / "operator.safetensors")(a, **options), operator(a, **options))
    assert [file.name for file in tmp_path.iterdir()] == ["operator.safetensors"]


@pytest.mark.parametrize(
    "conditions", [[(Dirichlet(torch.zeros(1)), Dirichlet()), None], [(Dirichlet(lambda t: t), Dirichlet()), None]]
)
def test_values_that_are_no_numbers_cannot_be_stored(tmp_path, conditions):
    operator = BOON(FNO(FNOConfig(width=4, modes=(3, 3))), conditions)
    with pytest.raises(InvalidArgumentError, match="Give functions and tensors at the call"):
        save(operator, tmp_path / "x")


def test_other_modules_cannot_be_stored(tmp_path):
    with pytest.raises(InvalidArgumentError, match="save takes an FNO or a BOON around an FNO, got BOON"):
        save(BOON(torch.nn.Conv1d(1, 1, 3), [(Dirichlet(), Dirichlet())]), tmp_path / "x")


def test_a_file_cut_in_half(tmp_path):
    path = tmp_path / "operator.safetensors"
    save(FNO(SMALL), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(StoredOperatorError, match="cannot be read as an operator"):
        load(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(StoredOperatorError, match=r"nothing there.* cannot be read"):
        load(tmp_path / "nothing there")


def test_a_file_of_another_kind(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "other")
    with pytest.raises(StoredOperatorError, match="holds no operator of format"):
        load(tmp_path / "other")


def test_weights_of_another_configuration(tmp_path):
    description = {"class": "FNO", "config": {"width": 4, "modes": [3], "depth": 2}}
    state = {k: v.contiguous() for k, v in FNO(FNOConfig(width=5, modes=(3,), depth=2)).state_dict().items()}
    state = {k: torch.view_as_real(v) if v.is_complex() else v for k, v in state.items()}
    save_file(state, tmp_path / "x", {"format": FORMAT, "operator": json.dumps(description)})
    with pytest.raises(StoredOperatorError, match="do not fit its configuration"):
        load(tmp_path / "x")


@pytest.mark.parametrize("transform", [NodeFourier(), DomainFourier()])
def test_the_transform_is_stored(tmp_path, transform):
    save(FNO(replace(SMALL, transform=transform)), tmp_path / "x")
    assert load(tmp_path / "x").config.transform == transform


def test_a_file_of_version_0_1_has_the_transform_of_its_nodes(tmp_path):
    config = FNOConfig(width=4, modes=(3,), depth=2)
    operator = FNO(replace(config, transform=NodeFourier()))
    entries = {"width": 4, "modes": [3], "depth": 2}
    state = {k: torch.view_as_real(v) if v.is_complex() else v for k, v in operator.state_dict().items()}
    description = json.dumps({"class": "FNO", "config": entries})
    save_file(
        {k: v.contiguous() for k, v in state.items()}, tmp_path / "old", {"format": OLDER, "operator": description}
    )
    a = torch.randn(2, 1, 20)
    old = load(tmp_path / "old")
    assert torch.equal(old(a), operator(a))
    save(old, tmp_path / "new")
    assert torch.equal(load(tmp_path / "new")(a), operator(a))


def test_a_transform_that_is_none(tmp_path):
    description = {"class": "FNO", "config": {"width": 4, "modes": [3], "transform": {"class": "Periodic"}}}
    save_file({}, tmp_path / "x", {"format": FORMAT, "operator": json.dumps(description)})
    with pytest.raises(StoredOperatorError, match="is no transform"):
        load(tmp_path / "x")


def test_notes_are_kept(tmp_path):
    save(FNO(SMALL), tmp_path / "with", {"seed": 3, "history": [{"loss": 0.5}]})
    save(FNO(SMALL), tmp_path / "without")
    assert read_notes(tmp_path / "with") == {"seed": 3, "history": [{"loss": 0.5}]}
    assert read_notes(tmp_path / "without") == {}
    load(tmp_path / "with")
    save_file({}, tmp_path / "foreign")
    with pytest.raises(StoredOperatorError, match="holds no operator of format boon-2"):
        read_notes(tmp_path / "foreign")
    with pytest.raises(StoredOperatorError, match="cannot be read as an operator"):
        read_notes(tmp_path / "missing")
