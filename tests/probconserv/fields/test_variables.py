"""Several variables under laws, bounds and orders where values are missing, against the same without those values."""

import math

import pytest
import torch
from torch.distributions import Normal

from probconserv import LinearConstraint, condition
from probconserv.errors import InvalidArgumentError
from probconserv.fields._variables import SharedLaw, condition_variables
from probconserv.inequalities.inequality import Bounded, LinearInequality

double = torch.float64
PLACES = 12


def fields(names, seed, batch=(3,), missing=0.3):
    """Values around 10, with some missing, others in every entry of the batch."""
    generator = torch.Generator().manual_seed(seed)
    values = {name: 10 + torch.randn(*batch, PLACES, dtype=double, generator=generator) for name in names}
    holes = {name: torch.rand(*batch, PLACES, dtype=double, generator=generator) < missing for name in names}
    return {name: values[name].masked_fill(holes[name], math.nan) for name in names}


def law_of(means, name, total=9.5):
    """The mean of one variable over the places where it is not missing."""
    there = (~means[name].isnan()).double()
    return SharedLaw({name: there / there.sum(dim=-1, keepdim=True)}, torch.full(there.shape[:-1], total, dtype=double))


def conditioned(means, pairs, bounds=None, scale=1.0, std=1.0):
    name = next(iter(means))
    laws = [law_of(means, name, 9.5 * scale)]
    deviations = {each: torch.tensor(std * scale, dtype=double) for each in means}
    return condition_variables(means, deviations, laws, bounds or {}, pairs).values


def without_missing(means, pairs, bounds):
    """One entry ``(n,)`` by the update of the values that are there; ``pairs`` lists all orders that are implied."""
    names, there = list(means), {name: ~part.isnan() for name, part in means.items()}
    place, count = {}, 0
    for name in names:
        place[name] = torch.full((PLACES,), -1)
        place[name][there[name]] = torch.arange(count, count + int(there[name].sum()))
        count += int(there[name].sum())
    rows = []
    for lower, upper, at in pairs:
        row = torch.zeros(count, dtype=double)
        row[place[lower][at]], row[place[upper][at]] = 1.0, -1.0
        rows.append(row)
    total = law_of(means, names[0])
    G = torch.cat([total.rows[name][there[name]] if name in total.rows else torch.zeros(int(there[name].sum())).double()
                   for name in names])  # fmt: skip
    law = LinearConstraint(G[None], total.total[None])
    low, high = (torch.cat([bounds[name][side][there[name]] for name in names]) for side in (0, 1))
    joined = law & Bounded(low, high)
    joined = joined & LinearInequality(torch.stack(rows), torch.zeros(len(rows))) if rows else joined
    values = condition(Normal(torch.cat([means[name][there[name]] for name in names]), 1.0), joined).mode
    parts = values.split([int(there[name].sum()) for name in names])
    return {name: part.masked_scatter(there[name], value) for (name, part), value in zip(means.items(), parts)}  # noqa: B905


def free(names):
    return {
        name: (torch.full((PLACES,), -math.inf).double(), torch.full((PLACES,), math.inf).double()) for name in names
    }


def implied(means, at_most):
    """All orders between two values that are there, of which one follows from those in between."""
    found = []
    for lower in at_most:
        for at in range(PLACES):
            upper = at_most[lower]
            while upper is not None and bool(means[upper][at].isnan()):
                upper = at_most.get(upper)
            if upper is not None and not bool(means[lower][at].isnan()):
                found.append((lower, upper, at))
    return found


ORDERS = {
    "a pair": {"a": "b"},
    "two pairs": {"a": "b", "c": "d"},
    "two below one": {"a": "c", "b": "c"},
    "a chain": {"a": "b", "b": "c"},
    "a long chain, stated backwards": {"c": "d", "b": "c", "a": "b"},
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("same", [True, False], ids=["the same places are missing", "others in every entry"])
def test_missing_values_are_as_if_they_were_not_there(order, same):
    names = sorted({*ORDERS[order], *ORDERS[order].values()})
    means = fields(names, seed=1)
    if same:
        hole = {name: part[:1].isnan() for name, part in means.items()}
        means = {name: part.nan_to_num(10.0).masked_fill(hole[name], math.nan) for name, part in means.items()}
    found = conditioned(means, ORDERS[order])
    for entry in range(3):
        alone = {name: part[entry] for name, part in means.items()}
        expected = without_missing(alone, implied(alone, ORDERS[order]), free(names))
        by_itself = conditioned(alone, ORDERS[order])
        for name in names:
            # values of size 10 that Newton's steps find to 1e-12 of their size, in another order of the rows
            torch.testing.assert_close(found[name][entry], expected[name], rtol=0, atol=1e-10, equal_nan=True)
            torch.testing.assert_close(by_itself[name], expected[name], rtol=0, atol=1e-10, equal_nan=True)


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_unit_of_the_values_has_no_effect(scale):
    means = fields("abc", seed=2)
    found, small = (
        conditioned({name: unit * part for name, part in means.items()}, ORDERS["a chain"], scale=unit)
        for unit in (1.0, scale)
    )
    for name in means:
        torch.testing.assert_close(small[name] / scale, found[name], rtol=0, atol=1e-10, equal_nan=True)


def test_a_missing_value_passes_its_bounds_on():
    """a ≤ b ≤ c ≤ 9.97 bounds a where b and c are missing, and 9.03 ≤ a ≤ b ≤ c bounds c where a and b are."""
    means, order = fields("abc", seed=3, missing=0.5), ORDERS["a chain"]
    lacking = {name: part.isnan() for name, part in means.items()}
    found = conditioned(means, order, bounds={"a": (9.03, None), "c": (None, 9.97)})
    for entry in range(3):
        alone, bounds = {name: part[entry] for name, part in means.items()}, free("abc")
        hole = {name: part[entry] for name, part in lacking.items()}
        bounds["a"][0].fill_(9.03)
        bounds["b"][0].masked_fill_(hole["a"], 9.03)
        bounds["c"][0].masked_fill_(hole["a"] & hole["b"], 9.03)
        bounds["c"][1].fill_(9.97)
        bounds["b"][1].masked_fill_(hole["c"], 9.97)
        bounds["a"][1].masked_fill_(hole["b"] & hole["c"], 9.97)
        expected = without_missing(alone, implied(alone, order), bounds)
        for name in means:
            torch.testing.assert_close(found[name][entry], expected[name], rtol=0, atol=1e-10, equal_nan=True)
    with pytest.raises(InvalidArgumentError, match="bounds leave no field"):
        conditioned(means, order, bounds={"a": (9.9, None), "c": (None, 9.0)})


def test_orders_in_a_circle_are_equations_also_around_a_missing_value():
    means = fields("abc", seed=5)
    found = conditioned(means, {"a": "b", "b": "c", "c": "a"})
    for first, second in (("a", "b"), ("b", "c"), ("c", "a")):
        there = ~(means[first].isnan() | means[second].isnan())
        assert bool(there.any())
        torch.testing.assert_close(found[first][there], found[second][there], rtol=0, atol=1e-10)
    torch.testing.assert_close(conditioned(means, {"a": "a"})["a"], conditioned(means, {})["a"], equal_nan=True)


def test_an_order_whose_values_are_all_missing_says_nothing():
    means = fields("ab", seed=4, missing=0.0)
    means["b"] = torch.full_like(means["b"], math.nan)
    found = conditioned(means, {"a": "b"})
    shift = 9.5 - means["a"].mean(dim=-1, keepdim=True)
    torch.testing.assert_close(found["a"], means["a"] + shift, rtol=1e-12, atol=0)
    assert bool(found["b"].isnan().all())
