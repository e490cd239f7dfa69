"""How fields move when their totals do, without leaving what an operator meets at its walls."""

import inspect
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn

from probconserv.errors import InvalidArgumentError, LibraryError
from solvers import Periodic
from solvers.grids import Grid

_DEPTH = 4  # functions within functions that are searched for an operator


@dataclass(frozen=True, eq=False)
class WallResponse:
    """The response of an operator that meets walls; build it with ``wall_response``.

    Args:
        field: r ≥ 0 ``(c|1, *space)``, float64: u + r meets what u met.
        of_operator: ``response(grid, fields)`` of the operator.
        axes: Axes on which the operator meets walls, as far as its ``conditions`` say.
    """

    field: Tensor
    of_operator: Callable[..., Tensor]
    axes: tuple[int, ...] = ()

    def check(self, walls: Sequence[Any]) -> None:
        """Refuses a periodic balance along an axis that has walls."""
        for axis in self.axes:
            if axis < len(walls) and walls[axis] is None:
                raise InvalidArgumentError(
                    f"Axis {axis} is given as periodic, but the operator meets conditions at its walls; give fluxes "
                    "of what passes them, 0.0 where they are closed, or the values that flux= takes."
                )

    def homogeneous(self, changes: Tensor) -> Tensor:
        """Changes of fields ``(*batch, c, *space)`` with the values at walls such that u plus one meets what u met."""
        return self.of_operator(None, changes)


def wall_response(operator: Callable[..., Any], grid: Grid) -> WallResponse | None:
    """The response of an operator, or of the one that a module or function holds; None if none has walls.

    Warns:
        UserWarning: If walls are not protected: there are several operators with walls, or a condition has no response.
    """
    found = operators_with_walls(operator)
    if not found:
        return None
    reason = f"it holds {len(found)} operators with walls; give it a method response(grid, fields=None) of its own"
    if len(found) == 1:
        try:
            return WallResponse(found[0].response(grid), found[0].response, _axes_with_walls(found[0]))
        except LibraryError as error:
            reason = str(error)
    warnings.warn(
        f"The rollout moves every value of a channel by the same amount, so that the walls that "
        f"{type(operator).__name__} meets are not protected: {reason}",
        stacklevel=3,
    )
    return None


def _axes_with_walls(operator: Any) -> tuple[int, ...]:
    pairs = getattr(operator, "conditions", ())
    return tuple(axis for axis, pair in enumerate(pairs) if pair is not None and not isinstance(pair[0], Periodic))


def operators_with_walls(operator: Any, depth: int = _DEPTH) -> list[Any]:
    """The outermost operators with a method ``response`` in a module, a callable object or what a function names."""
    if isinstance(operator, type):
        return []
    if callable(getattr(operator, "response", None)):
        return [operator]
    inner: list[Any] = []
    if isinstance(operator, nn.Module):
        inner = list(operator.children())
    elif isinstance(operator, partial):
        inner = [operator.func, *operator.args, *operator.keywords.values()]
    elif inspect.ismethod(operator):
        inner = [operator.__self__]
    elif inspect.isfunction(operator) and depth:
        with suppress(ValueError):  # a variable of the closure that is not set yet
            variables, depth = inspect.getclosurevars(operator), depth - 1
            inner = [*variables.nonlocals.values(), *variables.globals.values()]
    elif callable(operator) and depth:
        inner, depth = list(getattr(operator, "__dict__", {}).values()), depth - 1
    found = [each for part in inner for each in operators_with_walls(part, depth)]
    return list({id(each): each for each in found}.values())
