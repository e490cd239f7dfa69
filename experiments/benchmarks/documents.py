"""What benchmarks write into documents: tables between two marks, and figures; what must hold before one starts."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from experiments.benchmarks.boon import PLAIN
from experiments.errors import DataFileError, InvalidArgumentError
from experiments.plots import BLUE, GREY, VERMILION, open_box, save
from experiments.report.documents import fill
from experiments.report.tables import markdown
from experiments.storage import writable_folder, write_bytes

BUSY = 0.5  # load average from which the document says that the machine was busy
_FIGURES = {"scaling-update": ("points", "constraints", "fields"), "scaling-solver": ("cells", "functions")}
_TIMED = ("case", "seconds", "baseline", "baseline_seconds", "ratio")


def require_document(name: str, page: Path) -> None:
    """Raises LibraryError unless a benchmark has a table and a document can take it."""
    if name not in WRITERS or not page.is_file():
        *names, last = WRITERS
        raise InvalidArgumentError(
            f"--page needs the benchmark {', '.join(names)} or {last} and a file, got {name} and '{page}'."
        )
    writable_folder(page.parent)
    between_marks(page, name, "")


def write(result: Mapping[str, Any], page: Path) -> list[Path]:
    """Rewrites the part of a document between the marks of a benchmark; returns the document."""
    name = result["benchmark"]
    write_bytes(page, between_marks(page, name, TABLES[name](result)).encode())
    return [page]


def between_marks(page: Path, name: str, content: str) -> str:
    """The text of a document with new content between the marks of a benchmark."""
    document = "scaling" if name == "scaling" else "benchmarks"
    begin = f"<!-- {name}: written by python -m experiments bench {name} --page docs/{document}.md -->"
    try:
        text = page.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataFileError(f"'{page}' cannot be read as a document ({error}); give another --page.") from error
    return fill(text, begin, f"<!-- end of {name} -->", content, f"'{page}'")


def timed(result: Mapping[str, Any]) -> str:
    """Seconds of every case and of its baseline, and their ratio; below, what else was measured of some cases only."""
    cases = result["cases"]
    everywhere = [key for key in cases[0] if all(case.get(key) is not None for case in cases) and key not in _TIMED]
    rows, notes = [], []
    for case in cases:
        times = [_seconds(case[key]) if case[key] is not None else "" for key in ("seconds", "baseline_seconds")]
        ratio = "" if case["ratio"] is None else f"{case['ratio']:.3g}"
        rows.append([case["case"], times[0], case["baseline"], times[1], ratio, *(_plain(case[k]) for k in everywhere)])
        more = [f"{key} {_plain(value)}" for key, value in case.items() if key not in (*_TIMED, *everywhere)]
        notes += [f"* {case['case']}: {', '.join(more)}."] if more else []
    heads = ["ours", "seconds", "baseline", "seconds of it", "ratio", *everywhere]
    return "\n\n".join([_machine(result), markdown(pd.DataFrame(rows, columns=heads)), "\n".join(notes)])


def stepped(result: Mapping[str, Any]) -> str:
    """Training steps over those of the baseline, a column for every size; the seconds of both plain operators below."""
    shapes = list(dict.fromkeys(case["case"].rsplit(": ", 1)[0] for case in result["cases"]))
    rows: dict[str, dict[str, str]] = {}
    for case in result["cases"]:
        size, name = case["case"].rsplit(": ", 1)
        if case["baseline"] == PLAIN:
            rows.setdefault(name, {})[size] = f"{case['ratio']:.2f}"
            continue
        rows.setdefault("plain FNO, seconds", {})[size] = f"{case['seconds']:.3g}"
        rows.setdefault(f"{case['baseline']}, seconds", {})[size] = f"{case['baseline_seconds']:.3g}"
        rows.setdefault("plain FNO over it", {})[size] = f"{case['ratio']:.2f}"
    table = pd.DataFrame([[name, *(row[size] for size in shapes)] for name, row in rows.items()], columns=["", *shapes])
    return "\n\n".join([_machine(result), markdown(table)])


def write_scaling(result: dict[str, Any], page: Path) -> list[Path]:
    """Rewrites the part of a document for the scaling benchmark, and figures in ``figures`` beside it; returns all."""
    text = between_marks(page, "scaling", scaling_as_markdown(result))
    folder = writable_folder(page.parent / "figures")
    drawn = [save(draw(result["cases"], keys), folder / name) for name, keys in _FIGURES.items()]
    write_bytes(page, text.encode())
    return [page, *(file for files in drawn for file in files)]


def scaling_as_markdown(result: dict[str, Any]) -> str:
    """All sizes as a table, the machine, how busy it was, and the figures."""
    busy = f"busy with other work (load average {result['load']:.1f}): times are too long"
    machine = f"Machine: {result['machine']}; {'otherwise idle' if result['load'] < BUSY else busy}."
    figures = [f"![Time and memory of the {name.split('-')[1]}](figures/{name}.png)" for name in _FIGURES]
    return "\n\n".join([machine, markdown(sizes(result["cases"])), *figures])


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


def sizes(cases: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Seconds, growth and memory of every size, as a document shows them."""
    columns = {
        "case": [case["case"] for case in cases],
        "seconds": [f"{case['seconds']:.3g}" for case in cases],
        "growth": ["" if case["growth"] is None else f"{case['growth']:.2f}" for case in cases],
        "peak memory, MB": [f"{case['memory']:,.0f}" for case in cases],
    }
    return pd.DataFrame(columns)


def _machine(result: Mapping[str, Any]) -> str:
    return f"Machine: {result['machine']}."


def _seconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1.0 else f"{seconds:.3g} s"


def _plain(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    **dict.fromkeys(("update", "fields", "inequality", "solver"), timed),
    "boon": stepped,
}
"""What makes the table of a benchmark."""
WRITERS: dict[str, Callable[[dict[str, Any], Path], list[Path]]] = {
    **dict.fromkeys(TABLES, write),
    "scaling": write_scaling,
}
"""What rewrites the part of a document that belongs to a benchmark."""
