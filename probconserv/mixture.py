"""Mixtures of Gaussians over fields, as models with latent variables predict them."""

from typing import Any

import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Normal

from probconserv._linalg.gaussian import variance_of
from probconserv._linalg.values import Array, as_tensor, floating
from probconserv.errors import InvalidArgumentError
from probconserv.inequalities.projected import Projected
from probconserv.inequalities.truncated import Truncated
from probconserv.posterior import Posterior
from probconserv.prediction import SINGLE, Drawable
from probconserv.sampling import draw
from solvers.recording import are_readable

DRAWN_AT_ONCE = 2**25
"""Most values that a mixture draws of all its components together, 256 MiB in float64."""


_EVIDENCE = (
    "it needs the weights before the law, which conditioning replaces. Of a conditioned mixture, mixture.components.{} "
    "has that of every component, and law_evidence.evidence(prior, law) of probconserv that of the mixture."
)
_OF_ONE_GAUSSIAN = {
    "mode": "its density may have several maxima. mixture.components.mode has one field per component, and "
    "mixture.mean is their average.",
    "misfit": _EVIDENCE.format("misfit"),
    "log_evidence": _EVIDENCE.format("log_evidence"),
}


def is_bounded(prediction: Any) -> bool:
    """Whether a prediction, or the components of a mixture, is under inequalities, so that it is no Gaussian."""
    parts = prediction.components if isinstance(prediction, Mixture) else prediction
    return isinstance(parts, Projected | Truncated)


def with_draws(prediction: Any, draws: int, seed: int = 0) -> Any:
    """A prediction, or a mixture of some, with mean and variance from other draws; None if they need no draws."""
    if isinstance(prediction, Mixture):
        components = with_draws(prediction.components, draws, seed)
        return components and Mixture(components, prediction.weights)
    return prediction.with_draws(draws, seed) if is_bounded(prediction) else None


def share_covariance(components: Any) -> bool:
    """Whether all components ``(components, *batch)`` have one covariance, stored once."""
    prior, axes = components, components.mode.ndim - 1
    if isinstance(components, Posterior):
        law, prior = components.constraint, components.prior
        if max(law.G.ndim - 2, law.noise.ndim - 1) >= axes:
            return False
    if not isinstance(prior, MultivariateNormal) or is_bounded(prior):
        return False
    batch = prior.lazy_covariance_matrix.batch_shape
    return len(batch) == axes and batch[0] == 1


def moments_of(weights: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of a mixture from those of its components, whose axis comes first; weights broadcast."""
    centre = (weights * mean).sum(dim=0)
    return centre, (weights * (variance + (mean - centre).square())).sum(dim=0)


class Mixture(Drawable):
    """Σ_c π_c N(μ_c, Σ_c): a prediction whose component axis comes first.

        mean      Σ_c π_c μ_c
        variance  Σ_c π_c (v_c + μ_c²) − mean² = Σ_c π_c (v_c + (μ_c − mean)²)

    Args:
        components: Gaussians with batch shape ``(components, *batch)`` over n points; a ``torch.distributions.Normal``
            of shape ``(components, *batch, n)`` is read as Gaussians with independent values. ``Projected``
            and ``Truncated`` predictions may be components too.
        weights: π ``(components,)``, or ``(components, *batch)`` for weights that differ between fields; not negative,
            with sum 1 up to rounding (then normalised). Equal by default.
    """

    def __init__(
        self,
        components: MultivariateNormal | Normal | Projected | Truncated,
        weights: Float[Array, " components *batch"] | None = None,
    ) -> None:
        centre = components.mode  # unlike the mean of a projected prediction it needs no draws
        if centre.ndim < 2:
            raise InvalidArgumentError(
                f"The components of a mixture need shape (components, *batch, n), got {tuple(centre.shape)}."
            )
        count = centre.shape[0]
        weights = torch.full((count,), 1.0 / count).to(centre) if weights is None else weights
        weights = floating(as_tensor(weights, dtype=None))
        slack, weights = max(1e-5, torch.finfo(weights.dtype).eps), _at_least_single(weights)
        shapes = {torch.Size([count]), centre.shape[:-1]}
        total = weights.detach().sum(dim=0)
        valid = (weights >= 0).all() & ((total - 1).abs() <= slack).all()
        if weights.shape not in shapes or (are_readable(weights) and not bool(valid)):
            wanted = " or ".join(dict.fromkeys(str(shape) for shape in ((count,), tuple(centre.shape[:-1]))))
            raise InvalidArgumentError(
                f"weights must be {wanted}, not negative, with sum 1 over the components, got shape "
                f"{tuple(weights.shape)}, sum {_range(total)} and smallest value {float(weights.min()):g}; divide them "
                "by their sum, and take the softmax of logits."
            )
        self.components = components
        self.weights = weights / weights.sum(dim=0)

    def __getattr__(self, name: str) -> Any:
        if name in _OF_ONE_GAUSSIAN:
            raise AttributeError(f"A Mixture has no {name}: {_OF_ONE_GAUSSIAN[name]}")
        raise AttributeError(f"'Mixture' object has no attribute '{name}'")

    def __repr__(self) -> str:
        components = f"{len(self.weights)} × {type(self.components).__name__}"
        return f"Mixture({components}, batch_shape={tuple(self.batch_shape)}, event_shape={tuple(self.event_shape)})"

    @property
    def field_weights(self) -> Tensor:
        """Weights ``(components, *batch)``, with axes of length 1 where they are the same for all fields."""
        return self.weights.reshape(-1, *[1] * len(self.batch_shape)) if self.weights.ndim == 1 else self.weights

    @property
    def mean(self) -> Tensor:
        """Mean ``(*batch, n)``."""
        means = self.components.mean
        return self._average(means).to(means.dtype)

    @property
    def variance(self) -> Tensor:
        """Mean of the variances plus variance of the means, ``(*batch, n)``.

        If the component means are averages of d draws, their spread already contains 1/d of the components' variance,
        so that part is left out of the first term.
        """
        within, means = variance_of(self.components), self.components.mean
        if isinstance(self.components, Projected | Truncated) and not self.components.is_exact:
            within = within * (1 - 1 / self.components.draws)
        apart = _at_least_single(means) - self._average(means)
        return self._average(within + apart.square()).to(means.dtype)

    @property
    def batch_shape(self) -> torch.Size:
        """Batch axes without the component axis."""
        return self.components.mode.shape[1:-1]

    @property
    def event_shape(self) -> torch.Size:
        """Number of points ``(n,)``."""
        return self.components.mode.shape[-1:]

    @property
    def bounds(self) -> tuple[Tensor, Tensor] | None:
        """The widest bounds of the components, which broadcast to ``(*batch, n)``; None without bounds."""
        if not isinstance(self.components, Projected | Truncated):
            return None
        (lower, upper), axes = self.components.bounds, self.components.mode.ndim
        return lower.amin(dim=0) if lower.ndim == axes else lower, upper.amax(dim=0) if upper.ndim == axes else upper

    def rsample(self, sample_shape: torch.Size = SINGLE, *, generator: torch.Generator | None = None) -> Tensor:
        """Draws a component for every field, then the field; differentiable in the components, not in the weights."""
        sample_shape, n = torch.Size(sample_shape), self.event_shape[0]
        total, fields = sample_shape.numel(), self.batch_shape.numel()
        choice = self._choose(total, generator)
        if share_covariance(self.components):
            picked = self._draw_around(choice, generator)
            return picked.reshape(*sample_shape, *self.batch_shape, n)
        chosen = torch.nn.functional.one_hot(choice, len(self.weights))
        # The j-th time a field picks a component, it takes the component's j-th draw.
        turn = (chosen.cumsum(dim=0) * chosen).sum(dim=-1) - 1
        turns, field = int(turn.max()) + 1, torch.arange(fields, device=choice.device).expand_as(turn)
        at_once = max(1, DRAWN_AT_ONCE // (len(self.weights) * fields * n))
        picked = self.components.mode.new_empty(total, fields, n)
        for first in range(0, turns, at_once):
            number = min(at_once, turns - first)
            draws = draw(self.components, (number,), generator).reshape(number, len(self.weights), fields, n)
            now = (turn >= first) & (turn < first + number)
            picked = picked.index_put((now,), draws[turn[now] - first, choice[now], field[now]])
        return picked.reshape(*sample_shape, *self.batch_shape, n)

    def _draw_around(self, choice: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draws ``(total, fields, n)`` around the means of the components chosen ``(total, fields)``, which share Σ."""
        assert isinstance(self.components, MultivariateNormal)
        first, (total, fields) = self.components[0], choice.shape
        means = self.components.mean
        moves = (means - means[0]).reshape(len(means), fields, -1)
        draws = draw(first, (total,), generator).reshape(total, fields, -1)
        return draws + moves[choice, torch.arange(fields, device=choice.device)]

    def log_prob(self, value: Float[Tensor, "*sample batch n"]) -> Tensor:
        """log Σ_c π_c p_c(u).

        Raises:
            InvalidArgumentError: If the components meet inequalities and so have no density, or the fields do not fit.
        """
        if isinstance(self.components, Projected | Truncated):
            raise InvalidArgumentError(
                "Fields that meet inequalities have no density that is computed: projected draws lie on the boundary "
                "with positive probability. Score them by samples (crps_of_samples, energy_score)."
            )
        value = self._broadcast(value)
        lead = value.ndim - self.components.mean.ndim + 1
        log_prob = self.components.log_prob(value.unsqueeze(lead))
        if isinstance(self.components, Normal):
            log_prob = log_prob.sum(dim=-1)
        return torch.logsumexp(self.field_weights.log() + log_prob, dim=lead)

    def _average(self, values: Tensor) -> Tensor:
        values = _at_least_single(values)
        weights = self.weights.to(values.dtype)
        if weights.ndim == 1:
            return torch.tensordot(weights, values, dims=1)
        return (weights[..., None] * values).sum(dim=0)

    def _choose(self, total: int, generator: torch.Generator | None) -> Tensor:
        """The components of ``total`` draws of every field ``(total, fields)``."""
        fields, weights = self.batch_shape.numel(), self.weights.detach()
        if weights.ndim == 1:
            return torch.multinomial(weights, total * fields, True, generator=generator).reshape(total, fields)
        return torch.multinomial(weights.flatten(1).mT, total, True, generator=generator).mT

    def _broadcast(self, value: Tensor) -> Tensor:
        """The value with all batch axes of the mixture."""
        shape = torch.Size([*self.batch_shape, *self.event_shape])
        try:
            expanded = torch.broadcast_shapes(value.shape, shape)
        except RuntimeError:
            expanded = torch.Size()
        if value.shape[-1:] != self.event_shape or expanded[-len(shape) :] != shape:
            raise InvalidArgumentError(
                f"The mixture is over {shape[-1]} points with batch axes {tuple(shape[:-1])}, but the fields have "
                f"shape {tuple(value.shape)}; give (*sample, *batch, n)."
            )
        return value.expand(expanded)


def _at_least_single(values: Tensor) -> Tensor:
    """Values in single precision if theirs is half."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _range(values: Tensor) -> str:
    smallest, largest = float(values.min()), float(values.max())
    return f"{smallest:g}" if smallest == largest else f"between {smallest:g} and {largest:g}"
