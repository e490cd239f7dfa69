"""Records: how scores are reduced, stored, released and compared."""

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments import driver
from experiments.errors import DataFileError, NotReleasedError
from experiments.experiment import RunOptions
from experiments.maintain import release
from experiments.records import store
from experiments.records.description import Description
from experiments.records.record import (
    Over,
    Record,
    Source,
    as_frame,
    mean_and_error,
    over_seeds,
    records_of,
)
from experiments.records.release import (
    ROOT,
    manifest,
    released_names,
    released_results,
    released_weights,
    write_release,
)
from experiments.records.run import FILE, Run
from experiments.records.storage import read_object
from experiments.records.table import as_markdown, json_rows, numbers, wide
from experiments.report.terminal import print_report
from tests.experiments.stub import Entry, Stub

KEY = {"experiment": "stefan", "case": "u=0.6", "method": "anp", "seed": 0}
LABELS = Description(
    experiment="stefan",
    title="Title",
    over=Over.SEEDS,
    cases={"u=0.6": "u*=0.6"},
    methods={"truth": "truth", "gp": "GP", "anp": "ANP"},
)


def record(mean: float, score: str = "MSE", **changes: object) -> Record:
    settings = {**KEY, "standard_error": None, **changes}
    return Record(score=score, mean=mean, **settings)  # type: ignore[arg-type]


def test_mean_and_standard_error_leave_out_what_is_nan() -> None:
    assert mean_and_error([1.0, 2.0, math.nan, 6.0]) == (3.0, pytest.approx(math.sqrt(7 / 3)))
    assert mean_and_error([2.0]) == (2.0, None)
    assert mean_and_error([0.1, 0.1, 0.1]) == (pytest.approx(0.1), 0.0), "not the rounding of the mean"
    mean, error = mean_and_error([math.nan])
    assert math.isnan(mean)
    assert error is None


def test_scores_of_functions_become_records_in_the_order_of_tables() -> None:
    arrays = {"shown": np.ones((2, 3)), "boundary": np.array([1.0, 3.0]), "validation": np.array(0.5)}
    arrays |= {"shock": np.array([math.nan, math.nan]), "MSE": np.array([1.0, 2.0, math.nan])}
    scores = store.scores_frame([("u=0.6", "anp", 0, arrays)])
    records = records_of(scores, "stefan", Over.FUNCTIONS)
    assert records[["experiment", "case", "method", "seed"]].drop_duplicates().to_dict("records") == [KEY]
    assert records["score"].tolist() == ["MSE", "validation", "boundary"]
    assert records["mean"].tolist() == [1.5, 0.5, 3.0], "of the last the largest"
    assert records["standard_error"].tolist() == pytest.approx([0.5, math.nan, math.nan], nan_ok=True)
    assert records_of(scores, "stefan", Over.SEEDS)["standard_error"].isna().all()


def test_means_over_seeds_keep_single_records_and_the_papers() -> None:
    paper = record(9.0, seed=None, source=Source.PUBLISHED)
    copied = record(7.0, seed=None, method="gp", standard_error=0.1, source=Source.RELEASED)
    single = record(4.0, score="LL", standard_error=0.5)
    seeds = [record(mean, seed=seed) for seed, mean in enumerate([1.0, 2.0, 6.0])]
    merged = over_seeds(as_frame([*seeds, single, paper, copied]))
    by_key = {(row.method, row.score, row.source): row for row in merged.itertuples()}
    mean = by_key["anp", "MSE", Source.COMPUTED]
    assert (mean.mean, mean.standard_error) == (3.0, pytest.approx(math.sqrt(7 / 3)))
    assert pd.isna(mean.seed)
    assert by_key["anp", "LL", Source.COMPUTED].standard_error == 0.5
    assert by_key["anp", "MSE", Source.PUBLISHED].mean == 9.0
    assert by_key["gp", "MSE", Source.RELEASED].standard_error == 0.1
    assert len(merged) == 4
    frame = as_frame([record(1.0), record(3.0, seed=1), record(2.5, seed=None, source=Source.RELEASED)])
    assert over_seeds(frame)["mean"].tolist() == [2.5], "a released mean stands instead of its seeds"


def test_scores_and_records_come_back_with_all_digits_and_equal_bytes(tmp_path: Path) -> None:
    values = np.array([1 / 3, math.nan, 5e-324, -1.7976931348623157e308])
    arrays = {"MSE": values, "validation": np.array(0.1), "shown": np.zeros((4, 4))}
    scores = store.scores_frame([("m=1", "anp", 0, arrays), ("m=1", "truth", 0, {"CE": np.array([0.0])})])
    assert list(scores) == ["case", "method", "seed", "function", "MSE", "validation", "CE"]
    assert scores["validation"].notna().tolist() == [True, False, False, False, False], "one value stands first"
    path = tmp_path / "scores.csv.gz"
    store.write_scores(path, scores)
    assert path.read_bytes()[4:8] == bytes(4), "no time in the header of gzip"
    pd.testing.assert_frame_equal(store.read_scores(path), scores, check_exact=True)
    records = as_frame([record(1 / 3, case="1", standard_error=1e-300), record(math.inf, seed=None, note="None, NA")])
    store.write_records(tmp_path / "over_seeds.csv", records)
    pd.testing.assert_frame_equal(store.read_records(tmp_path / "over_seeds.csv"), records, check_exact=True)


def test_damaged_and_missing_scores_are_named(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv.gz"
    whole = gzip.compress(b"case,method,seed,function\n" * 50)
    for content in (whole[:-12], b"plain", whole[:30] + b"\x00" * 30):
        path.write_bytes(content)
        with pytest.raises(DataFileError, match=r"scores\.csv\.gz' cannot be read as a table"):
            store.read_scores(path)
    with pytest.raises(DataFileError, match="cannot be read"):
        store.read_scores(tmp_path / "nothing.csv.gz")


def results(name: str, weights: list[str]) -> Run:
    return Run(
        experiment=name,
        preset="laptop",
        seed=3,
        trained_version=1,
        data_version=2,
        config={},
        scores=store.scores_frame([("u=0.6", "anp", 0, {"MSE": np.array([0.1])})]),
        trainings=pd.DataFrame([{"case": "u=0.6", "method": "anp", "seed": 0, "training": "anp", "seconds": 1.5}]),
        weights=weights,
        environment={"python": "3.11"},
        description=replace(LABELS, experiment=name, papers=[record(0.2, source=Source.PUBLISHED, seed=None)]),
    )


def test_a_release_is_read_as_it_was_written(library: Path, tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"weights")
    written = results("stefan", ["nets/anp.safetensors"])
    files = write_release([(written, {"nets/anp.safetensors": file})], library)
    assert all(path.is_file() for path in files)
    read = released_results("stefan", library)
    assert (read.preset, read.seed, read.weights) == ("laptop", 3, written.weights)
    assert (read.trained_version, read.data_version) == (1, 2)
    assert read.description.as_json() == json.loads(json.dumps(written.description.as_json()))
    pd.testing.assert_frame_equal(read.scores, written.scores)
    assert read.trainings.to_dict("records") == written.trainings.to_dict("records")
    assert released_weights("nets/anp.safetensors", library).read_bytes() == b"weights"
    (library / "weights/nets/anp.safetensors").write_bytes(b"weightz")
    with pytest.raises(DataFileError, match="is damaged: its checksum is not that of the manifest; restore"):
        released_weights("nets/anp.safetensors", library)
    (library / "weights/nets/anp.safetensors").unlink()
    with pytest.raises(NotReleasedError, match="are in the repository, but not in this installation"):
        released_weights("nets/anp.safetensors", library)


def test_a_file_that_another_experiment_uses_is_not_replaced(library: Path, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    new.write_bytes(b"new")
    stefan, other, third = results("stefan", ["shared"]), results("other", ["shared"]), results("third", [])
    write_release([(stefan, {"shared": old})], library)
    message = r"'shared' differs from the file .* the results of stefan are from; .*: release other stefan\.$"
    with pytest.raises(DataFileError, match=message):
        write_release([(other, {"shared": new})], library)
    assert released_names(library) == ["stefan"]
    assert released_weights("shared", library).read_bytes() == b"old"
    write_release([(other, {"shared": old}), (third, {})], library)
    write_release([(other, {"shared": new}), (stefan, {"shared": new})], library)
    assert released_weights("shared", library).read_bytes() == b"new"
    assert released_names(library) == ["stefan", "other", "third"], "those of the catalogue first"


def test_a_refused_release_changes_no_file_and_one_of_all_that_share_weights_is_taken(
    library: Path, tmp_path: Path
) -> None:
    file, entry, options = tmp_path / "old", Stub(), RunOptions(out=tmp_path)
    file.write_bytes(b"old")
    write_release([(results("other", ["stub.safetensors"]), {"stub.safetensors": file})], library)
    driver.run(entry.table, options)
    before = {path: path.read_bytes() for path in library.rglob("*") if path.is_file()}
    with pytest.raises(DataFileError, match=r"'stub.safetensors' differs .*: release stub other\."):
        release([entry.table], options, seeds=(0,), root=library)
    assert {path: path.read_bytes() for path in library.rglob("*") if path.is_file()} == before
    other = replace(entry, name="other")
    with pytest.raises(
        DataFileError, match=r"holds no finished run of other .*; python -m experiments run other --preset"
    ):
        release([entry.table, other.table], options, seeds=(0,), root=library)
    assert {path: path.read_bytes() for path in library.rglob("*") if path.is_file()} == before
    driver.run(other.table, options)
    release([entry.table, other.table], options, seeds=(0,), root=library)
    assert released_weights("stub.safetensors", library).read_bytes() != b"old"


def test_what_is_not_released_is_said_with_what_is(library: Path) -> None:
    with pytest.raises(NotReleasedError, match=r"\(there are of none\); .* run stefan --preset laptop"):
        released_results("stefan", library)
    with pytest.raises(NotReleasedError, match="'anp' are not part of the release"):
        released_weights("anp", library)


def test_every_released_file_is_that_of_the_manifest() -> None:
    content = manifest()
    used = {file for name in released_names() for file in read_object(ROOT / "results" / name / FILE)["weights"]}
    assert used <= set(content["weights"])
    for file in content["weights"]:
        assert released_weights(file).is_file()


def table_records() -> pd.DataFrame:
    papers = [record(mean, seed=None, source=Source.PUBLISHED) for mean in (3.0, 2.0)]
    ours = [record(0.5, standard_error=0.01), record(1.0, method="gp"), record(-2.0, score="LL", method="gp")]
    return over_seeds(as_frame([*ours, *papers, record(1.0, score="LL", seed=None, source=Source.RECOMPUTED)]))


def test_tables_are_in_the_order_of_labels_with_the_papers_first_number_beside() -> None:
    frame = numbers(table_records(), LABELS)
    assert list(frame.index) == [("u=0.6", "gp"), ("u=0.6", "anp")]
    assert list(frame) == ["LL", "LL_paper", "MSE", "MSE_se", "MSE_paper"]
    assert frame.loc[("u=0.6", "anp"), "MSE_paper"] == 3.0, "the printed one, not the best"
    shown = wide(table_records(), replace(LABELS, information={"gp": "the kernel"}))
    assert list(shown) == ["case", "method", "sees", "LL ↑", "recomputed LL", "MSE ↓", "published MSE"]
    assert shown.loc[1].tolist() == ["u*=0.6", "ANP", "", "—", "1", "0.5 (0.01)", "3"]
    text = as_markdown(table_records(), LABELS)
    assert text.startswith("## Title\n\n| case")
    assert "Mean (standard error) over seeds. LL: log-likelihood per point; MSE: mean squared error." in text


def test_json_has_a_row_per_case_method_seed_and_source() -> None:
    rows = json_rows(table_records(), LABELS)
    assert json.loads(json.dumps(rows)) == rows
    assert rows[0] == {
        "parameter": "u*=0.6",
        "method": "ANP",
        "case": "u=0.6",
        "method_key": "anp",
        "seed": 0,
        "source": "computed",
        "MSE": [0.5, 0.01],
    }
    assert {row["source"] for row in rows} == {"computed", "published", "recomputed"}


def test_new_data_are_trained_on_anew_and_an_old_release_is_not_compared(library: Path, tmp_path: Path) -> None:
    options, first = RunOptions(out=tmp_path), Stub()
    second = replace(first, version=2)
    before, after = driver.run(first.table, options), driver.run(second.table, options)
    assert before.folder != after.folder
    assert len(list(tmp_path.glob("stub/net-*/weights.safetensors"))) == 2, "one training for each version"
    release([first.table], options, seeds=(0,), root=library)
    assert driver.reproduce(first.table, options, library).verdict.startswith("Reproduced: all 4 rows equal")
    verdict = driver.reproduce(second.table, options, library).verdict
    assert verdict.startswith(
        "Not compared with the release, and none of its rows copied: it was scored on data version 1, "
    )
    assert verdict.endswith("this library makes version 2; python -m experiments run stub trains on it.")


def test_methods_that_left_stay_rivals_in_the_next_release(library: Path, tmp_path: Path) -> None:
    """Their records and scores, label and information, as long as the data are the same."""
    entry, options = Stub(), RunOptions(out=tmp_path)
    driver.run(entry.table, options)
    release([entry.table], options, seeds=(0,), root=library)
    before = released_results("stub", library)
    trained = before.scores[before.scores["method"] == "trained"]
    gone, older = (trained.assign(method=method) for method in ("gone", "older"))
    described = replace(
        before.description,
        methods={**before.description.methods, "gone": "Gone", "older": "Older (0.3)"},
        information={"gone": "the field"},
    )
    scores = pd.concat([before.scores, gone, older])
    write_release([(replace(before, scores=scores, description=described), {})], library)
    for _ in range(2):  # the second keeps what the first has added to a label
        release([entry.table], options, seeds=(0,), root=library)
    after = released_results("stub", library)
    assert (after.scores["method"] == "gone").sum() == len(gone) > 0
    assert [after.description.methods[key] for key in ("gone", "older")] == ["Gone (0.4)", "Older (0.3)"]
    assert after.description.information == {"gone": "the field"}
    newer = replace(entry, version=2)
    driver.run(newer.table, options)
    release([newer.table], options, seeds=(0,), root=library)
    assert "gone" not in released_results("stub", library).description.methods


def test_a_release_of_some_cases_leaves_the_others(library: Path, tmp_path: Path) -> None:
    entry, options = Stub(paper=0.5), RunOptions(out=tmp_path / "all")
    driver.run(entry.table, options)
    release([entry.table], options, seeds=(0,), root=library)
    before = released_results("stub", library)
    some = RunOptions(out=tmp_path / "some", cases=("m=2",))
    driver.run(entry.table, some)
    release([entry.table], replace(some, methods=("truth",)), seeds=(0,), root=library)
    after = released_results("stub", library)

    def of_first(results: Run, name: str) -> pd.DataFrame:
        frame = getattr(results, name)
        return frame[frame["case"] == "m=1"].reset_index(drop=True)

    for name in ("scores", "trainings"):
        pd.testing.assert_frame_equal(of_first(after, name), of_first(before, name))
        assert len(getattr(after, name)) == len(getattr(before, name))
    assert (after.description, after.weights) == (before.description, before.weights)
    assert after.environment == before.environment
    newer = replace(entry, version=2)
    driver.run(newer.table, some)
    with pytest.raises(DataFileError, match=r"other cases of stub were scored on data version 1, m=2 on 2; run"):
        release([newer.table], some, seeds=(0,), root=library)


@pytest.fixture
def of_two_seeds(library: Path, tmp_path: Path) -> Stub:
    """A stub of which two seeds are released, and the weights of the first."""
    entry, options = replace(Stub(), over=Over.SEEDS), RunOptions(out=tmp_path)
    for seed in (0, 1):
        driver.run(entry.table, replace(options, seed=seed))
    release([entry.table], options, seeds=(0, 1), root=library)
    return entry


@pytest.mark.parametrize(
    ("options", "version", "reason"),
    [
        ({"seed": 5}, 1, "its test functions are those of --seed 0."),
        ({"data": "exact"}, 1, "its test functions are those of --seed 0 without --data."),
        ({}, 2, "it was scored on data version 1, this library makes version 2; "),
    ],
)
def test_scores_on_other_test_functions_are_not_averaged_with_released_ones(
    options: dict, version: int, reason: str, of_two_seeds: Stub, library: Path, tmp_path: Path
) -> None:
    same = driver.reproduce(of_two_seeds.table, RunOptions(out=tmp_path), library)
    assert same.records[same.records["source"] == Source.RELEASED]["seed"].unique().tolist() == [1]
    entry = replace(of_two_seeds, version=version)
    other = driver.reproduce(entry.table, RunOptions(out=tmp_path, **options), library)
    assert set(other.records["source"]) == {Source.COMPUTED, Source.PUBLISHED}
    assert other.verdict.startswith(f"Not compared with the release, and none of its rows copied: {reason}")


def test_a_reproduction_without_any_row_says_how_to_make_them(
    of_two_seeds: Stub, library: Path, tmp_path: Path
) -> None:
    (library / "weights" / "stub.safetensors").unlink()
    options = RunOptions(out=tmp_path, methods=("trained",))
    assert Source.COMPUTED not in set(driver.reproduce(of_two_seeds.table, options, library).records["source"])
    reason = "experiments run stub --preset laptop trains them. Not compared with the release, .* of --seed 0.$"
    with pytest.raises(NotReleasedError, match=f"nothing to show of stub: .* {reason}"):
        driver.reproduce(of_two_seeds.table, replace(options, seed=5), library)


class Renamed(Stub):
    """The stub after its trained method got another key."""

    def methods(self, case: Entry) -> list[Entry]:  # noqa: ARG002
        return [Entry("truth", "truth"), Entry("learnt", "Learnt")]


def test_released_rows_of_a_method_that_is_gone_are_shown(
    of_two_seeds: Stub, library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = driver.reproduce(Renamed(over=of_two_seeds.over).table, RunOptions(out=tmp_path), library)
    assert "2 rows are copied" in report.verdict
    table = pd.read_csv(report.folder / "table.csv")
    assert table["method"].tolist() == 2 * ["truth", "learnt", "trained"]
    print_report(report, everything=True)
    assert capsys.readouterr().out.count(" Trained ") == 2, "under their released label"
