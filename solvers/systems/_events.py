"""Whether the time steps saw what happens at sides whose states are functions of time."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.systems._run import Setting
from solvers.systems.boundary import Side

_POINTS = 4096
_TOLERANCE = 0.05
_ROUND_OFF = 1e-9
_CHUNK = 2**16  # numbers of states held at once


@dataclass(frozen=True)
class Watch:
    """Compares the time integral of given states, as the steps sample it, with that over many more points.

    An event shorter than the distance of the points, a part in ``_POINTS`` of the span, is missed where the steps miss
    it too.

    Every face cell is compared on its own, since events of opposite sign cancel in a mean, and the mean over the side
    too, whose variation may be smaller than that of its cells.

    Args:
        setting: What is solved.
        sampled: Time-integrated states of all sides; see ``Run``.
    """

    setting: Setting
    sampled: Tensor

    def check(self, start: float, end: float) -> None:
        """Raises an error if the steps missed a part of a state.

        Args:
            start: First time.
            end: Last time.

        Raises:
            InvalidArgumentError: If an integral is off by more than a twentieth of the variation of the state.
        """
        for side in self.setting.changing if end > start else []:
            if self._misses(side, start, end):
                raise InvalidArgumentError(
                    f"{side.name}: the time steps between {start:g} and {end:g} miss a part of the state, which changes"
                    " within a step; set largest_step to a fraction of the shortest event."
                )

    def _misses(self, side: Side, start: float, end: float) -> bool:
        """Whether the steps missed a part of the state in a face cell or in the mean over the side.

        A cell's variation is about its first or its last state, whichever is larger: a front that runs along the side
        and reaches a cell shortly before the end is no event there. That of the mean is about its first state.
        """
        points = start + (end - start) * (torch.arange(_POINTS).double() + 0.5) / _POINTS
        first = next(self._chunks(side, points[:1]))[0]
        total, variation, of_mean = torch.zeros_like(first), torch.zeros_like(first), torch.zeros_like(first[..., 0])
        for states in self._chunks(side, points):
            total += states.sum(0)
            of_mean += (states.mean(-1) - first.mean(-1)).abs().sum(0)
            variation += states.sub_(first).abs_().sum(0)
        sampled = self.sampled[:, self.setting.place(side)].reshape(first.shape)
        off = (sampled / (end - start) - total / _POINTS) * _POINTS
        floor = _ROUND_OFF * (_POINTS * first.abs() + variation).amax(-1)
        if bool((off.mean(-1).abs() > _TOLERANCE * of_mean + floor).any()):
            return True
        bound = off.abs() - floor[..., None]
        if bool((bound <= _TOLERANCE * variation).all()):
            return False
        last = next(self._chunks(side, points[-1:]))[0]
        about_last = sum((states.sub_(last).abs_().sum(0) for states in self._chunks(side, points)), 0 * last)
        return bool((bound > _TOLERANCE * torch.maximum(variation, about_last)).any())

    def _chunks(self, side: Side, points: Tensor) -> Iterator[Tensor]:
        """States at points of time ``(points, entries, c, face cells)``, a part of the points at a time, to change."""
        states = []
        for point in points.tolist():
            states.append(self.setting.state(side, point))
            if len(states) * states[0].numel() >= _CHUNK:
                yield torch.stack(states)
                states = []
        if states:
            yield torch.stack(states)
