"""Studies and the choice of the default in ``docs/boundary_conditions.md``, written from the results that ship.

``python -m experiments.summary`` rewrites them; a test fails while they differ. What does not ship yet is left out.
"""

import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import TypeVar

from experiments.documents import fill, marks, rewrite
from experiments.errors import NotShippedError
from experiments.operator_choice import Choice
from experiments.operator_problems import CASES
from experiments.operator_studies import STUDIES
from experiments.ship_studies import shipped_choice, shipped_study
from experiments.tables import format_score, side_by_side

PAGE = Path("docs") / "boundary_conditions.md"
_CHANNELS = ", channels"
T = TypeVar("T")


def write(root: Path) -> None:
    """Rewrites the tables in ``docs/boundary_conditions.md`` of a checkout.

    Raises:
        DataFileError: If the page lacks the marks, or results are damaged.
    """
    rewrite(root / PAGE, filled)


def filled(text: str) -> str:
    """A text with what ships between its marks."""
    choices = {name: found for name in CASES if (found := _found(shipped_choice, name))}
    text = fill(text, *marks("candidates"), candidate_table(choices) if choices else "")
    for name in STUDIES:
        rows = _found(shipped_study, name)
        text = fill(text, *marks(f"study of {name}"), side_by_side(rows, "relative_l2") if rows else "")
    return text


def candidate_table(choices: dict[str, list[Choice]]) -> str:
    """Validation scores in units of 10⁻³, one line per correction and one column per case, the smallest in bold.

    Args:
        choices: The cases of every experiment. Corrections that boundary channels tell the operator of the boundary
            have columns of their own.
    """
    columns = [
        (f"{name.replace('_', ' ')}, {choice.case}{suffix}", _with_suffix(choice, suffix))
        for name, cases in choices.items()
        for choice in cases
        for suffix in ("", _CHANNELS)
    ]
    columns = [(heading, scores) for heading, scores in columns if scores]
    names = list(dict.fromkeys(name for _, scores in columns for name in scores))
    lines = [f"| | {' | '.join(heading for heading, _ in columns)} |", "|---|" + "---:|" * len(columns)]
    for name in names:
        lines.append(f"| {name} | " + " | ".join(_cell(scores, name) for _, scores in columns) + " |")
    return "\n".join(lines)


def _with_suffix(choice: Choice, suffix: str) -> dict[str, float]:
    """Means over seeds by correction, of those with boundary channels or of those without."""
    chosen = {name: fmean(values) for name, values in choice.scores.items() if (_CHANNELS in name) == bool(suffix)}
    return {name.removesuffix(_CHANNELS): score for name, score in chosen.items()}


def _cell(scores: dict[str, float], name: str) -> str:
    if name not in scores:
        return "—"
    text = format_score((1e3 * scores[name], None)) if math.isfinite(scores[name]) else "failed"
    return f"**{text}**" if scores[name] == min(scores.values()) else text


def _found(read: Callable[[str], list[T]], name: str) -> list[T]:
    try:
        return read(name)
    except NotShippedError:
        return []
