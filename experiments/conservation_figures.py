"""The figures of a conservation experiment, from its stored arrays; the same axes and colours for every problem."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from experiments import figures
from experiments.conservation import Case
from experiments.evaluation import LEVELS
from experiments.storage import Arrays

PANELS = ("ANP", "SoftC-ANP", "HardC-ANP", "ProbConserv-ANP")
GP_PANELS = ("GP", "HardC-GP", "ProbConserv-GP")
NON_NEGATIVE, MONOTONE = "ProbConserv-ANP (non-negative)", "ProbConserv-ANP (monotone)"
DISPLACED = "ProbConserv-ANP (displaced)"
VARIANTS = (
    "ProbConserv-ANP (diffusion)",
    "ProbConserv-ANP (quadrature variance)",
    *(NON_NEGATIVE, MONOTONE, DISPLACED),
)
MASSES = ("GP", *PANELS, "Ensemble", "ProbConserv-Ensemble")
CALIBRATION = (
    *("ANP", "ProbConserv-ANP", DISPLACED, "ProbConserv-ANP (tempered)"),
    *("ProbConserv-ANP (context-calibrated)", "Ensemble"),
)
CURVES = (*PANELS, NON_NEGATIVE, MONOTONE, "Ensemble", "ProbConserv-Ensemble")


def draw_case(case: Case, stored: Mapping[str, Arrays], folder: Path) -> list[Path]:
    """Draws all figures of a test parameter.

    Args:
        case: The test case.
        stored: Arrays by stage.
        folder: Where the files go, named after figure and parameter.

    Returns:
        PNG and PDF of every figure.
    """
    drawings = _profiles(case, stored["scores"], stored["local"]) | _curves(case, stored["curves"])
    drawings["context"] = _context(case, stored["scores"])
    drawings["calibration"] = _calibration(case, stored["scores"])
    if case.problem.front is not None:
        drawings["front"] = _fronts(case, stored["scores"])
    return [
        file
        for name, figure in drawings.items()
        for file in figures.save(figure, folder / f"{name}-{case.parameter:g}")
    ]


def heading(case: Case) -> str:
    """Problem and parameter, as in titles."""
    return f"{case.problem.name.replace('_', ' ').capitalize()}, {case.label}"


def _profiles(case: Case, arrays: Arrays, local: Arrays) -> dict[str, Figure]:
    """Mean and band beside the truth: the paper's four panels, the variants, the GP, local against global laws."""
    time = case.problem.test_time
    near = np.abs(arrays["context"][:, 0] - time)
    context = arrays["context"][near == near.min()]
    seen = (context[:, 1], context[:, 2])
    title = f"{heading(case)}, t = {time:g}"
    groups = {"profile": PANELS, "variants": VARIANTS, "gp": GP_PANELS}
    drawings = {
        name: figures.profiles(arrays["places"], arrays["truth"], profiles, title, seen)
        for name, methods in groups.items()
        if (profiles := _profiles_of(arrays, [method for method in methods if f"{method}|mean" in arrays]))
    }
    names = [key.removesuffix("|mean") for key in local if key.endswith("|mean")]
    drawings["local"] = figures.profiles(
        local["places"], local["truth"], _profiles_of(local, names), f"{title}: global and local conservation"
    )
    return drawings


def _curves(case: Case, arrays: Arrays) -> dict[str, Figure]:
    """Total mass, mean squared error and log-likelihood over time."""

    def series(score: str, methods: tuple[str, ...]) -> dict[str, np.ndarray]:
        found = [method for method in methods if f"{method}|{score}" in arrays]
        if "ANP" not in found:
            found = [method for method in GP_PANELS if f"{method}|{score}" in arrays]
        return {method: arrays[f"{method}|{score}"] for method in found}

    times, title = arrays["times"], heading(case)
    return {
        "mass": figures.masses(times, arrays["law"], series("total", MASSES), title, arrays["truth"]),
        "scores": figures.scores_over_time(times, series("MSE", CURVES), series("LL", CURVES), title),
    }


def _fronts(case: Case, arrays: Arrays) -> Figure:
    """Histograms of sampled front positions."""
    assert case.problem.front is not None
    methods = [method for method in (*PANELS, NON_NEGATIVE, DISPLACED) if f"{method}|fronts" in arrays]
    return figures.shock_histograms(
        {method: arrays[f"{method}|fronts"] for method in methods or GP_PANELS},
        float(case.problem.front(case.problem.test_time, case.parameter)),
        case.problem.domain,
        f"{heading(case)}, t = {case.problem.test_time:g}",
    )


def _calibration(case: Case, arrays: Arrays) -> Figure:
    """Coverage against level, before and after the update."""
    found = {method for method in (*CALIBRATION, *GP_PANELS) if f"{method}|reliability" in arrays}
    methods = [method for method in (CALIBRATION if "ANP" in found else GP_PANELS) if method in found]
    series = {method: arrays[f"{method}|reliability"].mean(axis=-1) for method in methods}
    return figures.reliability(np.array(LEVELS), series, f"{heading(case)}, t = {case.problem.test_time:g}")


def _context(case: Case, arrays: Arrays) -> Figure:
    """Where a typical function was observed."""
    problem, front = case.problem, None
    if problem.front is not None:
        times = torch.linspace(0.0, problem.final_time, 201, dtype=torch.float64)[1:]
        front = (times.numpy(), problem.front(times, case.parameter).numpy())
    return figures.observed_points(arrays["context"], problem.domain, problem.test_time, heading(case), front)


def _profiles_of(arrays: Arrays, names: list[str]) -> dict[str, figures.Profile]:
    return {name: figures.Profile(arrays[f"{name}|mean"], arrays[f"{name}|deviation"]) for name in names}
