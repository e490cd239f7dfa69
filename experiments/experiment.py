"""The declaration of a table: cases × methods × seeds, each trained, scored and drawn. The driver knows only this."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch
from matplotlib.figure import Figure

from experiments.errors import InvalidArgumentError
from experiments.options import Data as Data
from experiments.options import Preset as Preset
from experiments.options import RunOptions as RunOptions
from experiments.records.record import TRUTH, Arrays, Over, Record
from experiments.records.release import ROOT
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


def _only_seed(case: Any, context: RunContext) -> Sequence[int]:  # noqa: ARG001 - one signature
    """One repetition: other seeds are other runs."""
    return (context.training_seed,)


def _nothing(*_: Any) -> tuple[()]:
    """None."""
    return ()


def _no_figures(*_: Any) -> dict[str, Figure]:
    """None."""
    return {}


def _never(_: Any) -> bool:
    """No method."""
    return False


def _unchanged(scores: pd.DataFrame) -> pd.DataFrame:
    """No further scores."""
    return scores


@dataclass(frozen=True, kw_only=True)
class Table:
    """The declaration of one table of results: what there is to train, to score and to show.

    A family builds it from its problems. How it is run, stored, compared and drawn is the driver's, and the same for
    all tables. ``key``s name things in files; labels are for readers.

    Args:
        name: Name on the command line.
        title: From the cases: problem, sizes, what is reconstructed.
        data_version: Version of the data; part of every config hash.
        cases: All cases in the sizes of the preset.
        methods: The rows of a case in their order, ``truth`` first if it is among them.
        score: From a case, a method, a seed, the files of its trainings in their order and the context: scores per
            function by the keys of ``SCORES``, and further arrays for the figures.
        seeds: Repetitions of a method within a run: by default one, since other seeds are other runs.
        trainings: Trainings of a method on a case with a seed, each before those that start from it.
        train: Trains, or goes on from a checkpoint, and writes ``training.weights(out)``. Raises
            TrainingInterruptedError if it was stopped before its end, TrainingDivergedError if its loss is not finite.
        figures: Figures of a case by name, from all that was scored; methods may be missing.
        overview: Figures of all cases together by name, from means over seeds; they come first. Without any there is
            one of the main score of all methods.
        overview_leads: Whether that one comes first, not the figure of a case.
        headline: Keys of the few methods, and of the few scores, that the terminal shows of a case, from its mean
            records; by default all methods but the truth, and ``shown``.
        shown: Keys of the scores that the terminal shows.
        published: Numbers of papers for a case; those of a method that has a row here carry its key.
        reference: Key of the method that tables compare the others with; by default the first that is not the truth.
        compared: Adds scores that compare methods with each other to the scores per function of all cases.
        redraws: Whether rounding decides what a method draws, so that its draws are others on another processor. Such
            are draws along eigenvectors that are computed anew, which have either sign, draws by their probabilities,
            which the last bit of a sum may move to the next entry, and iterations that amplify rounding. A method
            with stored networks has the same draws up to rounding otherwise.
        over: What means and standard errors of the table are taken over.
        seeded: Whether the test functions differ with the seed, so that methods without networks are scored for each.
        options: Those of the options ``data``, ``files`` and ``workers`` that have an effect.
    """

    name: str
    title: Callable[[Sequence[Any]], str]
    data_version: int
    cases: Callable[[RunContext], Sequence[Any]]
    methods: Callable[[Any], Sequence[Any]]
    score: Callable[[Any, Any, int, Sequence[Path], RunContext], Arrays]
    seeds: Callable[[Any, RunContext], Sequence[int]] = _only_seed
    trainings: Callable[[Any, Any, int, RunContext], Sequence[Training]] = _nothing
    train: Callable[[Training, RunContext], None] | None = None
    figures: Callable[[Any, Stored, RunContext], Mapping[str, Figure]] = _no_figures
    overview: Callable[[Sequence[Any], pd.DataFrame], Mapping[str, Figure]] = _no_figures
    overview_leads: bool = True
    headline: Callable[[Any, pd.DataFrame], tuple[Sequence[str], Sequence[str]]] | None = None
    shown: Sequence[str] = ()
    published: Callable[[Any], Sequence[Record]] = _nothing
    reference: Callable[[Any], str] | None = None
    compared: Callable[[pd.DataFrame], pd.DataFrame] = _unchanged
    redraws: Callable[[Any], bool] = _never
    over: Over = Over.FUNCTIONS
    seeded: bool = False
    options: Collection[str] = ()

    def headline_of(self, case: Any, records: pd.DataFrame) -> tuple[Sequence[str], Sequence[str]]:
        """Keys of the methods, and of the scores, that the terminal shows of a case."""
        return (self._rows(case), self.shown) if self.headline is None else self.headline(case, records)

    def reference_of(self, case: Any) -> str:
        """Key of the method that tables compare the others of a case with."""
        return (self._rows(case) or [TRUTH])[0] if self.reference is None else self.reference(case)

    def _rows(self, case: Any) -> list[str]:
        return [method.key for method in self.methods(case) if method.key != TRUTH]

    def refuse_idle(self, options: RunOptions) -> None:
        """Raises InvalidArgumentError if an option is given that has no effect here."""
        given = (name for name in ("data", "files", "workers") if getattr(options, name) is not None)
        for option in (name for name in given if name not in self.options):
            raise InvalidArgumentError(f"--{option} has no effect on {self.name}; remove it.")


class Declared(Protocol):
    """What gives a table: an entry of the ``EXPERIMENTS`` of a family."""

    @property
    def name(self) -> str:
        """Name on the command line."""
        ...

    @property
    def table(self) -> Table:
        """The declaration."""
        ...
