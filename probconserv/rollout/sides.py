"""What users give at the sides of a grid: values, fluxes, or that an axis is periodic."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
from torch import Tensor

from probconserv.errors import InvalidArgumentError
from solvers import Periodic
from solvers._former import warn_of_former

Side = Tensor | np.ndarray | float | Callable[[Tensor], Tensor]
PerAxis = Sequence[tuple[Side | None, Side | None] | Periodic | None]
"""One entry per axis: a pair (first, last), None where nothing is given, or ``Periodic()``."""
Pairs = list[tuple[Any, Any] | None]
"""One pair per axis, None for a periodic one."""
_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, eq=False)
class FormerWalls:
    """The argument ``walls`` of 0.4: values and fluxes in one, None for a periodic axis."""

    pairs: Any

    def of(self, dimension: int) -> Pairs:
        """One pair per axis, None for a periodic one."""
        pairs = pairs_of("walls", self.pairs, dimension)
        return [None if was is None or is_periodic(was) else pair for was, pair in zip(self.pairs, pairs, strict=True)]


def accepts_walls(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """A decorator of methods with ``values`` and ``fluxes``: the ``walls`` of 0.4 work until 0.6.

    They stood before the times or after them, and become ``fluxes=FormerWalls(…)``.
    """

    @wraps(method)
    def call(*args: Any, **kwargs: Any) -> Any:
        place = next((n for n, each in enumerate(args[2:4], 2) if _are_walls(each)), None)
        if place is None and "walls" not in kwargs:
            return method(*args, **kwargs)
        if "values" in kwargs or "fluxes" in kwargs:
            raise InvalidArgumentError(
                f"{method.__qualname__} takes values= and fluxes= in place of the walls of 0.4; give only these."
            )
        former = kwargs.pop("walls") if place is None else args[place]
        warn_of_former(
            f"{method.__qualname__} takes what is given at the sides as values=[(first, last)] or fluxes=[(first, "
            "last)] since release 0.5, after start and times, and Periodic() for a periodic axis; walls goes with 0.6."
        )
        rest = args if place is None else (*args[:place], *args[place + 1 :])
        return method(*rest, **kwargs, fluxes=FormerWalls(former))  # type: ignore[call-arg]

    return call


def _are_walls(argument: Any) -> bool:
    if not isinstance(argument, list | tuple) or not argument:
        return False
    return all(each is None or isinstance(each, list | tuple | Periodic) for each in argument)


def is_periodic(entry: Any) -> bool:
    """True for ``Periodic()``, and for a pair of them."""
    return isinstance(entry, Periodic) or (isinstance(entry, list | tuple) and any(map(is_periodic, entry)))


def pairs_of(name: str, given: Any, dimension: int) -> list[Any]:
    """One entry per axis of ``values`` or ``fluxes``: ``Periodic()``, or a pair whose sides may be None.

    Raises:
        InvalidArgumentError: If an axis is missing, or an entry is no pair.
    """
    if given is None:
        return [(None, None)] * dimension
    count = len(given) if isinstance(given, Sequence) else type(given).__name__
    if count != dimension:
        raise InvalidArgumentError(
            f"{name} needs one pair (first, last) for each of the {dimension} axes, Periodic() for a periodic one, got "
            f"{count}."
        )
    for axis, pair in enumerate(given):
        if pair is not None and not is_periodic(pair) and (not isinstance(pair, list | tuple) or len(pair) != 2):
            raise InvalidArgumentError(
                f"{name}[{axis}] must be a pair (first, last), Periodic(), or None if nothing is given there, got "
                f"{pair!r:.60}."
            )
    return [Periodic() if is_periodic(pair) else tuple(pair or (None, None)) for pair in given]


def side_name(axis: int, last: bool | int) -> str:
    """Name of a side in messages."""
    return f"the {'last' if last else 'first'} side of axis {axis}"


def sides_of_rollout(
    values: PerAxis | None, fluxes: PerAxis | FormerWalls | None, computed: Sequence[tuple[Any, Any] | None]
) -> Pairs:
    """Data of all sides of a rollout.

    Args:
        values: What functions of the flux take, on sides that have one.
        fluxes: What passes the other sides.
        computed: The function of the flux on every side, None where there is none.

    Raises:
        InvalidArgumentError: If something is missing, or values are given in place of fluxes, or fluxes of values.
    """
    dimension = len(computed)
    if isinstance(fluxes, FormerWalls):
        full = fluxes.of(dimension)
    else:
        given = zip(pairs_of("values", values, dimension), pairs_of("fluxes", fluxes, dimension), computed, strict=True)
        full = [_joined(axis, *of_axis) for axis, of_axis in enumerate(given)]
    for axis, pair in enumerate(full):
        for last in (0, 1):
            if pair is not None and pair[last] is None:
                raise InvalidArgumentError(
                    f"Nothing says what passes {side_name(axis, last)}: give fluxes[{axis}][{last}], integrated over "
                    "every step, at the times, a function of time or a number, 0.0 for a closed side; or, where flux= "
                    f"has a function, values[{axis}][{last}]; for a periodic axis fluxes[{axis}] = Periodic()."
                )
    return full


def _joined(axis: int, values: Any, fluxes: Any, functions: tuple[Any, Any] | None) -> tuple[Any, Any] | None:
    """The sides of an axis, None if it is periodic."""
    if is_periodic(values) or is_periodic(fluxes):
        if any(side is not None for pair in (values, fluxes) if not is_periodic(pair) for side in pair):
            raise InvalidArgumentError(f"Axis {axis} is periodic, but has data of sides; give one of them.")
        return None
    for last, function in enumerate(functions or (None, None)):
        if function is None and values[last] is not None:
            raise InvalidArgumentError(
                f"values[{axis}][{last}] says nothing of what passes {side_name(axis, last)}, which is what a rollout "
                f"needs: give fluxes[{axis}][{last}], or Rollout a flux= that computes it from the values. Values that "
                "the operator takes are its inputs, one for each step."
            )
        if function is not None and fluxes[last] is not None:
            raise InvalidArgumentError(
                f"The flux through {side_name(axis, last)} is computed by flux= from values; give values[{axis}]"
                f"[{last}], or no function there, and not fluxes."
            )
    return tuple(v if f is None else f for v, f in zip(values, fluxes, strict=True))  # type: ignore[return-value]
