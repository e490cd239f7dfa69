"""Corrections of the clean field by a law within a flow, and at its end.

A sampler under a law corrects the clean estimate ẑ₁ = z + (1 − t) v in every step. The metric is what samplers differ
in: the identity of the field (Cheng et al., ICLR 2025; Utkarsh et al., NeurIPS 2025), or the covariance Σ_t that the
clean field has given z_t. ``coefficients`` has both for Karhunen–Loève coefficients under rows that all draws share.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeGuard

import torch
from linear_operator.operators import DiagLinearOperator, LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import Tensor

from probconserv._linalg.checks import axes_agree
from probconserv._linalg.covariance import covariance_of
from probconserv._linalg.gaussian import FieldGaussian
from probconserv._linalg.rows import SparseRows, as_sparse_rows
from probconserv.constraints import LinearConstraint
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.inequalities.inequality import Inequality, JoinedConstraint, LinearInequality
from probconserv.inequalities.projected import Projected
from probconserv.nonlinear._fields import linear_step
from probconserv.nonlinear.law import AnyLaw, NonlinearLaw, linear_part
from probconserv.nonlinear.projection import equalities_of, points_of, project, with_sparse_rows
from probconserv.surrogates.flow.coefficients import (
    Correction,
    Information,
    clean_correction,
    identity_correction,
    information_of,
)
from probconserv.surrogates.flow.latent import KarhunenLoeve, Latent, mean_of

_FAR = 10.0  # standard deviations of the fields, root mean square over the points
_LEAST = 1e-5  # variance that every point has under inequalities, relative to the mean variance


def identity_covariance(latent: Latent) -> LinearOperator:
    """Σ = I over the points of a field: the metric of published samplers. See ``in_units_of`` for rows with noise."""
    return DiagLinearOperator(torch.ones(latent.points, dtype=torch.float64))


def in_units_of(latent: Latent, law: AnyLaw | None) -> AnyLaw | None:
    """The law with its noise relative to the mean variance of the fields, for which the identity stands.

    The weight of a row with noise would depend on the unit of the fields otherwise.
    """
    linear = linear_part(law)
    if law is None or linear is None or not bool(linear.noise.any()):
        return law
    relative = linear.noise / latent.clean_covariance(0.0).diagonal().mean()
    scaled = LinearConstraint(linear.G, linear.b, noise_variance=relative, shape=linear.shape)
    if isinstance(law, Inequality):
        return replace(law.joined(), law=scaled)
    return replace(law, linear=scaled) if isinstance(law, NonlinearLaw) else scaled


def in_identity_metric(latent: Latent, law: AnyLaw | None) -> Correction | None:
    """The projection of the decoded field in the identity metric, encoded again; None without equalities."""
    covariance, law = identity_covariance(latent), in_units_of(latent, law)
    return _correction(latent, law, identity_correction, lambda _: covariance)


def in_clean_metric(latent: Latent, law: AnyLaw | None) -> Correction | None:
    """The update with the covariance Σ_t of the clean field; None without equalities."""
    return _correction(latent, law, clean_correction, latent.clean_covariance)


def _correction(
    latent: Latent,
    law: AnyLaw | None,
    of_coefficients: Callable[[KarhunenLoeve, LinearConstraint], Correction],
    covariance_of: Callable[[float], LinearOperator],
) -> Correction | None:
    equalities = equalities_of(law)
    if equalities is None:
        return None
    if isinstance(latent, KarhunenLoeve) and shares_rows(equalities):
        return of_coefficients(latent, equalities)
    return _of_fields(latent, equalities, covariance_of)


def shared_information(latent: Latent, law: AnyLaw | None) -> Information | None:
    """The equalities of a law in terms of coefficients; None without equalities."""
    equalities = equalities_of(law)
    if equalities is None:
        return None
    if not (isinstance(latent, KarhunenLoeve) and shares_rows(equalities)):
        raise InvalidArgumentError(
            "local=True is for linear rows that are the same for all draws, and KarhunenLoeve coefficients; leave it "
            f"out for {type(equalities).__name__} in {type(latent).__name__}."
        )
    return information_of(latent, equalities)


def final_fields(fields: Tensor, covariance: LinearOperator, law: AnyLaw | None) -> Tensor:
    """Fields with exact rows, bounds and order met to round-off; rows with noise have done their work in the steps.

    Exact rows are met in the metric of the covariance. Bounds and order hold point by point: a value that is pulled to
    its bound must not take with it all that vary with it, which would blur fronts. Fields with the rows therefore move
    onto the inequalities in the metric of the variances alone, in which rows with noise hold what a draw has there: it
    leaves them by their noise, not by the variance of the fields. A nonlinear law may mean nothing outside of its
    bounds and is met together with them. Few modes cannot move every point by itself: under inequalities, points have
    at least 1e-5 of the fields' mean variance to themselves.
    """
    if law is None:
        return fields
    if isinstance(law, NonlinearLaw):
        form = covariance_of(covariance)
        if law.inequalities is not None and form.splits and not form.is_independent:
            least = _LEAST * float(covariance.diagonal().mean())
            covariance = with_points(covariance, lambda variances: variances.clamp_min(least))
        return project(fields, covariance, law)
    equalities = linear_part(law)
    exact = None if equalities is None else exact_rows(equalities)
    if exact is not None:
        fields = project(fields, covariance, exact)
    if not isinstance(law, Inequality):
        return fields
    held = None if equalities is None else _with_values_of(equalities, fields)
    variances = covariance.diagonal()
    metric = DiagLinearOperator(variances.clamp_min(_LEAST * float(variances.mean())))
    return project(fields, metric, replace(law.joined(), law=held))


def _with_values_of(law: LinearConstraint, fields: Tensor) -> LinearConstraint:
    """The law whose rows with noise have the values that the fields have, one for every field."""
    values = law.b + law.residual(fields)
    return LinearConstraint(
        law.G, torch.where(law.noise > 0, values, law.b), noise_variance=law.noise_variance, shape=law.shape
    )


def with_points(covariance: LinearOperator, change: Callable[[Tensor], Tensor]) -> LinearOperator:
    """A low rank plus diagonal with another diagonal."""
    variances, root = covariance_of(covariance).split()
    return PsdSumLinearOperator(RootLinearOperator(root.mT), DiagLinearOperator(change(variances)))


def check_law(latent: Latent, law: AnyLaw | None, count: int) -> None:
    """Checks a law before any field is drawn.

    Raises:
        InfeasibleConstraintError: If no field meets it.
        DependentConstraintsError: If its rows are redundant.
    """
    if law is None:
        return
    if not isinstance(law, LinearConstraint | Inequality | NonlinearLaw):
        raise InvalidArgumentError(
            "law must be a LinearConstraint, an inequality, both joined by &, or a NonlinearLaw, got "
            f"{type(law).__name__}."
        )
    joined = law.joined() if isinstance(law, Inequality) else law
    if isinstance(joined, NonlinearLaw):
        joined.require_projection()
    batch, points = joined.batch_shape, points_of(joined)
    if points not in (None, latent.points):
        raise IncompatibleQueryError(
            f"The law acts on {points} points but a field has {latent.points}, {latent.shape}; build it on that grid."
        )
    if len(batch) > 1 or (batch and batch[0] not in (1, count)):
        raise IncompatibleQueryError(
            f"The law has the batch axes {tuple(batch)}; give it none, or one entry for each of the {count} draws."
        )
    linear = linear_part(law)
    if linear is not None and linear.shape is not None and not axes_agree(linear.shape, latent.shape):
        raise IncompatibleQueryError(
            f"The law was built for a field of the shape {tuple(linear.shape)}, but fields have {latent.shape}; bring "
            "the axes of both into one order."
        )
    if isinstance(joined, JoinedConstraint):
        joined.require_axis(latent.shape)
        mean = mean_of(latent)
        rows = None if joined.law is None else with_sparse_rows(joined.law)
        Projected(FieldGaussian(mean, latent.clean_covariance(0.0)), replace(joined, law=rows))


def shared_by_all(law: AnyLaw | None) -> AnyLaw | None:
    """A law with a batch axis of one without that axis, as the law of all draws that it is; others as they are."""
    if law is None:
        return None
    batch = law.joined().batch_shape if isinstance(law, Inequality) else law.batch_shape
    return part_of(law, 0) if batch == (1,) else law


def part_of(law: AnyLaw | None, part: int | slice | Tensor) -> AnyLaw | None:
    """The law of some of the draws, given by their positions, or of one of them, without a batch axis."""
    if law is None or isinstance(law, Inequality):
        if law is None or not law.joined().batch_shape:
            return law
        joined = law.joined()
        linear = None if joined.law is None else part_of(joined.law, part)
        assert linear is None or isinstance(linear, LinearConstraint)
        lower, upper = (_some(bound, part, 1) for bound in (joined.lower, joined.upper))
        rows = joined.rows
        if rows is not None:
            rows = LinearInequality(_some_rows(rows.A, part), _some(rows.c, part, 1))
        return replace(joined, law=linear, lower=lower, upper=upper, rows=rows)
    if not law.batch_shape:
        return law
    if isinstance(law, NonlinearLaw):
        linear = part_of(law.linear, part)
        assert isinstance(linear, LinearConstraint)
        return replace(law, linear=linear)
    return LinearConstraint(
        _some_rows(law.G, part), _some(law.b, part, 1), noise_variance=_some(law.noise, part, 1), shape=law.shape
    )


def _some_rows(rows: Any, part: int | slice | Tensor) -> Any:
    """The same of rows of any kind; those that all draws share stay as they are."""
    if len(rows.shape) == 2:
        return rows
    if isinstance(rows, SparseRows):
        return replace(rows, entries=_some(rows.entries, part, 1))
    return _some(rows if isinstance(rows, Tensor) else rows.to_dense(), part, 2)


def _some(values: Tensor, part: int | slice | Tensor, axes: int) -> Tensor:
    """Values of some of the draws, the last ``axes`` axes being no batch; values that all draws share stay whole."""
    return values[part] if values.ndim > axes and (len(values) > 1 or isinstance(part, int)) else values


def shares_rows(law: LinearConstraint | NonlinearLaw) -> TypeGuard[LinearConstraint]:
    """Whether the law is linear with the same rows for all draws."""
    return isinstance(law, LinearConstraint) and len(law.G.shape) == 2 and law.noise.ndim == 1


def exact_rows(law: LinearConstraint) -> LinearConstraint | None:
    """The rows without noise, None if there are none."""
    exact = (law.noise == 0).reshape(-1, law.noise.shape[-1])
    if not bool((exact == exact[0]).all()):
        raise InvalidArgumentError("A row of a law must have noise for all draws or for none.")
    exact = exact[0]
    if not bool(exact.any()):
        return None
    if bool(exact.all()):
        return law
    rows = as_sparse_rows(law.G)
    chosen = exact[rows.row]
    number = torch.cumsum(exact, dim=0) - 1
    left = replace(
        rows,
        rows=int(exact.sum()),
        row=number[rows.row[chosen]],
        column=rows.column[chosen],
        entries=rows.entries[..., chosen],
    )
    return LinearConstraint(left, law.b[..., exact])


def _of_fields(
    latent: Latent, law: LinearConstraint | NonlinearLaw, covariance_of: Callable[[float], LinearOperator]
) -> Correction:
    """Decodes, projects the field, and encodes it again; a nonlinear law by one Gauss–Newton step.

    Where the derivatives of a law vanish, as those of an energy at a field of zeros, the step goes anywhere. A field
    that it would move by more than ten standard deviations of the fields stays as it is.
    """
    spread = latent.clean_covariance(0.0).diagonal().mean()

    def correct(clean: Tensor, t: float) -> Tensor:
        fields, covariance = latent.decode(clean), covariance_of(t)
        if isinstance(law, NonlinearLaw):
            moved = linear_step(fields, covariance, law)
            far = (moved - fields).square().mean(dim=-1, keepdim=True) > _FAR**2 * spread
            return latent.encode(torch.where(far, fields, moved))
        return latent.encode(project(fields, covariance, law))

    return correct
