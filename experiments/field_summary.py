"""The results in ``docs/combined.md``, written from the results that ship; see ``experiments.field_shipping``.

``python -m experiments.summary`` rewrites them; a test fails while they differ. What does not ship yet is left out.
"""

from collections.abc import Sequence
from pathlib import Path

from experiments.documents import fill
from experiments.errors import NotShippedError
from experiments.field_experiments import STUDIES
from experiments.field_shipping import FieldResults, read_field_results
from experiments.storage import write_bytes
from experiments.tables import Row, as_markdown, format_score

PAGE = Path("docs") / "combined.md"


def marks(name: str) -> tuple[str, str]:
    """The two marks that the results of an experiment stand between."""
    return f"<!-- {name}: written by python -m experiments.summary -->", f"<!-- end of {name} -->"


def write(root: Path) -> None:
    """Rewrites ``docs/combined.md`` of a checkout.

    Raises:
        DataFileError: If the page lacks the marks, or results are damaged.
    """
    page = root / PAGE
    write_bytes(page, filled(page.read_text(encoding="utf-8")).encode())


def filled(text: str) -> str:
    """A text with the results of every experiment between its marks; nothing where none ship."""
    for name in STUDIES:
        try:
            content = tables(read_field_results(name))
        except NotShippedError:
            content = ""
        text = fill(text, *marks(name), content)
    return text


def tables(results: FieldResults) -> str:
    """The CRPS of all methods side by side, then all scores, then how long trainings took."""
    title = f"{STUDIES[results.experiment].title}, preset {results.preset}, seed {results.seed}"
    full = "\n".join(as_markdown(title, results.rows).splitlines()[2:])
    return "\n\n".join([side_by_side(results.rows, "CRPS"), f"All scores:\n\n{full}", training_lines(results)])


def side_by_side(rows: Sequence[Row], score: str) -> str:
    """One score of all methods, one line for each parameter, the smallest in bold, and how often each is smallest.

    Args:
        rows: The rows; those without the score are left out.
        score: Name of the score.
    """
    scored = [row for row in rows if score in row.scores]
    methods = list(dict.fromkeys(row.method for row in scored))
    lines = [f"| {score} ↓ | " + " | ".join(methods) + " |", "|---|" + "---:|" * len(methods)]
    smallest = dict.fromkeys(methods, 0)
    places = list(dict.fromkeys(row.parameter for row in scored))
    for place in places:
        own = {row.method: row.scores[score] for row in scored if row.parameter == place}
        best = min(own, key=lambda method: own[method][0])
        smallest[best] += 1
        cells = [format_score(own.get(method)) for method in methods]
        cells = [f"**{cell}**" if method == best else cell for method, cell in zip(methods, cells, strict=True)]
        lines.append(f"| {place} | " + " | ".join(cells) + " |")
    counts = ", ".join(f"{method} {count} ×" for method, count in smallest.items() if count)
    return "\n".join([*lines, "", f"Smallest of {len(places)}: {counts}."])


def training_lines(results: FieldResults) -> str:
    """Seconds of a training by case and method; methods with the same trainings once."""
    trainings = {(entry["parameter"], *entry["seconds"]): entry for entry in reversed(results.trainings)}
    lines = [
        f"* {entry['parameter'].replace('_', ' ')}, {entry['method']}: {entry['sizes']['trainings']} trainings of "
        f"{entry['sizes']['steps']:,} steps, {format_score(tuple(entry['seconds']))} s each."
        for entry in reversed(trainings.values())
    ]
    processors = dict.fromkeys(name for entry in results.trainings for name in entry["processors"])
    return "\n".join([*lines, "", f"One thread each, {', '.join(processors)}; mean (standard error)."])
