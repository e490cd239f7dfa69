"""Regression on principal components: against closed forms and scikit-learn's own regressions."""

from itertools import product

import numpy as np
import pytest
import torch
from sklearn.gaussian_process.kernels import Matern
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import Ridge

from boon import relative_l2
from experiments.boundary.baselines.layout import Sensors
from experiments.boundary.baselines.pca import PCARegression, Samples, fit
from experiments.boundary.baselines.regressions import Components, Kernel, Linear, Polynomial
from experiments.errors import InvalidArgumentError

NODES, SENSORS = 9, Sensors(space=(9,), constant=(None, 0))
X = torch.linspace(0, 1, NODES, dtype=torch.float64)
SHAPES = torch.stack([X, X.square(), (3 * X).sin()])
RNG = np.random.default_rng(0)


def samples(count: int, quadratic: float, dtype: torch.dtype = torch.float64, seed: int = 0) -> Samples:
    """Fields with three coefficients c and one datum g; outputs c A + g x + q (c_1² − c_1 c_2) x² in two channels."""
    generator = torch.Generator().manual_seed(seed)
    c, g = (torch.rand(count, size, generator=generator, dtype=torch.float64) for size in (3, 1))
    bent = quadratic * (c[:, :1].square() - c[:, :1] * c[:, 1:2])
    u = c @ SHAPES.flip(0) + g * X + bent * X.square()
    return Samples(*(torch.stack(pair, 1).to(dtype) for pair in ((c @ SHAPES, g.expand(-1, NODES)), (u, 50 * u.cos()))))


def first_channel(chosen: Samples) -> Samples:
    return Samples(chosen.inputs, chosen.outputs[:, :1])


def error(model: PCARegression, test: Samples) -> float:
    return float(relative_l2(model(test.inputs).double(), test.outputs.double()))


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-10), (torch.float32, 2e-6)])
def test_a_linear_map_is_exact(dtype: torch.dtype, bound: float) -> None:
    """Bounds: a ridge of 1e-15 or rounding of a few digits; float32 rounding, times ten as shapes are alike."""
    sets = [first_channel(samples(count, 0.0, dtype, seed)) for seed, count in enumerate((20, 8, 8))]
    model, ranked = fit(SENSORS, sets[0], sets[1])
    assert error(model, sets[2]) < bound
    assert model(sets[2].inputs).dtype == dtype
    assert sorted(type(trial.regression).__name__ for trial in ranked) == ["Kernel", "Linear", "Polynomial"]
    assert ranked[0].error <= ranked[1].error <= ranked[2].error
    assert len(model.output_directions) <= 4, "the map has four numbers"


def test_a_quadratic_map_takes_a_polynomial_and_any_smooth_one_a_kernel() -> None:
    sets = [samples(count, 1.0, seed=seed) for seed, count in enumerate((60, 8, 8))]
    model, ranked = fit(SENSORS, first_channel(sets[0]), first_channel(sets[1]))
    assert isinstance(ranked[0].regression, Polynomial)
    assert error(model, first_channel(sets[2])) < 1e-8  # coefficients of the quadratic form, penalised by 1e-15
    errors = {type(trial.regression): trial.error for trial in ranked}
    assert errors[Kernel] < errors[Linear] / 10
    model, ranked = fit(SENSORS, *sets[:2])
    assert error(model, sets[2]) == pytest.approx(ranked[0].error, rel=2.0), "of the size seen on the validation set"
    assert ranked[0].error < 0.02


def test_settings_are_compared_after_the_boundary_is_finished() -> None:
    """Where all that is predicted is overwritten by the truth, every regression is equally good."""
    training, validation = (first_channel(samples(8, 1.0, seed=seed)) for seed in (0, 1))
    _, ranked = fit(SENSORS, training, validation, lambda _: validation.outputs)
    assert {(trial.error, trial.finished) for trial in ranked} == {(0.0, True)}
    _, ranked = fit(SENSORS, training, validation, torch.zeros_like)
    assert not any(trial.finished for trial in ranked), "only where it helps"


def test_another_grid_is_interpolated_linearly_there_and_back() -> None:
    training, validation = (first_channel(samples(20, 0.0, seed=seed)) for seed in (0, 1))
    model, _ = fit(SENSORS, training, validation)
    fine = torch.nn.functional.interpolate(validation.inputs, 2 * NODES - 1, mode="linear", align_corners=True)
    u, expected = model(fine), model(validation.inputs)
    assert torch.allclose(u[..., ::2], expected, rtol=0, atol=1e-12)
    assert torch.allclose(u[..., 1::2], (expected[..., 1:] + expected[..., :-1]) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "regression",
    [
        Linear(inputs=3),
        Polynomial(inputs=4, degree=3, leading=2),
        *(
            Kernel(inputs=3, smoothness=smoothness, length=0.7, whitened=whitened)
            for smoothness, whitened in product((2.5, None), (True, False))
        ),
    ],
)
def test_solutions_are_those_of_scikit_learn(regression: Linear | Polynomial | Kernel) -> None:
    z, targets, new = RNG.normal(size=(12, 5)), RNG.normal(size=(12, 2)), RNG.normal(size=(4, 5))
    z, new = z[:, : regression.inputs], new[:, : regression.inputs]
    deviation, penalty = np.arange(1.0, 6.0)[: regression.inputs], 0.03
    known = deviation, regression.centres(z)
    solutions = regression.solve(regression.features(z, *known), targets)
    predicted = regression.features(new, *known) @ (solutions.vectors @ solutions.weighted(penalty))
    if isinstance(regression, Kernel):
        unit = deviation * 3**0.5 if regression.whitened else 1.0
        kernel = Matern(length_scale=0.7, nu=regression.smoothness or np.inf)
        model = KernelRidge(alpha=penalty, kernel=lambda *pair: kernel(*np.atleast_2d(*pair)).item())
        expected = model.fit(z / unit, targets).predict(new / unit)
    else:
        features, asked = (_monomials(each, regression, deviation) for each in (z, new))
        expected = Ridge(alpha=penalty, fit_intercept=False).fit(features, targets).predict(asked)
    assert np.allclose(predicted, expected, rtol=0, atol=1e-11)  # of order 1, condition below 1e4


def _monomials(z: np.ndarray, regression: Linear | Polynomial, deviation: np.ndarray) -> np.ndarray:
    if isinstance(regression, Linear):
        return z
    a, b = (z[:, :2] / deviation[:2]).T
    powers = [a**i * b**j for i, j in product(range(4), range(4)) if i + j <= 3]
    return np.stack([*powers, z[:, 2], z[:, 3]], axis=1)


def test_components_scale_blocks_and_keep_their_order() -> None:
    rows = np.concatenate([RNG.normal(size=(30, 4)), 1e6 * RNG.normal(size=(30, 3)), np.full((30, 2), 7.0)], axis=1)
    components = Components.fit(rows, (4, 3, 2))
    z = components.compress(rows)
    assert np.allclose(components.expand(z), rows, rtol=0, atol=1e-8)  # 1e6 times a few roundings
    assert np.allclose(z.std(axis=0, ddof=1), components.deviation)
    assert (np.diff(components.deviation) <= 0).all()
    assert (len(components), len(components.leading(2))) == (7, 2)
    assert np.allclose(components.deviation**2 @ np.ones(7), 30 / 29 * 7), "one unit of variance a number"
    assert np.array_equal(components.scale[-2:], [1.0, 1.0])
    shorter = components.leading(2)
    assert np.allclose(shorter.compress(shorter.expand(z[:, :2])), z[:, :2])


def test_what_cannot_be_fitted_is_refused() -> None:
    training = samples(4, 0.0)
    with pytest.raises(InvalidArgumentError, match=r"two or more training samples.*got training fields \(1, 2, 9\)"):
        fit(SENSORS, Samples(*(each[:1] for each in training)), training)
    other = Samples(*(each[..., 1:] for each in training))
    with pytest.raises(InvalidArgumentError, match=r"on \(9,\) nodes, got validation fields \(4, 2, 8\)"):
        fit(SENSORS, training, other)
    model, _ = fit(SENSORS, training, training)
    with pytest.raises(InvalidArgumentError, match=r"must be \(batch, 2, \*space\) with 1 axes, got \(4, 1, 9\)"):
        model(training.inputs[:, :1])
