"""The tables of the solver benchmarks in a document, each between two marks."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from experiments.report.documents import fill
from experiments.storage import write_bytes

METHODS = ("ours", "LSODA", "RKL2 loop", "FiPy", "py-pde")


def write(result: Mapping[str, Any], page: Path) -> list[Path]:
    """Rewrites the part of a document between the marks of a benchmark; returns the document."""
    name = result["benchmark"]
    begin = f"<!-- {name}: written by python -m experiments bench {name} --page docs/benchmarks.md -->"
    text = fill(page.read_text(encoding="utf-8"), begin, f"<!-- end of {name} -->", TABLES[name](result))
    write_bytes(page, text.encode())
    return [page]


def compared(result: Mapping[str, Any]) -> str:
    """Seconds and L1 error of every method, our setting, and the time of the best other method over ours."""
    parts = []
    for methods in (METHODS[:2] + METHODS[3:], ("ours", *METHODS[2:])):
        cases = [case for case in result["cases"] if set(case["methods"]) == set(methods)]
        heads = ["problem", "target L1", *methods, "best other / ours", "our setting"]
        lines = [f"| {' | '.join(heads)} |", f"|---|---:|{'---:|' * len(methods)}---:|---|"]
        for case in cases:
            cells = [_cell(case["methods"][method]) for method in methods]
            entries = [case["case"], f"{case['target']:.1e}", *cells, f"{case['ratio']:.3g}", case["setting"]]
            lines.append(f"| {' | '.join(entries)} |")
        parts.append("\n".join(lines))
    return "\n\n".join([f"Machine: {result['machine']}.", *parts])


def grown(result: Mapping[str, Any]) -> str:
    """Seconds, growth, memory and L1 error of every size."""
    lines = ["| case | seconds | growth | peak memory, MB | L1 error |", "|---|---:|---:|---:|---:|"]
    for case in result["cases"]:
        growth = "" if case["growth"] is None else f"{case['growth']:.2f}"
        numbers = f"{case['seconds']:.3g} | {growth} | {case['memory']:,.0f} | {case['L1 error']:.2e}"
        lines.append(f"| {case['case']} | {numbers} |")
    return "\n\n".join([f"Machine: {result['machine']}.", "\n".join(lines)])


def _cell(method: Mapping[str, Any]) -> str:
    """Seconds and error; a star where the target is not reached."""
    star = "" if method["reaches the target"] else r"\*"
    return f"{_seconds(method['seconds'])} ({method['L1 error']:.1e}{star})"


def _seconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1.0 else f"{seconds:.3g} s"


TABLES: dict[str, Callable[[Mapping[str, Any]], str]] = {"solver": compared, "large": grown}
"""What makes the table of a benchmark."""
