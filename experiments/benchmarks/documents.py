"""What benchmarks write into documents, and what must hold of a document before a benchmark starts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from experiments.benchmarks import page as tables
from experiments.errors import InvalidArgumentError
from experiments.plots import BLUE, GREY, VERMILION, open_box, save
from experiments.report.tables import markdown
from experiments.storage import writable_folder, write_bytes

BUSY = 0.5  # load average from which the document says that the machine was busy
_FIGURES = {"scaling-update": ("points", "constraints", "fields"), "scaling-solver": ("cells", "functions")}


def require_document(name: str, page: Path) -> None:
    """Checks that a benchmark has a table and that a document can take it.

    Raises:
        InvalidArgumentError: If the benchmark has no table, or the document is not there.
        OutputFolderError: If the document cannot be written.
        DataFileError: If the document is no text, or lacks the marks of the benchmark.
    """
    if name not in WRITERS or not page.is_file():
        *names, last = WRITERS
        raise InvalidArgumentError(
            f"--page needs the benchmark {', '.join(names)} or {last} and a file, got {name} and '{page}'."
        )
    writable_folder(page.parent)
    tables.between_marks(page, name, "")


def write_scaling(result: dict[str, Any], page: Path) -> list[Path]:
    """Rewrites the part of a document for the scaling benchmark, and figures in ``figures`` beside it; returns all."""
    text = tables.between_marks(page, "scaling", scaling_as_markdown(result))
    folder = writable_folder(page.parent / "figures")
    drawn = [save(draw(result["cases"], keys), folder / name) for name, keys in _FIGURES.items()]
    write_bytes(page, text.encode())
    return [page, *(file for files in drawn for file in files)]


def scaling_as_markdown(result: dict[str, Any]) -> str:
    """All sizes as a table, the machine, how busy it was, and the figures."""
    busy = f"busy with other work (load average {result['load']:.1f}): times are too long"
    machine = f"Machine: {result['machine']}; {'otherwise idle' if result['load'] < BUSY else busy}."
    figures = [f"![Time and memory of the {name.split('-')[1]}](figures/{name}.png)" for name in _FIGURES]
    return "\n\n".join([machine, markdown(tables.sizes(result["cases"])), *figures])


def draw(cases: Sequence[dict[str, Any]], keys: Sequence[str]) -> Figure:
    """Time above memory against size, one column per series, with the slope of proportional growth."""
    series = [points for key in keys if (points := [case for case in cases if case["series"] == key])]
    figure = Figure(figsize=(3.4 * len(series), 5.0), layout="constrained")
    panels = figure.subplots(2, len(series), sharex="col", squeeze=False)
    for column, points in enumerate(series):
        sizes = [case["size"] for case in points]
        for axes, name, colour in zip(panels[:, column], ("seconds", "memory"), (BLUE, VERMILION), strict=True):
            values = [max(case[name], 0.1) if name == "memory" else case[name] for case in points]
            axes.loglog(sizes, values, color=colour, marker="o", ms=4, lw=1.5)
            slope = [values[-1] * size / sizes[-1] for size in sizes]
            axes.loglog(sizes, slope, color=GREY, lw=0.9, ls="--", label="proportional")
            open_box(axes)
        panels[0, column].set_title(points[0]["case"].split(":")[0], fontsize=10)
        panels[1, column].set_xlabel(points[0]["axis"])
    panels[0, 0].set_ylabel("seconds")
    panels[1, 0].set_ylabel("peak memory, MB")
    panels[0, 0].legend(frameon=False, fontsize=8)
    return figure


WRITERS: Mapping[str, Callable[[dict[str, Any], Path], list[Path]]] = {
    **dict.fromkeys(tables.TABLES, tables.write),
    "scaling": write_scaling,
}
"""What rewrites the part of a document that belongs to a benchmark."""
