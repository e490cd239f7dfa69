"""Experiments on several seeds and presets as jobs, and the tables over seeds; finished ones are not run again."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

import boon
import experiments
import probconserv
import solvers
from experiments.cluster import ClusterOptions, Failure, run_jobs
from experiments.errors import DataFileError, InvalidArgumentError
from experiments.experiment import Data, Experiment, Preset, RunOptions
from experiments.registry import experiment
from experiments.runs import digest, source_digest
from experiments.storage import read_object, writable_folder, write_json
from experiments.sweep_table import SeedTable, seed_table
from experiments.tables import Row, rows_from_json


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """What every experiment of a sweep is run with.

    Args:
        seeds: Seeds, each a run of its own.
        preset: Sizes of the runs; several make runs of each.
        data: As for ``run``.
        device: Torch device of surrogates and trainings.
        out: Folder of all stored runs, on a cluster one that all nodes share.
        cases: As for ``run``.
        networks: As for ``run``.

    Raises:
        InvalidArgumentError: If there is no seed or no preset.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    preset: tuple[Preset, ...] = ("smoke",)
    data: Data | None = None
    device: str = "cpu"
    out: Path = Path("results")
    cases: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.seeds or not self.preset:
            raise InvalidArgumentError("A sweep needs at least one of --seeds and one of --preset.")


@dataclass(frozen=True, kw_only=True)
class SweepJob:
    """One run of a sweep; called in a process of its own.

    Args:
        experiment: What is run.
        seed: Its seed.
        preset: Its size.
        options: All else.
        threads: Threads of the process.
    """

    experiment: Experiment
    seed: int
    preset: Preset
    options: SweepOptions
    threads: int = 1

    @property
    def label(self) -> str:
        """One line for tables and messages."""
        return f"{self.experiment.name}, {self.preset}, seed {self.seed}"

    @cached_property
    def record(self) -> Path:
        """Where the sweep notes the folder of the run: by its options and the library's code.

        After any change of the code the run is started again, and finds by itself what it can still use.
        """
        options = self.options
        chosen = [options.data, list(options.cases), list(options.networks)]
        code = source_digest(boon, experiments, probconserv, solvers)
        decisive = [self.experiment.name, self.preset, self.seed, *chosen, code]
        return sweeps_folder(options.out) / "runs" / f"{self.experiment.name}-{self.seed}-{digest(decisive)}.json"

    def run_options(self) -> RunOptions:
        """The options of ``run``; checks that the device is there."""
        options = self.options
        return RunOptions(
            preset=self.preset,
            data=options.data,
            seed=self.seed,
            device=options.device,
            out=options.out,
            cases=options.cases,
            networks=options.networks,
        )

    def __call__(self) -> str:
        """Runs the experiment; returns the folder of the run."""
        torch.set_num_threads(self.threads)
        return str(self.experiment.run(self.run_options()).folder)

    def note(self, folder: str) -> None:
        """Notes that the job is finished."""
        writable_folder(self.record.parent)
        write_json(self.record, {"job": self.label, "folder": folder})

    def metrics(self) -> dict[str, Any] | None:
        """What the stored run holds of scores; None if it is not finished, or what was stored cannot be read."""
        try:
            return read_object(Path(read_object(self.record)["folder"]) / "metrics.json")
        except (DataFileError, KeyError, TypeError):
            return None

    def rows(self) -> list[Row] | None:
        """The rows of ``metrics``; None without any."""
        try:
            return rows_from_json(self.metrics() or {}, self.record)
        except DataFileError:
            return None


@dataclass(frozen=True)
class SweepResult:
    """Where a sweep ended.

    Args:
        tables: One per experiment and preset, over the seeds that are finished.
        files: Table files.
        failures: Jobs that failed.
    """

    tables: list[SeedTable]
    files: list[Path] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Everything for ``--json``."""
        return {
            "experiments": [table.as_json() for table in self.tables],
            "files": [str(file) for file in self.files],
            "failed": [entry.as_json() for entry in self.failures],
        }


def sweeps_folder(out: Path) -> Path:
    """Where sweeps keep their tables, logs and notes."""
    return out / "sweeps"


def sweep(names: Sequence[str], options: SweepOptions, cluster: ClusterOptions) -> SweepResult:
    """Runs every experiment with every seed and preset, or reads what is finished, and writes tables over seeds.

    Args:
        names: Names of experiments.
        options: Seeds, presets and all else of a run.
        cluster: Where the jobs run.

    Returns:
        Tables, files, and which jobs failed.

    Raises:
        InvalidArgumentError: If an option does not fit.
        UnknownNameError: If there is no such experiment.
        OutputFolderError: If the folder cannot be written.
    """
    if not names:
        raise InvalidArgumentError("A sweep needs the name of at least one experiment.")
    cluster = replace(cluster, gpus=max(cluster.gpus, int(options.device.startswith("cuda"))))
    jobs = [
        SweepJob(experiment=experiment(name), seed=seed, preset=preset, options=options, threads=cluster.cpus)
        for name in dict.fromkeys(names)
        for preset in dict.fromkeys(options.preset)
        for seed in dict.fromkeys(options.seeds)
    ]
    if cluster.cluster == "local":
        jobs[0].run_options()
    folder = writable_folder(sweeps_folder(options.out))
    found = [(job, job.rows()) for job in jobs]
    missing = [job for job, rows in found if rows is None]
    stored = [job.label for job, rows in found if rows is not None]
    failures = run_jobs(missing, cluster, folder / "logs", SweepJob.note, stored) if missing else []
    tables = _tables([(job, job.rows() if rows is None else rows) for job, rows in found])
    place = writable_folder(folder / digest([job.record.stem for job in jobs]))
    return SweepResult(tables, [file for table in tables for file in table.write(place)], failures)


def _tables(found: Sequence[tuple[SweepJob, list[Row] | None]]) -> list[SeedTable]:
    """One table per experiment and preset that has a finished run, from the rows of all jobs."""
    runs: dict[tuple[str, str], dict[int, list[Row]]] = {}
    for job, rows in found:
        if rows is not None:
            runs.setdefault((job.experiment.name, job.preset), {})[job.seed] = rows
    return [seed_table(name, preset, own) for (name, preset), own in runs.items()]
