"""What every experiment promises, over the registry: it runs, resumes, rebuilds what is damaged, and reproduces."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from experiments import driver
from experiments.cli import main
from experiments.errors import DataFileError, InvalidArgumentError, NotReleasedError, UnknownNameError
from experiments.experiment import Experiment, RunContext, RunOptions
from experiments.records.record import KEY
from experiments.records.release import released_results
from experiments.records.store import read_records, read_scores
from experiments.registry import CHOICES, EXPERIMENTS, STUDIES

TRAINED = {"end_to_end", "stokes"}
"""Experiments whose smoke trainings take a few seconds; the others run what needs no training here."""
ALL = {**EXPERIMENTS, **{entry.name: entry for entry in (*STUDIES.values(), *CHOICES.values())}}


def small(experiment: Experiment, out: Path, preset: str = "smoke") -> RunOptions:
    """Options of a run of one case in seconds."""
    options = RunOptions(preset=preset, out=out)  # type: ignore[arg-type]
    context = RunContext(options=options)
    case = experiment.cases(context)[0]
    methods = experiment.methods(case)
    quick = [method.key for method in methods if not experiment.trainings(case, method, 0, context)]
    keys = quick or [methods[0].key]
    if experiment.name in TRAINED:
        keys = [method.key for method in methods[:2]]
    return replace(options, cases=(case.key,), methods=tuple(keys))


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_keys_are_unique_plain_and_stable_in_files(name: str, tmp_path: Path) -> None:
    experiment = EXPERIMENTS[name]
    context = RunContext(options=RunOptions(preset="laptop", out=tmp_path))
    cases = experiment.cases(context)
    assert len({case.key for case in cases}) == len(cases)
    for case in cases:
        methods = experiment.methods(case)
        keys = [method.key for method in methods]
        assert len(set(keys)) == len(keys) == len({method.label for method in methods})
        assert all(key == key.lower() and key.isascii() and " " not in key for key in [*keys, case.key])
        assert keys[0] == "truth"
        json.dumps(driver.as_json(case.config))


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_a_smoke_run_stores_records_scores_tables_and_figures(name: str, tmp_path: Path) -> None:
    experiment = EXPERIMENTS[name]
    report = driver.run(experiment, small(experiment, tmp_path))
    records, scores = read_records(report.folder / "records.csv"), read_scores(report.folder / "scores.csv.gz")
    assert set(records["method"]) == {job for job in set(records["method"]) if job in set(scores["method"])}
    assert {"config.json", "environment.json", "metrics.json", "table.md", "table.csv"} <= {
        file.name for file in report.folder.iterdir()
    }
    means = scores.groupby(["case", "method", "seed"])["CE" if "CE" in scores else scores.columns[-1]].mean()
    assert len(means) == len(scores[["case", "method", "seed"]].drop_duplicates())


@pytest.mark.parametrize("name", sorted(TRAINED))
def test_a_second_start_reads_and_a_damaged_file_is_made_again(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = EXPERIMENTS[name]
    options = small(experiment, tmp_path)
    first = driver.run(experiment, options)
    weights = sorted(tmp_path.rglob("weights.safetensors"))
    before = {file: file.stat().st_mtime_ns for file in weights}
    again = driver.run(experiment, options)
    assert again.folder == first.folder
    assert {file: file.stat().st_mtime_ns for file in weights} == before
    scores = next((first.folder / "scores").glob("*.h5"))
    scores.write_bytes(scores.read_bytes()[:100])
    weights[0].write_bytes(b"damaged")
    third = driver.run(experiment, options)
    assert "damaged" in capsys.readouterr().err
    assert weights[0].stat().st_size > 100
    assert third.records.drop(columns="source").equals(first.records.drop(columns="source"))


@pytest.mark.parametrize("name", sorted(EXPERIMENTS))
def test_released_weights_give_the_released_scores(name: str, tmp_path: Path) -> None:
    experiment = EXPERIMENTS[name]
    results = released_results(name)
    context = RunContext(options=RunOptions(preset="laptop", out=tmp_path), released=True)
    case = experiment.cases(context)[-1]
    seeded = results.records[(results.records["case"] == case.key) & results.records["seed"].notna()]
    methods = list(dict.fromkeys(seeded["method"]))
    cheap = [key for key in methods if key in ("truth", "gp", "fno", "boon-default", "in-training", "single-operator")]
    options = RunOptions(out=tmp_path, cases=(case.key,), methods=tuple(cheap[:2] or methods[:2]))
    report = driver.reproduce(experiment, options)
    assert report.verdict.startswith("Reproduced: all 2 rows equal"), report.verdict


def test_statements_about_scores_can_be_checked_from_scores_per_function() -> None:
    for name in EXPERIMENTS:
        results = released_results(name)
        means = results.scores.drop(columns="function").groupby(["case", "method", "seed"]).mean()
        seeded = results.records[results.records["seed"].notna()]
        for record in seeded[seeded["score"].isin(["MSE", "relative_l2", "CRPS", "signed_CE"])].itertuples():
            mean = means.loc[(record.case, record.method, record.seed), record.score]
            assert mean == pytest.approx(record.mean, rel=1e-12, abs=1e-300), (name, record)


def test_rows_without_released_weights_are_copied_and_no_row_stands_twice(tmp_path: Path) -> None:
    options = RunOptions(out=tmp_path, cases=("single-0.02",))
    report = driver.reproduce(EXPERIMENTS["stokes"], options)
    table = report.records[report.records["seed"].isna() & (report.records["source"] == driver.Source.RELEASED)]
    assert {"fno", "boon-default", "boon-paper"} <= set(table["method"])
    assert not report.records.duplicated([*KEY, "source", "note"]).any()


def test_a_release_can_be_written_and_reproduced(tmp_path: Path) -> None:
    experiment = EXPERIMENTS["end_to_end"]
    options = small(experiment, tmp_path / "runs")
    driver.run(experiment, replace(options, methods=()))
    root = tmp_path / "library"
    root.mkdir()
    (root / "manifest.json").write_text(json.dumps({"data_versions": {}, "weights": {}, "experiments": {}}))
    driver.release(experiment, replace(options, methods=()), seeds=(0,), root=root)
    report = driver.reproduce(experiment, replace(options, methods=(), out=tmp_path / "again"), root=root)
    assert report.verdict.startswith("Reproduced")
    released = next((root / "weights").rglob("*.safetensors"))
    released.write_bytes(b"damaged")
    with pytest.raises(DataFileError, match="checksum"):
        driver.reproduce(experiment, replace(options, methods=(), out=tmp_path / "third"), root=root)


def test_what_is_not_released_says_how_to_make_it(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps({"data_versions": {}, "weights": {}, "experiments": {}}))
    with pytest.raises(NotReleasedError, match="run stefan --preset laptop"):
        driver.reproduce(EXPERIMENTS["stefan"], RunOptions(out=tmp_path), root=tmp_path)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"cases": ("nothing",)}, UnknownNameError, "no case 'nothing' here. Available: "),
        ({"methods": ("magic",)}, UnknownNameError, "no method 'magic' here. Available: truth, "),
        ({"seed": -1}, InvalidArgumentError, "--seed"),
    ],
)
def test_unknown_keys_are_refused_with_what_is_available(
    options: dict[str, object], error: type[Exception], text: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=text):
        driver.run(EXPERIMENTS["stokes"], RunOptions(out=tmp_path, **options))  # type: ignore[arg-type]


def test_run_prints_json_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", "diffusion", "--methods", "truth", "--out", str(tmp_path), "--json"]
    assert main(words) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["experiment"] == "diffusion"
    assert {row["method"] for row in content["rows"] if row["source"] == "computed"} == {"truth"}
    assert all(isinstance(value, list) for row in content["rows"] for name, value in row.items() if name == "CE")
