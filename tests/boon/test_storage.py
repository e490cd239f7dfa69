"""Stored operators give the same fields with the same conditions; what cannot be stored is refused."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from boon import BOON, FNO, ChannelBOON, Elimination, FNOConfig, MixedTransform, Part, Prescription, SmoothExtension
from boon.corrections.without_schur import EliminationWithoutSchur
from boon.errors import DataFileError, InvalidArgumentError, MissingFileError
from boon.normalisation import Normalised
from boon.storage import FORMAT, OLDER, load, read_notes, save
from boon.transforms import NodeFourier
from solvers import Dirichlet, Neumann, Periodic, Robin
from tests.boon.cases import EVERY

SMALL = FNOConfig(width=4, modes=(3, 3), depth=2, padding=(0.2, 0.0), periodic=(False, True), projection=5)
CONDITIONS = [(Robin(1.0, 0.4871, 2.0), Neumann()), (Periodic(), Periodic())]


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("correction", [None, *EVERY])
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


class Foreign(nn.Module):
    """A Module of another library, with a buffer of integers and an entry of its state that is no tensor."""

    def __init__(self, width=3):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv1d(1, width, 3, padding=1), nn.BatchNorm1d(width), nn.Conv1d(width, 1, 1))

    def forward(self, a):
        return self.layers(a)

    def state_dict(self, *arguments, **options):
        state = super().state_dict(*arguments, **options)
        state["_metadata"] = {"width": 3}
        return state


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("double", [False, True])
def test_an_operator_around_a_module_of_another_library(tmp_path, normalised, double):
    torch.manual_seed(3)
    a, u = torch.randn(2, 6, 1, 12).double() if double else torch.randn(2, 6, 1, 12)
    module = Foreign().to(a.dtype)
    inside = Normalised.fit(module, a, u) if normalised else module
    operator = BOON(inside, [(Dirichlet(), Neumann(0.5))], (2.0,), order=3).to(a.dtype)
    operator(a, [(0.1, None)])  # changes the statistics of the batch norm
    save(operator, tmp_path / "x")
    stored = load(tmp_path / "x", Foreign())
    assert (stored.conditions, stored.domain.lengths, stored.order) == (operator.conditions, (2.0,), 3)
    assert torch.equal(stored.eval()(a, [(0.1, None)]), operator.eval()(a, [(0.1, None)]))


@dataclass(frozen=True, kw_only=True)
class OwnCorrection(Prescription):
    pass


PLAIN = {"class": "FNO", "config": {"width": 4, "modes": [3], "depth": 2}}


def described(path, operator, description=PLAIN, version=FORMAT):
    """Writes the weights of an operator with a description of our own."""
    state = {k: torch.view_as_real(v) if v.is_complex() else v for k, v in operator.state_dict().items()}
    metadata = {"format": version, "operator": json.dumps(description)}
    save_file({k: v.contiguous() for k, v in state.items()}, path, metadata)
    return path


def test_a_file_of_version_0_1_has_the_transform_of_its_nodes(tmp_path):
    operator, a = FNO(FNOConfig(width=4, modes=(3,), depth=2, transform=NodeFourier())), torch.randn(2, 1, 20)
    old = load(described(tmp_path / "old", operator, version=OLDER))
    assert torch.equal(old(a), operator(a))
    save(old, tmp_path / "new")
    assert torch.equal(load(tmp_path / "new")(a), operator(a))


def test_a_smooth_extension_of_version_0_1_reads_differences(tmp_path):
    config = replace(FNOConfig(width=4, modes=(3,), depth=2), transform=NodeFourier())
    conditions = [(Neumann(0.1), Neumann(0.2))]
    now, before = (BOON(FNO(config), conditions, correction=SmoothExtension(reach=reach)) for reach in (0.25, 0.0))
    before.load_state_dict(now.state_dict())
    description = {
        "class": "BOON",
        "operator": PLAIN,
        "conditions": [[{"class": "Neumann", "gradient": 0.1, "flux": None}, {"class": "Neumann", "gradient": 0.2}]],
        "lengths": [1.0],
        "correction": {"class": "SmoothExtension", "length": 0.1, "hidden": False},
        "order": 2,
    }
    a, old = torch.randn(2, 1, 30), load(described(tmp_path / "old", before, description, OLDER))
    assert torch.equal(old(a), before(a))
    assert not torch.equal(now(a), before(a))


@pytest.mark.parametrize(
    ("correction", "stored"),
    [
        (EliminationWithoutSchur(), {"class": "Elimination", "block": False, "hidden": True}),
        (MixedTransform(length=0.05), {"class": "MixedTransform", "share": 0.5, "length": 0.05}),
        (SmoothExtension(), {"class": "SmoothExtension", "length": 0.01, "hidden": False, "reach": 0.25}),
    ],
)
def test_files_of_older_versions_have_the_corrections_that_they_name(tmp_path, correction, stored):
    conditions = [(Dirichlet(0.1), Neumann(0.2))]
    before = BOON(FNO(FNOConfig(width=4, modes=(3,), depth=2)), conditions, correction=correction)
    sides = [[{"class": "Dirichlet", "value": 0.1}, {"class": "Neumann", "gradient": 0.2, "flux": None}]]
    rest = {"conditions": sides, "lengths": [1.0], "correction": stored, "order": 2}
    plain = {"class": "FNO", "config": PLAIN["config"] | {"transform": {"class": "DomainFourier"}}}
    description = {"class": "BOON", "operator": plain, **rest}
    a, old = torch.randn(2, 1, 30), load(described(tmp_path / "old", before, description))
    assert old.correction == correction
    assert torch.equal(old(a), before(a))


def test_elimination_is_stored_and_its_form_in_blocks_is_left_to_version_0_2(tmp_path):
    operator = BOON(FNO(FNOConfig(width=4, modes=(3,), depth=2)), [(Dirichlet(0.1), Neumann(0.2))], None, Elimination())
    save(operator, tmp_path / "new")
    assert load(tmp_path / "new").correction == Elimination()
    with safe_open(tmp_path / "new", "pt") as file:
        description = json.loads(file.metadata()["operator"])
    description["correction"] = {"class": "Elimination", "block": True, "hidden": True}
    with pytest.raises(DataFileError, match=r"has no .*'block': True.*version 0\.2 may read it"):
        load(described(tmp_path / "old", operator, description))


def test_notes_are_kept(tmp_path):
    arrays = {"loss": np.float32(1), "steps": np.arange(2), "last": torch.tensor(0.5), "all": torch.ones(1, 2)}
    save(FNO(SMALL), tmp_path / "with", {"seed": 3, "history": [{"loss": 0.5}, arrays]})
    save(FNO(SMALL), tmp_path / "without")
    in_lists = {"loss": 1.0, "steps": [0, 1], "last": 0.5, "all": [[1.0, 1.0]]}
    assert read_notes(tmp_path / "with") == {"seed": 3, "history": [{"loss": 0.5}, in_lists]}
    assert read_notes(tmp_path / "without") == {}
    load(tmp_path / "with")
    save_file({}, tmp_path / "foreign")
    with pytest.raises(DataFileError, match="holds no operator of format boon-2"):
        read_notes(tmp_path / "foreign")
    with pytest.raises(MissingFileError, match="There is no file of an operator"):
        read_notes(tmp_path / "missing")


ARRAYS = FNOConfig(
    width=np.int64(4),
    modes=np.array([3, 3]),
    depth=torch.tensor(1),
    padding=np.array([0.2, 0.1], dtype=np.float32),
    periodic=np.array([False, True]),
    coordinates=np.True_,
    channel_mlp=np.float32(0.5),
    projection=np.int32(2),
)
WHERES = [(np.float32(0), np.float32(0.3)), tuple(torch.tensor([0.0, 0.3]))]


@pytest.mark.parametrize("where", WHERES, ids=["numpy", "torch"])
def test_numbers_of_arrays_are_stored(tmp_path, where):
    conditions = [(Part(Dirichlet(np.float32(0.3)), where=where), Neumann(np.int64(1))), None]
    for correction in (MixedTransform(share=np.float32(0.3)), SmoothExtension(length=np.float64(0.2), hidden=np.True_)):
        operator = BOON(FNO(ARRAYS), conditions, np.array([2.0, 1.0]), correction, order=np.int64(3))
        save(operator, tmp_path / "x")
        loaded, a = load(tmp_path / "x"), torch.randn(2, 1, 12, 11)
        assert torch.equal(loaded(a), operator(a))
        assert (loaded.operator.config, loaded.correction) == (ARRAYS, correction)
    # 5·0.1 is 0.5 in float32 and more in float64
    assert type(MixedTransform(share=np.float32(0.1)).share) is float


@pytest.mark.parametrize("notes", [{"a": object()}, {"a": 1j}, {"a": {(1, 2): 3}}])
def test_notes_that_json_does_not_know(tmp_path, notes):
    with pytest.raises(InvalidArgumentError, match=r"notes takes what JSON knows: .*; convert the others"):
        save(FNO(SMALL), tmp_path / "x", notes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", [FNO(FNOConfig(width=4, modes=(3,), depth=1, out_channels=2)), None])
def test_conditions_of_one_side_and_of_every_channel_are_stored(tmp_path, module):
    theirs = nn.Conv1d(1, 2, 3, padding=1)
    conditions = [[(Dirichlet(0.3), None)], [(None, Robin(1.0, 0.2, 0.5))]]
    operator = ChannelBOON(module or theirs, conditions, (2.0,), order=3)
    save(operator, tmp_path / "x")
    loaded = load(tmp_path / "x", None if module else nn.Conv1d(1, 2, 3, padding=1))
    a = torch.randn(2, 1, 12)
    assert torch.equal(loaded(a), operator(a))
    assert [channel.conditions for channel in loaded.channels] == [((Dirichlet(0.3), None),), (conditions[1][0],)]


class Residual(FNO):
    def forward(self, a, layers=None):
        return a + super().forward(a, layers)


def test_a_subclass_is_a_module_of_the_user(tmp_path):
    config = FNOConfig(width=4, modes=(3,), depth=2)
    operator, path, a = (
        BOON(Residual(config), [(Dirichlet(0.0), None)]),
        tmp_path / "x.safetensors",
        torch.randn(2, 1, 9),
    )
    save(operator, path)
    with pytest.raises(InvalidArgumentError, match="Residual; build one like it"):
        load(path)
    assert torch.equal(load(path, Residual(config))(a), operator(a))


def test_conditions_inside_another_operator_are_not_written(tmp_path):
    inner = BOON(FNO(FNOConfig(width=4, modes=(3,), depth=2)), [(Dirichlet(0.0), None)])
    a = torch.randn(4, 1, 9)
    for operator in (Normalised.fit(inner, a, a), BOON(inner, [(None, Dirichlet(0.0))], correction=Prescription())):
        with pytest.raises(InvalidArgumentError, match="conditions come last"):
            save(operator, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_invalid_arguments_raise_with_reason(tmp_path):
    save(BOON(Foreign(), [(Dirichlet(), Dirichlet())]), tmp_path / "theirs")
    with pytest.raises(InvalidArgumentError, match=r"around .*\.Foreign; build one like it and call load\(path, m"):
        load(tmp_path / "theirs")
    with pytest.raises(DataFileError, match="do not fit the Module that was given"):
        load(tmp_path / "theirs", Foreign(width=4))
    save(FNO(SMALL), tmp_path / "ours")
    with pytest.raises(InvalidArgumentError, match="operator of this package, got a module Foreign as well"):
        load(tmp_path / "ours", Foreign())
    with pytest.raises(InvalidArgumentError, match=r"OwnCorrection.* cannot be written to a file"):
        save(BOON(FNO(FNOConfig()), [(Dirichlet(), Dirichlet())], correction=OwnCorrection()), tmp_path / "x")
    with pytest.raises(MissingFileError, match=r"There is no file of an operator .*nothing there'; check the path"):
        load(tmp_path / "nothing there")
    path = described(tmp_path / "x", FNO(FNOConfig(width=5, modes=(3,), depth=2)))
    with pytest.raises(DataFileError, match="do not fit its configuration"):
        load(path)
    description = {"class": "FNO", "config": {"width": 4, "modes": [3], "transform": {"class": "Periodic"}}}
    with pytest.raises(DataFileError, match="is not a transform"):
        load(described(path, nn.Identity(), description))
    with pytest.raises(DataFileError, match=r"absent.*cannot be written \(No such file .*choose another folder"):
        save(FNO(SMALL), tmp_path / "absent" / "x")
    module = nn.Linear(2, 2)
    module.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
    with pytest.raises(InvalidArgumentError, match="'mask' holds NaN or infinity"):
        save(module, tmp_path / "x.safetensors")
    network = nn.Conv1d(1, 1, 3, padding=1)
    save(BOON(network, conditions=[(Dirichlet(0.0), Dirichlet(0.0))]), tmp_path / "x")
    for other in (nn.Conv1d(1, 1, 5, padding=2), BOON(network, conditions=[(Dirichlet(0.0), Dirichlet(0.0))])):
        with pytest.raises(DataFileError, match="do not fit the Module that was given; give the network inside"):
            load(tmp_path / "x", other)
