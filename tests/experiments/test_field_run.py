"""The experiments on operators under both constraints from data to figures, in tiny sizes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from boon import SmoothExtension
from experiments import field_run
from experiments.errors import DataFileError, InvalidArgumentError, NotShippedError, UnknownNameError
from experiments.experiment import Report, RunOptions
from experiments.field_config import FieldSizes
from experiments.field_experiments import AFTER, IN_TRAINING, STUDIES, study_of
from experiments.field_run import reproduce_study, run_config, run_study
from experiments.field_study import FieldMethod, FieldStudy, groups
from experiments.runs import Run
from experiments.ship_fields import ship
from experiments.storage import read_object
from experiments.tables import Row, Score
from tests.experiments.fields import TINY, tiny_study

SINGLE = replace(TINY, groups=1)


def options(folder: Path, seed: int = 0) -> RunOptions:
    return RunOptions(out=folder, seed=seed)


def rows_of(report: Report, source: str = "") -> dict[tuple[str, str], dict[str, Score]]:
    return {(row.parameter, row.method): row.scores for row in report.rows if row.source == source}


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_run, "draw_study", lambda *_: [])


def test_both_constraints_hold_on_one_prediction_and_everything_is_stored(tmp_path: Path) -> None:
    report = run_study(tiny_study("combined"), TINY, options(tmp_path))
    rows = rows_of(report)
    places = list(dict.fromkeys(place for place, _ in rows))
    assert places[:2] == ["porous medium, m in [2, 3], trained on", "porous medium, m in [3, 4]"]
    assert len(places) == 4
    for (_, method), scores in rows.items():
        if method == "truth":
            continue
        assert {"MSE", "CRPS", "LL", "coverage50", "coverage90", "boundary", "conservation"} == scores.keys()
        assert all(error is not None for _, error in scores.values())
        bounded, conserved = "BOON" in method, "ProbConserv" in method
        assert scores["boundary"] == (0.0, 0.0) if bounded else scores["boundary"][0] > 1e-4
        assert scores["conservation"][0] <= 1e-12 if conserved else scores["conservation"][0] > 1e-4
    assert {file.stem for file in report.figures} == {
        *(f"profile-{name}-{number}" for name in ("porous_medium", "stefan") for number in (0, 1)),
        *(f"shift-{name}" for name in ("porous_medium", "stefan")),
    }
    for file in (*report.tables, *report.figures):
        assert file.stat().st_size > 0
    metrics = read_object(report.folder / "metrics.json")
    assert [Row.from_json(row) for row in metrics["rows"]] == report.rows
    assert metrics["environment"]["packages"]["torch"]
    assert all(entry["seconds"][0] > 0 for entry in metrics["trainings"])
    assert {entry["sizes"]["trainings"] for entry in metrics["trainings"]} == {4}
    assert "over independent groups of trainings" in (report.folder / "table.md").read_text(encoding="utf-8")


@pytest.mark.usefixtures("no_figures")
def test_equal_seeds_give_equal_results_and_others_do_not(tmp_path: Path) -> None:
    study = tiny_study("operator_uncertainty", "diffusion")
    first = rows_of(run_study(study, SINGLE, options(tmp_path / "first")))
    assert rows_of(run_study(study, SINGLE, options(tmp_path / "second"))) == first
    other = rows_of(run_study(study, SINGLE, options(tmp_path / "first", seed=1)))
    assert not any(other[key] == first[key] for key in first if key[1] != "truth")
    assert "boundary" not in next(scores for (_, method), scores in first.items() if method == "Ensemble")


@pytest.mark.usefixtures("no_figures")
def test_every_way_to_uncertainty_has_a_row_before_and_after_the_law(tmp_path: Path) -> None:
    rows = rows_of(run_study(tiny_study("operator_uncertainty", "stefan"), SINGLE, options(tmp_path)))
    methods = list(dict.fromkeys(method for _, method in rows))
    assert methods[1::2] == ["single operator", "Ensemble", "diverse heads", "MC dropout"]
    for (place, method), scores in rows.items():
        if method in methods[1::2]:
            after = rows[place, f"ProbConserv-{method}"]
            assert after["conservation"][0] <= 1e-12 < scores["conservation"][0]
            assert after["CRPS"] != scores["CRPS"]


@pytest.mark.usefixtures("no_figures")
def test_training_through_the_update_is_compared_seed_by_seed(tmp_path: Path) -> None:
    study = tiny_study("end_to_end", "stefan", "porous_medium")
    rows = rows_of(run_study(study, TINY, options(tmp_path)))
    stefan, shifted = (place for place, method in rows if method == "truth" and place.startswith("stefan"))
    trained, after = rows[stefan, IN_TRAINING], rows[stefan, AFTER]
    assert trained["paper_ratio"] == (pytest.approx(7.52 / 7.85), None)
    assert "paper_ratio" not in rows[shifted, IN_TRAINING]
    assert not any("paper_ratio" in scores for (place, _), scores in rows.items() if "porous" in place)
    # The mean of ratios of positive pairs lies between the smallest and the largest of them.
    (mean, error), (first, spread), (second, other) = trained["ratio"], trained["CRPS"], after["CRPS"]
    assert (first - spread) / (second + other) <= mean <= (first + spread) / (second - other)
    assert error is not None
    assert "ratio" not in after


def test_experiments_share_their_trainings() -> None:
    combined, uncertainty, training = (groups(STUDIES[name], TINY, 0) for name in STUDIES)

    def names(own: list, method: str) -> set[str]:
        return {training.identity for group in own if group.method.name == method for training in group.trainings}

    assert names(combined, "FNO") < names(uncertainty, "Ensemble")
    assert names(uncertainty, "single operator") < names(training, "FNO")
    numbers = [training.training.seed for group in combined[:2] for training in group.trainings]
    assert numbers == [0, 1, 2, 3], "groups are independent"


@pytest.mark.parametrize("name", list(STUDIES))
def test_runs_of_other_seeds_share_no_training(name: str) -> None:
    runs = [
        {training.identity for group in groups(STUDIES[name], TINY, seed) for training in group.trainings}
        for seed in range(3)
    ]
    assert len(set.union(*runs)) == sum(len(run) for run in runs)


def test_a_row_that_is_predicted_otherwise_is_another_run(tmp_path: Path) -> None:
    study = tiny_study("combined", "stefan")

    def folder(study: FieldStudy) -> Path:
        return Run(study.name, run_config(study, TINY, 0, groups(study, TINY, 0)), tmp_path).folder

    def smooth(sizes: FieldSizes) -> tuple[FieldMethod, ...]:
        return tuple(
            replace(method, bounded=SmoothExtension() if method.bounded else None) for method in study.methods(sizes)
        )

    assert folder(study) == folder(tiny_study("combined", "stefan"))
    assert folder(replace(study, methods=smooth)) != folder(study)


@pytest.mark.usefixtures("no_figures")
def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = tiny_study("combined", "stefan")
    original, calls = field_run.score_group, []

    def stopping(*arguments: object) -> dict:
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(field_run, "score_group", stopping)
    with pytest.raises(KeyboardInterrupt):
        run_study(study, SINGLE, options(tmp_path))
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("**/*.h5")}
    report = run_study(study, SINGLE, options(tmp_path))
    assert len(calls) == 8, "two of seven groups were stored"
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert len(rows_of(report)) == 16


@pytest.mark.parametrize("wrong", [{"data": "solver"}, {"cases": ("single",)}, {"networks": ("anp",)}])
def test_options_of_other_experiments_are_refused(tmp_path: Path, wrong: dict) -> None:
    with pytest.raises(InvalidArgumentError, match=f"--{next(iter(wrong))} does not belong to this experiment"):
        run_study(tiny_study("combined"), TINY, RunOptions(out=tmp_path / "out", **wrong))
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_figures")
def test_what_ships_reproduces_the_run(tmp_path: Path, library: Path) -> None:
    study = tiny_study("combined", "stefan")
    ran = run_study(study, SINGLE, options(tmp_path / "out"))
    shipped = ship(study, SINGLE, tmp_path / "out")
    assert sorted(shipped.weights) == [
        f"stefan-{name}-{seed}.safetensors" for name in ("boon", "fno") for seed in (0, 1)
    ]
    assert len(list(library.glob("weights/fields/*.safetensors"))) == 4
    report = reproduce_study(study, SINGLE, options(tmp_path / "elsewhere"))
    assert rows_of(report, "scored now") == rows_of(ran)
    stored = rows_of(report, "stored run, laptop")
    assert stored == {key: scores for key, scores in rows_of(ran).items() if key[1] != "truth"}
    places = [row.parameter for row in report.rows]
    assert places == sorted(places, key=places.index)


@pytest.mark.usefixtures("no_figures")
def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path, library: Path) -> None:
    study = tiny_study("combined", "stefan")
    with pytest.raises(NotShippedError, match=r"No results of experiment 'combined' ship .* --preset laptop"):
        reproduce_study(study, SINGLE, options(tmp_path / "out"))
    with pytest.raises(DataFileError, match="finish the run before it ships"):
        ship(study, SINGLE, tmp_path / "out")
    run_study(study, SINGLE, options(tmp_path / "out"))
    ship(study, SINGLE, tmp_path / "out")
    (path, *_) = sorted(library.glob("weights/fields/*"))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataFileError, match=f"{path.name}' is damaged"):
        reproduce_study(study, SINGLE, options(tmp_path / "out"))
    path.unlink()
    with pytest.raises(NotShippedError, match=f"'{path.name}' of combined are missing"):
        reproduce_study(study, SINGLE, options(tmp_path / "out"))
    stored = library / "results" / "combined.json"
    content = json.loads(stored.read_text(encoding="utf-8"))
    del content["weights"]
    stored.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataFileError, match="does not hold results of an experiment"):
        reproduce_study(study, SINGLE, options(tmp_path / "out"))


@pytest.mark.usefixtures("no_figures")
def test_operators_that_another_experiment_ships_are_not_replaced(tmp_path: Path, library: Path) -> None:
    combined, uncertainty = (tiny_study(name, "stefan") for name in ("combined", "operator_uncertainty"))
    for study in (combined, uncertainty):
        run_study(study, SINGLE, options(tmp_path / "out"))
    ship(combined, SINGLE, tmp_path / "out")
    ship(uncertainty, SINGLE, tmp_path / "out")
    kept = {path: path.read_bytes() for path in library.rglob("*.*")}
    (training,) = groups(uncertainty, SINGLE, 0)[0].trainings
    other = training.folder(tmp_path / "out") / "weights.safetensors"
    other.write_bytes(other.read_bytes() + b" ")
    with pytest.raises(DataFileError, match=r"'stefan-fno-0\.safetensors' of operator_uncertainty differs .* combined"):
        ship(uncertainty, SINGLE, tmp_path / "out")
    assert {path: path.read_bytes() for path in library.rglob("*.*")} == kept


def test_an_unknown_study_names_the_known() -> None:
    with pytest.raises(UnknownNameError, match="Known: combined, operator_uncertainty, end_to_end"):
        study_of("nothing")
