"""A few samples of every data version: data that move without a new version in the manifest fail here."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.boundary.open_rollouts import EXPERIMENTS as OPEN
from experiments.boundary.open_rollouts.systems import SYSTEMS
from experiments.boundary.problems import PROBLEMS
from experiments.boundary.samples import DataStore, RecipeSource, SampleConfig, Source
from experiments.combined import EXPERIMENTS as COMBINED
from experiments.combined.problems import cases_of
from experiments.combined.training import field_samples
from experiments.conservation import EXPERIMENTS as CONSERVATION
from experiments.conservation.data import BankConfig, exact_stream, training_bank
from experiments.generation import EXPERIMENTS as GENERATION
from experiments.gpme.functions import MEMBERS
from experiments.observations import EXPERIMENTS as OBSERVATIONS
from experiments.observations import energy, traffic
from experiments.observations.temperature import temperature
from experiments.records.release import manifest
from solvers.problems.sampling import Protocol
from tests.experiments.combined.tiny import SIZES

SAMPLES = Path(__file__).with_name("data_versions.json")
"""By problem and version."""
FIELDS = {problem.name: problem for entry in COMBINED.values() for problem in entry.problems}


def numbers(problem: str, folder: Path) -> list[float]:
    """Mean, root mean square and a weighted sum of each array of a problem's data."""
    arrays = []
    if problem in CONSERVATION:
        entry = CONSERVATION[problem].problem
        arrays.append(training_bank(entry, BankConfig(members=2, cells=20, keep_every=1, times=10), folder).values)
        arrays.append(exact_stream(entry, Protocol())(torch.Generator().manual_seed(0), 2).context_values)
    if problem in FIELDS:
        arrays.append(field_samples(cases_of(FIELDS[problem], SIZES)[0].problem, 2, folder)[1])
    if problem in PROBLEMS:
        case = PROBLEMS[problem].cases("laptop")[0]
        arrays += boundary_arrays(case.source, folder)
    if problem == "downscaling":
        pytest.importorskip("iris_sample_data")
        arrays.append(temperature())
    if problem == "observations":
        arrays.append(of_checksums(energy.CHECKSUM, *traffic.CHECKSUMS.values()))
    if problem in GENERATION:
        arrays.append(GENERATION[problem].problem.draws(3, 9, seed=0))
    if problem == "gpme":
        arrays += [member.draw(2, torch.Generator().manual_seed(0)).values for member in MEMBERS]
    if problem == "open_rollouts":
        generator = torch.Generator().manual_seed(0)
        arrays += [system.draw(2, system.times(2), generator).fields for system in SYSTEMS]
    flat = [array.double().flatten().numpy() for array in arrays]
    weights = [np.cos(np.arange(len(values))) / len(values) for values in flat]
    sums = zip(flat, weights, strict=True)
    return [float(x) for u, w in sums for x in (u.mean(), np.sqrt(np.mean(u**2)), u @ w)]


def boundary_arrays(source: Source, folder: Path) -> list[torch.Tensor]:
    """Two samples of a source."""
    steady = isinstance(source, RecipeSource) and not source.problem.recipe.times
    config = SampleConfig(samples=2, nodes=9, times=1 if steady else 2)
    samples = source.samples(config, DataStore(folder=folder, version=0))
    sides = (side for pair in samples.values if pair for side in pair if side is not None)
    return [samples.input, samples.output, *sides]


def of_checksums(*checksums: str) -> torch.Tensor:
    return torch.tensor([float(int(checksum[:8], 16)) for checksum in checksums])


@pytest.mark.parametrize("problem", manifest()["data_versions"])
def test_data_of_a_version_do_not_move(problem: str, tmp_path: Path) -> None:
    version = str(manifest()["data_versions"][problem])
    stored, now = json.loads(SAMPLES.read_text())[problem], numbers(problem, tmp_path)
    advice = f"raise its version in experiments/manifest.json and enter in {SAMPLES.name}: {json.dumps(now)}"
    assert version in stored, f"There are no samples of version {version} of {problem}; {advice}"
    # Solutions are stored in float32.
    assert now == pytest.approx(stored[version], rel=1e-6, abs=1e-8), f"The data of {problem} moved; {advice}"


def test_every_problem_of_an_experiment_has_a_version() -> None:
    assert set(manifest()["data_versions"]) == {
        *CONSERVATION,
        *FIELDS,
        *PROBLEMS,
        *OBSERVATIONS,
        *GENERATION,
        *OPEN,
        "gpme",
    }
