"""The results in the README and in ``docs/results.md``, written from the stored metrics that ship.

``python -m experiments.summary`` rewrites both from ``experiments/results/*.json``, which are the ``metrics.json`` of
``reproduce``, and those of the boundary-condition problems as ``experiments.operator_summary`` says; a test fails while
they differ.
"""

from importlib import resources
from pathlib import Path

from experiments import field_summary, operator_summary, study_summary
from experiments.documents import fill, marks, rewrite
from experiments.ship_seeds import shipped_seeds
from experiments.storage import read_object
from experiments.tables import Row, as_markdown, beside_paper, rows_from_json
from solvers.problems import PROBLEMS

BEGIN, END = marks("results")
SHORT_ROWS = ("ANP", "SoftC-ANP", "HardC-ANP", "ProbConserv-ANP", "ProbConserv-ANP (displaced)")
SHORT_SCORES = ("CE", "LL", "paper_LL", "MSE", "paper_MSE")


def stored_rows(problem: str) -> list[Row]:
    """Our rows of a problem, with the paper's numbers beside them.

    Raises:
        DataFileError: If the metrics of the problem do not ship or have no rows.
    """
    folder = Path(str(resources.files("experiments").joinpath("results")))
    path = folder / f"{problem}.json"
    return beside_paper(rows_from_json(read_object(path), path))


def short_table() -> str:
    """The README's table: the paper's methods, ours and the paper's numbers side by side."""
    rows = []
    for name, problem in PROBLEMS.items():
        for row in stored_rows(name):
            if row.method in SHORT_ROWS:
                scores = {score: row.scores[score] for score in SHORT_SCORES if score in row.scores}
                outside = not problem.training_range[0] <= _number(row.parameter) <= problem.training_range[1]
                place = f"{name.replace('_', ' ')}, {row.parameter}{' (out of range)' if outside else ''}"
                rows.append(Row(place, row.method, scores))
    return "\n".join(as_markdown("", rows).splitlines()[2:])


def long_tables() -> str:
    """All rows and scores of all problems, and their tables over seeds where those ship."""
    tables = []
    for name, problem in PROBLEMS.items():
        title = f"{name.replace('_', ' ').capitalize()}, t = {problem.test_time:g}"
        tables.append(as_markdown(title, stored_rows(name)))
        seeds = shipped_seeds(name)
        if seeds:
            tables.append(seeds.as_markdown())
    return "\n".join(tables).rstrip()


def with_table(text: str, table: str) -> str:
    """A text with the table between its two marks."""
    return fill(text, BEGIN, END, table)


def main(root: Path) -> None:
    """Rewrites the tables of a checkout: README, and in ``docs`` results, boundary results and conditions, combined."""
    rewrite(root / "README.md", lambda text: with_table(text, short_table()))
    rewrite(root / "docs" / "results.md", lambda text: with_table(text, long_tables()))
    operator_summary.write(root)
    field_summary.write(root)
    study_summary.write(root)


def _number(label: str) -> float:
    return float(label.split("=")[1])


if __name__ == "__main__":
    main(Path(__file__).parents[1])
