"""A released network with one changed weight is not reproduced, whatever its file says of itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import safe_open
from torch import Tensor

from experiments import driver, registry
from experiments.driver import Report
from experiments.experiment import RunOptions
from experiments.records.release import ROOT, released_weights
from solvers.tensor_files import encode_tensors

pytestmark = pytest.mark.long


def reproduced(
    monkeypatch: pytest.MonkeyPatch, folder: Path, change: Callable[[Tensor], object] = Tensor.numel
) -> Report:
    """ECI on Stefan's problem by the released flow, whose last layer is changed; the checksum is renewed."""

    def changed(name: str, root: Path = ROOT) -> Path:
        path = released_weights(name, root)
        with safe_open(path, "pt") as file:
            notes = {key: value for key, value in file.metadata().items() if key != "checksum"}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dictionary
        change(tensors["velocity.output.weight"].view(-1))
        (folder / path.name).write_bytes(encode_tensors(tensors, notes))
        return folder / path.name

    monkeypatch.setattr(driver, "released_weights", changed)
    options = RunOptions(cases=("initial",), methods=("eci",), out=folder)
    return driver.reproduce(registry.table("generate_stefan"), options)


def test_a_file_with_the_released_weights_is_reproduced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "NOT" not in reproduced(monkeypatch, tmp_path).verdict


def test_one_weight_of_another_sign_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The largest one."""

    def change(weights: Tensor) -> None:
        weights[weights.abs().argmax()] *= -1

    assert "NOT reproduced" in reproduced(monkeypatch, tmp_path, change).verdict


def test_a_layer_with_one_percent_more_is_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "NOT reproduced" in reproduced(monkeypatch, tmp_path, lambda weights: weights.mul_(1.01)).verdict
