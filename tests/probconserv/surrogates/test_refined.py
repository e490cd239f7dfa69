"""Refined: equal to the EmpiricalGP below it where the network adds nothing, trained, stored, and messages."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from probconserv import Context, EmpiricalGP, Mixture, Query, condition, integral
from probconserv.errors import DataFileError, IncompatibleQueryError, InvalidArgumentError
from probconserv.surrogates.refined import Refined, RefinedConfig
from probconserv.training import TrainingConfig
from solvers import CellGrid

double = torch.float64
TIMES, GRID = torch.linspace(0.1, 0.4, 4, dtype=double), CellGrid(0.0, 1.0, 12)
PLACES = GRID.points
NOISE = 0.05
SMALL = RefinedConfig(width=8, dilations=(1, 2), kernel=3, rank=2, times=3, components=40, basis=60)


def waves(count: int, seed: int = 0) -> Tensor:
    """Functions (count, times, places) of many parameters."""
    generator = torch.Generator().manual_seed(seed)
    amplitude, phase = (torch.rand(count, 1, 1, 4, dtype=double, generator=generator) for _ in range(2))
    argument = torch.arange(1, 5) * PLACES[:, None] + phase + TIMES[:, None, None]
    return 1 + (amplitude * torch.sin(math.pi * argument)).sum(dim=-1)


def empirical(bandwidth: float = 0.6) -> EmpiricalGP:
    return EmpiricalGP(waves(40), (TIMES, PLACES), bandwidth=bandwidth, mixture=False)


def observed(batch: int = 3, count: int = 5) -> tuple[Context, Query, Tensor]:
    """Noisy observations of other functions, the grid at one stored time, and the truth there."""
    functions = waves(batch, seed=1)
    generator = torch.Generator().manual_seed(2)
    index = torch.randint(48, (batch, count), generator=generator)
    values = functions.flatten(1).gather(1, index) + NOISE * torch.randn(
        batch, count, dtype=double, generator=generator
    )
    points = torch.cartesian_prod(TIMES, PLACES)
    query = torch.cartesian_prod(TIMES[[2]], PLACES).expand(batch, -1, -1)
    return Context(points[index], values, noise_variance=NOISE**2), Query(query), functions[:, 2]


@pytest.mark.parametrize("bandwidth", [0.3, 0.6, 1.0])
def test_without_a_contribution_of_the_network_it_is_the_empirical_process(bandwidth: float) -> None:
    context, query, _ = observed()
    refined = Refined(empirical(bandwidth), SMALL)
    with torch.no_grad():
        refined.network.last.weight.zero_()
        dict(refined.network.last.named_parameters())["bias"][2] = -20.0
    found, expected = refined.predict(context, query), empirical(bandwidth).predict(context, query)
    assert not isinstance(expected, Mixture)
    # single precision inside, and a variance of 1e-6 that is added everywhere
    assert torch.allclose(found.mean, expected.mean, atol=1e-5)
    assert torch.allclose(
        found.lazy_covariance_matrix.to_dense(), expected.lazy_covariance_matrix.to_dense(), atol=2e-6
    )


def test_training_goes_on_from_its_checkpoint_and_lowers_the_loss_and_files_give_the_same(tmp_path: Path) -> None:
    context, query, _ = observed()
    half = TrainingConfig(steps=20, validate_every=10, checkpoint_every=10, precision="32-true")
    trained = Refined(empirical(), SMALL)
    state = trained.fit(NOISE, (3, 5), half, tmp_path / "run", batch=8, validation=waves(20, 3), progress=False)
    assert state.step == 20
    assert state.history[-1]["NLL"] < state.history[0]["NLL"]
    again = Refined(empirical(), SMALL)
    again.fit(NOISE, (3, 5), half, tmp_path / "run", batch=8, validation=waves(20, 3), progress=False)
    mean = trained.predict(context, query).mean
    assert torch.equal(again.predict(context, query).mean, mean)
    trained.save(tmp_path / "refined.safetensors", made="here")
    assert torch.equal(Refined.load(tmp_path / "refined.safetensors", empirical()).predict(context, query).mean, mean)


def test_a_prediction_keeps_batch_and_precision_and_takes_a_law() -> None:
    context, query, truth = observed()
    refined = Refined(empirical(), SMALL)
    prediction = refined.predict(context, query)
    posterior = condition(prediction, integral(GRID, truth.mean(dim=-1)))
    assert torch.allclose(posterior.mean.mean(dim=-1), truth.mean(dim=-1), atol=1e-12)
    assert context.noise is not None
    single = Context(context.points[0], context.values[0].float(), noise_variance=NOISE**2)
    one = refined.predict(single, Query(query.points[0]))
    assert one.mean.dtype == torch.float32
    assert torch.allclose(one.mean.double(), prediction.mean[0], atol=1e-5)


def test_what_cannot_be_refined_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="time and one to three axes of space, got 1 axes"):
        Refined(EmpiricalGP(waves(5)[:, 0], (PLACES,)))
    wrongs: list[dict[str, Any]] = [{"width": 6}, {"kernel": 4}, {"rank": 0}, {"dilations": ()}]
    for wrong in wrongs:
        with pytest.raises(InvalidArgumentError, match="must be"):
            RefinedConfig(**wrong)
    refined = Refined(empirical(), SMALL)
    context, query, _ = observed()
    with pytest.raises(IncompatibleQueryError, match="whole fields"):
        refined.predict(context, Query(query.points[:, :-1]))
    with pytest.raises(InvalidArgumentError, match="noise_variance"):
        refined.predict(Context(context.points, context.values), query)
    with pytest.raises(InvalidArgumentError, match="noise must be positive"):
        refined.fit(0.0, (3,), TrainingConfig(steps=1), tmp_path, progress=False)
    empirical().save(tmp_path / "other.safetensors")
    with pytest.raises(DataFileError, match="EmpiricalGP"):
        Refined.load(tmp_path / "other.safetensors", empirical())
