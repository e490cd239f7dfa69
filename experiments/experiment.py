"""An experiment: cases × methods × seeds, each trained, scored and drawn. The driver knows only this."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from matplotlib.figure import Figure

from experiments.errors import InvalidArgumentError
from experiments.options import CATALOGUE, Durations
from experiments.options import Data as Data
from experiments.options import Preset as Preset
from experiments.options import RunOptions as RunOptions
from experiments.records.record import Arrays, Over, Record
from experiments.records.release import ROOT, data_version
from experiments.records.store import as_json, config_hash


def require_device(name: str) -> None:
    """Raises InvalidArgumentError if torch cannot use the device here."""
    try:
        if torch.empty(0, device=name).device.type not in ("cpu", "cuda"):
            raise RuntimeError("no device of this kind can run the experiments")
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidArgumentError(f"--device {name} cannot be used here ({reason}); take cpu.") from error


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """The options of a run, and whether it trains or takes released weights.

    Args:
        released: Whether weights come from the release.
        training_seed: Seed of the first training: that of the options, or of the released run.
        progress: Whether to show progress bars on standard error.
    """

    options: RunOptions
    released: bool = False
    training_seed: int = 0
    progress: bool = True
    release: Path = ROOT

    @property
    def data_folder(self) -> Path:
        """Folder of data sets."""
        return self.options.out / "data"


@dataclass(frozen=True)
class Style:
    """How figures show a method: the same everywhere."""

    colour: str = "#7f7f7f"
    dashes: Any = "-"


class Case(Protocol):
    """A test of methods: a problem at one parameter, or one version of it."""

    @property
    def key(self) -> str:
        """Name in files and options."""
        ...

    @property
    def label(self) -> str:
        """Name in tables and figures."""
        ...

    @property
    def config(self) -> Any:
        """All settings that change data and scores of the case, as JSON can hold it."""
        ...


class Method(Protocol):
    """One row of a table."""

    @property
    def key(self) -> str:
        """Name in files and options."""
        ...

    @property
    def label(self) -> str:
        """Name in tables and figures."""
        ...

    @property
    def style(self) -> Style:
        """Colour and dashes in figures."""
        ...

    @property
    def information(self) -> str:
        """Information that the method gets in addition to its input; empty where all methods get the same."""
        ...


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training: what decides its weights, and where they are kept.

    Args:
        key: Name in files, for instance ``anp`` or ``boon-default-0``.
        folder: Folder below the output folder that trainings of the kind share, for instance ``stefan/networks``.
        config: A frozen dataclass with everything that decides the weights, or its JSON.
        release: Path of its weights below ``experiments/weights``; None if they are not released.
        missing: Name of a package that it needs and that is not installed; empty for none.
    """

    key: str
    label: str
    folder: str
    config: Any
    data_version: int
    release: str | None = None
    missing: str = ""

    @property
    def hash(self) -> str:
        """Config hash: the same config on the same data version has the same weights."""
        return config_hash({"config": as_json(self.config), "data_version": self.data_version})

    def path(self, out: Path) -> Path:
        """Folder of checkpoint and weights below the output folder."""
        return out / self.folder / f"{self.key}-{self.hash}"

    def weights(self, out: Path) -> Path:
        """File of the finished weights."""
        return self.path(out) / "weights.safetensors"


Stored = Mapping[tuple[str, int], Arrays]
"""Results of ``score``, by key of the method and seed."""


class Experiment(ABC):
    """One table of results with its figures.

    A family is a frozen dataclass: it says what its cases and methods are and how a method is scored, and replaces what
    else it needs of the rest, which does nothing. ``key``s name things in files; labels are for readers.

    Attributes:
        name: Name on the command line.
        over: What means and standard errors of the table are taken over.
        shown: Keys of the scores that the terminal shows.
        seeded: Whether the test functions differ with the seed, so that methods without networks are scored for each.
        overview_leads: Whether the figure of the main score of all methods stands for it, not one of a case.
    """

    name: str
    over: Over = Over.FUNCTIONS
    seeded: bool = False
    shown: Sequence[str] = ()
    overview_leads: bool = True

    @abstractmethod
    def cases(self, context: RunContext) -> Sequence[Any]:
        """All cases in the sizes of the preset."""

    @abstractmethod
    def methods(self, case: Any) -> Sequence[Any]:
        """The rows of a case in their order, ``truth`` first if it is among them."""

    @abstractmethod
    def score(self, case: Any, method: Any, seed: int, weights: Sequence[Path], context: RunContext) -> Arrays:
        """Scores per function by the keys of ``SCORES``, and further arrays for the figures.

        ``weights`` are the files of ``trainings``, in their order.
        """

    @property
    def data_version(self) -> int:
        """Version of the data; part of every config hash."""
        return data_version(self.name)

    @property
    def summary(self) -> str:
        """One line that says what it shows; empty for what is not listed."""
        return CATALOGUE[self.name].summary if self.name in CATALOGUE else ""

    @property
    def durations(self) -> Durations:
        """How long each preset takes; empty for what is not listed."""
        return CATALOGUE[self.name].durations if self.name in CATALOGUE else {}

    def takes(self) -> Collection[str]:
        """Those of the options ``data``, ``files`` and ``workers`` that have an effect."""
        return ()

    def refuse_idle(self, options: RunOptions) -> None:
        """Raises InvalidArgumentError if an option is given that has no effect here."""
        given = (name for name in ("data", "files", "workers") if getattr(options, name) is not None)
        for option in (name for name in given if name not in self.takes()):
            raise InvalidArgumentError(f"--{option} has no effect on {self.name}; remove it.")

    def title(self, cases: Sequence[Any]) -> str:
        """Title of the table: problem, sizes, what is reconstructed."""
        return self.name

    def reference(self, case: Any) -> str:
        """Key of the method that tables compare the others with: by default the first that is not the truth."""
        keys = [method.key for method in self.methods(case)]
        return next((key for key in keys if key != "truth"), keys[0])

    def seeds(self, case: Any, context: RunContext) -> Sequence[int]:
        """Repetitions of a method within a run: by default one, since other seeds are other runs."""
        return (context.training_seed,)

    def trainings(self, case: Any, method: Any, seed: int, context: RunContext) -> Sequence[Training]:
        """Trainings of a method, each before those that start from it."""
        return ()

    def train(self, training: Training, context: RunContext) -> None:
        """Trains, or goes on from a checkpoint, and writes ``training.weights(out)``.

        Raises:
            TrainingInterruptedError: If it was stopped before its end.
            TrainingDivergedError: If the loss is not finite.
        """
        raise NotImplementedError(f"{self.name} has no trainings.")

    def compared(self, scores: pd.DataFrame) -> pd.DataFrame:
        """Scores per function of all cases with further scores that compare methods with each other."""
        return scores

    def redraws(self, method: Any) -> bool:
        """Whether rounding decides what a method draws, so that its draws are others on another processor.

        Such are draws along eigenvectors that are computed anew, which have either sign, draws by their probabilities,
        which the last bit of a sum may move to the next entry, and iterations that amplify rounding. A method
        with stored networks has the same draws up to rounding otherwise.
        """
        return False

    def published(self, case: Any) -> Sequence[Record]:
        """Numbers of papers for a case; those of a method that has a row here carry its key."""
        return ()

    def headline(self, case: Any, records: pd.DataFrame) -> tuple[Sequence[str], Sequence[str]]:
        """Keys of the few methods, and of the few scores, that the terminal shows of a case from its mean records.

        By default all methods but the truth, and the scores of ``shown``.
        """
        return [method.key for method in self.methods(case) if method.key != "truth"], self.shown

    def figures(self, case: Any, stored: Stored, context: RunContext) -> Mapping[str, Figure]:
        """Figures of a case by name, from all that was scored; methods may be missing."""
        return {}

    def overview(self, cases: Sequence[Any], records: pd.DataFrame) -> Mapping[str, Figure]:
        """Figures of all cases together by name, from means over seeds; they come first.

        Without any there is one of the main score of all methods, which comes first if ``overview_leads``.
        """
        return {}
