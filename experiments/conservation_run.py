"""A conservation experiment from options to report: evaluate every test parameter, store, tabulate, draw.

Every stage writes its arrays when it is done, so an interrupted run goes on where it stopped.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from experiments.checks import chosen_names
from experiments.config import ConservationConfig, conservation_config
from experiments.conservation import Case
from experiments.conservation_figures import draw_case
from experiments.errors import InvalidArgumentError
from experiments.evaluation import ON_CELLS, curves, evaluate, evaluate_on_cells, local_conservation
from experiments.experiment import Durations, Experiment, Report, RunOptions
from experiments.networks import data_of, pretrained_path, roles, trained_network
from experiments.runs import Run
from experiments.shift import displacement, repaired, shift_scores
from experiments.stages import one_thread, stage_progress, write_tables
from experiments.storage import Arrays, cached_arrays, checksum, writable_folder
from experiments.tables import COLUMNS, Row, Score, paper_rows
from probconserv import ANP, Ensemble, GPSurrogate, Surrogate, scores
from probconserv.surrogates.gp import GPConfig
from probconserv.surrogates.weights import read_weights
from solvers.problems import Problem

Stage = Callable[[Case], Arrays]
STAGES: dict[str, Stage] = {
    "scores": evaluate,
    "cells": evaluate_on_cells,
    "curves": curves,
    "local": local_conservation,
}


def conservation_experiment(
    problem: Problem,
    summary: str,
    gp: GPConfig,
    durations: Durations,
    extra_figures: Callable[[Path], list[Path]] = lambda folder: [],  # noqa: ARG005 - none by default
    networks: bool = True,
) -> Experiment:
    """The experiment of one problem, of the library or of one's own; ``registry.register`` puts it on the command line.

    Args:
        problem: The problem.
        summary: One line for ``list``.
        gp: The Gaussian process that suits it.
        durations: Measured time of every preset, and of ``reproduce``.
        extra_figures: Draws figures of the problem that no surrogate is needed for into the folder of the run.
        networks: Whether neural processes are trained too; they find the problem by its name in ``solvers.PROBLEMS``.
            Without them the table has the rows of the Gaussian process, and ``reproduce`` has nothing to load.

    Returns:
        The experiment.
    """

    def names(options: RunOptions) -> tuple[str, ...]:
        return chosen_networks(roles(problem.name, data_of(problem.name, options)) if networks else (), options)

    def execute(options: RunOptions, files: dict[str, Path], identities: dict[str, str]) -> Report:
        config = conservation_config(problem.name, options, data_of(problem.name, options), gp, identities)
        surrogates = black_boxes(problem.name, config, files)
        report = run_conservation(problem, config, surrogates, options.out, options.device, trainings(files))
        return replace(report, figures=[*report.figures, *extra_figures(report.folder)])

    def run(options: RunOptions) -> Report:
        options.refuse("cases", where="conservation experiments")
        writable_folder(options.out)
        files = {role: trained_network(problem.name, role, options) for role in names(options)}
        return execute(options, files, {role: file.parent.name for role, file in files.items()})

    def reproduce(options: RunOptions) -> Report:
        files = {role: pretrained_path(problem.name, role) for role in names(RunOptions())}
        return execute(options, files, {role: checksum(file) for role, file in files.items()})

    return Experiment(name=problem.name, summary=summary, durations=durations, run=run, reproduce=reproduce)


def chosen_networks(known: tuple[str, ...], options: RunOptions) -> tuple[str, ...]:
    """Those of the networks that the options name, or all.

    Raises:
        UnknownNameError: If a name is none of theirs.
        InvalidArgumentError: If one of them is of no use without another.
    """
    chosen = chosen_names("network", options.networks, known)
    if "edge" in chosen and "anp" not in chosen:
        raise InvalidArgumentError("The network 'edge' only says how unsure 'anp' is out of range; name both.")
    return chosen


def black_boxes(problem: str, config: ConservationConfig, files: dict[str, Path]) -> dict[str, Surrogate]:
    """The surrogates of an experiment by the names that ``experiments.methods`` knows.

    Args:
        problem: Name of the problem.
        config: Holds the Gaussian process.
        files: Weights by name of the network.

    Returns:
        Gaussian process, networks, and their ensemble.
    """
    networks = {role: ANP.load(file, problem) for role, file in files.items()}
    members = [network for role, network in networks.items() if role.startswith("member-")]
    single: dict[str, Surrogate] = {role: net for role, net in networks.items() if not role.startswith("member-")}
    ensemble = {"ensemble": Ensemble(members, own_variance=True)} if members else {}
    return {"gp": GPSurrogate(config.gp), **single, **ensemble}


def trainings(files: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Optimiser steps, wall time in seconds and seed of every network's training, by its name."""
    notes = {role: read_weights(file, kind="ANP").notes for role, file in files.items()}
    return {
        role: {
            "steps": note["last"]["step"],
            "seconds": round(note["seconds"], 1),
            "seed": note["training"]["training"]["seed"],
        }
        for role, note in notes.items()
    }


def run_conservation(
    problem: Problem,
    config: ConservationConfig,
    surrogates: dict[str, Surrogate],
    out: Path,
    device: str = "cpu",
    networks: dict[str, dict[str, float]] | None = None,
) -> Report:
    """Runs all stages of all test parameters, or reads what is stored, and writes tables and figures.

    Args:
        problem: The problem.
        config: Everything that decides the result.
        surrogates: The black boxes that the config stands for.
        out: Folder of all stored runs.
        device: Torch device of the surrogates.
        networks: How the networks were trained, stored with the metrics; see ``trainings``.

    Returns:
        The report.

    Raises:
        OutputFolderError: If the folder cannot be written.
    """
    run = Run(problem.name, config, out)
    folder = run.open()
    case = Case(problem, problem.test_parameters[0], config, out / "data", surrogates, device)
    if "edge" in surrogates:
        with one_thread():
            learnt = cached_arrays(folder / "shift.h5", lambda: shift_scores(case))
        case = replace(case, displacement=displacement(learnt), surrogates=repaired(surrogates, learnt))
    cases = [replace(case, parameter=parameter) for parameter in problem.test_parameters]
    stored = run_stages(cases, folder)
    rows = [row for case in cases for row in _rows(case, stored[case.label]["scores"] | stored[case.label]["cells"])]
    run.finish(
        {
            "experiment": problem.name,
            "seed": config.seed,
            "functions": config.functions,
            "displacement": case.displacement,
            "networks": networks or {},
            "rows": [row.as_json() for row in rows],
        }
    )
    name = problem.name.replace("_", " ").capitalize()
    title = f"{name}, t = {problem.test_time:g}, {config.functions} functions, context from {config.data} data"
    drawn = [file for case in cases for file in draw_case(case, stored[case.label], folder)]
    return Report(title=title, rows=rows, folder=folder, tables=write_tables(folder, title, rows), figures=drawn)


def run_stages(cases: list[Case], folder: Path) -> dict[str, dict[str, Arrays]]:
    """Runs every stage of every case, or reads what is stored.

    Args:
        cases: The test cases.
        folder: Folder of the run; each finished stage is a file in it.

    Returns:
        Arrays by the case's label, then by the stage.
    """
    stored: dict[str, dict[str, Arrays]] = {case.label: {} for case in cases}
    with stage_progress(len(cases) * len(STAGES)) as begin, one_thread():
        for case in cases:
            for name, stage in STAGES.items():
                begin(f"{case.problem.name} {case.label}: {name}")
                path = folder / f"{name}-{case.parameter:g}.h5"
                stored[case.label][name] = cached_arrays(path, lambda stage=stage, case=case: stage(case))
    return stored


def _rows(case: Case, arrays: Arrays) -> list[Row]:
    """The truth's own conservation error, our methods, and the papers' rows."""
    rows = [Row(case.label, "truth", {"CE": (float(arrays["truth|CE"].mean()), 0.0)})]
    for method in (*case.methods, *(f"{name} (cell averages)" for name in ON_CELLS if name in case.methods)):
        pairs = {name: _score(name, arrays[f"{method}|{name}"]) for name in COLUMNS if f"{method}|{name}" in arrays}
        known = {name: pair for name, pair in pairs.items() if not math.isnan(pair[0])}
        rows.append(Row(case.label, method, known))
    return rows + paper_rows(case.problem.name, case.label)


def _score(name: str, values: np.ndarray) -> Score:
    """Mean and standard error over functions, of shock positions over the functions that have one; none of one."""
    per_function = torch.from_numpy(values)
    if name in ("shock", "spread"):
        per_function = per_function[~per_function.isnan()]
    mean, error = scores.mean_and_standard_error(per_function)
    return mean, None if math.isnan(error) else error
