"""Block means, constraint layers and the regression, against naive restatements."""

import pytest
import torch
from torch import Generator, Tensor

from experiments.observations import downscaling
from experiments.observations.regression import FOLDS, Ridge, left_out, regress, regress_blocks


def field(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Positive fields ``(2, 6, 9)``, and other means of their blocks of 3 × 3."""
    random = torch.rand(2, 6, 9, generator=Generator().manual_seed(0), dtype=torch.float64)
    return (2.0 + random).to(dtype), (2.0 + random[:, :2, :3].flip(0)).to(dtype)


@pytest.mark.parametrize(("dtype", "eps"), [(torch.float64, 2.2e-16), (torch.float32, 1.2e-7)])
def test_layers_are_those_of_harder_and_others_and_meet_the_means(dtype: torch.dtype, eps: float) -> None:
    u, means = field(dtype)
    block, b = u[1, 3:6, 6:9], means[1, 1, 2]
    expected = {
        downscaling.additive: block + (b - block.mean()),
        downscaling.multiplicative: block * b / block.mean(),
        downscaling.softmax: block.exp() * b / block.exp().mean(),
    }
    for layer, values in expected.items():
        fixed = layer(u, means, 3)
        assert torch.allclose(fixed[1, 3:6, 6:9], values, rtol=50 * eps)
        assert ((downscaling.means_of(fixed, 3) - means) / means).abs().max() < 10 * eps


def test_a_softmax_of_large_logits_does_not_overflow() -> None:
    u, means = field()
    shifted = downscaling.softmax(u + 1e4, means, 3)
    assert torch.allclose(shifted, downscaling.softmax(u, means, 3), rtol=1e-10)


def test_interpolation_is_exact_for_a_plane_between_centres() -> None:
    x = torch.arange(16, dtype=torch.float64)
    plane = (0.5 * x[:, None] - 2.0 * x)[None]
    found = downscaling.bilinear(downscaling.means_of(plane, 4), 4)
    inner = (slice(None), slice(2, 14), slice(2, 14))
    assert torch.allclose(found[inner], plane[inner], rtol=0, atol=1e-13)


def test_the_regression_is_that_of_least_squares_with_extra_rows() -> None:
    generator = Generator().manual_seed(1)
    X = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    Y = torch.randn(30, 2, generator=generator, dtype=torch.float64)
    fitted, penalty = torch.arange(5, 25), 0.7
    centre, level = X[fitted].mean(dim=0), Y[fitted].mean(dim=0)
    rows = torch.cat([X[fitted] - centre, penalty**0.5 * torch.eye(4, dtype=torch.float64)])
    right = torch.cat([Y[fitted] - level, torch.zeros(4, 2, dtype=torch.float64)])
    weights = torch.linalg.lstsq(rows, right).solution
    assert torch.allclose(regress(X, Y, fitted, penalty), (X - centre) @ weights + level, rtol=1e-12)
    single = regress(X.float(), Y.float(), fitted, penalty)
    assert torch.allclose(single.double(), regress(X, Y, fitted, penalty), atol=1e-5)


def test_blocks_are_regressed_on_what_is_within_reach() -> None:
    generator = Generator().manual_seed(2)
    coarse = torch.randn(20, 4, 4, generator=generator, dtype=torch.float64)
    targets = torch.randn(20, 8, 8, generator=generator, dtype=torch.float64)
    fitted, ridge = torch.arange(20), Ridge(1, 0.1)
    before = regress_blocks(coarse, targets, fitted, ridge)
    moved = coarse.clone()
    moved[:, 2, 2] += torch.randn(20, generator=generator, dtype=torch.float64)
    changed = (regress_blocks(moved, targets, fitted, ridge) != before).any(dim=0)
    near = torch.zeros(1, 4, 4, dtype=torch.bool)
    near[:, 1:4, 1:4] = True
    assert torch.equal(changed, downscaling.spread(near, 2)[0])


def test_what_is_left_out_is_not_fitted_to() -> None:
    generator = Generator().manual_seed(3)
    coarse = torch.randn(12, 2, 2, generator=generator, dtype=torch.float64)
    targets = torch.randn(12, 4, 4, generator=generator, dtype=torch.float64)
    fitted, ridge = torch.arange(12), Ridge(1, 0.1)
    before = left_out(coarse, targets, fitted, ridge)
    targets = targets.clone()
    targets[:2] += 1.0  # the first of six parts
    after = left_out(coarse, targets, fitted, ridge)
    assert FOLDS == 6
    assert torch.equal(after[:2], before[:2])
    assert (after[2:] != before[2:]).any(dim=-1).all()
