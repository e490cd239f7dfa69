"""How a neural process is fitted: functions to learn from, the loss, early stopping, and a law with a learnt precision.

The loss of a batch is the tempered evidence bound of ``TrainingPrediction.loss``. Under a law the prediction is
conditioned before it is scored, as in Hansen et al. 2023, with noise variance σ²; σ² may be learnt with the network.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.distributions import Normal

from probconserv._linalg.values import floating
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.surrogates.surrogate import Context
from probconserv.training import StepContext
from probconserv.training.checkpoint import TrainingState
from probconserv.training.fingerprint import fingerprint
from probconserv.update import condition


class TrainingPrediction(NamedTuple):
    """Terms of the loss of a batch; a tuple, since wrappers of modules pass tuples through."""

    mean: Float[Tensor, "*batch q"]
    scale: Float[Tensor, "*batch q"]
    divergence: Float[Tensor, "*batch"]  # KL(q(z | targets) ‖ q(z | context)) of every function

    def loss(self, values: Float[Tensor, "*batch q"], tempering: float = 0.0, unit: float = 1.0) -> Tensor:
        """Negative evidence lower bound per target, averaged over the batch: a scalar.

        With β > 0 every term is weighted by (scale/unit)^(2β), without gradient, so that targets with a small scale do
        not dominate (β-NLL, Seitzer et al., ICLR 2022); β = 1 fits the mean by least squares. The divergence has weight
        one, and so has a target whose scale is the unit.
        """
        misfit = -Normal(self.mean, self.scale, validate_args=False).log_prob(values)
        weight = (self.scale.detach() / unit) ** (2 * tempering)
        return (weight * misfit).mean() + self.divergence.mean() / values.shape[-1]


@dataclass(frozen=True)
class FunctionSample:
    """Functions with context and target points; any dataclass with at least these tensors will do."""

    context_points: Float[Tensor, "batch n d"]
    context_values: Float[Tensor, "batch n"]
    target_points: Float[Tensor, "batch q d"]
    target_values: Float[Tensor, "batch q"]


Sampler = Callable[[Generator, int], Any]
"""(generator, count) → ``count`` random functions, a ``FunctionSample``; equal generators give equal functions."""
Scores = Callable[[Any, Generator], dict[str, float]]
"""(network, generator) → scores by name; ``NLL`` is the one that early stopping follows."""


@dataclass(frozen=True, kw_only=True)
class FunctionSet:
    """A finite set of functions, each given at n points; a call draws functions and splits their points at random.

    Args:
        points: Points ``(functions, n, d)``, time first, or ``(n, d)`` where all functions share them.
        values: Field ``(functions, n)``.
        context: Number of points of the context; the others are targets.
    """

    points: Float[Tensor, "*functions n d"]
    values: Float[Tensor, "functions n"]
    context: int

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.points.shape[:-1] not in (self.values.shape, self.values.shape[1:]):
            raise InvalidArgumentError(
                "points must be (functions, n, d) or (n, d) and values (functions, n), got "
                f"{tuple(self.points.shape)} and {tuple(self.values.shape)}."
            )
        Context(self.points.expand(*self.values.shape, -1), self.values)  # refuses what is not finite
        for name in ("points", "values"):
            object.__setattr__(self, name, floating(getattr(self, name)))
        if not 1 <= self.context < self.values.shape[-1]:
            raise InvalidArgumentError(
                f"context must be from 1 to {self.values.shape[-1] - 1}, since a function has {self.values.shape[-1]} "
                f"points and needs a target, got {self.context}."
            )

    def __call__(self, generator: Generator, count: int) -> FunctionSample:
        """Random functions, with repetitions, each with its own split."""
        functions, n = self.values.shape
        chosen = torch.randint(functions, (count,), generator=generator)
        order = torch.rand(count, n, generator=generator).argsort(dim=-1)
        points = self.points.expand(functions, n, -1)[chosen[:, None], order]
        values = self.values[chosen[:, None], order]
        seen, rest = slice(self.context), slice(self.context, None)
        return FunctionSample(points[:, seen], values[:, seen], points[:, rest], values[:, rest])


@dataclass(frozen=True, kw_only=True)
class LearntLaw:
    """A law that predictions are conditioned on before they are scored, with a noise variance that is learnt.

    Args:
        build: (batch on the device of the network) → law of its targets, rows ``(*batch, k, q)``.
        noise_variance: σ² at the start, in the units of the law's total squared.
        learnt: Whether σ² is learnt with the network, or stays; the precision is 1/σ².

    Raises:
        InvalidArgumentError: If the variance is not positive: training starts from a law that is not exact.
    """

    build: Callable[[Any], LinearConstraint]
    noise_variance: float = 1e-4
    learnt: bool = True

    def __post_init__(self) -> None:
        if not (math.isfinite(self.noise_variance) and self.noise_variance > 0):
            raise InvalidArgumentError(
                f"noise_variance must be positive and finite, got {self.noise_variance}; training can lower it to "
                "any size, and condition imposes the exact law afterwards."
            )


Penalty = Callable[[nn.Module, Any, StepContext], Tensor]


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """Options of a fit in addition to its ``TrainingConfig``.

    Args:
        batch: Functions in a step.
        tempering: β of ``TrainingPrediction.loss`` at the start; it falls linearly to 0.
        tempering_fraction: Fraction of the steps after which it is 0.
        tempering_unit: The unit of ``TrainingPrediction.loss``, in that of the field. By default it is the
            ``value_scale`` of the network, so that data in another unit train the same network.
        validation_functions: Number of functions of a validation set that the network is scored on.
        patience: Number of validations without a better ``NLL`` after which the training stops; the weights are then
            those of the best validation. None trains to the end and keeps the last weights.
        law: The law that predictions are conditioned on in training.
        penalty: (network, batch, step) → a term that is added to the loss.
        config: What else decides the result, as JSON can hold it, for instance the name of the data; a checkpoint of
            another is refused.
        title: For the progress bar.
    """

    batch: int = 8
    tempering: float = 0.5
    tempering_fraction: float = 0.7
    tempering_unit: float | None = None
    validation_functions: int = 100
    patience: int | None = None
    law: LearntLaw | None = None
    penalty: Penalty | None = None
    config: Any = None
    title: str = "neural process"

    def __post_init__(self) -> None:
        for name in ("batch", "validation_functions", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidArgumentError(f"{name} must be at least 1, got {value}.")
        if not (0 <= self.tempering <= 1 and 0 < self.tempering_fraction <= 1):
            raise InvalidArgumentError(
                "tempering must lie in [0, 1] and tempering_fraction in (0, 1], got "
                f"{self.tempering} and {self.tempering_fraction}."
            )
        if self.tempering_unit is not None and not 0 < self.tempering_unit < math.inf:
            raise InvalidArgumentError(
                f"tempering_unit must be positive and finite, as the typical size of the field, got "
                f"{self.tempering_unit}."
            )

    @property
    def decisive(self) -> dict[str, Any]:
        """All settings that change the result, as JSON."""
        numbers = {name: getattr(self, name) for name in ("batch", "tempering", "tempering_fraction", "patience")}
        law = None if self.law is None else {"noise_variance": self.law.noise_variance, "learnt": self.law.learnt}
        weighted = self.tempering > 0 and self.tempering_unit not in (None, 1.0)  # release 0.4 has 1 alone
        unit = {"tempering_unit": self.tempering_unit} if weighted else {}
        return numbers | unit | {"law": law, "config": self.config}


class Fit(NamedTuple):
    """The outcome of a fit: the history, the step of the weights that were kept, and σ² of the law, if there is one."""

    state: TrainingState
    best_step: int
    noise_variance: float | None


class UnderLaw(nn.Module):
    """A network and the logarithm of a law's noise variance, which are trained together."""

    def __init__(self, network: nn.Module, law: LearntLaw) -> None:
        super().__init__()
        self.network = network
        start = torch.tensor(math.log(law.noise_variance), dtype=torch.float64)
        self.log_noise_variance = nn.Parameter(start, requires_grad=law.learnt)

    def forward(self, *arguments: Tensor) -> tuple[TrainingPrediction, Tensor]:
        return self.network(*arguments), self.log_noise_variance.exp()


def evidence_loss(model: nn.Module, step: StepContext, training: Sampler, options: FitOptions) -> Tensor:
    """Tempered evidence bound of a fresh batch of functions, under the law if there is one, plus the penalty."""
    device = next(model.parameters()).device
    batch = to_device(training(step.generator, step.rows(options.batch)), device)
    prediction = model(batch.context_points, batch.context_values, batch.target_points, batch.target_values)
    if options.law is not None:
        prediction, noise = prediction
        prediction = _conditioned(prediction, replace(options.law.build(batch), noise_variance=noise))
    tempering = options.tempering * max(0.0, 1.0 - step.progress / options.tempering_fraction)
    loss = prediction.loss(batch.target_values, tempering, options.tempering_unit or 1.0)
    return loss if options.penalty is None else loss + options.penalty(model, batch, step)


def described(training: Sampler, validation: FunctionSet | Scores | None, options: FitOptions) -> dict[str, Any]:
    """The data of a fit that its checkpoint is compared by.

    A set of functions is compared by its tensors, and a function that draws them by a few draws, unless these differ
    from call to call or ``FitOptions.config`` names the data.
    """
    drawn: Any = None
    if isinstance(training, FunctionSet):
        drawn = training
    elif options.config is None:
        drawn, again = (_drawn_by(training, max(1, options.batch // 4)) for _ in range(2))
        drawn = drawn if drawn == again else None
    count = options.validation_functions if isinstance(validation, FunctionSet) else None
    return {"training": drawn, "validation": validation, "validation_functions": count, "penalty": options.penalty}


def _drawn_by(training: Sampler, count: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return fingerprint(training(Generator().manual_seed(0), count))


def _conditioned(prediction: TrainingPrediction, law: LinearConstraint) -> TrainingPrediction:
    """Mean and scale of the targets under the law."""
    posterior = condition(Normal(prediction.mean.double(), prediction.scale.double()), law)
    return prediction._replace(mean=posterior.mean, scale=posterior.stddev)


Batch = TypeVar("Batch")


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Values in float32 on the device; points stay float64 until the network has scaled them."""
    assert is_dataclass(batch)
    parts = {entry.name: getattr(batch, entry.name).to(device) for entry in fields(batch)}
    return type(batch)(**{name: part.float() if "values" in name else part for name, part in parts.items()})
