"""An experiment with few results for the tests of page and documents."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.driver import describe
from experiments.experiment import Table
from experiments.records.description import Description
from experiments.records.record import Over, Record, Source, as_frame, over_seeds
from experiments.records.run import Run
from experiments.report.results import Results, assemble
from tests.experiments.stub import Entry

METHODS = (Entry("bare", "Bare"), Entry("hard", "Hard & fast"), Entry("ours", "Ours"))
DURATIONS = {"smoke": "1 s", "laptop": "2 min", "paper": "3 min", "reproduce": "4 s"}


@dataclass(frozen=True)
class Example:
    """An experiment whose parts are given."""

    name: str = "example"
    cases_: tuple[Entry, ...] = (Entry("a", "a=1 <in range>"), Entry("b", "b=2"))

    @property
    def table(self) -> Table:
        return Table(
            name=self.name,
            title=lambda cases: f"Example of {len(cases)} cases",
            data_version=0,
            cases=lambda _: self.cases_,
            methods=lambda _: METHODS,
            score=lambda *_: {},
            published=self.published,
            headline=lambda *_: (["bare", "hard", "ours", "absent"], ["MSE", "LL"]),
            over=Over.SEEDS,
        )

    def published(self, case: Entry) -> list[Record]:
        return [self.record(case.key, "ours", "MSE", 0.4, None, None, Source.PUBLISHED)] if case.key == "a" else []

    def record(self, case: str, method: str, score: str, mean: float, error: float | None, seed: int | None = 0,
               source: Source = Source.COMPUTED) -> Record:  # fmt: skip
        return Record(
            experiment=self.name, case=case, method=method, seed=seed, score=score, mean=mean, standard_error=error,
            source=source,
        )  # fmt: skip

    def described(self) -> Description:
        listed = {"family": "examples", "summary": "an example: its cases & methods", "durations": DURATIONS}
        return replace(describe(self.table, self.cases_, over_seeds(self.records())), **listed)

    def scores(self) -> pd.DataFrame:
        """Errors of eight functions that differ far more than methods: by 0.005 without a sign of its own for one."""
        rows = [
            {
                "case": case.key,
                "method": method,
                "seed": seed,
                "function": function,
                "MSE": function + offset + noise * (-1) ** function,
                "LL": function + level + noise * (-1) ** function,
                "CE": 1.0 if method == "bare" else 0.0,
            }
            for case in self.cases_
            for method, offset, level, noise in (
                ("bare", 1.0, 2.0, 0.0),
                ("hard", 1.005, -5.0, 0.1),
                ("ours", 0.5 if case.key == "a" else 1.5, 3.0, 0.1),
            )
            for seed in (0, 1)
            for function in range(8)
        ]
        return pd.DataFrame(rows)

    def records(self) -> pd.DataFrame:
        """Means of two seeds; ours is better in case a and worse in case b, the other the same within its error."""
        rows = [
            self.record(case.key, method, score, mean + 0.01 * seed, 0.01, seed)
            for case in self.cases_
            for method, score, mean in (
                ("bare", "MSE", 1.0),
                ("bare", "LL", 2.0),
                ("hard", "MSE", 1.005),
                ("hard", "LL", -5.0),
                ("ours", "MSE", 0.5 if case.key == "a" else 1.5),
                ("ours", "LL", 3.0),
                ("ours", "CRPS", 0.25),
            )
            for seed in (0, 1)
        ]
        return as_frame(rows)


TRAININGS = pd.DataFrame(
    [
        {"case": "a", "method": method, "seed": 0, "training": "net", "seconds": 90.0, "steps": 5000}
        for method in ("bare", "hard", "ours")
    ]
)


def results(experiment: Example | None = None, run: Path | None = None) -> Results:
    """Results of the example, as the release or a stored run has them."""
    entry = experiment or Example()
    return assemble(stored(entry), entry.records(), run)


def stored(entry: Example, **changes: Any) -> Run:
    """The example as a run stores it."""
    run = Run(
        experiment=entry.name,
        preset="laptop",
        seed=0,
        data_version=1,
        trained_version=1,
        environment={"date": "2026-01-02T03:04:05Z", "revision": "abc"},
        config={},
        description=entry.described(),
        trainings=TRAININGS,
        scores=entry.scores(),
    )
    return replace(run, **changes)
