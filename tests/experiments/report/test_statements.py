"""Numbers in the prose of the results are those of the released scores."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pandas as pd
import pytest

from experiments.conservation import STUDIES
from experiments.observations.downscaling import BEST, FIXER, METHODS
from experiments.records.release import released_results
from experiments.report.calibration_tables import STUDIED
from tests.documents import DOCS


def outside(low: float, high: float, parameters: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(parameter for parameter in parameters if not low <= parameter <= high)


PROBLEMS = {name: study.base.problem for name, study in STUDIES.items()}
OUTSIDE = {name: outside(*problem.training_range, problem.test_parameters) for name, problem in PROBLEMS.items()}


@cache
def scores(name: str) -> pd.DataFrame:
    """Scores per function or basin of all seeds, by case, method, seed and function."""
    return released_results(name).scores.set_index(["case", "method", "seed", "function"]).sort_index()


def mean(name: str, case: str, method: str, score: str) -> float:
    """The mean of a score over functions and seeds."""
    return float(scores(name).loc[case, method][score].mean())


def paired(name: str, case: str, pair: tuple[str, str], score: str) -> pd.Series:
    """The first method's score less the second's, function by function."""
    first, second = (scores(name).loc[case, method][score] for method in pair)
    return first - second


def with_error(name: str, case: str, pair: tuple[str, str], score: str, digits: int) -> str:
    """A paired difference and its standard error."""
    difference = paired(name, case, pair, score)
    value = f"{difference.mean():+.{digits}f}".replace("-", "−")
    return f"{value} ± {difference.sem():.{digits}f}"


def percent(value: float) -> str:
    return f"{100 * value:.0f} %"


def rollout() -> list[str]:
    name, error = "shallow_water_rollout", "rollout_error"

    def gain(case: str) -> str:
        return percent(1 - mean(name, case, "scale", error) / mean(name, case, "nothing", error))

    def drift(case: str) -> float:
        return float(scores(name).loc[case, "nothing"]["mass_drift"].max())

    against = ("update-by-correction", "scale")
    below = 1 - mean(name, "penalised", against[0], error) / mean(name, "penalised", "scale", error)
    wins = int((paired(name, "penalised", against, error) < 0).sum())
    return [
        f"up to {percent(drift('penalised'))} of its water",
        f"closely fitted one {100 * drift('fitted'):.1f} %",
        f"takes {gain('penalised')} off the mean error of the first and {gain('fitted')} off that of the second",
        f"{percent(below)} below that of scaling "
        f"(paired difference {with_error(name, 'penalised', against, error, 3)}, {wins} of 16 basins)",
        f"equals scaling ({with_error(name, 'fitted', against, error, 4)})",
        f"({with_error(name, 'penalised', ('update-diagonal', 'scale'), error, 3)} and "
        f"{with_error(name, 'penalised', ('update-low-rank', 'scale'), error, 3)})",
    ]


def downscaling() -> list[str]:
    name, case = "downscaling", "factor-4"
    rmse = {method: mean(name, case, method, "RMSE") for method in ("additive", "update-shrunk", "update-low-rank")}
    ridge, both = ("update-shrunk", "ridge"), ("ridge", "ridge-update")
    return [
        f"from {rmse['additive']:.2f} K to {rmse['update-shrunk']:.2f} K",
        f"alone reach {rmse['update-low-rank']:.2f} K",
        f"difference {with_error(name, case, ridge, 'RMSE', 4).lstrip('+')} K",
        f"better by {with_error(name, case, ridge, 'CRPS', 4).lstrip('+')} K",
        f"log-likelihood by {-paired(name, case, ridge, 'LL').mean():.2f}",
        f"gains {with_error(name, case, both, 'RMSE', 4).lstrip('+')} K",
        f"hold {percent(mean(name, case, 'update-shrunk', 'coverage90'))} of the test years, those of the layers "
        f"{percent(mean(name, case, 'additive', 'coverage90'))}",
    ]


def by_method(experiment: str, case: str, score: str) -> pd.DataFrame:
    """A released score of all methods, a row per year or basin."""
    return scores(experiment).loc[case].reset_index().pivot_table(index="function", columns="method", values=score)


def newey_west(values: pd.Series, lags: int = 8) -> float:
    """Standard error of the mean of a series whose neighbours are correlated (Newey and West 1987)."""
    off = values.to_numpy() - values.mean()
    count = len(off)
    lagged = [(1 - lag / (lags + 1)) * (off[lag:] @ off[:-lag]) for lag in range(1, lags + 1)]
    return float(np.sqrt(off @ off + 2 * sum(lagged)) / count)


def years() -> list[str]:
    rmse, crps, ll, held = (by_method("downscaling", "factor-4", s) for s in ("RMSE", "CRPS", "LL", "coverage90"))
    methods = [method.key for method in METHODS if method.black_box]
    off, loss = (score["update-shrunk"] - score["ridge"] for score in (rmse, crps))
    correlation = [rmse[key].autocorr(1) for key in methods]
    kinds = ("RMSE", "CRPS", "LL", "coverage50", "coverage90")
    every = [by_method("downscaling", "factor-4", kind)[key] for kind in kinds for key in methods]
    larger = [newey_west(each) / (each.std() / len(each) ** 0.5) for each in every]
    ends = [100 * held[key].iloc[years].mean() for key in (BEST, FIXER) for years in (slice(20), slice(40, 60))]
    assert newey_west(rmse["ridge"] - rmse["ridge-update"]) == pytest.approx(0.0002, abs=5e-5)
    return [
        f"a correlation of {min(correlation):.2f} to {max(correlation):.2f}",
        f"are {min(larger):.1f} to {max(larger):.1f} times as large",
        f"± {newey_west(off):.4f} K by Newey–West",
        f"0.0005 K (± {newey_west(loss):.4f} K)",
        f"0.04 (± {newey_west(ll['update-shrunk'] - ll['ridge']):.2f})",
        f"is higher by {off.iloc[:20].mean():.4f} K in 2040–59 and by {off.iloc[20:40].mean():.4f} K in 2060–79",
        f"and lower by {-off.iloc[40:].mean():.4f} K in 2080–99",
        f"is higher by {loss.iloc[:30].mean():.4f} K in the first half",
        f"and by {loss.iloc[30:].mean():.4f} K in the second",
        "from {:.1f} % in 2040–59 to {:.1f} % in 2080–99, and from {:.1f} % to {:.1f} %".format(*ends),
    ]


def basins() -> list[str]:
    error, energy = (by_method("shallow_water_rollout", "penalised", s) for s in ("rollout_error", "energy_error"))
    fitted = by_method("shallow_water_rollout", "fitted", "rollout_error")
    changed = by_method("shallow_water_rollout", "penalised", "changed")["shift"]
    off, calmer = (score["update-by-correction"] - score["scale"] for score in (error, energy))
    far = error["nothing"] > 0.5
    assert set(off.nsmallest(4).index) == set(error.index[far])
    gained = 100 * -(off / error["scale"])
    chance = 2 * sum(math.comb(16, wins) for wins in range(11, 17)) / 2**16
    by_scaling = [(case["scale"] / case["nothing"] - 1).median() for case in (error, fitted)]
    helped = [int((case["scale"] < case["nothing"]).sum()) for case in (error, fitted)]
    worse = [error[f"update-{kind}"] - error["scale"] for kind in ("diagonal", "low-rank")]
    assert [f"{each.median():+.3f} {(each > 0).sum()}" for each in worse] == ["+0.001 12"] * 2
    assert changed.mean() / changed.median() == pytest.approx(2, abs=0.25)
    return [
        f"the median basin gains {-100 * by_scaling[0]:.1f} % and {-100 * by_scaling[1]:.1f} %",
        f"Scaling helps in {helped[0]} and {helped[1]} of 16",
        f"in the same four basins, {gained[far].min():.0f} to {gained[far].max():.0f} % in each",
        f"The median difference is −{-off.median():.4f}, or {gained.median():.1f} %, the mean over the other "
        f"twelve −{-off[~far].mean():.4f} ± {off[~far].sem():.4f}, "
        f"and 11 of 16 may be chance (sign test, p = {chance:.2f})",
        f"falls by {-calmer.mean():.2f} in the mean and by {-calmer.median():.2f} in the median",
        "The median is +0.001 for both, and 12 of 16 basins are worse.",
    ]


def out_of_range() -> list[str]:
    def mse(problem: str, parameter: float, method: str) -> float:
        symbol = {"stefan": "u", "porous_medium": "m", "diffusion": "k"}.get(problem, "a")
        return mean(f"{problem}-calibration", f"{symbol}={parameter:g}", method, "MSE")

    fronts = {problem: outside for problem, outside in OUTSIDE.items() if problem != "diffusion"}
    cases = [(problem, parameter) for problem, outside in fronts.items() for parameter in outside]
    better = {
        method: sum(mse(*case, method) < mse(*case, "anp") for case in cases) for method in ("by-law", "probconserv")
    }
    factors = {
        case: [mse(*case, method) / mse(*case, "anp") for method in ("by-law", "probconserv")]
        for case in (("porous_medium", 8), ("burgers_shock", 5.5))
    }
    porous, burgers = factors.values()
    residual = mean("advection-calibration", "a=7", "probconserv", "squared_residual")
    return [
        f"at {better['by-law']} of {len(cases)} parameters outside",
        f"Plain conditioning is below it at {better['probconserv']}.",
        f"a factor of {porous[0]:.1f} of the bare MSE against {porous[1]:.1f} at m = 8",
        f"by a factor of {burgers[1]:.0f} with plain conditioning at a = 5.5 and of {burgers[0]:.0f} with the average",
        f"it is {mean('diffusion-calibration', 'k=3', 'probconserv', 'squared_residual'):.0f} at k = 3",
        f"{mse('diffusion', 1, 'displaced') / mse('diffusion', 1, 'by-law'):.0f} times its MSE at k = 1",
        f"a = 7: {residual:.0f}, where it lowers the MSE from {mse('advection', 7, 'anp'):.2f} to "
        f"{mse('advection', 7, 'by-law'):.3f}",
    ]


def calibration() -> list[str]:
    def inside(method: str, score: str) -> dict[str, float]:
        studied = {name: scores(f"{name}-calibration") for name in STUDIED}
        frames = {
            name: each[score].groupby(["case", "method"]).mean() for name, each in studied.items() if score in each
        }
        return {
            f"{name}, {case}": float(value)
            for name, frame in frames.items()
            for (case, key), value in frame.items()
            if key == method and float(case.split("=")[1]) not in OUTSIDE[name]
        }

    bare = inside("anp", "coverage90")
    del bare["burgers_shock, a=1"]
    front = inside("by-law", "front_coverage90").values()
    residual, moved = inside("probconserv", "squared_residual"), inside("by-law", "moved")
    ends = ("porous_medium, m=1", "burgers_shock, a=1")
    return [
        f"{100 * min(bare.values()):.0f} to {percent(max(bare.values()))} of the truth",
        f"mends it ({percent(inside('probconserv', 'coverage90')['burgers_shock, a=1'])})",
        f"between {100 * min(front):.0f} and {percent(max(front))}",
        f"z² is {residual[ends[0]]:.0f} and {residual[ends[1]]:.0f}",
        f"probability of {moved[ends[0]]:.2f} and {moved[ends[1]]:.2f}",
    ]


def without_flow() -> list[str]:
    def ratio(name: str, case: str, method: str, score: str) -> float:
        return mean(name, case, method, score) / mean(name, case, "conditioned", score)

    def of_trainings(case: str) -> str:
        seeds = scores("generate_stokes").loc[case, "conditioned"].groupby("seed")[error].mean()
        return "{:.0e}, {:.0e} and {:.0e}".format(*seeds)

    search, gauss, error = "training-fields", "gaussian", "mean_error"
    boundary, flux = ("generate_stokes", "boundary"), ("generate_burgers", "initial-inflow-flux")
    laws = (("generate_stokes", "initial"), boundary, ("generate_heat", "initial-mass"))
    spread, closer = ([ratio(*law, gauss, score) for law in laws] for score in ("deviation_error", error))
    closer = [1 / each for each in closer]
    return [
        f"search is {rounded(1 / ratio('generate_stokes', 'initial', search, 'mean_error'))} times closer in the mean",
        f"of the Stefan problem {rounded(1 / ratio('generate_stefan', 'initial-mass', search, 'mean_error'))} times",
        f"and ours {rounded(mean(*flux, 'conditioned-gaussian', error) / mean(*flux, 'truth', error))} times above it",
        f"is {ratio(*boundary, search, 'mean_error'):.1f} times farther off in the mean than ours and "
        f"{rounded(ratio(*boundary, search, 'deviation_error'))} times in the standard deviation",
        f"its mean is {rounded(min(closer))} to {rounded(max(closer))} times closer than ours",
        f"{rounded(min(spread))} to {rounded(max(spread))} times that of ours",
        f"error is {of_trainings('initial')} under the initial value and {of_trainings('boundary')} under the boundary",
    ]


def disturbed() -> list[str]:
    def error(case: str, method: str = "conditioned") -> float:
        return mean("generate_stokes-disturbed", case, method, "mean_error")

    noises = ("0.1-noise", "1-noise", "5-noise", "bfloat16")
    noisy = [f"{law}-{noise}" for law in ("initial", "boundary") for noise in noises]
    above, below = ("initial-above-0", "boundary-above-1"), "boundary-below-1"
    outside = (*above, below, "initial-below-0")
    assert min(error(case, method) / error(case) for case in outside for method in ("eci", "pcfm")) > 1
    assert min(error(case, "eci") / error(case) for case in noisy) > 6
    others = ("training-fields", "gaussian", "conditioned-gaussian", "eci", "pcfm", "unconstrained")
    assert all(error(case) < min(error(case, method) for method in others) for case in above)
    without_flow = max(error(below, method) for method in ("training-fields", "gaussian"))
    assert rounded(error(below) / without_flow) == "10"
    return [
        f"below {max(map(error, noisy)):.0e}, at most a sixth of that of ECI",
        f"its mean is {rounded(min(error(case, 'eci') / error(case) for case in above))} times closer",
        "search and Gaussian are ten times closer",
    ]


def rounded(value: float) -> str:
    """One digit."""
    return f"{float(f'{value:.0e}'):,g}"


STATEMENTS: list[tuple[str, Callable[[], list[str]]]] = [
    ("fields", rollout),
    ("fields", downscaling),
    ("fields", years),
    ("fields", basins),
    ("out_of_range", out_of_range),
    ("calibration", calibration),
    ("generation", without_flow),
    ("generation", disturbed),
]
"""Pages, and what makes sentences of them from the scores."""


@pytest.mark.parametrize(("page", "statements"), STATEMENTS, ids=lambda value: getattr(value, "__name__", value))
def test_numbers_in_prose_are_those_of_the_release(page: str, statements: Callable[[], list[str]]) -> None:
    text = " ".join((DOCS / f"{page}.md").read_text(encoding="utf-8").split())
    stale = [statement for statement in statements() if statement not in text]
    assert not stale, f"docs/{page}.md should say:\n" + "\n".join(stale)
