"""The page on boundary conditions runs as written, and keeps what it says of its results."""

import sys
import types
from collections.abc import Iterator
from importlib.util import find_spec

import pytest
import torch

from boon import Prescription, boundary_error
from tests import neuralop_stub
from tests.documents import BOUNDARY_PAGE, run_python

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def names() -> Iterator[dict]:
    """Everything that the page's Python defines; without the neuraloperator package a re-statement stands in for it."""
    with pytest.MonkeyPatch.context() as patch:
        if find_spec("neuralop") is None:
            neuralop_stub.install(patch)
            models = types.ModuleType("neuralop.models")
            models.FNO = neuralop_stub.FNO  # type: ignore[attr-defined]
            patch.setitem(sys.modules, "neuralop.models", models)
        yield run_python(BOUNDARY_PAGE)


def test_values_and_gradients_hold(names: dict) -> None:
    a, operator = names["a"], names["operator"]
    u = operator(a)
    assert (u[..., 0] == 0).all()
    h = 1.0 / 64
    gradient = (3 * u[..., -1] - 4 * u[..., -2] + u[..., -3]) / (2 * h)
    assert torch.allclose(gradient, torch.tensor(2.0), atol=1e-6 * 4 / h)


def test_every_sample_has_its_value_and_functions_see_the_lengths(names: dict) -> None:
    assert torch.equal(names["u"][..., 0], names["left"])
    times = torch.linspace(0.0, 3.0, 25, dtype=torch.float64)
    assert torch.equal(names["u_plate"][2, 0, 0], names["oscillating"](times).float())
    assert (names["u_plate"][:, :, -1] == 0).all()


def test_values_win_over_gradients_at_corners(names: dict) -> None:
    u = names["u_square"]
    assert (u[..., 0] == 0).all()
    assert (u[..., -1] == 0).all()
    y = torch.linspace(0.0, 1.0, 33, dtype=torch.float64)
    assert torch.equal(u[1, 0, 0], names["along_wall"](y).float())
    assert boundary_error(u, names["square"].discretise(u)).relative_maximum <= 1e-6
    with pytest.raises(names["IncompatibleCornersError"]):
        names["jump"](torch.randn(2, 1, 33, 33))


def test_every_correction_is_exact(names: dict) -> None:
    assert len(names["corrected"]) == 5
    for correction, u in names["corrected"].items():
        checked = names["BOON"](names["network"], names["walls"], correction=Prescription()).discretise(u)
        assert (u[..., 0] == 1).all(), correction
        assert boundary_error(u, checked).relative_maximum <= 1e-6, correction


def test_prescription_leaves_the_interior_alone(names: dict) -> None:
    inside = slice(1, -1)
    assert torch.equal(names["u_convolutional"][..., inside], names["network"](names["a"])[..., inside])
    assert (names["u_convolutional"][..., [0, -1]] == torch.tensor([0.0, 1.0])).all()


def test_the_neuraloperator_fno_is_corrected(names: dict) -> None:
    assert (names["u_wrapped"][..., [0, -1]] == torch.tensor([0.0, 1.0])).all()


def test_channels_hold_the_boundary_data(names: dict) -> None:
    (first, last), channels = names["values"][0], names["channels"]
    assert channels.shape == (8, 2, 65)
    assert torch.equal(channels, torch.cat([first, last], dim=1)[..., None].expand(8, 2, 65))
    assert torch.equal(names["u_informed"][..., [0, -1]], torch.stack([first, last], dim=-1))


def test_the_error_is_round_off_in_both_precisions(names: dict) -> None:
    assert names["single"].relative_maximum <= 1e-6
    assert names["double"].relative_maximum <= 1e-12


def test_parts_of_a_side_hold_there_alone(names: dict) -> None:
    u, y = names["u_channel"], torch.linspace(0.0, 1.0, 33)
    assert (u[:, :, 0, y < 0.3] == 1).all()
    assert (u[:, :, -1, y > 0.5] == 0).all()
    assert not (u[:, :, -1, y <= 0.5] == 0).any()
    cooled = names["u_cooled"]
    assert boundary_error(cooled, names["cooled"].discretise(cooled)).relative_maximum <= 1e-6


def test_an_exported_operator_keeps_its_walls_under_a_law(names: dict) -> None:
    assert (names["conserved"][:, [0, -1]] == torch.tensor([0.0, 1.0])).all()
    assert torch.allclose(names["total"], torch.tensor(0.5), atol=1e-6)
