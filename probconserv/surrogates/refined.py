"""A network on top of an ``EmpiricalGP``: convolutions that correct its mean and its covariance on a grid.

The mean m and the deviations of the EmpiricalGP at the wanted time and at a few others are channels of a convolutional
network, which adds to the mean and to the covariance Σ at the wanted time:

    m + s ⊙ shift(x),   D Σ D + F Fᵀ + diag v,   s² = diag Σ,

D positive and diagonal, F of a few columns. It learns from the functions that the EmpiricalGP is made of, observed at
random places with noise, by the joint likelihood of whole fields; a function is left out of the mixture that predicts
it.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn.functional import gelu, softplus

from probconserv._linalg.gaussian import FieldGaussian
from probconserv._linalg.values import as_tensor
from probconserv.errors import DataFileError, IncompatibleQueryError, InvalidArgumentError
from probconserv.surrogates.empirical import EmpiricalGP, conditioned, leading
from probconserv.surrogates.empirical import Task as EmpiricalTask
from probconserv.surrogates.surrogate import Context, Query, Surrogate, check_compatible
from probconserv.surrogates.weights import Weights, fill, read_weights, write_weights
from probconserv.training import StepContext, Task, TrainingConfig, TrainingState, train
from probconserv.training.progress import ProgressHook

_FUNCTIONS_AT_ONCE = 16
_SMALLEST = 1e-6  # variance that is added to every point, relative to that of the functions


@dataclass(frozen=True, kw_only=True)
class RefinedConfig:
    """Sizes of the network.

    Args:
        width: Channels, a multiple of 4.
        dilations: Of the residual blocks, one convolution each.
        kernel: Points of a convolution along an axis, odd.
        rank: Columns of F.
        times: Further times whose prediction the network sees, spread evenly over those of the functions.
        components: Heaviest functions whose spread enters the covariance.
        basis: Leading components of the functions' covariance.

    Raises:
        InvalidArgumentError: If a number is out of range.
    """

    width: int = 48
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 2, 4, 1)
    kernel: int = 7
    rank: int = 8
    times: int = 7
    components: int = 64
    basis: int = 300

    def __post_init__(self) -> None:
        for name in ("width", "kernel", "rank", "times", "components", "basis"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.width % 4 or not self.kernel % 2 or not self.dilations or min(self.dilations) < 1:
            raise InvalidArgumentError(
                "width must be a multiple of 4, kernel odd and dilations at least 1, got "
                f"{self.width}, {self.kernel} and {self.dilations}."
            )


class _Moments(NamedTuple):
    """Mean and deviations ``(b, times, n)``, the wanted time first, and the covariance at that time ``(b, n, n)``."""

    mean: Tensor
    deviation: Tensor
    covariance: Tensor


class Refined(Surrogate):
    """An ``EmpiricalGP`` whose prediction of whole fields is corrected by a convolutional network.

    Args:
        empirical: The process, of time and one to three axes of space. Its bandwidth is used.
        config: Sizes of the network.
        seed: Of its initial weights.
    """

    _basis: Tensor

    def __init__(self, empirical: EmpiricalGP, config: RefinedConfig | None = None, *, seed: int = 0) -> None:
        super().__init__()
        if not 2 <= len(empirical.axes) <= 4:
            raise InvalidArgumentError(
                f"Refined needs functions of time and one to three axes of space, got {len(empirical.axes)} axes."
            )
        self.config, self.empirical, self.axes = config or RefinedConfig(), empirical, empirical.axes
        self.scale = float(empirical.functions.std())
        functions = empirical.functions
        basis = leading(functions, min(self.config.basis, functions.shape[1] - 1)).float()
        self.register_buffer("_basis", basis, persistent=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = _Network(self.config, tuple(len(axis) for axis in self.axes[1:]))

    def predict(self, context: Context, query: Query) -> FieldGaussian:
        """Predicts the field on the functions' grid at one time; see ``Surrogate.predict``.

        Args:
            context: Observations ``(*batch, n)`` with variances of their errors.
            query: All points of the grid at one time, in row-major order ``(*batch, q, d)``; the time may differ
                between entries of the batch.

        Returns:
            A Gaussian with a dense covariance, in the precision of the context's values.

        Raises:
            IncompatibleQueryError: If context, query and functions do not match, or the query is no such grid.
            InvalidArgumentError: If the context has no variances.
        """
        check_compatible(context, query)
        if context.noise is None:
            raise InvalidArgumentError("Refined needs the variances of the errors as noise_variance of the context.")
        points, noise = query.points.flatten(0, -3) if query.points.ndim > 2 else query.points[None], context.noise
        time = self._time_of(points)
        seen = context.points.reshape(len(points), -1, points.shape[-1])
        y, noise = (part.reshape(len(points), -1) for part in (context.values, noise))
        means, covariances = [torch.zeros(0)] * len(points), [torch.zeros(0)] * len(points)
        with torch.no_grad():
            for wanted in time.unique():
                for chosen in (time == wanted).nonzero()[:, 0].split(_FUNCTIONS_AT_ONCE):
                    part = seen[chosen], y[chosen], noise[chosen]
                    moments = self._moments(float(wanted), *part, [None] * len(chosen))
                    mean, covariance = self(moments, float(wanted), seen.shape[1])
                    for number, entry in enumerate(chosen.tolist()):
                        means[entry], covariances[entry] = mean[number], covariance[number]
        batch, dtype = query.points.shape[:-2], context.values.dtype
        shape = (*batch, points.shape[-2])
        mean, covariance = torch.stack(means).to(dtype), torch.stack(covariances).to(dtype)
        return FieldGaussian(mean.reshape(shape), covariance.reshape(*shape, shape[-1]))

    def forward(self, moments: _Moments, time: float, count: int) -> tuple[Tensor, Tensor]:
        """Corrected mean ``(b, n)`` and covariance ``(b, n, n)``, float64."""
        spread = moments.deviation[:, 0] + 1e-2 * self.scale
        position = (time - float(self.axes[0][0])) / float(self.axes[0][-1] - self.axes[0][0])
        known = (2 * position - 1, math.log(count / 14))
        raw = self.network(moments.mean / self.scale, moments.deviation / self.scale, known)
        shift, stretch, extra, factors = raw[:, 0], raw[:, 1], raw[:, 2], raw[:, 3:]
        factors = (factors * spread[:, None]).double()
        stretch = (2 * torch.tanh(stretch / 2)).exp().double()
        variance = (spread * softplus(extra)).square() + _SMALLEST * self.scale**2
        covariance = stretch[:, :, None] * moments.covariance.double() * stretch[:, None]
        covariance = covariance + factors.mT @ factors + torch.diag_embed(variance.double())
        return (moments.mean[:, 0] + shift * spread).double(), covariance

    def fit(
        self,
        noise: float,
        counts: Sequence[int],
        training: TrainingConfig,
        folder: str | Path,
        *,
        batch: int = 32,
        validation: Float[Tensor, "functions ..."] | None = None,
        progress: bool | ProgressHook = True,
    ) -> TrainingState:
        """Trains the network on the functions of the EmpiricalGP, from the checkpoint in the folder if there is one.

        Args:
            noise: Standard deviation of the observations' errors.
            counts: Numbers of observations; each step draws one of them.
            training: Steps, rate, precision, seed and device.
            folder: Folder of the checkpoint.
            batch: Functions in a step.
            validation: Functions of the same kind that are scored at every validation ("NLL" a point).
            progress: Whether a progress bar is shown, or a function that is called after every step.

        Returns:
            Steps, seconds and history.

        Raises:
            InvalidArgumentError: If noise or counts are out of range.
            TrainingDivergedError: If a loss is not finite.
            TrainingInterruptedError: If the training was interrupted; the same call goes on.
        """
        if not noise > 0 or not counts or min(counts) < 1 or batch < 1:
            raise InvalidArgumentError(
                f"noise must be positive, counts and batch at least 1, got {noise}, {tuple(counts)} and {batch}."
            )
        functions = self.empirical.functions.mT
        held = None if validation is None else as_tensor(validation).flatten(1)

        def loss(model: nn.Module, step: StepContext) -> Tensor:
            chosen = torch.randint(len(functions), (step.rows(batch),), generator=step.generator)
            return self._loss(model, functions[chosen], chosen.tolist(), noise, counts, step.generator)

        def score(model: nn.Module, generator: Generator) -> dict[str, float]:
            assert held is not None
            parts = held.split(_FUNCTIONS_AT_ONCE)
            with torch.no_grad():
                losses = [
                    float(self._loss(model, part, [None] * len(part), noise, counts, generator)) for part in parts
                ]
            return {"NLL": sum(losses) / len(losses)}

        config = {"noise": noise, "counts": list(counts), "batch": batch, **asdict(self.config)}
        task = Task(
            model=self, loss=loss, validate=None if held is None else score, config=config, title="refined EmpiricalGP"
        )
        state = train(task, training, Path(folder), progress)
        self.eval()
        return state

    def save(self, path: str | Path, **notes: Any) -> None:
        """Writes the network as one safetensors file, without the functions; see ``ANP.save``."""
        config = {**asdict(self.config), "functions": self.empirical.functions.shape[1]}
        write_weights(path, Weights("Refined", config, self.network.state_dict(), notes))

    @classmethod
    def load(cls, path: str | Path, empirical: EmpiricalGP) -> "Refined":
        """Reads the network that ``save`` wrote, on top of the process that it was trained on.

        Raises:
            DataFileError: If the file is missing, damaged, or of another model.
        """
        weights = read_weights(path, kind="Refined")
        config = {name: value for name, value in weights.config.items() if name != "functions"}
        try:
            made = cls(empirical, RefinedConfig(**{**config, "dilations": tuple(config["dilations"])}))
        except (KeyError, TypeError) as error:
            raise DataFileError(f"'{path}' is not a stored Refined ({error}); train again.") from error
        fill(path, made.network, weights.tensors)
        return made.eval()

    def _loss(
        self,
        model: nn.Module,
        fields: Tensor,
        without: Sequence[int | None],
        noise: float,
        counts: Sequence[int],
        generator: Generator,
    ) -> Tensor:
        """Negative joint log-likelihood a point of functions ``(b, t·n)`` at a random time, observed at random."""
        count = counts[int(torch.randint(len(counts), (), generator=generator))]
        row = int(torch.randint(len(self.axes[0]), (), generator=generator))
        index = torch.randint(fields.shape[1], (len(fields), count), generator=generator)
        error = noise * torch.randn(index.shape, generator=generator, dtype=torch.float64)
        y = fields.gather(1, index).double() + error
        grid = torch.cartesian_prod(*self.axes)
        with torch.no_grad():
            time = float(self.axes[0][row])
            moments = self._moments(time, grid[index], y, torch.full_like(y, noise**2), without)
        mean, covariance = model(moments, time, count)
        n = mean.shape[1]
        chol = torch.linalg.cholesky(covariance)
        apart = (fields[:, row * n : (row + 1) * n].double() - mean)[..., None]
        white = torch.linalg.solve_triangular(chol, apart, upper=False)[..., 0]
        logdet = chol.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        return ((0.5 * white.square().sum(dim=-1) + logdet) / n).mean() + 0.5 * math.log(2 * math.pi)

    def _moments(
        self, time: float, points: Tensor, y: Tensor, noise: Tensor, without: Sequence[int | None]
    ) -> _Moments:
        """Moments of the mixture of the EmpiricalGP for observations ``(b, m)``, each without one of its functions."""
        rows = torch.linspace(0, len(self.axes[0]) - 1, self.config.times).round().long()
        times = torch.cat([torch.tensor([time], dtype=torch.float64), self.axes[0][rows]])
        wanted = self.empirical.at(torch.cartesian_prod(times, *self.axes[1:]), self._basis)
        n, found = len(wanted.values) // len(times), []
        for places, seen, variance, left_out in zip(points, y, noise, without, strict=True):
            observed = self.empirical.at(places, self._basis)
            assert observed.factor is not None
            assert wanted.factor is not None
            task = EmpiricalTask(observed, wanted, observed.factor, wanted.factor, seen.double(), variance.double())
            each = conditioned(task, self.empirical.bandwidth, left_out)
            heavy = slice(self.config.components)
            apart = each.weights[heavy, None].sqrt() * (each.centres[heavy] - each.mean)
            root = torch.cat([each.root, apart.mT], dim=1)
            deviation = (root.square().sum(dim=1) + each.independent).sqrt()
            covariance = root[:n] @ root[:n].mT + each.independent[:n].diag()
            found.append((each.mean.unflatten(0, (-1, n)), deviation.unflatten(0, (-1, n)), covariance))
        return _Moments(*(torch.stack(part).float() for part in zip(*found, strict=True)))

    def _time_of(self, points: Tensor) -> Tensor:
        """The time of every entry ``(b,)``."""
        grid = torch.cartesian_prod(*self.axes[1:]).reshape(-1, len(self.axes) - 1).to(points)
        fits = points.shape[1:] == (len(grid), len(self.axes))
        if not fits or not bool(torch.isclose(points[..., 1:], grid).all()) or bool(points[..., 0].diff(dim=1).any()):
            raise IncompatibleQueryError(
                f"Refined predicts whole fields: a query is all {len(grid)} points of the functions' grid in row-major "
                f"order at one time, got {tuple(points.shape)}."
            )
        return points[:, 0, 0]


class _Network(nn.Module):
    """Channels on a grid → shift, stretch, added variance and factors ``(b, 3 + rank, n)``."""

    walls: Tensor

    def __init__(self, config: RefinedConfig, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(shape) - 1]
        channels = 2 * (config.times + 1) + 2 + 3 * len(shape)
        self.first = convolution(channels, config.width, config.kernel, padding=config.kernel // 2)
        self.norms = nn.ModuleList(nn.GroupNorm(4, config.width) for _ in config.dilations)
        self.wide = nn.ModuleList(
            convolution(config.width, config.width, config.kernel, padding=d * (config.kernel // 2), dilation=d)
            for d in config.dilations
        )
        self.narrow = nn.ModuleList(convolution(config.width, config.width, 1) for _ in config.dilations)
        self.last = convolution(config.width, 3 + config.rank, 1)
        bias = torch.zeros(3 + config.rank)
        bias[2] = -3.0
        self.last.bias = nn.Parameter(bias)
        with torch.no_grad():
            self.last.weight[:3].normal_(std=0.01)
            self.last.weight[3:].normal_(std=0.1)
        coordinates = torch.meshgrid(*(torch.linspace(0, 1, size) for size in shape), indexing="ij")
        walls = [each for x in coordinates for each in (2 * x - 1, (-x / 0.05).exp(), ((x - 1) / 0.05).exp())]
        self.register_buffer("walls", torch.stack(walls), persistent=False)

    def forward(self, mean: Tensor, deviation: Tensor, known: Sequence[float]) -> Tensor:
        """Means and deviations ``(b, times, n)``, and numbers that are the same everywhere."""
        b = len(mean)
        fields = torch.cat([mean, deviation], dim=1).reshape(b, -1, *self.shape).float()
        constants = fields.new_tensor(known).reshape(-1, *[1] * len(self.shape)).expand(-1, *self.shape)
        shared = torch.cat([self.walls, constants]).expand(b, -1, *self.shape)
        hidden = self.first(torch.cat([fields, shared], dim=1))
        for norm, wide, narrow in zip(self.norms, self.wide, self.narrow, strict=True):
            hidden = hidden + narrow(gelu(wide(gelu(norm(hidden)))))
        return self.last(hidden).flatten(2)
