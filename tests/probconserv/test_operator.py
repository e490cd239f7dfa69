"""Operators as black boxes, and both constraints on one prediction: BOON inside, ProbConserv outside."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from boon import BOON, FNO, Correction, FNOConfig, Prescription, SmoothExtension
from probconserv import Ensemble, GaussianOperator, ProbConserv, draw, integral
from probconserv.errors import InvalidArgumentError
from probconserv.surrogates.operator import as_gaussian
from solvers import Dirichlet, NodeGrid


def draws(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def member(times: int, correction: Correction | None = None) -> GaussianOperator:
    """An untrained operator under Dirichlet conditions, in double precision."""
    fno = FNO(FNOConfig(in_channels=1, out_channels=2 * times, width=4, modes=(3,), depth=2))
    return GaussianOperator(BOON(fno, [(Dirichlet(), Dirichlet())], correction=correction)).double()


def sides(left: Tensor, right: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Boundary values of the means, and deviations 0, ``(batch, 2·times)`` on each side."""
    return [(torch.cat([left, 0 * left], dim=1), torch.cat([right, 0 * right], dim=1))]


def test_half_of_the_channels_are_means_and_half_deviations() -> None:
    field = draws(0, 2, 6, 3, 5)
    prediction = as_gaussian(field, unit=0.2)
    assert prediction.mean.shape == (2, 3, 15)
    assert torch.equal(prediction.mean, field[:, :3].reshape(2, 3, 15))
    assert torch.equal(prediction.stddev, 0.2 * field[:, 3:].reshape(2, 3, 15) ** 2)


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    members=st.integers(2, 5),
    batch=st.integers(1, 3),
    times=st.integers(1, 4),
    nodes=st.integers(9, 33),
    correction=st.sampled_from([None, Prescription(), Prescription(hidden=True), SmoothExtension(length=0.02)]),
)
def test_both_constraints_hold_at_once_whatever_the_weights(
    seed: int, members: int, batch: int, times: int, nodes: int, correction: Correction | None
) -> None:
    torch.manual_seed(seed)
    ensemble = Ensemble([member(times, correction) for _ in range(members)], own_variance=True)
    a, left, right, total = draws(seed, batch, 1, nodes), *draws(seed + 1, 3, batch, times)
    law = integral(NodeGrid(0.0, 1.0, nodes), total)
    prediction = ProbConserv(ensemble, lambda *_: law)(a, sides(left, right))
    for field in (prediction.mean, draw(prediction, (3,), torch.Generator().manual_seed(seed))):
        assert bool((field[..., 0] == left).all())
        assert bool((field[..., -1] == right).all())
        # Round-off of a sum of `nodes` values, relative to their size.
        assert float(law.residual(field).detach().abs().max()) <= 1e-13 * (1 + float(field.detach().abs().max()))
    bare = ensemble(a, sides(left, right))
    for variance in (bare.variance, prediction.variance):
        assert bool((variance[..., [0, -1]] == 0).all())
        assert bool((variance[..., 1:-1] > 0).all())


def test_gradients_reach_every_member_through_the_update() -> None:
    torch.manual_seed(0)
    ensemble = Ensemble([member(2), member(2)], own_variance=True)
    law = integral(NodeGrid(0.0, 1.0, 9), draws(0, 3, 2))
    boundary = sides(draws(1, 3, 2), draws(2, 3, 2))
    prediction = ProbConserv(ensemble, lambda *_: law)(draws(3, 3, 1, 9), boundary)
    (prediction.mean.square() + prediction.variance).sum().backward()
    gradients = [parameter.grad for parameter in ensemble.parameters()]
    assert all(gradient is not None and bool(torch.isfinite(gradient).all()) for gradient in gradients)
    assert all(float(gradient.abs().max()) > 0 for gradient in gradients if gradient is not None)


@pytest.mark.parametrize("shape", [(2, 3, 9), (2, 4)])
def test_output_that_cannot_be_halved_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgumentError, match=r"must be \(batch, 2c, \*space\)"):
        GaussianOperator(nn.Identity())(torch.zeros(shape))


@pytest.mark.parametrize("unit", [0.0, -1.0, float("inf"), float("nan")])
def test_units_that_are_no_size_are_refused(unit: float) -> None:
    with pytest.raises(InvalidArgumentError, match="unit must be positive and finite"):
        GaussianOperator(nn.Identity(), unit)
