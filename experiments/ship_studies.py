"""Puts the results of a finished study or choice where the library ships them from, and reads them; no weights ship.

python -m experiments.ship_studies study stokes --out results
python -m experiments.ship_studies choice stokes --cases single-0.02 --out results
"""

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from experiments import shipping
from experiments.errors import NotShippedError
from experiments.experiment import Experiment, Report, RunOptions
from experiments.operator_choice import Choice, choice_run
from experiments.operator_problems import boundary_cases
from experiments.operator_run import place_of
from experiments.operator_studies import STUDIES, finish_study, lines_of, study_run
from experiments.runs import Run, digest
from experiments.shipping import finished_metrics, no_results, run_program
from experiments.storage import read_object, write_json
from experiments.tables import Row, rows_from_json


@dataclass(frozen=True, kw_only=True)
class ShippedStudyConfig:
    """Everything that decides what is made of a study that ships.

    Args:
        problem: Name of the experiment.
        rows: Digest of its scores.
    """

    problem: str
    rows: str


def ship_study(name: tyro.conf.Positional[str], out: Path = Path("results"), seed: int = 0) -> Path:
    """Copies the rows of a study in the laptop's sizes.

    Args:
        name: Name of the experiment.
        out: Folder of all stored runs.
        seed: Seed of the study.

    Returns:
        The file that ships.

    Raises:
        UnknownNameError: If the problem is not studied.
        DataFileError: If the study is not finished.
    """
    options = RunOptions(preset="laptop", out=out, seed=seed)
    return _ship(study_run(name, lines_of(name, options), options))


def ship_choice(
    name: tyro.conf.Positional[str],
    cases: tuple[str, ...] = (),
    only: tuple[str, ...] = (),
    seeds: int = 1,
    out: Path = Path("results"),
    seed: int = 0,
) -> Path:
    """Copies the validation scores of the candidates for the default, in the laptop's sizes.

    Args:
        name: Name of the experiment.
        cases: As ``choose`` was told.
        only: As ``choose`` was told.
        seeds: As ``choose`` was told.
        out: Folder of all stored runs.
        seed: Seed of the choice.

    Returns:
        The file that ships.

    Raises:
        UnknownNameError: If there is no such experiment, case or candidate.
        DataFileError: If the choice is not finished.
    """
    options = RunOptions(preset="laptop", cases=cases, out=out, seed=seed)
    return _ship(choice_run(boundary_cases(name, options), place_of(name, options), seeds, only))


def shipped_study(name: str) -> list[Row]:
    """The rows of the study of an experiment.

    Raises:
        NotShippedError: If they do not ship yet.
        DataFileError: If the file is damaged.
    """
    path = _shipped(f"{name}-study")
    return list(rows_from_json(read_object(path), path))


def redraw_study(name: str, out: Path) -> Report:
    """Tables and figure of the study that ships, from its stored scores: nothing is trained or scored.

    Args:
        name: Name of the experiment.
        out: Folder of all stored runs.

    Returns:
        The report.

    Raises:
        UnknownNameError: If the problem is not studied.
        NotShippedError: If no study of it ships.
        DataFileError: If the file is damaged.
    """
    rows = shipped_study(name)
    config = ShippedStudyConfig(problem=name, rows=digest([row.as_json() for row in rows]))
    run = Run(f"{name}-study", config, out)
    run.open()
    return finish_study(run, lines_of(name, RunOptions(preset="laptop")), rows)


def with_study(entry: Experiment) -> Experiment:
    """The experiment; where a study of it ships, ``reproduce`` of all its cases makes the study's tables and figure."""

    def reproduce(options: RunOptions) -> Report:
        report = entry.reproduce(options)
        if options.cases or not _path(f"{entry.name}-study").is_file():
            return report
        study = redraw_study(entry.name, options.out)
        return replace(report, tables=[*report.tables, *study.tables], figures=[*report.figures, *study.figures])

    return replace(entry, reproduce=reproduce) if entry.name in STUDIES else entry


def shipped_choice(name: str) -> list[Choice]:
    """The validation scores of the candidates on the cases of an experiment; errors as ``shipped_study``."""
    path = _shipped(f"{name}-choice")
    content = read_object(path)
    try:
        return [Choice.from_json(case) for case in content["cases"]]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise no_results(path, error) from error


def _ship(run: Run) -> Path:
    _, content = finished_metrics(run)
    path = _path(run.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**content, "preset": "laptop"})
    return path


def _shipped(name: str) -> Path:
    path = _path(name)
    if not path.is_file():
        raise NotShippedError(f"There is no '{path}'; python -m experiments.ship_studies puts it there.")
    return path


def _path(name: str) -> Path:
    return shipping.ROOT / "results" / "studies" / f"{name}.json"


if __name__ == "__main__":
    run_program(lambda: print(tyro.extras.subcommand_cli_from_dict({"study": ship_study, "choice": ship_choice})))
