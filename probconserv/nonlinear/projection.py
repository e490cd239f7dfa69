"""Projection of given fields onto a law, in the metric of a covariance: what conditioning does to a draw.

    u ↦ argmin (u′ − u)ᵀ Σ⁻¹ (u′ − u)   over the fields u′ that meet the law,

for linear rows u − Σ Gᵀ (G Σ Gᵀ + σ² I)⁻¹ (G u − b) (Hansen et al. 2023, sec. 3). Draws of N(μ, Σ) become draws of the
conditioned Gaussian (Matheron's rule); draws of another distribution, from a generative model for instance, keep what
the law does not determine.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator
from torch import Tensor

from probconserv._linalg.covariance import covariance_of
from probconserv._linalg.gaussian import FieldGaussian
from probconserv._linalg.rank import contradictions_named
from probconserv._linalg.rows import Rows, as_sparse_rows
from probconserv.constraints import LinearConstraint
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.inequalities.inequality import Inequality, JoinedConstraint
from probconserv.inequalities.projected import Projected
from probconserv.nonlinear._fields import project_nonlinear
from probconserv.nonlinear.law import AnyLaw, NonlinearLaw, linear_part
from probconserv.posterior import gain_of

_SPARSE = 0.2  # fraction of entries that are not zero below which dense rows are stored as sparse ones


def project(fields: Float[Tensor, "s n"], covariance: LinearOperator, law: AnyLaw) -> Float[Tensor, "s n"]:
    """The nearest fields that meet a law, in the metric Σ⁻¹.

    Args:
        fields: s fields over n points.
        covariance: Σ ``(n, n)``, without batch axes: a diagonal, low rank plus diagonal, or any other. Onto a nonlinear
            law the first two project fields together; any other takes a search per field.
        law: Linear rows, inequalities, both, or a ``NonlinearLaw``; without batch axes, or with one right-hand side, or
            one set of rows, for every field ``(s,)``.

    Returns:
        The projections, in the precision of the fields; the work is done in float64. Those onto a nonlinear law have
        no derivatives; ``condition`` has.

    Raises:
        IncompatibleQueryError: If fields, covariance and law have different numbers of points, or other batches.
        InvalidArgumentError: If the fields are not finite.
        DependentConstraintsError: If rows are redundant under Σ.
        InfeasibleConstraintError: If no field meets law and inequalities, or rows contradict each other.
        ConvergenceError: If the search for a nonlinear law does not converge.
    """
    check_sizes(fields, covariance, law)
    if not bool(torch.isfinite(fields).all()):
        raise InvalidArgumentError("fields must be finite, got NaN or infinite entries; repair or drop these fields.")
    epsilon = torch.finfo(covariance.dtype or torch.float64).eps
    double, covariance = fields.to(torch.float64), covariance_of(covariance).operator
    with contradictions_of(law):
        if isinstance(law, NonlinearLaw):
            with torch.no_grad():
                projected = project_nonlinear(double, covariance, law, epsilon)
        elif isinstance(law, LinearConstraint):
            projected = _project_linear(double, covariance, law)
        else:
            projected = _project_joined(double, covariance, law.joined())
    return projected.to(fields.dtype)


def equalities_of(law: AnyLaw | None) -> LinearConstraint | NonlinearLaw | None:
    """What a law says beside its inequalities."""
    return law.joined().law if isinstance(law, Inequality) else law


def contradictions_of(law: AnyLaw | None) -> AbstractContextManager[None]:
    """Turns the error for dependent rows into InfeasibleConstraintError if linear rows of a law contradict each other.

    Args:
        law: The law that is imposed within.
    """
    linear = linear_part(law)
    return nullcontext() if linear is None else contradictions_named(linear.G, linear.b, linear.noise)


def check_sizes(fields: Tensor, covariance: LinearOperator, law: AnyLaw) -> None:
    """Raises IncompatibleQueryError unless fields, covariance and law fit."""
    joined = law.joined() if isinstance(law, Inequality) else law
    if isinstance(joined, NonlinearLaw):
        joined.require_projection()
    points, n = points_of(joined), covariance.shape[-1]
    if fields.ndim != 2 or fields.shape[-1] != n or points not in (None, n):
        raise IncompatibleQueryError(
            "fields must be (s, n) on the n points of covariance and law, got "
            f"{tuple(fields.shape)}, {n} and {points}; build all three on one grid."
        )
    batch = joined.batch_shape
    if len(batch) > 1 or (batch and batch[0] not in (1, len(fields))):
        raise IncompatibleQueryError(
            f"The law must have no batch axes or one entry for every one of the {len(fields)} fields, got "
            f"{tuple(batch)}."
        )


def points_of(law: LinearConstraint | JoinedConstraint | NonlinearLaw) -> int | None:
    """Number of points that a law acts on; None for bounds that are numbers."""
    if not isinstance(law, JoinedConstraint):
        return law.points
    if law.law is not None:
        return law.law.points
    return next((bound.shape[-1] for bound in (law.lower, law.upper) if bound.ndim and bound.shape[-1] > 1), None)


def with_sparse_rows(law: LinearConstraint) -> LinearConstraint:
    """The same law, with rows stored as sparse ones if most of their entries are zero."""
    if isinstance(law.G, Rows) or law.rows.shape[-2] == 1:
        return law
    rows = as_sparse_rows(law.rows)
    if rows.entries.shape[-1] > _SPARSE * rows.rows * rows.points:
        return law
    return LinearConstraint(rows, law.b, noise_variance=law.noise_variance, shape=law.shape)


def _project_linear(fields: Tensor, covariance: LinearOperator, law: LinearConstraint) -> Tensor:
    law = with_sparse_rows(law)
    target = law.b.expand(len(fields), law.b.shape[-1])
    gain = gain_of(covariance_of(covariance), law, torch.finfo(torch.float64).eps, True)
    if len(law.G.shape) > 2 or law.noise.ndim > 1:  # rows of their own for every field
        return gain.correct(fields[:, None, :], target[:, None, :])[:, 0, :]
    return gain.correct(fields, target)


def _project_joined(fields: Tensor, covariance: LinearOperator, joined: JoinedConstraint) -> Tensor:
    if joined.law is not None:
        joined = replace(joined, law=with_sparse_rows(joined.law))
    centre = FieldGaussian(fields.new_zeros(fields.shape[-1]), covariance)
    return Projected(centre, joined).project(fields)
