"""The boundary-condition results in the README and in ``docs/boundary_results.md``, written from the results that ship.

``python -m experiments.summary`` rewrites both from ``experiments/results/*.json``, which are written by
``python -m experiments.ship_operators``; a test fails while they differ. Experiments that do not ship are left out.
"""

from collections.abc import Sequence
from pathlib import Path

from experiments.documents import fill, marks, rewrite
from experiments.errors import NotShippedError
from experiments.operator_config import SHORT_EXTENSION
from experiments.operator_methods import DEFAULT_NAME, PAPER
from experiments.operator_problems import CASES
from experiments.operator_shipping import ShippedResults, ShippedTraining, best_baseline, read_results
from experiments.storage import write_bytes
from experiments.tables import Row, Score, as_markdown, format_score

BEGIN, END = marks("boundary results")
_HEADINGS = (
    "problem",
    "FNO",
    "best baseline",
    PAPER,
    DEFAULT_NAME,
    "FNO / BOON",
    "baseline / BOON",
    "boundary L2, FNO",
    "boundary L2, BOON",
    "paper's BOON",
)
_SHORT_LEGEND = (
    "Relative L2 ‖u − truth‖/‖truth‖, mean over test samples; mean (standard error) over seeds where there are "
    "several. Best baseline: the one with the lowest error on samples held out, of those that are told of the boundary "
    "as BOON is. FNO / BOON, baseline / BOON: their relative L2 over that of BOON (default); above 1 BOON is better. "
    "In heat independent nothing tells the plain FNO of the boundary data, and its error is that of not knowing them. "
    "Boundary L2: ‖B u − g‖ relative to the norm of its terms, B the value, the one-sided gradient or the mismatch of "
    "periodic ends; 1e-8 is the rounding of float32. Paper's BOON: Saad et al. 2023, in brackets what is known of the "
    "set-up; it takes boundary values from the test target, and its networks and grids are larger than these. "
    "Dimensionless. All rows and scores: [docs/boundary_results.md](docs/boundary_results.md)."
)
_METHODS = f"""| method | what it is |
|---|---|
| FNO | sees the initial field only |
| FNO + boundary channels | the boundary data as input channels |
| FNO + output prescription | `BOON(…, correction=Prescription())` |
| lifting | polynomials that carry the boundary data, plus an FNO times an envelope that vanishes at Dirichlet ends |
| FNO + soft penalty | ‖B u − g‖, relative to the norm of its terms, added to the loss |
| FNO on the circle | an FNO whose Fourier series have the period of the domain, for periodic conditions |
| BOON (paper's form) | `Elimination(block=False)` |
| BOON (default) | `MatchedTransform()`; on the cavity with `length={SHORT_EXTENSION}`, chosen by validation |

Where boundary data are independent of the initial field, all but FNO and the paper's form have them as channels too.
"""


def shipped_results() -> list[ShippedResults]:
    """The results of the boundary-condition experiments that ship, in the order of the experiments."""
    found = []
    for name in CASES:
        try:
            found.append(read_results(name))
        except NotShippedError:
            continue
    return found


def short_table(results: Sequence[ShippedResults]) -> str:
    """The README's table: one line per version of a problem, and what the columns mean; empty without results."""
    lines = [_short_line(shipped, label) for shipped in results for label in _labels(shipped)]
    if not lines:
        return ""
    rule = "|---|" + "---:|" * (len(_HEADINGS) - 1)
    return "\n".join([_line(_HEADINGS), rule, *(_line(cells) for cells in lines), "", _SHORT_LEGEND])


def long_tables(results: Sequence[ShippedResults]) -> str:
    """All rows and scores of all experiments, sizes and times of their trainings."""
    head = (
        "# Boundary-condition results\n\nWritten by `python -m experiments.summary` from the stored results of\n"
        "`python -m experiments run NAME --preset laptop`; `reproduce NAME` scores the operators that ship again.\n"
        "What the corrections are: [boundary_conditions.md](boundary_conditions.md).\n\n" + _METHODS
    )
    return "\n".join([head, *(_experiment(shipped) for shipped in results)])


def write(root: Path) -> None:
    """Rewrites README and ``docs/boundary_results.md`` of a checkout.

    Raises:
        DataFileError: If the README lacks the marks, or results are damaged.
    """
    results = shipped_results()
    rewrite(root / "README.md", lambda text: fill(text, BEGIN, END, short_table(results)))
    write_bytes(root / "docs" / "boundary_results.md", long_tables(results).encode())


def _short_line(shipped: ShippedResults, label: str) -> list[str]:
    rows = {row.method: row for row in shipped.rows if row.parameter == label}
    plain, default = rows["FNO"], rows[DEFAULT_NAME]
    baseline = rows[best_baseline(list(rows.values()))]
    ratios = [row.scores["relative_l2"][0] / default.scores["relative_l2"][0] for row in (plain, baseline)]
    return [
        f"{shipped.experiment.replace('_', ' ')}, {label}",
        _relative_l2(plain),
        f"{_relative_l2(baseline)}, {baseline.method}",
        _relative_l2(rows[PAPER]),
        _relative_l2(default),
        *(format_score((ratio, None)) for ratio in ratios),
        *(format_score(row.scores["boundary_relative"]) for row in (plain, default)),
        _papers(shipped.rows, single="single step" in label),
    ]


def _papers(rows: Sequence[Row], single: bool) -> str:
    """The paper's numbers for one output time or for many, each with what else is known of its set-up."""
    cells = []
    for row in rows:
        if row.source and ("single step" in row.parameter) == single:
            rest = [part for part in row.parameter.split(", ") if part not in ("single step", "many steps")]
            cells.append(f"{_relative_l2(row)} [{', '.join(rest)}]")
    return "; ".join(cells) or "—"


def _experiment(shipped: ShippedResults) -> str:
    title = shipped.experiment.replace("_", " ").capitalize()
    sizes: dict[str, list[str]] = {}
    for label in _labels(shipped):
        first = next(entry for entry in shipped.trainings if entry.parameter == label)
        sizes.setdefault(_sizes(first), []).append(label)
    lines = [f"* {'; '.join(labels)}: {text}." for text, labels in sizes.items()]
    return "\n".join([as_markdown(title, shipped.rows), _training_table(shipped), "", *lines, ""])


def _training_table(shipped: ShippedResults) -> str:
    """Seconds of a training, one line per version and one column per method."""
    names = list(dict.fromkeys(entry.method for entry in shipped.trainings))
    seconds = {(entry.parameter, entry.method): entry.seconds for entry in shipped.trainings}
    lines = [_line(["seconds a training", *names]), "|---|" + "---:|" * len(names)]
    for label in _labels(shipped):
        lines.append(_line([label, *(_seconds(seconds.get((label, name))) for name in names)]))
    processors = ", ".join(dict.fromkeys(name for entry in shipped.trainings for name in entry.processors))
    note = f"Wall time on one thread each, {processors}, with other work beside; mean (standard error) over seeds."
    return "\n".join([*lines, "", note])


def _sizes(training: ShippedTraining) -> str:
    sizes = training.sizes
    return (
        f"{sizes.samples} samples trained on, {sizes.validation} held out, {sizes.test} test samples; {sizes.nodes} "
        f"nodes an axis; {sizes.depth} layers, width {sizes.width}, {sizes.modes} frequencies an axis; {sizes.steps:,} "
        f"steps of {sizes.batch} samples; {sizes.seeds} {'seed' if sizes.seeds == 1 else 'seeds'}"
    )


def _labels(shipped: ShippedResults) -> list[str]:
    """The versions of the problem, in their order."""
    return list(dict.fromkeys(entry.parameter for entry in shipped.trainings))


def _relative_l2(row: Row) -> str:
    return format_score(row.scores["relative_l2"])


def _seconds(score: Score | None) -> str:
    if score is None:
        return "—"
    mean, *error = (f"{value:,.0f}" if value >= 10 else f"{value:.2g}" for value in score if value is not None)
    return mean + "".join(f" ({value})" for value in error)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
