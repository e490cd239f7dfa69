import pytest
import torch

from boon.gradients import edit_nodes, multiply_modes, take_strips


def test_strips_and_field_share_one_gradient():
    u = torch.randn(2, 1, 6, 5, dtype=torch.float64, requires_grad=True)

    def run(u):
        same, (first, second) = take_strips(u.sin(), [(2, 0, 2), (3, 3, 2)])
        return same.square(), first * 2, second.exp()

    assert torch.autograd.gradcheck(run, (u,))


def test_edited_nodes_and_their_gradient():
    u = torch.randn(2, 1, 7, dtype=torch.float64, requires_grad=True)
    places = torch.tensor([6, 0])

    def run(u):
        return edit_nodes(u.exp(), [(2, 1, 2)], places, lambda strips: strips[0].square().flip(-1)).square()

    result = edit_nodes(u, [(2, 1, 2)], places, lambda strips: strips[0])
    assert torch.equal(result[..., [6, 0]], u[..., [1, 2]])
    assert torch.equal(result[..., 1:6], u[..., 1:6])
    assert torch.autograd.gradcheck(run, (u,))


def test_a_field_used_twice_keeps_its_other_gradient():
    # The gradient that arrives is shared with the other use and must not be changed in place.
    u = torch.randn(1, 1, 4, dtype=torch.float64, requires_grad=True)
    edited = edit_nodes(u, [], torch.tensor([0]), lambda _: torch.zeros(1, 1, 1, dtype=torch.float64))
    (edited + u).sum().backward()
    assert torch.equal(u.grad, torch.tensor([[[1.0, 2.0, 2.0, 2.0]]], dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_product_of_modes_and_its_gradient(dtype):
    torch.manual_seed(0)
    x = torch.randn(3, 2, 4, dtype=dtype, requires_grad=True)
    weight = torch.randn(4, 2, 5, dtype=dtype, requires_grad=True)
    assert torch.allclose(multiply_modes(x, weight), torch.einsum("bck,kco->bok", x, weight), atol=1e-14)
    assert torch.autograd.gradcheck(multiply_modes, (x, weight))
    assert torch.autograd.gradgradcheck(multiply_modes, (x, weight))
