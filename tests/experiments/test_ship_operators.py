"""What is said of the trainings of a run when it ships."""

from dataclasses import replace
from pathlib import Path
from statistics import fmean

import pytest

import boon
from experiments import operator_run
from experiments.errors import DataFileError
from experiments.experiment import RunOptions
from experiments.operator_methods import methods
from experiments.operator_run import run_operators
from experiments.operator_shipping import TrainingSizes, read_results
from experiments.ship_operators import ship
from experiments.train_operator import Place, operator_training
from tests.experiments.operators import one


def test_every_training_of_the_run_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator_run, "draw_case", lambda *_: [])
    monkeypatch.setattr("experiments.shipping.ROOT", tmp_path)
    case = one("burgers_periodic", "single")
    case = replace(case, sizes=replace(case.sizes, seeds=2))
    run_operators("burgers_periodic", (case,), RunOptions(out=tmp_path / "out"))
    shipped = ship("burgers_periodic", (case,), tmp_path / "out")
    assert read_results("burgers_periodic") == shipped
    assert [entry.method for entry in shipped.trainings] == [method.name for method in methods(case)]
    place = Place(experiment="burgers_periodic", out=tmp_path / "out")
    for entry, method in zip(shipped.trainings, methods(case), strict=True):
        files = [place.folder(case, operator_training(case, method, 0, seed)) for seed in (0, 1)]
        notes = [boon.read_notes(file / "weights.safetensors") for file in files]
        seconds = [note["seconds"] for note in notes]
        assert entry.parameter == case.label
        assert entry.seconds[0] == pytest.approx(fmean(seconds))
        assert entry.seconds[1] == pytest.approx(abs(seconds[0] - seconds[1]) / 2)
        assert entry.processors == (notes[0]["environment"]["machine"]["processor"],)
        assert entry.sizes == TrainingSizes(
            samples=6, validation=2, test=3, nodes=17, width=4, modes=3, depth=2, steps=6, batch=4, seeds=2
        )
    lost = files[1] / "weights.safetensors"
    lost.unlink()
    with pytest.raises(
        DataFileError, match=r"weights\.safetensors' is missing: train it again .* run burgers_periodic"
    ):
        ship("burgers_periodic", (case,), tmp_path / "out")
