"""Flow matching: a generative surrogate that draws whole fields, also under a law and from observations.

A velocity v(z, t) is fitted to z₁ − z₀ by least squares at z_t = (1 − t) z₀ + t z₁, with z₀ noise and z₁ a training
field; integrating dz/dt = v from 0 to 1 turns noise into fields (Lipman et al., ICLR 2023).
"""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from linear_operator.operators import LinearOperator
from torch import Generator, Tensor, nn

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.values import as_tensor
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError, SamplingInterruptedError
from probconserv.nonlinear.law import AnyLaw
from probconserv.nonlinear.projection import contradictions_of
from probconserv.surrogates._interpolation import check_axes
from probconserv.surrogates.flow.corrections import check_law, shared_by_all
from probconserv.surrogates.flow.discrepancy import distances
from probconserv.surrogates.flow.latent import Latent
from probconserv.surrogates.flow.network import ResidualVelocity
from probconserv.surrogates.flow.observations import DrawnFields, given_observations, interpolation_rows
from probconserv.surrogates.flow.particles import FEW, Draws, Particles, Population
from probconserv.surrogates.flow.samplers import conditioned, options_for, sampler_for, twisted, twisted_population
from probconserv.surrogates.flow.storage import read_flow, write_flow
from probconserv.surrogates.flow.tasks import Sampler, SamplingOptions, SamplingTask
from probconserv.surrogates.surrogate import Context, Query, Surrogate, check_compatible, evaluating
from probconserv.surrogates.weights import stored_config
from probconserv.training import StepContext, Task, TrainingConfig, train
from probconserv.training.checkpoint import TrainingState
from probconserv.training.loop import random_seed
from probconserv.training.progress import ProgressHook
from solvers._former import renamed

_CHUNK = 512  # draws at a time
_EXACT_OBSERVATION = 1e-6  # variance of observations without noise of their own, relative to that of the fields


class FlowMatching(Surrogate):
    """A generative model of fields: coordinates, noise and a velocity.

    Args:
        latent: Coordinates in which the flow works: ``KarhunenLoeve``, or your own ``Latent``.
        velocity: v, from z ``(s, *state)`` and times ``(s,)`` to ``(s, *state)``: ``ResidualVelocity`` for
            coefficients, or any module.
        axes: Coordinates of the grid along every axis of a field, time first; ``predict`` needs them.
        draws: Number of draws of a prediction.
        options: Steps of a prediction.
        seed: Seed of a prediction, the same for all functions.
    """

    def __init__(
        self,
        latent: Latent,
        velocity: nn.Module,
        *,
        axes: Sequence[Float[Tensor, " length"]] | None = None,
        draws: int = 100,
        options: SamplingOptions | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(latent, Latent):
            raise InvalidArgumentError(
                f"latent must be a Latent, as KarhunenLoeve, and comes before velocity; got {type(latent).__name__}, "
                f"then {type(velocity).__name__}."
            )
        if draws < 2:
            raise InvalidArgumentError(f"draws must be at least 2, got {draws}.")
        self.latent: Latent = latent
        self.velocity = velocity
        self.axes = None if axes is None else check_axes(axes, latent.shape)
        self.draws, self.seed = draws, seed
        self.options = options or SamplingOptions()

    def fit(
        self,
        training: Float[Tensor, "count ..."],
        validation: Float[Tensor, "validation ..."] | None = None,
        *,
        config: TrainingConfig,
        folder: str | Path | None = None,
        batch: int = 512,
        progress: bool | ProgressHook = True,
    ) -> TrainingState:
        """Trains the velocity, as ``ANP.fit`` trains a network; initial weights are those of the velocity.

        Args:
            training: Fields to learn from.
            validation: Fields whose loss enters the history at every validation, as ``validation``.
            config: Steps, rate, precision, seed and device.
            folder: Folder of the checkpoint; None for a short training without one.
            batch: Fields in a step, drawn at random.
            progress: See ``ANP.fit``.

        Raises:
            DataFileError: If the checkpoint belongs to another training: of other data or validation fields, another
                velocity or batch.
            TrainingDivergedError: If a loss is not finite, as with a velocity that returns NaN.
            TrainingInterruptedError: If the training was interrupted.
        """
        z = self._encoded(training, "training")
        unseen = None if validation is None else self._encoded(validation, "validation")
        digest = hashlib.sha256(z.numpy().tobytes())
        task = Task(
            model=self.velocity,
            loss=lambda module, step: self._loss(module, step, z, batch),
            validate=None if unseen is None else lambda module, generator: self._validate(module, generator, unseen),
            config={"batch": batch, "data": digest.hexdigest(), "velocity": type(self.velocity).__name__},
            data={"validation": unseen},
            title="flow matching",
        )
        state = train(task, config, None if folder is None else Path(folder), progress)
        self.eval()
        return state

    @renamed(count="draws")
    def sample(
        self,
        draws: int,
        *,
        law: AnyLaw | None = None,
        sampler: Sampler | None = None,
        options: SamplingOptions | None = None,
        seed: int = 0,
        first: int = 0,
    ) -> Float[Tensor, "draws ..."]:
        """The fields of ``draw``, ``(draws − first, *space)``, float64, under a law if one is given."""
        task = SamplingTask(count=draws, law=law, options=options or self.options)
        return self._drawn(task, sampler, seed, first).fields

    @renamed(count="draws")
    def draw(
        self,
        draws: int,
        *,
        law: AnyLaw | None = None,
        sampler: Sampler | None = None,
        options: SamplingOptions | None = None,
        seed: int = 0,
        first: int = 0,
    ) -> Draws:
        """Draws fields, and says which sampler ran and what its particles tell.

        Args:
            draws: Number of fields.
            law: Linear rows, inequalities, both, or a ``NonlinearLaw``; of all draws, or with one batch entry for each.
                Values that no field of the model has are named in a warning.
            sampler: ``twisted``, ``conditioned``, ``unconstrained``, ``eci`` or ``pcfm``; without it ``sampler_for``
                chooses by the law: ``twisted`` for few directions and bounds of coefficients, else ``conditioned``.
                Under bounds that the training fields keep, ``twisted`` draws too flat fields, see there.
            options: Steps and noise of the sampler.
            seed: Equal seeds give equal draws.
            first: Number of draws that an interrupted call has finished; the others are drawn as they would have been.

        Raises:
            InfeasibleConstraintError: If no field meets it, as where its rows contradict each other.
            DependentConstraintsError: If its rows are redundant.
            InvalidArgumentError: If the velocity was not trained or returns NaN or another shape, or a number is out of
                range.
            SamplingInterruptedError: If the sampling was interrupted; it holds the draws that are done.
        """
        task = SamplingTask(count=draws, law=law, options=options or self.options)
        return self._drawn(task, sampler, seed, first)

    def evidence(self, law: AnyLaw, *, options: SamplingOptions | None = None, seed: int = 0) -> Particles:
        """Estimates of a law by particles: its log evidence, and whether the flow knows fields that meet it.

        Without options, those of the flow that have an effect on ``twisted`` are taken. The log evidence of particles
        has an error of first order in the steps; it is extrapolated from a second population with half as many.
        ``flow.evidence(law).in_range`` is a check in one line. Raises as ``draw`` with ``sampler=twisted`` does.
        """
        options = options or options_for("twisted", self.options)
        fewer = max(1, options.steps // 2)
        task = SamplingTask(count=2, law=law, options=options)
        fine = self._drawn(task, twisted, seed, 0, warns=False).particles
        with warnings.catch_warnings(action="ignore"):  # that of the law was given
            task = replace(task, options=replace(options, steps=fewer))
            coarse = self._drawn(task, twisted, seed, 0, warns=False).particles
        assert fine is not None
        assert coarse is not None
        return fine.extrapolated(coarse, options.steps / fewer)

    def predict(self, context: Context, query: Query) -> DrawnFields:
        """Draws of the field given observations, at the query points; see ``Surrogate.predict``.

        Observations are interpolated linearly on the model's grid. Those without ``noise_variance`` have a millionth of
        the variance of the fields. Observations that no field of the model explains, as of a parameter outside of its
        training range, are named in a warning: where draws miss them, which then count as uncertain as draws miss
        them by, and where draws meet them far from all that the model draws without observations.

        Args:
            context: Observations within the grid.
            query: Points within the grid.
        """
        check_compatible(context, query)
        if self.axes is None:
            raise InvalidArgumentError(
                "predict needs to know where the values of a field are; give FlowMatching(axes=...), one tensor of "
                "coordinates for every axis."
            )
        batch = query.points.shape[:-2]
        noise, variance = context.noise, float(self.covariance().diagonal().mean())
        if noise is None:
            noise = _EXACT_OBSERVATION * variance * torch.ones_like(context.values, dtype=torch.float64)
        parts = (context.points, 2), (context.values, 1), (noise, 1), (query.points, 2)
        observed = zip(*(part.reshape(-1, *part.shape[-axes:]) for part, axes in parts), strict=True)

        def sample(law: LinearConstraint | None = None) -> Tensor:
            task = SamplingTask(count=self.draws, law=law, options=self.options)
            return self._drawn(task, None, self.seed, 0, warns=False).fields

        free = cache(lambda: sample().flatten(1))
        drawn = []
        for points, values, variances, targets in observed:
            law = LinearConstraint(interpolation_rows(self.axes, points), values, noise_variance=variances)
            far = partial(distances, self.latent, draws=free)
            fields = given_observations(sample, law, variance, far)
            drawn.append(interpolation_rows(self.axes, targets).functional(fields))
        draws = torch.stack(drawn, dim=1).reshape(self.draws, *batch, query.points.shape[-2])
        return DrawnFields(draws.to(context.values.dtype))

    def save(self, path: str | Path, **notes: Any) -> None:
        """Writes coordinates and weights as one safetensors file, with notes; see ``ANP.save``."""
        write_flow(path, self.latent, self.velocity, self._settings(), notes)

    @classmethod
    def load(cls, path: str | Path, velocity: nn.Module | None = None, latent: Latent | None = None) -> "FlowMatching":
        """Reads a model that ``save`` wrote, in evaluation mode.

        A velocity that was no ``ResidualVelocity`` and a latent of your own have to be given, as modules of the same
        sizes, which are filled with what is stored.

        Raises:
            DataFileError: If the file is missing, damaged or of another model, a module is needed, or has other sizes.
        """
        latent, velocity, settings = read_flow(path, latent, velocity)
        with stored_config(path, "a flow"):
            return cls(latent, velocity, **settings).eval()

    def evaluate(self, z: Tensor, t: float) -> Tensor:
        """The velocity at ``(s, *state)``, float64; the module works in its own precision."""
        if isinstance(self.velocity, ResidualVelocity) and self.velocity.untrained:
            raise InvalidArgumentError(
                "The velocity has not been trained; call fit(fields, config=…) or load a trained flow."
            )
        weight = next(self.velocity.parameters(), torch.empty(0))
        time = torch.full((len(z),), t, dtype=weight.dtype, device=weight.device)
        velocity = self.velocity(z.to(weight), time)
        return velocity.to("cpu", torch.float64) if isinstance(velocity, Tensor) else velocity

    def covariance(self) -> LinearOperator:
        """Covariance of the fields ``(n, n)``, low rank plus diagonal: the metric in which exact rows are met."""
        return self.latent.clean_covariance(0.0)

    def _encoded(self, fields: Float[Tensor, "count ..."], name: str) -> Float[Tensor, "count ..."]:
        """Fields in the coordinates of the flow, float32."""
        fields = as_tensor(fields, dtype=None)
        if tuple(fields.shape[1:]) != self.latent.shape:
            raise InvalidArgumentError(
                f"{name} must be (count, *space) with space {self.latent.shape}, got {tuple(fields.shape)}."
            )
        refuse_missing(fields, f"{name} fields hold")
        with torch.no_grad():
            parts = [self.latent.encode(part.flatten(1)).float() for part in fields.split(_CHUNK)]
        return torch.cat(parts).contiguous()

    def _validate(self, module: nn.Module, generator: Generator, z: Tensor) -> dict[str, float]:
        """The loss on as many draws as there are validation fields."""
        return {"validation": float(self._loss(module, StepContext(0, 0.0, generator), z, len(z)))}

    def _loss(self, module: nn.Module, step: StepContext, z: Tensor, batch: int) -> Tensor:
        """Mean of |v(z_t, t) − (z₁ − z₀)|² over a random batch."""
        rows, generator = step.rows(batch), step.generator
        device = next(module.parameters()).device
        chosen = torch.randint(len(z), (rows,), generator=generator)
        noise = self.latent.noise(rows, generator).float().to(device)
        t = torch.rand(rows, generator=generator).to(device)
        data = z[chosen].to(device)
        along = t.reshape(-1, *[1] * (data.ndim - 1))
        return (module((1 - along) * noise + along * data, t) - (data - noise)).square().mean()

    def _drawn(
        self, whole: SamplingTask, sampler: Sampler | None, seed: int, first: int, *, warns: bool = True
    ) -> Draws:
        """See ``draw``; warnings of particles only with ``warns``."""
        count = whole.count
        if count < 1 or not 0 <= first < count or first % _CHUNK:
            raise InvalidArgumentError(
                f"draws must be at least 1 and first a multiple of {_CHUNK} below it, got {count} and {first}."
            )
        if not (sampler is None or callable(sampler)) or not isinstance(whole.options, SamplingOptions):
            raise InvalidArgumentError(
                "sampler must be a function such as conditioned or eci, and options SamplingOptions, got "
                f"{sampler!r} and {whole.options!r}."
            )
        check_law(self.latent, whole.law, count)
        whole = replace(whole, law=shared_by_all(whole.law))
        done: list[Tensor] = []
        population: Population | None = None
        particles: Particles | None = None
        try:
            with torch.no_grad(), evaluating(self.velocity), contradictions_of(whole.law):
                chosen, by_law = sampler, sampler is None
                if chosen is None:
                    chosen, options = sampler_for(self, whole)
                    whole = replace(whole, options=options)
                if chosen is twisted:
                    population = twisted_population(self, replace(whole, generator=_generator(seed, 1, 0)))
                    particles = population.particles
                    if by_law and particles.ancestors < FEW:
                        population, chosen = None, conditioned
                        whole = replace(whole, options=replace(options_for("conditioned", whole.options), local=True))
                for start in range(first, count, _CHUNK):
                    part = slice(start, start + _CHUNK)
                    task = replace(whole.part(part), generator=_generator(seed, 0, start))
                    done.append(chosen(self, task) if population is None else population.fields(part, task.generator))
        except KeyboardInterrupt as error:
            raise self._interrupted(done, first, count) from error
        if particles is not None and warns and (population is not None or particles.surprising):
            particles.warn()
        fields = torch.cat(done).reshape(-1, *self.latent.shape)
        return Draws(fields, getattr(chosen, "__name__", repr(chosen)), whole.options, particles)

    def _settings(self) -> dict[str, Any]:
        options = asdict(self.options)
        axes = None if self.axes is None else [axis.tolist() for axis in self.axes]
        return {"axes": axes, "draws": self.draws, "seed": self.seed, "options": options}

    def _interrupted(self, done: list[Tensor], first: int, count: int) -> SamplingInterruptedError:
        empty = torch.empty(0, self.latent.points, dtype=torch.float64)
        draws = (torch.cat(done) if done else empty).reshape(-1, *self.latent.shape)
        return SamplingInterruptedError(
            f"The sampling was interrupted after {first + len(draws)} of {count} draws, the new ones of which are the "
            f"attribute draws of this error; the same call with first={first + len(draws)} draws the others.",
            draws,
        )


def _generator(seed: int, stream: int, start: int) -> Generator:
    return Generator().manual_seed(random_seed(seed, stream, start))
