"""On a GPU: the update, exact boundary values, and steps of every kind of training; else skipped."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator

import boon
from boon import BOON, FNO, FNOConfig
from experiments.boundary.training import train_operator
from experiments.experiment import RunContext, RunOptions
from probconserv import ANP, LinearConstraint, NonNegative, condition, integral
from solvers import Dirichlet, Neumann, NodeGrid
from tests.experiments.boundary.tiny import one, tiny_experiment
from tests.experiments.conservation.test_training import tiny, trained

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def dense(mean: torch.Tensor, scale: torch.Tensor) -> MultivariateNormal:
    return MultivariateNormal(mean, torch.diag_embed(scale.square()) + 0.1 * scale[..., None] * scale[..., None, :])


def diagonal(mean: torch.Tensor, scale: torch.Tensor) -> MultivariateNormal:
    return MultivariateNormal(mean, DiagLinearOperator(scale.square()))


def moved(law: LinearConstraint) -> LinearConstraint:
    return LinearConstraint(law.rows.to(DEVICE), law.b.to(DEVICE))


@pytest.mark.parametrize("prior", [diagonal, dense])
def test_the_update_is_that_of_the_cpu(prior: Callable[..., MultivariateNormal]) -> None:
    generator = torch.Generator().manual_seed(0)
    mean, scale = (torch.rand(5, 101, dtype=torch.float64, generator=generator) + 0.1 for _ in range(2))
    law = integral(NodeGrid(0.0, 1.0, 101), torch.rand(5, dtype=torch.float64, generator=generator))
    here, there = condition(prior(mean, scale), law), condition(prior(mean.to(DEVICE), scale.to(DEVICE)), moved(law))
    # Sums of 101 terms in another order.
    assert torch.allclose(there.mean.cpu(), here.mean, rtol=1e-12, atol=1e-12)
    assert torch.allclose(there.variance.cpu(), here.variance, rtol=1e-11, atol=1e-12)
    drawn = there.rsample(torch.Size([4]))
    assert there.mean.device.type == drawn.device.type == DEVICE
    assert law.residual(drawn.cpu()).abs().max() < 1e-12


def test_inequalities_hold() -> None:
    grid = NodeGrid(0.0, 1.0, 51)
    law, mean = integral(grid, torch.tensor(0.2, dtype=torch.float64)), (grid.points - 0.4).to(DEVICE)
    field = condition(diagonal(mean, torch.full_like(mean, 0.2)), moved(law) & NonNegative()).mean
    assert (field.device.type, bool(field.min() >= 0)) == (DEVICE, True)
    assert law.residual(field.cpu()).abs().max() < 1e-12


def test_operators_meet_their_boundary_conditions() -> None:
    torch.manual_seed(0)
    operator = BOON(FNO(FNOConfig(in_channels=1, out_channels=1)), conditions=[(Dirichlet(0.0), Neumann(0.0))])
    a = torch.randn(3, 1, 65)
    here = operator(a)
    u = operator.to(DEVICE)(a.to(DEVICE))
    assert u.device.type == DEVICE
    assert torch.equal(u[..., 0], torch.zeros_like(u[..., 0]))
    gradient = (3 * u[..., -1] - 4 * u[..., -2] + u[..., -3]) * 64 / 2
    # Eight roundings of the field in float32 over the spacing.
    assert gradient.abs().max() < 8 * torch.finfo(torch.float32).eps * u.abs().max() * 64
    assert torch.allclose(u.cpu(), here, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("precision", "soft_penalty"), [("32-true", 0.0), ("bf16-mixed", 0.0), ("32-true", 1.0)])
def test_a_neural_process_trains(tmp_path: Path, precision: str, soft_penalty: float) -> None:
    config = tiny("stefan", {"precision": precision}, soft_penalty=soft_penalty, penalty_functions=2, penalty_points=5)
    weights = ANP.load(trained(config, tmp_path, DEVICE)).state_dict()
    assert all(bool(value.isfinite().all()) for value in weights.values())


def test_operators_train(tmp_path: Path) -> None:
    case = one("heat_independent", "single-values")
    table, context = tiny_experiment(case).table, RunContext(options=RunOptions(out=tmp_path, device=DEVICE))
    trainings = [job for method in table.methods(case) for job in table.trainings(case, method, 0, context)]
    assert trainings
    for training in trainings:
        train_operator(training, context)
        notes = boon.read_notes(training.weights(tmp_path))
        assert notes["history"][-1]["step"] == case.sizes.training.steps
