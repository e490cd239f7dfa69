"""Style of all figures: one colour per method everywhere, half-open panels, one legend below, PNG and PDF.

Colours are those of Okabe and Ito, distinct for any colour vision. No global matplotlib state is used.
"""

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure
from matplotlib.legend import Legend

from experiments.records.storage import write_bytes

SKY, ORANGE, GREEN, BLUE, VERMILION, PURPLE = "#56B4E9", "#E69F00", "#009E73", "#0072B2", "#D55E00", "#CC79A7"
BLACK, GREY, YELLOW = "#000000", "#7F7F7F", "#F0E442"
TRUTH, BARE, SOFT, HARD, CONSERVED, GAUSSIAN_PROCESS, ENSEMBLE = BLACK, VERMILION, ORANGE, GREEN, BLUE, SKY, PURPLE
"""Colours of the methods, by what is done to a prediction; constrained operators (BOON) share that of ProbConserv."""
PANEL = (3.4, 2.8)
"""Width and height of a panel in inches."""
WIDTH = 1280
"""Pixels of figures on the page and in documents."""
BAND = 1.96
"""Half-width of the central 95 % of a Gaussian in standard deviations."""
_LEGEND_ENTRY = 2.2  # inches, width of the longest entry of a legend


def panels(
    count: int, title: str, share_y: bool = True, width: float = 1.0, columns: int | None = None
) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side, ``columns`` in a row, each ``width`` times as wide as ``PANEL``."""
    columns = min(columns or count, count)
    rows = -(-count // columns)
    figure = Figure(
        figsize=(PANEL[0] * columns * width, PANEL[1] * 0.8 ** (rows > 1) * rows + 0.7), layout="constrained"
    )
    axes = list(figure.subplots(rows, columns, sharey=share_y, squeeze=False).flat)
    for panel in axes[count:]:
        panel.remove()
    axes = axes[:count]
    for panel in axes:
        open_box(panel)
    figure.suptitle(title, fontsize=11)
    return figure, axes


def open_box(axes: Axes) -> None:
    """Leaves the box of a panel half open, with a faint grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, lw=0.5)


def legend_below(figure: Figure, *axes: Axes, grey: Sequence[str] = ()) -> None:
    """One legend for all panels below them, as wide as the figure at most; entries whose colour differs from panel to
    panel are shown grey.
    """
    handles = {}
    for panel in axes:
        handles |= {label: handle for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)}
    columns = min(len(handles), max(1, int(figure.get_figwidth() / _LEGEND_ENTRY)))

    def draw() -> Legend:
        below = {"loc": "outside lower center", "ncols": columns, "frameon": False, "fontsize": 9}
        return figure.legend(list(handles.values()), list(handles), **below)

    legend = draw()
    while columns > 1 and legend.get_window_extent().width > figure.bbox.width:
        legend.remove()
        columns -= 1
        legend = draw()
    for handle, label in zip(legend.legend_handles, handles, strict=True):
        if handle is not None and label in grey:
            handle.set(color=GREY)


def resolution(figure: Figure) -> float:
    """Pixels per inch of a figure, so that it is at least ``WIDTH`` pixels wide."""
    return max(160.0, WIDTH / figure.get_figwidth())


def save(figure: Figure, path: Path) -> list[Path]:
    """Writes a figure as PNG and PDF, atomically, under a name without ending; returns the two files."""
    png, pdf = io.BytesIO(), io.BytesIO()
    figure.savefig(png, format="png", dpi=resolution(figure))
    figure.set_layout_engine("none")  # keeps the places that the first drawing has found; finding them takes as long
    FigureCanvasPdf(figure).print_pdf(pdf, metadata={"CreationDate": None})
    files = [path.with_name(path.name + ending) for ending in (".png", ".pdf")]
    for file, buffer in zip(files, (png, pdf), strict=True):
        write_bytes(file, buffer.getvalue())
    return files
