"""The command line: what a user types, what is printed where, and how errors read."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments import __main__ as program
from experiments import driver, jobs, maintain, registry
from experiments.cli import COMMANDS, GROUPS, main
from experiments.driver import Report
from experiments.experiment import RunOptions, Table
from experiments.jobs import Job
from experiments.options import CATALOGUE
from experiments.registry import BENCHMARKS
from experiments.report.documents import BLOCKS, MAKER
from tests.experiments.stub import Stub, forget


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_takes_json_where_it_has_results(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert ("--json" in printed) == (name != "demo")
    assert [line for line in printed.splitlines() if len(line.rstrip()) > 80] == []
    said = "The exit status is 0 also where scores differ: the verdict says so"
    assert (said in " ".join(re.sub("[│╭╮╰╯─]", " ", printed).split())) == (name == "reproduce")


@pytest.mark.parametrize("words", [[], ["--help"], ["list"], ["list", "--all"], ["run", "--help"], ["study", "stefan"]])
def test_help_and_lists_import_nothing_that_computes(words: list[str]) -> None:
    """``run`` and ``list`` would wait seconds for them."""
    script = (
        "import sys; from experiments.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print('loaded:', *sorted(sys.modules.keys() & {'torch', 'numpy', 'pandas', 'matplotlib', 'numba', 'h5py'}))"
    )
    ended = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[-1] == "loaded:"


def test_a_reproduction_with_other_scores_ends_with_status_0(
    stub: Stub, tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    differs = "NOT reproduced: 1 of 2 scores differ."

    def reproduce(entry: Table, options: RunOptions) -> Report:
        return replace(driver.run(entry, options), verdict=differs)

    monkeypatch.setattr(driver, "reproduce", reproduce)
    ended = command(f"reproduce {stub.name} --json --out", tmp_path)
    assert (ended.status, json.loads(ended.out)["verdict"]) == (0, differs)


@pytest.mark.parametrize("arguments", [["list", "--json"], ["--help"]])
def test_output_whose_reader_has_gone_ends_without_a_word(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        monkeypatch.setattr(sys, "argv", ["experiments", *arguments])
        monkeypatch.setattr(sys, "stdout", closed)
        assert program.run() == program.READER_GONE
    assert capsys.readouterr().err == ""


def test_the_overview_has_one_line_of_80_columns_per_command(command: Callable) -> None:
    lines = command("").out.splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(COMMANDS)
    assert len(lines) == len(COMMANDS) + len(GROUPS) + 5, "no line is wrapped"
    assert len(lines) <= 25


def test_list_fits_80_columns_and_names_everything_with_its_time(command: Callable) -> None:
    printed = command("list").out
    assert max(map(len, printed.splitlines())) <= 80
    for word in (*CATALOGUE, *BENCHMARKS, "smoke", "laptop", "paper", "reproduce"):
        assert word in printed
    assert len(printed.splitlines()) <= 45
    printed = " ".join(command("list --all").out.split())
    assert all(name in printed and CATALOGUE[name].summary in printed for name in CATALOGUE)


def test_list_in_json_holds_names_summaries_and_times(command: Callable, stub: Stub) -> None:
    listed = json.loads(command("list --json").out)
    expected = {name: [CATALOGUE[name].summary, CATALOGUE[name].durations] for name in CATALOGUE}
    assert stub.name in expected
    assert {entry["name"]: [entry["summary"], entry["durations"]] for entry in listed["experiments"]} == expected
    assert {entry["name"]: entry["summary"] for entry in listed["benchmarks"]} == BENCHMARKS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("run stefann", "no experiment 'stefann'. Did you mean 'stefan'? Available: diffusion, porous_medium, stefan,"),
        ("reproduce nonsense", "There is no experiment 'nonsense'. Available: diffusion"),
        ("run stokes --cases nothing", "There is no case 'nothing' here. Available: single-0.02, multi-0.02."),
        ("run stefan --methods magic", "There is no method 'magic' here. Available: truth, gp, hardc-gp"),
        ("run stefan --preset huge", "Expected one of ('smoke', 'laptop', 'paper')"),
        ("run stefan --sede 3", "Unrecognized options: --sede, 3. Did you mean --seed?"),
        ("run stefan --seed -1", "--seed must lie in [0, 2³¹), got -1."),
        ("run stefan --seed abc", "Error parsing --seed: invalid literal"),
        ("run stefan --device nonsense", "--device nonsense cannot be used here"),
        ("run", "Which experiment? python -m experiments list shows their names."),
        ("run all --cases single", "--cases, --methods and --data belong to single experiments"),
        ("run stokes --data exact", "--data has no effect on stokes; remove it."),
        ("run advection-calibration --data solver", "--data has no effect on advection-calibration; remove it."),
        ("run darcy --files a", "--files has no effect on darcy; remove it."),
        ("run stefan --train-only --files a", "--files has no effect on stefan; remove it."),
        ("reproduce stefan --files a", "--files has no effect on stefan; remove it."),
        ("run stefan --workers 2", "--workers has no effect on stefan; remove it."),
        ("run observations darcy --files a", "--files has no effect on darcy; remove it."),
        ("bench update --page nothing.md", "a file, got update and 'nothing.md'"),
        ("runn stefan", "There is no command 'runn'. Did you mean 'run'? Available: demo, list,"),
        ("run stokes --seeds 2147483648", "--seed must lie in [0, 2³¹), got 2147483648."),
        ("run stokes --seed 7 --seeds 0-2", "run takes --seed or --seeds, got both; write --seeds 7."),
        ("run stokes --workers 0", "workers must be at least 1, got 0."),
        ("run stefan --train-only --trainings nobody", "There is no training 'nobody' here. Available: anp, softc,"),
        ("run stefan --trainings anp", "--trainings says which networks --train-only trains; add --train-only."),
        ("run stefan --slurm partition=long", "--slurm: only for a cluster; add --cluster slurm."),
        ("bench nothing", "There is no benchmark 'nothing'. Available: update, solver."),
    ],
)
def test_wrong_inputs_are_one_line_that_names_what_there_is(
    text: str, message: str, tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = command(text)
    assert (ended.status, ended.out) == (2, "")
    assert message in ended.err
    assert ended.err.startswith("error: ")
    assert len(ended.err.strip().splitlines()) == 1
    assert not [file for file in tmp_path.rglob("*") if file.is_file()], "it is refused before the work"


def test_documents_says_which_file_changed_and_when_all_are_current(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BLOCKS, "numbers", lambda: "1, 2, 3")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text(f"<!-- numbers: {MAKER} -->\n<!-- end of numbers -->\n")
    assert maintain.main(["documents"]) == 0
    assert capsys.readouterr().out == f"File: {tmp_path / 'README.md'}\n"
    assert "1, 2, 3" in (tmp_path / "README.md").read_text()
    assert maintain.main(["documents"]) == 0
    assert capsys.readouterr().out == "All documents are current.\n"


def test_an_output_folder_that_cannot_be_written_is_named(tmp_path: Path, command: Callable) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    ended = command("run stokes --methods truth --out", blocked)
    assert ended.err.startswith(f"error: The output folder '{blocked}")


def test_the_name_of_another_experiment_is_refused(stub: Stub) -> None:
    registry.register(stub.table)
    with pytest.raises(registry.InvalidArgumentError, match="another experiment 'stefan'; choose another name"):
        registry.register(replace(stub, name="stefan").table)
    assert [entry.name for entry in registry.families()["registered"]] == [stub.name]


def test_run_prints_few_rows_the_papers_numbers_and_one_folder(stub: Stub, tmp_path: Path, command: Callable) -> None:
    printed = command(f"run {stub.name} --out", tmp_path)
    lines = printed.out.splitlines()
    assert lines[0] == "Stub of 2 cases"
    assert max(map(len, lines[:-1])) <= 80
    assert "0.25" in printed.out, "the paper's"
    assert "truth" not in printed.out
    folder = Path(lines[-1].split(": ", 1)[1])
    assert {"run.json", "scores.csv.gz", "table.md"} <= {file.name for file in folder.iterdir()}
    assert "Training 1 of 1: stub, seed 0" in printed.err
    assert "truth" in command(f"run {stub.name} --all --out", tmp_path).out


def test_json_is_one_object_and_alone_on_standard_output(stub: Stub, tmp_path: Path, command: Callable) -> None:
    content = json.loads(command(f"run {stub.name} --json --seed 3 --cases m=2 --out", tmp_path).out)
    assert (content["experiment"], content["preset"]) == (stub.name, "smoke")
    rows = {(row["parameter"], row["method"], row["source"]): row for row in content["rows"]}
    expected = {("truth", "computed"), ("Trained", "computed"), ("Trained", "published")}
    assert set(rows) == {("m is 2", *entry) for entry in expected}
    trained = rows["m is 2", "Trained", "computed"]
    assert trained["seed"] == 3
    assert trained["CE"] == [1.0, None]
    assert trained["MSE"][1] == pytest.approx(0.5)
    (file,) = json.loads(command(f"run {stub.name} --train-only --json --seed 3 --out", tmp_path).out)["weights"]
    assert Path(file).is_file()
    ended = command(f"reproduce {stub.name} --json --out", tmp_path)
    assert ended.status == 2
    assert "There are no released results of 'stub'" in ended.err


class HereAndNow:
    """A pool without processes, which take seconds to start: a job is done when it is submitted."""

    def submit(self, job: Job) -> Future[Any]:
        ended = Future[Any]()
        try:
            ended.set_result(job())
        except Exception as error:
            ended.set_exception(error)
        return ended

    def shutdown(self, **_: bool) -> None:
        """There is nothing to end."""


@pytest.fixture
def only_stubs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Stub]]:
    """Nothing but two experiments of milliseconds; one cannot be scored with seed 1."""
    stubs = [Stub(fails=(1,)), Stub(name="other")]
    for entry in stubs:
        registry.register(entry.table)
    monkeypatch.setattr("experiments.commands.CATALOGUE", [entry.name for entry in stubs])
    monkeypatch.setattr(jobs, "_pool", HereAndNow)
    yield stubs
    for entry in stubs:
        forget(entry.name)


@pytest.mark.usefixtures("only_stubs")
def test_several_seeds_end_with_tables_over_seeds_and_names_what_failed(tmp_path: Path, command: Callable) -> None:
    printed = command("run stub other --seeds 0-1 --workers 1 --json --out", tmp_path)
    content = json.loads(printed.out)
    assert printed.status == 2
    assert len(content["failed"]) == 1
    assert "1 of the jobs failed; start again to go on.\n  stub, seed 1: DataFileError: seed 1 is unl" in printed.err
    assert "logs/stub-seed-1.log" in printed.err
    stub, other = content["experiments"]
    assert [stub["experiment"], other["experiment"]] == ["stub", "other"]
    (both,) = [row for row in other["rows"] if row["case"] == "m=1" and row["method_key"] == "trained"]
    assert both["CE"] == [1.0, 0.0]
    assert both["MSE"][1] > 0.1
    assert {file.name for file in Path(other["folder"]).iterdir()} == {"table.md", "table.csv"}


def test_a_dry_run_says_what_would_be_sent_without_a_cluster(stub: Stub, tmp_path: Path, command: Callable) -> None:
    given = f"run {stub.name} --seeds 0-1 --cluster slurm --hours 2 --workers 8 --slurm partition=long --dry-run --out"
    assert command(given, tmp_path).out.splitlines() == [
        "stub, seed 0",
        "stub, seed 1",
        "2 jobs of slurm, 8 at a time; each asks for time 120 minutes, partition long",
    ]
    assert not list(tmp_path.rglob("*.*"))


def test_the_commands_of_maintainers_are_apart(capsys: pytest.CaptureFixture[str]) -> None:
    for typed, message in (
        ("release", "release needs the name of an experiment."),
        ("release stokes --seed 3", "release takes --seeds, got --seed 3; write --seeds 3."),
        ("relese", "There is no command 'relese'. Did you mean 'release'? Available: release, documents, figures."),
    ):
        assert maintain.main(typed.split()) == 2
        assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize("typed", ["--help", "-h", ""])
def test_help_of_maintainers_names_every_command(typed: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert maintain.main(typed.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["release", "documents", "figures"]
    assert lines[-1] == "Options of a command: python -m experiments.maintain COMMAND --help"
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.usefixtures("only_stubs")
def test_all_experiments_run_and_those_without_a_release_are_left_out(tmp_path: Path, command: Callable) -> None:
    ran, reproduced = (command(f"{text} --out", tmp_path) for text in ("run all", "reproduce all --json"))
    assert [line.split(":")[0] for line in ran.out.splitlines()] == ["stub", "other"]
    assert json.loads(reproduced.out) == {"experiments": [], "failed": []}
    assert (ran.status, reproduced.status) == (0, 0)


def test_train_only_trains_every_method_or_the_trainings_that_are_named(
    tmp_path: Path, command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    monkeypatch.setattr("experiments.boundary.experiment.train_operator", lambda each, _: trained.append(each.label))
    methods = "fno boon-without-schur boon-default"
    one = f"run burgers_dirichlet --train-only --cases single-0.02 --out {tmp_path} --methods {methods}"
    assert command(one).status == 0
    assert [label.split(",")[0] for label in trained] == [
        "FNO",
        "BOON (elimination without the Schur term)",
        "BOON (default)",
    ]
    assert command(f"{one} --trainings single-0.02-0").status == 0
    assert len(trained) == 6
    assert command(f"{one} --trainings member-0").err.count("single-0.02-0") == 1


def test_the_demo_shows_one_prediction_without_and_with_its_law(tmp_path: Path, command: Callable) -> None:
    lines = command("demo --out", tmp_path).out.splitlines()
    assert max(map(len, lines)) <= 80 or str(tmp_path) in max(lines, key=len)
    assert len(lines) <= 15
    heading = next(number for number, line in enumerate(lines) if line.split()[:2] == ["network", "HardC"])
    rows = [[float(word.rstrip("%")) for word in line[24:].split()] for line in lines[heading + 1 : heading + 5]]
    totals, crps, coverage, smallest = rows
    assert max(map(abs, totals[1:])) < 1e-9 < 1e-4 < abs(totals[0])
    assert crps[2] < crps[0] < crps[1]
    assert coverage[2] > max(90, coverage[1])
    assert smallest[2] < 0 <= smallest[3]
    assert (tmp_path / "demo" / "stefan.png").is_file()
    assert lines[-1].startswith("Next: python -m experiments")
