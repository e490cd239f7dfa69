"""Random functions of samples, evaluated one at a time: what a sample is does not depend on its batch."""

import numpy as np
import torch
from torch import Tensor

from solvers.finite_volume.boundary import Dirichlet, Neumann
from solvers.finite_volume.grid import Grid
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


def field_values(field: GaussianField, coefficients: Tensor, grid: Grid) -> Tensor:
    """Values ``(b, *space)`` of draws ``(b, *shape)``: matrix products of one sample round the same in any batch."""
    return torch.stack([field.values(one, grid) for one in coefficients])
