"""What every experiment offers to the command line: a name, a summary, its cost, and a run that ends in a report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from experiments.errors import InvalidArgumentError
from experiments.tables import Row

Preset = Literal["smoke", "laptop", "paper"]
Data = Literal["solver", "exact"]
_LONG = 300  # minutes that are written as hours
Durations = Mapping[Preset | Literal["reproduce"], str]
"""Time by preset, and that of ``reproduce`` where models ship."""


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a user chooses for a run.

    Args:
        preset: Size of the run: seconds, a laptop, or the papers' sizes.
        data: Where training functions and context points come from: finite-volume solutions or closed forms; by
            default the solver for porous_medium and stefan, closed forms for the others.
        seed: Seed of everything random.
        device: Torch device of surrogates and trainings; operators are scored on the CPU.
        out: Folder of all stored runs.
        cases: Names of the versions of a boundary-condition problem to run, for instance single-0.02; all by default.
        networks: Names of the networks of a conservation problem to take, for instance anp; all by default.

    Raises:
        InvalidArgumentError: If the seed is out of range or the device is not there.
    """

    preset: Preset = "smoke"
    data: Data | None = None
    seed: int = 0
    device: str = "cpu"
    out: Path = Path("results")
    cases: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**31:
            raise InvalidArgumentError(f"--seed must lie in [0, 2³¹), got {self.seed}.")
        try:
            if torch.empty(0, device=self.device).device.type not in ("cpu", "cuda"):
                raise RuntimeError("no device of this kind can run the experiments")
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise InvalidArgumentError(f"--device {self.device} cannot be used here ({reason}); take cpu.") from error

    def refuse(self, *names: str, where: str) -> None:
        """Refuses choices that belong to other experiments.

        Args:
            names: The choices.
            where: What they do not belong to.

        Raises:
            InvalidArgumentError: If one of them was made.
        """
        for name in names:
            if getattr(self, name):
                raise InvalidArgumentError(f"--{name} does not belong to {where}; drop it.")


@dataclass(frozen=True, kw_only=True)
class Report:
    """Where a run ended.

    Args:
        title: Title of the table.
        rows: All rows, ours and the papers'.
        folder: Folder of the stored run.
        tables: Table files.
        figures: Figure files.
    """

    title: str
    rows: list[Row]
    folder: Path
    tables: list[Path] = field(default_factory=list)
    figures: list[Path] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One problem of the papers.

    Args:
        name: Name on the command line.
        summary: One line for ``list``.
        durations: How long each preset takes on two cores (``paper``: extrapolated); ``reproduce`` where models ship.
        run: Makes data, trains, scores, stores and draws; what an earlier run of the same config finished is read back.
        reproduce: The same with the weights that ship.
    """

    name: str
    summary: str
    durations: Durations
    run: Callable[[RunOptions], Report]
    reproduce: Callable[[RunOptions], Report]

    @property
    def readable_durations(self) -> dict[str, str]:
        """``durations`` with long times in hours or days; ``reproduce`` is empty if it was not measured."""
        return {preset: _in_large_units(duration) for preset, duration in {"reproduce": "", **self.durations}.items()}


def _in_large_units(duration: str) -> str:
    number, _, unit = duration.partition(" ")
    if unit != "min" or int(number) < _LONG:
        return duration
    hours = int(number) / 60
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"
