"""The attentive neural process: symmetries, mixture, loss, evaluation mode, weights on disk, messages."""

import json
from pathlib import Path
from typing import TypeVar

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from safetensors.torch import load_file, save_file
from torch.distributions import Normal

from probconserv.errors import DataFileError, IncompatibleQueryError, InvalidArgumentError
from probconserv.surrogates._anp_parts import AttentionBlock, coordinate_features, feature_count
from probconserv.surrogates.anp import ANP, ANPConfig, TrainingPrediction
from probconserv.surrogates.fitting import FitOptions, FunctionSet
from probconserv.surrogates.surrogate import Context, Query
from probconserv.training import TrainingConfig

Module = TypeVar("Module", bound=torch.nn.Module)
SMALL = ANPConfig(
    problem="stefan",
    low=(0.0, -1.0),
    high=(0.1, 1.0),
    value_scale=2.0,
    width=16,
    heads=2,
    self_layers=1,
    cross_layers=1,
    decoder_layers=1,
    latent_width=4,
    frequencies=2,
    latent_samples=7,
)
# Float64 networks a dozen layers deep: rounding grows to some hundred units in the last place.
ROUND_OFF = 1e-12


def network(seed: int = 0, **changes: object) -> ANP:
    torch.manual_seed(seed)
    arguments = {name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__} | changes
    return randomised(ANP(ANPConfig(**arguments)).double().eval())


def randomised(module: Module) -> Module:
    """The module with all parameters drawn anew; layers that start at zero would hide what follows them."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module


def data(seed: int, batch: tuple[int, ...], n: int, q: int) -> tuple[Context, Query]:
    generator = torch.Generator().manual_seed(seed)

    def points(count: int) -> torch.Tensor:
        unit = torch.rand((*batch, count, 2), generator=generator, dtype=torch.float64)
        return unit * torch.tensor([0.1, 2.0]) - torch.tensor([0.0, 1.0])

    values = torch.randn((*batch, n), generator=generator, dtype=torch.float64)
    return Context(points(n), values), Query(points(q))


def explicit_attention(block: AttentionBlock, points: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
    """Softmax attention head by head and point by point, then the block's own two-layer network."""
    width = points.shape[-1]
    size = width // block.heads
    query = block.query(block.normalise(points))
    key, value = block.key_value(observed)[:, :width], block.key_value(observed)[:, width:]
    rows = []
    for i in range(len(points)):
        heads = []
        for h in range(block.heads):
            part = slice(h * size, (h + 1) * size)
            score = torch.stack([query[i, part] @ key[j, part] / size**0.5 for j in range(len(observed))])
            weight = score.exp() / score.exp().sum()
            heads.append(sum(weight[j] * value[j, part] for j in range(len(observed))))
        rows.append(points[i] + block.output(torch.cat(heads)))
    return block.mlp(torch.stack(rows))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), heads=st.sampled_from([1, 2, 4]), n=st.integers(1, 6), q=st.integers(1, 5))
def test_attention_block_against_explicit_softmax(seed: int, heads: int, n: int, q: int) -> None:
    torch.manual_seed(seed)
    block = randomised(AttentionBlock(8, heads, dropout=0.0).double())
    points, observed = torch.randn(q, 8, dtype=torch.float64), torch.randn(n, 8, dtype=torch.float64)
    torch.testing.assert_close(
        block(points, observed), explicit_attention(block, points, observed), rtol=ROUND_OFF, atol=ROUND_OFF
    )
    torch.testing.assert_close(
        block(points), explicit_attention(block, points, block.normalise(points)), rtol=ROUND_OFF, atol=ROUND_OFF
    )


def test_blocks_are_the_identity_before_training() -> None:
    points = torch.randn(3, 8)
    assert torch.equal(AttentionBlock(8, 2, dropout=0.0)(points), points)


def test_coordinate_features_are_the_stated_functions() -> None:
    points = torch.tensor([[-1.0, 0.25]], dtype=torch.float64)
    features = coordinate_features(points, 2)[0]
    assert features.shape == (feature_count(2, 2),)
    angles = torch.tensor([-0.5, -1.0, 0.125, 0.25], dtype=torch.float64) * torch.pi
    torch.testing.assert_close(features, torch.cat((points[0], angles.sin(), angles.cos())))
    # An end of the interval differs from the other one: the lowest frequency has twice its length as period.
    ends = coordinate_features(torch.tensor([[-1.0], [1.0]], dtype=torch.float64), 3)
    assert float((ends[0] - ends[1])[1:].abs().max()) > 1.9


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), batch=st.sampled_from([(), (1,), (3,), (2, 2)]), n=st.integers(1, 8))
def test_prediction_does_not_depend_on_order_nor_on_other_queries(seed: int, batch: tuple[int, ...], n: int) -> None:
    context, query = data(seed, batch, n, 5)
    model = network()
    mixture = model.predict(context, query)
    assert mixture.mean.shape == (*batch, 5)
    assert mixture.components.mean.shape == (7, *batch, 5)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shuffled = Context(context.points[..., order, :], context.values[..., order])
    again = model.predict(shuffled, Query(query.points[..., [3, 0], :]))
    for name in ("mean", "variance"):
        torch.testing.assert_close(
            getattr(again, name), getattr(mixture, name)[..., [3, 0]], rtol=ROUND_OFF, atol=ROUND_OFF
        )


def test_functions_of_a_batch_do_not_influence_each_other() -> None:
    context, query = data(0, (4,), 6, 5)
    model = network()
    together = model.predict(context, query).mean
    alone = model.predict(Context(context.points[2], context.values[2]), Query(query.points[2])).mean
    torch.testing.assert_close(together[2], alone, rtol=ROUND_OFF, atol=ROUND_OFF)


@pytest.mark.long
def test_components_are_decoded_draws_of_the_latent_path() -> None:
    context, query = data(1, (), 6, 5)
    model = network(latent_samples=4000)
    means, scales = model.components(context, query)
    prior = model.latent(model._centre(context.points), model._normalise(context.values))
    assert model.components(context, query, samples=3)[0].shape == (3, 5)
    assert bool((scales >= model.config.scale_floor).all())
    hidden = model._represent(
        model._centre(context.points), model._normalise(context.values), model._centre(query.points)
    )
    torch.manual_seed(0)
    draws = torch.stack([model._decode(hidden, z)[0] for z in prior.sample((4000,))])
    # Two Monte Carlo means of 4,000 draws: five standard errors of their difference.
    error = (2 * draws.var(dim=0) / 4000).sqrt()
    assert bool(((draws.mean(dim=0) - means.mean(dim=0)).abs() < 5 * error).all())


def test_predictions_use_evaluation_mode_and_restore_the_mode() -> None:
    context, query = data(2, (2,), 6, 5)
    model = network(dropout=0.5).train()
    first, second = (model.predict(context, query).mean for _ in range(2))
    assert torch.equal(first, second)
    assert model.training
    assert torch.equal(first, model.eval().predict(context, query).mean)
    assert not model.training


def test_float32_prediction_agrees_with_float64() -> None:
    context, query = data(3, (2,), 6, 5)
    single = Context(context.points.float(), context.values.float())
    model = network()
    double = model.predict(context, query).mean
    result = model.float().predict(single, Query(query.points.float())).mean
    assert result.dtype == torch.float32
    # float32 round-off through a dozen layers with values of order one.
    torch.testing.assert_close(result.double(), double, rtol=1e-4, atol=1e-4)


def test_scales_below_the_floor_of_gpytorch_count() -> None:
    context, query = data(3, (2,), 6, 5)
    model = network(value_scale=1e-7, scale_floor=1e-10)
    small = Context(context.points, 1e-7 * context.values)
    _, scale = model.components(small, query)
    torch.testing.assert_close(model.predict(small, query).components.variance, scale.square())


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 2**31), tempering=st.sampled_from([0.0, 0.5, 1.0]))
def test_loss_is_the_stated_sum(seed: int, tempering: float) -> None:
    torch.manual_seed(seed)
    mean, values = torch.randn(2, 3, 4, dtype=torch.float64)
    scale, divergence = torch.rand(3, 4, dtype=torch.float64) + 0.1, torch.rand(3, dtype=torch.float64)
    expected = 0.0
    for b in range(3):
        for j in range(4):
            weight = float(scale[b, j]) ** (2 * tempering)
            expected -= weight * float(Normal(mean[b, j], scale[b, j]).log_prob(values[b, j])) / 12
        expected += float(divergence[b]) / 12
    assert float(TrainingPrediction(mean, scale, divergence).loss(values, tempering)) == pytest.approx(expected)


def test_full_tempering_moves_the_mean_as_least_squares_do() -> None:
    mean = torch.tensor([[0.3, -0.2]], dtype=torch.float64, requires_grad=True)
    values, scale = torch.zeros(1, 2, dtype=torch.float64), torch.tensor([[0.01, 3.0]], dtype=torch.float64)
    loss = TrainingPrediction(mean, scale, torch.zeros(1, dtype=torch.float64)).loss(values, 1.0)
    (gradient,) = torch.autograd.grad(loss, mean)
    torch.testing.assert_close(gradient, mean.detach() / 2)


def test_training_divergence_vanishes_when_targets_are_the_context() -> None:
    context, _ = data(4, (2,), 6, 5)
    prediction = network()(context.points, context.values, context.points, context.values)
    torch.testing.assert_close(prediction.divergence, torch.zeros(2), check_dtype=False, rtol=0, atol=ROUND_OFF)
    other = network()(context.points, context.values, context.points, context.values + 1)
    assert bool((other.divergence > 1e-6).all())


@pytest.mark.parametrize(
    ("n", "q", "seen"), [(3, 7, (0, 2, 4, 6)), (3, 5, (0, 1, 2, 3, 4)), (3, 2, (0, 1)), (2, 8, (0, 4))]
)
def test_the_latent_path_sees_every_so_many_th_target(n: int, q: int, seen: tuple[int, ...]) -> None:
    context, query = data(9, (1,), n, q)
    values = torch.ones(1, q, dtype=torch.float64, requires_grad=True)
    divergence = network()(context.points, context.values, query.points, values).divergence
    (gradient,) = torch.autograd.grad(divergence.sum(), values)
    assert tuple(gradient[0].nonzero()[:, 0].tolist()) == seen


def test_training_mean_depends_on_a_target_through_its_own_place_only() -> None:
    context, query = data(5, (1,), 6, 5)
    model = network()
    positions = query.points.clone().requires_grad_()
    torch.manual_seed(0)
    mean = model(context.points, context.values, positions, torch.ones(1, 5, dtype=torch.float64)).mean
    (gradient,) = torch.autograd.grad(mean[0, 2], positions)
    assert bool(gradient[0, 2].abs().min() > 0)
    assert not gradient[0, [0, 1, 3, 4]].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_saved_network_predicts_the_same(tmp_path: Path, dtype: torch.dtype) -> None:
    context, query = data(7, (2,), 6, 5)
    model = network().to(dtype)
    model.save(tmp_path / "weights.safetensors", seed=3)
    loaded = ANP.load(tmp_path / "weights.safetensors", problem="stefan")
    assert loaded.config == model.config
    assert not loaded.training
    assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert torch.equal(loaded.predict(context, query).mean, model.predict(context, query).mean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "0"}, "has format version 0, but this library reads version 1"),
        (
            {"format": "boon-2"},
            r"not written by a model of this package \(format boon-2\); operators are read by boon.load",
        ),
        ({"kind": "FNO"}, "holds weights of FNO, not of ANP"),
        ({"config": json.dumps({"width": 16, "colour": 3})}, "does not fit this version of ANP: .*colour"),
    ],
)
def test_weights_of_another_kind_or_version_are_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    path = tmp_path / "weights.safetensors"
    network().save(path)
    config = json.dumps({name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__})
    metadata = {"format": "1", "kind": "ANP", "config": config, "notes": "{}"} | change
    save_file(load_file(path), path, metadata)
    with pytest.raises(DataFileError, match=message):
        ANP.load(path)
    others = {str(index): torch.zeros(1000) for index in range(10)}
    save_file(others, path, metadata | {"format": "1", "kind": "ANP", "config": config})
    with pytest.raises(DataFileError, match="tensors differ"):
        ANP.load(path)


def test_invalid_arguments_raise_with_reason(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    with pytest.raises(FileNotFoundError, match="There is no file of weights"):
        ANP.load(path)
    network().save(path)
    with pytest.raises(DataFileError, match="holds weights for problem 'stefan', not for 'diffusion'"):
        ANP.load(path, problem="diffusion")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataFileError, match="is damaged, perhaps cut off"):
        ANP.load(path)
    with pytest.raises(DataFileError, match="cannot be written"):
        network().save(tmp_path / "absent" / "weights.safetensors")
    context, query = data(8, (2,), 6, 5)
    other = Context(context.points, context.values, "diffusion")
    with pytest.raises(IncompatibleQueryError, match="network is of problem 'stefan', but the context of 'diffusion'"):
        network().predict(other, query)
    flat = Context(context.points[..., :1], context.values)
    with pytest.raises(IncompatibleQueryError, match="takes 2 coordinates but the points have 1"):
        network().predict(flat, Query(query.points[..., :1]))
    with pytest.raises(IncompatibleQueryError, match="same batch shape"):
        network().predict(context, Query(query.points[0]))


def test_a_network_that_was_not_trained_predicts_nothing() -> None:
    torch.manual_seed(0)
    model = ANP(SMALL)
    context, query = data(8, (), 6, 5)
    with pytest.raises(InvalidArgumentError, match="has not been trained; call fit"):
        model.predict(context, query)
    functions = FunctionSet(points=context.points, values=context.values[None].expand(2, -1), context=3)
    config = TrainingConfig(steps=1, peak_rate=1e-3, precision="32-true")
    model.fit(functions, config=config, options=FitOptions(batch=2), progress=False)
    assert model.predict(context, query).mean.shape == (5,)


@pytest.mark.parametrize("batch", [(), (1,), (2, 2)])
def test_points_far_outside_of_the_ranges_are_named(batch: tuple[int, ...]) -> None:
    """Up to a tenth of the length beyond is no matter; the range of the second coordinate is from −1 to 1."""
    context, query = data(8, batch, 6, 5)
    model, move = network(), torch.tensor([0.0, 1.2], dtype=torch.float64)
    least = query.points[..., 1].min()
    model.predict(context, Query(query.points + move / 1.2 * (-1.19 - least)))
    with pytest.warns(UserWarning, match=r"Query points reach from .* in column 1, .* coordinates from -1 to 1"):
        model.predict(context, Query(query.points + 1000 * move))
    with pytest.warns(UserWarning, match=r"Context points reach from .* in column 1"):
        model.predict(Context(context.points - move * 2, context.values), query)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "width must be a multiple of heads = 3, got 16"),
        ({"high": (0.1,)}, "low and high need one entry per coordinate"),
        ({"high": (0.1, -1.0)}, "low < high"),
        ({"latent_samples": 0}, "latent_samples must be at least 1"),
        ({"frequencies": -1}, "frequencies must not be negative"),
        ({"scale_floor": 0.0}, "scale_floor must be positive"),
        ({"value_scale": 1e-9}, "scale_floor is a smallest .* 0.001 is more than .* value_scale = 1e-09"),
    ],
)
def test_bad_configs_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        network(**changes)
