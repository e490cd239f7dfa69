"""Nonlinear constraints g(u) = 0 by Gauss–Newton iterations of the linear update."""

import math
from collections.abc import Callable

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor
from torch.distributions import MultivariateNormal as TorchMultivariateNormal
from torch.distributions import Normal

from probconserv._linalg.covariance import as_double, rows_times
from probconserv.constraints import LinearConstraint
from probconserv.errors import ConvergenceError, InvalidArgumentError
from probconserv.posterior import Posterior
from probconserv.update import as_multivariate_normal

ResidualFunction = Callable[[Tensor], Tensor]


def condition_nonlinear(
    prior: MultivariateNormal | TorchMultivariateNormal | Normal | Tensor,
    residual_function: ResidualFunction,
    tolerance: float = 1e-10,
    max_iterations: int = 200,
) -> Posterior:
    """Conditions a Gaussian prediction on g(u) = 0, linearised at a stationary point of the density on {g = 0}.

    Every iteration is the linear update by g(u_j) + J_j (u − u_j) = 0 with J_j = ∂g/∂u at u_j, from the prior:

        u_{j+1} = μ − Σ J_jᵀ (J_j Σ J_jᵀ)⁻¹ (g(u_j) + J_j (μ − u_j)),   u_0 = μ

    Its limit is a stationary point of (u − μ)ᵀ Σ⁻¹ (u − μ) on {g = 0}; if g is linear it is reached in one step.
    Covariance and draws of the result are those of the linearisation there (Laplace's approximation with the
    Gauss–Newton Hessian): its mean meets g = 0, its draws meet it to first order.

    Results can be differentiated: derivatives are those of the iteration, which converge together with it.

    Args:
        prior: As for ``condition``, but one Gaussian. The exact rows of a conditioned prediction stay in force.
        residual_function: g, from fields ``(*batch, n)`` in float64 to residuals ``(*batch, k)``, by torch operations;
            batch entries must not mix.
        tolerance: Largest |g_i(u)| in units of the prior's standard scale of g_i, √(J Σ Jᵀ)_ii, and largest change
            of u in the last step in units of the largest standard scale of the batch entry.
        max_iterations: Largest number of updates.

    Returns:
        The conditioned Gaussian, in the precision of the prior (which must resolve the tolerance).

    Raises:
        ConvergenceError: If the tolerance is not reached; the text names residual and step.
        InvalidArgumentError: If g does not give ``(*batch, k)`` or does not depend on u.
        DependentConstraintsError: If rows of J are dependent under the prior.
    """
    if not tolerance > 0 or max_iterations < 1:
        raise InvalidArgumentError(
            f"tolerance must be positive and max_iterations at least 1, got {tolerance} and {max_iterations}."
        )
    base, exact = (
        (prior.prior, prior.constraint) if isinstance(prior, Posterior) else (as_multivariate_normal(prior), None)
    )
    covariance = as_double(base.lazy_covariance_matrix)
    start = MultivariateNormal(base.mean.to(torch.float64), covariance)
    spread = covariance.diagonal().detach().amax(dim=-1, keepdim=True).sqrt()
    u, error, step = start.mean, math.inf, math.inf
    residual, jacobian = _linearise(residual_function, u)
    for _ in range(max_iterations):
        law = LinearConstraint(jacobian, (jacobian @ u[..., None])[..., 0] - residual)
        law = law if exact is None else exact & law
        updated = Posterior(start, law).mean
        step = float(((updated - u).detach().abs() / spread).nan_to_num(nan=0.0).max())
        u = updated
        residual, jacobian = _linearise(residual_function, u)
        scale = (rows_times(covariance, jacobian) * jacobian).sum(dim=-1).detach().sqrt()
        error = float((residual.detach().abs() / scale).max())
        if error <= tolerance and step <= tolerance:
            return Posterior(base, law)
    raise ConvergenceError(
        f"Gauss–Newton did not converge in {max_iterations} iterations: the residual is {error:.3g} prior standard "
        f"deviations (largest |g| {float(residual.detach().abs().max()):.3g}) and the last step {step:.3g}, required "
        f"{tolerance:g}. Start from a prior nearer to g(u) = 0, allow more iterations, or loosen the tolerance."
    )


def _linearise(residual_function: ResidualFunction, u: Tensor) -> tuple[Tensor, Tensor]:
    """g(u) ``(*batch, k)`` and ∂g/∂u ``(*batch, k, n)``, with gradients if u or g has them."""
    tracked = torch.is_grad_enabled() and residual_function(u).requires_grad
    point = u if tracked and u.requires_grad else u.detach().requires_grad_()
    with torch.enable_grad():
        residual = residual_function(point)
        _check_residual(residual, u)
        rows = [
            torch.autograd.grad(row.sum(), point, create_graph=tracked, retain_graph=True, allow_unused=True)[0]
            for row in residual.unbind(dim=-1)
        ]
    used = [row for row in rows if row is not None]
    if len(used) < len(rows):
        raise InvalidArgumentError("A residual of residual_function does not depend on the field; drop it.")
    jacobian = torch.stack(used, dim=-2)
    if not bool(torch.isfinite(residual).all() & torch.isfinite(jacobian).all()):
        raise ConvergenceError(
            "Residual or Jacobian of residual_function is not finite at an iterate of Gauss–Newton; start from a prior "
            "nearer to g(u) = 0."
        )
    if not bool(jacobian.any(dim=-1).all()):
        raise ConvergenceError(
            f"The gradient of a residual vanishes at an iterate of Gauss–Newton (largest |g| "
            f"{float(residual.detach().abs().max()):.3g}), so the update has no direction; start from another prior "
            "mean."
        )
    return (residual, jacobian) if tracked else (residual.detach(), jacobian)


def _check_residual(residual: Tensor, u: Tensor) -> None:
    if residual.ndim != u.ndim or residual.shape[:-1] != u.shape[:-1] or not residual.shape[-1]:
        raise InvalidArgumentError(
            f"residual_function must turn {tuple(u.shape)} into (*batch, k) with the same batch and k ≥ 1, got "
            f"{tuple(residual.shape)}."
        )
    if not residual.requires_grad:
        raise InvalidArgumentError("The residuals of residual_function do not depend on the field by torch operations.")
