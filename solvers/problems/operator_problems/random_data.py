"""Random functions of samples, evaluated one at a time: what a sample is does not depend on its batch."""

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import Dirichlet, Neumann
from solvers.grids import Grid, NodeGrid
from solvers.problems.operator_problems.problem import Beyond
from solvers.random_fields import GaussianField, Matern

LEVEL = (Neumann(gradient=0.0), Neumann(gradient=0.0))
ZERO = (Dirichlet(0.0), Dirichlet(0.0))


def random_field(
    deviation: float, inverse_length: float, modes: int, *boundary: tuple, smoothness: float = 3.0
) -> GaussianField:
    """A Gaussian field on the unit box whose variance has the mean ``deviation``² over the box.

    Args:
        deviation: Root of the mean variance.
        inverse_length: τ of the Matérn spectrum.
        modes: Half waves along every axis.
        *boundary: One pair per axis, ``LEVEL`` (cosines) or ``ZERO`` (sines).
        smoothness: α of the Matérn spectrum.
    """

    def make(amplitude: float) -> GaussianField:
        spectrum = Matern(amplitude=amplitude, inverse_length=inverse_length, smoothness=smoothness)
        d = len(boundary)
        return GaussianField(low=(0.0,) * d, high=(1.0,) * d, spectrum=spectrum, boundary=boundary, modes=modes)

    return make(deviation / float(make(1.0).variances.sum().sqrt()))


def draw_field(field: GaussianField, random: np.random.Generator) -> Tensor:
    """Coefficients of one draw ``(*shape)``."""
    return field.variances.sqrt() * torch.from_numpy(random.standard_normal(field.shape))


def draw_uniform(low: float, high: float, random: np.random.Generator, *shape: int) -> Tensor:
    """Independent uniform numbers ``(*shape)``."""
    return torch.from_numpy(np.asarray(random.uniform(low, high, shape)))


_DEVIATIONS = 3.0  # what counts as the largest value of a Gaussian field in training
_POINTS = 257


def uniform_beyond(value: Tensor, largest: float, beyond: Beyond) -> Tensor:
    """Numbers in [−largest, largest], moved outwards into ``beyond`` times this with their signs, in their order."""
    if beyond is None:
        return value
    low, high = beyond
    return torch.where(value < 0, -1.0, 1.0) * (low * largest + (high - low) * value.abs())


def field_beyond(field: GaussianField, coefficients: Tensor, beyond: Beyond, random: np.random.Generator) -> Tensor:
    """Coefficients of one draw on the unit interval, its largest value scaled into ``beyond`` times 3 deviations."""
    if beyond is None:
        return coefficients
    largest = field.values(coefficients, NodeGrid(0.0, 1.0, _POINTS)).abs().max()
    deviation = field.variances.sum().sqrt()
    return coefficients * (random.uniform(*beyond) * _DEVIATIONS * deviation / largest)


def field_values(field: GaussianField, coefficients: Tensor, grid: Grid) -> Tensor:
    """Values ``(b, *space)`` of draws ``(b, *shape)``: matrix products of one sample round the same in any batch."""
    return torch.stack([field.values(one, grid) for one in coefficients])
