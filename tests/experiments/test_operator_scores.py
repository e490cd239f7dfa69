"""Scores of operators on test samples."""

import numpy as np
import torch

from boon import relative_l2
from experiments.operator_data import load_fields
from experiments.operator_methods import methods
from experiments.operator_scores import over_time, score, step_costs, truth
from experiments.train_operator import Place, trained_operator
from tests.experiments.operators import one


def test_errors_over_time_make_up_that_of_the_whole_field() -> None:
    u, true = torch.randn(2, 4, 5, 7, 3, dtype=torch.float64)
    errors = over_time(u, true)
    assert errors.shape == (4, 5)
    whole = errors.square().mean(dim=1).sqrt().mean()
    assert torch.allclose(whole, relative_l2(u, true), rtol=1e-13, atol=0)


def test_errors_over_time_are_defined_where_the_truth_vanishes() -> None:
    true = torch.ones(1, 2, 3)
    true[:, 1] = 0.0
    errors = over_time(true + 0.5, true)
    assert torch.allclose(errors, torch.full((1, 2), 0.5 * 2**0.5, dtype=torch.float64))


def test_scores_are_those_of_the_stored_operator(tmp_path) -> None:
    for case in (one("cavity", "multi"), one("cavity", "multi", time_modes=2)):
        place = Place(experiment="cavity", out=tmp_path, progress=False)
        method = methods(case)[-1]
        path = trained_operator(case, method, place, 0)
        test = load_fields(case, case.test_data(0), place.data)
        found = score(path, method, case, test)
        assert found["relative_l2"].shape == (3,)
        assert found["over_time"].shape == (3, 3)
        assert np.allclose(np.sqrt((found["over_time"] ** 2).mean(axis=1)), found["relative_l2"], rtol=1e-6)  # float32
        true = truth(case, test)
        assert true["input"].shape == (1, 9, 9)
        assert true["shown"].shape == found["shown"].shape == (1, 3, 9, 9)
        assert np.array_equal(true["shown"][:, :, 0], found["shown"][:, :, 0])
        assert not np.array_equal(true["shown"], found["shown"])
        assert found["boundary"] == true["boundary"] == 0.0


def test_true_gradients_differ_from_one_sided_differences_by_their_truncation_error(tmp_path) -> None:
    case = one("heat_neumann", "single")
    test = load_fields(case, case.test_data(0), tmp_path)
    assert 0.0 < truth(case, test)["boundary"] < 1.0


def test_costs_leave_the_generators_alone(tmp_path) -> None:
    case = one("stokes", "single-0.02")
    test = load_fields(case, case.test_data(0), tmp_path)
    state = torch.get_rng_state()
    seconds = step_costs(case, methods(case)[:2], test)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(value > 0 for value in seconds.values())
    assert list(seconds) == [method.name for method in methods(case)[:2]]
