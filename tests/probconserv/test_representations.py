"""What predictions, laws and models print: one line that says what they are, of any size."""

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from probconserv import (
    Context,
    EmpiricalGP,
    GPSurrogate,
    LinearConstraint,
    Mixture,
    NonNegative,
    condition,
    fit_covariance,
    integral,
    truncate,
)
from probconserv.fields import FieldLayout
from probconserv.fields.prediction import FieldPrediction
from probconserv.surrogates.flow import KarhunenLoeve
from solvers import NodeGrid

GRID = NodeGrid(0.0, 1.0, 17)
PRIOR = Normal(torch.ones(3, 17).double(), torch.ones(3, 17).double())
FUNCTIONS = torch.randn(5, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TOTAL = integral(GRID, torch.ones(3))
X = torch.linspace(0, 1, 17, dtype=torch.float64)
REPRESENTATIONS = [
    (condition(PRIOR, NonNegative()), "Projected(batch_shape=(3,), event_shape=(17,))"),
    (truncate(PRIOR, NonNegative()), "Truncated(batch_shape=(3,), event_shape=(17,))"),
    (Mixture(PRIOR), "Mixture(3 × Normal, batch_shape=(), event_shape=(17,))"),
    (
        condition(Mixture(PRIOR), NonNegative(), keep_weights=True),
        "Mixture(3 × Projected, batch_shape=(), event_shape=(17,))",
    ),
    (
        FieldPrediction(truncate(PRIOR, NonNegative()), FieldLayout(channels=1, shape=(17,))),
        "FieldPrediction(Truncated(batch_shape=(3,), event_shape=(17,)), "
        "FieldLayout(channels=1, shape=(17,), time_axis=None, joint_time=False))",
    ),
    (TOTAL, "LinearConstraint(1 exact row on 17 values, batch_shape=(3,))"),
    (
        LinearConstraint(torch.eye(17)[:2], torch.ones(2), noise_variance=torch.tensor([0.0, 1.0])),
        "LinearConstraint(2 noisy rows on 17 values, batch_shape=())",
    ),
    (
        fit_covariance(FUNCTIONS, shrinkage=0.5),
        "FittedCovariance(covariance=(17, 17), shrinkage=0.5, samples=5)",
    ),
    (EmpiricalGP(FUNCTIONS, (X,)), "EmpiricalGP(5 functions on (17,), bandwidth=0.6)"),
    (
        EmpiricalGP(FUNCTIONS, (X,), 0.5, effective=3),
        "EmpiricalGP(5 functions on (17,), bandwidth=0.5, effective=3)",
    ),
    (EmpiricalGP(FUNCTIONS, (X,), rank=2), "EmpiricalGP(5 functions on (17,), bandwidth=0.6, rank=2)"),
    (GPSurrogate(), "GPSurrogate(smoothness=0.5, not fitted)"),
    (KarhunenLoeve.of(FUNCTIONS, 2), "KarhunenLoeve(shape=(17,), state_shape=(2,))"),
]


@pytest.mark.parametrize(("value", "expected"), REPRESENTATIONS)
def test_one_line_says_what_it_is(value: object, expected: str) -> None:
    assert repr(value) == expected


def test_a_fitted_process_says_what_it_was_fitted_to() -> None:
    process = GPSurrogate().fit(Context(X[None, :, None], FUNCTIONS[:1]))
    assert repr(process).splitlines()[0].startswith("GPSurrogate(")
    assert process.extra_repr() == "smoothness=0.5, fitted to (1, 17) values"
    assert isinstance(process, nn.Module)


def test_a_law_is_printed_where_its_values_cannot_be_read() -> None:
    def total(weights: torch.Tensor) -> torch.Tensor:
        law = LinearConstraint(weights[None], weights.new_ones(1), noise_variance=weights[:1])
        assert "1 row on 3 values" in repr(law)
        return law.rows.sum()

    assert torch.func.vmap(total)(torch.ones(2, 3).double()).shape == (2,)
