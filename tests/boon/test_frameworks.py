"""Operators in the hands of torch: copies, parents, mixed precision, traced graphs."""

import copy
import re
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch._dynamo.exc import Unsupported
from torch.nn.parallel import DistributedDataParallel

from boon import BOON, FNO, FNOConfig, MixedTransform, Prescription, SmoothExtension
from boon.corrections.without_schur import EliminationWithoutSchur
from boon.errors import IncompatibleCornersError, InvalidArgumentError
from boon.normalisation import Normalised
from solvers import Dirichlet, Neumann, Periodic
from tests.boon.cases import EVERY, ON_ONE_AXIS, ONE_OF_A_KIND
from tests.documents import DOCS
from tests.recording import records

CONFIG = FNOConfig(width=4, modes=(3,), depth=2)
SEEDS = range(4)


def build(correction=None):
    torch.manual_seed(0)
    operator = FNO(CONFIG)
    return BOON(operator, [(Dirichlet(0.3), Neumann(0.1))], correction=correction) if correction else operator


def field():
    return torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("correction", [None, *ONE_OF_A_KIND])
def test_a_deep_copy_is_another_operator_with_the_same_answers(correction):
    operator, a = build(correction), field()
    twin = copy.deepcopy(operator)
    assert torch.equal(twin(a), operator(a))
    with torch.no_grad():
        next(twin.parameters()).add_(1.0)
    assert not torch.equal(twin(a), operator(a))


@pytest.mark.parametrize("correction", [None, *ONE_OF_A_KIND])
def test_the_state_of_a_parent_holds_the_operator(correction):
    operator, other, a = build(correction), build(correction), field()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1)
    state = nn.ModuleDict({"inside": operator}).state_dict()
    nn.ModuleDict({"inside": other}).load_state_dict(state)
    assert torch.equal(other(a), operator(a))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_half_precision_are_refused(dtype):
    with pytest.raises(
        InvalidArgumentError, match=r"float32 and float64 only, got .* call the operator under torch.auto"
    ):
        build().to(dtype)


def plate(correction):
    """An operator on a plate: value and gradient along one axis, periodic along the other."""
    torch.manual_seed(0)
    operator = FNO(FNOConfig(width=4, modes=(3, 3), depth=2))
    conditions = [(Dirichlet(0.3), Neumann(0.1)), (Periodic(), Periodic())]
    return BOON(operator, conditions, correction=correction) if correction else operator


def on_plate():
    return torch.randn(2, 1, 12, 11, generator=torch.Generator().manual_seed(1))


def on_a_line(correction, seed):
    """An operator with a value at one end and a gradient at the other, and a field on a fine grid."""
    torch.manual_seed(seed)
    operator = FNO(FNOConfig(width=8, modes=(4,), depth=2))
    a = torch.randn(2, 1, 129)
    return BOON(operator, [(Dirichlet(0.3), Neumann(0.1))], correction=correction) if correction else operator, a


def autocast(operator, a, dtype):
    with torch.autocast("cpu", dtype=dtype):
        return operator(a)


def relative_error(u, expected):
    return float((u.detach().float() - expected).norm() / expected.norm())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("correction", [None, *ON_ONE_AXIS], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_under_autocast(dtype, correction, seed):
    operator, a = on_a_line(correction, seed)
    u = autocast(operator, a, dtype)
    # The fields of an untrained operator vary less than they are large, so rounding is more than 0.5 eps of them.
    assert relative_error(u, operator(a).detach()) < 4 * torch.finfo(dtype).eps
    if correction:
        assert (u[..., 0] == torch.tensor(0.3).to(u.dtype)).all()


@pytest.mark.parametrize("correction", [None, *ON_ONE_AXIS], ids=str)
def test_training_under_autocast_with_inputs_in_bfloat16(correction):
    operator, a = on_a_line(correction, seed=0)
    u = autocast(operator, a.bfloat16(), torch.bfloat16)
    u.float().square().sum().backward()
    assert relative_error(u, operator(a).detach()) < 0.03
    assert all(p.grad is not None and not bool(p.grad.isnan().any()) for p in operator.parameters())
    if correction:
        assert (u[..., 0] == torch.tensor(0.3).to(u.dtype)).all()


@pytest.mark.parametrize("correction", [SmoothExtension(reach=0.0), SmoothExtension(reach=0.0, hidden=True)])
def test_autocast_leaves_what_amplifies_rounding_in_the_dtype_of_its_weights(correction):
    operator, a = on_a_line(correction, seed=0)
    normalised = BOON(Normalised.fit(operator.operator, a, a), operator.conditions, correction=correction)
    for each in (operator, normalised):
        assert torch.equal(autocast(each, a, torch.bfloat16), each(a))
        assert torch.equal(autocast(each, a.bfloat16(), torch.bfloat16), each(a.bfloat16().float()))
        with torch.autocast("cpu", torch.bfloat16):
            _, missed = each.with_residual(a)
        assert torch.equal(missed, each.with_residual(a)[1])


@pytest.mark.parametrize("correction", [None, *EVERY], ids=str)
def test_under_autocast_on_a_plate(correction):
    operator, a = plate(correction), on_plate()
    assert relative_error(autocast(operator, a, torch.bfloat16), operator(a).detach()) < 0.03


def exported(operator, a):
    return torch.export.export(operator, (a,)).module()(a)


def compiled(operator, a):
    torch.compiler.reset()
    return torch.compile(operator, fullgraph=True, backend="eager")(a)


def mapped(operator, a):
    return torch.func.vmap(operator)(a[:, None])[:, 0]


def differentiated(operator, a):
    """The value beside the derivative along a direction, which is that of two backward passes."""
    direction = torch.randn(a.shape, generator=torch.Generator().manual_seed(2))
    value, derivative = torch.func.jvp(operator, (a,), (direction,))
    _, expected = torch.autograd.functional.jvp(operator, a, direction)
    assert torch.allclose(derivative, expected, atol=1e-5)
    return value


def by_sample(operator, a):
    """The value; gradients of every sample for the weights add up to that of the batch."""

    def loss(parameters, sample):
        return torch.func.functional_call(operator, parameters, (sample[None],)).square().sum()

    gradients = torch.func.vmap(torch.func.grad(loss), (None, 0))(dict(operator.named_parameters()), a)
    operator(a).square().sum().backward()
    for name, parameter in operator.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert torch.allclose(gradients[name].sum(0), expected, atol=1e-4, rtol=1e-3), name
    return operator(a)


TRANSFORMS = {"torch.func.vmap": mapped, "torch.func.jvp": differentiated, "gradients of every sample": by_sample}
GRAPHS = {"torch.compile(fullgraph=True)": compiled, "torch.export": exported}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=list(TRANSFORMS))
@pytest.mark.parametrize("correction", [None, *EVERY])
def test_under_a_transform_of_functions(transform, correction):
    operator, a = plate(correction), on_plate()
    assert torch.allclose(transform(operator, a), operator(a), atol=1e-6)


@records
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own tracing
@pytest.mark.parametrize("graph", GRAPHS.values(), ids=list(GRAPHS))
@pytest.mark.parametrize("correction", [None, *EVERY])
def test_as_one_graph(graph, correction):
    operator, a = plate(correction), on_plate()
    assert torch.allclose(graph(operator, a), operator(a), atol=1e-6)


@records
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("graph", GRAPHS.values(), ids=list(GRAPHS))
def test_a_small_operator_as_one_graph(graph):
    conditions = [(Dirichlet(0.3), Neumann(0.1))]
    operator, a = BOON(FNO(replace(CONFIG, depth=1)), conditions, correction=Prescription()), field()
    assert torch.allclose(graph(operator, a), operator(a), atol=1e-6)


@records
def test_tracing_has_no_side_effects():
    # The first call at this size is the trace: its tensors must not be kept for the calls after it.
    operator, a = build(), torch.randn(2, 1, 19)
    assert torch.allclose(exported(operator, a), operator(a), atol=1e-6)


@pytest.mark.parametrize("correction", [MixedTransform(), EliminationWithoutSchur()])
def test_a_transformed_operator_leaves_nothing_behind(correction):
    operator, a = plate(correction), torch.randn(2, 1, 10, 9)
    values = differentiated(operator, a), mapped(operator, a)
    assert all(torch.allclose(value, operator(a), atol=1e-6) for value in values)


def test_values_are_checked_where_they_can_be_read():
    operator, a = BOON(FNO(CONFIG), [(Dirichlet(), None)]), field()
    bad = torch.full((2, 1), torch.nan)
    with pytest.raises(InvalidArgumentError, match="NaN or infinite"):
        operator(a, [(bad, None)])
    u = torch.func.vmap(lambda a, g: operator(a, [(g, None)]))(a[:, None], bad[:, None])
    assert bool(u.isnan().any())


class Called(nn.Module):
    """An operator that takes the value of its first side."""

    def __init__(self, conditions):
        super().__init__()
        self.operator = BOON(FNO(FNOConfig(width=4, modes=(3, 3), depth=1)), conditions)

    def forward(self, a, value):
        return self.operator(a, [(value, None), None])


@pytest.mark.long
@records
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("dynamic", [False, True])
def test_a_value_that_may_be_of_the_batch_is_refused_in_graphs_too(dynamic):
    operator, a, value = Called([(Dirichlet(), None), None]), torch.randn(6, 1, 10, 6), torch.arange(6.0)
    with pytest.raises(InvalidArgumentError, match="may start with the batch of 6"):
        operator(a, value)
    with pytest.raises(InvalidArgumentError, match="may start with the batch of 6"):
        torch.export.export(operator, (a, value))
    torch.compiler.reset()
    compiled = torch.compile(operator, fullgraph=True, backend="eager", dynamic=dynamic)
    with pytest.raises(Unsupported, match="may start with the batch of"):
        compiled(a, value)
    along = torch.arange(9.0)
    a = torch.randn(6, 1, 10, 9)
    assert torch.equal(compiled(a, along)[:, 0, 0], along.expand(6, 9))
    batch = {0: torch.export.Dim("batch")}
    graph = torch.export.export(operator, (a, along), dynamic_shapes=(batch, None)).module()
    assert torch.equal(graph(torch.randn(9, 1, 10, 9), along)[:, 0, 0], along.expand(9, 9))


def test_corners_are_checked_where_values_can_be_read():
    operator = BOON(FNO(FNOConfig(width=4, modes=(3, 3), depth=1)), [(Dirichlet(), None), (Dirichlet(1.0), None)])
    with pytest.raises(IncompatibleCornersError):
        operator(on_plate(), [(0.0, None), None])
    u = torch.func.vmap(lambda a: operator(a, [(0.0, None), None]))(on_plate()[:, None])
    assert bool((u[:, 0, 0, :, 0] == 1.0)[:, 1:].all())


def _train_on_one_rank(rank, path, correction):
    """One step of data parallelism; every rank has one sample of two."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{path}/meeting", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    operator = build(correction)
    parallel = DistributedDataParallel(operator)
    parallel(field()[rank : rank + 1]).square().mean().backward()
    torch.save([parameter.grad for parameter in operator.parameters()], f"{path}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("correction", [None, MixedTransform()])
def test_two_processes_have_the_gradients_of_one(correction, tmp_path):
    multiprocessing.spawn(partial(_train_on_one_rank, path=str(tmp_path), correction=correction), nprocs=2)
    operator = build(correction)
    operator(field()).square().mean().backward()
    for rank in range(2):
        for parameter, gradient in zip(operator.parameters(), torch.load(tmp_path / f"{rank}.pt"), strict=True):
            assert torch.allclose(gradient, parameter.grad, atol=1e-6)


def test_the_page_lists_what_is_tested():
    page = (DOCS / "guides" / "boundary_conditions.md").read_text(encoding="utf-8")
    for name in (*TRANSFORMS, *GRAPHS):
        assert re.search(rf"^\| .*{re.escape(name)}.* \|", page, flags=re.MULTILINE), name


def test_jacobians_of_a_batch_of_directions():
    torch.manual_seed(0)
    operator = BOON(FNO(FNOConfig(width=4, modes=(3,), depth=2)), [(Dirichlet(1.0), Neumann(0.0))])
    a = torch.randn(1, 1, 9)
    rows = [torch.autograd.functional.jacobian(operator, a, vectorize=each) for each in (True, False)]
    assert torch.allclose(*rows, atol=1e-6)


def test_float64_as_the_default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        assert FNO(FNOConfig(width=4, modes=(3,), depth=2))(torch.randn(2, 1, 9)).dtype == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
