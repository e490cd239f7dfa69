"""The tables of the benchmarks in a document, each between two marks."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.benchmarks.boon import PLAIN
from experiments.errors import DataFileError
from experiments.report.documents import fill
from experiments.report.tables import markdown
from experiments.storage import write_bytes

METHODS = ("ours", "LSODA", "RKL2 loop", "FiPy", "py-pde")
_TIMED = ("case", "seconds", "baseline", "baseline_seconds", "ratio")


def write(result: Mapping[str, Any], page: Path) -> list[Path]:
    """Rewrites the part of a document between the marks of a benchmark; returns the document."""
    name = result["benchmark"]
    write_bytes(page, between_marks(page, name, TABLES[name](result)).encode())
    return [page]


def between_marks(page: Path, name: str, content: str) -> str:
    """The text of a document with new content between the marks of a benchmark.

    Raises:
        DataFileError: If the document is no text, or lacks the marks.
    """
    document = {"orders": "solver_orders", "scaling": "scaling"}.get(name, "benchmarks")
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


def compared(result: Mapping[str, Any]) -> str:
    """Seconds and L1 error of every method, our setting, and the time of the best other method over ours."""
    parts = []
    for methods in (METHODS[:2] + METHODS[3:], ("ours", *METHODS[2:])):
        cases = [case for case in result["cases"] if set(case["methods"]) == set(methods)]
        rows = [
            [
                case["case"],
                f"{case['target']:.1e}",
                *(_cell(case["methods"][method]) for method in methods),
                f"{case['ratio']:.3g}",
                case["setting"],
            ]
            for case in cases
        ]
        heads = ["problem", "target L1", *methods, "best other / ours", "our setting"]
        parts.append(markdown(pd.DataFrame(rows, columns=heads)))
    return "\n\n".join([_machine(result), *parts])


def converged(result: Mapping[str, Any]) -> str:
    """Errors and orders of every case, and the order that it should have; no times, which others measure."""
    cases = pd.DataFrame([{key: value for key, value in case.items() if key != "seconds"} for case in result["cases"]])
    return markdown(cases.assign(required=[f"{order:g}" for order in cases["required"]]))


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


def _cell(method: Mapping[str, Any]) -> str:
    """Seconds and error; a star where the target is not reached."""
    star = "" if method["reaches the target"] else r"\*"
    return f"{_seconds(method['seconds'])} ({method['L1 error']:.1e}{star})"


def _seconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1.0 else f"{seconds:.3g} s"


def _plain(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "update": timed,
    "solver": compared,
    "fields": timed,
    "inequality": timed,
    "boon": stepped,
    "orders": converged,
}
"""What makes the table of a benchmark."""
