"""The update: conditions a Gaussian prediction on a constraint."""

import warnings
from dataclasses import replace
from typing import Any, Literal, overload

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator
from torch import Tensor
from torch.distributions import MultivariateNormal as TorchMultivariateNormal
from torch.distributions import Normal

from probconserv._linalg.checks import require_tensors
from probconserv._linalg.gaussian import FieldGaussian
from probconserv._linalg.values import as_tensor, floating
from probconserv.constraints import LinearConstraint
from probconserv.errors import DependentConstraintsError, IncompatibleQueryError, InvalidArgumentError
from probconserv.fitted.covariance import shrinkage_of
from probconserv.fitted.members import MemberGaussian, Members, check_shrinkage, condition_members
from probconserv.fitted.rule import warn_of_rule
from probconserv.inequalities.inequality import Inequality, JoinedConstraint
from probconserv.inequalities.projected import Projected
from probconserv.inequalities.truncated import Truncated
from probconserv.mixture import Mixture
from probconserv.neighbours import NEIGHBOURS, Neighbour, as_known
from probconserv.posterior import Posterior
from probconserv.redundancy import posterior_of
from solvers.recording import are_readable, check_recording

Gaussian = TorchMultivariateNormal | Normal


@overload
def condition(
    prior: Mixture, constraint: LinearConstraint | Inequality, *, keep_weights: bool = ..., validate: bool = ...
) -> Mixture: ...
@overload
def condition(prior: Gaussian | Tensor, constraint: LinearConstraint, *, validate: bool = ...) -> Posterior: ...
@overload
def condition(prior: Gaussian | Tensor, constraint: Inequality, *, validate: bool = ...) -> Projected: ...
@overload
def condition(prior: Projected, constraint: LinearConstraint | Inequality, *, validate: bool = ...) -> Projected: ...
@overload
def condition(
    prior: Gaussian | Mixture | Projected | Neighbour | Tensor,
    constraint: LinearConstraint | Inequality,
    *,
    keep_weights: bool = ...,
    validate: bool = ...,
) -> Posterior | Mixture | Projected: ...
def condition(
    prior: Gaussian | Mixture | Projected | Neighbour | Tensor,
    constraint: LinearConstraint | Inequality,
    *,
    keep_weights: bool = False,
    validate: bool = True,
) -> Posterior | Mixture | Projected:
    """Conditions a prediction on linear constraints, inequalities, or both combined with ``&``.

    μ′ = μ − Σ Gᵀ S⁻¹ (G μ − b), Σ′ = Σ − Σ Gᵀ S⁻¹ G Σ, S = G Σ Gᵀ + σ² I (Hansen et al. 2023, sec. 3): with σ = 0 the
    oblique projection of μ onto {G u = b} in the metric Σ⁻¹. Only Σ Gᵀ and diag Σ are needed. With inequalities
    what this gives is projected onto the fields that meet them as well, in the metric of the variances; see
    ``Projected``.

    Args:
        prior: The prediction over n points. A ``MultivariateNormal`` with any covariance; a ``Normal`` of shape
            ``(*batch, n)``, read as independent values; a ``Mixture``, whose components are conditioned one by one and
            weighed by their evidence, π_c N(b; G μ_c, S_c) (Bayes' theorem); torch's ``Independent``,
            ``LowRankMultivariateNormal`` and ``MixtureSameFamily`` and gpytorch's multitask Gaussians (task by task),
            read as these; or samples ``(members, *batch, n)``, read as their mean and covariance (rank members − 1),
            for which ``from_samples`` is the explicit name. A conditioned prediction may be conditioned again, which
            equals conditioning at once.
        constraint: G u = b + ε with rows ``(*batch, k, n)``, ``NonNegative``, ``Bounded``, ``Monotone``,
            ``LinearInequality``, or several.
        keep_weights: Whether the components of a mixture keep their weights whatever the law says of them, as Hansen et
            al. (2023) do with the equal weights of their latent samples. Inequalities do not enter the evidence.
        validate: Whether values are checked (finite, variances not negative, rows independent). Without it a bad input
            gives NaN instead of an error. Values are not checked inside ``torch.compile``, ``torch.export`` and
            ``torch.func.vmap``; elsewhere inequalities are always checked. ``torch.jit.trace`` cannot record them.

    Returns:
        The conditioned prediction, in the precision of the prior: a ``Posterior`` under a linear law, a ``Projected``
        under inequalities or if the prior is one, a ``Mixture`` of them for a mixture.

    Raises:
        IncompatibleQueryError: If prior and constraint have different numbers of points, their batch axes do not
            broadcast, the law has batch axes that a prior of several fields lacks, or fewer that fit its first axes as
            well as its last, such as totals ``(2,)`` for fields ``(2, 2, n)``. A prior of one field, ``(n,)`` or
            ``(1, n)``, is conditioned on each of several laws.
        InvalidArgumentError: If the prior is not finite, has a negative variance or standard deviation or is no
            prediction, the constraint is none, or inequalities are recorded in a graph.
        DependentConstraintsError: If rows are certain under the prior, or once others are met, and not met; of those
            that are met nothing is asked.
        InfeasibleConstraintError: If no field meets law and inequalities (the text names the feasible totals), or rows
            contradict each other.
        MissingPackageError: If a PyTorch below 2.11 compiles or exports the call.
    """
    check_recording()
    check_constraint(prior, constraint)
    if isinstance(prior, NEIGHBOURS):
        return condition(as_known(prior), constraint, keep_weights=keep_weights, validate=validate)
    check_axes_of_law(prior, constraint)
    if isinstance(prior, Mixture):
        check_mixture_batch(prior, constraint)
        components = _condition_one(prior.components, constraint, validate)
        if validate:
            warn_of_rule(prior, constraint)
        if keep_weights:
            return Mixture(components, prior.weights)
        gained = _log_evidence(components) - _log_evidence(prior.components)
        return Mixture(components, _reweighed(prior, gained))
    posterior = _condition_one(prior, constraint, validate)
    if validate:
        warn_of_rule(prior, constraint)
    return posterior


def _condition_one(
    prior: Gaussian | Projected | Tensor, constraint: LinearConstraint | Inequality, validate: bool
) -> Posterior | Projected:
    if validate and isinstance(prior, Normal):
        _check_scale(prior.scale)
    if isinstance(prior, Projected):
        return _projected(prior.prior, prior.constraint & constraint, draws=prior.draws, seed=prior.seed)
    if isinstance(prior, Posterior):
        joined = prior.constraint if isinstance(constraint, LinearConstraint) else prior.stated
        prior, constraint = prior.prior, joined & constraint
    else:
        prior = as_multivariate_normal(prior)
    if isinstance(constraint, LinearConstraint):
        return condition_members(prior, constraint, validate)
    return _projected(_of_members(prior, constraint.joined().law), constraint.joined())


def _projected(prior: MultivariateNormal, joined: JoinedConstraint, **options: int) -> Projected:
    """The prediction under a law and inequalities; redundant rows are left out."""
    try:
        return Projected(prior, joined, **options)
    except DependentConstraintsError:
        if joined.law is None:
            raise
        posterior = posterior_of(prior, joined.law, True)
        law = posterior.constraint if posterior.constraint.b.shape[-1] else None
        return Projected(posterior, replace(joined, law=law), **options)


def _of_members(prior: MultivariateNormal, law: LinearConstraint | None) -> MultivariateNormal:
    """The Gaussian under which a law is imposed with inequalities; of members it is conditioned on the law already."""
    if law is None or not isinstance(prior, MemberGaussian):
        return prior
    return condition_members(prior, law, validate=True)


def _check_scale(scale: Tensor) -> None:
    """Refuses negative standard deviations, whose square hides the sign."""
    if are_readable(scale) and scale.numel() and float(scale.detach().min()) < 0:
        raise InvalidArgumentError(
            "The standard deviations of the prior must not be negative, got a smallest entry of "
            f"{float(scale.detach().min()):g}."
        )


def check_constraint(prior: object, constraint: object) -> None:
    """Raises InvalidArgumentError if a constraint is none, or prior and constraint are swapped."""
    if isinstance(constraint, LinearConstraint | Inequality):
        return
    swapped = isinstance(prior, LinearConstraint | Inequality)
    raise InvalidArgumentError(
        "The constraint must be a LinearConstraint, an inequality or both joined by &, got "
        f"{type(constraint).__name__}; "
        + ("give the prediction first, then the constraint." if swapped else "integral and its like build one.")
    )


def check_axes_of_law(prior: Any, constraint: LinearConstraint | Inequality) -> None:
    """Raises IncompatibleQueryError if the batch axes of a law fit the first axes of a prediction as well as the last.

    Tensors broadcast along the last axes, so that one total per function would be read as one per channel.
    """
    axes = constraint.joined().batch_shape if isinstance(constraint, Inequality) else constraint.batch_shape
    if isinstance(prior, Tensor):
        batch = prior.shape[1:-1]
    else:
        batch = prior.batch_shape[:-1] if isinstance(prior, Normal) else getattr(prior, "batch_shape", axes)
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


def check_mixture_batch(prior: Mixture, constraint: LinearConstraint | Inequality) -> None:
    """Raises IncompatibleQueryError if a constraint would be read as one for every component of a mixture."""
    batch = constraint.joined().batch_shape if isinstance(constraint, Inequality) else constraint.batch_shape
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
    """What the laws that a prediction meets say for it ``(*batch,)``: log N(b; G μ, S), 0 without a law."""
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


def as_multivariate_normal(prior: Gaussian | Tensor) -> MultivariateNormal:
    """Reads a Gaussian prediction as a gpytorch ``MultivariateNormal`` with lazy covariance.

    Args:
        prior: As for ``condition``, but no mixture.

    Returns:
        The same prediction. For a ``Normal`` the covariance is diagonal and in float64, since σ² may underflow in the
        precision of σ; for samples it has low rank.

    Raises:
        InvalidArgumentError: If the prior is none of these.
    """
    if isinstance(prior, MultivariateNormal):
        return prior
    if isinstance(prior, Normal):
        deviation = prior.scale.to(torch.float64)
        return FieldGaussian(floating(prior.loc), DiagLinearOperator(deviation.square()), deviation=deviation)
    if isinstance(prior, TorchMultivariateNormal):
        return FieldGaussian(prior.loc, prior.covariance_matrix)
    if isinstance(prior, Tensor):
        if not torch.compiler.is_compiling():
            warnings.warn(
                f"A tensor {tuple(prior.shape)} is read as samples (members, *batch, n), its first axis being the "
                "members of an ensemble. If that is meant, say so by from_samples(tensor); if the first axis is a "
                "batch, give a torch.distributions.Normal with your variances.",
                stacklevel=4,
            )
        return from_samples(prior)
    raise InvalidArgumentError(
        "The prior must be a MultivariateNormal, a torch.distributions.Normal, a Mixture or a tensor of samples "
        f"(members, *batch, n), got {type(prior).__name__}."
    )


def from_samples(
    samples: Float[Tensor, "members *batch n"],
    noise_variance: float | Float[Tensor, "*batch n"] = 0.0,
    *,
    shrinkage: float | Literal["auto"] | None = None,
) -> MultivariateNormal:
    """The Gaussian with the mean and the covariance of samples, plus optional independent noise.

    Σ = R Rᵀ + diag(noise) with R = (u_m − ū)/√(M − 1), n × M, of rank M − 1; never formed. With shrinkage λ the first
    term is (1 − λ) R Rᵀ + λ diag(R Rᵀ), which keeps every variance and lets correlations that few members cannot
    support fade (Ledoit & Wolf 2004).

    Args:
        samples: Fields ``(members, *batch, n)``, at least two members, a tensor or an array; whole numbers become
            float64.
        noise_variance: Variance added at every point, a number or ``(*batch, n)``; without it the covariance is
            singular and the distribution has no density.
        shrinkage: λ in [0, 1], 0 by default; "auto" takes that of ``fit_covariance``, and 1 where ``condition`` gives a
            law that the members cannot explain: one of as many rows as members or more, or one whose joint χ² is beyond
            what a further member would have. It says so by a warning. Without "auto" the warning comes alone; a number
            says that as many rows as members are meant.

    Returns:
        Gaussian with lazy covariance; where all members agree, the mean equals their value to the last bit.

    Raises:
        InvalidArgumentError: If samples are no array, there are fewer than two members, a noise variance is negative,
            or λ is neither in [0, 1] nor "auto".
    """
    check_recording()
    if isinstance(samples, np.ndarray) or hasattr(samples, "to_numpy"):
        samples = as_tensor(samples, dtype=None)
    require_tensors(samples=samples)
    if samples.ndim < 2 or samples.shape[0] < 2:
        raise InvalidArgumentError(
            f"samples must be (members, *batch, n) with members ≥ 2, got {tuple(samples.shape)}."
        )
    check_shrinkage(shrinkage)
    samples = floating(samples)
    noise = torch.as_tensor(noise_variance, dtype=samples.dtype, device=samples.device)
    smallest, noisy = 0.0, True  # where the numbers cannot be read
    if isinstance(noise_variance, int | float):
        smallest, noisy = noise_variance, noise_variance != 0
    elif are_readable(samples, noise) and noise.numel():
        smallest, noisy = float(noise.detach().min()), bool(noise.any())
    if not smallest >= 0:
        raise InvalidArgumentError(f"noise_variance must not be negative, got {smallest:g}.")
    mean = samples[0] + (samples - samples[0]).mean(dim=0)
    root = ((samples - mean) / (samples.shape[0] - 1) ** 0.5).movedim(0, -1)
    members = Members(
        root=root,
        noise=noise if noisy else None,
        shrinkage=shrinkage_of(root.movedim(-1, 0)) if shrinkage == "auto" else shrinkage or 0.0,
        stated=shrinkage is not None,
        automatic=shrinkage == "auto",
    )
    return MemberGaussian(mean, members)


def truncate(
    prior: Gaussian | Mixture | Projected | Neighbour,
    constraint: Inequality,
    *,
    keep_weights: bool = False,
    draws: int = 500,
    thinning: int = 1,
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
        InvalidArgumentError: If the constraint has no inequality, or weights of a mixture would have to change.
    """
    if not isinstance(constraint, Inequality):
        raise InvalidArgumentError(
            "truncate needs inequalities, alone or joined with a law; condition(prior, law) conditions on a law."
        )
    if isinstance(prior, NEIGHBOURS):
        return truncate(as_known(prior), constraint, keep_weights=keep_weights, draws=draws, thinning=thinning)
    check_axes_of_law(prior, constraint)
    if isinstance(prior, Mixture):
        if not keep_weights:
            raise InvalidArgumentError(
                "The weights of a mixture's components under inequalities are not computed; set keep_weights=True to "
                "keep them, or truncate one Gaussian."
            )
        check_mixture_batch(prior, constraint)
        components = truncate(prior.components, constraint, draws=draws, thinning=thinning)
        assert isinstance(components, Truncated)
        return Mixture(components, prior.weights)
    if isinstance(prior, Posterior | Projected):
        return Truncated(prior.prior, prior.constraint & constraint, draws=draws, thinning=thinning)
    prior = _of_members(as_multivariate_normal(prior), constraint.joined().law)
    prior = prior.prior if isinstance(prior, Posterior) else prior
    return Truncated(prior, constraint.joined(), draws=draws, thinning=thinning)
