"""The figures of a boundary-condition experiment, from its stored arrays; the same colours for every problem."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from experiments import figures
from experiments.figures import BLUE, GREEN, GREY, ORANGE, PANEL, PURPLE, SKY, TRUTH, VERMILION
from experiments.operator_config import OperatorCase
from experiments.operator_methods import CHANNELS, CIRCLE, DEFAULT_NAME, LIFTED, PAPER, PRESCRIBED, SOFT
from experiments.operator_scores import Stored
from experiments.storage import write_bytes
from solvers import Neumann
from solvers.stencils import one_sided_gradient

COLOURS = {
    "FNO": VERMILION,
    CHANNELS: SKY,
    CIRCLE: SKY,
    PRESCRIBED: GREEN,
    LIFTED: ORANGE,
    SOFT: GREY,
    PAPER: PURPLE,
    DEFAULT_NAME: BLUE,
}
BESIDE = ("FNO", DEFAULT_NAME)
"""The methods whose fields are shown beside each other."""
NEAR = 0.15  # part of the axis that panels of the insulator show
SNAPSHOTS = 4
FRAMES_PER_SECOND = 6


def draw_case(case: OperatorCase, stored: Stored, folder: Path) -> list[Path]:
    """Draws all figures of a case, of the first test sample and the first seed where fields are shown.

    Args:
        case: The case.
        stored: Arrays of its run.
        folder: Where the files go, named after figure and case.

    Returns:
        PNG and PDF of every figure, and a GIF for problems on the square.
    """
    fields = {name: stored.scores[name][0]["shown"][0] for name in BESIDE if name in stored.scores}
    true, title = stored.truth["shown"][0], f"{case.problem.name.replace('_', ' ').capitalize()}, {case.label}"
    times = case.test_data(0).output_times(case.problem).numpy()
    square = true.ndim == 3
    drawings: dict[str, Figure] = {}
    if len(times) > 1:
        drawings["over-time"] = error_over_time(times, stored, title)
    if square:
        drawings["fields"] = snapshots(times, stored.truth["input"][0], {"truth": true, **fields}, title)
    else:
        drawings["profile"] = profiles(true[-1], {n: u[-1] for n, u in fields.items()}, title, _stencil(case))
        if len(times) > 1:
            drawings["fields"] = space_time(times, {"truth": true, **fields}, title)
    files = [file for name, fig in drawings.items() for file in figures.save(fig, folder / f"{name}-{case.name}")]
    if square:
        files.append(animation(times, {"truth": true, **fields}, title, folder / f"animation-{case.name}.gif"))
    return files


def error_over_time(times: np.ndarray, stored: Stored, title: str) -> Figure:
    """Error at each time relative to the size of the field over all times: mean of the test samples, and one sample.

    Args:
        times: Output times ``(t,)``.
        stored: Holds ``over_time`` ``(samples, t)`` for every method and seed; the mean is over seeds too.
        title: Says problem and version.
    """
    figure, (left, right) = _row(2, title)
    for name, seeds in stored.scores.items():
        errors = np.stack([arrays["over_time"] for arrays in seeds])
        style = {"color": COLOURS.get(name, GREY), "lw": 1.5, "label": name}
        left.plot(times, errors.mean(axis=(0, 1)), **style)
        right.plot(times, errors[:, 0].mean(axis=0), **style)
    left.set(xlabel="t", ylabel="relative L2", yscale="log", title="mean over test samples")
    right.set(xlabel="t", yscale="log", title="one test sample")
    _legend(figure, left)
    return figure


def error_against(counts: np.ndarray, errors: Mapping[str, np.ndarray], title: str) -> Figure:
    """Relative L2 of every method against the number of training samples, both logarithmic.

    Args:
        counts: Numbers of samples.
        errors: Relative L2 for each of them, by method.
        title: Says problem and version.
    """
    figure, (axes,) = _row(1, title)
    for name, values in errors.items():
        axes.plot(counts, values, color=COLOURS.get(name, GREY), lw=1.5, marker="o", ms=4, label=name)
    axes.set(xlabel="training samples", ylabel="relative L2", xscale="log", yscale="log")
    _legend(figure, axes)
    return figure


def profiles(true: np.ndarray, fields: Mapping[str, np.ndarray], title: str, stencil: np.ndarray | None) -> Figure:
    """Fields at the last time beside the truth, and their absolute error or, at an insulator, their gradient.

    Args:
        true: True field ``(nodes,)``.
        fields: Predicted fields by method.
        title: Says problem and version.
        stencil: If ∂u/∂x is to be 0 at the first node, the weights c of its one-sided difference Σ c_j u_j/h there.
    """
    figure, (left, right) = _row(2, title)
    x = np.linspace(0.0, 1.0, len(true))
    left.plot(x, true, color=TRUTH, lw=1.1, ls="--", label="truth", zorder=3)
    near = np.full(len(x), True) if stencil is None else x <= NEAR
    for name, u in fields.items():
        colour = COLOURS.get(name, GREY)
        left.plot(x, u, color=colour, lw=1.6, label=name)
        shown = np.abs(u - true) if stencil is None else _gradient(u, stencil)
        right.plot(x[near], shown[near], color=colour, lw=1.6, marker="" if stencil is None else ".")
    left.set(xlabel="x", ylabel="u", title="last time")
    if stencil is None:
        right.set(xlabel="x", ylabel="|u − truth|", yscale="log", title="absolute error")
    else:
        right.plot(x[near], _gradient(true, stencil)[near], color=TRUTH, lw=1.1, ls="--")
        right.axhline(0.0, color=GREY, lw=0.8)
        right.set(xlabel="x", ylabel="∂u/∂x", title="gradient at the insulator")
    _legend(figure, left)
    return figure


def space_time(times: np.ndarray, fields: Mapping[str, np.ndarray], title: str) -> Figure:
    """Fields in the plane of place and time: truth and methods above, absolute errors of the methods below.

    Args:
        times: Output times ``(t,)``.
        fields: ``(t, nodes)`` by name, the truth first.
        title: Says problem and version.
    """
    true, *_ = fields.values()
    figure, panels = _grid(2, len(fields), title)
    extent = (times[0], times[-1], 0.0, 1.0)
    errors = {name: np.abs(u - true) for name, u in fields.items() if u is not true}
    largest = max((float(error.max()) for error in errors.values()), default=1.0)
    images: list[AxesImage] = []
    for column, (name, u) in enumerate(fields.items()):
        style = {"origin": "lower", "aspect": "auto", "extent": extent}
        shown = panels[0][column].imshow(u.T, vmin=float(true.min()), vmax=float(true.max()), cmap="viridis", **style)
        panels[0][column].set(title=name)
        if name in errors:
            images.append(panels[1][column].imshow(errors[name].T, vmin=0.0, vmax=largest, cmap="magma", **style))
            panels[1][column].set(xlabel="t", title="absolute error")
        else:
            panels[1][column].axis("off")
            figure.colorbar(shown, ax=list(panels[0]), label="u")
    panels[0][0].set_ylabel("x")
    if images:
        figure.colorbar(images[0], ax=list(panels[1]), label="|u − truth|")
    return figure


def snapshots(times: np.ndarray, first: np.ndarray, fields: Mapping[str, np.ndarray], title: str) -> Figure:
    """Fields on the square: the initial one, then truth and methods at several times, one row each.

    Args:
        times: Output times ``(t,)``.
        first: Initial field ``(nodes, nodes)``, x first.
        fields: ``(t, nodes, nodes)`` by name, the truth first.
        title: Says problem and version.
    """
    chosen = np.unique(np.linspace(0, len(times) - 1, SNAPSHOTS).round().astype(int))
    figure, panels = _grid(len(fields), 1 + len(chosen), title)
    show = _painter(np.stack([fields[next(iter(fields))][index] for index in chosen]))
    image = show(panels[0][0], first)
    panels[0][0].set(title="initial")
    for row, (name, u) in enumerate(fields.items()):
        panels[row][0].set_ylabel(name)
        if row:
            panels[row][0].set(xticks=[], yticks=[])
            panels[row][0].spines[:].set_visible(False)
        for column, index in enumerate(chosen, start=1):
            show(panels[row][column], u[index])
            panels[row][column].set(title=f"t = {times[index]:.2g}" if not row else "")
    figure.colorbar(image, ax=[axes for line in panels for axes in line], shrink=0.6)
    return figure


def animation(times: np.ndarray, fields: Mapping[str, np.ndarray], title: str, path: Path) -> Path:
    """Truth and methods on the square over time, beside each other, as an animated GIF.

    Args:
        times: Output times ``(t,)``.
        fields: ``(t, nodes, nodes)`` by name, the truth first.
        title: Says problem and version.
        path: The file.

    Returns:
        The file.
    """
    figure, panels = _grid(1, len(fields), title)
    show = _painter(fields[next(iter(fields))])
    images = [show(axes, u[0]) for axes, u in zip(panels[0], fields.values(), strict=True)]
    writer = PillowWriter(fps=FRAMES_PER_SECOND)
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / path.name
        with writer.saving(figure, str(temporary), dpi=80):
            for index, time in enumerate(times):
                for axes, image, (name, u) in zip(panels[0], images, fields.items(), strict=True):
                    image.set_data(u[index].T)
                    axes.set_title(f"{name}, t = {time:.2f}")
                writer.grab_frame()
        write_bytes(path, temporary.read_bytes())
    return path


def _painter(true: np.ndarray) -> Callable[[Axes, np.ndarray], AxesImage]:
    """Draws fields on the square in one scale, which leaves out the last percent at either end (corners)."""
    size = float(np.quantile(np.abs(true), 0.99)) or 1.0

    def show(axes: Axes, u: np.ndarray) -> AxesImage:
        axes.set(xticks=[], yticks=[])
        return axes.imshow(u.T, origin="lower", extent=(0, 1, 0, 1), vmin=-size, vmax=size, cmap="RdBu_r")

    return show


def _stencil(case: OperatorCase) -> np.ndarray | None:
    """The weights of the gradient at the first node if an insulator is there."""
    insulated = isinstance(case.problem.conditions[0][0], Neumann) and not case.independent
    return one_sided_gradient(case.sizes.network.order, "first").numpy() if insulated else None


def _gradient(u: np.ndarray, stencil: np.ndarray) -> np.ndarray:
    """∂u/∂x by central differences, at the first node by the stencil with which the condition is imposed."""
    spacing = 1.0 / (len(u) - 1)
    gradient = np.gradient(u.astype(np.float64), spacing)
    gradient[0] = stencil @ u[: len(stencil)] / spacing
    return gradient


def _row(count: int, title: str) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(PANEL[0] * count, PANEL[1] + 0.9), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, lw=0.5)
    figure.suptitle(title, fontsize=11)
    return figure, list(panels)


def _grid(rows: int, columns: int, title: str) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(2.2 * columns + 0.8, 2.1 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    figure.suptitle(title, fontsize=11)
    return figure, [list(line) for line in panels]


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
