"""A conservation experiment from options to report: evaluate every test parameter, store, tabulate, draw.

Every stage writes its arrays when it is done, so an interrupted run goes on where it stopped.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from experiments import figures, tables
from experiments.config import ConservationConfig, conservation_config
from experiments.conservation import VARIANTS, Case, evaluate, local_conservation, mass_curves
from experiments.experiment import Experiment, Preset, Report, RunOptions
from experiments.runs import Run
from experiments.storage import Arrays, cached_arrays, write_bytes
from experiments.tables import COLUMNS, Row, Score, paper_rows
from probconserv import scores
from probconserv.gp import GPConfig
from solvers.problems import Problem

Stage = Callable[[Case], Arrays]
STAGES: dict[str, Stage] = {"scores": evaluate, "masses": mass_curves, "local": local_conservation}


def conservation_experiment(
    problem: Problem,
    summary: str,
    gp: GPConfig,
    durations: dict[Preset, str],
    extra_figures: Callable[[Path], list[Path]] = lambda folder: [],  # noqa: ARG005 - none by default
) -> Experiment:
    """The experiment of one problem.

    Args:
        problem: The problem.
        summary: One line for ``list``.
        gp: The Gaussian process that suits it.
        durations: Measured time of every preset.
        extra_figures: Draws figures of the problem that no surrogate is needed for into the folder of the run.

    Returns:
        The experiment.
    """

    def run(options: RunOptions) -> Report:
        config = conservation_config(problem.name, options, gp)
        report = run_conservation(problem, config, options.out, options.device)
        return replace(report, figures=[*report.figures, *extra_figures(report.folder)])

    return Experiment(name=problem.name, summary=summary, durations=durations, run=run)


def run_conservation(problem: Problem, config: ConservationConfig, out: Path, device: str = "cpu") -> Report:
    """Runs all stages of all test parameters, or reads what is stored, and writes tables and figures.

    Args:
        problem: The problem.
        config: Everything that decides the result.
        out: Folder of all stored runs.
        device: Torch device of the surrogate.

    Returns:
        The report.

    Raises:
        OutputFolderError: If the folder cannot be written.
    """
    run = Run(problem.name, config, out)
    folder = run.open()
    cases = [Case(problem, parameter, config, out / "data", device) for parameter in problem.test_parameters]
    stored = run_stages(cases, folder)
    rows = [row for case in cases for row in _rows(case, stored[case.label, "scores"])]
    run.finish({"experiment": problem.name, "rows": [row.as_json() for row in rows]})
    title = (
        f"{_heading(problem)}, t = {problem.test_time:g}, {config.functions} functions, context from {config.data} data"
    )
    drawn = [file for case in cases for file in _draw(case, stored, folder)]
    return Report(title=title, rows=rows, folder=folder, tables=_write_tables(folder, title, rows), figures=drawn)


def run_stages(cases: list[Case], folder: Path) -> dict[tuple[str, str], Arrays]:
    """Runs every stage of every case, or reads what is stored.

    Args:
        cases: The test cases.
        folder: Folder of the run; each finished stage is a file in it.

    Returns:
        Arrays by the case's label and the stage.
    """
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    stored = {}
    with Progress(*columns, console=Console(stderr=True)) as progress, _one_thread():
        task = progress.add_task("", total=len(cases) * len(STAGES))
        for case in cases:
            for name, stage in STAGES.items():
                progress.update(task, description=f"{case.problem.name} {case.label}: {name}")
                path = folder / f"{name}-{case.parameter:g}.h5"
                stored[case.label, name] = cached_arrays(path, lambda stage=stage, case=case: stage(case))
                progress.advance(task)
    return stored


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch on one thread inside: the batches of small matrices here cost more to share than to compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _rows(case: Case, arrays: Arrays) -> list[Row]:
    """The truth's own conservation error, our variants, and the papers' rows."""
    rows = [Row(case.label, "truth", {"CE": (float(arrays["truth|CE"].mean()), 0.0)})]
    for variant in VARIANTS:
        pairs: dict[str, Score] = {
            name: scores.mean_and_standard_error(torch.from_numpy(arrays[f"{variant}|{name}"]))
            for name in COLUMNS
            if f"{variant}|{name}" in arrays
        }
        rows.append(Row(case.label, variant, pairs))
    return rows + paper_rows(case.problem.name, case.label)


def _write_tables(folder: Path, title: str, rows: list[Row]) -> list[Path]:
    contents = {
        "table.md": tables.as_markdown(title, rows),
        "table.csv": tables.as_csv(rows),
        "table.json": tables.as_json(rows),
    }
    for name, content in contents.items():
        write_bytes(folder / name, content.encode())
    return [folder / name for name in contents]


def _draw(case: Case, stored: dict[tuple[str, str], Arrays], folder: Path) -> list[Path]:
    arrays, masses, local = (stored[case.label, stage] for stage in STAGES)
    problem, time = case.problem, case.problem.test_time
    title = f"{_heading(problem)}, {case.label}"
    near = np.abs(arrays["context"][:, 0] - time)
    context = arrays["context"][near == near.min()]
    drawings = {
        "profile": figures.profiles(
            arrays["places"],
            arrays["truth"],
            _profiles(arrays),
            f"{title}, t = {time:g}",
            (context[:, 1], context[:, 2]),
        ),
        "mass": figures.masses(masses["times"], masses["law"], {name: masses[name] for name in VARIANTS}, title),
        "local": figures.profiles(
            local["places"], local["truth"], _profiles(local), f"{title}, t = {time:g}: global and local conservation"
        ),
    }
    if problem.front is not None:
        drawings["front"] = figures.shock_histograms(
            {name: arrays[f"{name}|fronts"] for name in VARIANTS},
            float(problem.front(time, case.parameter)),
            problem.domain,
            f"{title}, t = {time:g}",
        )
    return [
        file
        for name, figure in drawings.items()
        for file in figures.save(figure, folder / f"{name}-{case.parameter:g}")
    ]


def _heading(problem: Problem) -> str:
    return problem.name.replace("_", " ").capitalize()


def _profiles(arrays: Arrays) -> dict[str, figures.Profile]:
    names = [key.removesuffix("|mean") for key in arrays if key.endswith("|mean")]
    return {name: figures.Profile(arrays[f"{name}|mean"], arrays[f"{name}|deviation"]) for name in names}
