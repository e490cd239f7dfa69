"""The benchmark of operators times every correction at every size, and the FNO of neuraloperator if it is there."""

import sys
import types
from dataclasses import replace

import pytest
from torch import nn

from experiments.benchmarks import boon


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = {"1-D": (40,), "1-D + time": (40, 9), "2-D + time": (12, 12, 9)}
    tiny = tuple(
        replace(size, batch=2, shape=shapes[size.name], modes=(3,) * len(size.modes), width=4, rounds=1)
        for size in boon.SIZES
    )
    monkeypatch.setattr(boon, "SIZES", tiny)


def test_every_correction_is_timed_against_the_plain_operator(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "neuralop", None)
    cases = boon.run()["cases"]
    assert len({case["case"] for case in cases}) == 3 * len(boon.CORRECTIONS)
    assert all(case["ratio"] == case["seconds"] / case["baseline_seconds"] > 0 for case in cases)
    assert "neuraloperator is not installed" in capsys.readouterr().err


def test_the_plain_operator_is_timed_against_one_with_as_many_frequencies(monkeypatch: pytest.MonkeyPatch) -> None:
    built = []

    def theirs(n_modes: tuple[int, ...], in_channels: int, out_channels: int, **sizes: int) -> nn.Module:
        built.append((n_modes, sizes))
        return (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(n_modes) - 1](in_channels, out_channels, 1)

    for name in ("neuralop", "neuralop.models"):
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
        module.FNO = theirs  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(boon, "CORRECTIONS", {})
    cases = boon.run()["cases"]
    assert [case["baseline"] for case in cases] == ["FNO of neuraloperator"] * 3
    assert built == [((5,) * axes, {"hidden_channels": 4, "n_layers": 4}) for axes in (1, 2, 3)]
