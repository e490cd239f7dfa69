"""Boundary corrections around an operator: derivatives in field and data, and float32 against float64."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from boon import BOON, FNO, Elimination, FNOConfig, Prescription, SmoothExtension
from boon.corrections.correction import Correction
from solvers import Dirichlet, Neumann, Robin
from tests.boon.cases import ONE_OF_A_KIND

CORRECTIONS = [Prescription(), SmoothExtension(length=0.3), *ONE_OF_A_KIND, Elimination()]
every_correction = pytest.mark.parametrize("correction", CORRECTIONS, ids=str)


def build(correction: Correction) -> BOON:
    torch.manual_seed(0)
    operator = FNO(FNOConfig(width=2, modes=(2, 2), depth=2, projection=3))
    conditions = [(Dirichlet(), Robin(1.0, 0.4871)), (Neumann(), Neumann(0.0))]
    return BOON(operator, conditions, (1.0, 2.0), correction)


def sides(left: Tensor, right: Tensor, lower: Tensor) -> list[tuple[Tensor, Tensor | None]]:
    return [(left, right), (lower, None)]


def data(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


INPUTS = (data(1, 1, 7, 6, seed=1), data(1, 1, 6, seed=2), data(1, 1, 6, seed=3), data(1, 1, 7, seed=4))


@every_correction
def test_corrected_operators_are_differentiable_in_field_and_boundary_values(correction: Correction) -> None:
    operator = build(correction).double()
    operator.requires_grad_(False)

    def call(a: Tensor, *values: Tensor) -> Tensor:
        return operator(a, boundary=sides(*values))

    inputs = tuple(tensor.clone().requires_grad_() for tensor in INPUTS)
    assert torch.autograd.gradcheck(call, inputs, atol=1e-6)


@every_correction
def test_corrected_operators_are_differentiable_in_their_weights(correction: Correction) -> None:
    """Along a random direction of all weights at once."""
    operator = build(correction).double()
    a, *values = INPUTS
    generator = torch.Generator().manual_seed(5)
    weights = {name: weight.detach() for name, weight in operator.named_parameters()}
    direction = {name: torch.randn(w.shape, dtype=w.dtype, generator=generator) for name, w in weights.items()}

    def total(step: Tensor) -> Tensor:
        moved = {name: weight + step * direction[name] for name, weight in weights.items()}
        return functional_call(operator, moved, (a,), {"boundary": sides(*values)}).square().sum()

    assert torch.autograd.gradcheck(total, torch.zeros((), dtype=torch.float64, requires_grad=True), atol=1e-6)


@every_correction
def test_corrected_operators_in_float32_agree_with_float64(correction: Correction) -> None:
    a, *values = INPUTS
    single = build(correction)(a.float(), boundary=sides(*(value.float() for value in values)))
    double = build(correction).double()(a, boundary=sides(*values))
    assert single.dtype == torch.float32
    # eps = 1.2e-7 over two layers; K_BB, whose condition is some hundreds, multiplies it in an elimination.
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-4 * float(double.detach().abs().max()))
