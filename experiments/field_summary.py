"""The results in ``docs/combined.md``, written from the results that ship; see ``experiments.field_shipping``.

``python -m experiments.summary`` rewrites them; a test fails while they differ. What does not ship yet is left out.
"""

from pathlib import Path

from experiments.documents import fill, marks, rewrite
from experiments.errors import NotShippedError
from experiments.field_experiments import STUDIES
from experiments.field_shipping import FieldResults, read_field_results
from experiments.tables import as_markdown, format_score, side_by_side

PAGE = Path("docs") / "combined.md"


def write(root: Path) -> None:
    """Rewrites ``docs/combined.md`` of a checkout.

    Raises:
        DataFileError: If the page lacks the marks, or results are damaged.
    """
    rewrite(root / PAGE, filled)


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
