"""Derivatives under structured rows: every one is that under the same rows as a matrix, or an error."""

from dataclasses import replace

import pytest
import torch
from torch.distributions import Normal

from probconserv import InvalidArgumentError, LinearConstraint, condition, from_samples
from probconserv._linalg.rows import as_sparse_rows
from tests.probconserv.update.structured_rows import ROWS, make_rows, take_large_paths

double = torch.float64
OVERLAP = ("overlapping", "stacked")
OUTPUTS = {
    "mean": lambda posterior, weights: posterior.mean * weights[0],
    "variance": lambda posterior, weights: posterior.variance * weights[0],
    "draws": lambda posterior, weights: (
        posterior.rsample(base_samples=weights[:5, :1].expand(5, *posterior.base_sample_shape)) * weights[:5]
    ),
    "covariance": lambda posterior, weights: posterior.covariance_matrix * weights,
    "product": lambda posterior, weights: (posterior.lazy_covariance_matrix @ weights[:, :3]) * weights[:, 3:6],
    "part": lambda posterior, weights: posterior[:7].covariance_matrix * weights[:7, :7],
    "evidence": lambda posterior, weights: posterior.log_evidence,  # noqa: ARG005
}


def random(*shape, seed):
    return torch.randn(*shape, dtype=double, generator=torch.Generator().manual_seed(seed))


def derivatives(rows, members, output, dtype):
    """Of a number made of the output, in all that it depends on."""
    k = rows.shape[-2]
    leaves = {
        "mean": random(24, seed=0).to(dtype),
        "deviation": (random(24, seed=1).abs() + 0.5).to(dtype),
        "noise of the law": random(k, seed=2).abs() + 0.1,
        "factor": torch.tensor(1.3, dtype=double),
    }
    leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
    mean, deviation, noise, factor = leaves.values()
    scaled = replace(rows, entries=rows.entries * factor) if hasattr(rows, "entries") else rows * factor
    prior = Normal(mean, deviation)
    if members:
        fields = mean + deviation * random(30, 24, seed=3).to(dtype)
        prior = from_samples(fields, deviation.square())
    posterior = condition(prior, LinearConstraint(scaled, random(k, seed=4), noise))
    number = OUTPUTS[output](posterior, random(24, 24, seed=5).to(dtype)).to(double).sum()
    return dict(zip(leaves, torch.autograd.grad(number, list(leaves.values()), allow_unused=True), strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("members", [False, True])
@pytest.mark.parametrize("kind", ROWS)
def test_derivatives_are_those_under_dense_rows(kind, members, output, dtype, monkeypatch):
    rows = make_rows(kind, torch.Generator().manual_seed(0))
    rows = rows if hasattr(rows, "entries") else as_sparse_rows(rows)
    expected = derivatives(rows.to_dense(), members, output, dtype)
    take_large_paths(monkeypatch)
    without = ("variance", "covariance", "product", "part", *(() if members else ("evidence",)))
    if kind in OVERLAP and output in without:
        with pytest.raises(InvalidArgumentError, match="no derivatives in the prior variance, the rows or their noise"):
            derivatives(rows, members, output, dtype)
        return
    actual = derivatives(rows, members, output, dtype)
    exact = 1e-9 if dtype == torch.float64 else 1e-4
    for name, value in expected.items():
        if value is None:
            assert actual[name] is None
            continue
        assert actual[name] is not None, f"the derivative in the {name} is lost"
        scale = float(value.abs().max())
        torch.testing.assert_close(actual[name], value, rtol=exact, atol=exact * max(scale, 1.0))


@pytest.mark.parametrize("kind", OVERLAP)
@pytest.mark.parametrize("output", ["variance", "covariance"])
def test_overlapping_rows_refuse_derivatives_in_their_noise_alone(kind, output, monkeypatch):
    rows = make_rows(kind, torch.Generator().manual_seed(0))
    take_large_paths(monkeypatch)
    noise = torch.full((rows.shape[-2],), 0.1, dtype=double, requires_grad=True)
    prior = Normal(torch.zeros(24, dtype=double), torch.ones(24, dtype=double))
    posterior = condition(prior, LinearConstraint(rows, torch.zeros(len(noise), dtype=double), noise))
    with pytest.raises(InvalidArgumentError, match="or their noise"):
        OUTPUTS[output](posterior, torch.ones(24, 24, dtype=double))


@pytest.mark.parametrize("output", [name for name in OUTPUTS if name != "mean"])
@pytest.mark.parametrize("members", [False, True])
@pytest.mark.parametrize("kind", ["blocks", "dense"])
def test_a_look_without_gradients_does_not_cost_the_derivatives_of_later_results(kind, members, output, monkeypatch):
    blocks = make_rows("blocks", torch.Generator())
    rows = blocks.to_dense() if kind == "dense" else blocks
    expected = derivatives(rows, members, output, double)
    look = OUTPUTS[output]

    def twice(posterior, weights):
        with torch.no_grad():
            assert not look(posterior, weights).requires_grad
        return look(posterior, weights)

    monkeypatch.setitem(OUTPUTS, output, twice)
    for name, value in derivatives(rows, members, output, double).items():
        assert (value is None) == (expected[name] is None)
        assert value is None or torch.allclose(value, expected[name], rtol=1e-12, atol=1e-12)
