"""Tables of documents from released results, as Markdown."""

import re
from dataclasses import dataclass
from functools import cache

import numpy as np
import pandas as pd

from experiments.errors import DataFileError
from experiments.records.description import title
from experiments.records.record import TRUTH, as_frame
from experiments.records.release import ROOT
from experiments.records.scores import SCORES, Better
from experiments.records.store import read_records
from experiments.records.table import format_score
from experiments.report.results import Results, released

_SIGN = {Better.LOWER: 1.0, Better.HIGHER: -1.0, Better.NEITHER: np.nan}


@dataclass(frozen=True, kw_only=True)
class Table:
    """One score, cases as rows and methods as columns.

    The best method is bold, round-off as good as zero. Means are over all seeds where these were stored.

    Args:
        experiment: Its name; or several, whose rows stand below each other.
        rows: Keys of cases, all by default.
        columns: Keys of methods, by default all but the truth.
        score: The score of all cells.
    """

    experiment: str | tuple[str, ...]
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    score: str

    def markdown(self) -> str:
        """The table, a dash for what was not scored; rows and columns without any score are left out.

        Raises:
            DataFileError: If no experiment has a case or method of one of the keys.
        """
        names = (self.experiment,) if isinstance(self.experiment, str) else self.experiment
        every = list(map(results_of, names))
        known = {key for each in every for key in (*each.description.cases, *each.description.methods)}
        for key in (*self.rows, *self.columns):
            if key not in known:
                raise DataFileError(f"A table of {', '.join(names)} names '{key}', which none of them has; rename it.")
        columns = self.columns or [key for key in every[0].description.methods if key != TRUTH]
        rows = [(results, row) for results in every for row in self.rows or results.description.cases]
        cells = np.array([[score_of(results, row, column, self.score) for column in columns] for results, row in rows])
        scored = ~np.isnan(cells[..., 0])
        shown, keys = (np.flatnonzero(scored.any(axis=axis)).tolist() for axis in (1, 0))
        cells, columns = cells[np.ix_(shown, keys)], [columns[index] for index in keys]
        texts = [[format_score(mean, error or None) for mean, error in row] for row in cells]
        for row, column in np.argwhere(self._best(cells[..., 0])):
            texts[row][column] = f"**{texts[row][column]}**"
        heads = [self._row_heading(*rows[index], len(names) > 1) for index in shown]
        frame = pd.DataFrame([[head, *row] for head, row in zip(heads, texts, strict=True)])
        headings = [SCORES[self.score].title, *(self._column_heading(every, key) for key in columns)]
        return markdown(frame.set_axis(headings, axis=1))

    def _best(self, means: np.ndarray) -> np.ndarray:
        """True where a mean is the best of its row."""
        score = SCORES[self.score]
        ranks = _SIGN[score.better] * np.where(np.abs(means) <= score.round_off, 0.0, means)
        return ranks == np.fmin.reduce(ranks, axis=1, keepdims=True)

    def _row_heading(self, results: Results, row: str, several: bool) -> str:
        label = results.description.cases[row]
        return (f"{title(results.name)}, {label}" if several else label).replace("*", "\\*")

    def _column_heading(self, every: list[Results], column: str) -> str:
        """Name of a method, the shorter one where experiments differ."""
        return min((each.description.methods[column] for each in every if column in each.description.methods), key=len)


def score_of(results: Results, case: str, method: str, score: str) -> tuple[float, float]:
    """Mean and standard error, over all seeds where these were stored; NaN for what is missing."""
    stored = over_seeds_of(results.name)
    stored = stored[(stored["case"] == case) & (stored["method"] == method) & (stored["score"] == score)]
    if len(stored):
        return float(stored["mean"].iloc[0]), float(stored["standard_error"].iloc[0])
    frame = results.numbers
    if (case, method) not in frame.index or score not in frame:
        return np.nan, np.nan
    errors = frame.get(f"{score}_se", pd.Series(np.nan, index=frame.index))
    return float(frame[score][case, method]), float(errors[case, method])


@cache
def results_of(name: str) -> Results:
    """The released results that a document shows, read once; ``results_of.cache_clear()`` forgets them."""
    results = released(name)
    if results is None:
        raise DataFileError(f"A document shows results of '{name}', which are not released; drop its block.")
    return results


@cache
def over_seeds_of(name: str) -> pd.DataFrame:
    """Means over seeds of released results, read once; without rows where none are stored."""
    file = ROOT / "results" / name / "over_seeds.csv"
    return read_records(file) if file.is_file() else as_frame(())


def markdown(frame: pd.DataFrame) -> str:
    """A table without spaces that line up its columns, so that a new number changes one line; numbers to the right."""
    numeric = [all(text.strip("*")[:1] in "0123456789-—" for text in column) for column in frame.to_numpy().T]
    frame = frame.set_axis([str(column).replace("|", "\\|") for column in frame], axis=1)
    text = frame.to_markdown(index=False, disable_numparse=True, colalign=["right" if n else "left" for n in numeric])
    return re.sub(" {2,}", " ", re.sub("-{4,}", "---", text))
