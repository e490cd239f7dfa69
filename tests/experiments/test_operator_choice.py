"""The choice of a default: by validation and nothing else."""

import math
from pathlib import Path

import pytest
from torch import Tensor

from experiments.boundary_data import BoundaryDataConfig
from experiments.errors import UnknownNameError
from experiments.operator_choice import Choice, choose, rank, wins
from experiments.operator_config import OperatorCase
from experiments.operator_data import Fields
from experiments.operator_methods import ConditionedOperator, candidates
from experiments.train_operator import Place
from tests.experiments.operators import one


def test_the_lowest_mean_over_seeds_comes_first() -> None:
    assert rank({"a": [0.3, 0.3], "b": [0.1, 0.4], "c": [0.5, 0.2]}) == ["b", "a", "c"]


def test_wins_count_corrections_whatever_they_are_told() -> None:
    choices = [
        Choice(case="1", scores={"x": [0.2], "y, channels": [0.1]}),
        Choice(case="2", scores={"x": [0.2], "y": [0.1]}),
        Choice(case="3", scores={"x": [0.1], "y": [0.2]}),
    ]
    assert wins(choices) == {"y": 2, "x": 1}
    assert wins([Choice(case="4", scores={"x": [math.inf], "y": [math.inf]})]) == {}


def test_no_test_sample_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: OperatorCase, seed: int) -> BoundaryDataConfig:
        raise AssertionError(f"test samples of {self.name}, seed {seed}")

    monkeypatch.setattr(OperatorCase, "test_data", refuse)
    case = one("burgers_periodic", "single")
    place = Place(experiment="burgers_periodic", out=tmp_path, progress=False)
    (choice,) = choose([case], place)
    assert set(choice.ranking) == {method.name for method in candidates(case)}
    assert all(len(scores) == 1 for scores in choice.scores.values())
    assert len(list((tmp_path / "data").glob("*.h5"))) == 1


def test_some_candidates_on_several_seeds(tmp_path: Path) -> None:
    place = Place(experiment="stokes", out=tmp_path, progress=False)
    (choice,) = choose([one("stokes", "single-0.02")], place, seeds=2, only=["prescription", "smooth extension"])
    assert set(choice.scores) == {"prescription", "smooth extension"}
    assert all(len(set(scores)) == 2 for scores in choice.scores.values())


def test_a_candidate_whose_training_diverges_ranks_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = ConditionedOperator.loss

    def loss(self: ConditionedOperator, fields: Fields) -> Tensor:
        return original(self, fields) * (math.nan if self.method.name == "prescription" else 1.0)

    monkeypatch.setattr(ConditionedOperator, "loss", loss)
    place = Place(experiment="stokes", out=tmp_path, progress=False)
    (choice,) = choose([one("stokes", "single-0.02")], place, only=["prescription", "smooth extension"])
    assert choice.ranking == ["smooth extension", "prescription"]
    assert choice.as_json()["validation"]["prescription"] == [None]
    assert Choice.from_json(choice.as_json()) == choice


def test_unknown_candidates_are_named(tmp_path: Path) -> None:
    place = Place(experiment="stokes", out=tmp_path)
    with pytest.raises(UnknownNameError, match=r"There is no candidate 'magic'. Known: prescription; "):
        choose([one("stokes", "single-0.02")], place, only=["magic"])
    assert not list(tmp_path.iterdir())
