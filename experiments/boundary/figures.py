"""The figure of a boundary-condition case: a test sample at its last time, a prediction, errors of two methods."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from experiments.boundary.cases import BoundaryCase
from experiments.boundary.methods import BASELINES, DEFAULT, TRUE_FIELD, Method
from experiments.boundary.problems import PROBLEMS, Problem
from experiments.experiment import Stored
from experiments.plots import legend_below, panels

LARGEST = 0.995  # quantile of the errors where their colour scale ends
SMALL = 10  # points


def problem_of(name: str) -> Problem:
    """Title of a problem in figures; its name if it has no row."""
    return PROBLEMS.get(name) or Problem(title=name.replace("_", " ").capitalize(), cases=lambda _: ())


def draw_case(problem: str, case: BoundaryCase, methods: Sequence[Method], stored: Stored) -> Mapping[str, Figure]:
    """The first test sample: inputs, truth, what the default gives, and the errors of the best baseline and of it.

    Fields are those of the first seed at the last time. The best baseline is that of the validation set.
    """
    first = {key: stored[key, seed] for key, seed in sorted(stored, reverse=True)}
    shown = {method: first[method.key] for method in methods if method.key in first}
    baselines = [method for method in shown if method.key in BASELINES]
    chosen = sorted(baselines, key=lambda method: float(shown[method]["validation"]))[:1]
    chosen += [method for method in shown if method.key == DEFAULT]
    if TRUE_FIELD not in shown or not chosen:
        return {}
    row, draw = problem_of(problem), _on_square if case.axes == 2 else _on_interval
    true, *fields = (shown[method]["shown"][0, -1] for method in (TRUE_FIELD, *chosen))
    by_method = dict(zip(chosen, fields, strict=True))
    title = f"{row.title}, {case.label}"
    return {"sample": draw(title, row, shown[TRUE_FIELD]["input"][0], true, by_method)}


def _on_interval(
    title: str, row: Problem, inputs: np.ndarray, true: np.ndarray, fields: Mapping[Method, np.ndarray]
) -> Figure:
    figure, (given, solution, error) = panels(3, title, share_y=False, width=0.75)
    x, drawn = np.linspace(0.0, 1.0, len(true)), {TRUE_FIELD: true, **fields}
    for field in inputs:
        given.plot(x, field / np.abs(field).max() if len(inputs) > 1 else field, lw=1.2)
    given.set_title("inputs, each over its largest value" if len(inputs) > 1 else "input", size=SMALL)
    for method, field in drawn.items():
        line = {"color": method.style.colour, "ls": method.style.dashes, "label": method.label, "lw": 1.4}
        solution.plot(x, field, **line)
        if method is not TRUE_FIELD:
            error.plot(x, np.abs(field - true), **line)
    solution.set_title(row.field, size=SMALL)
    error.set_title(_error_of(row), size=SMALL)
    error.set_yscale("log")
    for panel in (given, solution, error):
        panel.set_xlabel(row.coordinate)
    legend_below(figure, solution)
    return figure


def _on_square(
    title: str, row: Problem, inputs: np.ndarray, true: np.ndarray, fields: Mapping[Method, np.ndarray]
) -> Figure:
    errors = {f"error of\n{method.label}": np.abs(field - true) for method, field in fields.items()}
    last = list(fields)[-1]
    named = {"truth": true, last.label: fields[last]}
    figure, axes = panels(1 + len(named) + len(errors), title, width=0.6)
    _picture(axes[0], "input", inputs[-1], {"cmap": "viridis"})
    low, high = float(true.min()), float(true.max())
    colour = {"cmap": "viridis", "vmin": low, "vmax": high}
    images = [_picture(panel, *each, colour) for panel, each in zip(axes[1:3], named.items(), strict=True)]
    figure.colorbar(images[0], ax=list(axes[1:3]), label=row.field)
    largest = max(float(np.quantile(field, LARGEST)) for field in errors.values()) or 1.0
    scale = {"cmap": "magma", "norm": PowerNorm(0.5, 0.0, largest)}
    images = [_picture(panel, *each, scale) for panel, each in zip(axes[3:], errors.items(), strict=True)]
    figure.colorbar(images[0], ax=list(axes[3:]), label=_error_of(row), extend="max")
    return figure


def _error_of(row: Problem) -> str:
    return f"|{row.field.split()[-1]} − truth|"


def _picture(axes: Axes, label: str, field: np.ndarray, colour: Mapping[str, Any]) -> AxesImage:
    axes.set(xticks=[], yticks=[])
    axes.set_title(label, size=SMALL)
    axes.grid(visible=False)
    return axes.imshow(field.T, origin="lower", extent=(0, 1, 0, 1), **colour)
