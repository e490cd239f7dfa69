"""The figures of a boundary-condition experiment, from its stored arrays; the same colours for every problem."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
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
TITLE_SIZE, PANEL_TITLE_SIZE = 11, 10  # points


@dataclass(frozen=True, kw_only=True)
class Labels:
    """What figures call the quantities of a problem; all are dimensionless.

    Args:
        title: Title of every figure.
        field: The field, its symbol last.
        place: Coordinate of a problem on an interval.
    """

    title: str
    field: str = "u"
    place: str = "x"

    @property
    def error(self) -> str:
        """The absolute error."""
        return f"|{self.field.split()[-1]} − truth|"


NAMES = {
    "stokes": Labels(title="Stokes' second problem", field="velocity u", place="y"),
    "burgers_dirichlet": Labels(title="Burgers, travelling wave", field="velocity u"),
    "heat_neumann": Labels(title="Heat between insulator and heater", field="temperature u"),
    "wave_neumann": Labels(title="Waves between reflecting walls", field="displacement u"),
    "burgers_periodic": Labels(title="Burgers on a circle", field="velocity u"),
    "cavity": Labels(title="Lid-driven cavity", field="vorticity ω"),
    "heat_independent": Labels(title="Heat, independent boundary data", field="temperature u"),
}
"""By the beginning of the problem's name."""


def labels_of(case: OperatorCase) -> Labels:
    """What the figures of a case say; problems that are not listed go by their own name."""
    name = case.problem.name
    known = next((labels for start, labels in NAMES.items() if name.startswith(start)), None)
    labels = known or Labels(title=name.replace("_", " ").capitalize())
    return replace(labels, title=f"{labels.title}, {case.label}")


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
    true, labels = stored.truth["shown"][0], labels_of(case)
    times = case.test_data(0).output_times(case.problem).numpy()
    square = true.ndim == 3
    drawings: dict[str, Figure] = {}
    if len(times) > 1:
        drawings["over-time"] = error_over_time(times, stored, labels.title)
    if square:
        moments = np.append(case.problem.start, times)
        drawings["fields"] = snapshots(moments, stored.truth["input"][0], {"truth": true, **fields}, labels)
    else:
        last = {name: u[-1] for name, u in {"truth": true, **fields}.items()}
        drawings["profile"] = profiles(float(times[-1]), last, labels, _stencil(case))
        if len(times) > 1:
            drawings["fields"] = space_time(times, {"truth": true, **fields}, labels)
    files = [file for name, fig in drawings.items() for file in figures.save(fig, folder / f"{name}-{case.name}")]
    if square:
        files.append(animation(times, {"truth": true, **fields}, labels, folder / f"animation-{case.name}.gif"))
    return files


def error_over_time(times: np.ndarray, stored: Stored, title: str) -> Figure:
    """Error at each time relative to the size of the field over all times: mean of the test samples, and one sample.

    Args:
        times: Output times ``(t,)``.
        stored: Holds ``over_time`` ``(samples, t)`` for every method and seed; the mean is over seeds too.
        title: Says problem and version.
    """
    figure, (left, right) = _row(2, title, share_y=True)
    widths = np.linspace(3.0, 1.2, len(stored.scores))  # so that curves which coincide are all seen
    for (name, seeds), width in zip(stored.scores.items(), widths, strict=True):
        errors = np.stack([arrays["over_time"] for arrays in seeds])
        style = {"color": _colour(name), "lw": width, "label": name}
        left.plot(times, errors.mean(axis=(0, 1)), **style)
        right.plot(times, errors[:, 0].mean(axis=0), **style)
    left.set(xlabel="t", ylabel="relative L2", yscale="log")
    left.set_title("mean over test samples", size=PANEL_TITLE_SIZE)
    right.set(xlabel="t")
    right.set_title("one test sample", size=PANEL_TITLE_SIZE)
    _legend(figure, left)
    return figure


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Errors of all methods on a few things that are compared, side by side in the order given.

    Args:
        label: What they are, the label of the axis.
        ticks: Their names.
        errors: Relative L2 on each of them, by method.
        standard_errors: Of the mean over seeds, likewise; nan where there is one seed.
    """

    label: str
    ticks: tuple[str, ...]
    errors: Mapping[str, np.ndarray]
    standard_errors: Mapping[str, np.ndarray]


def comparisons(panels: Sequence[Comparison], title: str) -> Figure:
    """Relative L2 of every method, logarithmic, one panel per comparison.

    Args:
        panels: What is compared; all have the same methods.
        title: Says problem and version.
    """
    figure, found = _row(len(panels), title, share_y=True)
    for axes, panel in zip(found, panels, strict=True):
        for name, values in panel.errors.items():
            places, bars = range(len(values)), panel.standard_errors[name]
            axes.errorbar(places, values, bars, color=_colour(name), lw=1.5, marker="o", ms=4, capsize=2, label=name)
        axes.set(xlabel=panel.label, yscale="log")
        axes.set_xticks(range(len(panel.ticks)), panel.ticks)
        axes.margins(x=0.15)
    found[0].set_ylabel("relative L2")
    _legend(figure, found[0])
    return figure


def profiles(time: float, fields: Mapping[str, np.ndarray], labels: Labels, stencil: np.ndarray | None) -> Figure:
    """Fields at one time beside the truth, and their absolute error or, at an insulator, their gradient.

    Args:
        time: The time.
        fields: ``(nodes,)`` by name, the truth first.
        labels: What the figure says.
        stencil: If the derivative is to be 0 at the first node, the weights c of its difference Σ c_j u_j/h there.
    """
    figure, (left, right) = _row(2, labels.title)
    true, *_ = fields.values()
    for name, u in fields.items():
        style = (
            {"color": TRUTH, "lw": 1.1, "ls": "--", "zorder": 3} if u is true else {"color": _colour(name), "lw": 1.6}
        )
        left.plot(np.linspace(0.0, 1.0, len(u)), u, label=name, **style)
    left.set(xlabel=labels.place, ylabel=labels.field)
    left.set_title(f"t = {time:g}", size=PANEL_TITLE_SIZE)
    if stencil is None:
        _errors(right, fields)
        right.set(xlabel=labels.place, ylabel=labels.error, yscale="log")
    else:
        _gradients(right, fields, stencil)
        right.set(xlabel=labels.place, ylabel=f"∂u/∂{labels.place}")
        right.set_title("gradient at the insulator", size=PANEL_TITLE_SIZE)
        right.locator_params(axis="x", nbins=5)
    _legend(figure, left)
    return figure


def _errors(axes: Axes, fields: Mapping[str, np.ndarray]) -> None:
    """Absolute errors on a logarithmic axis; where they are 0 a triangle stands at its foot."""
    true, *_ = fields.values()
    zeros = any(bool((u == true).any()) for u in fields.values() if u is not true)
    axes.set_title(f"absolute error{' (triangles: exactly 0)' if zeros else ''}", size=PANEL_TITLE_SIZE)
    for name, u in fields.items():
        if u is true:
            continue
        x, error = np.linspace(0.0, 1.0, len(u)), np.abs(u - true)
        exact = error == 0
        axes.plot(x, np.where(exact, np.nan, error), color=_colour(name), lw=1.6)
        if exact.any():
            style = {"transform": axes.get_xaxis_transform(), "clip_on": False, "color": _colour(name), "ms": 6}
            axes.plot(x[exact], np.zeros(exact.sum()), "v", **style)


def _gradients(axes: Axes, fields: Mapping[str, np.ndarray], stencil: np.ndarray) -> None:
    """Derivatives near the first node, of the truth dashed."""
    true, *_ = fields.values()
    near = np.linspace(0.0, 1.0, len(true)) <= NEAR
    x = np.linspace(0.0, 1.0, len(true))[near]
    for name, u in fields.items():
        style = (
            {"color": TRUTH, "lw": 1.1, "ls": "--"} if u is true else {"color": _colour(name), "lw": 1.6, "marker": "."}
        )
        axes.plot(x, _gradient(u, stencil)[near], **style)
    axes.axhline(0.0, color=GREY, lw=0.8)


def space_time(times: np.ndarray, fields: Mapping[str, np.ndarray], labels: Labels) -> Figure:
    """Fields in the plane of time and place: truth and methods above, absolute errors of the methods below.

    Args:
        times: Equally spaced output times ``(t,)``.
        fields: ``(t, nodes)`` by name, the truth first.
        labels: What the figure says.
    """
    true, *_ = fields.values()
    figure, panels = _grid(2, len(fields), labels.title)
    t, x = 0.5 * (times[1] - times[0]), 0.5 / (true.shape[1] - 1)  # halves of a pixel, whose centre is the node
    extent = (times[0] - t, times[-1] + t, -x, 1.0 + x)
    style = {"origin": "lower", "aspect": "auto", "extent": extent}
    errors = {name: np.abs(u - true) for name, u in fields.items() if u is not true}
    largest = max((float(error.max()) for error in errors.values()), default=1.0)
    images: list[AxesImage] = []
    for (upper, lower), (name, u) in zip(zip(*panels, strict=True), fields.items(), strict=True):
        shown = upper.imshow(u.T, vmin=float(true.min()), vmax=float(true.max()), cmap="viridis", **style)
        upper.set_title(name, size=PANEL_TITLE_SIZE)
        if name in errors:
            images.append(lower.imshow(errors[name].T, vmin=0.0, vmax=largest, cmap="magma", **style))
            lower.set(xlabel="t")
            lower.set_title("absolute error", size=PANEL_TITLE_SIZE)
        else:
            upper.set_ylabel(labels.place)
            upper.set_xlabel("t").set_in_layout(False)  # there is room below
            lower.axis("off")
            figure.colorbar(shown, ax=list(panels[0]), label=labels.field, extend="both")
    if images:
        panels[1][1].set_ylabel(labels.place).set_in_layout(False)
        figure.colorbar(images[0], ax=list(panels[1]), label=labels.error)
    return figure


def snapshots(times: np.ndarray, first: np.ndarray, fields: Mapping[str, np.ndarray], labels: Labels) -> Figure:
    """Fields on the square: the initial one, then truth and methods at several times, one row each.

    Args:
        times: Time of the initial field, then the output times ``(1 + t,)``.
        first: Initial field ``(nodes, nodes)``, x first.
        fields: ``(t, nodes, nodes)`` by name, the truth first.
        labels: What the figure says.
    """
    chosen = np.unique(np.linspace(1, len(times) - 1, SNAPSHOTS).round().astype(int))
    figure, panels = _grid(len(fields), 1 + len(chosen), labels.title)
    show = _painter(np.stack([fields[next(iter(fields))][index - 1] for index in chosen]))
    image = show(panels[0][0], first)
    panels[0][0].set_ylabel("y", rotation=0)
    panels[0][0].text(0.5, -0.03, "x", ha="center", va="top").set_in_layout(False)
    panels[0][0].set_title(f"initial field, t = {times[0]:.2f}", size=PANEL_TITLE_SIZE)
    for axes in (line[0] for line in panels[1:]):
        axes.axis("off")
    for (_, *line), (name, u) in zip(panels, fields.items(), strict=True):
        line[0].set_ylabel(name)
        for axes, index in zip(line, chosen, strict=True):
            show(axes, u[index - 1])
    for axes, index in zip(panels[0][1:], chosen, strict=True):
        axes.set_title(f"t = {times[index]:.2f}", size=PANEL_TITLE_SIZE)
    everything = [axes for line in panels for axes in line]
    figure.colorbar(image, ax=everything, shrink=0.6, label=labels.field, extend="both")
    return figure


def animation(times: np.ndarray, fields: Mapping[str, np.ndarray], labels: Labels, path: Path) -> Path:
    """Truth and methods on the square over time, beside each other, as an animated GIF.

    Args:
        times: Output times ``(t,)``.
        fields: ``(t, nodes, nodes)`` by name, the truth first.
        labels: What the figure says.
        path: The file.

    Returns:
        The file.
    """
    figure, panels = _grid(1, len(fields), labels.title)
    show = _painter(fields[next(iter(fields))])
    images = [show(axes, u[0]) for axes, u in zip(panels[0], fields.values(), strict=True)]
    for axes, name in zip(panels[0], fields, strict=True):
        axes.set_title(name, size=PANEL_TITLE_SIZE)
    figure.colorbar(images[0], ax=panels[0], label=labels.field, extend="both", shrink=0.8)
    writer = PillowWriter(fps=FRAMES_PER_SECOND)
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / path.name
        with writer.saving(figure, str(temporary), dpi=100):
            for index, time in enumerate(times):
                panels[0][0].set_xlabel(f"t = {time:.2f}")
                for image, u in zip(images, fields.values(), strict=True):
                    image.set_data(u[index].T)
                writer.grab_frame()
        write_bytes(path, temporary.read_bytes())
    return path


def _painter(true: np.ndarray) -> Callable[[Axes, np.ndarray], AxesImage]:
    """Draws fields on the square in one scale, that of the truth but for its largest percent (corners)."""
    size = float(np.quantile(np.abs(true), 0.99)) or 1.0

    def show(axes: Axes, u: np.ndarray) -> AxesImage:
        axes.set(xticks=[], yticks=[])
        return axes.imshow(u.T, origin="lower", extent=(0, 1, 0, 1), vmin=-size, vmax=size, cmap="RdBu_r")

    return show


def _colour(method: str) -> str:
    return COLOURS.get(method, GREY)


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


def _row(count: int, title: str, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(PANEL[0] * count, PANEL[1] + 0.9), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False, sharey=share_y)[0]
    for axes in panels:
        figures.bare(axes)
    figure.suptitle(title, fontsize=TITLE_SIZE)
    return figure, list(panels)


def _grid(rows: int, columns: int, title: str) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(2.2 * columns + 0.8, 2.1 * rows + 0.7), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    figure.suptitle(title, fontsize=TITLE_SIZE)
    return figure, [list(line) for line in panels]


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
