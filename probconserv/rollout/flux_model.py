"""Fluxes through walls where values are given, by a network that reads the field at the start of a step."""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from probconserv.errors import InvalidArgumentError
from probconserv.training import StepContext, Task, TrainingConfig, train
from solvers.grids import Grid

_BATCH = 128
_MODES = 12  # sines along an axis of which a disturbance is made


class FluxModel(nn.Module):
    """The flux that passes a wall in a step, from values beside the wall before the step and the data of the wall.

    Where values are given at a wall, its flux is not, and the slope of a prediction is too wrong to give it. The field
    that a step starts from is better known. One small network serves all walls, point by point; it belongs to the
    length of the steps that it was trained on.

    Args:
        grid: Nodes or cells of the field.
        channels: Channels c of the field.
        totals: Fluxes k at a point, one per conserved channel.
        data: Values m that are given at a point of a wall.
        nodes: Values that are read along the normal, from the wall inward.
        width: Width of the three hidden layers.
    """

    scales: Tensor

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
        given = before.shape[-self.grid.dimension]
        if given != self.counts[1]:
            raise InvalidArgumentError(
                f"The flux model takes {self.counts[1]} values at a point of a wall, got {given}."
            )
        dtype, dimension = self.scales.dtype, self.grid.dimension
        lines = field.to(dtype).movedim(axis - dimension, -1)
        lines = (lines.flip(-1) if last else lines)[..., : self.nodes].movedim(-dimension - 1, -2)
        lead = lines.shape[:-2]
        given = [part.to(dtype).movedim(-dimension, -1).expand(*lead, -1) / of_data for part in (before, after)]
        which = functional.one_hot(torch.tensor(2 * axis + last, device=field.device), 2 * dimension).to(dtype)
        features = [(lines / of_field[:, None]).flatten(-2), *given, which.expand(*lead, -1)]
        return (self.network(torch.cat(features, dim=-1)) * of_flux).movedim(-1, -dimension)

    def fit(
        self,
        fields: Float[Tensor, "..."],
        walls: Sequence[tuple[Tensor, Tensor] | None],
        passed: Sequence[tuple[Tensor, Tensor] | None],
        *,
        steps: int = 4000,
        disturbance: float = 0.02,
        seed: int = 0,
        progress: bool = False,
    ) -> float:
        """Trains on true trajectories; half of the batches are disturbed smoothly, as fields of a rollout are.

        Args:
            fields: u at the times ``(functions, t, c, *space)``.
            walls: Given values of every side at the times ``(functions, t, m, *face)``, as for ``Rollout``.
            passed: Fluxes of the same sides, integrated over the steps ``(functions, t − 1, k, *face)``.
            steps: Steps of the training, with 128 fields each.
            disturbance: Its root mean square, relative to the standard deviation of the fields.
            seed: Of the batches and disturbances.
            progress: Whether a progress bar is shown.

        Returns:
            Mean absolute error in the last twentieth of the steps, relative to the root mean square of the fluxes.
        """
        sides = [
            (axis, last, walls[axis][last], passed[axis][last])  # type: ignore[index]
            for axis, pair in enumerate(walls)
            for last in (False, True)
            if pair is not None
        ]
        start = fields[:, :-1].flatten(0, 1)
        if not sides or any(flux.shape[:2].numel() != len(start) for *_, flux in sides):
            raise InvalidArgumentError(
                f"passed needs the flux of every side and step, (functions, {fields.shape[1] - 1}, k, *face), got "
                f"{[tuple(flux.shape) for *_, flux in sides]}."
            )
        parts = [(a, b, g[:, :-1].flatten(0, 1), g[:, 1:].flatten(0, 1), f.flatten(0, 1)) for a, b, g, f in sides]
        each = [start], [part[2] for part in parts], [part[4] for part in parts]
        squares = [torch.stack([_mean_squares(part) for part in same]).mean(dim=0) for same in each]
        self.scales.copy_(torch.cat(squares).sqrt())
        self.scales.clamp_(min=torch.finfo(self.scales.dtype).tiny)
        size, spread = self.scales[-self.counts[2] :].mean(), fields.std()

        def loss(model: nn.Module, context: StepContext) -> Tensor:
            chosen = torch.randint(len(start), (context.rows(_BATCH),), generator=context.generator)
            u = start[chosen]
            u = u + disturbance * spread * self._disturbance(u, context.generator) if context.step % 2 else u
            missed = [model(u, old[chosen], new[chosen], a, b) - flux[chosen] for a, b, old, new, flux in parts]
            return torch.stack([part.abs().mean() for part in missed]).mean() / size

        config = TrainingConfig(
            steps=steps,
            peak_rate=3e-3,
            weight_decay=1e-4,
            precision="32-true",
            seed=seed,
            validate_every=max(1, steps // 20),
        )
        state = train(Task(self, loss, title="flux model"), config, progress=progress)
        return state.history[-1]["loss"]

    def _disturbance(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Random sums of sines of mean square 1, zero at walls."""
        drawn = torch.randn(*like.shape[:2], *(_MODES,) * self.grid.dimension, generator=generator).to(like)
        for points, low, high in zip(self.grid.axes, self.grid.low, self.grid.high, strict=True):
            phase = math.pi * (points - low) / (high - low)
            sines = torch.sin(torch.arange(1, _MODES + 1)[:, None] * phase).to(like)
            drawn = (drawn.movedim(2, -1) @ sines) * (2 / _MODES) ** 0.5
        return drawn


def _mean_squares(values: Tensor) -> Tensor:
    """Mean square of every channel of values ``(count, channels, …)``."""
    return values.square().reshape(*values.shape[:2], -1).mean(dim=(0, 2))
