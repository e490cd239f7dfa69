"""Operators in the hands of torch: copies, parents, mixed precision, traced graphs."""

import copy

import pytest
import torch
from torch import nn

from boon import BOON, FNO, FNOConfig, InvalidArgumentError, MatchedTransform, MixedTransform, SmoothExtension
from solvers import Dirichlet, Neumann

CONFIG = FNOConfig(width=4, modes=(3,), depth=2)
CORRECTIONS = [None, MixedTransform(), MatchedTransform(), SmoothExtension(hidden=True)]


def build(correction=None):
    torch.manual_seed(0)
    operator = FNO(CONFIG)
    return BOON(operator, [(Dirichlet(0.3), Neumann(0.1))], correction=correction) if correction else operator


def field():
    return torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_deep_copy_is_another_operator_with_the_same_answers(correction):
    operator, a = build(correction), field()
    twin = copy.deepcopy(operator)
    assert torch.equal(twin(a), operator(a))
    with torch.no_grad():
        next(twin.parameters()).add_(1.0)
    assert not torch.equal(twin(a), operator(a))


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_the_state_of_a_parent_holds_the_operator(correction):
    operator, other, a = build(correction), build(correction), field()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    state = nn.ModuleDict({"inside": operator}).state_dict()
    nn.ModuleDict({"inside": other}).load_state_dict(state)
    assert torch.equal(other(a), operator(a))


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("narrow", [False, True])
def test_under_autocast_in_bfloat16(correction, narrow):
    operator, a = build(correction), field()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        u = operator(a.bfloat16() if narrow else a)
        u.float().square().sum().backward()
    expected = operator(a).detach()
    assert float((u.detach().float() - expected).abs().max() / expected.abs().max()) < 0.05  # eps is 0.0078
    assert all(p.grad is not None and not bool(p.grad.isnan().any()) for p in operator.parameters())
    if correction:
        assert (u[..., 0] == torch.tensor(0.3).to(u.dtype)).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_are_refused(dtype):
    with pytest.raises(
        InvalidArgumentError, match=r"float32 and float64 only, got .* call the operator under torch.auto"
    ):
        build().to(dtype)


def test_a_traced_operator_leaves_nothing_behind():
    # The first call at this size is the trace: its tensors must not be kept for the calls after it.
    operator, a = build(), torch.randn(2, 1, 19)
    exported = torch.export.export(operator, (a,)).module()
    assert torch.allclose(exported(a), operator(a), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracing
def test_an_fno_compiles_to_one_graph():
    operator, a = build(), torch.randn(2, 1, 17)
    compiled = torch.compile(operator, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(a), operator(a), atol=1e-6)
