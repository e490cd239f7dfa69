"""A law that holds approximately: its slopes, offset and variance, fitted to cases by their evidence."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.gaussian import structure_of
from probconserv._linalg.structured import variance_of_rows
from probconserv._linalg.values import Array, as_tensor
from probconserv.constraints import LinearConstraint
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.fitted._student import widening
from probconserv.prior import Gaussian, as_multivariate_normal

_LEAST = 1e-60  # variance of values that are all 0, in units of their right-hand sides
_STEPS = 80  # halvings of a bracket, and points of the grid that finds one


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedLaw:
    """G u = a b + c + dᵀ z + ε, ε ~ N(0, σ²): how a law G u = b held in past cases; per row.

    Args:
        slope: a ``(k,)``; 1 for a law that holds on average.
        offset: c ``(k,)``, in the units of b; 0 if none was fitted.
        noise_variance: σ² ``(k,)``, beyond the variances of the observations.
        errors: Standard errors of a, c, σ² and d ``(k, 3 + p)``.
        covariance: Covariance of a, c and d ``(k, 2 + p, 2 + p)``.
        log_evidence: Log evidence of σ²; a, c and d integrated out over a flat prior ``(k,)``.
        covariate_slopes: d ``(k, p)``; p = 0 where there are no covariates.
        degrees_of_freedom: ν ``(k,)`` of σ² and the variances of the observations together: cases minus parameters,
            fewer where these variances differ.
    """

    slope: Float[Tensor, " k"]
    offset: Float[Tensor, " k"]
    noise_variance: Float[Tensor, " k"]
    errors: Float[Tensor, "k parameters_and_noise"]
    covariance: Float[Tensor, "k parameters parameters"]
    log_evidence: Float[Tensor, " k"]
    covariate_slopes: Float[Tensor, "k p"]
    degrees_of_freedom: Float[Tensor, " k"]

    def corrected(
        self, law: LinearConstraint, covariates: Tensor | None = None, *, level: float | None = 0.9
    ) -> LinearConstraint:
        """The law as it held: right-hand sides a b + c + dᵀ z, with a variance of σ² and of the errors of a, c and d.

        σ² is itself an estimate, so that new right-hand sides have Student's t distribution about these. The Gaussian
        law has the central interval of that distribution at one level, by a variance of

            s² + (t²/z² − 1) (s² − v + v̄),   s² = v + σ² + xᵀ C x

        with t and z the quantiles ½ (1 + ``level``) of Student's and the normal distribution, C the ``covariance``,
        x = (b, 1, z), v the law's own variance and v̄ that of past cases. It holds new cases as often as it says where
        v = v̄ does not vary, and about so where it does. (The variance of Student's t distribution gives other intervals
        than these, and does not exist for ν ≤ 2.) Intervals of lower levels are too wide, those of higher ones too
        narrow.

        Args:
            law: Right-hand sides of new cases ``(*batch, k)``; its variance is added.
            covariates: z of the new cases ``(*batch, p)``, or ``(*batch, k, p)`` for one vector per row.
            level: That level; None for s², as if σ² were known, whose intervals of 90 % hold 64 % of new cases after 3
                cases, 80 % after 5 and 88 % after 15.

        Warns:
            UserWarning: For ν ≤ 2, how often intervals of 99 % hold.
        """
        if law.b.shape[-1:] != self.slope.shape:
            raise IncompatibleQueryError(
                f"The law was fitted with {len(self.slope)} rows, but this one has {law.b.shape[-1]}; give the same "
                "rows with new right-hand sides."
            )
        z = _per_row(covariates, law.b)
        if z.shape[-1] != self.covariate_slopes.shape[-1]:
            raise IncompatibleQueryError(
                f"The law was fitted with {self.covariate_slopes.shape[-1]} covariates, got {z.shape[-1]}; give "
                "covariates=, those of the new cases in the same order."
            )
        terms = torch.cat([torch.stack([law.b, torch.ones_like(law.b)], dim=-1), z], dim=-1)
        coefficients = torch.cat([self.slope[:, None], self.offset[:, None], self.covariate_slopes], dim=-1).to(terms)
        fit = (terms * (self.covariance.to(terms) @ terms[..., None])[..., 0]).sum(dim=-1)
        noise = law.noise + self.noise_variance.to(terms) + fit
        if level is not None:
            # of a case of the fit, with the variance of its observation, which σ² is known next to
            estimated = self.errors[:, 2] * (0.5 * self.degrees_of_freedom).sqrt()
            noise = noise + (widening(self.degrees_of_freedom, level) - 1.0).to(terms) * (estimated.to(terms) + fit)
        return LinearConstraint(law.G, (terms * coefficients).sum(dim=-1), noise_variance=noise, shape=law.shape)


def fit_law(
    law: LinearConstraint,
    observations: Gaussian | Float[Array, "cases n"],
    *,
    offset: bool = True,
    covariates: Array | None = None,
) -> FittedLaw:
    """How a law held in past cases, for predictions of others: ``fit_law(...).corrected(law)``.

        G u_i = a b_i + c + dᵀ z_i + ε_i,   ε_i ~ N(0, σ²)

    a, c and d by least squares with weights 1/(v_i + σ²), v_i the variances of the observed G u_i; σ² where its
    evidence, with a, c and d integrated out over a flat prior, is largest (restricted maximum likelihood): without
    variances v the residual sum of squares over cases minus parameters. Every row is fitted on its own, with one σ² for
    all cases. Errors of the b_i themselves draw a towards 0, and the corrected law towards the mean of past cases: if
    they are as large as the b_i vary, state their variance in the law and do without this.

    Args:
        law: G with the right-hand sides that the law states ``(cases, k)``; its noise_variance counts towards v.
        observations: Observed fields ``(cases, n)``, or predictions of them, whose G Σ Gᵀ counts towards v.
        offset: Whether c is fitted, or 0.
        covariates: z: what else is known of a case and may explain its misfit, such as the rate of a source times the
            time that it acts, ``(cases, p)``, or ``(cases, k, p)`` for one vector per row.

    Raises:
        InvalidArgumentError: If an entry is not finite, there are too few cases, or right-hand sides and covariates
            do not differ enough between cases to tell their slopes apart.
    """
    values, variance = _observed(law, observations)
    right = law.b.expand(values.shape) if values.ndim == 2 else values
    z = _per_row(covariates, right)
    parameters = 1 + z.shape[-1] + offset
    if values.ndim != 2 or len(values) <= parameters:
        raise InvalidArgumentError(
            f"fit_law needs observations (cases, n) of more than {parameters} cases, with right-hand sides (cases, k); "
            f"got {tuple(values.shape[:-1])} cases."
        )
    design = _Design(torch.cat([right[..., None], z], dim=-1).movedim(0, 1), offset)
    unit = _unit_of(values, right)
    fit = _Fit(design.columns(), values.mT / unit[:, None], variance.mT / unit.square()[:, None])
    noise = _largest(fit, parameters)
    found, inverse, (total, information) = fit.solution(noise)
    back = unit[:, None, None] * design.to_units()
    covariance = back @ inverse @ back.mT
    coefficients = (back @ found[..., None])[..., 0]
    errors = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    error = unit.square() * (0.5 * information).rsqrt()
    volume = design.scale.log().sum(dim=-1) + (len(values) - parameters) * unit.log()
    return FittedLaw(
        slope=coefficients[:, 0],
        offset=coefficients[:, 1],
        noise_variance=unit.square() * noise,
        errors=torch.cat([errors[:, :2], error[:, None], errors[:, 2:]], dim=-1),
        covariance=covariance,
        log_evidence=fit.log_evidence(noise) - volume,
        covariate_slopes=coefficients[:, 2:],
        degrees_of_freedom=total.square() / information,
    )


def _unit_of(values: Tensor, right: Tensor) -> Tensor:
    """A power of 2 near the largest value of every row, or right-hand side where values are 0 ``(k,)``."""
    size = values.abs().amax(dim=0)
    size = torch.where(size > 0, size, right.abs().amax(dim=0))
    return 2.0 ** size.log2().round()


class _Design:
    """Regressors ``(k, cases, 1 + p)``, b before z, in standard units, so that their scales do not matter."""

    def __init__(self, regressors: Tensor, offset: bool) -> None:
        self.regressors, self.offset = regressors, offset
        mean = regressors.mean(dim=1)
        self.centre = mean if offset else torch.zeros_like(mean)
        self.scale = (regressors - self.centre[:, None]).square().mean(dim=1).sqrt()
        constant = self.scale <= 1e-12 * regressors.abs().amax(dim=1)
        if bool(constant[:, 0].any()):
            raise InvalidArgumentError(
                "The right-hand sides of a row are the same in all cases, so that its slope cannot be distinguished "
                "from its offset; give cases that differ, or offset=False if they are not 0."
            )
        if bool(constant.any()):
            raise InvalidArgumentError(
                f"Covariate {int(constant.any(dim=0).nonzero()[0, 0]) - 1} is the same in all cases, so that its slope "
                "cannot be distinguished from the offset; leave it out."
            )
        standard = self.columns()
        if bool((torch.linalg.svdvals(standard)[..., -1] <= 1e-7 * standard.shape[1] ** 0.5).any()):
            raise InvalidArgumentError(
                "Right-hand sides and covariates determine each other in the cases that are given, so that their "
                "slopes cannot be distinguished; leave a covariate out, or give cases in which they differ."
            )

    def columns(self) -> Tensor:
        """X ``(k, cases, 1 + p)``, or with a column of ones as the last."""
        standard = (self.regressors - self.centre[:, None]) / self.scale[:, None]
        return torch.cat([standard, torch.ones_like(standard[..., :1])], dim=-1) if self.offset else standard

    def to_units(self) -> Tensor:
        """The matrix from coefficients of ``columns`` to a, c and d ``(k, 2 + p, parameters)``."""
        rows, slopes = self.scale.shape
        back = self.scale.new_zeros(rows, 1 + slopes, slopes + self.offset)
        places = [0, *range(2, 1 + slopes)]
        back[:, places, range(slopes)] = 1 / self.scale
        if self.offset:
            back[:, 1, :slopes] = -self.centre / self.scale
            back[:, 1, slopes] = 1.0
        return back


def _per_row(covariates: Array | None, right: Tensor) -> Tensor:
    """z ``(*batch, k, p)``, float64, for right-hand sides ``(*batch, k)``."""
    if covariates is None:
        return right.new_zeros(*right.shape, 0)
    z = as_tensor(covariates).to(right)
    refuse_missing(z, "covariates hold")
    if z.shape[:-1] == right.shape[:-1]:
        z = z[..., None, :]
    if z.ndim != right.ndim + 1 or z.shape[-2] not in (1, right.shape[-1]) or z.shape[:-2] != right.shape[:-1]:
        raise IncompatibleQueryError(
            f"covariates must be (cases, p), or (cases, k, p) with a vector for each of {right.shape[-1]} rows, for "
            f"right-hand sides {tuple(right.shape)}; got {tuple(as_tensor(covariates).shape)}."
        )
    return z.expand(*right.shape, z.shape[-1])


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

    def solution(self, noise: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Coefficients, their covariance, and the traces of P and P²; P²/2 is the expected information on σ².

        P = W − W X (Xᵀ W X)⁻¹ Xᵀ W are the weights of residuals.
        """
        weights, found, inverse, _ = self._parts(noise)
        squares = inverse @ (weights.square()[..., None] * self.columns).mT @ self.columns
        cubes = inverse @ (weights.pow(3)[..., None] * self.columns).mT @ self.columns
        traces = [part.diagonal(dim1=-2, dim2=-1).sum(dim=-1) for part in (squares, cubes, squares @ squares)]
        total, squared = weights.sum(dim=1) - traces[0], weights.square().sum(dim=1) - 2 * traces[1] + traces[2]
        return found, inverse, (total, squared)


def _largest(fit: _Fit, parameters: int) -> Tensor:
    """σ² of the largest evidence ``(k,)``: the best of a grid, refined where the slope changes its sign."""
    spread = fit.variance.mean(dim=1)
    start = _Fit(fit.columns, fit.values, torch.ones_like(fit.variance))._parts(torch.zeros_like(spread))[-1]
    most = 4 * start.square().sum(dim=1) / (start.shape[1] - parameters) + 1e-30 * fit.values.square().amax(dim=1)
    most = most.clamp_min(_LEAST)
    exponents = torch.linspace(0, 1, _STEPS, dtype=torch.float64, device=most.device)
    grid = most[:, None] * 10 ** (-14 * (1 - exponents))
    grid = torch.cat([torch.where((fit.variance > 0).all(dim=1), 0.0, grid[:, 0])[:, None], grid], dim=1)
    evidence = torch.stack([fit.log_evidence(noise) for noise in grid.mT], dim=1)
    best = evidence.argmax(dim=1, keepdim=True)
    low, high = (grid.gather(1, (best + step).clamp(0, _STEPS))[:, 0] for step in (-1, 1))
    return _root(fit.slope_of_evidence, low, high)


def _root(slope: Callable[[Tensor], Tensor], low: Tensor, high: Tensor) -> Tensor:
    """Point where a falling function changes its sign between two bounds, or the bound that it does not reach."""
    falls_at_once = slope(low) <= 0
    for _ in range(_STEPS):
        middle = 0.5 * (low + high)
        rises = slope(middle) > 0
        low, high = torch.where(rises, middle, low), torch.where(rises, high, middle)
    return torch.where(falls_at_once, low, 0.5 * (low + high))


def _observed(law: LinearConstraint, observations: Gaussian | Array) -> tuple[Tensor, Tensor]:
    """G u and its variance ``(cases, k)``, float64."""
    if isinstance(observations, Gaussian):
        prior = as_multivariate_normal(observations)
        mean, variance = prior.mean, variance_of_rows(structure_of(prior), law.G)
    else:
        mean = as_tensor(observations)
        variance = torch.zeros(law.b.shape[-1], dtype=torch.float64, device=mean.device)
    mean = mean.to(torch.float64)
    refuse_missing(mean, "observations hold")
    try:
        values = replace(law, b=torch.zeros_like(law.b)).residual(mean)
    except RuntimeError as error:
        raise IncompatibleQueryError(
            f"The observations {tuple(mean.shape)} and the right-hand sides {tuple(law.b.shape)} do not fit; give "
            "observations (cases, n) and right-hand sides (cases, k)."
        ) from error
    return values, (variance + law.noise).expand(values.shape)
