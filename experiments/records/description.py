"""What tables and pages say of an experiment besides its numbers, stored beside these: whoever shows results needs no
code of the experiment.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from experiments.catalogue import CATALOGUE
from experiments.errors import DataFileError
from experiments.records.record import PAPER, Over, Record, Source, as_frame
from experiments.storage import read_object

if TYPE_CHECKING:
    from experiments.experiment import Experiment

FILE = "description.json"
"""Its name in the folder of a run and of released results."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is called what in tables, in their order, and which rows and scores matter.

    Args:
        experiment: Name of the experiment.
        title: Title of its table.
        summary: What it shows, in a line.
        family: Heading that it stands under on the page; empty for none.
        over: What means and standard errors are taken over.
        durations: How long each preset takes, and ``reproduce``.
        cases: Label by key of the case.
        methods: Label by key of the method.
        information: What a method is told, by its key, where methods differ in that.
        baselines: Keys of methods that stand for what others do.
        headline: Keys of the methods that matter, by case.
        scores: Keys of the scores that matter.
        references: Key of the method that others are compared with, by case.
        papers: Records of the papers' numbers.
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
    baselines: Sequence[str] = ()
    headline: Mapping[str, Sequence[str]] = field(default_factory=dict)
    scores: Sequence[str] = ()
    references: Mapping[str, str] = field(default_factory=dict)
    papers: Sequence[Record] = ()

    def as_json(self) -> dict[str, Any]:
        """What ``description.json`` holds."""
        papers = [asdict(record) | {"source": record.source.value} for record in self.papers]
        return asdict(self) | {"over": self.over.value, "papers": papers}

    @property
    def published(self) -> pd.DataFrame:
        """The papers' numbers as a table of records."""
        return as_frame(self.papers)


def describe(experiment: "Experiment", cases: Sequence[Any], records: pd.DataFrame) -> Description:
    """The description of an experiment.

    Args:
        experiment: The experiment.
        cases: Its cases that have records.
        records: Means over seeds. Methods that the experiment has no more, such as those of an old release, come last,
            under their keys.
    """
    methods = {method.key: method for case in cases for method in experiment.methods(case)}
    ours = records.loc[~records["source"].isin(PAPER), "method"]
    headlines = {case.key: experiment.headline(case, records[records["case"] == case.key]) for case in cases}
    return Description(
        experiment=experiment.name,
        title=experiment.title(cases),
        summary=experiment.summary,
        family=CATALOGUE[experiment.name].family if experiment.name in CATALOGUE else "",
        over=experiment.over,
        durations={str(preset): text for preset, text in experiment.durations.items()},
        cases={case.key: case.label for case in cases},
        methods={key: method.label for key, method in methods.items()}
        | {key: key for key in ours if key not in methods},
        information={key: method.information for key, method in methods.items() if method.information},
        baselines=[key for key, method in methods.items() if getattr(method, "kind", "") == "baseline"],
        headline={case: list(methods) for case, (methods, _) in headlines.items()},
        scores=list(dict.fromkeys(score for _, scores in headlines.values() for score in scores)),
        references={case.key: experiment.reference(case) for case in cases},
        papers=[record for case in cases for record in experiment.published(case)],
    )


def read_description(folder: Path) -> Description:
    """Reads ``description.json``.

    Raises:
        DataFileError: If it is missing or damaged.
    """
    content = read_object(folder / FILE)
    try:
        papers = [Record(**{**record, "source": Source(record["source"])}) for record in content["papers"]]
        present = {entry.name: content[entry.name] for entry in fields(Description)}
        return Description(**present | {"over": Over(content["over"]), "papers": papers})
    except (KeyError, TypeError, ValueError) as error:
        raise DataFileError(f"'{folder / FILE}' describes no results ({error!r}); run the experiment again.") from error
