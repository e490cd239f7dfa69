"""Parameters of laws and sources that vary in space and time: their values on cells and faces, and their bounds."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.laws.coefficients import (
    FaceValue,
    Field,
    Values,
    function_on_faces,
    is_time_dependent,
    on_faces,
    values_on_cells,
    with_sides,
)
from solvers.grids import CellGrid


class Parametrised:
    """Laws and sources whose parameters may vary in space and time.

    Attributes:
        varying: Parameters that may be functions of x, or of x and t, and how they get their values on faces. Every
            parameter may be a ``Field``, with the arithmetic mean on faces if it is not listed.
    """

    varying: ClassVar[Mapping[str, FaceValue]] = {}

    @property
    def varies_in_space(self) -> bool:
        """Whether a parameter is a ``Field`` or a function, so that formulas need ``at``."""
        return bool(self._varying_parameters())

    @property
    def varies_in_time(self) -> bool:
        """Whether a parameter is a function of x and t."""
        return any(is_time_dependent(value) for value in self._varying_parameters().values())

    def at(self, grid: CellGrid, time: float | Tensor = 0.0, axis: int | None = None, periodic: bool = False) -> Any:
        """The law with the values of its varying parameters at a time, for states on the cells or on faces.

        Args:
            grid: The cells.
            time: Time, a number or a tensor ``(*batch, 1, …, 1)`` that broadcasts to ``(*batch, *space)``.
            axis: None for states on the cells ``(*batch, *space)``; an axis for states on its faces.
            periodic: Whether the first and the last cell of the axis are neighbours.

        Returns:
            A law for states at these points only.

        Raises:
            InvalidArgumentError: If a ``Field`` does not fit the grid or a function returns unsuitable values.
        """
        placed: Any = self
        for name, value in self._varying_parameters().items():
            mean = self.varying.get(name, FaceValue.ARITHMETIC)
            label = f"{type(self).__name__}.{name}"
            if axis is not None and mean is FaceValue.DIRECT and not isinstance(value, Field):
                values = function_on_faces(value, grid, time, axis, periodic, label)
            else:
                values = values_on_cells(value, grid, time, label)
                placed = replace(placed, **{name: Values(values)})
                values = values if axis is None else on_faces(values, axis, grid.dimension, mean, periodic)
                if axis is not None and not periodic and not isinstance(value, Field):
                    on_sides = function_on_faces(value, grid, time, axis, periodic, label)
                    values = with_sides(values, on_sides, axis - grid.dimension)
            placed = replace(placed, **{name: Values(values)})
        return placed

    def _varying_parameters(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)} if is_dataclass(self) else {}
        return {
            name: value
            for name, value in values.items()
            if isinstance(value, Field) or (name in self.varying and callable(value))
        }


def require_above(law: Any, name: str, minimum: float) -> None:
    """Raises an error unless a parameter is finite and above a bound; a list becomes an array."""
    parameter = getattr(law, name)
    if isinstance(parameter, Field | Values):
        parameter = parameter.values
    elif callable(parameter):
        return
    try:
        if isinstance(parameter, list | tuple):
            parameter = np.asarray(parameter, dtype=float)
            object.__setattr__(law, name, parameter)
        values = np.asarray(parameter.detach().cpu() if isinstance(parameter, Tensor) else parameter, dtype=float)
    except (TypeError, ValueError):
        raise InvalidArgumentError(
            f"{type(law).__name__}: {name} must be a number, an array (*batch,), a Field or a function of x, got "
            f"{parameter!r}."
        ) from None
    if not (np.isfinite(values).all() and (values > minimum).all()):
        bound = "finite" if minimum == -np.inf else f"finite and above {minimum:g}"
        got = repr(parameter) if values.size <= 8 else f"values from {values.min():g} to {values.max():g}"
        raise InvalidArgumentError(f"{type(law).__name__}: {name} must be {bound}, got {got}.")
