"""Operators that predict Gaussian fields: composition, heads, dropout, inputs."""

import pytest
import torch

from boon import BOON, FNO
from experiments.combined.fields import FieldProblem
from experiments.combined.methods import BOUNDED, PLAIN
from experiments.combined.networks import UNIT, DropoutLayers, Inputs, Network, build, inputs, surrogate
from experiments.combined.networks import diversity_penalty as penalty
from probconserv.surrogates.operator import as_gaussian
from tests.experiments.combined.tiny import PROBLEMS, shrunk, tiny_problem


def untrained(network: Network, problem: FieldProblem, seed: int = 0) -> tuple[FNO | BOON, Inputs]:
    """An operator of the network, and its inputs for two parameters."""
    torch.manual_seed(seed)
    parameter = problem.parameters(problem.training_range, 2, seed=0)
    return build(shrunk(network), problem).double(), inputs(problem, network, parameter)


def test_operators_take_the_parameter_and_the_boundary_values() -> None:
    problem = PROBLEMS["porous_medium"]
    parameter = torch.linspace(*problem.training_range, 1001, dtype=torch.float64)
    a, ((first, last),) = inputs(problem, BOUNDED, parameter)
    assert a.shape == (1001, 1 + 2 * problem.times, problem.nodes)
    assert torch.equal(a, a[..., :1].expand_as(a))
    assert float(a[:, 0, 0].mean()) == pytest.approx(0, abs=1e-12)
    assert float(a[:, 0, 0].std()) == pytest.approx(1, abs=2e-3)  # a grid of 1001 points has not quite the density
    assert torch.equal(a[:, 1 : 1 + problem.times, 0], problem.ends(parameter)[0])
    assert torch.equal(first[:, : problem.times], problem.ends(parameter)[0])
    assert not bool(first[:, problem.times :].any())
    assert not bool(last.any())
    assert len(inputs(problem, PLAIN, parameter)) == 1
    advection, circle = (inputs(PROBLEMS[name], PLAIN, parameter)[0].shape[1] for name in ("advection", "diffusion"))
    assert (advection, circle) == (1 + problem.times, 1)


@torch.no_grad()
def test_heads_are_joined_as_an_ensemble_and_on_a_circle_every_point_counts_once() -> None:
    problem, network = tiny_problem("diffusion"), Network(name="heads", heads=3, diversity=0.1)
    operator, arguments = untrained(network, problem)
    whole, prediction = operator(*arguments), surrogate([operator], network, problem, passes=1)(*arguments)
    torch.testing.assert_close(whole[..., 0], whole[..., -1], rtol=0, atol=1e-14)
    heads = [as_gaussian(part, UNIT) for part in whole[..., :-1].chunk(3, dim=1)]
    means = torch.stack([head.mean for head in heads])
    torch.testing.assert_close(prediction.mean, means.mean(dim=0), rtol=0, atol=1e-14)
    within = torch.stack([head.variance for head in heads]).mean(dim=0)
    torch.testing.assert_close(prediction.variance, means.var(dim=0) + within, rtol=1e-10, atol=1e-16)


def test_the_diversity_penalty_drives_heads_apart_and_is_bounded() -> None:
    operator, _ = untrained(Network(name="heads", heads=8), tiny_problem("stefan"))
    assert isinstance(operator, FNO)
    before, weight = penalty(operator, 8), operator.read_out.weight
    assert float(before.detach()) == pytest.approx(torch.tensor(-1.0).exp().item(), rel=0.2)
    (gradient,) = torch.autograd.grad(before, weight)
    with torch.no_grad():
        weight -= 10 * gradient
        assert float(penalty(operator, 8)) < float(before)
        weight[:] = weight[: len(weight) // 8].repeat(8, 1)
        assert float(penalty(operator, 8)) == 1.0


@torch.no_grad()
def test_dropout_makes_every_pass_another_one_and_none_at_rate_zero() -> None:
    problem, network = tiny_problem("stefan"), Network(name="dropout", dropout=0.3)
    operator, arguments = untrained(network, problem)
    model = surrogate([operator], network, problem, passes=4)
    first, again, other = ((torch.manual_seed(seed), model(*arguments))[1] for seed in (0, 0, 1))
    assert torch.equal(first.mean, again.mean)
    assert not torch.equal(first.mean, other.mean)
    assert bool((first.variance > 0).all())
    assert torch.equal(operator(*arguments, DropoutLayers(0.0)), operator(*arguments))
    assert not torch.equal(first.mean, as_gaussian(operator(*arguments), UNIT).mean)
