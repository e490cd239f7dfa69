"""``reproduce`` from the command line to tables and figures: small untrained networks in the place of what ships."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from experiments import config, conservation_run
from experiments.commands import main
from experiments.errors import UnknownNameError
from experiments.experiment import RunOptions
from experiments.networks import data_of, network_training, roles
from experiments.storage import read_json
from experiments.tables import Row, Score
from probconserv import ANP

SIZES = {
    "functions": 5,
    "places": 21,
    "samples": 20,
    "curve_functions": 2,
    "curve_times": 2,
    "cells": 32,
    "output_times": 20,
}
METHODS = {
    *("GP", "HardC-GP", "ProbConserv-GP"),
    *("ANP", "SoftC-ANP", "HardC-ANP", "ProbConserv-ANP"),
    *("ProbConserv-ANP (diffusion)", "ProbConserv-ANP (quadrature variance)"),
    *("Ensemble", "ProbConserv-Ensemble", "ANP (cell averages)", "ProbConserv-ANP (cell averages)", "truth"),
}
STEFAN_METHODS = {
    *("ProbConserv-ANP (non-negative)", "ProbConserv-ANP (monotone)"),
    *("ANP, closed-form data", "ProbConserv-ANP, closed-form data"),
    *("ANP (displaced)", "ProbConserv-ANP (displaced)", "ProbConserv-ANP (tempered)"),
    *("ProbConserv-ANP (context-calibrated)", "ProbConserv-ANP (noisy context)"),
}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, int], Path]:
    """Writes an untrained network under a problem and role; ``reproduce`` finds what was written, at small sizes."""
    folder = tmp_path / "weights"
    folder.mkdir()

    def write(problem: str, role: str, seed: int) -> Path:
        network = network_training(problem, "anp", "smoke", "exact").network
        torch.manual_seed(seed)
        anp = ANP(dataclasses.replace(network, width=8, heads=2, latent_width=4, latent_samples=3))
        path = folder / f"{problem}-{role}.safetensors"
        anp.save(path, training={"training": {"seed": seed}}, seconds=60.04, last={"step": 100 + seed})
        return path

    def found(problem: str, role: str) -> Path:
        path = folder / f"{problem}-{role}.safetensors"
        if not path.exists():
            raise UnknownNameError(f"No weights ship for network '{role}' of problem '{problem}'.")
        return path

    monkeypatch.setattr(conservation_run, "pretrained_path", found)
    monkeypatch.setattr(conservation_run, "trained_network", lambda *arguments: pytest.fail("trained"))  # noqa: ARG005
    monkeypatch.setitem(config.SIZES, "laptop", SIZES)
    return write


def all_weights(problem: str, write: Callable[[str, str, int], Path]) -> list[str]:
    names = roles(problem, data_of(problem, RunOptions()))
    for seed, role in enumerate(names):
        write(problem, role, seed)
    return list(names)


def test_reproduce_scores_and_draws_every_network_that_ships(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: Callable[[str, str, int], Path]
) -> None:
    names = all_weights("stefan", weights)
    assert main(["reproduce", "stefan", "--out", str(tmp_path / "out"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["experiment"], printed["preset"]) == ("stefan", "laptop")
    rows = [Row.from_json(row) for row in printed["rows"]]
    for label in ("u*=0.6", "u*=0.5"):
        assert methods_of(rows, label) == METHODS | STEFAN_METHODS
        assert any(row.source for row in rows if row.parameter == label)
    for row in rows:
        if row.method.startswith(("HardC", "ProbConserv")) and "quadrature" not in row.method and not row.source:
            mean, error = row.scores["CE"]
            assert abs(mean) <= 1e-12, row
            assert error is not None, row
            assert error <= 1e-12, row
    folder = Path(printed["folder"])
    assert folder.is_relative_to(tmp_path / "out" / "stefan")
    stored = read_json(folder / "metrics.json")
    assert stored["rows"] == printed["rows"]
    assert stored["networks"] == {
        role: {"steps": 100 + seed, "seconds": 60.0, "seed": seed} for seed, role in enumerate(names)
    }
    assert read_json(folder / "config.json")["functions"] == 5
    drawn = ("profile", "variants", "gp", "local", "mass", "scores", "context", "calibration", "front")
    figures = {f"{name}-{place}.{end}" for name in drawn for place in ("0.6", "0.5") for end in ("png", "pdf")}
    made = {file.name for file in folder.iterdir() if file.stat().st_size}
    assert figures | {"table.md", "table.csv", "table.json"} <= made


def methods_of(rows: list[Row], label: str) -> set[str]:
    """Our methods at a parameter."""
    return {row.method for row in rows if row.parameter == label and not row.source}


def test_reproduce_reads_back_what_the_same_weights_scored_and_nothing_else(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    weights: Callable[[str, str, int], Path],
) -> None:
    all_weights("diffusion", weights)
    monkeypatch.setattr(conservation_run, "draw_case", lambda *arguments: [])  # noqa: ARG005
    arguments = ["reproduce", "diffusion", "--out", str(tmp_path / "out"), "--json"]

    def printed() -> tuple[str, dict[tuple[str, str], dict[str, Score]]]:
        assert main(arguments) == 0
        content = json.loads(capsys.readouterr().out)
        rows = [Row.from_json(row) for row in content["rows"]]
        assert methods_of(rows, "k=1") == methods_of(rows, "k=5") == METHODS
        return content["folder"], {(row.parameter, row.method): row.scores for row in rows if not row.source}

    folder, scores = printed()
    stages = dict(conservation_run.STAGES)
    unread = {name: lambda case: pytest.fail("computed again") for name in stages}  # noqa: ARG005
    monkeypatch.setattr(conservation_run, "STAGES", unread)
    assert printed() == (folder, scores)
    monkeypatch.setattr(conservation_run, "STAGES", stages)
    weights("diffusion", "softc", 99)
    other_folder, others = printed()
    assert other_folder != folder
    assert {method for _, method in scores if others["k=1", method] != scores["k=1", method]} == {"SoftC-ANP"}


def test_reproduce_names_the_weights_that_do_not_ship(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: Callable[[str, str, int], Path]
) -> None:
    weights("diffusion", "anp", 0)
    assert main(["reproduce", "diffusion", "--out", str(tmp_path / "out")]) == 2
    assert "error: No weights ship for network 'softc' of problem 'diffusion'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_reproduce_names_damaged_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: Callable[[str, str, int], Path]
) -> None:
    all_weights("diffusion", weights)
    path = weights("diffusion", "member-2", 7)
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["reproduce", "diffusion", "--out", str(tmp_path / "out")]) == 2
    assert f"'{path}' is damaged, perhaps cut off" in capsys.readouterr().err
