"""The command ``predict``: the total of the law, what is said, and what is refused."""

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import tyro

from experiments.errors import LibraryError
from experiments.predict import (
    PredictOptions,
    before_and_after,
    conserved_totals,
    predict,
    predict_command,
    read_observations,
)
from experiments.records.storage import checksum
from tests.documents import GUIDES, agree, missing_packages, run_python

END_OF_ROD = ("--low", "0", "--high", "1", "--initial-total", str(2 / np.pi), "--flux-right", "q_right")


def write_table(path: Path, **columns: np.ndarray) -> Path:
    table = np.stack([np.ravel(column) for column in columns.values()], axis=-1)
    np.savetxt(path, table, delimiter=",", header=",".join(columns), comments="")
    return path


@pytest.fixture
def rod(tmp_path: Path) -> Path:
    """A rod that loses heat through its right end, u = cos(πx/2) exp(−π²t/8), observed on its left part."""
    t, x = np.meshgrid(np.linspace(0.0, 0.4, 5), np.linspace(0.05, 0.65, 5), indexing="ij")
    decay = np.exp(-(np.pi**2) * t / 8)
    fields = {"t": t, "x": x, "u": np.cos(np.pi * x / 2) * decay, "q_right": np.pi / 4 * decay}
    return write_table(tmp_path / "rod.csv", **fields, ambient=20.0 + 0.0 * t)


def run(file: Path, *words: str) -> None:
    """The command with one-line arguments, results beside the file."""
    options = ("--points", "41", "--out", str(file.parent / "out"), *words)
    tyro.cli(predict_command, args=[str(file), *options])


def notes_of(captured: pytest.CaptureFixture[str]) -> str:
    """Standard error on one line."""
    return re.sub(r"\s+", " ", captured.readouterr().err)


def test_totals_follow_the_fluxes_and_one_table_has_all_times(rod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(rod, *END_OF_ROD, "--times", "0.1", "0.25", "--json")
    result = json.loads(capsys.readouterr().out)
    x = np.array(result["x"])
    assert [prediction["time"] for prediction in result["predictions"]] == [0.1, 0.25]
    for prediction in result["predictions"]:
        exact = 2 / np.pi * np.exp(-(np.pi**2) * prediction["time"] / 8)
        assert prediction["total"] == pytest.approx(exact, abs=1e-3)  # trapezoid rule in time, four intervals
        before, after = prediction["GP"], prediction["ProbConserv-GP"]
        assert np.trapezoid(after["mean"], x) == pytest.approx(prediction["total"], abs=1e-12)
        assert np.all(np.array(after["standard_deviation"]) <= np.array(before["standard_deviation"]) + 1e-9)
        truth = exact * np.pi / 2 * np.cos(np.pi * x / 2)
        error_before, error_after = (np.square(np.array(field["mean"]) - truth).mean() for field in (before, after))
        assert error_after < error_before
    folder = Path(result["files"][0]).parent
    assert folder.parent == rod.parent / "out" / "rod.csv"
    assert result["files"] == [str(folder / f"prediction.{end}") for end in ("csv", "png", "pdf")]
    assert all(Path(file).stat().st_size > 0 for file in result["files"])
    with (folder / "prediction.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["t"] for row in rows[::41]] == ["0.1", "0.25"]
    for row in rows:
        for method in ("GP", "ProbConserv-GP"):
            assert float(row[f"{method} low95"]) <= float(row[f"{method} mean"]) <= float(row[f"{method} high95"])


def test_every_input_and_choice_of_options_has_a_folder_that_says_so(tmp_path: Path) -> None:
    t, x = np.meshgrid([0.0, 0.05, 0.1], [0.1, 0.5, 0.9], indexing="ij")
    files = []
    for name, factor in (("a", 1.0), ("b", 2.0)):
        (tmp_path / name).mkdir()
        u = factor * np.maximum(1 - x, 0)
        files.append(write_table(tmp_path / name / "data.csv", t=t, x=x, u=u))
    of_stefan = ("--law", "stefan", "--parameter", "0.6", "--times", "0.05")
    out = ("--out", str(tmp_path / "out"))
    for file, words in ((files[0], of_stefan), (files[1], of_stefan), (files[0], ("--initial-total", "0.6"))):
        run(file, *words, *out)
    tables = list((tmp_path / "out" / "data.csv").glob("*/prediction.csv"))
    assert len(tables) == 3
    configs = [json.loads(table.with_name("config.json").read_text(encoding="utf-8")) for table in tables]
    said = {(each["checksum"], each["options"]["law"], each["options"]["parameter"]) for each in configs}
    first, second = map(checksum, files)
    assert said == {(first, "stefan", 0.6), (second, "stefan", 0.6), (first, "fluxes", None)}
    assert all(each["file"] == "data.csv" and "out" not in each["options"] for each in configs)
    run(files[0], *of_stefan, *out)
    assert sorted(tmp_path.glob("out/data.csv/*/prediction.csv")) == sorted(tables), "the same again"


def test_a_time_is_predicted_alike_alone_and_among_others(rod: Path) -> None:
    observations = read_observations(rod, ["q_right"])
    options = {"initial_total": 0.6, "flux_right": "q_right", "low": 0.0, "high": 1.0, "points": 21}
    alone, among = (
        predict(observations, conserved_totals(observations, chosen), chosen)
        for chosen in (PredictOptions(times=(0.2,), **options), PredictOptions(times=(0.1, 0.2), **options))
    )
    np.testing.assert_allclose(alone.after.mean[0], among.after.mean[1], atol=1e-6)


@pytest.mark.parametrize("words", [END_OF_ROD, (*END_OF_ROD, "--times", "0.1", "0.2", "0.3", "0.35")])
def test_the_terminal_shows_totals_in_80_columns(
    rod: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    run(rod, *words)
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert max(map(len, [*lines[:-1], *printed.err.splitlines()])) <= 80
    assert len(lines) < 24
    total = next(line.split() for line in lines if line.split()[:1] == ["0.2"])
    assert total[1] == total[3] != total[2]
    assert "by -" in lines[4]
    assert lines[-1].startswith("Table and figure: ")


def test_a_flux_column_is_extended_to_the_start_and_the_user_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    t, x = np.meshgrid([0.1, 0.2, 0.3], [0.0, 0.5, 1.0], indexing="ij")
    path = write_table(tmp_path / "late.csv", t=t, x=x, u=1 + 2 * t, q=2 + 0 * t)
    domain = ("--low", "0", "--high", "1")
    run(path, "--initial-total", "1", "--flux-left", "q", "--times", "0.3", *domain, "--json")
    printed = capsys.readouterr()
    assert json.loads(printed.out)["predictions"][0]["total"] == pytest.approx(1.6, abs=1e-15)
    said = re.sub(r"\s+", " ", printed.err)
    assert said.strip() == (
        "note: Column 'q' begins at t = 0.1. Its first value, 2, is used from --start 0 on, which makes up 0.2 of its "
        "integral."
    )
    with pytest.raises(LibraryError, match=r"begins at t = 0\.1, too long after --start -5 to extend it"):
        run(path, "--initial-total", "1", "--flux-left", "q", "--start", "-5")


def test_what_goes_beyond_the_data_is_said(rod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(rod, "--initial-total", "0.6", "--high", "1", "--times", "0.3", "0.5")
    said = notes_of(capsys)
    assert "Columns not used: q_right, ambient. Used: t, x, u" in said
    assert "t = 0.5 is outside the observed times, 0 to 0.4: the prediction is an extrapolation" in said
    assert "The domain [0.05, 1] is larger than the observed range of x, [0.05, 0.65]" in said


def test_a_file_as_instruments_write_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Other names, decimal commas, a gap, and a time before the start, which the user is told of."""
    rows = [f"{t};{x};{1 + x}".replace(".", ",") for t in (0.0, 0.2) for x in (0.0, 0.5, 1.0)]
    path = tmp_path / "a.csv"
    path.write_text("\n".join(["time;place;T", "-0,1;0;1", *rows, "0,2;0,7;"]))
    columns = ("--columns", "t=time,x=place", "u=T", "--initial-total", "1.5", "--low", "0", "--high", "1")
    run(path, *columns, "--skip-missing", "--times", "0.1", "--json")
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["predictions"][0]["total"] == 1.5
    run(path, "--columns", "t=time,x=place,u=T", *columns[3:], "--skip-missing", "--times", "0.1", "--json")
    assert json.loads(capsys.readouterr().out)["files"] == result["files"], "the same columns, the same folder"
    assert re.sub(r"\s+", " ", printed.err).strip() == (
        "note: Rows left out, since they lack a number: 1 of 8. note: Rows before the start, t = 0: 1, the first at "
        "t = -0.1. The Gaussian process sees them, but the law says nothing of that time; check --start and the column "
        "of times."
    )


@pytest.mark.long
def test_many_rows_are_seen_through_some_of_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    t, x = np.meshgrid(np.linspace(0.0, 1.0, 41), np.linspace(0.0, 1.0, 26), indexing="ij")
    path = write_table(tmp_path / "many.csv", t=t, x=x, u=np.exp(-t) * np.sin(3 * x))
    run(path, "--initial-total", "0.4", "--smoothness", "2.5", "--times", "0.5", "--json")
    printed = capsys.readouterr()
    (prediction,) = json.loads(printed.out)["predictions"]
    truth = np.exp(-0.5) * np.sin(3 * np.linspace(0.0, 1.0, 41))
    np.testing.assert_allclose(prediction["GP"]["mean"], truth, atol=1e-3)
    assert "sees the 1066 rows through 400 points among them" in re.sub(r"\s+", " ", printed.err)


def test_too_many_rows_are_refused_before_any_work(tmp_path: Path) -> None:
    t, x = np.meshgrid(np.linspace(0.0, 1.0, 501), np.linspace(0.0, 1.0, 101), indexing="ij")
    with pytest.raises(LibraryError, match="at most 50000 rows, got 50601; thin the file"):
        run(write_table(tmp_path / "many.csv", t=t, x=x, u=x), "--initial-total", "1")


def test_nothing_is_said_where_there_is_nothing_to_say(rod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with rod.open() as file:
        rows = [row[:3] for row in csv.reader(file)]
    rod.write_text("\n".join(",".join(row) for row in rows))
    run(rod, "--initial-total", "0.385", "--low", "0.05", "--high", "0.65")
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "domain", "missing"),
    [
        ("", "[0.05, 0.65]", "--low and --high"),
        ("--high 0.7", "[0.05, 0.7]", "--low"),
        ("--low 0", "[0, 0.65]", "--high"),
    ],
)
def test_a_domain_that_nobody_gave_is_said(
    rod: Path, capsys: pytest.CaptureFixture[str], words: str, domain: str, missing: str
) -> None:
    run(rod, "--initial-total", "0.45", *words.split(), "--json")
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    said = f"The total is taken over {domain}, as far as x was observed; if the domain is larger, give {missing}."
    assert f"note: {said} " in re.sub(r"\s+", " ", printed.err)
    assert said in result["notes"]
    assert result["domain"] == [result["x"][0], result["x"][-1]]


def test_a_total_that_contradicts_the_fit_is_said(rod: Path, capsys: pytest.CaptureFixture[str]) -> None:
    right = ("--smoothness", "2.5", "--times", "0.1", "0.3", "--json", *END_OF_ROD)
    run(rod, *right)
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert "contradict" not in printed.err
    assert all(abs(prediction["standardised_residual"]) < 5 for prediction in result["predictions"])
    run(rod, *right, "--initial-total", "64")
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    worst = max(result["predictions"], key=lambda prediction: -prediction["standardised_residual"])
    said = f"At t = {worst['time']:g} the total by the law, {worst['total']:.4g}, is "
    assert result["notes"][-1].startswith(f"{said}{-worst['standardised_residual']:,.0f} standard deviations")
    assert worst["standardised_residual"] < -1000
    assert result["notes"][-1] in re.sub(r"\s+", " ", printed.err)
    assert "Check --initial-total, the fluxes and their signs, and the ends of the domain" in result["notes"][-1]


def test_the_digits_of_a_total_do_not_contradict_a_nearly_exact_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    t, x = np.meshgrid(np.linspace(0.0, 1.0, 11), np.linspace(0.0, 1.0, 11), indexing="ij")
    path = write_table(tmp_path / "smooth.csv", t=t, x=x, u=np.exp(-t) * np.sin(3 * x))
    exact = np.exp(-0.5) * (1 - np.cos(3)) / 3
    for total, notes in ((exact + 0.002, 0), (exact + 0.01, 1)):
        run(path, "--smoothness", "2.5", "--low", "0", "--high", "1", "--initial-total", str(total), "--json")
        result = json.loads(capsys.readouterr().out)
        assert result["predictions"][0]["standardised_residual"] < -5
        assert len(result["notes"]) == notes


@pytest.mark.long
def test_a_prediction_can_be_kept_non_negative(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A step, beyond which the law takes the prediction below zero."""
    t, x = np.meshgrid([0.0, 0.5, 1.0], np.linspace(0.0, 1.0, 8), indexing="ij")
    path = write_table(tmp_path / "step.csv", t=t, x=x, u=(x < 0.4).astype(float))
    minima = []
    for words in ((), ("--non-negative",)):
        run(path, "--initial-total", "0.3", *words, "--json")
        (prediction,) = json.loads(capsys.readouterr().out)["predictions"]
        assert np.trapezoid(prediction["ProbConserv-GP"]["mean"], dx=1 / 40) == pytest.approx(0.3, abs=1e-9)
        minima.append(min(prediction["ProbConserv-GP"]["mean"]))
    assert minima[0] < 0 <= minima[1]


def test_a_problem_gives_its_total_and_domain(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    t, x = np.meshgrid([0.0, 0.05, 0.1], [0.1, 0.5, 0.9], indexing="ij")
    path = write_table(tmp_path / "front.csv", t=t, x=x, u=np.maximum(1 - x, 0))
    run(path, "--law", "stefan", "--parameter", "0.6", "--times", "0.05", "--json")
    result = json.loads(capsys.readouterr().out)
    assert (result["x"][0], result["x"][-1]) == (0.0, 1.0)
    assert result["predictions"][0]["total"] > 0


def test_the_guide_shows_what_its_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = GUIDES / "fields.md"
    blocks = r"```bash\npython -m experiments predict (.*?)```\n\n```text\n(.*?)```"
    command, table = re.findall(blocks, page.read_text(encoding="utf-8"), flags=re.DOTALL)[0]
    monkeypatch.chdir(tmp_path)
    run_python(page, missing_packages())
    capsys.readouterr()
    tyro.cli(predict_command, args=shlex.split(command.replace("\\\n", " ")))
    printed = capsys.readouterr()
    assert agree("".join(table.splitlines(keepends=True)[:6]), "".join(printed.out.splitlines(keepends=True)[:6]))
    assert "The domain [0, 1] is larger than the observed range" in printed.err
    assert "Its first value, 0.7384, is used" in " ".join(printed.err.split())


@pytest.mark.parametrize("count", [1, 2, 4, 5])
def test_the_figure_has_a_pair_of_panels_per_time(rod: Path, count: int) -> None:
    observations = read_observations(rod)
    options = PredictOptions(initial_total=0.5, times=tuple(np.linspace(0.1, 0.3, count).tolist()), points=11)
    law = conserved_totals(observations, options)
    figure = before_and_after(predict(observations, law, options), law, observations, "rod")
    assert len(figure.axes) == 2 * count
    assert sum("total" in axes.get_title() for axes in figure.axes) == count


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "--law fluxes needs --initial-total"),
        ("--law stefan", r"--law stefan needs --parameter \(u\*\) from .* got None"),
        (
            "--initial-total 0 --flux-left inflow",
            "lacks the column inflow, which --flux-left or --flux-right names .*; it has t, x, u, q_right",
        ),
        ("--initial-total 0 --columns y=a", r"--columns takes t=NAME, x=NAME and u=NAME, got 'y=a'"),
        ("--initial-total 0 --columns t=", r"--columns takes t=NAME, x=NAME and u=NAME, got 't='"),
        ("--initial-total 0 --columns t=time", "lacks the column time, which is required"),
        ("--initial-total 0 --flux-right outflow", "a flux is a number or a column; no other word has a meaning"),
        ("--initial-total 0 --low 0.5", "must contain all x"),
        ("--initial-total 0 --low 1 --high 0", "must contain all x"),
        ("--initial-total 0 --start 9", "--times 0.2 is before --start 9"),
        ("--initial-total nan", "--initial-total must be finite, got nan"),
        ("--initial-total 0 --flux-left inf", "--flux-left must be finite, got inf"),
        ("--initial-total 0 --times 0.1 nan", "--times must be finite, got nan"),
        ("--initial-total 0 --parameter 3", "--parameter belongs to a problem"),
        ("--initial-total 0 --points 1", "--points must be at least 2, got 1"),
        ("--initial-total 0 --times 0.1 0.2 --points 3000", "at most 4000 times × points, got 6000"),
        (
            "--initial-total 0 --flux-right q_right --times 0.5",
            r"'q_right' ends at t = 0\.4, but the total at t = 0\.5",
        ),
        ("--initial-total -1 --non-negative", "gives the total -1 at t = 0.2, which no field with u ≥ 0 has"),
        ("--law stefan --parameter 0.6 --initial-total 3", "has a closed-form total; drop --initial-total"),
        ("--law stefan --parameter 0.6 --low -2", r"has the domain \[0, 1\]; drop --low"),
        ("--law stefan --parameter 0.6", r"needs --times from 0 to 0\.1, got 0\.2"),
        ("--law porous_medium --parameter -1", r"needs --parameter \(m\) from .* got -1"),
    ],
)
def test_what_does_not_fit_is_refused_on_one_line(rod: Path, words: str, message: str) -> None:
    with pytest.raises(LibraryError, match=message) as refused:
        run(rod, *words.split())
    assert "\n" not in str(refused.value)
