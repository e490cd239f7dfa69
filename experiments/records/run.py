"""A table as it is stored: scores per function in ``scores.csv.gz``, all else in ``run.json``.

Both files stand in the folder of a run, ``results/<experiment>/<config hash>/``, and in the release. Means, errors,
verdicts and tables follow from them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from experiments.errors import DataFileError
from experiments.records.description import Description
from experiments.records.record import records_of
from experiments.records.storage import read_object, writable_folder, write_json
from experiments.records.store import config_hash, environment, read_scores, write_scores

FILE, SCORES_FILE = "run.json", "scores.csv.gz"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Args:
        data_version: Version of the data that it was scored on, which ``reproduce`` compares on.
        trained_version: The least version of the data that its networks were trained on.
        environment: Versions, revision and machine.
        config: Everything that decides the result of a run; empty in the release.
        verdict: What ``reproduce`` found; empty for others.
        figures: Names of its figures in its folder, the leading one first.
        weights: Released files of weights, below ``experiments/weights``.
        trainings: Case, method, seed, seconds, steps and processor of every training.
        scores: Scores per function and seed.
    """

    experiment: str
    preset: str
    seed: int
    data_version: int
    trained_version: int
    environment: dict[str, Any]
    config: dict[str, Any]
    verdict: str = ""
    figures: Sequence[str] = ()
    weights: Sequence[str] = ()
    description: Description
    trainings: pd.DataFrame
    scores: pd.DataFrame

    @cached_property
    def records(self) -> pd.DataFrame:
        """Means and standard errors of the scores, by seed."""
        return records_of(self.scores, self.experiment, self.description.over)

    def write(self, folder: Path) -> list[Path]:
        """Writes both files, ``run.json`` last, which says that the run is whole; returns them."""
        files = [writable_folder(folder) / name for name in (SCORES_FILE, FILE)]
        write_scores(files[0], self.scores)
        content = {entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "scores"}
        trainings = self.trainings.to_dict("records")
        write_json(files[1], content | {"description": self.description.as_json(), "trainings": trainings})
        return files


def open_run(out: Path, experiment: str, config: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The folder of a run by what decides its result, and the environment of its first start, which it keeps."""
    folder = folder_of(out, experiment, config)
    if (folder / FILE).exists():
        return folder, read_object(folder / FILE).get("environment", {})
    made = environment()
    write_json(writable_folder(folder) / FILE, {"experiment": experiment, "config": config, "environment": made})
    return folder, made


def folder_of(out: Path, experiment: str, config: dict[str, Any]) -> Path:
    """``out/experiment/<config hash>``."""
    return out / experiment / config_hash(config)


def is_finished(folder: Path) -> bool:
    """Whether a run has come to its end."""
    return (folder / FILE).exists() and "description" in read_object(folder / FILE)


def read_run(folder: Path) -> Run:
    """Reads a finished run.

    Raises:
        DataFileError: If it is not finished, or a file is damaged.
    """
    content = read_object(folder / FILE)
    try:
        described = Description.from_json(content.pop("description"))
        trainings = pd.DataFrame(content.pop("trainings"))
        return Run(**content, description=described, trainings=trainings, scores=read_scores(folder / SCORES_FILE))
    except (KeyError, TypeError, ValueError) as error:
        raise DataFileError(f"'{folder / FILE}' describes no results ({error!r}); run the experiment again.") from error
