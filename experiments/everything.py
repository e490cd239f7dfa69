"""All experiments one after the other, as many at a time as there are threads: ``run all`` and ``reproduce all``."""

import sys
import time
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from experiments.cluster import ClusterOptions, Failure, run_jobs
from experiments.errors import NotShippedError
from experiments.experiment import Durations, Experiment, Report, RunOptions
from experiments.registry import EXPERIMENTS
from experiments.storage import writable_folder

ALL = "all"
Action = Literal["run", "reproduce"]
DURATIONS: Durations = {"smoke": "4 min", "laptop": "10 h", "reproduce": "12 min"}
"""How long all of them take on two cores: ``reproduce`` measured, the others estimated from the times of each."""


@dataclass(frozen=True, kw_only=True)
class ExperimentJob:
    """One experiment; called in a process of its own.

    Args:
        experiment: The experiment.
        action: What is done with it.
        options: With what.
    """

    experiment: Experiment
    action: Action
    options: RunOptions

    @property
    def label(self) -> str:
        """One line for tables and messages."""
        return f"{self.action} {self.experiment.name}"

    def __call__(self) -> Report | None:
        """Does it on one thread; None if nothing ships that could be reproduced."""
        torch.set_num_threads(1)
        if self.action == "run":
            return self.experiment.run(self.options)
        try:
            return self.experiment.reproduce(self.options)
        except NotShippedError:
            return None


@dataclass
class Everything:
    """Where all experiments ended.

    Args:
        reports: By name, in the order of ``list``; None for those that do not ship.
        failures: Those that failed.
        seconds: Wall time.
    """

    reports: dict[str, Report | None] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Everything for ``--json``."""
        found = {name: report for name, report in self.reports.items() if report}
        return {
            "experiments": [
                {"experiment": name, "folder": str(report.folder), "rows": [row.as_json() for row in report.rows]}
                for name, report in found.items()
            ],
            "not_shipped": [name for name, report in self.reports.items() if report is None],
            "failed": [failed.as_json() for failed in self.failures],
            "seconds": self.seconds,
        }


def do_all(action: Action, options: RunOptions) -> Everything:
    """Runs or reproduces every experiment; each goes on where an earlier start stopped, one that fails stops no other.

    Args:
        action: What is done.
        options: Preset, seed, device and output folder of all.

    Returns:
        Where they ended.

    Raises:
        InvalidArgumentError: If an option belongs to some of the experiments only.
        OutputFolderError: If the folder cannot be written.
    """
    options.refuse("data", "cases", "networks", where="all experiments")
    started, found = time.perf_counter(), dict[str, Report | None]()
    logs = writable_folder(options.out / ALL / "logs")
    jobs = [ExperimentJob(experiment=entry, action=action, options=options) for entry in EXPERIMENTS.values()]
    on_gpu = options.device.startswith("cuda")
    cluster = ClusterOptions(jobs=1 if on_gpu else torch.get_num_threads(), gpus=int(on_gpu))

    def finished(job: ExperimentJob, report: Report | None) -> None:
        found[job.experiment.name] = report
        if report is None:
            print(f"{job.experiment.name} does not ship yet; run trains it.", file=sys.stderr)

    failures = run_jobs(jobs, cluster, logs, finished)
    ordered = {name: found[name] for name in EXPERIMENTS if name in found}
    return Everything(reports=ordered, failures=failures, seconds=time.perf_counter() - started)
