"""What every experiment promises, over the registry: it runs, resumes, rebuilds what is damaged, and reproduces."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from experiments import boundary, combined, conservation, driver, generation, gpme, observations
from experiments.boundary import open_rollouts
from experiments.errors import DataFileError
from experiments.experiment import RunContext, RunOptions, Table
from experiments.maintain import release
from experiments.options import CATALOGUE
from experiments.records.record import KEY, Source
from experiments.records.release import manifest, released_names, released_results
from experiments.records.run import read_run
from experiments.records.scores import SCORES, Reduction
from experiments.records.store import SCORE_KEY, as_json, read_scores, write_scores
from experiments.registry import table
from tests.experiments.boundary.tiny import tiny as tiny_case
from tests.experiments.boundary.tiny import tiny_experiment
from tests.experiments.combined.tiny import tiny as tiny_combined
from tests.experiments.conservation.tiny import tiny as tiny_conservation
from tests.experiments.generation.tiny import tiny as tiny_generation
from tests.experiments.marks import slow_but

pytestmark = pytest.mark.long

ALL = {name: table(name) for name in CATALOGUE}
EXPERIMENTS = {name: entry for name, entry in ALL.items() if CATALOGUE[name].family != "studies"}
CHEAP = {"anp-cells", "fno", "unconstrained"}
"""Released methods that are scored in seconds, at most one of an experiment."""
ONE_OF_A_KIND = {"stefan", "heat_independent", "reaction_diffusion", "wave_neumann", "combined", "generate_stokes"}
PARTLY = {*gpme.EXPERIMENTS, *open_rollouts.EXPERIMENTS, *observations.EXPERIMENTS}
"""Experiments without a row for the truth or without its files, of which not all networks are released."""
TRAINED = [name for name in EXPERIMENTS if name not in {*PARTLY, "generate_gpme"}]
"""Those that have weights and make their data; what the others promise is tested with their family."""
RELEASED = [name for name in EXPERIMENTS if name in released_names()]


def test_the_method_that_others_are_compared_with_is_one_of_the_rows() -> None:
    """It is no truth; of generated fields it is the flow alone, since training fields are told the law."""
    context = RunContext(options=RunOptions(preset="laptop"))
    references = {}
    for name, entry in ALL.items():
        for case in entry.cases(context):
            references[name] = entry.reference_of(case)
            assert references[name] in {method.key for method in entry.methods(case)} - {"truth"}, name
    expected = {"stefan": "anp", "stokes": "fno", "combined": "fno", "downscaling": "bilinear"}
    expected |= {"generate_stokes": "unconstrained", "advection-calibration": "anp"}
    assert {name: references[name] for name in expected} == expected


def tiny(name: str) -> Table:
    """The experiment in sizes that train in milliseconds."""
    if name in combined.EXPERIMENTS:
        return tiny_combined(name, combined.EXPERIMENTS[name].problems[0].name).table
    if name in generation.EXPERIMENTS:
        return tiny_generation(name).table
    if name in conservation.EXPERIMENTS:
        return tiny_conservation(name).table
    entry = boundary.EXPERIMENTS[name]
    return tiny_experiment(tiny_case(entry.versions("laptop")[0]), of=entry).table


def two_methods(table: Table, out: Path) -> RunOptions:
    """One case with the truth and the first method that is trained."""
    options = RunOptions(out=out)
    context = RunContext(options=options)
    case = table.cases(context)[0]
    trained = next(entry for entry in table.methods(case) if table.trainings(case, entry, 0, context))
    return replace(options, cases=(case.key,), methods=("truth", trained.key))


@pytest.mark.parametrize("name", ALL)
def test_keys_and_labels_are_unique_and_configs_are_json(name: str) -> None:
    context = RunContext(options=RunOptions(preset="laptop"))
    cases = ALL[name].cases(context)
    assert len({case.key for case in cases}) == len({case.label for case in cases}) == len(cases)
    for case in cases:
        methods = ALL[name].methods(case)
        keys = [method.key for method in methods]
        assert len(set(keys)) == len(keys) == len({method.label for method in methods})
        assert all(key == key.lower() and key.isascii() and " " not in key for key in [*keys, case.key])
        assert keys[0] == "truth" or name not in EXPERIMENTS or name in PARTLY
        json.dumps(as_json(case.config))
        trainings = [entry for method in methods for entry in ALL[name].trainings(case, method, 0, context)]
        assert len({entry.path(Path()) for entry in trainings}) == len({(entry.key, entry.hash) for entry in trainings})


@pytest.mark.parametrize("name", slow_but(TRAINED, ONE_OF_A_KIND))
def test_a_run_stores_what_it_shows_goes_on_and_makes_damaged_files_again(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny(name)
    options = two_methods(experiment, tmp_path)
    first = driver.run(experiment, options)
    stored = read_run(first.folder)
    check_means(stored.records, stored.scores)
    assert set(first.records[first.records["source"] == Source.COMPUTED]["method"]) == set(options.methods)
    files = {file.name for file in first.folder.iterdir()}
    assert {"run.json", "scores.csv.gz", "table.md", "table.csv"} <= files
    assert all(file.is_file() for file in first.files)
    kept = {file: file.stat().st_mtime_ns for file in (*tmp_path.rglob("*.safetensors"), *tmp_path.rglob("*.h5"))}
    again = driver.run(experiment, options)
    assert again.folder == first.folder
    assert {file: file.stat().st_mtime_ns for file in kept} == kept, "nothing is made again"
    weights = next(file for file in kept if file.name == "weights.safetensors")
    scores = next(file for file in kept if file.parent.name == "scores")
    for file in (weights, scores):
        file.write_bytes(file.read_bytes()[:100])
    capsys.readouterr()
    third = driver.run(experiment, options)
    printed = capsys.readouterr().err
    assert f"'{weights}' is damaged" in printed
    assert f"'{scores}' is damaged" in printed
    timed = "draw_milliseconds"  # measured anew
    assert third.records[third.records["score"] != timed].equals(first.records[first.records["score"] != timed])


def check_means(records: Any, scores: Any) -> None:
    """Every record is the mean, or the largest, of the scores of its functions."""
    groups = scores.drop(columns="function").groupby(["case", "method", "seed"])
    means, largest = groups.mean(), groups.max()
    checked = 0
    for record in records[records["seed"].notna()].itertuples():
        reduced = largest if SCORES[record.score].reduction is Reduction.MAXIMUM else means
        expected = reduced.loc[(record.case, record.method, record.seed), record.score]
        assert record.mean == pytest.approx(expected, rel=1e-12, abs=1e-300), record
        checked += 1
    assert checked


@pytest.mark.parametrize("name", RELEASED)
def test_released_means_are_those_of_the_released_scores_per_function(name: str) -> None:
    results = released_results(name)
    check_means(results.records, results.scores)
    assert results.trained_version <= results.data_version <= EXPERIMENTS[name].data_version


@pytest.mark.parametrize("name", slow_but([name for name in TRAINED if name in RELEASED], ONE_OF_A_KIND))
def test_released_weights_give_the_released_scores(name: str, tmp_path: Path) -> None:
    experiment = EXPERIMENTS[name]
    context = RunContext(options=RunOptions(preset="laptop"), released=True)
    case = experiment.cases(context)[0]
    (method,) = [entry for entry in experiment.methods(case) if entry.key in CHEAP]
    report = driver.reproduce(experiment, RunOptions(out=tmp_path, cases=(case.key,), methods=(method.key,)))
    files = {training.release for training in experiment.trainings(case, method, 0, context)}
    if not files <= manifest()["weights"].keys():
        assert report.verdict.startswith("Nothing to compare"), report.verdict
        return
    if released_results(name).data_version < experiment.data_version:
        assert report.verdict.startswith("Not compared with the release"), report.verdict
    else:
        assert report.verdict.startswith("Reproduced"), report.verdict
    assert not report.records.duplicated([*KEY, "source", "note"]).any()


def test_rows_without_released_weights_are_copied_and_said(tmp_path: Path) -> None:
    report = driver.reproduce(EXPERIMENTS["stokes"], RunOptions(out=tmp_path, cases=("single-0.02",)))
    copied = report.records[report.records["source"] == Source.RELEASED]
    assert {"fno", "boon-default", "boon-without-schur"} <= set(copied["method"])
    first = set(copied[copied["seed"] == 0]["method"])
    assert {"lifting", "unet", "deeponet"} <= first
    labels = report.description.methods
    assert (labels["deeponet"], labels["lifting"]) == ("DeepONet (0.3)", "lifting (0.4)"), "rows without a method"
    assert first.isdisjoint({"fno", "boon-default"})
    assert "rows are copied from the records: their weights are not here" in report.verdict


def test_a_release_can_be_written_and_reproduced(library: Path, tmp_path: Path) -> None:
    experiment = tiny("end_to_end")
    options = replace(two_methods(experiment, tmp_path / "runs"), methods=())
    with pytest.raises(DataFileError, match="holds no finished run of end_to_end"):
        release([experiment], options, seeds=(0,), root=library)
    ran = driver.run(experiment, options)
    release([experiment], options, seeds=(0,), root=library)
    again = replace(options, out=tmp_path / "again")
    report = driver.reproduce(experiment, again, library)
    assert report.verdict.startswith("Reproduced: all")
    both = report.records[report.records["source"] == Source.COMPUTED].merge(ran.records, on=KEY)
    assert len(both) > 10
    assert (both["mean_x"] == both["mean_y"]).all()
    scores = library / "results" / "end_to_end" / "scores.csv.gz"
    frame = read_scores(scores)
    changed = frame.columns.difference(SCORE_KEY)
    write_scores(scores, frame.assign(**(1.1 * frame[changed] + 1.0)))
    other = driver.reproduce(experiment, again, library)
    assert other.verdict.startswith("NOT reproduced")
    assert len(pd.read_csv(other.folder / "verdict.csv")) > 3
    released = next((library / "weights").rglob("*.safetensors"))
    released.write_bytes(b"damaged")
    with pytest.raises(DataFileError, match="its checksum is not that of the manifest"):
        driver.reproduce(experiment, replace(options, out=tmp_path / "third"), library)
