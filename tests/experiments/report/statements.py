"""Sentences of the results with numbers from the released scores per function."""

from collections.abc import Callable
from functools import cache

import pandas as pd

from experiments.records.release import released_results


@cache
def scores(name: str) -> pd.DataFrame:
    """Scores per function of all seeds, by case, method, seed and function."""
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


def downscaling() -> list[str]:
    name, case = "downscaling", "factor-4"
    before, after = (mean(name, case, method, "RMSE") for method in ("additive", "update-shrunk"))
    return [
        f"from {before:.2f} K to {after:.2f} K",
        f"{with_error(name, case, ('ridge', 'ridge-update'), 'RMSE', 4).lstrip('+')} K",
    ]


def observations() -> list[str]:
    name = "observations"
    every = scores(name)["CRPS"].unstack("method")
    fewer, errors = {}, {}
    for case in ("traffic", "traffic-ahead", "traffic-ahead-balanced", "energy-informed", "energy"):
        apart = paired(name, case, ("covariates", "fitted"), "CRPS")
        fewer[case], errors[case] = -100 * apart.mean() / every.loc[case, "fitted"].mean(), -apart.mean() / apart.sem()
    roads = [case for case in fewer if case.startswith("traffic")]
    low, high, least, most = (extreme(d[c] for c in roads) for d in (fewer, errors) for extreme in (min, max))
    held = scores(name).xs("calibrated", level="method")["coverage90"].groupby("case").mean()
    assert sum(abs(held - 0.9) < 0.03) == len(held) - 1
    relative = every["calibrated"].groupby("case").mean() / every["uniform"].groupby("case").mean()
    return [
        f"falls by {low:.1f} to {high:.1f} % on traffic ({least:.1f} to {most:.1f} paired errors)",
        f"by {fewer['energy-informed']:.1f} % on energy from Rn − G ({errors['energy-informed']:.1f})",
        f"rises by {-fewer['energy']:.1f} % on surface energy",
        f"{percent(1 - relative['energy'])} less CRPS than under the uniform shift",
        f"temperature {percent(1 - relative['temperature'])}",
        f"it holds {100 * held['energy-informed']:.0f} ± 4 %",
    ]


ADVECTION = "advection-calibration"
CASES, OUTSIDE = ("a=1", "a=3"), ("a=0.9", "a=0.7", "a=0.5", "a=5.5", "a=6", "a=7")


def out_of_range() -> list[str]:
    mse = scores(ADVECTION)["MSE"].groupby(["method", "case"]).mean()
    average, rivals = mse["by-law"], mse[["probconserv-search", "probconserv-empirical", "total-inverted"]]
    assert all(average[case] < min(mse["anp"][case], mse["probconserv"][case]) for case in OUTSIDE)
    ahead = sum(average[case] < rivals.xs(case, level="case").min() for case in OUTSIDE)
    gained = {case: mse["probconserv"][case] < mse["anp"][case] for case in mse["anp"].index}
    assert {float(case[2:]) for case, better in gained.items() if better} >= {0.5, 0.7, 0.9, 1.0, 3.0}
    assert {float(case[2:]) for case, better in gained.items() if not better} >= {6.0, 7.0}
    assert min(mse["total-inverted"][case] - mse.xs(case, level="case").min() for case in CASES) == 0
    first, third, seventh = (mean(ADVECTION, f"a={a}", "probconserv", "squared_residual") for a in (1, 3, 7))
    return [
        f"the mean of z² is {first:.0f} at a = 1 and {third:.0f} at a = 3",
        f"that of all three rivals at {('none', 'one', 'two', 'three', 'four', 'five', 'six')[ahead]}",
        f"a = 7: {seventh:.0f}, where it lowers the MSE from {mse['anp']['a=7']:.2f} to {average['a=7']:.3f}",
    ]


def calibration() -> list[str]:
    def inside(method: str, score: str = "coverage90") -> list[float]:
        return sorted(mean(ADVECTION, case, method, score) for case in CASES)

    def span(values: list[float]) -> str:
        return f"{100 * values[0]:.0f} to {percent(values[-1])}"

    average = scores(ADVECTION).xs("by-law", level="method").groupby("case").mean()
    assert average["coverage90"].min() > 0.975
    assert average["front_coverage90"].min() > 0.99
    far = [percent(mean(ADVECTION, "a=7", method, "coverage90")) for method in ("anp", "probconserv")]
    at_front = {percent(mean(ADVECTION, "a=7", method, "front_coverage90")) for method in ("anp", "probconserv")}
    widths = [mean(ADVECTION, c, "conformal", "band_width") / mean(ADVECTION, c, "anp", "band_width") for c in CASES]
    return [
        f"hold {span(inside('anp'))} of the truth, under the law {span(inside('probconserv'))}",
        f"{far[0].removesuffix(' %')} and {far[1]} at a = 7",
        f"90 % intervals hold {at_front.pop()} of the truth, with the law or without",
        f"narrower by {span(sorted(1 - width for width in widths))} with the law",
        f"hold {span(inside('conformal', 'band_coverage'))} of the functions",
    ]


def without_flow() -> list[str]:
    def times_closer(name: str, case: str) -> str:
        errors = (mean(name, case, method, "mean_error") for method in ("conditioned", "training-fields"))
        ours, search = errors
        return rounded(ours / search)

    return [
        f"it is {times_closer('generate_stokes', 'initial')} times closer in the mean",
        f"of the Stefan problem {times_closer('generate_stefan', 'initial-mass')} times",
    ]


def many_parameters() -> list[str]:
    name, rivals = "generate_gpme", ("training-fields", "gaussian", "smoother")

    def ahead(case: str) -> float:
        return 100 * (1 - mean(name, case, "ours", "energy") / min(mean(name, case, each, "energy") for each in rivals))

    many, with_total = ([ahead(f"{kind}-{count}") for count in (10, 20)] for kind in ("values", "values-total"))
    covered = [mean(name, f"values{kind}-{m}", "ours", "coverage90") for kind in ("", "-total") for m in (2, 5, 10, 20)]
    assert {f"{each:.0f}" for each in many} == {"19"}
    assert 0.86 <= min(covered) < max(covered) <= 0.895
    return [
        f"by {many[0]:.0f} % of the best of them, with the total by {with_total[0]:.0f} to {with_total[1]:.0f} %",
    ]


def rounded(value: float) -> str:
    """One digit."""
    return f"{float(f'{value:.0e}'):,g}"


STATEMENTS: dict[str, tuple[Callable[[], list[str]], ...]] = {
    "results/predictions": (downscaling, observations),
    "results/out_of_range": (out_of_range, calibration),
    "guides/generated_fields": (many_parameters, without_flow),
}
"""Makers of sentences of a page from the scores per function."""
