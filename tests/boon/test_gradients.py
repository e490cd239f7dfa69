"""Gradients through edits of boundary nodes, strips of a side and products of modes."""

import pytest
import torch

from boon._tensors.gradients import add_at, edit_nodes, multiply_modes


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


def test_overwriting_gives_the_same_field_and_gradient_in_the_same_memory():
    u = torch.randn(2, 1, 7, dtype=torch.float64, requires_grad=True)
    nodes = torch.tensor([6, 0])

    def run(u, overwrite=True):
        fresh = u.exp() * 1.0
        edited = edit_nodes(fresh, [(2, 1, 2)], nodes, lambda strips: strips[0].square().flip(-1), overwrite)
        assert (edited.data_ptr() == fresh.data_ptr()) == overwrite
        return edited.square()

    assert torch.equal(run(u), run(u, overwrite=False))
    assert torch.autograd.gradcheck(run, (u,))


def test_overwriting_what_another_operation_needs_is_an_error_of_autograd():
    u = torch.randn(1, 1, 4, requires_grad=True)
    needed = u.exp()  # exp keeps its output for the gradient
    edited = edit_nodes(needed, [], torch.tensor([0]), lambda _: torch.zeros(1, 1, 1), overwrite=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        edited.sum().backward()


def test_added_values_and_their_gradient():
    u = torch.randn(2, 1, 3, 2, dtype=torch.float64, requires_grad=True)
    values = torch.randn(2, 1, 2, dtype=torch.float64, requires_grad=True)
    nodes = torch.tensor([5, 1])

    def run(u, values):
        return add_at(u * 2.0, nodes, values.square()).square()

    expected = (2 * u).flatten(2).index_add(2, nodes, values.square()).view(u.shape).square()
    assert torch.equal(run(u, values), expected)
    assert torch.autograd.gradcheck(run, (u, values))
