"""Observations as the family has them: what a black box predicts, what was observed, and what the law says."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from experiments.errors import DataFileError, MissingFilesError
from experiments.observations.regression import regress
from experiments.records.release import data_version

DRAWS = 100
"""Of a prediction, for its scores."""
FOLDS = 5
"""Stretches into which the training cases are cut, in order, for predictions of cases that were left out."""
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
"""λ of the ridge regressions, among which the validation cases choose; inputs have unit variance."""


@dataclass(frozen=True)
class Part:
    """Cases, in the units of the problem.

    Args:
        predicted: What the black box says.
        truth: What was observed.
        target: Right-hand sides of the law.
        block: Stretch of time that a case belongs to; those of one are not independent.
        covariates: What else may explain how the law is missed, see ``fit_law``; None for nothing.
    """

    predicted: Float[Tensor, "cases n"]
    truth: Float[Tensor, "cases n"]
    target: Float[Tensor, "cases k"]
    block: Int[Tensor, " cases"]
    covariates: Float[Tensor, "cases p"] | None = None

    @property
    def errors(self) -> Float[Tensor, "cases n"]:
        return self.truth - self.predicted


@dataclass(frozen=True, kw_only=True)
class Observed:
    """The parts of a problem; training, validation and test share no time.

    Args:
        rows: G of the law G u = b.
        training: Cases that choices learn from, predicted by black boxes that did not see them.
        validation: Cases that choices are made on, predicted from those of the training.
        known: Both, predicted by black boxes that did not see them: what the final fits learn from.
        test: Cases for scores, predicted from both.
    """

    rows: Float[Tensor, "k n"]
    training: Part
    validation: Part
    known: Part
    test: Part


class Problem(ABC):
    """A source of observations: a frozen dataclass with what decides them.

    Attributes:
        key: Name in files and on the command line.
        label: Name in tables, with the unit.
        non_negative: Whether the field cannot be negative.
        covariates: Names of what else may explain how the law is missed.
    """

    key: str
    label: str
    non_negative: bool = False
    covariates: tuple[str, ...] = ()

    @property
    def config(self) -> dict[str, Any]:
        """All settings that change data and scores."""
        return {"problem": self, "draws": DRAWS, "data_version": data_version("observations")}

    @abstractmethod
    def observed(self, files: Path | None) -> Observed:
        """Reads and predicts; ``files`` is the folder of ``--files``."""


def given(files: Path | None, name: str, whence: str, checksum: str = "") -> Path:
    """A file below the folder of ``--files``, with this SHA-256 unless that is empty.

    Raises:
        MissingFilesError: If no folder is given.
        DataFileError: If there is no such file, or another one of this name.
    """
    if files is None:
        raise MissingFilesError(
            f"'{name}' of {whence} does not come with this package; give its folder, or the folder around it, as "
            "--files FOLDER."
        )
    path = next((path for path in (files / name, *sorted(files.glob(f"*/{name}"))) if path.is_file()), None)
    if path is None:
        raise DataFileError(f"There is no '{name}' in '{files}' or in a folder there; get it from {whence}.")
    if checksum and hashlib.sha256(path.read_bytes()).hexdigest() != checksum:
        raise DataFileError(f"'{path}' is damaged or another file than that of {whence}; get it again.")
    return path


@dataclass(frozen=True)
class Series:
    """A record in order of time, cut into parts.

    Args:
        black_box: Predictions of all cases by what the cases ``fitted`` teach, and a penalty ``(fitted, penalty)``.
        block: Stretch of time of every case.
        ends: First case of the validation, of the test, and behind the test.
        covariates: As in ``Part``.
    """

    black_box: Callable[[Int[Tensor, " fitted"], float], Float[Tensor, "cases n"]]
    truth: Float[Tensor, "cases n"]
    target: Float[Tensor, "cases k"]
    block: Int[Tensor, " cases"]
    ends: tuple[int, int, int]
    covariates: Float[Tensor, "cases p"] | None = None

    def observed(self, rows: Float[Tensor, "k n"]) -> Observed:
        """With the penalty that is best on the validation."""
        first, second, last = self.ends
        tried = {penalty: self._part(first, slice(first, second), penalty) for penalty in PENALTIES}
        penalty = min(tried, key=lambda one: float(tried[one].errors.square().mean()))
        return Observed(
            rows=rows,
            training=self._left_out(first, penalty),
            validation=tried[penalty],
            known=self._left_out(second, penalty),
            test=self._part(second, slice(second, last), penalty),
        )

    def _part(self, count: int, piece: slice, penalty: float) -> Part:
        """Some cases, predicted from the first ``count``."""
        return self._cut(self.black_box(torch.arange(count), penalty)[piece], piece)

    def _left_out(self, count: int, penalty: float) -> Part:
        """The first ``count`` cases, each predicted from those outside its stretch of ``FOLDS``."""
        fold, predicted = torch.arange(count) * FOLDS // count, self.truth[:count].clone()
        for number in range(FOLDS):
            out = fold == number
            predicted[out] = self.black_box((~out).nonzero()[:, 0], penalty)[:count][out]
        return self._cut(predicted, slice(count))

    def _cut(self, predicted: Float[Tensor, "piece n"], piece: slice) -> Part:
        covariates = None if self.covariates is None else self.covariates[piece]
        return Part(predicted, self.truth[piece], self.target[piece], self.block[piece], covariates)


def regressed(inputs: Float[Tensor, "cases p"], truth: Float[Tensor, "cases n"]) -> Callable[[Tensor, float], Tensor]:
    """Ridge regression on inputs of unit variance, as a black box."""

    def black_box(fitted: Tensor, penalty: float) -> Tensor:
        known = inputs[fitted]
        scaled = (inputs - known.mean(dim=0)) / known.std(dim=0).clamp_min(1e-12)
        return regress(scaled, truth, fitted, penalty)

    return black_box


def over_blocks(
    values: Float[Tensor, " cases"], block: Int[Tensor, " cases"], reduce: str = "mean"
) -> Float[Tensor, " blocks"]:
    """The mean, or with ``amax`` the largest, over every block of cases."""
    names, index = block.unique(return_inverse=True)
    return values.new_zeros(len(names)).scatter_reduce(0, index, values, reduce, include_self=False)


def table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Float[Tensor, "rows columns"]:
    """Columns of a CSV file; NaN where a cell is empty.

    Raises:
        DataFileError: If a column is missing or a cell is no number.
    """
    try:
        return torch.tensor([[float(row[name] or "nan") for name in columns] for row in rows], dtype=torch.float64)
    except (KeyError, ValueError, TypeError) as error:
        raise DataFileError(f"'{path}' has no numbers in the columns {', '.join(columns)} ({error}).") from error
