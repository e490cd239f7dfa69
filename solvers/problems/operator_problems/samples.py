"""Sets of samples as operators take them: input channels, data of the sides, outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from solvers.data_files.field_set import CATEGORIES, FieldSet
from solvers.data_files.files import load
from solvers.errors import InvalidArgumentError
from solvers.grids import Grid

SidePair = tuple[Tensor | None, Tensor | None]


@dataclass(frozen=True, kw_only=True)
class OperatorSamples:
    """Inputs and outputs of an operator, and what is given on the sides; float64.

    Args:
        grid: The points of all fields.
        times: Output times ``(t,)``; 0 for a steady problem.
        inputs: Coefficients, and unknowns at the start ``(b, c_in, *space)``.
        outputs: Unknowns at the output times ``(b, t, c_out, *space)``.
        boundary: Per axis the data of the (first, last) side ``(b, t, c_out, *face)``: the value for Dirichlet, ∂u/∂x
            along the axis for Neumann, None for a side without data.
        kinds: Kinds of the sides, such as ``(("Dirichlet", "Neumann"),)``.
        input_names: Names of the input channels.
        output_names: Names of the output channels.
    """

    grid: Grid
    times: Tensor
    inputs: Tensor
    outputs: Tensor
    boundary: tuple[SidePair, ...]
    kinds: tuple[tuple[str, str], ...]
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


def load_samples(path: str | Path, inputs: Sequence[str] | None = None) -> OperatorSamples:
    """Reads a file of samples.

    Args:
        path: A file that ``python -m experiments data`` or ``export`` wrote.
        inputs: Names of the input channels in order, by default all coefficients and all unknowns at the start.

    Raises:
        InvalidArgumentError: If the file is damaged or not by ``export``, or ``operator_samples`` does not take it.
        OSError: If there is no such file.
    """
    return operator_samples(load(path), inputs)


def operator_samples(data: FieldSet, inputs: Sequence[str] | None = None) -> OperatorSamples:
    """Samples of ``OperatorProblem.sample`` as an operator takes them.

    Args:
        data: Scalar fields from the start at time 0 on, or at one time: then coefficients are the only inputs. Data of
            the sides are in ``extras``, named ``side_0_first`` and so on.
        inputs: See ``load_samples``.

    Raises:
        InvalidArgumentError: If there is no such input, or none at all, the first of several times is not 0, or there
            are vectors.
    """
    steady = len(data.times) == 1
    available = _inputs(data, steady)
    names = tuple(available if inputs is None else inputs)
    if not names or not set(names) <= set(available):
        raise InvalidArgumentError(f"inputs must be some of {', '.join(available)}, got {names}.")
    outputs = torch.stack(list(data.fields.values()), dim=2)[:, 0 if steady else 1 :]
    return OperatorSamples(
        grid=data.grid,
        times=data.times if steady else data.times[1:],
        inputs=torch.stack([available[name] for name in names], dim=1),
        outputs=outputs,
        boundary=tuple(
            (_side(data, axis, "first", outputs), _side(data, axis, "last", outputs))
            for axis in range(data.grid.dimension)
        ),
        kinds=data.boundary,
        input_names=names,
        output_names=tuple(data.fields),
    )


def join(parts: Sequence[FieldSet]) -> FieldSet:
    """Sets of samples of one problem, one after the other.

    Args:
        parts: At least one; all have the same grid, times, kinds of sides and names. Texts are those of the first.

    Raises:
        InvalidArgumentError: If there is none, or they differ in one of these.
    """
    if not parts:
        raise InvalidArgumentError("join needs at least one set of samples, got none.")
    first = _shared(parts[0])
    for number, part in enumerate(parts):
        differing = [what for what, value in _shared(part).items() if value != first[what]]
        if differing:
            raise InvalidArgumentError(
                f"join takes sets of one problem, but set {number} and set 0 differ in {', '.join(differing)}; join "
                "sets that were made alike."
            )
    return replace(
        parts[0],
        **{
            category: {
                name: torch.cat([getattr(part, category)[name] for part in parts])
                for name in getattr(parts[0], category)
            }
            for category in CATEGORIES
        },
    )


def _inputs(data: FieldSet, steady: bool) -> dict[str, Tensor]:
    """Coefficients, and unknowns at the start ``(b, *space)``."""
    start = float(data.times[0])
    if not steady and start != 0:
        raise InvalidArgumentError(
            f"times must begin at the start, 0, where the unknowns are inputs, got {start:g}; have the field at the "
            "start among the output times, as in solve(..., times=[0.0, ...])."
        )
    if data.vectors:
        raise InvalidArgumentError(
            f"Operators take scalar fields, got the vectors {', '.join(data.vectors)}; give their components as fields."
        )
    available = dict(data.coefficients) | ({} if steady else {name: u[:, 0] for name, u in data.fields.items()})
    if not available:
        raise InvalidArgumentError(
            f"There is no input: the set has no coefficients and one time, {start:g}; output the start too."
        )
    return available


def _shared(part: FieldSet) -> dict[str, Any]:
    """Attributes that sets must share to be joined."""
    names = [set(getattr(part, category)) for category in CATEGORIES]
    return {"grid": part.grid, "times": part.times.tolist(), "kinds of sides": part.boundary, "names": names}


def _side(data: FieldSet, axis: int, end: str, outputs: Tensor) -> Tensor | None:
    """Data of a side, the same at all times and for all channels."""
    value = data.extras.get(f"side_{axis}_{end}")
    if value is None:
        return None
    return value[:, None, None].expand(*outputs.shape[:3], *value.shape[1:])
