"""A law that reality keeps only roughly: its slope, offset and variance, fitted to cases by their evidence."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.covariance import as_double
from probconserv._linalg.structured import variance_of_rows
from probconserv._linalg.values import as_tensor
from probconserv.constraints import LinearConstraint
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.update import Gaussian, as_multivariate_normal

_STEPS = 80  # halvings of a bracket, and points of the grid that finds one


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedLaw:
    """G u = a b + c + ε, ε ~ N(0, σ²): how a law G u = b was kept in cases that were seen; one number per row.

    Args:
        slope: a ``(k,)``; 1 for a law that is kept on average.
        offset: c ``(k,)``, in the units of b; 0 if none was fitted.
        noise_variance: σ² ``(k,)``, beyond the variances of the observations.
        errors: Standard errors of a, c and σ² ``(k, 3)``.
        covariance: Covariance of a and c ``(k, 2, 2)``.
        log_evidence: Log evidence of σ², slope and offset integrated out over a flat prior ``(k,)``.
    """

    slope: Float[Tensor, " k"]
    offset: Float[Tensor, " k"]
    noise_variance: Float[Tensor, " k"]
    errors: Float[Tensor, "k 3"]
    covariance: Float[Tensor, "k 2 2"]
    log_evidence: Float[Tensor, " k"]

    def corrected(self, law: LinearConstraint) -> LinearConstraint:
        """The law as it is kept: right-hand sides a b + c, with σ² and the errors of a and c as variance.

        ``law`` has the right-hand sides of new cases ``(*batch, k)``; its variance is added.
        """
        if law.b.shape[-1:] != self.slope.shape:
            raise IncompatibleQueryError(
                f"The law was fitted with {len(self.slope)} rows, but this one has {law.b.shape[-1]}; give the same "
                "rows with new right-hand sides."
            )
        terms = torch.stack([law.b, torch.ones_like(law.b)], dim=-1)
        fit = (terms * (self.covariance.to(terms.device) @ terms[..., None])[..., 0]).sum(dim=-1)
        target = self.slope.to(terms.device) * law.b + self.offset.to(terms.device)
        noise = law.noise + self.noise_variance.to(terms.device) + fit
        return LinearConstraint(law.G, target, noise, law.shape)


def fit_law(
    law: LinearConstraint, observations: Gaussian | Float[Tensor, "cases n"], *, offset: bool = True
) -> FittedLaw:
    """How a law is kept in cases that were seen, for predictions of others: ``fit_law(...).corrected(law)``.

        G u_i = a b_i + c + ε_i,   ε_i ~ N(0, σ²)

    a and c by least squares with weights 1/(v_i + σ²), v_i the variances of the observed G u_i; σ² where its evidence,
    with a and c integrated out over a flat prior, is largest (restricted maximum likelihood): without variances v the
    residual sum of squares over cases minus parameters. Every row is fitted by itself.

    Args:
        law: G with the right-hand sides that the law states ``(cases, k)``; its noise_variance counts towards v.
        observations: Observed fields ``(cases, n)``, or predictions of them, whose G Σ Gᵀ counts towards v.
        offset: Whether c is fitted, or 0.

    Raises:
        InvalidArgumentError: If an entry is not finite, there are too few cases, or the right-hand sides do not differ
            between cases, so that slope and offset cannot be told apart.
    """
    values, variance = _observed(law, observations)
    parameters = 2 if offset else 1
    if values.ndim != 2 or len(values) <= parameters:
        raise InvalidArgumentError(
            f"fit_law needs observations (cases, n) of more than {parameters} cases, with right-hand sides (cases, k); "
            f"got {tuple(values.shape[:-1])} cases."
        )
    right = law.b.expand(values.shape).mT  # (k, cases)
    centre = right.mean(dim=1, keepdim=True) if offset else torch.zeros_like(right[:, :1])
    scale = (right - centre).square().mean(dim=1, keepdim=True).sqrt()
    if bool((scale <= 1e-12 * right.abs().amax(dim=1, keepdim=True)).any()):
        raise InvalidArgumentError(
            "The right-hand sides of a row are the same in all cases, so that its slope cannot be told from its "
            "offset; give cases that differ, or offset=False if they are not 0."
        )
    columns = [(right - centre) / scale, torch.ones_like(right)][:parameters]
    fit = _Fit(torch.stack(columns, dim=-1), values.mT, variance.mT)
    noise = _largest(fit, parameters)
    back = torch.zeros(len(scale), 2, parameters, dtype=torch.float64, device=scale.device)
    back[:, 0, 0] = 1 / scale[:, 0]
    if offset:
        back[:, 1, 0] = -centre[:, 0] / scale[:, 0]
        back[:, 1, 1] = 1.0
    found, inverse, information = fit.solution(noise)
    covariance = back @ inverse @ back.mT
    coefficients = (back @ found[..., None])[..., 0]
    errors = torch.cat([covariance.diagonal(dim1=-2, dim2=-1).sqrt(), information.rsqrt()[:, None]], dim=-1)
    return FittedLaw(
        slope=coefficients[:, 0],
        offset=coefficients[:, 1],
        noise_variance=noise,
        errors=errors,
        covariance=covariance,
        log_evidence=fit.log_evidence(noise) - scale[:, 0].log(),
    )


@dataclass(frozen=True)
class _Fit:
    """Weighted least squares of y ``(k, cases)`` on X ``(k, cases, p)``, with variances v + σ²."""

    columns: Tensor
    values: Tensor
    variance: Tensor

    def _parts(self, noise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weights, coefficients, (Xᵀ W X)⁻¹ and residuals."""
        weights = 1 / (self.variance + noise[:, None])
        weighed = (weights[..., None] * self.columns).mT
        inverse = torch.linalg.inv(weighed @ self.columns)
        found = (inverse @ (weighed @ self.values[..., None]))[..., 0]
        return weights, found, inverse, self.values - (self.columns @ found[..., None])[..., 0]

    def log_evidence(self, noise: Tensor) -> Tensor:
        weights, _, inverse, residual = self._parts(noise)
        count, parameters = self.columns.shape[-2:]
        volume = (
            torch.linalg.slogdet(inverse)[1] + weights.log().sum(dim=1) - (count - parameters) * math.log(2 * math.pi)
        )
        return 0.5 * (volume - (weights * residual.square()).sum(dim=1))

    def slope_of_evidence(self, noise: Tensor) -> Tensor:
        weights, _, inverse, residual = self._parts(noise)
        squares = (weights.square()[..., None] * self.columns).mT @ self.columns
        trace = weights.sum(dim=1) - (inverse * squares).sum(dim=(-2, -1))
        return 0.5 * ((weights * residual).square().sum(dim=1) - trace)

    def solution(self, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coefficients, their covariance, and the expected information on σ²."""
        weights, found, inverse, _ = self._parts(noise)
        squares = inverse @ (weights.square()[..., None] * self.columns).mT @ self.columns
        cubes = inverse @ (weights.pow(3)[..., None] * self.columns).mT @ self.columns
        traces = [part.diagonal(dim1=-2, dim2=-1).sum(dim=-1) for part in (cubes, squares @ squares)]
        return found, inverse, 0.5 * (weights.square().sum(dim=1) - 2 * traces[0] + traces[1])


def _largest(fit: _Fit, parameters: int) -> Tensor:
    """σ² of the largest evidence ``(k,)``: the best of a grid, refined where the slope changes its sign."""
    spread = fit.variance.mean(dim=1)
    start = _Fit(fit.columns, fit.values, torch.ones_like(fit.variance))._parts(torch.zeros_like(spread))[-1]
    most = 4 * start.square().sum(dim=1) / (start.shape[1] - parameters) + 1e-30 * fit.values.square().amax(dim=1)
    most = most.clamp_min(torch.finfo(torch.float64).tiny * 1e60)
    exponents = torch.linspace(0, 1, _STEPS, dtype=torch.float64, device=most.device)
    grid = most[:, None] * 10 ** (-14 * (1 - exponents))
    grid = torch.cat([torch.where((fit.variance > 0).all(dim=1), 0.0, grid[:, 0])[:, None], grid], dim=1)
    evidence = torch.stack([fit.log_evidence(noise) for noise in grid.mT], dim=1)
    best = evidence.argmax(dim=1, keepdim=True)
    low, high = (grid.gather(1, (best + step).clamp(0, _STEPS))[:, 0] for step in (-1, 1))
    return _root(fit.slope_of_evidence, low, high)


def _root(slope: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Where a falling function changes its sign between two bounds, or the bound that it does not reach."""
    falls_at_once = slope(low) <= 0
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        rises = slope(middle) > 0
        low, high = torch.where(rises, middle, low), torch.where(rises, high, middle)
    return torch.where(falls_at_once, low, 0.5 * (low + high))


def _observed(law: LinearConstraint, observations: Gaussian | Tensor) -> tuple[Tensor, Tensor]:
    """G u and its variance ``(cases, k)``, float64."""
    if isinstance(observations, Gaussian):
        prior = as_multivariate_normal(observations)
        mean, variance = prior.mean, variance_of_rows(as_double(prior.lazy_covariance_matrix), law.G)
    else:
        mean = as_tensor(observations)
        variance = torch.zeros(law.b.shape[-1], dtype=torch.float64, device=mean.device)
    mean = mean.to(torch.float64)
    refuse_missing(mean, "observations hold")
    try:
        values = law.residual(mean) + law.b
    except RuntimeError as error:
        raise IncompatibleQueryError(
            f"The observations {tuple(mean.shape)} and the right-hand sides {tuple(law.b.shape)} do not fit; give "
            "observations (cases, n) and right-hand sides (cases, k)."
        ) from error
    return values, (variance + law.noise).expand(values.shape)
