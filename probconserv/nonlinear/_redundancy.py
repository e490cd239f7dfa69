"""Statements of a nonlinear law that repeat what the others or the prediction say, wherever the law is linearised.

Linear rows that depend on each other do so everywhere. Gradients that do so at one field alone, as where two curves
touch, are no redundant statements. Hence gradients are compared at draws of the prediction.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from probconserv._linalg.covariance import Covariance
from probconserv._linalg.density import surface_tolerance
from probconserv._linalg.gaussian import structure_of
from probconserv._linalg.rank import independent_given, resolution_of_entries
from probconserv._linalg.rows import SMALL
from probconserv.errors import DependentConstraintsError
from probconserv.nonlinear._space import stacked_gradients
from probconserv.nonlinear.law import NonlinearLaw, check_residual

_FIELDS = 2  # draws that gradients are compared at


def independent_statements(
    law: NonlinearLaw, covariance: Covariance, field_of: Callable[[Tensor], Tensor], start: Tensor
) -> Tensor:
    """Mask ``(k,)`` of the statements that are not determined by those before them and by what a prediction meets.

    All of them where gradients are not finite, or too many to be compared.

    Args:
        law: The statements.
        covariance: Σ without the exact rows that the prediction meets.
        field_of: From coordinates to the fields that meet these rows.
        start: Coordinates ``(*batch, r)``.
    """
    generator, chosen = torch.Generator(start.device).manual_seed(0), torch.zeros((), dtype=torch.bool)
    for _ in range(_FIELDS):
        y = torch.randn(start.shape, dtype=start.dtype, device=start.device, generator=generator)
        with torch.enable_grad():
            y.requires_grad_()
            u = field_of(y)
            values = law.statements(u)
            check_residual(values, u)
            k = values.shape[-1]
            if k * start.numel() > SMALL:
                return torch.ones(k, dtype=torch.bool, device=y.device)
            rows, along = (stacked_gradients(values, point, strict=False).detach() for point in (u, y))
        size = _deviations(rows, covariance)
        scaled = along / torch.where(size > 0, size, 1.0)[..., None]
        length, least = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True), resolution_of_entries(k, False)
        if not bool(torch.isfinite(length).all()):
            return torch.ones(k, dtype=torch.bool, device=y.device)
        scaled = torch.where(length > least, scaled, 0.0)
        none = torch.zeros(k, dtype=torch.bool, device=y.device)
        still = ~rows.any(dim=-1).reshape(-1, k).any(dim=0)  # without a gradient anywhere: the search refuses them
        chosen = chosen.to(y.device) | still | independent_given(scaled, none, least)
        if bool(chosen.all()):
            break
    return chosen


def selected(law: NonlinearLaw, chosen: Tensor) -> NonlinearLaw:
    """The law of some of its statements, a mask ``(k,)``; all of them if none is chosen."""
    if not bool(chosen.any()) or bool(chosen.all()):
        return law
    return replace(
        law, residual_function=lambda u: law.statements(u)[..., chosen], linear=None, inequalities=None, _found=[]
    )


def require_met(law: NonlinearLaw, chosen: Tensor, field: Tensor, prior: MultivariateNormal) -> None:
    """Raises DependentConstraintsError if a statement that was not chosen is missed by a field ``(*batch, n)``.

    Missed is what exceeds the tolerance of the law, and the rounding of the field in the precision of the prior.
    """
    if bool(chosen.all()):
        return
    with torch.enable_grad():
        u = field.detach().requires_grad_()
        values = law.statements(u)
        rows = stacked_gradients(values, u).detach()
    covariance = structure_of(prior)
    rounding = surface_tolerance(prior.mean.dtype) * (rows.abs() @ field.detach().abs()[..., None])[..., 0]
    missed = values.detach().abs() * ~chosen
    if bool((missed > law.tolerance * _deviations(rows, covariance) + rounding).any()):
        row = int(missed.reshape(-1, missed.shape[-1]).amax(dim=0).argmax())
        raise DependentConstraintsError(
            f"Statement {row} of the nonlinear law is determined by the prediction and the statements before it, and "
            f"missed by {float(missed.max()):.3g}: they contradict each other. Drop it, or correct the law."
        )


def _deviations(rows: Tensor, covariance: Covariance) -> Tensor:
    """The largest standard deviations that statements may have ``(*batch, k)``, those of values that move together."""
    deviation = covariance.variance.detach().clamp_min(0.0).sqrt()
    return (rows.abs() @ deviation[..., None])[..., 0]
