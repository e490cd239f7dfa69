"""The figures of the experiments on operators under both constraints, from their stored arrays."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from experiments import figures
from experiments.field_cases import FieldCase
from experiments.field_scores import summarised
from experiments.field_study import FieldStudy, Group
from experiments.figures import BLUE, GREEN, ORANGE, PANEL, PURPLE, SKY, VERMILION, Profile
from experiments.storage import Arrays

_CONDITIONED = "ProbConserv"
_COLOURS = {
    "FNO": VERMILION,
    "single operator": VERMILION,
    "BOON": GREEN,
    "BOON in training": BLUE,
    "Ensemble": GREEN,
    "diverse heads": ORANGE,
    "MC dropout": SKY,
    "after training": VERMILION,
    "in training": BLUE,
}
SHOWN = 2
"""Intervals of which profiles are drawn: the training range and the nearest shift."""


def colour_of_field(method: str) -> str:
    """The colour of a method: that of its black box, conditioned or not; figures dash the lines of bare ones."""
    return figures.TRUTH if method == "truth" else _COLOURS.get(method.removeprefix(_CONDITIONED).lstrip("- "), PURPLE)


def draw_study(
    study: FieldStudy,
    own: Sequence[Group],
    stored: Mapping[str, Sequence[Arrays]],
    parameters: Mapping[FieldCase, Sequence[Tensor]],
    folder: Path,
) -> list[Path]:
    """Draws all figures.

    Args:
        study: The study.
        own: Its groups.
        stored: By the key of the group one entry per interval, as ``field_scores`` gives them.
        parameters: Test parameters of every interval, by case.
        folder: Where the files go, named after figure and case.

    Returns:
        PNG and PDF of every figure.
    """
    files = []
    for case in dict.fromkeys(group.case for group in own):
        mine = [group for group in own if group.case == case]
        for number in range(len(case.ranges))[:SHOWN]:
            predictions = {
                group.method.name: Profile(*(stored[group.key][number][name] for name in ("mean", "deviation")))
                for group in mine
                if group.number == 0 and (not study.drawn or group.method.name in study.drawn)
            }
            figure = profiles(case, predictions, parameters[case][number][:1])
            files += figures.save(figure, folder / f"profile-{case.name}-{number}")
        files += figures.save(against_shift(case, mine, stored), folder / f"shift-{case.name}")
    return files


def profiles(case: FieldCase, predictions: Mapping[str, Profile], parameter: Tensor) -> Figure:
    """Mean and 95 % band of every method at the middle time, beside the truth.

    Args:
        case: The case.
        predictions: Profiles ``(n,)`` by method.
        parameter: The parameter ``(1,)``.
    """
    middle, symbol = case.times // 2, case.problem.symbol
    low, high = case.training_range
    title = (
        f"{_named(case)}, trained on {symbol} in [{low:g}, {high:g}], "
        f"asked about {symbol} = {float(parameter):.3g} at t = {float(case.output_times[middle]):g}"
    )
    truth = case.truth(parameter)[0, middle].numpy()
    return figures.profiles(case.grid.points.numpy(), truth, predictions, title, colour=colour_of_field)


def against_shift(case: FieldCase, own: Sequence[Group], stored: Mapping[str, Sequence[Arrays]]) -> Figure:
    """CRPS and coverage of 90 % intervals over the tested intervals, mean and standard error over groups.

    Args:
        case: The case.
        own: Its groups.
        stored: As for ``draw_study``.
    """
    figure = Figure(figsize=(2 * PANEL[0] * 1.15, PANEL[1] + 1.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    names = list(dict.fromkeys(group.method.name for group in own))
    places = np.arange(len(case.ranges))
    for name in names:
        style = {
            "color": colour_of_field(name),
            "ls": "-" if name.startswith(_CONDITIONED) else "--",
            "lw": 1.5,
            "marker": "o",
            "ms": 4,
            "capsize": 2,
        }
        for axes, score in ((left, "CRPS"), (right, "coverage90")):
            values = np.array(
                [[summarised(part)[score] for part in stored[group.key]] for group in own if group.method.name == name]
            )
            error = values.std(axis=0, ddof=1) / len(values) ** 0.5 if len(values) > 1 else None
            axes.errorbar(places, values.mean(axis=0), error, label=name, **style)
    right.axhline(0.9, color=figures.TRUTH, lw=1.0, alpha=0.6)
    left.set(ylabel="CRPS", yscale="log")
    right.set(ylabel="share of the truth in 90 % intervals", ylim=(0, 1.02))
    for axes in (left, right):
        axes.set_xticks(places, [f"{low:g}…{high:g}" for low, high in case.ranges.values()])
        axes.set(
            xlabel=f"tested {case.problem.symbol} (trained on {case.training_range[0]:g}…{case.training_range[1]:g})"
        )
        figures.bare(axes)
    figure.suptitle(_named(case), fontsize=11)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(3, len(labels)), frameon=False, fontsize=9)
    return figure


def _named(case: FieldCase) -> str:
    return case.name.replace("_", " ").capitalize()
