"""The clean field under linear rows with its local covariance, from the Jacobian of the velocity.

For noise z₀ ~ N(0, K) the covariance of z₁ given z_t is, whatever the data (Tweedie's formula, second order),

    C_t(z) = (1 − t)²/t · ∂ẑ₁/∂z K,   ẑ₁ = z + (1 − t) v(z, t).

Data on a curved set of few dimensions have a C_t along its tangents that turns from draw to draw; the covariance of
Gaussian data leads away from it. Rows inform few directions V of the Karhunen–Loève coefficients A z, so A C_t Aᵀ V
costs as many products with the Jacobian. A is the unit matrix where the flow works in coefficients, and K too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor
from torch.func import jvp, vmap

from probconserv.surrogates.flow.information import Information
from probconserv.surrogates.flow.latent import FieldLatent, KarhunenLoeve, Latent, variance_given

_INFORMED = 1e-2  # least information in a direction, relative to that of the data
_START = 0.02  # time before which z says too little of z₁ for a Jacobian, and C_t is V_t up to O(t)
_DIFFERENCE = 1e-3  # step of differences relative to the state: rounding of float32 is then 1e-4 of a product
_TRUST = 0.01  # part of V_t that is added to C_t, for what the network does not know of the data


class Velocity(Protocol):
    """What the local estimate needs of a model."""

    latent: Latent

    def evaluate(self, z: Tensor, t: float, inputs: Tensor | None) -> Tensor:
        """dz/dt at ``(s, *state)``, float64, by operations that ``torch.func`` differentiates."""
        ...


@dataclass(frozen=True)
class OwnCoefficients:
    """A = K = I: the flow works in the coefficients."""

    latent: KarhunenLoeve

    @property
    def modes(self) -> KarhunenLoeve:
        return self.latent

    def read(self, z: Tensor) -> Tensor:
        """A z ``(s, r)``."""
        return z

    def add(self, z: Tensor, change: Tensor) -> Tensor:
        """The state with its coefficients changed."""
        return z + change

    def noise_along(self, vectors: Tensor) -> Tensor:
        """(K Aᵀ V)ᵀ ``(k, *state)``."""
        return vectors.mT

    def clean_variances(self, t: float) -> Tensor:
        """Those of A z₁ given z_t for Gaussian data ``(r,)``."""
        return self.latent.clean_variances(t)


@dataclass(frozen=True)
class CoefficientsOfFields:
    """The same for a flow of fields: A = scale B⁺, K = R Rᵀ of its noise."""

    latent: FieldLatent

    @property
    def modes(self) -> KarhunenLoeve:
        return self.latent.modes

    @cached_property
    def _reading(self) -> Tensor:
        """A ``(r, n)``."""
        basis = self.modes.basis
        return self.latent.scale * basis / basis.square().sum(dim=-1, keepdim=True)

    @cached_property
    def _noise(self) -> Tensor:
        """Variances of A z₀ ``(r,)``."""
        root = self.latent.noise_root
        return (self._reading if root is None else self._reading @ root).square().sum(dim=-1)

    def read(self, z: Tensor) -> Tensor:
        return z.flatten(1) @ self._reading.mT

    def add(self, z: Tensor, change: Tensor) -> Tensor:
        return z + (change @ self.modes.basis / self.latent.scale).reshape(z.shape)

    def noise_along(self, vectors: Tensor) -> Tensor:
        directions, root = vectors.mT @ self._reading, self.latent.noise_root
        directions = directions if root is None else directions @ root @ root.mT
        return directions.reshape(-1, *self.latent.state_shape)

    def clean_variances(self, t: float) -> Tensor:
        return variance_given(self.modes.spread.square(), self._noise, t)


Coefficients = OwnCoefficients | CoefficientsOfFields


def coefficients_of(latent: Latent) -> Coefficients | None:
    """The Karhunen–Loève coefficients of a state; None where there are none."""
    if isinstance(latent, KarhunenLoeve):
        return OwnCoefficients(latent)
    return CoefficientsOfFields(latent) if isinstance(latent, FieldLatent) else None


def local_correction(
    flow: Velocity, coefficients: Coefficients, information: Information, inputs: Tensor | None
) -> Callable[[Tensor, Tensor, float], Tensor]:
    """The function from ẑ₁ ``(s, *state)``, z and t to E[z₁ | z_t, rows] for A z₁ ~ N(A ẑ₁, A C_t Aᵀ + 0.01 V_t), V_t
    for Gaussian data.

    Args:
        flow: The model.
        coefficients: Those of its states.
        information: What the rows say of them.
        inputs: Parameters of a conditional flow.
    """
    informed = information.values > _INFORMED
    if not bool(informed.any()):
        return lambda clean, *_: clean
    values, vectors = information.values[informed], information.vectors[:, informed]
    target = information.goal[..., informed] / values
    directions = coefficients.noise_along(vectors)

    def correct(clean: Tensor, z: Tensor, t: float) -> Tensor:
        gaussian = coefficients.clean_variances(t)[:, None] * vectors
        along, observed = gaussian.expand(len(z), *vectors.shape), (vectors.mT @ gaussian).expand(len(z), -1, -1)
        if t >= _START:
            product = _jacobian_times(flow, z, t, inputs, directions)
            product = torch.stack([coefficients.read(each) for each in product], dim=-1)
            local, inner = _positive_part((1 - t) ** 2 / t * product, vectors)
            along, observed = local + _TRUST * along, inner + _TRUST * observed
        missing = target - coefficients.read(clean) @ vectors
        pull = torch.linalg.solve(observed + torch.diag(1 / values), missing[..., None])
        return coefficients.add(clean, (along @ pull)[..., 0])

    return correct


def _jacobian_times(flow: Velocity, z: Tensor, t: float, inputs: Tensor | None, directions: Tensor) -> Tensor:
    """∂ẑ₁/∂z along each of the directions, ``(k, s, *state)``.

    Where a state is a field, by central differences: forward-mode differentiation of an FNO costs five times as much.
    """

    def clean(point: Tensor) -> Tensor:
        return point + (1 - t) * flow.evaluate(point, t, inputs)

    def along(direction: Tensor) -> Tensor:
        return jvp(clean, (z,), (direction.expand_as(z),))[1]

    def difference(direction: Tensor) -> Tensor:
        step = _DIFFERENCE * z.square().mean().sqrt() / direction.square().mean().sqrt()
        return (clean(z + step * direction) - clean(z - step * direction)) / (2 * step)

    if z.ndim > 2:
        return torch.stack([difference(direction) for direction in directions])
    return vmap(along)(directions)


def _positive_part(product: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """C V and Vᵀ C V without the directions in which the network's C is negative."""
    inner = vectors.mT @ product
    values, turned = torch.linalg.eigh(0.5 * (inner + inner.mT))
    kept = (values > 0).to(values)
    return (product @ turned * kept[..., None, :]) @ turned.mT, turned * (values * kept)[..., None, :] @ turned.mT
