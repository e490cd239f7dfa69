"""The update: conditions a Gaussian prediction on a constraint."""

from dataclasses import replace
from typing import overload

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from probconserv._linalg.values import Array
from probconserv.constraints import LinearConstraint
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.fitted.members import MemberGaussian, condition_members
from probconserv.fitted.rule import warn_of_rule
from probconserv.inequalities.inequality import Inequality, JoinedConstraint
from probconserv.inequalities.projected import Projected
from probconserv.inequalities.truncated import Truncated
from probconserv.mixture import Mixture
from probconserv.nonlinear.law import AnyLaw, NonlinearLaw
from probconserv.nonlinear.mode import condition_on_field_of
from probconserv.posterior import Posterior, posterior_of
from probconserv.prior import Gaussian, Prior, as_prior, parts_of
from solvers.recording import check_recording

Statement = LinearConstraint | JoinedConstraint | NonlinearLaw


@overload
def condition(prior: Gaussian | Array, constraint: LinearConstraint, *, validate: bool = ...) -> Posterior: ...
@overload
def condition(prior: Gaussian | Array, constraint: Inequality, *, validate: bool = ...) -> Projected: ...
@overload
def condition(prior: Projected, constraint: AnyLaw, *, validate: bool = ...) -> Projected: ...
@overload
def condition(prior: Gaussian | Array, constraint: NonlinearLaw, *, validate: bool = ...) -> Posterior | Projected: ...
@overload
def condition(prior: Mixture, constraint: AnyLaw, *, keep_weights: bool = ..., validate: bool = ...) -> Mixture: ...
@overload
def condition(
    prior: Prior, constraint: AnyLaw, *, keep_weights: bool = ..., validate: bool = ...
) -> Posterior | Mixture | Projected: ...
def condition(
    prior: Prior, constraint: AnyLaw, *, keep_weights: bool = False, validate: bool = True
) -> Posterior | Mixture | Projected:
    """Conditions a prediction on linear constraints, inequalities, nonlinear laws, or several combined with ``&``.

    μ′ = μ − Σ Gᵀ S⁻¹ (G μ − b), Σ′ = Σ − Σ Gᵀ S⁻¹ G Σ, S = G Σ Gᵀ + σ² I (Hansen et al. 2023, sec. 3): with σ = 0 the
    oblique projection of μ onto {G u = b} in the metric Σ⁻¹. Only Σ Gᵀ and diag Σ are needed. With inequalities
    what this gives is projected onto the fields that meet them as well, in the metric of the variances; see
    ``Projected``. A nonlinear law is linearised at the most probable field that meets all statements, ``mode`` of the
    result; covariance and draws are those of the tangent there, and meet the law to first order; see ``NonlinearLaw``.

    Args:
        prior: The prediction over n points. A ``MultivariateNormal`` with any covariance; a ``Normal`` of shape
            ``(*batch, n)``, read as independent values; a ``Mixture``, whose components are conditioned one by one and
            weighed by their evidence, π_c N(b; G μ_c, S_c) (Bayes' theorem); torch's ``Independent``,
            ``LowRankMultivariateNormal`` and ``MixtureSameFamily`` and gpytorch's multitask Gaussians (task by task),
            read as these; or samples ``(members, *batch, n)``, read as their mean and covariance (rank members − 1),
            for which ``from_samples`` is the explicit name. A conditioned prediction may be conditioned again, which
            equals conditioning at once.
        constraint: G u = b + ε with rows ``(*batch, k, n)``, ``NonNegative``, ``Bounded``, ``Monotone``,
            ``LinearInequality``, ``NonlinearLaw``, or several.
        keep_weights: Whether the components of a mixture keep their weights whatever the law says of them, as Hansen et
            al. (2023) do with the equal weights of their latent samples. Inequalities do not enter the evidence.
        validate: Whether values are checked (finite, variances not negative, rows independent). Without it a bad input
            gives NaN instead of an error. Values are not checked inside ``torch.compile``, ``torch.export`` and
            ``torch.func.vmap``; elsewhere inequalities and nonlinear laws are always
            checked. ``torch.jit.trace`` cannot record them.

    Returns:
        The conditioned prediction, in the precision of the prior: a ``Posterior`` without inequalities, a
        ``Projected`` under them or if the prior is one, a ``Mixture`` of them for a mixture.

    Raises:
        IncompatibleQueryError: If prior and constraint have different numbers of points, their batch axes do not
            broadcast, the law has batch axes that a prior of several fields lacks, or fewer that fit its first axes as
            well as its last, such as totals ``(2,)`` for fields ``(2, 2, n)``. A prior of one field, ``(n,)`` or
            ``(1, n)``, is conditioned on each of several laws.
        InvalidArgumentError: If the prior is not finite, has a negative variance or standard deviation or is no
            prediction, the constraint is none, or ``torch.jit.trace`` records inequalities.
        DependentConstraintsError: If rows are certain under the prior, or once others are met, and not met; of those
            that are met nothing is asked.
        InfeasibleConstraintError: If no field meets law and inequalities (the text names the feasible totals), or rows
            contradict each other.
        ConvergenceError: If no field on a nonlinear law is found.
        MissingPackageError: If a PyTorch below 2.11 compiles or exports the call.
    """
    check_recording()
    stated = as_statement(constraint, prior)
    given = as_prior(prior, validate)
    check_axes_of_law(given, stated)
    if isinstance(given, Mixture):
        conditioned = _condition_mixture(given, stated, keep_weights, validate)
    else:
        conditioned = _condition_one(given, stated, validate)
    if validate:
        warn_of_rule(given, stated)
    return conditioned


def _condition_mixture(prior: Mixture, constraint: Statement, keep_weights: bool, validate: bool) -> Mixture:
    if isinstance(constraint, NonlinearLaw):
        raise InvalidArgumentError(
            "A Mixture has a most probable field on a nonlinear law for every component; condition its components."
        )
    check_mixture_batch(prior, constraint)
    components = as_prior(prior.components, validate)
    assert not isinstance(components, Mixture)
    conditioned = _condition_one(components, constraint, validate)
    if keep_weights:
        return Mixture(conditioned, prior.weights)
    return Mixture(conditioned, _reweighed(prior, _log_evidence(conditioned) - _log_evidence(components)))


def _condition_one(
    prior: MultivariateNormal | Projected, constraint: Statement, validate: bool
) -> Posterior | Projected:
    given = parts_of(prior)
    if isinstance(constraint, NonlinearLaw) or given.search is not None:
        return condition_on_field_of(given, constraint)
    stated = constraint if given.stated is None else given.stated & constraint
    if isinstance(stated, LinearConstraint):
        return condition_members(given.gaussian, stated, validate)
    return Projected(_of_members(given.gaussian, stated.law), stated, **given.options)  # pyright: ignore[reportArgumentType] - of draws


def _of_members(prior: MultivariateNormal, law: LinearConstraint | None) -> MultivariateNormal:
    """The Gaussian under which a law is imposed with inequalities; of members it is conditioned on the law already."""
    if law is None or not isinstance(prior, MemberGaussian):
        return prior
    return condition_members(prior, law, validate=True)


def as_statement(constraint: object, prior: object) -> Statement:
    """The constraint, several inequalities and what is joined with them as one ``JoinedConstraint``.

    Raises:
        InvalidArgumentError: If the constraint is none, or prior and constraint are swapped.
    """
    if isinstance(constraint, Inequality):
        return constraint.joined()
    if isinstance(constraint, LinearConstraint | NonlinearLaw):
        return constraint
    swapped = isinstance(prior, AnyLaw)
    raise InvalidArgumentError(
        "The constraint must be a LinearConstraint, an inequality, a NonlinearLaw or several joined by &, got "
        f"{type(constraint).__name__}; "
        + ("give the prediction first, then the constraint." if swapped else "integral and its like build one.")
    )


def check_axes_of_law(prior: MultivariateNormal | Mixture | Projected, constraint: Statement) -> None:
    """Raises IncompatibleQueryError if the batch axes of a law fit the first axes of a prediction as well as the last.

    Tensors broadcast along the last axes, so that one total per function would be read as one per channel.
    """
    axes, batch = constraint.batch_shape, prior.batch_shape
    if not 0 < len(axes) < len(batch) or axes.numel() == 1:
        return
    ends = batch[: len(axes)], batch[-len(axes) :]
    if all(all(own in (1, length) for own, length in zip(axes, end, strict=True)) for end in ends):
        raise IncompatibleQueryError(
            f"The batch axes {tuple(axes)} of the constraint fit the first batch axes of the prediction "
            f"{tuple(batch)} as well as the last: give the right-hand sides all of these, "
            f"{(*axes, *[1] * (len(batch) - len(axes)))} for one per function or "
            f"{(*[1] * (len(batch) - len(axes)), *axes)} for one per channel, time or other inner axis."
        )


def check_mixture_batch(prior: Mixture, constraint: Statement) -> None:
    """Raises IncompatibleQueryError if a constraint would be read as one for every component of a mixture."""
    batch = constraint.batch_shape
    try:
        joint = torch.broadcast_shapes(prior.batch_shape, batch)
    except RuntimeError:
        joint = None
    if joint != prior.batch_shape:
        raise IncompatibleQueryError(
            f"The mixture has the batch axes {tuple(prior.batch_shape)} but the constraint {tuple(batch)}; give the "
            "constraint one total per function, the same for all components."
        )


def _log_evidence(prediction: Gaussian | Projected) -> Tensor:
    """Log evidence of the laws that a prediction meets ``(*batch,)``: log N(b; G μ, S), 0 without a law."""
    if isinstance(prediction, Projected):
        law = prediction.constraint.law
        return (
            prediction.prior.mean.new_zeros(())
            if law is None
            else posterior_of(prediction.prior, law, True).log_evidence
        )
    return prediction.log_evidence if isinstance(prediction, Posterior) else prediction.mean.new_zeros(())


def _reweighed(prior: Mixture, gained: Tensor) -> Tensor:
    """Weights ``(components, *batch)`` after a law; unchanged if it says the same for all components."""
    if not gained.ndim:
        return prior.weights
    return torch.softmax(prior.field_weights.to(gained.dtype).log() + gained, dim=0)


@overload
def truncate(
    prior: Gaussian | Array | Projected, constraint: Inequality, *, draws: int = ..., thinning: int = ...
) -> Truncated: ...
@overload
def truncate(
    prior: Mixture, constraint: Inequality, *, keep_weights: bool = ..., draws: int = ..., thinning: int = ...
) -> Mixture: ...
@overload
def truncate(
    prior: Prior, constraint: Inequality, *, keep_weights: bool = ..., draws: int = ..., thinning: int = ...
) -> Truncated | Mixture: ...
def truncate(
    prior: Prior, constraint: Inequality, *, keep_weights: bool = False, draws: int = 500, thinning: int = 1
) -> Truncated | Mixture:
    """Conditions a prediction on inequalities, and a law, by Bayes' theorem: the Gaussian cut off where they fail.

    ``condition`` with the same arguments gives the projection of draws instead: for independent values the same most
    probable field, differentiable and cheap, but with draws on the bounds. A draw costs a step of a Markov chain here,
    after O(n³) once a field, for 1,024 points at most; ``effective_size`` says what the draws are worth.

    Args:
        prior: As for ``condition``. Of a conditioned prediction the law stays in force.
        constraint: ``NonNegative``, ``Bounded``, ``Monotone``, ``LinearInequality``, or several, with a law or not.
        keep_weights: Has to be set for a mixture, whose components then keep their weights: how likely each of them
            makes the inequalities is not computed.
        draws: Number of draws for mean and variance where these have no closed form. They are a chain and worth fewer
            independent ones: ``effective_size`` of the result, often a tenth.
        thinning: Steps of the chain for a draw.

    Returns:
        The truncated prediction; a mixture for a mixture.

    Raises:
        IncompatibleQueryError: If prior and constraint do not fit.
        InfeasibleConstraintError: If no field meets law and inequalities, or only fields on a bound.
        InvalidArgumentError: If the constraint has no inequality, a law is nonlinear, or weights of a mixture would
            have to change.
    """
    if isinstance(constraint, NonlinearLaw):
        raise _nonlinear()
    if not isinstance(constraint, Inequality):
        raise InvalidArgumentError(
            "truncate needs inequalities, alone or joined with a law; condition(prior, law) conditions on a law."
        )
    prior, stated = as_prior(prior), constraint.joined()
    check_axes_of_law(prior, stated)
    if isinstance(prior, Mixture):
        if not keep_weights:
            raise InvalidArgumentError(
                "The weights of a mixture's components under inequalities are not computed; set keep_weights=True to "
                "keep them, or truncate one Gaussian."
            )
        check_mixture_batch(prior, stated)
        components = truncate(prior.components, stated, draws=draws, thinning=thinning)
        assert isinstance(components, Truncated)
        return Mixture(components, prior.weights)
    given = parts_of(prior)
    if given.search is not None:
        raise _nonlinear()
    gaussian, stated = given.gaussian, stated if given.stated is None else given.stated & stated
    if stated.law is not None:
        posterior = condition_members(gaussian, stated.law, validate=True)
        law = posterior.constraint if posterior.constraint.b.shape[-1] else None
        gaussian, stated = posterior.prior, replace(stated, law=law)
    return Truncated(gaussian, stated, draws=draws, thinning=thinning)


def _nonlinear() -> InvalidArgumentError:
    return InvalidArgumentError(
        "truncate takes inequalities and linear laws, no NonlinearLaw, whether in the constraint or met by the "
        "prediction; use condition(prior, constraint)."
    )
