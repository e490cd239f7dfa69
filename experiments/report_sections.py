"""What the results page says of every experiment: results that ship or were stored, figures, and how to make them."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiments.field_experiments import STUDIES as FIELD_STUDIES
from experiments.field_figures import colour_of_field
from experiments.figures import colour_of
from experiments.operator_figures import COLOURS, NAMES
from experiments.operator_problems import CASES
from experiments.operator_studies import STUDIES
from experiments.registry import EXPERIMENTS
from experiments.report_figures import Source, sources
from experiments.report_tables import CORE, PageTable, of_paper, result_tables
from experiments.ship_seeds import shipped_seeds
from experiments.storage import read_object
from experiments.tables import Row, beside_paper, legend, paper_rows, rows_from_json
from solvers.problems import PROBLEMS

Kind = Literal["law", "boundary", "both"]
"""What an experiment is about: a conservation law, boundary conditions, or both on one prediction."""
SAME = 0.01  # relative difference of scores that another machine may make
_TRUTH = "truth"
_RELATIONS = {
    "same": "whose scores are those of the tables",
    "scored again": "which scored the trained models that ship, of the first seed",
    "other": "whose scores are not those of the tables: it is of another preset or version",
}


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command that makes results of an experiment.

    Args:
        text: What to type.
        purpose: What it does.
        duration: How long it takes; empty if that was not measured.
    """

    text: str
    purpose: str
    duration: str = ""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One experiment on the page.

    Args:
        name: Name of its stored runs.
        title: Its title.
        summary: One line.
        commands: How to make its results.
        content: Its stored results; empty if there are none.
        rows: Our rows with the paper's numbers beside them.
        labels: What captions call a parameter or version, by what rows and file names call it.
        tables: Its tables.
        over_seeds: The same over several seeds; empty if no such table ships.
        shipped: Whether the tables are those that ship.
        run: Folder of the stored run that figures, and tables that do not ship, are from; None if there is none.
        relation: How that run stands to the tables, as the page says it.
        figures: Its figures.
    """

    name: str
    title: str
    summary: str
    commands: tuple[Command, ...]
    content: dict[str, Any]
    rows: tuple[Row, ...]
    labels: dict[str, str]
    tables: tuple[PageTable, ...]
    over_seeds: tuple[PageTable, ...]
    shipped: bool
    run: Path | None
    relation: str
    figures: tuple[Source, ...]

    @property
    def kind(self) -> Kind:
        """What it is about."""
        return kind_of(self.name)

    @property
    def remedy(self) -> Command:
        """What to run where figures or tables are missing."""
        first, second, *_ = self.commands
        return first if first.text.startswith(_typed("reproduce ")) else second

    @property
    def legend(self) -> str:
        """What the columns mean."""
        return legend(self.rows)

    @property
    def setting(self) -> str:
        """Date, machine and revision of the results, as far as they were stored."""
        stored = self.content.get("environment", {})
        parts = (stored.get("date", "")[:10], stored.get("machine", {}).get("processor"), stored.get("revision"))
        return ", ".join(str(part) for part in parts if part)


def page_sections(out: Path, shipped: Path) -> list[Section]:
    """All experiments in the order of ``list``, and of studies those that have results.

    Args:
        out: Folder of all stored runs; it need not exist.
        shipped: Folder of the results that ship.

    Raises:
        DataFileError: If stored results are damaged.
    """
    found = []
    for name, entry in EXPERIMENTS.items():
        title = NAMES[name].title if name in NAMES else name.replace("_", " ").capitalize()
        start, _, rest = entry.summary.partition(": ")
        summary = rest if rest and start.startswith(title) else entry.summary
        found.append(_section(name, title, summary, _commands(name, out, shipped), (out, shipped)))
        if name in STUDIES:
            redrawn = Command(text=_typed(f"reproduce {name}", out), purpose="draws the study that ships as well")
            commands = [redrawn] if (shipped / "studies" / f"{name}-study.json").is_file() else []
            commands += [
                Command(text=_typed(f"study {name} --preset {preset}", out), purpose=purpose)
                for preset, purpose in (("smoke", "to see it work"), ("laptop", "trains on two cores"))
            ]
            summary = "few samples, boundary values outside the training range, grids not trained on"
            study = _section(f"{name}-study", f"{title}: study", summary, commands, (out, shipped / "studies"))
            found += [study] if study.rows else []
    return found


def kind_of(name: str) -> Kind:
    """What an experiment, or a study of one, is about."""
    return "law" if name in PROBLEMS else "both" if name in FIELD_STUDIES else "boundary"


def _section(name: str, title: str, summary: str, commands: list[Command], places: tuple[Path, Path]) -> Section:
    out, shipped = places
    stored = shipped / f"{name}.json"
    content = read_object(stored) if stored.is_file() else {}
    rows = rows_from_json(content, stored) if content else []
    run, relation = _run(out / name, rows)
    if not rows and run is not None:
        metrics = run / "metrics.json"
        content = read_object(metrics)
        rows = rows_from_json(content, metrics)
    labels = _labels(name)
    merged = beside_paper(rows)
    return Section(
        name=name,
        title=title,
        summary=summary,
        commands=tuple(commands),
        content=content,
        rows=tuple(merged),
        labels=labels,
        tables=tuple(_tables(name, title, merged, labels)),
        over_seeds=tuple(_over_seeds(name, title, labels, shipped / "seeds")),
        shipped=stored.is_file(),
        run=run,
        relation=relation,
        figures=tuple(sources(run, labels)) if run is not None else (),
    )


def _tables(name: str, title: str, rows: Sequence[Row], labels: dict[str, str]) -> list[PageTable]:
    colours = {row.method: _colour(name, row.method) for row in rows}
    return result_tables(title, rows, labels, colours, CORE[kind_of(name)])


def _over_seeds(name: str, title: str, labels: dict[str, str], folder: Path) -> list[PageTable]:
    """Mean and standard deviation over seeds, with the paper's numbers beside them."""
    table = shipped_seeds(name, folder)
    if table is None:
        return []
    parameters = dict.fromkeys(row.parameter for row in table.rows)
    papers = [row for parameter in parameters for row in paper_rows(name, parameter)]
    rows = [row for row in beside_paper([*table.rows, *papers]) if not of_paper(row)]
    seeds = f"mean over the seeds {', '.join(str(seed) for seed in table.seeds)}"
    return _tables(name, f"{title}, {seeds}", rows, labels)


def _commands(name: str, out: Path, shipped: Path) -> list[Command]:
    """How to make results: ``reproduce`` first where models ship, which those of all conservation laws do."""
    durations = EXPERIMENTS[name].readable_durations
    purposes = {
        "smoke": "from nothing, small, to see it work",
        "laptop": "from nothing: data, training, scores",
        "paper": "from nothing, in the authors' sizes",
    }
    scored = Command(
        text=_typed(f"reproduce {name}", out),
        purpose="scores the trained models that ship",
        duration=durations["reproduce"],
    )
    trained = [
        Command(text=_typed(f"run {name} --preset {preset}", out), purpose=purpose, duration=durations[preset])
        for preset, purpose in purposes.items()
    ]
    return [scored, *trained] if name in PROBLEMS or (shipped / f"{name}.json").is_file() else trained


def _typed(words: str, out: Path = Path("results")) -> str:
    folder = "" if out == Path("results") else f" --out {shlex.quote(str(out))}"
    return f"python -m experiments {words}{folder}"


def _labels(name: str) -> dict[str, str]:
    """Parameters and versions in words, by their names in rows and in the names of figures."""
    if name in PROBLEMS:
        problem = PROBLEMS[name]
        low, high = problem.training_range
        words = {
            value: f"{problem.symbol} = {value:g}" + ("" if low <= value <= high else " (out of the training range)")
            for value in problem.test_parameters
        }
        return {f"{value:g}": text for value, text in words.items()} | {
            f"{problem.symbol}={value:g}": text for value, text in words.items()
        }
    if name in FIELD_STUDIES:
        cases = FIELD_STUDIES[name].cases
        words = {case.name: case.name.replace("_", " ").capitalize() for case in cases}
        return words | {
            f"{case.name}-{number}": f"{words[case.name]}, {interval}"
            for case in cases
            for number, interval in enumerate(case.ranges)
        }
    cases = [case for preset in ("smoke", "laptop", "paper") for case in CASES.get(name, lambda _: ())(preset)]
    return {case.name: case.label for case in cases}


def _colour(name: str, method: str) -> str:
    if method == _TRUTH:
        return ""
    return colour_of_field(method) if kind_of(name) == "both" else COLOURS.get(method, colour_of(method))


def _run(folder: Path, rows: Sequence[Row]) -> tuple[Path | None, str]:
    """The newest finished run with the scores of the rows, else one that scored what ships, else the newest."""
    finished = sorted(folder.glob("*/metrics.json"), key=lambda path: path.stat().st_mtime, reverse=True)
    found = {path.parent: rows_from_json(read_object(path), path) for path in finished}
    relations = {run: _relation(rows, own) for run, own in found.items()}
    best = min(relations, key=lambda run: list(_RELATIONS).index(relations[run]), default=None)
    return best, _RELATIONS[relations[best]] if best is not None else ""


def _relation(rows: Sequence[Row], others: Sequence[Row]) -> str:
    copies = [row for row in others if row.source.startswith("stored run")]
    own = [row for row in others if not row.source.startswith("stored run")]
    if not rows or _agree(rows, own):
        return "same"
    return "scored again" if copies and _agree(rows, copies) else "other"


def _agree(stored: Sequence[Row], others: Sequence[Row]) -> bool:
    """Whether rows of the same parameter and method have the same errors, as far as both are there."""
    errors = [_errors(rows) for rows in (stored, others)]
    shared = errors[0].keys() & errors[1].keys()
    return bool(shared) and all(
        any(abs(a - b) <= SAME * abs(a) for a in errors[0][key] for b in errors[1][key]) for key in shared
    )


def _errors(rows: Sequence[Row]) -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        for name in ("MSE", "relative_l2"):
            if name in row.scores and not of_paper(row):
                found.setdefault((row.parameter, row.method), []).append(row.scores[name][0])
    return found
