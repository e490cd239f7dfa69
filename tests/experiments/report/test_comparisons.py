"""The rule of README's tables on invented records, and what it says of the released ones."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from experiments.records.paired import EQUAL
from experiments.records.record import TRUTH
from experiments.records.release import released_names
from experiments.report import comparisons
from experiments.report.comparisons import UNDECIDED, compared
from experiments.report.families import FAMILIES, Family
from experiments.report.tables import results_of

FAMILY = Family(label="", ours="law-net", without=("told-net", "net"), constrained=r"law-.*")
RNG = np.random.default_rng(1)


def errors(**means: tuple[float, int]) -> pd.DataFrame:
    """Errors of methods, each of a mean and a number of seeds, on ten functions that are hard alike."""
    functions = RNG.uniform(-0.1, 0.1, size=10)
    columns = {}
    for key, (mean, seeds) in means.items():
        index = pd.MultiIndex.from_product([range(seeds), range(10)], names=["seed", "function"])
        values = mean + 0.01 * np.arange(seeds)[:, None] + functions - functions.mean()
        columns[key.replace("_", "-")] = pd.Series(values.ravel(), index)
    return pd.DataFrame(columns)


def test_the_strongest_rival_is_the_best_of_all_that_do_not_impose_the_constraint() -> None:
    scores = errors(truth=(0.0, 1), law_net=(1.0, 1), law_tree=(0.5, 1), net=(2.0, 1), told_net=(1.8, 1), tree=(1.2, 1))
    found = compared(FAMILY, scores, scores.mean())
    assert found.rival.key == "tree", "the constraint on another base is ours too, and the truth is no method"
    assert found.rival.ratio == pytest.approx(1.2, rel=1e-12)
    assert found.without.key == "told-net", "the base that is told the same comes before the one that is not"
    assert found.apart.mean == pytest.approx(-0.2, rel=1e-12)
    assert found.apart.error < 1e-12, "what makes functions hard for both is no error"


def test_without_a_base_that_is_told_the_same_it_is_the_one_that_is_not() -> None:
    scores = errors(law_net=(1.0, 1), net=(2.0, 1), tree=(3.0, 1))
    assert compared(FAMILY, scores, scores.mean()).without.key == "net"
    assert compared(FAMILY, scores, scores.mean()).rival.key == "net", "the base alone is a rival like any other"


def test_a_method_that_chooses_its_base_is_compared_with_the_best_of_them() -> None:
    scores = errors(law_net=(1.0, 1), told_net=(2.0, 1), net=(1.5, 1))
    assert compared(replace(FAMILY, chooses=True), scores, scores.mean()).without.key == "net"
    assert compared(FAMILY, scores, scores.mean()).without.key == "told-net"


def test_methods_are_compared_over_the_seeds_that_both_have() -> None:
    scores = errors(law_net=(1.0, 3), net=(1.0, 1), tree=(1.005, 3))  # over all seeds the net looks better than ours
    found = compared(FAMILY, scores, scores.mean())
    assert scores.mean()["net"] < scores.mean()["law-net"]
    assert found.rival.ratio == pytest.approx(1.0, rel=1e-12)
    assert found.apart.seeds == (0,)


def test_methods_without_errors_per_function_are_compared_by_their_means() -> None:
    scores = errors(law_net=(1.0, 1), net=(2.0, 1))
    means = pd.concat([scores.mean(), pd.Series({"lost": 0.5, "unscored": np.nan})])
    found = compared(FAMILY, scores, means)
    assert found.rival == ("lost", 0.5, pytest.approx(0.5))
    assert found.apart.seeds == ()


def test_other_bases_under_the_constraint_and_rivals_with_the_same_data_are_named() -> None:
    scores = errors(law_net=(1.0, 1), law_tree=(0.8, 1), law_net_alike=(0.5, 1), net=(2.0, 1), tree=(1.2, 1))
    family = replace(FAMILY, others="law-tree", informed="law")
    found = compared(family, scores, scores.mean(), {"law-net": "the law", "net": "the law"})
    assert found.other == ("law-tree", pytest.approx(0.8), pytest.approx(0.8)), "not a variant of ours"
    assert (found.rival.key, found.informed.key) == ("tree", "net")
    assert compared(FAMILY, scores, scores.mean()).other is None
    assert compared(family, scores, scores.mean(), {"law-net": "the law"}).informed is None


def test_a_case_is_undecided_where_half_as_much_again_could_not_be_seen() -> None:
    """The difference has the standard error s/√n of n functions: that of 1.5 × is seen if t(n − 1) s/√n is below .5."""
    functions = np.arange(10)
    index = pd.MultiIndex.from_product([[0], functions], names=["seed", "function"])
    alternating = np.where(functions % 2, 1.0, -1.0) * 3 / np.sqrt(10)  # of deviation 1 with n − 1
    for spread, said in ((0.6, EQUAL), (0.8, UNDECIDED)):  # 2.262 · 0.6 / √10 = 0.43, and 0.57
        scores = pd.DataFrame({"law-net": 1.0, "net": 1.01 + spread * alternating}, index=index)
        found = compared(FAMILY, scores, scores.mean())
        assert found.apart.functions == 10
        assert found.said(EQUAL, rows=1) == said
        assert found.said("wins", rows=1) == "wins"
        assert found.said(EQUAL, rows=20) == UNDECIDED, "more rows, less level for each"


def test_declarations_name_rows_that_were_scored() -> None:
    for name in FAMILIES.keys() & set(released_names()):
        family, methods = FAMILIES[name], results_of(name).description.methods
        assert family.ours in methods, name
        assert re.fullmatch(family.constrained, family.ours), name
        assert any(key in methods for key in family.without), name
        assert not any(re.fullmatch(family.constrained, key) for key in (*family.without, TRUTH)), name


def test_rows_of_readme_have_scores_of_ours_and_of_a_base() -> None:
    for row in (*comparisons.LAWS, *comparisons.OPERATORS, *comparisons.PAPERS):
        assert row.case in comparisons._cases(row.experiment), row
