"""Parts on worker processes: the same numbers as in one process, errors included."""

from pathlib import Path

import pytest
import torch

from experiments import boundary_data, workers
from experiments.boundary_data import BoundaryDataConfig, boundary_samples
from experiments.data import BankConfig, solution_bank
from experiments.errors import InvalidArgumentError
from experiments.workers import map_parts
from solvers import PROBLEMS
from solvers.problems.boundary_problems import BOUNDARY_PROBLEMS


def test_data_of_two_processes_are_those_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = BankConfig(members=6, cells=16, keep_every=1, times=10)
    banks = [solution_bank(PROBLEMS["stefan"], config, tmp_path / str(n), group=2, processes=n) for n in (1, 2)]
    assert torch.equal(banks[0].values, banks[1].values)
    monkeypatch.setattr(boundary_data, "_GROUP", 2)
    cavity = BoundaryDataConfig(samples=5, nodes=9, times=2)
    samples = [boundary_samples(BOUNDARY_PROBLEMS["cavity"], cavity, tmp_path / str(n), processes=n) for n in (1, 2)]
    assert torch.equal(samples[0].output, samples[1].output)
    for name in ("1", "2"):
        assert len(list((tmp_path / name).glob("*.h5"))) == 2


def test_workers_start_only_where_the_first_part_shows_that_they_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    def parallel(n_jobs: int) -> object:
        started.append(n_jobs)
        return lambda calls: [function(*arguments) for function, arguments, _ in calls]

    monkeypatch.setattr(workers, "Parallel", parallel)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert map_parts(lambda part: part + 1, [1, 2, 3, 4, 5]) == [2, 3, 4, 5, 6]
    assert not started
    monkeypatch.setattr(workers, "PAYS", 0.0)
    assert map_parts(lambda part: part + 1, [1, 2, 3, 4, 5]) == [2, 3, 4, 5, 6]
    assert started == [3]
    assert map_parts(lambda part: part, []) == []


def test_errors_of_parts_are_raised_again() -> None:
    def fail(part: int) -> int:
        raise ZeroDivisionError(part)

    for processes in (1, 2):
        with pytest.raises(ZeroDivisionError):
            map_parts(fail, [1, 2], processes)
    with pytest.raises(InvalidArgumentError, match="processes must be at least 1, got 0"):
        map_parts(fail, [1, 2], 0)
