"""Tables of records: labels come in here, at the very end."""

from pathlib import Path
from typing import Any

import pandas as pd

from experiments.records.description import Description
from experiments.records.record import PAPER
from experiments.records.scores import SCORES
from experiments.records.storage import write_bytes


def numbers(records: pd.DataFrame, described: Description) -> pd.DataFrame:
    """Scores as columns of numbers, with all digits: ``score``, ``score_se`` and ``score_paper``.

    Numbers of papers become columns beside the row of the same method: where a method has several, the first, which is
    the printed one, or that of the weights as they were released.
    """
    ours, paper = records[~records["source"].isin(PAPER)], records[records["source"].isin(PAPER)]
    rows = ["case", "method"]
    mean = ours.pivot_table(index=rows, columns="score", values="mean", aggfunc="first", sort=False)
    error = ours.pivot_table(index=rows, columns="score", values="standard_error", aggfunc="first", sort=False)
    columns = {}
    for name in SCORES:
        if name not in mean:
            continue
        columns[name] = mean[name]
        if name in error:
            columns[f"{name}_se"] = error[name]
        beside = paper[paper["score"] == name]
        if len(beside):
            columns[f"{name}_paper"] = beside.groupby(rows)["mean"].first()
    frame = pd.DataFrame(columns)
    order = [(case, method) for case in described.cases for method in described.methods if (case, method) in mean.index]
    return frame.reindex(pd.MultiIndex.from_tuples(order, names=rows)) if order else frame


def wide(records: pd.DataFrame, described: Description) -> pd.DataFrame:
    """The table as people read it: labels, three digits, standard errors in brackets."""
    frame = numbers(records, described)
    cells: dict[str, list[str]] = {
        "case": [described.cases[case] for case, _ in frame.index],
        "method": [described.methods[method] for _, method in frame.index],
    }
    if described.information:
        cells["sees"] = [described.information.get(method, "") for _, method in frame.index]
    for name, score in SCORES.items():
        if name in frame:
            errors = frame.get(f"{name}_se", pd.Series(index=frame.index, dtype=float))
            cells[score.title] = [format_score(*pair) for pair in zip(frame[name], errors, strict=True)]
        if f"{name}_paper" in frame:
            heading = f"{_origin(records, name)} {score.heading}"
            cells[heading] = [format_score(value) for value in frame[f"{name}_paper"]]
    return pd.DataFrame(cells)


def _origin(records: pd.DataFrame, score: str) -> str:
    """The origin of a paper's numbers of a score: printed there, or recomputed with its authors' released weights."""
    sources = set(records.loc[records["score"] == score, "source"])
    return " or ".join(source.value for source in PAPER if source in sources)


def legend(records: pd.DataFrame, described: Description) -> str:
    """Legend of the columns of a table."""
    used = [score for name, score in SCORES.items() if name in set(records["score"])]
    texts = "; ".join(f"{score.heading}: {score.meaning}" for score in used if score.meaning)
    units = "Dimensionless unless the title names a unit; arrows say which way is better."
    return f"Mean (standard error) over {described.over.value}. {texts}. {units}"


def as_markdown(records: pd.DataFrame, described: Description) -> str:
    """Title, table and legend as Markdown."""
    escaped = wide(records, described).rename(columns=lambda heading: heading.replace("|", "\\|"))
    table = escaped.to_markdown(index=False, disable_numparse=True)
    return f"## {described.title}\n\n{table}\n\n{legend(records, described)}\n"


def write_tables(folder: Path, records: pd.DataFrame, described: Description) -> list[Path]:
    """Writes ``table.md`` to read and ``table.csv`` with all digits; returns the files."""
    files = [folder / "table.md", folder / "table.csv"]
    write_bytes(files[0], as_markdown(records, described).encode())
    write_bytes(files[1], numbers(records, described).to_csv().encode())
    return files


def json_rows(records: pd.DataFrame, described: Description) -> list[dict[str, Any]]:
    """Records as the rows of ``--json``: one object per case, method, seed and source, ``[mean, error]`` per score."""
    rows = []
    for _, part in records.groupby(["case", "method", "seed", "source", "note"], sort=False, dropna=False):
        first: dict[str, Any] = {str(name): value for name, value in part.iloc[0].items()}
        case, method, seed, note = (first[name] for name in ("case", "method", "seed", "note"))
        texts = {"parameter": described.cases[case], "method": described.methods.get(method, method)}
        keys = {"case": case, "method_key": method, "seed": None if pd.isna(seed) else int(seed)}
        origin = {"source": first["source"].value, **({"note": note} if note else {})}
        pairs = zip(part["score"], part["mean"], part["standard_error"], strict=True)
        scores = {name: [mean, None if pd.isna(error) else error] for name, mean, error in pairs}
        rows.append({**texts, **keys, **origin, **scores})
    return rows


def format_score(mean: float, error: float | None = None) -> str:
    """Three significant digits, the standard error in brackets; a dash for what is missing."""
    if mean is None or pd.isna(mean):
        return "—"
    spread = "" if error is None or pd.isna(error) else f" ({format_number(error)})"
    return format_number(mean) + spread


def format_number(value: float) -> str:
    """Three significant digits; fixed point where that is readable."""
    if value == 0:
        return "0"
    return f"{value:.2e}" if abs(value) < 0.01 or abs(value) >= 1000 else f"{value:.3g}"
