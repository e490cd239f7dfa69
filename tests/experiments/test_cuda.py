"""On a GPU: the update, exact boundary values, a step of every kind of training, and resumption; else skipped."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator
from torch import nn

import boon
from boon import BOON, FNO, FNOConfig
from experiments.operator_methods import methods
from experiments.train_anp import train_anp
from experiments.train_operator import Place, trained_operator
from probconserv import ANP, LinearConstraint, NonNegative, condition, integral
from solvers import Dirichlet, Neumann, NodeGrid
from tests.experiments.draws import check_shared_draws
from tests.experiments.operators import one
from tests.experiments.test_training import CONFIG, Stop, line_task, run, tiny

DEVICE = "cuda"
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def dense(mean: torch.Tensor, scale: torch.Tensor) -> MultivariateNormal:
    return MultivariateNormal(mean, torch.diag_embed(scale.square()) + 0.1 * scale[..., None] * scale[..., None, :])


def diagonal(mean: torch.Tensor, scale: torch.Tensor) -> MultivariateNormal:
    return MultivariateNormal(mean, DiagLinearOperator(scale.square()))


@pytest.mark.parametrize("prior", [diagonal, dense])
def test_the_update_is_that_of_the_cpu(prior: Callable[..., MultivariateNormal]) -> None:
    generator = torch.Generator().manual_seed(0)
    mean, scale = (torch.rand(5, 101, dtype=torch.float64, generator=generator) + 0.1 for _ in range(2))
    law = integral(NodeGrid(0.0, 1.0, 101), torch.rand(5, dtype=torch.float64, generator=generator))
    here = condition(prior(mean, scale), law)
    there = condition(prior(mean.to(DEVICE), scale.to(DEVICE)), LinearConstraint(law.rows.to(DEVICE), law.b.to(DEVICE)))
    assert there.mean.device.type == DEVICE
    # Sums of 101 terms in another order.
    assert torch.allclose(there.mean.cpu(), here.mean, rtol=1e-12, atol=1e-12)
    assert torch.allclose(there.variance.cpu(), here.variance, rtol=1e-11, atol=1e-12)
    drawn = there.rsample(torch.Size([4]))
    assert drawn.device.type == DEVICE
    assert law.residual(drawn.cpu()).abs().max() < 1e-12


def test_inequalities_hold() -> None:
    grid = NodeGrid(0.0, 1.0, 51)
    law = integral(grid, torch.tensor(0.2, dtype=torch.float64))
    mean = (grid.points - 0.4).to(DEVICE)
    moved = LinearConstraint(law.rows.to(DEVICE), law.b.to(DEVICE))
    field = condition(diagonal(mean, torch.full_like(mean, 0.2)), moved & NonNegative()).mean
    assert field.device.type == DEVICE
    assert field.min() >= 0
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


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("soft_penalty", [0.0, 1.0])
def test_a_neural_process_trains(tmp_path: Path, precision: str, soft_penalty: float) -> None:
    if precision == "bf16-mixed" and soft_penalty:
        pytest.skip("the penalty trains in float32")
    config = tiny(soft_penalty=soft_penalty, penalty_functions=2, penalty_points=5)
    training = replace(config.training, steps=2, precision=precision, device=DEVICE)
    result = train_anp(replace(config, training=training), tmp_path / "network", tmp_path, progress=False)
    assert result.weights is not None
    assert all(bool(value.isfinite().all()) for value in ANP.load(result.weights).state_dict().values())


def test_an_operator_trains(tmp_path: Path) -> None:
    case = one("heat_independent", "single-values")
    place = Place(experiment="heat_independent", out=tmp_path, device=DEVICE, progress=False)
    for method in methods(case):
        path = trained_operator(case, method, place, 0)
        assert boon.read_notes(path)["history"][-1]["step"] == case.sizes.training.steps


def test_a_crashed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    config = replace(CONFIG, device=DEVICE)
    _, expected = run(tmp_path / "whole", on_device(line_task()), config)
    with pytest.raises(Stop):
        run(tmp_path / "broken", on_device(line_task(crash_at=17)), config)
    resumed, weights = run(tmp_path / "broken", on_device(line_task()), config)
    assert resumed.step == 30
    for name, value in expected.items():
        assert value.device.type == DEVICE
        assert torch.allclose(weights[name], value, rtol=1e-5, atol=1e-6), name


def on_device(task):
    """The task with its data, which it draws on the CPU, taken to the model's device."""

    class Moved(nn.Module):
        def __init__(self, model: nn.Module) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.model(x.to(next(self.parameters()).device)).cpu()

    return replace(task, model=Moved(task.model))


@pytest.mark.parametrize("count", [1, 2])
def test_processes_draw_the_rows_of_one(count: int) -> None:
    def draw(rows: int) -> list[torch.Tensor]:
        x = torch.ones(rows, 512, device=DEVICE)
        return [torch.empty_like(x).normal_(), nn.functional.dropout(x, 0.5)]

    check_shared_draws(draw, count)
