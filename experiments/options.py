"""Options, and the names of experiments, read without the packages that do the work.

A line of ``catalogue.csv`` says under which heading an experiment is listed, its name, what it shows, its times on one
core (measured, or for ``paper`` extrapolated), and its home: a module of ``experiments`` and a dictionary in it.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from experiments.errors import InvalidArgumentError, require_at_least

Preset = Literal["smoke", "laptop", "paper"]
Data = Literal["solver", "exact"]


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run.

    Args:
        preset: Size of the run: minutes, a laptop, or the papers' sizes.
        data: Where training functions and context points come from: finite-volume solutions or closed forms; by
            default the solver for porous_medium and stefan, closed forms for the others. Conservation problems only.
        seed: Seed of everything random.
        device: Torch device of surrogates and trainings; operators are scored on the CPU.
        out: Folder of all stored runs.
        cases: Keys of cases, for instance single-0.02 or u=0.6; all by default.
        methods: Keys of methods, for instance anp or boon-default; all by default.
        files: Folder of files that other people made, for observations.
        workers: Processes at a time: several runs, or those that make samples for one. By default one, or for several
            runs one per core (one on a GPU).

    Raises:
        InvalidArgumentError: If the seed or the number of workers is out of range.
    """

    preset: Preset = "smoke"
    data: Data | None = None
    seed: int = 0
    device: str = "cpu"
    out: Path = Path("results")
    cases: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    files: Path | None = None
    workers: int | None = None

    def __post_init__(self) -> None:
        if self.workers is not None:
            require_at_least(self, workers=1)
        if not 0 <= self.seed < 2**31:
            raise InvalidArgumentError(f"--seed must lie in [0, 2³¹), got {self.seed}.")


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """Machines for several runs, if not this one.

    Args:
        cluster: Sends every run to a cluster as a job of its own.
        hours: Time limit of a job, after which it is queued again and goes on.
        slurm: Further options of sbatch, for instance partition=long cpus-per-task=4.
        dry_run: Prints the runs, and what a cluster would be asked for; runs nothing.

    Raises:
        InvalidArgumentError: If the time limit is not positive, an option of sbatch has no value, or what only a
            cluster knows is given without one.
    """

    cluster: Literal["slurm"] | None = None
    hours: float = 24.0
    slurm: tuple[str, ...] = ()
    dry_run: bool = False

    def __post_init__(self) -> None:
        if not self.hours > 0:
            raise InvalidArgumentError(f"--hours must be positive, got {self.hours:g}.")
        given = [name for name in ("hours", "slurm") if getattr(self, name) != getattr(ClusterOptions, name)]
        if given and self.cluster is None:
            raise InvalidArgumentError(f"--{', --'.join(given)}: only for a cluster; add --cluster slurm.")
        for pair in self.slurm:
            if not all(pair.partition("=")):
                raise InvalidArgumentError(
                    f"--slurm takes options of sbatch with a value, as partition=long, got {pair}."
                )

    @property
    def sbatch(self) -> dict[str, str]:
        """Further options of sbatch by their names."""
        return {name: value for name, _, value in (pair.partition("=") for pair in self.slurm)}


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Data to make, and their file.

    Args:
        n: Number of samples; by default what the problem's recipe says for the split.
        out: The file; by default NAME-SPLIT.h5 here.
        layout: Layout of the file; by default The Well's for what changes in time in two axes, else PDEBench's.
        split: Which samples; splits share none.
        seed: Seed of the samples.
        workers: Processes at a time.

    Raises:
        InvalidArgumentError: If a number is out of range.
    """

    n: int | None = None
    out: Path | None = None
    layout: Literal["pdebench", "the-well"] | None = None
    split: Literal["train", "validation", "test"] = "train"
    seed: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        require_at_least(self, seed=0, workers=1, **({} if self.n is None else {"n": 1}))


def seeds_of(words: tuple[str, ...]) -> tuple[int, ...]:
    """Seeds from numbers, lists and ranges: ``0-2``, ``0,1,2`` and ``0 1 2`` are the same.

    Raises:
        InvalidArgumentError: If a word is none of these.
    """
    seeds: list[int] = []
    for word in ",".join(words).split(",") if words else ():
        first, dash, last = word.partition("-")
        valid = first.isdecimal() and (last or first).isdecimal() and bool(dash) == bool(last)
        chosen = range(int(first), int(last or first) + 1) if valid else ()
        if not chosen:
            raise InvalidArgumentError(f"--seeds takes numbers and rising ranges, as 0-7 or 0,2,5, got '{word}'.")
        seeds += chosen
    return tuple(dict.fromkeys(seeds))


Durations = dict[Literal["smoke", "laptop", "paper", "reproduce"], str]
REGISTERED = "registered"
"""Heading of what users register."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """An experiment as it is listed.

    Args:
        home: Module of ``experiments``, and the name in it of a dictionary of experiments.
    """

    family: str
    name: str
    summary: str = ""
    durations: Durations
    home: str = ""


def _read(file: Path) -> dict[str, Listed]:
    listed = {}
    with file.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines):
            durations: Durations = {key: row.pop(key) for key in ("smoke", "laptop", "paper", "reproduce")}
            listed[row["name"]] = Listed(**row, durations=durations)
    return listed


CATALOGUE = _read(Path(__file__).with_name("catalogue.csv"))
"""Everything that ``run`` and ``reproduce`` take, in the order of ``list``; users' experiments come last."""
