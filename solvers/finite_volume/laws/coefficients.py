"""Coefficients of laws: numbers, arrays per batch entry, fields on the cells, functions of position and time.

A coefficient varies in space only where it is given as a ``Field`` or as a function; the shape of an array never
decides it.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers._arguments import checked_values
from solvers.errors import InvalidArgumentError
from solvers.grids import CellGrid

Function = Callable[..., Any]


class FaceValue(Enum):
    """How a coefficient that varies in space gets its values on faces.

    Attributes:
        HARMONIC: Harmonic mean of the two cells, for positive conductivities; on sides the function, or the value of
            the cell.
        ARITHMETIC: Arithmetic mean of the two cells, likewise.
        DIRECT: Functions are evaluated on the faces; fields by the arithmetic mean.
    """

    HARMONIC = 0
    ARITHMETIC = 1
    DIRECT = 2


@dataclass(frozen=True, eq=False)
class Field:
    """A coefficient with one value per cell.

    A side has the value of its cell. If the field stands for a smooth coefficient, conditions on the gradient (Neumann,
    Robin) are therefore of first order; a function of x, or ``Neumann(flux=…)``, keeps them at second order.

    Args:
        values: ``(*batch, *space)`` with the cells of the grid as trailing axes; kept in float64.

    Raises:
        InvalidArgumentError: If the values are not finite, have no axis or require a gradient.
    """

    values: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", checked_values(self.values, "Field"))
        if self.values.ndim == 0:
            raise InvalidArgumentError(
                "Field: values must be (*batch, *space), got a single number; pass the number itself."
            )


@dataclass(frozen=True, eq=False)
class Values:
    """Values of a coefficient at the points where a law is evaluated, ``(*batch, *points)``, float64."""

    values: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class Arguments:
    """Arguments of scalar functions besides the state.

    Attributes:
        names: Parameters; after ``at`` before them x.0, x.1, … and t where they are taken.
        values: Their values, in the same order.
        placed: Whether x is taken.
        timed: Whether t is taken.
        bound: Whether x and t are among the values.
    """

    names: tuple[str, ...]
    values: tuple[Any, ...]
    placed: bool
    timed: bool
    bound: bool = False

    def at(self, grid: CellGrid, time: float | Tensor, axis: int | None, periodic: bool) -> "Arguments":
        """The arguments on the cells of a grid or the faces of an axis; periodic ends are the first face."""
        points = grid.points if axis is None else grid.face_points(axis)
        places = list(points.unbind(-1)) if grid.dimension > 1 else [points]
        if axis is not None and periodic:
            n = grid.shape[axis]
            index = torch.arange(n + 1) % n
            places = [each.index_select(axis, index) for each in places]
        places = [Values(each) for each in places] if self.placed else []
        time = torch.as_tensor(time, dtype=torch.float64)
        times = [Values(time if time.ndim else time.reshape([1] * grid.dimension))] if self.timed else []
        names = *(f"x.{axis}" for axis in range(len(places))), *("t" for _ in times), *self.names
        return replace(self, names=names, values=(*places, *times, *self.values), bound=True)


Parameter = float | np.ndarray | Tensor | Field | Values | Function


@dataclass(frozen=True, eq=False)
class FaceVelocity:
    """Normal velocities on the faces of the cells, kept in float64.

    Args:
        values: One array per axis, ``(*batch, *faces)``: the shape of the cells with one more entry along that axis.

    Raises:
        InvalidArgumentError: If the values are not finite, do not fit together, or require a gradient.
    """

    values: Sequence[Any]

    def __post_init__(self) -> None:
        if not isinstance(self.values, Sequence) or isinstance(self.values, str):
            raise InvalidArgumentError(
                "FaceVelocity: values must be a tuple with one array (*batch, *faces) per axis, got "
                f"{type(self.values).__name__}; with one axis write FaceVelocity((values,))."
            )
        values = tuple(checked_values(part, "FaceVelocity") for part in self.values)
        object.__setattr__(self, "values", values)
        d = len(values)
        cells = [
            tuple(n - (axis == other) for other, n in enumerate(part.shape[part.ndim - d :]))
            for axis, part in enumerate(values)
        ]
        if not cells or len(set(cells)) > 1 or len(cells[0]) < d:
            raise InvalidArgumentError(
                "FaceVelocity: values must be one array (*batch, *faces) per axis, with the shape of the cells and one "
                f"more entry along that axis, got shapes {[tuple(part.shape) for part in values]}."
            )

    @classmethod
    def from_stream_function(cls, stream_function: Any, grid: CellGrid) -> "FaceVelocity":
        """The velocity (∂ψ/∂y, −∂ψ/∂x) by differences of ψ along the faces: its ``divergence`` is round-off.

        Args:
            stream_function: ψ at the corners of the cells ``(*batch, nx + 1, ny + 1)``.
            grid: Cells with two axes.

        Returns:
            The velocity on the faces.

        Raises:
            InvalidArgumentError: If the grid has not two axes or ψ is not given at the corners.
        """
        psi = checked_values(stream_function, "from_stream_function")
        corners = tuple(n + 1 for n in grid.shape)
        if grid.dimension != 2 or tuple(psi.shape[-2:]) != corners:
            raise InvalidArgumentError(
                "from_stream_function needs a grid with two axes and the stream function at the corners of its cells, "
                f"(*batch, nx + 1, ny + 1) with (nx + 1, ny + 1) = {corners}, got shape {tuple(psi.shape)}."
            )
        return cls((psi.diff(dim=-1) / grid.spacing[1], -psi.diff(dim=-2) / grid.spacing[0]))

    def divergence(self, grid: CellGrid) -> Tensor:
        """Σ_axes (v_{i+1} − v_i)/h of every cell ``(*batch, *space)``."""
        d = grid.dimension
        self.require_cells(grid)
        parts = [part.diff(dim=axis - d) / grid.spacing[axis] for axis, part in enumerate(self.values)]
        return torch.stack(torch.broadcast_tensors(*parts)).sum(0)

    def require_cells(self, grid: CellGrid) -> None:
        """Raises an error if the velocity is not on the faces of a grid."""
        cells = tuple(part.shape[axis - len(self.values)] - 1 for axis, part in enumerate(self.values))
        if cells != grid.shape:
            raise InvalidArgumentError(f"FaceVelocity has the faces of {cells} cells, but the grid has {grid.shape}.")


def align(parameter: Parameter, field: Any) -> Any:
    """Shapes a parameter for products with a field.

    Args:
        parameter: A number, an array ``(*batch,)``, or a ``Field`` on the cells of ``field``.
        field: NumPy array or torch tensor ``(*batch, *space)``.

    Returns:
        The parameter in the type, dtype and device of ``field``: arrays as ``(*batch, 1, …, 1)``, fields as they are.
        If ``field`` has integers, the parameter has torch's default dtype, for NumPy float64, so that products do too.

    Raises:
        InvalidArgumentError: If the parameter is a function.
    """
    in_space = isinstance(parameter, Field | Values)
    if in_space:
        parameter = parameter.values
    elif callable(parameter):
        raise InvalidArgumentError(
            "A coefficient given as a function has values at points only: evaluate law.at(grid, time) instead of law."
        )
    if isinstance(field, Tensor):
        inexact = field.is_floating_point() or field.is_complex()
        dtype = field.dtype if inexact else torch.get_default_dtype()
        values = torch.as_tensor(parameter, dtype=dtype, device=field.device)
    else:
        given = np.asarray(field).dtype
        values = np.asarray(parameter, dtype=given if np.issubdtype(given, np.inexact) else np.float64)
    if in_space or not values.ndim:
        return values
    return values.reshape(tuple(values.shape) + (1,) * (field.ndim - values.ndim))


def is_time_dependent(parameter: Any) -> bool:
    """Whether a parameter is a function of x and t, by its number of required positional parameters."""
    return callable(parameter) and _arguments(parameter) == 2


def values_on_cells(parameter: "Field | Function", grid: CellGrid, time: float | Tensor, name: str) -> Tensor:
    """Values of a field or function at the cell centres, ``(*batch, *space)``."""
    d = grid.dimension
    if isinstance(parameter, Field):
        if tuple(parameter.values.shape[-d:]) != grid.shape:
            raise InvalidArgumentError(
                f"{name}: a Field must have one value per cell, (*batch, *space) with space = {grid.shape}, got shape "
                f"{tuple(parameter.values.shape)}."
            )
        return parameter.values
    return _spread(_evaluate(parameter, grid.points, time, name), grid.shape, name)


def function_on_faces(
    function: Function, grid: CellGrid, time: float | Tensor, axis: int, periodic: bool, name: str, vector: bool = False
) -> Tensor:
    """Values of a function on the faces of an axis ``(*batch, *faces)``, of a vector its component along the axis."""
    points = grid.face_points(axis)
    shape = tuple(n + (other == axis) for other, n in enumerate(grid.shape))
    values = _evaluate(function, points, time, name)
    if vector and grid.dimension > 1:
        if values.ndim == 0 or values.shape[-1] != grid.dimension:
            raise InvalidArgumentError(
                f"{name}(x) must return (*batch, *space, d) with d = {grid.dimension}, got shape {tuple(values.shape)} "
                f"for x of shape {tuple(points.shape)}."
            )
        values = values[..., axis]
    return closed(_spread(values, shape, name), axis - grid.dimension, periodic, name)


def _evaluate(function: Function, points: Tensor, time: float | Tensor, name: str) -> Tensor:
    """Values of a function of x, or of x and t, float64."""
    depends, time = _arguments(function) == 2, torch.as_tensor(time, dtype=torch.float64)
    try:
        values = function(points, time) if depends else function(points)
    except Exception as error:
        times = f" and t as a tensor of shape {tuple(time.shape)}, one time per batch entry" if depends else ""
        raise InvalidArgumentError(
            f"{name}({'x, t' if depends else 'x'}) must accept x of shape {tuple(points.shape)}{times}; use torch "
            f"functions, and torch.where instead of if. It raised {type(error).__name__}: {error}"
        ) from error
    return checked_values(values, name)


def _spread(values: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    """Values expanded to all points ``(*batch, *points)``."""
    d = len(shape)
    try:
        return values.expand(*values.shape[: max(0, values.ndim - d)], *shape)
    except RuntimeError:
        raise InvalidArgumentError(
            f"{name}(x) must return values that broadcast to (*batch, *space) with space = {shape}, got shape "
            f"{tuple(values.shape)}."
        ) from None


def closed(faces: Tensor, dim: int, periodic: bool, name: str) -> Tensor:
    """The values, with one value for the first and last face of a periodic axis, which are the same face."""
    if not periodic:
        return faces
    first, last = faces.narrow(dim, 0, 1), faces.narrow(dim, faces.shape[dim] - 1, 1)
    if not torch.allclose(first, last, rtol=1e-9, atol=1e-12 * float(faces.abs().max())):
        raise InvalidArgumentError(
            f"{name}: with Periodic sides the first and last face of an axis are the same face, but the values differ "
            f"by up to {float((first - last).abs().max()):.3g}; give periodic values or other sides."
        )
    return torch.cat((faces.narrow(dim, 0, faces.shape[dim] - 1), first), dim)


def on_faces(cells: Tensor, axis: int, dimension: int, mean: FaceValue, periodic: bool) -> Tensor:
    """Values on the faces of one axis ``(*batch, *faces)`` from those on the cells ``(*batch, *space)`` of d axes.

    Unless the axis is periodic, a side has the value of its cell.
    """
    v = cells.movedim(axis - dimension, -1)
    low, high = (v[..., -1:], v[..., :1]) if periodic else (v[..., :1], v[..., -1:])
    left, right = torch.cat((low, v), -1), torch.cat((v, high), -1)
    harmonic = mean is FaceValue.HARMONIC
    faces = 2.0 * left * (right / (left + right)) if harmonic else 0.5 * (left + right)
    return faces.movedim(-1, axis - dimension)


def with_sides(faces: Tensor, sides: Tensor, dim: int) -> Tensor:
    """Values on faces with the first and last ones from other values ``(*batch, *faces)``."""
    first, last = sides.narrow(dim, 0, 1), sides.narrow(dim, sides.shape[dim] - 1, 1)
    inside = faces.narrow(dim, 1, faces.shape[dim] - 2)
    lead = torch.broadcast_shapes(inside.shape[: inside.ndim + dim], first.shape[: first.ndim + dim])
    return torch.cat([part.expand(*lead, *part.shape[part.ndim + dim :]) for part in (first, inside, last)], dim)


def _arguments(function: Function) -> int:
    """1 for a function of x, 2 for one of x and t."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return 1
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = sum(p.default is p.empty for p in positional)
    if required > 2 or (not positional and not any(p.kind is p.VAR_POSITIONAL for p in parameters)):
        raise InvalidArgumentError(
            f"A coefficient given as a function takes x, or x and t, got {function!r} with {required} parameters."
        )
    return max(1, required)
