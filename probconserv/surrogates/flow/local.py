"""The clean field under linear rows with its local covariance, from the Jacobian of the velocity.

For noise z₀ ~ N(0, I) the covariance of z₁ given z_t is, whatever the data (Tweedie's formula, second order),

    C_t(z) = (1 − t)²/t · ∂ẑ₁/∂z,   ẑ₁ = z + (1 − t) v(z, t).

Data on a curved set of few dimensions have a C_t along its tangents that turns from draw to draw; the covariance of
Gaussian data leads away from it. Rows inform few directions V, so C_t V costs as many products with the Jacobian.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.func import jvp, vmap

from probconserv.surrogates.flow.information import Information
from probconserv.surrogates.flow.latent import KarhunenLoeve, Latent

_INFORMED = 1e-2  # least information in a direction, relative to that of the data
_START = 0.02  # time before which z says too little of z₁ for a Jacobian, and C_t is V_t up to O(t)
_TRUST = 0.01  # part of V_t that is added to C_t, for what the network does not know of the data


class Velocity(Protocol):
    """What the local estimate needs of a model."""

    latent: Latent

    def evaluate(self, z: Tensor, t: float, inputs: Tensor | None) -> Tensor:
        """dz/dt at ``(s, r)``, float64, by operations that ``torch.func`` differentiates."""
        ...


def local_correction(
    flow: Velocity, information: Information, inputs: Tensor | None
) -> Callable[[Tensor, Tensor, float], Tensor]:
    """The function from ẑ₁ ``(s, r)``, z and t to E[z₁ | z_t, rows] for N(ẑ₁, C_t + 0.01 V_t), V_t for Gaussian data.

    Args:
        flow: The model.
        information: What the rows say.
        inputs: Parameters of a conditional flow.
    """
    informed = information.values > _INFORMED
    if not bool(informed.any()):
        return lambda clean, *_: clean
    values, vectors = information.values[informed], information.vectors[:, informed]
    target = information.goal[..., informed] / values
    latent = flow.latent
    assert isinstance(latent, KarhunenLoeve)

    def correct(clean: Tensor, z: Tensor, t: float) -> Tensor:
        gaussian = latent.clean_variances(t)[:, None] * vectors
        along, observed = gaussian.expand(len(z), *vectors.shape), (vectors.mT @ gaussian).expand(len(z), -1, -1)
        if t >= _START:
            local, inner = _positive_part((1 - t) ** 2 / t * _jacobian_times(flow, z, t, inputs, vectors), vectors)
            along, observed = local + _TRUST * along, inner + _TRUST * observed
        pull = torch.linalg.solve(observed + torch.diag(1 / values), (target - clean @ vectors)[..., None])
        return clean + (along @ pull)[..., 0]

    return correct


def _jacobian_times(flow: Velocity, z: Tensor, t: float, inputs: Tensor | None, vectors: Tensor) -> Tensor:
    """∂ẑ₁/∂z V ``(s, r, k)``."""

    def along(direction: Tensor) -> Tensor:
        def clean(point: Tensor) -> Tensor:
            return point + (1 - t) * flow.evaluate(point, t, inputs)

        return jvp(clean, (z,), (direction.expand_as(z),))[1]

    return vmap(along, out_dims=-1)(vectors.mT)


def _positive_part(product: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """C V and Vᵀ C V without the directions in which the network's C is negative."""
    inner = vectors.mT @ product
    values, turned = torch.linalg.eigh(0.5 * (inner + inner.mT))
    kept = (values > 0).to(values)
    return (product @ turned * kept[..., None, :]) @ turned.mT, turned * (values * kept)[..., None, :] @ turned.mT
