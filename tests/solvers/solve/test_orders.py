"""Observed orders of the finite volumes: smaller sizes by default, the documented ones marked slow."""

import pytest

from experiments.benchmarks.orders import OrderCase, cases, observed_orders, run
from tests.documents import DOCS

CASES = cases()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_orders_on_small_grids(case: OrderCase):
    """Mean order over the quick sizes; a tenth of slack, since these are not yet asymptotic."""
    orders = observed_orders([case.error(size) for size in case.quick_sizes])
    assert sum(orders) / len(orders) >= case.required - 0.1, orders


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_orders_on_the_documented_grids(case: OrderCase):
    errors = [case.error(size) for size in case.sizes]
    orders = observed_orders(errors)
    assert sum(orders) / len(orders) >= case.required, orders
    page = (DOCS / "solver_orders.md").read_text(encoding="utf-8")
    (row,) = (line.split(" | ") for line in page.splitlines() if line.startswith(f"| {case.name} |"))
    assert row[1] == ", ".join(map(str, case.sizes))
    assert errors == pytest.approx([float(error) for error in row[2].split(", ")], rel=0.1), "the page is stale"


def test_benchmark_reports_every_case(monkeypatch):
    monkeypatch.setattr("experiments.benchmarks.orders.cases", lambda: [OrderCase("h²", 2.0, lambda n: 1.0 / n**2)])
    report = run()
    assert report["benchmark"] == "orders"
    assert report["cases"][0]["orders"] == "2.00, 2.00, 2.00"
