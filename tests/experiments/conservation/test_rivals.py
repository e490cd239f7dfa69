"""Rivals without a network: functions of the training range, and the law's total inverted."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from experiments.conservation.cases import Case, Target
from experiments.conservation.data import context_of
from experiments.conservation.experiment import EXPERIMENTS
from experiments.conservation.methods import methods
from experiments.conservation.rivals import NARROW, Inverted, functions_of
from experiments.conservation.scoring import predict, score_method
from experiments.experiment import RunContext, RunOptions

RIVALS = ("search", "probconserv-search", "empirical", "probconserv-empirical", "total-inverted")


def case_of(name: str, folder: Path) -> Case:
    case = EXPERIMENTS[name].cases(RunContext(options=RunOptions(out=folder)))[0]
    return replace(case, data="exact", sizes=replace(case.sizes, functions=2, points=41, samples=20, curve_functions=1))


@pytest.mark.parametrize("name", ["porous_medium", "burgers_shock"])
def test_the_total_alone_gives_the_field_away(name: str, tmp_path: Path) -> None:
    case = case_of(name, tmp_path)
    target = Target(case)
    prediction = predict(Inverted(case), target, context_of(target))
    apart = (prediction.mean - target.truth()).abs()
    assert float(apart.mean()) < 2e-3 * float(target.truth().abs().max())


def test_a_total_that_says_nothing_leaves_all_functions(tmp_path: Path) -> None:
    case = case_of("diffusion", tmp_path)
    target = Target(case)
    prediction = predict(Inverted(case), target, context_of(target))
    k = torch.linspace(1, 5, 4001, dtype=torch.float64)[:, None]
    every = case.problem.solution(case.problem.test_time, target.grid.points, k)
    assert torch.allclose(prediction.mean[0, 0], every.mean(dim=0), atol=1e-3)


def test_a_search_finds_the_function_that_the_context_is_of(tmp_path: Path) -> None:
    case = case_of("diffusion", tmp_path)
    target = Target(case)
    prediction = predict(functions_of(case.problem, NARROW, 0), target, context_of(target))
    assert float((prediction.mean - target.truth()).abs().max()) < 5e-3


@pytest.mark.long
def test_every_table_has_them_and_those_under_the_law_meet_it(tmp_path: Path) -> None:
    case = case_of("diffusion", tmp_path)
    rows = {method.key: method for method in methods(case.problem, case.data, members=0)}
    scored = {key: score_method(case, rows[key], {}) for key in RIVALS}
    assert max(float(scored[key]["CE"].max()) for key in RIVALS[1:4:2]) < 1e-12
