"""The command ``data``: files that do not depend on how they were made, resumption, refusals."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from experiments import data_command as command
from experiments.cli import main
from solvers.data_files.files import load
from solvers.problems.operator_problems import OPERATOR_PROBLEMS
from solvers.problems.operator_problems.samples import load_samples, operator_samples
from tests.documents import GUIDES, run_python

N = 7


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of three samples, and cells as coarse as the nodes."""
    monkeypatch.setattr(command, "_PART", 3)
    for name, problem in list(OPERATOR_PROBLEMS.items()):
        recipe = replace(problem.recipe, refinement=1, times=problem.recipe.times[:1], test=4)
        monkeypatch.setitem(OPERATOR_PROBLEMS, name, replace(problem, recipe=recipe))  # pyright: ignore[reportArgumentType]


def run(file: Path, *words: str, name: str = "darcy", n: int = N) -> int:
    return main(["data", name, "--n", str(n), "--out", str(file), *words])


def assert_same(first: Path, second: Path) -> None:
    with h5py.File(first) as a, h5py.File(second) as b:
        assert set(a) == set(b)
        for name in a:
            if name != "probconserv_boon":
                assert (a[name][()] == b[name][()]).all()  # pyright: ignore


NAMES = [pytest.param(name, marks=pytest.mark.slow) if name == "basin" else name for name in OPERATOR_PROBLEMS]


@pytest.mark.parametrize("name", NAMES)
def test_the_file_has_the_samples_of_the_problem(name: str, tmp_path: Path) -> None:
    file = tmp_path / "a.h5"
    assert run(file, name=name) == 0
    made = operator_samples(OPERATOR_PROBLEMS[name].sample(N))
    samples = load_samples(file)
    assert torch.equal(samples.inputs, made.inputs.float().double())  # the layouts store 32 bits
    assert torch.equal(samples.outputs, made.outputs.float().double())
    assert samples.kinds == made.kinds
    assert not (tmp_path / "a.h5.parts").exists()


@pytest.mark.slow
def test_a_small_set_is_the_beginning_of_a_large_one_whatever_the_parts_and_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, large = tmp_path / "small.h5", tmp_path / "large.h5"
    assert run(small, n=4) == 0
    monkeypatch.setattr(command, "_PART", 5)
    assert run(large, "--workers", "2") == 0
    for category in ("fields", "coefficients", "extras"):
        for name, array in getattr(load(small), category).items():
            assert torch.equal(array, getattr(load(large), category)[name][:4])


def interrupt_before(first_of_part: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sends the signal of Ctrl-C once before a part; returns the list of first samples that are made."""
    make, made, sent = command._make_part, list[int](), list[int]()

    def make_part(wanted: Any, first: int) -> int:
        if first == first_of_part and not sent:
            sent.append(first)
            signal.raise_signal(signal.SIGINT)
        made.append(first)
        return make(wanted, first)

    monkeypatch.setattr(command, "_make_part", make_part)
    return made


def test_an_interrupted_set_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, file, parts = tmp_path / "whole.h5", tmp_path / "a.h5", tmp_path / "a.h5.parts"
    assert run(whole) == 0
    made = interrupt_before(6, monkeypatch)
    assert run(file) == 130
    assert "Start the same command again to go on" in capsys.readouterr().err
    assert made == [0, 3]
    assert not file.exists()
    damaged = parts / "00000003.h5"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    assert run(file) == 0
    assert made == [0, 3, 3, 6]  # the whole part is kept, the damaged one made again
    assert not parts.exists()
    assert_same(file, whole)


@pytest.mark.parametrize(
    ("words", "name", "n", "named"),
    [
        (("--seed", "1"), "darcy", N, "seed 0"),
        (("--split", "test"), "darcy", N, "split train"),
        ((), "darcy", N + 1, f"n {N}"),
        ((), "basin", N, "problem darcy"),
    ],
)
def test_parts_of_another_set_are_refused(
    words: tuple[str, ...], name: str, n: int, named: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    interrupt_before(3, monkeypatch)
    assert run(tmp_path / "a.h5") == 130
    capsys.readouterr()
    assert run(tmp_path / "a.h5", *words, name=name, n=n) == 2
    said = f"holds parts of a set with other settings ({named.split()[0]}): go on with {named},"
    assert said in capsys.readouterr().err
    assert run(tmp_path / "a.h5") == 0


def test_the_screen_and_the_object_say_what_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "reaction_diffusion", "--split", "test"]) == 0
    printed = capsys.readouterr()
    assert "4/4" in printed.err
    assert "4 samples (test, seed 0), solved on 128 cells" in printed.out
    assert "4 × 1 × 1 × 129 " in printed.out
    assert all(len(line) <= 80 for line in printed.out.splitlines())
    *_, reading, _ = printed.out.splitlines()
    namespace: dict[str, Any] = {"load_samples": load_samples}
    exec(reading.strip(), namespace)
    assert namespace["samples"].inputs.shape == (4, 2, 129)
    assert main(["data", "darcy", "--n", "2", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["inputs"] == [2, 1, 33, 33]
    assert content["file"] == "darcy-train.h5"


def test_the_printed_lines_read_the_file_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(Path("nodir") / "sub" / 'a "b".h5', n=2) == 0
    *_, importing, reading, showing = capsys.readouterr().out.splitlines()
    exec("\n".join(line.strip() for line in (importing, reading, showing)))


def test_what_is_there_is_not_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.h5"
    file.write_text("other")
    assert run(file) == 2
    assert "a.h5' exists; choose another file, or delete it" in capsys.readouterr().err
    assert file.read_text() == "other"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dary",), "There is no problem 'dary'. Did you mean 'darcy'?"),
        (("darcy", "--n", "0"), "n must be at least 1, got 0"),
        (("darcy", "--seed", "-1"), "seed must be at least 0, got -1"),
        (("darcy", "--workers", "0"), "workers must be at least 1, got 0"),
        (("basin", "--layout", "pdebench"), "take --layout the-well"),
    ],
)
def test_wrong_options_are_refused(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words]) == 2
    assert message in capsys.readouterr().err


def test_the_page_runs_and_an_operator_has_the_walls_of_its_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    page: dict[str, Any] = run_python(GUIDES / "solvers.md")
    assert torch.equal(page["predicted"][:, :, 0], page["outputs"][:, :, 0])
    assert page["solution"].imbalance.abs().max() < 1e-12
