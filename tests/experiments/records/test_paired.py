"""Paired differences: their errors over functions, seeds and blocks, and verdicts of a table."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_rel

from experiments.records.paired import LOSES, UNKNOWN, WINS, Difference, against, paired_difference, verdicts

RNG = np.random.default_rng(0)


def score(values: np.ndarray) -> pd.Series:
    """Values ``(seeds, functions)`` as records have them."""
    index = pd.MultiIndex.from_product([range(len(values)), range(values.shape[1])], names=["seed", "function"])
    return pd.Series(values.ravel(), index)


def test_of_one_seed_it_is_the_paired_t_test() -> None:
    first, second = RNG.normal(size=(2, 1, 40))
    found = paired_difference(score(first), score(second))
    assert found.mean == pytest.approx(float((first - second).mean()), rel=1e-13)
    assert found.error == pytest.approx(float((first - second).std(ddof=1)) / 40**0.5, rel=1e-13)
    assert found.probability == pytest.approx(ttest_rel(first[0], second[0]).pvalue, rel=1e-10)


def test_what_all_functions_share_leaves_no_error() -> None:
    hard = RNG.normal(size=(3, 20))
    found = paired_difference(score(hard + 0.1), score(hard))
    assert found.mean == pytest.approx(0.1, rel=1e-12)
    assert found.error < 1e-14


def test_the_error_has_a_part_of_functions_and_one_of_seeds() -> None:
    of_function, of_seed = RNG.normal(size=50), np.array([0.0, 3.0, 6.0])
    found = paired_difference(score(of_function + of_seed[:, None]), score(np.zeros((3, 50))))
    expected = of_function.var(ddof=1) / 50 + of_seed.var(ddof=1) / 3
    assert found.error**2 == pytest.approx(expected, rel=1e-12)
    assert 2 < found.freedom < 2.1, "three seeds decide"


def test_seeds_that_one_method_lacks_are_left_out() -> None:
    both = RNG.normal(size=(3, 10))
    found = paired_difference(score(both), score(both[:1] + 1.0))
    assert found.seeds == (0,)
    assert found.mean == pytest.approx(-1.0, rel=1e-12)
    nothing = paired_difference(score(both), np.nan * score(both))
    assert math.isnan(nothing.mean)
    assert nothing.seeds == ()


def of(z: float) -> Difference:
    return Difference(z, 1.0, 1e9, (0,), 1)


def test_verdicts_are_corrected_for_the_rows_of_the_table() -> None:
    assert verdicts([of(-2.2)]) == ["wins"]
    assert verdicts([of(2.2)]) == ["loses"]
    assert verdicts([of(-2.2)] * 3) == ["no difference"] * 3, "p = 0.028 each"
    assert verdicts([of(-2.6), of(2.2), of(0.1)]) == ["wins", "no difference", "no difference"]
    assert verdicts([of(-4.0), of(2.3), of(1.0)]) == ["wins", "loses", "no difference"], "Holm, not Bonferroni"
    missing = Difference(math.nan, math.nan, math.nan, (), 0)
    assert verdicts([missing, of(-2.2)]) == ["not paired", "wins"], "what is not paired is not counted"
    assert verdicts([Difference(-0.1, 0.0, math.nan, (0,), 1), Difference(0.0, 0.0, math.nan, (0,), 1)]) == [
        "wins",
        "no difference",
    ]


def test_an_infinite_score_has_no_verdict() -> None:
    """The logarithm of a likelihood of zero, of one function."""
    impossible = score(np.array([[1.0, -np.inf, 2.0]]))
    found = paired_difference(impossible, score(np.ones((1, 3))))
    assert found.mean == -math.inf
    assert verdicts([found]) == [UNKNOWN]


def test_of_likelihoods_the_larger_is_better() -> None:
    large, small = ({"case": "a", "method": name, "seed": 0} for name in ("large", "small"))
    rows = [
        {**key, "function": index, "LL": index + level}
        for key, level in ((large, 2.0), (small, 1.0))
        for index in range(9)
    ]
    assert against("small", pd.DataFrame(rows), "a", "LL") == {"large": WINS}
    assert against("large", pd.DataFrame(rows), "a", "LL") == {"small": LOSES}
