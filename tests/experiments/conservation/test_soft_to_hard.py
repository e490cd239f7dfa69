"""The law from soft to hard: its ends are the bare prediction and the exact law."""

import numpy as np
import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator.operators import DiagLinearOperator

from experiments.conservation import soft_to_hard
from experiments.conservation.cases import Target, laws_of
from experiments.conservation.methods import Distribution, conserved
from probconserv import scores
from tests.experiments.conservation.tiny import case


def prediction(target: Target) -> Distribution:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 5, len(target.grid.points), generator=generator, dtype=torch.float64)
    return MultivariateNormal(target.truth() + 0.1 * noise, DiagLinearOperator(torch.full_like(noise, 0.01)))


def test_the_ends_are_the_exact_law_and_the_bare_prediction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soft_to_hard, "DEVIATIONS", (1e6, 0.0))
    target = Target(case())
    prior, laws, truth = prediction(target), laws_of(target), target.truth()[0]
    arrays = soft_to_hard.sweep(prior, laws, truth)
    for index, expected in enumerate((prior, conserved(prior, laws))):
        assert torch.isclose(arrays["soft_MSE"][index], scores.mse(truth, expected.mean[0]).mean(), rtol=1e-9)
        likelihood = scores.log_likelihood(truth, expected.mean[0], expected.variance[0]).mean()
        assert torch.isclose(arrays["soft_LL"][index], likelihood, rtol=1e-9)
    assert arrays["soft_CE"][1] < 1e-14 < arrays["soft_CE"][0]


def test_the_residual_shrinks_as_the_update_says() -> None:
    """What is left of the residual is σ²/(G Σ Gᵀ + σ²) of it, for every function alike."""
    target = Target(case())
    prior, laws = prediction(target), laws_of(target)
    arrays = soft_to_hard.sweep(prior, laws, target.truth()[0])
    before = float(laws.exact.residual(prior.mean).abs().mean())
    spread = 0.01 * float(laws.exact.G.square().sum())
    sigma = np.array(soft_to_hard.DEVIATIONS)
    np.testing.assert_allclose(arrays["soft_CE"], before * sigma**2 / (spread + sigma**2), rtol=1e-9, atol=1e-15)


def test_the_figure_has_a_point_per_deviation() -> None:
    arrays = {f"soft_{name}": np.linspace(1.0, 2.0, len(soft_to_hard.DEVIATIONS)) for name in soft_to_hard.PANELS}
    axes = soft_to_hard.draw(arrays, "title").axes
    assert [len(panel.lines[0].get_xdata()) for panel in axes] == 3 * [len(soft_to_hard.DEVIATIONS) - 1]
    assert [len(panel.lines) for panel in axes] == [2, 2, 1]
