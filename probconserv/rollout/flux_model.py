"""Fluxes through walls where values are given, by a network that reads the field at the start of a step."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.values import as_tensor
from probconserv.errors import DataFileError, InvalidArgumentError
from probconserv.training import StepContext, Task, TrainingConfig, train
from probconserv.training.checkpoint import TrainingState
from probconserv.training.progress import ProgressHook
from solvers.grids import Grid
from solvers.recording import are_readable

_BATCH = 128
_MODES = 12  # sines along an axis of which a disturbance is made
_BEYOND = 0.5  # of the width of the range of the training: how far values may lie beyond it
_EQUAL = 1e-3  # relative difference of steps that are equal, as times in float32 are
_OF_SIDES = ("given values of the sides", "fluxes")
_OF_RELEASE_3 = (
    "A FluxModel of release 0.3 does not say which steps and values it was trained on; train it again, by "
    "fit((fields, walls, passed), times=…)."
)


Sides = Sequence[tuple[Tensor, Tensor] | None]
Trajectories = tuple[Tensor, Sides, Sides | Tensor]
"""Fields, given values of every side, and the fluxes through it, or what they give to the totals together."""
CONFIG = TrainingConfig(steps=4000, peak_rate=3e-3, weight_decay=1e-4, precision="32-true", validate_every=200)


class _Side(NamedTuple):
    """A side of the grid, with its data before and after every step and the flux that passes it."""

    axis: int
    last: bool
    before: Tensor
    after: Tensor
    flux: Tensor


class FluxModel(nn.Module):
    """The flux that passes a wall in a step, from values beside the wall before the step and the data of the wall.

    Where values are given at a wall, its flux is not, and the slope of a prediction is too wrong to give it. The field
    that a step starts from is better known. One small network serves all walls, point by point. It belongs to the
    length of the steps and the range of the values that it was trained on: a ``Rollout`` refuses other steps, and a
    start or data that lie beyond the range by more than half its width.

    Args:
        grid: Nodes or cells of the field.
        channels: Channels c of the field.
        totals: Fluxes k at a point, one per conserved channel.
        data: Values m that are given at a point of a wall.
        nodes: Values that are read along the normal, from the wall inward.
        width: Width of the three hidden layers.

    Raises:
        DataFileError: If the state of a model of release 0.3 is loaded, which stored neither.
    """

    scales: Tensor
    step: Tensor
    ranges: Tensor

    def __init__(
        self, grid: Grid, *, channels: int = 1, totals: int = 1, data: int = 1, nodes: int = 24, width: int = 128
    ) -> None:
        super().__init__()
        self.grid, self.nodes, self.counts = grid, min(nodes, *grid.shape), (channels, data, totals)
        inputs = channels * self.nodes + 2 * data + 2 * grid.dimension
        layers: list[nn.Module] = []
        for before in (inputs, width, width):
            layers += [nn.Linear(before, width), nn.GELU()]
        self.network = nn.Sequential(*layers, nn.Linear(width, totals))
        self.register_buffer("scales", torch.ones(sum(self.counts)))
        self.register_load_state_dict_pre_hook(_refuse_release_3)
        self.register_buffer("step", torch.tensor(math.nan))  # length of the steps of the training
        self.register_buffer("ranges", torch.zeros(2, channels + data))  # least and largest values of field and data

    def forward(self, field: Tensor, before: Tensor, after: Tensor, axis: int, last: bool) -> Float[Tensor, "..."]:
        """∫ F dt through a wall along +axis, per area ``(*batch, k, *face)``.

        Args:
            field: u at the start of the step ``(*batch, c, *space)``.
            before: Data of the wall then ``(*batch, m, *face)``.
            after: Data at the end of the step.
            axis: Axis normal to the wall.
            last: Whether it is the last side.
        """
        of_field, of_data, of_flux = self.scales.split(self.counts)
        dtype, dimension = self.scales.dtype, self.grid.dimension
        lines = field.to(dtype).movedim(axis - dimension, -1)
        lines = (lines.flip(-1) if last else lines)[..., : self.nodes].movedim(-dimension - 1, -2)
        lead = lines.shape[:-2]
        given = [part.to(dtype).movedim(-dimension, -1).expand(*lead, -1) / of_data for part in (before, after)]
        which = functional.one_hot(torch.tensor(2 * axis + last, device=field.device), 2 * dimension).to(dtype)
        features = [(lines / of_field[:, None]).flatten(-2), *given, which.expand(*lead, -1)]
        return (self.network(torch.cat(features, dim=-1)) * of_flux).movedim(-1, -dimension)

    def check(self, times: Tensor, field: Tensor, data: Tensor, wall: str) -> None:
        """Refuses steps and values unlike those of the training.

        Args:
            times: Times of the steps ``(t,)``.
            field: u at the start ``(*batch, c, *space)``.
            data: Data of a wall at all times ``(*batch, t, m, *face)``.
            wall: Its name.
        """
        dimension, given = self.grid.dimension, data.shape[-self.grid.dimension]
        if given != self.counts[1]:
            raise InvalidArgumentError(
                f"The flux model takes {self.counts[1]} values at a point of a wall, got {given}."
            )
        if not are_readable(times, field, data):
            return
        step, lengths = float(self.step), times.diff()
        if math.isnan(step):
            raise InvalidArgumentError(
                "The flux model has not been trained; call fit((fields, walls, passed), times=…)."
            )
        if bool(((lengths - step).abs() > _EQUAL * step).any()):
            raise InvalidArgumentError(
                f"The flux model was trained on steps of {step:.6g}, got steps from {float(lengths.min()):.6g} to "
                f"{float(lengths.max()):.6g}; take times with that step, or train a model on these."
            )
        points = field.movedim(-dimension - 1, 0).flatten(1), data.movedim(-dimension, 0).flatten(1)
        ends = torch.cat([torch.stack((part.amin(dim=1), part.amax(dim=1))).double() for part in points], dim=1)
        least, largest = self.ranges.double()
        beyond = _BEYOND * (largest - least) + 1e-6 * torch.maximum(least.abs(), largest.abs())
        outside = (ends[0] < least - beyond) | (ends[1] > largest + beyond)
        if bool(outside.any()):
            which, channels = int(outside.nonzero()[0, 0]), self.counts[0]
            name = f"channel {which} of the field" if which < channels else f"value {which - channels} given at {wall}"
            raise InvalidArgumentError(
                f"The flux model was trained on {name} between {float(least[which]):.4g} and "
                f"{float(largest[which]):.4g}, got {float(ends[0, which]):.4g} to {float(ends[1, which]):.4g}; train a "
                "model on such fields and data."
            )

    def fit(
        self,
        training: Trajectories,
        validation: Trajectories | None = None,
        *,
        times: Float[Tensor, " t"],
        config: TrainingConfig = CONFIG,
        folder: str | Path | None = None,
        disturbance: float = 0.02,
        progress: bool | ProgressHook = True,
    ) -> TrainingState:
        """Trains on true trajectories; half of the batches are disturbed smoothly, as fields of a rollout are.

        The loss is the mean absolute error of the fluxes, relative to their root mean square. ``ANP.fit`` says how a
        training is interrupted and resumed.

        Args:
            training: u at the times ``(functions, t, c, *space)``; the given values of every side at the times
                ``(functions, t, m, *face)``, as for ``Rollout``; and the fluxes of the same sides, integrated over the
                steps ``(functions, t − 1, k, *face)``, or, where these are not measured, what all sides together gave
                to the totals in every step ``(functions, t − 1, k)``.
            validation: The same of other functions, whose loss enters the history as ``validation``.
            times: Times of the fields, in equal steps.
            config: Steps, with 128 fields each, rate, precision and seed.
            folder: Folder of the checkpoint; None to keep none. One of other data or another model is refused.
            disturbance: Its root mean square, relative to the standard deviation of the fields.
            progress: See ``ANP.fit``.

        Returns:
            The history, with the loss.
        """
        start, parts = self._steps(training, times, "training")
        unseen = None if validation is None else self._steps(validation, times, "validation")
        fields, together = training[0], isinstance(training[2], Tensor)
        self.step.copy_(as_tensor(times).diff().mean())
        of_walls = torch.stack([torch.stack(_ends(data)) for data, _ in _sides(training)])
        ends = of_walls[:, 0].amin(dim=0), of_walls[:, 1].amax(dim=0)
        self.ranges.copy_(torch.stack([torch.cat(pair) for pair in zip(_ends(fields), ends, strict=True)]))
        each = [start], [part.before for part in parts], [part.flux for part in parts]
        squares = [torch.stack([_mean_squares(part) for part in same]).mean(dim=0) for same in each]
        self.scales.copy_(torch.cat(squares).sqrt())
        self.scales.clamp_(min=torch.finfo(self.scales.dtype).tiny)
        size, spread = self.scales[-self.counts[2] :].mean(), fields.std()

        def loss(model: nn.Module, context: StepContext) -> Tensor:
            chosen = torch.randint(len(start), (context.rows(_BATCH),), generator=context.generator)
            u = start[chosen]
            u = u + disturbance * spread * self._disturbance(u, context.generator) if context.step % 2 else u
            return self._missed(model, u, parts, chosen, together) / size

        def validate(model: nn.Module, _: torch.Generator) -> dict[str, float]:
            assert unseen is not None and validation is not None  # noqa: PT018
            every = torch.arange(len(unseen[0]))
            return {"validation": float(self._missed(model, *unseen, every, isinstance(validation[2], Tensor)) / size)}

        given = start, *(part for side in parts for part in side[2:])
        data = b"".join(part.detach().cpu().contiguous().numpy().tobytes() for part in given)
        task = Task(
            model=self,
            loss=loss,
            validate=None if unseen is None else validate,
            config={"disturbance": disturbance, "data": hashlib.sha256(data).hexdigest()},
            data={"validation": validation, "times": times},
            title="flux model",
        )
        return train(task, config, None if folder is None else Path(folder), progress)

    def _steps(self, given: Trajectories, times: Tensor, name: str) -> tuple[Tensor, list[_Side]]:
        """Fields at the start of all steps ``(functions · (t − 1), c, *space)``, and the data of every side."""
        fields, walls, _ = given
        start, sides = fields[:, :-1].flatten(0, 1), _sides(given)
        if not sides or any(flux.shape[:2].numel() != len(start) for _, flux in sides):
            raise InvalidArgumentError(
                f"{name} needs the flux of every side and step, (functions, {fields.shape[1] - 1}, k, *face), or of "
                f"every step what they gave together, got {[tuple(flux.shape) for _, flux in sides]}."
            )
        parts = [
            ("fields", fields),
            *((part, each) for side in sides for part, each in zip(_OF_SIDES, side, strict=True)),
        ]
        for part, values in parts:
            refuse_missing(values, f"The {part} of {name} hold")
        lengths = as_tensor(times).diff()
        step = lengths.mean()
        equal = (lengths - step).abs() <= _EQUAL * step
        if len(lengths) != fields.shape[1] - 1 or not bool((step > 0) & equal.all()):
            raise InvalidArgumentError(
                f"times must be those of the fields, {fields.shape[1]}, and increase in equal steps, to which the "
                f"model then belongs; got {len(lengths) + 1} in steps from {float(lengths.min()):.4g} to "
                f"{float(lengths.max()):.4g}."
            )
        which = [(axis, last) for axis, pair in enumerate(walls) if pair is not None for last in (False, True)]
        return start, [
            _Side(axis, last, data[:, :-1].flatten(0, 1), data[:, 1:].flatten(0, 1), flux.flatten(0, 1))
            for (axis, last), (data, flux) in zip(which, sides, strict=True)
        ]

    def _missed(self, model: nn.Module, fields: Tensor, sides: list[_Side], chosen: Tensor, together: bool) -> Tensor:
        """Mean absolute error of the fluxes through all sides, or of their sum, from fields ``(chosen, c, *space)``."""
        fluxes = [model(fields, side.before[chosen], side.after[chosen], side.axis, side.last) for side in sides]
        true = [side.flux[chosen] for side in sides]
        if together:
            gains = [self._gain(flux, side.axis, side.last) for flux, side in zip(fluxes, sides, strict=True)]
            errors = [sum(gains) - true[0]]
        else:
            errors = [flux - known for flux, known in zip(fluxes, true, strict=True)]
        return torch.stack([error.abs().mean() for error in errors]).mean()

    def _gain(self, flux: Tensor, axis: int, last: bool) -> Tensor:
        """Contribution of a flux ``(batch, k, *face)`` to the totals ``(batch, k)``."""
        for along in reversed([each for other, each in enumerate(self.grid.axis_weights) if other != axis]):
            flux = flux @ along.to(flux)
        return -flux if last else flux

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "step" not in state["_buffers"]:
            raise DataFileError(_OF_RELEASE_3)
        super().__setstate__(state)

    def _disturbance(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Random sums of sines of mean square 1, zero at walls."""
        drawn = torch.randn(*like.shape[:2], *(_MODES,) * self.grid.dimension, generator=generator).to(like)
        for points, low, high in zip(self.grid.axes, self.grid.low, self.grid.high, strict=True):
            phase = math.pi * (points - low) / (high - low)
            sines = torch.sin(torch.arange(1, _MODES + 1)[:, None] * phase).to(like)
            drawn = (drawn.movedim(2, -1) @ sines) * (2 / _MODES) ** 0.5
        return drawn


def _refuse_release_3(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    if f"{prefix}scales" in state and f"{prefix}step" not in state:
        raise DataFileError(_OF_RELEASE_3)


def _sides(given: Trajectories) -> list[tuple[Tensor, Tensor]]:
    """Given values and fluxes of every side, first and last of each axis that is not periodic."""
    _, walls, passed = given
    return [
        (pair[last], passed if isinstance(passed, Tensor) else passed[axis][last])  # type: ignore[index]
        for axis, pair in enumerate(walls)
        if pair is not None
        for last in (0, 1)
    ]


def _ends(values: Tensor) -> tuple[Tensor, Tensor]:
    """Least and largest value of every channel of values ``(functions, t, channels, …)``."""
    each = values.movedim(2, 0).flatten(1)
    return each.amin(dim=1), each.amax(dim=1)


def _mean_squares(values: Tensor) -> Tensor:
    """Mean square of every channel of values ``(count, channels, …)``."""
    return values.square().reshape(*values.shape[:2], -1).mean(dim=(0, 2))
