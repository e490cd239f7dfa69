"""Attentive neural process: context points in, a mixture of Gaussians over the query points out.

A deterministic path (self-attention over the context, its mean, cross-attention from the targets) summarises the
observations for every target; a latent path (self-attention, mean, Gaussian z) represents the uncertainty about the
function; a decoder maps both and the target's coordinates to a mean and a scale:

    r_j = cross(p_j + mean(self(context)); self(context)),   z ~ q(z | context),   u_j | z ~ N(μ(r_j, z), s(r_j, z)²)

Source: Kim et al., "Attentive neural processes", ICLR 2019; Hansen et al. 2023, appendix D. Unlike theirs, blocks are
residual with pre-normalisation; target coordinates have fine Fourier features, which sharp fronts need; observed
coordinates have coarse ones, since functions of one family differ smoothly, and observed values have Fourier features.
"""

import math
import warnings
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator
from torch import Generator, Tensor, nn
from torch.distributions import Normal, kl_divergence

from probconserv._linalg.gaussian import FieldGaussian
from probconserv.errors import DataFileError, IncompatibleQueryError, InvalidArgumentError
from probconserv.mixture import Mixture
from probconserv.surrogates._anp_parts import (
    ANPConfig,
    AttentionBlock,
    Decoder,
    LatentEncoder,
    SetEncoder,
    coordinate_features,
    feature_count,
)
from probconserv.surrogates.fitting import (
    Fit,
    FitOptions,
    FunctionSet,
    Sampler,
    Scores,
    TrainingPrediction,
    UnderLaw,
    described,
    evidence_loss,
    to_device,
)
from probconserv.surrogates.surrogate import Context, Query, Surrogate, check_compatible, check_problem, evaluating
from probconserv.surrogates.weights import (
    Weights,
    check_size,
    fill,
    is_alike,
    read_weights,
    stored_config,
    write_weights,
)
from probconserv.training import Task, TrainingConfig, train
from probconserv.training.checkpoint import TrainingState
from probconserv.training.distributed import launched, wait_for_all
from probconserv.training.progress import ProgressHook

_BEYOND = 0.1  # of the length of a range, by which points may lie outside of it
MONITORED = "NLL"
"""The score of a validation that early stopping follows; lower is better."""


class ANP(Surrogate):
    """Attentive neural process as a surrogate; untrained until its weights are fitted or loaded."""

    def __init__(self, config: ANPConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_target = nn.Linear(feature_count(len(config.low), config.frequencies), config.width)
        self.deterministic = SetEncoder(config)
        self.cross = nn.ModuleList(
            AttentionBlock(config.width, config.heads, config.dropout) for _ in range(config.cross_layers)
        )
        self.summary = nn.Sequential(
            nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, config.width)
        )
        self.latent = LatentEncoder(config)
        self.decoder = Decoder(config)

    @property
    def untrained(self) -> bool:
        """Whether the attention to the context is zero, as it was built."""
        blocks = (block for block in self.cross if isinstance(block, AttentionBlock))
        return not any(bool(each.any()) for block in blocks for each in block.output.parameters())

    def forward(
        self,
        context_points: Float[Tensor, "*batch n d"],
        context_values: Float[Tensor, "*batch n"],
        target_points: Float[Tensor, "*batch q d"],
        target_values: Float[Tensor, "*batch q"],
    ) -> TrainingPrediction:
        """Predicts targets with z drawn from q(z | targets), as in training; use ``predict`` for inference.

        The latent path sees every ⌊q/n⌋-th target, starting with the first, and all of them if q < 2n: between n and 2n
        targets if q ≥ n.
        """
        context, values = self._centre(context_points), self._normalise(context_values)
        target = self._centre(target_points)
        stride = max(1, target.shape[-2] // context.shape[-2])
        prior = self.latent(context, values)
        posterior = self.latent(target[..., ::stride, :].detach(), self._normalise(target_values)[..., ::stride])
        hidden = self._represent(context, values, target)
        mean, scale = self._decode(hidden, posterior.rsample())
        return TrainingPrediction(mean, scale, kl_divergence(posterior, prior).sum(dim=-1))

    def components(
        self, context: Context, query: Query, samples: int | None = None
    ) -> tuple[Float[Tensor, "samples *batch q"], Float[Tensor, "samples *batch q"]]:
        """Means and scales ``(samples, *batch, q)`` in the network's dtype, one for every draw of z.

        Raises:
            InvalidArgumentError: If the context has noise variances.
        """
        check_compatible(context, query)
        check_problem("The network", self.config.problem, context, query)
        if context.points.shape[-1] != len(self.config.low):
            raise IncompatibleQueryError(
                f"This network takes {len(self.config.low)} coordinates but the points have "
                f"{context.points.shape[-1]}; give the same columns, time first."
            )
        if context.noise_variance is not None:
            raise InvalidArgumentError(
                "A neural process learns the noise of its training data and cannot use noise_variance; leave it out of "
                "the context, or take a GPSurrogate."
            )
        points, values = self._centre(context.points), self._normalise(context.values)
        prior = self.latent(points, values)
        generator = torch.Generator().manual_seed(self.config.sample_seed)
        shape = (samples or self.config.latent_samples, self.config.latent_width)
        noise = torch.randn(shape, generator=generator).to(prior.loc)
        hidden = self._represent(points, values, self._centre(query.points))
        draws = [self._decode(hidden, prior.loc + prior.scale * draw) for draw in noise]
        means, scales = zip(*draws, strict=True)
        return torch.stack(means), torch.stack(scales)

    @torch.no_grad()
    def predict(self, context: Context, query: Query) -> Mixture:
        """Predicts an equal mixture over draws of z, in evaluation mode; see ``Surrogate.predict``.

        Points farther outside of the ranges ``low`` to ``high`` of the config than a tenth of their lengths are named
        in a warning.

        Returns:
            Mixture of Gaussians with diagonal covariance, in the dtype of the context values.

        Raises:
            InvalidArgumentError: If the network was not trained, or the context has noise variances.
        """
        if self.untrained:
            raise InvalidArgumentError(
                "The network has not been trained; call fit(functions, config=…) or load a trained one."
            )
        with evaluating(self):
            mean, scale = self.components(context, query)
        for name, points in (("Context", context.points), ("Query", query.points)):
            _warn_outside(self.config, points, name)
        dtype = context.values.dtype
        components = FieldGaussian(mean.to(dtype), DiagLinearOperator(scale.double().square().to(dtype)))
        return Mixture(components, torch.full((len(mean),), 1 / len(mean), dtype=dtype, device=mean.device))

    def fit(
        self,
        training: Sampler,
        validation: FunctionSet | Scores | None = None,
        *,
        config: TrainingConfig,
        folder: str | Path | None = None,
        options: FitOptions | None = None,
        progress: bool | ProgressHook = True,
    ) -> Fit:
        """Trains the network, from the checkpoint in the folder if there is one; it is in evaluation mode afterwards.

        Ctrl-C ends the training with a checkpoint, and the same call goes on from it: the weights are then, bit for
        bit, those of a training that was not interrupted.

        Args:
            training: Functions to learn from: a ``FunctionSet``, or (generator, count) → random functions.
            validation: Functions that the network is scored on at every validation, the same ones each time, or a
                function (network, generator) → scores.
            config: Steps, rate, precision, seed and device. The seed is that of the data; initial weights are those
                of the network.
            folder: Folder of the checkpoint, and of the best weights if the training may stop early; None for a short
                training without either. A checkpoint of another network, or of other data, options or validation
                functions is refused. Functions that draw data are compared by a few of their draws, or by
                ``FitOptions.config`` where that is given.
            options: Loss, early stopping and a law with a learnt precision; see ``FitOptions``.
            progress: Whether a progress bar is shown on standard error, or a function that is called after every step.

        Returns:
            The history, the step of the weights that were kept, and the noise variance of the law.

        Raises:
            DataFileError: If the checkpoint belongs to another training; it says in what they differ.
            TrainingDivergedError: If a loss is not finite.
            TrainingInterruptedError: If the training was interrupted.
        """
        options = options or FitOptions()
        options = replace(options, tempering_unit=options.tempering_unit or self.config.value_scale)
        if not callable(training):
            raise InvalidArgumentError(
                "training must be a FunctionSet or a function (generator, count) → functions, got "
                f"{type(training).__name__}; put tensors into FunctionSet(points=..., values=..., context=...)."
            )
        if options.patience is not None and (validation is None or folder is None):
            raise InvalidArgumentError(
                "patience needs validation, functions that the network does not learn from, and a folder for the best "
                "weights."
            )
        model = self if options.law is None else UnderLaw(self, options.law)
        task = Task(
            model=model,
            loss=lambda module, step: evidence_loss(module, step, training, options),
            validate=None if validation is None else partial(_validate, self, validation, options),
            config=options.decisive,
            data={} if folder is None else described(training, validation, options),
            title=options.title,
        )
        folder = None if folder is None else Path(folder)
        if options.patience is None or folder is None:
            state = train(task, config, folder, progress)
            self.eval()
            return Fit(state, state.step, _noise(model))
        return _fit_with_patience(self, task, config, folder, options.patience, progress)

    def save(self, path: str | Path, **notes: Any) -> None:
        """Writes the weights with the config and notes such as seed or steps, as one safetensors file.

        Notes are JSON values; arrays and tensors become numbers.

        Raises:
            DataFileError: If the file cannot be written; its folder must exist.
        """
        write_weights(path, Weights("ANP", asdict(self.config), self.state_dict(), notes))

    @classmethod
    def load(cls, path: str | Path, problem: str = "") -> "ANP":
        """Reads a network that ``save`` wrote, for a problem if one is named; in its stored dtype, in evaluation mode.

        Raises:
            DataFileError: If the file is missing, damaged, or of another model, problem or version.
        """
        weights = read_weights(path, kind="ANP")
        config = _stored_config(path, weights)
        if problem and config.problem != problem:
            raise DataFileError(f"'{path}' holds weights for problem '{config.problem}', not for '{problem}'.")
        network = cls(config)
        fill(path, network, weights.tensors)
        return network.eval()

    def _represent(self, context: Tensor, values: Tensor, target: Tensor) -> Tensor:
        """Target embedding after cross-attention to the encoded context ``(*batch, q, width)``."""
        observed = self.deterministic(context, values)
        features = coordinate_features(target, self.config.frequencies)
        summary = self.summary(observed.mean(dim=-2, keepdim=True))
        hidden = self.embed_target(features.to(self.embed_target.weight)) + summary
        for block in self.cross:
            hidden = block(hidden, observed)
        return hidden

    def _decode(self, hidden: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        mean, scale = self.decoder(hidden, z)
        return self.config.value_scale * mean, self.config.value_scale * scale + self.config.scale_floor

    def _centre(self, points: Tensor) -> Tensor:
        """Coordinates scaled to [−1, 1], float64: the finest features need all digits."""
        low = torch.tensor(self.config.low, dtype=torch.float64, device=points.device)
        high = torch.tensor(self.config.high, dtype=torch.float64, device=points.device)
        return 2 * (points.double() - low) / (high - low) - 1

    def _normalise(self, values: Tensor) -> Tensor:
        return values.double() / self.config.value_scale


def _warn_outside(config: ANPConfig, points: Tensor, name: str) -> None:
    """Warns of points far outside of the ranges of a network, where it has seen nothing and its features repeat."""
    flat = points.detach().double().flatten(0, -2)
    least, most = flat.amin(dim=0).tolist(), flat.amax(dim=0).tolist()
    for column, (low, high) in enumerate(zip(config.low, config.high, strict=True)):
        beyond = _BEYOND * (high - low)
        if least[column] < low - beyond or most[column] > high + beyond:
            warnings.warn(
                f"{name} points reach from {least[column]:.4g} to {most[column]:.4g} in column {column}, but the "
                f"network is for coordinates from {low:.4g} to {high:.4g} and knows nothing beyond: its predictions "
                "there are arbitrary. Give coordinates in the unit of the training, or train on a range that holds "
                "them.",
                stacklevel=4,
            )


def _fit_with_patience(
    network: ANP, task: Task, config: TrainingConfig, folder: Path, patience: int, progress: bool | ProgressHook
) -> Fit:
    """Trains until the last validations were all worse than an earlier one, and takes the weights of that."""
    best = folder / "best.safetensors"

    def keep(state: TrainingState) -> None:
        if launched().first and _best_step(state.history) == state.step:
            network.save(best, step=state.step, noise_variance=_noise(task.model))

    def exhausted(history: list[dict[str, float]]) -> bool:
        steps = [entry["step"] for entry in history if MONITORED in entry]
        return len(steps) > patience and _best_step(history) < steps[-patience]

    state = train(replace(task, validated=keep, stop=exhausted), config, folder, progress)
    wait_for_all()  # rank 0 has then written the best weights
    network.eval()
    weights = read_weights(best, "ANP")
    network.load_state_dict(weights.tensors)
    return Fit(state, weights.notes["step"], weights.notes["noise_variance"])


def _noise(model: nn.Module) -> float | None:
    return float(model.log_noise_variance.detach().exp()) if isinstance(model, UnderLaw) else None


def _best_step(history: list[dict[str, float]]) -> int:
    """Step of the validation with the lowest score, the first of several; 0 before any."""
    validated = [entry for entry in history if MONITORED in entry]
    return int(min(validated, key=lambda entry: entry[MONITORED])["step"]) if validated else 0


def _validate(
    network: ANP, validation: FunctionSet | Scores, options: FitOptions, _: nn.Module, generator: Generator
) -> dict[str, float]:
    """Scores of the validation; those of a set of functions are of the mixture at its targets."""
    if isinstance(validation, FunctionSet):
        scores = _scores(network, validation, options.validation_functions, generator)
    else:
        scores = validation(network, generator)
    if options.patience is not None and not math.isfinite(scores.get(MONITORED, math.nan)):
        raise InvalidArgumentError(
            f"patience follows '{MONITORED}', which validation must return as a finite number; got {scores}."
        )
    return scores


def _scores(network: ANP, functions: FunctionSet, count: int, generator: Generator) -> dict[str, float]:
    """Mean squared error, and negative log-likelihood of the mixture at a point."""
    batch = to_device(functions(generator, count), next(network.parameters()).device)
    few = min(10, network.config.latent_samples)
    context, query = Context(batch.context_points, batch.context_values), Query(batch.target_points)
    means, scales = (part.double() for part in network.components(context, query, few))
    values = batch.target_values.double()
    likelihood = Normal(means, scales).log_prob(values).logsumexp(dim=0) - math.log(few)
    error = (means.mean(dim=0) - values).square()
    return {MONITORED: -float(likelihood.mean()), "MSE": float(error.mean())}


def _stored_config(path: str | Path, weights: Weights) -> ANPConfig:
    """The config in a file of weights, checked for consistency with the tensors of the file."""
    expected = {field.name for field in fields(ANPConfig)}
    if set(weights.config) != expected:
        raise DataFileError(
            f"The config in '{path}' does not fit this version of ANP: "
            f"{', '.join(sorted(set(weights.config) ^ expected))}; train again."
        )
    arguments: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in weights.config.items()}
    usual = asdict(ANPConfig(low=(0.0,), high=(1.0,)))
    if not all(is_alike(value, usual[name]) for name, value in arguments.items()):
        raise DataFileError(f"The config in '{path}' has entries of the wrong type: {weights.config}; train again.")
    with stored_config(path, "an ANP"):
        config = ANPConfig(**arguments)
    check_size(path, weights.tensors, config.least_parameters, config.blocks)
    return config
