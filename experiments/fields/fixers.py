"""What puts the mass of water right after every step: the fixers in use, and the update.

A fixer takes the state of a step ``(basins, 3, rows, columns)``, the learnt correction that is part of it, and the mean
depth ``(basins,)`` that every basin has kept since its start.
"""

from collections.abc import Callable

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator, PsdSumLinearOperator, RootLinearOperator
from scipy.optimize import nnls
from torch import Tensor
from torch.distributions import Normal

from experiments.fields.basins import State
from probconserv import FieldLayout, LinearConstraint, condition_fields

RANK = 20
"""Principal components of the low-rank covariance."""


Fixer = Callable[[State, State, Float[Tensor, " basins"]], State]
"""From a state, the correction in it and the mean depth to the state with its mass."""
Prepared = Callable[[State, State], Fixer]
"""From the errors of single steps, truth − state, and the corrections in these steps to a fixer."""


def nothing(*_: State) -> Fixer:
    """Leaves the state as it is."""
    return lambda state, *_: state


def shift(*_: State) -> Fixer:
    """Adds the same depth everywhere."""
    return lambda state, _, depth: _with_depth(state, state[:, 0] + (depth - mean_depth(state))[:, None, None])


def scale(*_: State) -> Fixer:
    """Multiplies the depth by one factor; momenta stay."""
    return lambda state, _, depth: _with_depth(state, state[:, 0] * (depth / mean_depth(state))[:, None, None])


def diagonal(error: State, _: State) -> Fixer:
    """The update with the mean squared error of every cell on the diagonal of Σ."""
    deviation = error.square().mean(dim=0).sqrt()
    return lambda state, _, depth: _conditioned(Normal(state, deviation.expand_as(state), validate_args=False), depth)


def low_rank(error: State, _: State) -> Fixer:
    """The update with the leading principal components of the errors of depth and momenta, and a diagonal."""
    flat = error.flatten(1) / len(error) ** 0.5
    _, s, V = torch.linalg.svd(flat, full_matrices=False)
    root = V[:RANK].mT * s[:RANK]
    rest = (flat.square().sum(dim=0) - root.square().sum(dim=-1)).clamp_min(0.0)
    sigma = PsdSumLinearOperator(RootLinearOperator(root), DiagLinearOperator(rest))

    def fix(state: State, _: State, depth: Tensor) -> State:
        prior = MultivariateNormal(state.flatten(1), sigma.expand(len(state), *sigma.shape))
        return _conditioned(prior, depth, state)

    return fix


def by_correction(error: State, correction: State) -> Fixer:
    """The update with variances a + b c² of independent errors, c the learnt correction of the cell in this step.

    a, b ≥ 0 are fitted to squared errors, for depth and momenta apart: where the correction is large it is also wrong.
    """
    fitted = [_growth(error[:, channel], correction[:, channel]) for channel in range(3)]
    a, b = (torch.tensor(values, dtype=error.dtype)[:, None, None] for values in zip(*fitted, strict=True))

    def fix(state: State, correction: State, depth: Tensor) -> State:
        deviation = (a + b * correction.square()).sqrt()
        return _conditioned(Normal(state, deviation, validate_args=False), depth)

    return fix


def _with_depth(state: State, depth: Float[Tensor, "basins rows columns"]) -> State:
    return torch.cat([depth[:, None], state[:, 1:]], dim=1)


def mean_depth(state: Float[Tensor, "*batch 3 rows columns"]) -> Float[Tensor, "*batch"]:
    """Mass of water over the area of the basin."""
    return state[..., 0, :, :].mean(dim=(-2, -1))


def mass_law(depth: Float[Tensor, " basins"], rows: int, columns: int) -> LinearConstraint:
    """The mean depth as a law of the whole state; momenta do not enter it."""
    weights = torch.zeros(3, rows, columns, dtype=torch.float64)
    weights[0] = 1.0 / (rows * columns)
    return LinearConstraint(weights.reshape(1, -1), depth[:, None])


def _growth(error: Tensor, correction: Tensor) -> tuple[float, float]:
    """a and b of a variance a + b c², by least squares of squared errors; units as the squares."""
    unit = float(error.square().mean())
    columns = np.stack([np.ones(error.numel()), correction.square().flatten().numpy() / unit], axis=1)
    (a, b), _ = nnls(columns, error.square().flatten().numpy() / unit)
    return a * unit, b


def _conditioned(prior: Normal | MultivariateNormal, depth: Tensor, like: Tensor | None = None) -> State:
    """The mean of a predicted state under its mass; ``like`` has the shape of a state where the prior has not."""
    rows, columns = (prior.mean if like is None else like).shape[-2:]
    layout = FieldLayout(channels=3, shape=(rows, columns))
    return condition_fields(prior, mass_law(depth, rows, columns), layout).mean
