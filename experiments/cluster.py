"""Jobs side by side on this machine or through SLURM, by submitit: bounded, shown in a table, each with its log."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import submitit
import torch
from rich.console import Console
from rich.live import Live
from rich.table import Table
from submitit.helpers import DelayedSubmission

from experiments.errors import InvalidArgumentError, JobsFailedError
from experiments.storage import writable_folder

REQUEUES = 100
"""How often a job that reached its time limit is queued again; it goes on from its checkpoints."""
_POLL = 0.2  # seconds
_PATIENCE = 120.0  # seconds that interrupted jobs have to write checkpoints
_LOCAL_HOURS = 24.0 * 365


class Work(Protocol):
    """What a job does: a callable that can be pickled and says what it is."""

    @property
    def label(self) -> str:
        """One line for tables and messages."""
        ...

    def __call__(self) -> Any:
        """Does it, in the job's process."""
        ...


@dataclass(frozen=True)
class Job:
    """A work with a note of the process that does it.

    Args:
        work: The work.
        note: File that holds the number of the process.
    """

    work: Work
    note: Path

    @property
    def process(self) -> int | None:
        """Number of the process; None before it has begun."""
        text = self.note.read_text() if self.note.exists() else ""
        return int(text) if text else None

    def __call__(self) -> Any:
        """Notes the process, lets it be interrupted, which it is not by birth, and does the work."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self.note.write_text(str(os.getpid()))
        return self.work()

    def checkpoint(self) -> DelayedSubmission:
        """What is queued again at the time limit: the same, since works go on from their files."""
        return DelayedSubmission(self)

    def send(self, sign: signal.Signals) -> None:
        """Sends the process a signal, if there is one."""
        process = self.process
        if process is not None:
            with suppress(ProcessLookupError):
                os.kill(process, sign)


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Where jobs run, and what each may take.

    Args:
        cluster: ``local``: processes of this machine; ``slurm``: jobs of the cluster.
        jobs: Most jobs at a time; by default 1 locally and all through SLURM.
        hours: Time limit of a job; through SLURM 24 by default, after which it is queued again and goes on. Locally
            none by default.
        cpus: Cores, and threads, of a job.
        gpus: GPUs of a job; 1 where ``--device`` is a GPU.
        memory: Memory of a job in GB, through SLURM; by default what the cluster gives.
        partition: SLURM partition.
        account: SLURM account.

    Raises:
        InvalidArgumentError: If a number is out of range.
    """

    cluster: Literal["local", "slurm"] = "local"
    jobs: int | None = None
    hours: float | None = None
    cpus: int = 1
    gpus: int = 0
    memory: float | None = None
    partition: str | None = None
    account: str | None = None

    def __post_init__(self) -> None:
        for name, least in {"jobs": 1, "cpus": 1, "gpus": 0}.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise InvalidArgumentError(f"--{name} must be at least {least}, got {value}.")
        for name in ("hours", "memory"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InvalidArgumentError(f"--{name} must be positive, got {value:g}.")

    def executor(self, folder: Path, name: str) -> submitit.Executor:
        """What jobs are handed to.

        Args:
            folder: Where submitted jobs and their logs are kept.
            name: Name of the jobs in the queue.

        Raises:
            InvalidArgumentError: If there is no SLURM here.
        """
        limits: dict[str, Any] = {f"{cluster}_max_num_timeout": REQUEUES for cluster in ("local", "slurm")}
        try:
            executor = submitit.AutoExecutor(folder, cluster=self.cluster, **limits)
        except RuntimeError as error:
            raise InvalidArgumentError(
                f"--cluster slurm cannot be used here ({error}); start the sweep on a login node, or take local."
            ) from error
        hours = self.hours or (_LOCAL_HOURS if self.cluster == "local" else 24.0)
        executor.update_parameters(
            name=name,
            timeout_min=max(1, round(60 * hours)),
            cpus_per_task=self.cpus,
            gpus_per_node=self.gpus,
            mem_gb=self.memory,
            local_setup=[f"export CUDA_VISIBLE_DEVICES={_own_gpus()}"] if self.gpus else [],
            slurm_partition=self.partition,
            slurm_account=self.account,
            slurm_array_parallelism=self.jobs,
        )
        return executor

    @property
    def at_once(self) -> int | None:
        """Jobs handed over at a time; None for all, where the queue holds them back."""
        return (self.jobs or 1) if self.cluster == "local" else None


def _own_gpus() -> str:
    """The GPUs that this process sees, as its jobs are told of them: under the same numbers."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(torch.cuda.device_count()))))


@dataclass(frozen=True)
class Failure:
    """A job that did not end well.

    Args:
        label: Which.
        reason: The last line of its error.
        log: File with everything that it wrote to standard error.
    """

    label: str
    reason: str
    log: Path

    def as_json(self) -> dict[str, str]:
        """For ``--json``."""
        return {"job": self.label, "reason": self.reason, "log": str(self.log)}


@dataclass
class _Queue:
    """Jobs waiting, running and ended; ``states`` is what the table shows."""

    executor: submitit.Executor
    folder: Path
    local: bool
    waiting: list[Work]
    running: list[tuple[Job, submitit.Job[Any]]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    started: int = 0

    def submit(self, count: int) -> None:
        """Hands over the next jobs, as one array."""
        chosen, self.waiting = self.waiting[:count], self.waiting[count:]
        if not chosen:
            return
        works = [Job(work, self.folder / f"{self.started + number}.process") for number, work in enumerate(chosen)]
        self.started += len(works)
        with _interrupts_ignored(), self.executor.batch():
            jobs = [self.executor.submit(work) for work in works]
        self.running += zip(works, jobs, strict=True)

    def collect(self, finished: Callable[[Work, Any], None]) -> None:
        """Notes which jobs have ended, and how."""
        still = []
        for own, job in self.running:
            work = own.work
            if not job.done():
                still.append((own, job))
                self.states[work.label] = job.state.lower()
                continue
            error = job.exception()
            if error is None:
                finished(work, job.result())
                self.states[work.label] = "finished"
            else:
                self.failures.append(Failure(work.label, _last_line(error), job.paths.stderr))
                self.states[work.label] = "failed"
        self.running = still

    def interrupt(self) -> None:
        """Ends what runs: through SLURM at once, on this machine as soon as trainings have written their checkpoints.

        A second interrupt ends them at once.
        """
        if not self.local:
            for _, job in self.running:
                job.cancel(check=False)
            return
        print("Stopping; trainings write their checkpoints.", file=sys.stderr)
        asked, end = set[Path](), time.monotonic() + _PATIENCE
        try:
            while (left := [own for own, job in self.running if not job.done()]) and time.monotonic() < end:
                for own in left:
                    if own.note not in asked and own.process is not None:
                        own.send(signal.SIGINT)
                        asked.add(own.note)
                time.sleep(_POLL)
        finally:
            for own, job in self.running:
                if not job.done():
                    own.send(signal.SIGKILL)


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes started inside do not hear Ctrl-C: submitit's own would kill a job before its checkpoint is written."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def run_jobs(
    works: Sequence[Work],
    options: ClusterOptions,
    folder: Path,
    finished: Callable[[Any, Any], None],
    stored: Sequence[str] = (),
) -> list[Failure]:
    """Runs jobs to their end; one that fails does not stop the others.

    An interrupt ends those that run, their trainings with a checkpoint.

    Args:
        works: What the jobs do.
        options: Where, and how many at a time.
        folder: Where submitted jobs and their logs are kept, in a folder of each call.
        finished: Called with a job's work and what it returned, as soon as it has ended well.
        stored: Labels of jobs that were finished before, for the table.

    Returns:
        Those that failed.

    Raises:
        InvalidArgumentError: If there is no such cluster here.
    """
    own = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    executor = options.executor(own, "experiments")
    queue = _Queue(executor, writable_folder(own), options.cluster == "local", list(works))
    queue.states = dict.fromkeys(stored, "finished before") | {work.label: "waiting" for work in works}
    try:
        with Live(console=Console(file=sys.stderr), get_renderable=lambda: _table(queue.states)):
            while queue.waiting or queue.running:
                most = len(works) if options.at_once is None else options.at_once
                queue.submit(most - len(queue.running))
                queue.collect(finished)
                time.sleep(_POLL)
    except BaseException:
        queue.interrupt()
        raise
    return queue.failures


def require_all(failures: Sequence[Failure]) -> None:
    """Ends a command some of whose jobs failed.

    Raises:
        JobsFailedError: If there are any.
    """
    if failures:
        lines = [f"{failed.label}: {failed.reason}\n  log: {failed.log}" for failed in failures]
        raise JobsFailedError(
            f"{len(lines)} of the jobs failed. Start the same command again to run them again; the others are "
            "finished.\n" + "\n".join(lines)
        )


def _table(states: dict[str, str]) -> Table:
    table = Table("job", "state")
    for label, state in states.items():
        table.add_row(label, state)
    return table


def _last_line(error: BaseException) -> str:
    """The last line of the job's own error, between the rules that submitit puts around it, or the first of others."""
    parts = str(error).split("-" * 22 + "\n")
    return parts[1].strip().splitlines()[-1] if len(parts) > 2 else str(error).splitlines()[0]
