"""The clean field under linear rows that all draws share, in Karhunen–Loève coefficients.

For fields u = m + B z + e with e ~ N(0, RᵀR + D) and rows G u = b with noise σ², with

    A = G B,   c = b − G m,   M = G (RᵀR + D) Gᵀ + σ² I,   H = Aᵀ M⁻¹ A,

rows observe B z through the correlated part of the field that the coefficients leave out, and the mean of z₁ given
z_t and the rows is

    ẑ₁ + (V_t⁻¹ + H)⁻¹ (Aᵀ M⁻¹ c − H ẑ₁),

which costs r² per draw however many rows and points there are. S = diag(s) holds the standard deviations of the
coefficients: an eigenvalue of S H S says how much the rows add to the data.

V_t is the covariance of z₁ ~ N(0, S²) given z_t. For any data that covariance is (Tweedie's formula, second order)

    C_t(z) = (1 − t)²/t · ∂ẑ₁/∂z,   ẑ₁ = z + (1 − t) v(z, t).

Data on a curved set of few dimensions have a C_t along its tangents that turns from draw to draw; the covariance of
Gaussian data leads away from it. Rows inform few directions V, so C_t V costs as many products with the Jacobian.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vmap

from probconserv._linalg.innovation import innovation_of
from probconserv._linalg.rows import as_sparse_rows
from probconserv.constraints import LinearConstraint
from probconserv.surrogates.flow.latent import KarhunenLoeve
from probconserv.surrogates.flow.steps import Flow

INFORMED = 1e-2  # least information in a direction, relative to that of the data
_START = 0.02  # time before which z says too little of z₁ for a Jacobian, and C_t is V_t up to O(t)
_TRUST = 0.01  # part of V_t that is added to C_t, for what the network does not know of the data
Correction = Callable[[Tensor, float], Tensor]
"""(clean estimate ``(s, *state)``, t) → the same under the law."""


@dataclass(frozen=True, eq=False)
class Information:
    """H = V diag(h) Vᵀ with S V orthogonal, and what the rows say along V."""

    values: Float[Tensor, " r"]  # h, ascending and not negative
    vectors: Float[Tensor, "r r"]
    goal: Float[Tensor, "*s r"]  # y with Aᵀ M⁻¹ c = V y, of every draw or of all


def information_of(latent: KarhunenLoeve, law: LinearConstraint) -> Information:
    """The information in rows that are the same for all draws.

    Raises:
        DependentConstraintsError: If the rows are redundant.
    """
    rows = as_sparse_rows(law.G)
    functional, rest = rows.functional(latent.basis), rows.functional(latent.rest)
    independent = innovation_of(rows, latent.noise_variance, law.noise, checked=True)
    solved, solved_rest = independent.solve(functional), independent.solve(rest)
    inner = torch.eye(len(rest), dtype=torch.float64) + rest @ solved_rest.mT
    solved = solved - (torch.cholesky_solve(solved_rest @ functional.mT, torch.linalg.cholesky(inner))).mT @ solved_rest
    spread = latent.spread
    values, vectors = torch.linalg.eigh(spread[:, None] * (functional @ solved.mT) * spread)
    goal = -law.residual(latent.mean) @ solved.mT @ (spread[:, None] * vectors)
    return Information(values.clamp_min(0.0), vectors / spread[:, None], goal)


def clean_correction(latent: KarhunenLoeve, law: LinearConstraint) -> Correction:
    """The mean of the clean coefficients given z_t and the rows, for Gaussian data."""
    information = information_of(latent, law)
    values, vectors = information.values, information.vectors

    def correct(clean: Tensor, t: float) -> Tensor:
        along = latent.clean_variances(t)[:, None] * vectors
        inner = torch.eye(len(values), dtype=torch.float64) + values[:, None] * (vectors.mT @ along)
        pull = information.goal - (clean @ vectors) * values
        return clean + torch.linalg.solve(inner, pull.mT).mT @ along.mT

    return correct


def identity_correction(latent: KarhunenLoeve, law: LinearConstraint) -> Correction:
    """The projection of the field in the identity metric."""
    rows = as_sparse_rows(law.G)
    dual = latent.basis / latent.basis.square().sum(dim=-1, keepdim=True)
    metric = torch.ones(latent.points, dtype=torch.float64)
    solved = innovation_of(rows, metric, law.noise, checked=True).solve(rows.functional(dual))
    goal = -law.residual(latent.mean) @ solved.mT
    response = rows.functional(latent.basis) @ solved.mT

    def correct(clean: Tensor, t: float) -> Tensor:  # noqa: ARG001 - the metric is the same at all times
        return clean + goal - clean @ response

    return correct


def local_correction(flow: Flow, information: Information) -> Callable[[Tensor, Tensor, float], Tensor]:
    """The function from ẑ₁ ``(s, r)``, z, t to E[z₁ | z_t, rows] for N(ẑ₁, C_t + 0.01 V_t), V_t for Gaussian data."""
    informed = information.values > INFORMED
    if not bool(informed.any()):
        return lambda clean, *_: clean
    values, vectors = information.values[informed], information.vectors[:, informed]
    target = information.goal[..., informed] / values
    latent = flow.latent
    assert isinstance(latent, KarhunenLoeve)
    with warnings.catch_warnings():  # torch loads derivatives of its own at the first product, by a deprecated call
        warnings.simplefilter("ignore", DeprecationWarning)
        jvp(torch.sin, (target,), (target,))

    def correct(clean: Tensor, z: Tensor, t: float) -> Tensor:
        gaussian = latent.clean_variances(t)[:, None] * vectors
        along, observed = gaussian.expand(len(z), *vectors.shape), (vectors.mT @ gaussian).expand(len(z), -1, -1)
        if t >= _START:
            local, inner = _positive_part((1 - t) ** 2 / t * _jacobian_times(flow, z, t, vectors), vectors)
            along, observed = local + _TRUST * along, inner + _TRUST * observed
        pull = torch.linalg.solve(observed + torch.diag(1 / values), (target - clean @ vectors)[..., None])
        return clean + (along @ pull)[..., 0]

    return correct


def _jacobian_times(flow: Flow, z: Tensor, t: float, vectors: Tensor) -> Tensor:
    """∂ẑ₁/∂z V ``(s, r, k)``."""

    def along(direction: Tensor) -> Tensor:
        def clean(point: Tensor) -> Tensor:
            return point + (1 - t) * flow.evaluate(point, t)

        return jvp(clean, (z,), (direction.expand_as(z),))[1]

    return vmap(along, out_dims=-1)(vectors.mT)


def _positive_part(product: Tensor, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """C V and Vᵀ C V without the directions in which the network's C is negative."""
    inner = vectors.mT @ product
    values, turned = torch.linalg.eigh(0.5 * (inner + inner.mT))
    positive = (values > 0).to(values)[..., None, :]
    return (product @ turned * positive) @ turned.mT, turned * (values[..., None, :] * positive) @ turned.mT
