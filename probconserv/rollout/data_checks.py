"""Warnings about trajectories and data of walls: conditions that are missed, values beyond those of fit."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from probconserv.rollout.sides import side_name
from probconserv.rollout.trajectories import Functions
from probconserv.rollout.walls import warn_of_unlike_ends
from solvers import Robin
from solvers._former import warn_at_caller
from solvers.recording import are_readable

Range = tuple[float, float]
_SAMPLES = 200  # steps in which conditions are looked at
_MISSED = 0.05  # of the spread of a channel; steps of solvers miss their conditions by less than 0.01
_OPPOSITE = 5.0  # times as far off as with data of the opposite sign
_ROUNDING = 1e-5  # of the spread of a channel, which float32 does not resolve
_BEYOND = 0.5  # of the width of a known range, as of a FluxModel: how far values may lie beyond it


class Unchanged(nn.Module):
    """A base that returns the field."""

    def forward(self, field: Tensor, *_: Tensor) -> Tensor:
        """The field."""
        return field


def warn_of_missed_conditions(training: Functions, prescribed: Callable[..., Tensor]) -> None:
    """Warns where prescribing the conditions in true fields changes them by more than differences at walls are off.

    Also where data of the opposite sign would change them far less: a slope at the wall moves values little; and where
    the nodes at the two ends of a periodic axis, which are one place, differ.

    Args:
        training: Trajectories.
        prescribed: Sets the conditions in a field, given the data of the step.
    """
    setting = training.setting
    warn_of_unlike_ends(training.fields, setting.grid, setting.periodic)
    if not any(setting.walled):
        return
    steps = training.single.thinned(_SAMPLES)
    spread = steps.after.transpose(0, 1).flatten(1).double().std(dim=1)

    def missed_by(data: Sequence[Tensor]) -> dict[str, float]:
        moved, result = prescribed(steps.after, *data) - steps.after, {}
        for axis in (axis for axis, walled in enumerate(setting.walled) if walled):
            for name, end in (("first", 0), ("last", -1)):
                size = moved.select(2 + axis, end).transpose(0, 1).flatten(1).double().square().mean(dim=1).sqrt()
                result[f"{name} side of axis {axis}"] = float(torch.where(spread > 0, size / spread, 0.0).max())
        return result

    missed, opposite = missed_by(steps.data), missed_by([-part for part in steps.data])
    turned = [side for side in missed if missed[side] > _OPPOSITE * max(opposite[side], _ROUNDING)]
    side = max(turned or missed, key=lambda side: missed[side])
    if turned or missed[side] > _MISSED:
        warn_at_caller(
            f"The trajectories miss their condition on the {side}: it moves the value there by {missed[side]:.2g} of "
            "the spread of its channel. Check the signs (∂/∂x points along the axis on both sides), the order of the "
            "walls, and whether the fields are at nodes or in cells.",
        )


def ranges_of(*parts: Functions) -> dict[str, Range]:
    """The least and largest values of the channels of fields, walls and media in all parts, by name."""
    ranges: dict[str, Range] = {}
    for name, channel in (each for part in parts for each in _channels(part)):
        least, most = ranges.get(name, (float("inf"), float("-inf")))
        ranges[name] = min(least, float(channel.min())), max(most, float(channel.max()))
    return ranges


def warn_beyond(functions: Functions, known: Mapping[str, Sequence[float]]) -> None:
    """Warns of starts, walls and media beyond known ranges by more than half their width."""
    if not are_readable(functions.fields):
        return
    beyond = []
    for name, (least, most) in ranges_of(functions).items():
        low, high = known.get(name, (least, most))
        allowed = _BEYOND * (high - low)
        if least < low - allowed or most > high + allowed:
            beyond.append(f"{name} is in [{least:.3g}, {most:.3g}], in those functions in [{low:.3g}, {high:.3g}]")
    if beyond:
        warn_at_caller(
            f"The functions lie beyond those of fit, and the band does not hold: {'; '.join(beyond)}. Fit an emulator "
            "to functions of this range.",
        )


def _channels(functions: Functions) -> Iterator[tuple[str, Tensor]]:
    """The channels of fields, walls and media, with their names."""
    named = {"start": functions.fields}
    for axis, pair in enumerate(functions.walls):
        named |= {side_name(axis, end): side for end, side in enumerate(pair or ()) if isinstance(side, Tensor)}
    if functions.media is not None:
        named["media"] = functions.media[:, None]
    for name, values in named.items():
        for number, channel in enumerate(values.unbind(dim=2)):
            yield f"{name}, channel {number}", channel


def places_of(sides: Sequence[Sequence[bool] | None]) -> list[str]:
    """Names of the sides that have data of every function."""
    pairs = ((axis, pair or (False, False)) for axis, pair in enumerate(sides))
    return [side_name(axis, end) for axis, pair in pairs for end in (0, 1) if pair[end]]


def kinds_of(conditions: Sequence[Any] | None) -> str:
    """Conditions without their values, as a file compares them: names, and numbers of Robin conditions."""
    pairs = () if conditions is None or not any(conditions) else conditions
    return ", ".join("None" if pair is None else " and ".join(map(_kind, pair)) for pair in pairs) or "None"


def _kind(condition: Any) -> str:
    if condition is None:
        return "None"
    numbers = (condition.a, condition.b) if isinstance(condition, Robin) else ()
    stated = ", ".join(f"{number:g}" for number in numbers if isinstance(number, int | float))
    return type(condition).__name__ + (f"({stated})" if stated else "")
