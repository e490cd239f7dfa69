"""Names and texts of an experiment for tables and pages, stored beside these: whoever shows results needs no
code of the experiment.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pandas as pd

from experiments.records.record import Over, Record, Source, as_frame


@dataclass(frozen=True, kw_only=True)
class Description:
    """Labels of tables, in their order, and which rows and scores matter.

    Args:
        family: Heading that it stands under on the page; empty for none.
        durations: How long each preset takes, and ``reproduce``.
        information: Data given to a method, by its key, where methods differ in that.
        headline: Keys of the methods that matter, by case.
        references: Key of the method that others are compared with, by case.
    """

    experiment: str
    title: str = ""
    summary: str = ""
    family: str = ""
    over: Over = Over.FUNCTIONS
    durations: Mapping[str, str] = field(default_factory=dict)
    cases: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)
    information: Mapping[str, str] = field(default_factory=dict)
    headline: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scores: Sequence[str] = ()
    references: Mapping[str, str] = field(default_factory=dict)
    papers: Sequence[Record] = ()

    def as_json(self) -> dict[str, Any]:
        """Its content as JSON can hold it."""
        papers = [asdict(record) | {"source": record.source.value} for record in self.papers]
        return asdict(self) | {"over": self.over.value, "papers": papers}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Description":
        """Reads what ``as_json`` gave; raises KeyError, TypeError or ValueError for anything else."""
        papers = [Record(**{**record, "source": Source(record["source"])}) for record in content["papers"]]
        present = {entry.name: content[entry.name] for entry in fields(cls)}
        return cls(**present | {"over": Over(content["over"]), "papers": papers})

    @property
    def published(self) -> pd.DataFrame:
        """The papers' numbers as a table of records."""
        return as_frame(self.papers)


def title(name: str) -> str:
    """The name of an experiment as a heading."""
    problem, *study = name.removeprefix("generate_").split("-")
    generated = ", generated" if name.startswith("generate_") else ""
    words = ": ".join((problem + generated, *study)).replace("_", " ")
    words = re.sub("burgers|darcy|dirichlet|neumann", lambda person: person[0].capitalize(), words)
    return words[0].upper() + words[1:]
