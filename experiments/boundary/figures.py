"""Figures of a boundary-condition case from its stored arrays: profiles, fields, an animation."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.animation import PillowWriter
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from experiments.boundary.cases import BoundaryCase
from experiments.boundary.methods import DEFAULT, FNO, TRUE_FIELD, Method
from experiments.experiment import Stored
from experiments.plots import GREY, legend_below, panels
from experiments.records.table import format_number
from experiments.storage import write_bytes
from solvers import Neumann
from solvers.stencils import one_sided_gradient

BESIDE = (FNO, DEFAULT)
"""The methods whose fields and errors are shown beside each other."""
NEAR = 0.15  # part of the axis that panels of the insulator show
SNAPSHOTS = 4
LARGEST = 0.995  # quantile of the errors where their colour scale ends
FRAMES_PER_SECOND = 6
SMALL = 10  # points
Fields = Mapping[Method, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Names:
    """What figures call the quantities of a problem, all dimensionless; the symbol of the field stands last."""

    title: str
    field: str = "u"
    coordinate: str = "x"

    @property
    def error(self) -> str:
        """The absolute error."""
        return f"|{self.field.split()[-1]} − truth|"


NAMES = {
    "stokes": Names(title="Stokes' second problem", field="velocity u", coordinate="y"),
    "burgers_dirichlet": Names(title="Burgers, travelling wave", field="velocity u"),
    "heat_neumann": Names(title="Heat between insulator and heater", field="temperature u"),
    "wave_neumann": Names(title="Waves between reflecting walls", field="displacement u"),
    "burgers_periodic": Names(title="Burgers on a circle", field="velocity u"),
    "cavity": Names(title="Lid-driven cavity", field="vorticity ω"),
    "heat_independent": Names(title="Heat, independent boundary data", field="temperature u"),
    "viscous_burgers": Names(title="Burgers, thin layers", field="velocity u"),
    "reaction_diffusion": Names(title="Growth in a random medium", field="density u"),
    "darcy": Names(title="Darcy flow, two materials", field="pressure u"),
    "advection_diffusion": Names(title="Heat in a random flow", field="temperature u"),
    "basin": Names(title="Shallow water in a basin", field="elevation h − 1"),
    "darcy_small": Names(title="Darcy flow, neuraloperator's small set", field="pressure u"),
}
"""By the name of the experiment."""


def names_of(problem: str) -> Names:
    """What the figures of a problem say; one that is not listed goes by its name."""
    return NAMES.get(problem, Names(title=problem.replace("_", " ").capitalize()))


@dataclass(frozen=True, kw_only=True)
class Shown:
    """One test sample at equally spaced times: the true field ``(t, *nodes)``, x first, and those of methods."""

    times: np.ndarray
    true: np.ndarray
    fields: Fields
    names: Names
    title: str

    def pictures(self) -> dict[str, np.ndarray]:
        """The truth and the absolute errors by what figures call them."""
        named = {"truth": self.true}
        for method, u in self.fields.items():
            relative = format_number(float(np.linalg.norm(u - self.true) / np.linalg.norm(self.true)))
            named[f"error of {method.label}\nrelative L2 {relative}"] = np.abs(u - self.true)
        return named

    def colours(self) -> list[dict[str, Any]]:
        """Colours of the truth, around 0 and up to its size but for its largest percent (corners), and of errors."""
        size = float(np.quantile(np.abs(self.true), 0.99)) or 1.0
        largest = max((float(np.quantile(np.abs(u - self.true), LARGEST)) for u in self.fields.values()), default=0.0)
        errors = {"norm": PowerNorm(0.5, 0.0, largest or 1.0), "cmap": "magma"}  # from 0, small errors spread out
        return [{"norm": Normalize(-size, size), "cmap": "RdBu_r"}, *(errors for _ in self.fields)]


def draw_case(
    problem: str, case: BoundaryCase, methods: Sequence[Method], stored: Stored, folder: Path
) -> dict[str, Figure]:
    """All figures of a case by name, fields of the first test sample and seed; animations go to the folder."""
    by_method = {method: [stored[key] for key in sorted(stored) if key[0] == method.key] for method in methods}
    scored = {method: arrays for method, arrays in by_method.items() if arrays}
    names, times = names_of(problem), case.source.times(case.test_data(0)).numpy()
    title = f"{names.title}, {case.label}"
    drawings: dict[str, Figure] = {}
    if TRUE_FIELD in scored:
        true = scored[TRUE_FIELD][0]["shown"][0]
        fields = {method: arrays[0]["shown"][0] for method, arrays in scored.items() if method.key in BESIDE}
        shown = Shown(times=times, true=true, fields=fields, names=names, title=title)
        if true.ndim == 3:
            drawings["fields"] = snapshots(shown)
            animate(shown, folder / f"animation-{case.key}.gif")
        else:
            insulated = isinstance(case.conditions[0][0], Neumann) and not case.independent
            stencil = one_sided_gradient(case.sizes.network.order, "first").numpy() if insulated else None
            drawings["profile"] = profiles(shown, stencil)
            drawings |= {"fields": space_time(shown)} if len(times) > 1 else {}
    return drawings


def profiles(shown: Shown, stencil: np.ndarray | None) -> Figure:
    """Fields at the last time, and their absolute error or, at an insulator, their gradient by Σ c_j u_j/h there."""
    figure, (left, right) = panels(2, shown.title, share_y=False)
    true, names, last = shown.true[-1], shown.names, {method: u[-1] for method, u in shown.fields.items()}
    x = np.linspace(0.0, 1.0, len(true))
    curves = {**last, TRUE_FIELD: true}
    for method, u in curves.items():
        left.plot(x, u, **_line(method))
    left.set(xlabel=names.coordinate, ylabel=names.field)
    left.set_title(f"t = {shown.times[-1]:g}", size=SMALL)
    right.set_xlabel(names.coordinate)
    if stencil is None:
        _errors(right, x, {method: np.abs(u - true) for method, u in last.items()})
        right.set_ylabel(names.error)
    else:
        near = x <= NEAR
        for method, u in curves.items():
            marker = "" if method is TRUE_FIELD else "."
            right.plot(x[near], _gradient(u, stencil)[near], **_line(method, marker=marker))
        right.axhline(0.0, color=GREY, lw=0.8)
        right.set_ylabel(f"∂u/∂{names.coordinate}")
        right.set_title("gradient at the insulator", size=SMALL)
        right.locator_params(axis="x", nbins=5)
    legend_below(figure, left)
    return figure


def _errors(axes: Axes, x: np.ndarray, errors: Fields) -> None:
    """Absolute errors on a logarithmic axis; where they are 0 a triangle stands at its foot."""
    zeros = any(bool((error == 0).any()) for error in errors.values())
    axes.set_title(f"absolute error{' (triangles: exactly 0)' if zeros else ''}", size=SMALL)
    axes.set_yscale("log")
    for method, error in errors.items():
        exact = error == 0
        axes.plot(x, np.where(exact, np.nan, error), **_line(method))
        if exact.any():
            style = {"transform": axes.get_xaxis_transform(), "clip_on": False, "color": method.style.colour, "ms": 6}
            axes.plot(x[exact], np.zeros(exact.sum()), "v", **style)


def space_time(shown: Shown) -> Figure:
    """The true field in the plane of time and space, and beside it the absolute errors of methods."""
    times, pictures = shown.times, shown.pictures()
    figure, axes = panels(len(pictures), shown.title, width=0.75)
    t, x = 0.5 * (times[1] - times[0]), 0.5 / (shown.true.shape[1] - 1)  # halves of a pixel, whose centre is the node
    style = {"origin": "lower", "aspect": "auto", "extent": (times[0] - t, times[-1] + t, -x, 1.0 + x)}
    images = []
    for panel, label, colour in zip(axes, pictures, [{"cmap": "viridis"}, *shown.colours()[1:]], strict=True):
        images.append(panel.imshow(pictures[label].T, **colour, **style))
        panel.set_title(label, size=SMALL)
        panel.set_xlabel("t")
        panel.grid(visible=False)
    axes[0].set_ylabel(shown.names.coordinate)
    figure.colorbar(images[0], ax=axes[0], label=shown.names.field)
    if shown.fields:
        figure.colorbar(images[-1], ax=axes[1:], label=shown.names.error, extend="max")
    return figure


def snapshots(shown: Shown) -> Figure:
    """The true field on the square at several times, and below it the absolute errors of methods."""
    times, pictures = shown.times, shown.pictures()
    chosen = np.unique(np.linspace(0, len(times) - 1, SNAPSHOTS).round().astype(int))
    figure = Figure(figsize=(1.75 * len(chosen) + 1.2, 1.75 * len(pictures) + 0.6), layout="constrained")
    figure.suptitle(shown.title, fontsize=11)
    grid, images = figure.subplots(len(pictures), len(chosen), squeeze=False), []
    for axes, (label, u), colour in zip(grid, pictures.items(), shown.colours(), strict=True):
        images.append([_square(panel, field, colour) for panel, field in zip(axes, u[chosen], strict=True)][-1])
        axes[0].set_ylabel(label)
    for axes, time in zip(grid[0], times[chosen], strict=True):
        axes.set_title(f"t = {time:.2f}", size=SMALL)
    figure.colorbar(images[0], ax=list(grid[0]), label=shown.names.field, extend="both")
    if shown.fields:
        figure.colorbar(images[-1], ax=list(grid[1:].flat), label=shown.names.error, extend="max")
    return figure


def animate(shown: Shown, path: Path) -> None:
    """The true field on the square over time and the absolute errors of methods beside it, as an animated GIF."""
    pictures = shown.pictures()
    figure, axes = panels(len(pictures), shown.title, width=0.7)
    images = []
    for panel, (label, u), colour in zip(axes, pictures.items(), shown.colours(), strict=True):
        images.append(_square(panel, u[0], colour))
        panel.set_title(label, size=SMALL)
    writer = PillowWriter(fps=FRAMES_PER_SECOND)
    with tempfile.TemporaryDirectory() as folder:
        temporary = Path(folder) / path.name
        with writer.saving(figure, str(temporary), dpi=100):
            for index, time in enumerate(shown.times):
                axes[0].set_xlabel(f"t = {time:.2f}")
                for image, u in zip(images, pictures.values(), strict=True):
                    image.set_data(u[index].T)
                writer.grab_frame()
        write_bytes(path, temporary.read_bytes())


def _gradient(u: np.ndarray, stencil: np.ndarray) -> np.ndarray:
    """∂u/∂x by central differences, at the first node by the stencil with which the condition is imposed."""
    spacing = 1.0 / (len(u) - 1)
    gradient = np.gradient(u.astype(np.float64), spacing)
    gradient[0] = stencil @ u[: len(stencil)] / spacing
    return gradient


def _square(axes: Axes, u: np.ndarray, colour: Mapping[str, Any]) -> AxesImage:
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    return axes.imshow(u.T, origin="lower", extent=(0, 1, 0, 1), **colour)


def _line(method: Method, **more: Any) -> dict[str, Any]:
    width = 1.1 if method is TRUE_FIELD else 1.6
    return {"color": method.style.colour, "ls": method.style.dashes, "lw": width, "label": method.label, **more}
