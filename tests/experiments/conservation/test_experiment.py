"""A conservation experiment from options to tables and figures, of the library and a user's, in small sizes."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from experiments.conservation import ConservationExperiment, NetworkPlan
from experiments.conservation.cases import Sizes
from experiments.conservation.figures import draw_case
from experiments.conservation.methods import methods
from experiments.driver import Report, run, train_all
from experiments.errors import InvalidArgumentError
from experiments.experiment import RunContext, RunOptions
from experiments.records.storage import read_arrays
from probconserv import ANP, truncate
from probconserv.surrogates.gp import GPConfig
from solvers.problems.conservation import ADVECTION, DIFFUSION, POROUS_MEDIUM, STEFAN
from tests.experiments.conservation.test_scoring import RIVALS
from tests.experiments.conservation.tiny import TINY, case, tiny

pytestmark = pytest.mark.long

MAIN = ("anp", "softc-anp", "hardc-anp", "probconserv-anp", "search", "total-inverted")
UNTRAINED = ["truth", "gp", "hardc-gp", "probconserv-gp", *RIVALS]
FIGURES = {"profile", "variants", "gp", "local", "mass", "scores", "context", "calibration", "front"}


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Few draws where many take long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("experiments.conservation.methods.truncate", partial(truncate, draws=20))
        yield


@pytest.fixture(scope="module")
def stefan(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A run of the Stefan problem, the one with most methods."""
    return run(tiny("stefan").table, RunOptions(out=tmp_path_factory.mktemp("stefan"), cases=("u=0.5",)))


def score(report: Report, name: str) -> pd.Series:
    """Means of a score by case and method, ours."""
    records = report.records[(report.records["score"] == name) & report.records["seed"].notna()]
    return records.set_index(["case", "method"])["mean"]


def test_a_run_scores_every_method_and_draws_every_figure(stefan: Report) -> None:
    experiment, error = tiny("stefan").table, score(stefan, "CE")["u=0.5"]
    cases = experiment.cases(RunContext(options=RunOptions()))
    chosen = next(case for case in cases if case.key == "u=0.5")
    assert error.index.tolist() == [method.key for method in experiment.methods(chosen)]
    met = error.index.str.startswith(("hardc", "probconserv")) & ~error.index.str.contains("quadrature")
    assert error[met].max() < 1e-12
    assert error[["gp", "anp", "softc-anp", "ensemble", "anp-closed-form", "anp-displaced", "anp-cells"]].min() > 1e-6
    assert 0 < error["truth"] < 0.05
    drawn = {file.stem.removesuffix("-u=0.5") for file in stefan.files if "u=0.5" in file.name}
    assert drawn == FIGURES
    assert {file.name for file in stefan.files} >= {"table.md", "table.csv"}
    assert {record.method for record in experiment.published(chosen)} == {"anp", "hardc-anp", "probconserv-anp"}
    assert tuple(experiment.headline_of(chosen, stefan.records)[0]) == MAIN


def test_methods_follow_from_the_problem_and_its_data() -> None:
    keys = {
        problem.name: {method.key for method in methods(problem, data, 4)}
        for problem, data in ((STEFAN, "solver"), (POROUS_MEDIUM, "exact"), (DIFFUSION, "exact"))
    }
    outside = {"anp-displaced", *(f"probconserv-anp-{name}" for name in ("displaced", "tempered", "noisy-context"))}
    inequalities = {f"probconserv-anp-{name}" for name in ("non-negative", "truncated", "monotone")}
    closed = {f"{method}-{key}" for method in ("anp", "probconserv-anp") for key in ("closed-form", "authors")}
    assert keys["stefan"] - keys["porous_medium"] == outside | closed | {"probconserv-anp-context-calibrated"}
    assert keys["porous_medium"] - keys["diffusion"] == inequalities
    lower = replace(STEFAN, bounds=lambda parameter: (torch.tensor(-1.0), torch.tensor(1.0)), monotone=False)  # noqa: ARG005
    assert not inequalities & {method.key for method in methods(lower, "exact", 4)}
    assert [method.key for method in methods(STEFAN, "solver", 0)] == UNTRAINED


def test_a_problem_of_a_user_is_trained_and_scored_without_a_registry(tmp_path: Path) -> None:
    problem = replace(ADVECTION, name="rigid", symbol="β", test_parameters=(2.0,))
    experiment = ConservationExperiment(
        problem=problem,
        gp=GPConfig(steps=3),
        networks=NetworkPlan(steps=2, members=2),
        sizes={"smoke": TINY},
        version=3,
    )
    error = score(run(experiment.table, RunOptions(out=tmp_path, methods=("gp", "probconserv-gp", "softc-anp"))), "CE")
    assert error["beta=2", "probconserv-gp"] < 1e-12 < 1e-6 < error["beta=2", "gp"]
    assert {path.parent.name.rpartition("-")[0] for path in tmp_path.rglob("weights.safetensors")} == {"anp", "softc"}
    without = score(run(replace(experiment, networks=None).table, RunOptions(out=tmp_path)), "CE")
    assert without["beta=2"].index.tolist() == UNTRAINED


def test_a_training_follows_from_its_config_seed_and_data_version(tmp_path: Path) -> None:
    context = RunContext(options=RunOptions(out=tmp_path))
    experiment = tiny("stefan", version=1)
    first = experiment.training("softc", 0, "exact", context)
    others = [experiment.training("softc", *how, context) for how in ((1, "exact"), (0, "solver"))]
    others.append(tiny("stefan", version=2).training("softc", 0, "exact", context))
    assert len({training.hash for training in (first, *others)}) == 4
    assert (first.release, others[0].release) == ("stefan-softc.safetensors", None)
    (soft,) = train_all(experiment.table, [first], context)
    (plain,) = tmp_path.rglob("anp-*/weights.safetensors")
    start, end = ANP.load(plain).state_dict(), ANP.load(soft).state_dict()
    # Two steps of at most 2e-4 each: near the network it started from, and no copy of it.
    assert 0 < max(float((end[name] - start[name]).abs().max()) for name in start) < 1e-2


def test_the_seed_decides_the_test_functions(tmp_path: Path, stefan: Report) -> None:
    options = RunOptions(out=tmp_path, seed=1, methods=("gp",), cases=("u=0.5",))
    assert score(run(tiny("stefan").table, options), "MSE")["u=0.5", "gp"] != score(stefan, "MSE")["u=0.5", "gp"]


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ({"functions": 1}, "functions must be at least 2, got 1"),
        ({"points": 40}, "points must be 1 more than a multiple of 20, got 40"),
        ({"functions": 4, "curve_functions": 9}, "curve_functions must not exceed functions = 4, got 9"),
    ],
)
def test_sizes_out_of_range_are_refused(sizes: dict[str, int], text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        Sizes(**sizes)


def test_figures_say_totals_and_zoom_to_what_they_show(stefan: Report) -> None:
    chosen, folder = case(STEFAN, 0.5, sizes=TINY), stefan.folder / "scores"
    rows = methods(STEFAN, "solver", 2)
    stored = [(row, read_arrays(folder / f"u=0.5-{row.key}-0.safetensors")) for row in rows]
    arrays = {method.key: part for method, part in stored}
    figures, law = draw_case(chosen, stored), float(STEFAN.total(STEFAN.test_time, 0.5))
    shown = int(arrays["anp"]["MSE"].argsort()[2])
    assert next(iter(figures)) == "profile", "the figure that stands for the experiment"
    assert f"{law:.4f}" in figures["profile"].get_suptitle()
    panels, points, covered = figures["profile"].axes, arrays["truth"]["points"], []
    for panel, key in zip(panels, ("anp", "probconserv-anp"), strict=True):
        low, high = panel.get_xlim()
        part, here = arrays[key], (low <= points) & (points <= high)
        missed = np.abs(part["mean"] - arrays["truth"]["field"]) / part["standard_deviation"]
        covered.append(f"in all functions its band holds {(missed <= 1.96)[:, here].mean():.0%} here")
    assert [panel.get_title() for panel in panels] == [
        f"ANP: ∫ u dx = {law + arrays['anp']['signed_CE'][shown]:.4f}\n{covered[0]}",
        f"ProbConserv-ANP: ∫ u dx = {law:.4f}\n{covered[1]}",
    ]
    for panel, key in zip(figures["front"].axes, MAIN[:4], strict=False):
        assert panel.get_title().lower() == key
        heights = sum(bar.get_height() for bar in panel.patches)  # type: ignore[attr-defined]
        inside = np.isfinite(arrays[key]["fronts"]).mean()
        assert 0.98 * inside - 0.02 <= heights <= inside + 1e-12
    few = draw_case(chosen, [entry for entry in stored if entry[0].key in ("truth", "gp")])
    assert set(few) == {"context", "calibration", "front", "mass", "scores"}
    assert draw_case(chosen, stored[1:]) == {}
