"""Many runs at once: processes of this machine by joblib's loky, or jobs of a SLURM cluster by submitit."""

import multiprocessing
import os
import re
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import submitit
import torch
from joblib.externals.loky import ProcessPoolExecutor
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from submitit.helpers import DelayedSubmission

from experiments.errors import InvalidArgumentError, JobsFailedError
from experiments.options import ClusterOptions
from experiments.records.storage import writable_folder
from experiments.signals import handle_in_worker

REQUEUES = 100
"""How often SLURM queues a job again that reached its time limit; it goes on from its checkpoints."""


@dataclass(frozen=True)
class Failure:
    """A job that did not end well, with the last line of its error and the file with everything that it printed."""

    label: str
    reason: str
    log: Path


@dataclass(frozen=True)
class Job:
    """Work with a log; called in another process."""

    label: str
    work: Callable[[], Any]
    log: Path

    def __call__(self) -> Any:
        """Does the work, on one thread or the cores of a job of SLURM; an error is written to the log and raised."""
        torch.set_num_threads(int(os.environ.get("SLURM_CPUS_PER_TASK", 1)))
        with self.log.open("a", encoding="utf-8") as file, redirect_stdout(file), redirect_stderr(file):
            try:
                return self.work()
            except BaseException:
                traceback.print_exc()
                raise

    def checkpoint(self) -> DelayedSubmission:
        """The job that SLURM queues again at the time limit: the same, since jobs continue from their files."""
        return DelayedSubmission(self)


def run_jobs(
    works: Mapping[str, Callable[[], Any]], workers: int | None, options: ClusterOptions, folder: Path
) -> tuple[dict[str, Any], list[Failure]]:
    """Does all works; one that fails stops no other.

    After an interrupt no further job starts on this machine, and those that run write their checkpoints first. At most
    ``workers`` run at a time: by default one per core of this machine, and all on a cluster. ``folder`` gets the logs.

    Returns:
        Results by label in the order of ``works``, and the failures.
    """
    writable_folder(folder)
    print(f"{len(works)} jobs; each writes what it does to a log in '{folder}'.", file=sys.stderr)
    jobs = [Job(label, work, folder / f"{_slug(label)}.log") for label, work in works.items()]
    if options.cluster == "slurm":
        completed = on_cluster(jobs, slurm(workers, options, folder))
    else:
        completed = _in_processes(jobs, workers or torch.get_num_threads())
    results, failures = dict[str, Any](), list[Failure]()
    with _progress(len(jobs)) as advance:
        for job, future in completed:
            error = future.exception()
            if error is None:
                results[job.label] = future.result()
            else:
                failures.append(Failure(job.label, _reason(error), job.log))
            advance(job.label if error is None else f"{job.label} failed")
    return {label: results[label] for label in works if label in results}, failures


def require_all(failures: Sequence[Failure]) -> None:
    """Raises JobsFailedError with a line per failure, if there is one."""
    if failures:
        lines = "".join(f"\n  {entry.label}: {entry.reason} (log: {entry.log})" for entry in failures)
        raise JobsFailedError(f"{len(failures)} of the jobs failed; start again to go on.{lines}")


def on_cluster(jobs: Sequence[Job], executor: submitit.Executor, every: float = 10.0) -> Iterator[tuple[Job, Any]]:
    """Jobs of a cluster, submitted as one array, with their futures as they end; ``every`` is in seconds."""
    with executor.batch():
        futures = [executor.submit(job) for job in jobs]
    try:
        for ended in submitit.helpers.as_completed(futures, poll_frequency=every):
            yield jobs[futures.index(ended)], ended
    except KeyboardInterrupt:
        print("Submitted jobs go on; scancel ends them.", file=sys.stderr)
        raise


def _in_processes(jobs: Sequence[Job], width: int) -> Iterator[tuple[Job, Future[Any]]]:
    """Jobs with their ended futures, at most ``width`` at a time, each of these in a process of its pool.

    A process that is killed, for instance for memory, takes no other with it.
    """
    waiting, running = deque(jobs), dict[Future[Any], tuple[Job, ProcessPoolExecutor]]()
    free = [_pool() for _ in range(min(width, len(jobs)))]
    pools = list(free)
    try:
        while waiting or running:
            while waiting and free:
                pool, job = free.pop(), waiting.popleft()
                running[pool.submit(job)] = job, pool
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                job, pool = running.pop(ended)
                if isinstance(ended.exception(), BrokenProcessPool):
                    pool = _pool()
                    pools.append(pool)
                free.append(pool)
                yield job, ended
    except (KeyboardInterrupt, GeneratorExit):  # the latter if the signal came while the caller had a result
        print("Stopping; trainings write their checkpoints. Ctrl-C again ends them at once.", file=sys.stderr)
        for process in multiprocessing.active_children():
            os.kill(cast(int, process.pid), signal.SIGINT)
        wait(running)
        raise
    finally:
        for pool in pools:
            pool.shutdown(wait=True, kill_workers=bool(running))


def _pool() -> ProcessPoolExecutor:
    """One process in a new group: Ctrl-C reaches it once, from here, and not from the terminal as well."""
    return ProcessPoolExecutor(max_workers=1, initializer=_begin)


def _begin() -> None:
    os.setpgid(0, 0)
    handle_in_worker()


def slurm(workers: int | None, options: ClusterOptions, folder: Path) -> submitit.Executor:
    """Executor of jobs on SLURM with these options, ``workers`` at a time, with its scripts and logs in the folder."""
    try:
        executor = submitit.AutoExecutor(folder, cluster="slurm", slurm_max_num_timeout=REQUEUES)
    except RuntimeError as error:
        raise InvalidArgumentError(
            f"--cluster slurm cannot be used here ({error}); start it on a login node, or leave it out."
        ) from error
    executor.update_parameters(
        timeout_min=minutes(options),
        slurm_array_parallelism=workers,
        slurm_additional_parameters={name.replace("-", "_"): value for name, value in options.sbatch.items()},
    )
    return executor


def minutes(options: ClusterOptions) -> int:
    """Time limit of a job as SLURM counts."""
    return max(1, round(60 * options.hours))


@contextmanager
def _progress(count: int) -> Iterator[Callable[[str], None]]:
    """A bar on standard error with the number of ended jobs and the time left; call it with what ended."""
    columns = (MofNCompleteColumn(), BarColumn(20), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=count)

        def advance(text: str) -> None:
            progress.update(task, advance=1, description=text)

        yield advance


def _reason(error: BaseException) -> str:
    """Type and last line of an error; for one that submitit reports, the last line of its traceback."""
    _, *trace = str(error).split(f"{'-' * 22}\n")
    if trace:
        return trace[0].strip().splitlines()[-1]
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else type(error).__name__


def _slug(label: str) -> str:
    return re.sub(r"\W+", "-", label).strip("-")
