"""Whether the time steps saw what happens at sides whose states are functions of time."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.systems._schemes import Setting
from solvers.systems.boundary import Side

_POINTS = 4096
_TOLERANCE = 0.05


@dataclass
class Watch:
    """Compares the time integral of given states, as the steps sample it, with that over many more points.

    Args:
        setting: Law, grid and sides.
        entries: Number of batch entries.
    """

    setting: Setting
    entries: int
    sampled: dict[str, Tensor] = field(default_factory=dict)

    @property
    def sides(self) -> list[Side]:
        """The sides whose state changes with time."""
        return [side for pair in self.setting.sides for side in pair if side.changes]

    def record(self, rows: Tensor, times: Tensor, steps: Tensor) -> None:
        """Adds accepted steps of some entries, with the weights of SSPRK3."""
        for side in self.sides:
            first, middle, last = (self._mean(side, times + part * steps, rows) for part in (0.0, 0.5, 1.0))
            total = self.sampled.setdefault(side.name, torch.zeros(self.entries, self.setting.components).double())
            total[rows] += steps[:, None] * (first + 4.0 * middle + last) / 6.0

    def check(self, start: float, end: float) -> None:
        """Raises an error if the steps missed a part of a state.

        Args:
            start: First time.
            end: Last time.

        Raises:
            InvalidArgumentError: If an integral is off by more than a twentieth of the variation of the state.
        """
        for side in self.sides if end > start else []:
            rows = torch.arange(self.entries)
            points = start + (end - start) * (torch.arange(_POINTS).double() + 0.5) / _POINTS
            states = torch.stack([self._mean(side, point.expand(self.entries), rows) for point in points])
            variation = (states - states[0]).abs().mean(0) * (end - start)
            off = (self.sampled[side.name] - states.mean(0) * (end - start)).abs()
            size = states.abs().amax(0) * (end - start)
            if bool((off > _TOLERANCE * variation + 1e-9 * size).any()):
                raise InvalidArgumentError(
                    f"{side.name}: the time steps between {start:g} and {end:g} miss a part of the state, which changes"
                    " within a step; set largest_step to a fraction of the shortest event."
                )

    def _mean(self, side: Side, times: Tensor, rows: Tensor) -> Tensor:
        """Mean state over the side ``(entries, c)``."""
        state = self.setting.state(side, times, rows)
        assert state is not None
        return state.reshape(len(rows), self.setting.components, -1).mean(-1)
