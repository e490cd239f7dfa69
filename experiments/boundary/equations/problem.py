"""Problems with boundary conditions, and samples of their solutions.

A sample is an input field at the start, output fields at later times, and the values of the boundary conditions at
these times. The domain is the unit interval or square, on nodes that include the boundary.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from solvers._arguments import output_times
from solvers.conditions import AxisConditions, Dirichlet, Neumann, Periodic
from solvers.errors import InvalidArgumentError
from solvers.grids import NodeGrid

Parameters = Mapping[str, Tensor]
SidePairs = tuple[tuple[Tensor, Tensor] | None, ...]
Fields = Callable[[Parameters, NodeGrid, Tensor], tuple[Tensor, Tensor]]
Times = float | Sequence[float] | np.ndarray | Tensor


@dataclass(frozen=True)
class Uniform:
    """The uniform distribution on [low, high]."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InvalidArgumentError(f"Uniform needs low < high, got {self.low} and {self.high}.")

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Independent numbers of a shape, float64."""
        return self.low + (self.high - self.low) * torch.rand(shape, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Normal:
    """The normal distribution with mean 0."""

    deviation: float = 1.0

    def draw(self, shape: tuple[int, ...], generator: Generator) -> Tensor:
        """Independent numbers of a shape, float64."""
        return self.deviation * torch.randn(shape, generator=generator, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A random number or array that determines a sample.

    Args:
        name: Name in files.
        symbol: Symbol in tables.
        distribution: Distribution of its independent entries.
        shape: Shape for one sample.
        unit: Unit; "1" is dimensionless.
    """

    name: str
    symbol: str
    distribution: Uniform | Normal
    shape: tuple[int, ...] = ()
    unit: str = "1"


@dataclass(frozen=True, kw_only=True)
class BoundarySamples:
    """Samples of a problem.

    Args:
        grid: Nodes, both ends of every axis included; on a periodic axis the last node repeats the first.
        times: Output times ``(t,)``.
        input: Fields at the start ``(batch, *space)``.
        output: Fields at the output times ``(batch, t, *space)``.
        boundary: Per axis the values of the conditions on its (first, last) side, ``(batch, t, *face)`` each: of the
            field for Dirichlet, of ∂/∂x along the axis for Neumann; None for a periodic axis.
        parameters: Parameters by name, ``(batch, *shape)``.
    """

    grid: NodeGrid
    times: Float[Tensor, " t"]
    input: Tensor
    output: Tensor
    boundary: SidePairs
    parameters: Parameters


@dataclass(frozen=True, kw_only=True)
class BoundaryProblem:
    """A problem with boundary conditions and a reference solution.

    Args:
        name: Name on the command line and in files.
        equation: Equation, for tables and file attributes.
        conditions: Types of condition, one (first, last) pair per axis, without values.
        parameters: Random parameters.
        fields: (parameters, grid, times) → fields at the start ``(batch, *space)`` and at the times.
        gradients: (parameters, times) → gradients on the sides of every axis, ``(batch, t, *1)``, broadcasting along
            faces; None without Neumann sides.
        constants: Fixed numbers of the problem, by name.
        start: Time of the input field.
        single_time: Output time of the single-step version.
        final_times: Last output times of the multi-step versions, the standard one first.
        reconstructed: Settings that the paper does not give, for tables; may be empty.

    Raises:
        InvalidArgumentError: If gradients are missing or a time is not after the start.
    """

    name: str
    equation: str
    conditions: tuple[AxisConditions, ...]
    parameters: tuple[Parameter, ...]
    fields: Fields
    gradients: Callable[[Parameters, Tensor], SidePairs] | None = None
    constants: Mapping[str, float] = field(default_factory=dict)
    start: float = 0.0
    single_time: float
    final_times: tuple[float, ...]
    reconstructed: str = ""

    def __post_init__(self) -> None:
        neumann = any(isinstance(side, Neumann) for pair in self.conditions for side in pair)
        if neumann != (self.gradients is not None):
            raise InvalidArgumentError(f"Problem '{self.name}' needs gradients exactly if a side is Neumann's.")
        if not self.final_times or min(self.single_time, *self.final_times) <= self.start:
            raise InvalidArgumentError(f"Problem '{self.name}' needs output times after its start at {self.start}.")

    def grid(self, nodes: int) -> NodeGrid:
        """The grid of ``nodes`` nodes along every axis of the unit interval or square."""
        d = len(self.conditions)
        return NodeGrid((0.0,) * d, (1.0,) * d, (nodes,) * d)

    def single_step(self) -> Float[Tensor, " 1"]:
        """The one output time of the single-step version."""
        return torch.tensor([self.single_time], dtype=torch.float64)

    def multi_step(self, count: int = 25, final: float | None = None) -> Float[Tensor, " t"]:
        """``count`` equally spaced output times after the start, up to the standard final time or another one."""
        last = self.final_times[0] if final is None else final
        return self.start + (last - self.start) * torch.arange(1, count + 1, dtype=torch.float64) / count

    def draw(self, count: int, generator: Generator) -> dict[str, Tensor]:
        """Random parameters of ``count`` samples."""
        return {p.name: p.distribution.draw((count, *p.shape), generator) for p in self.parameters}

    def evaluate(self, parameters: Parameters, nodes: int, times: Times) -> BoundarySamples:
        """Samples with given parameters.

        Args:
            parameters: By name ``(batch, *shape)``, for at least one sample.
            nodes: Nodes along every axis.
            times: Increasing output times after the start.

        Returns:
            The samples; float64.

        Raises:
            InvalidArgumentError: If a parameter is missing, not finite or of another shape, or the times are not finite
                or not increasing from the start on.
        """
        outputs = output_times(times, self.start, after=True)
        self._check_parameters(parameters)
        grid = self.grid(nodes)
        first, output = self.fields(parameters, grid, outputs)
        gradients = None if self.gradients is None else self.gradients(parameters, outputs)
        return BoundarySamples(
            grid=grid,
            times=outputs,
            input=first,
            output=output,
            boundary=_boundary(self.conditions, output, gradients),
            parameters=dict(parameters),
        )

    def sample(self, count: int, nodes: int, times: Times, generator: Generator) -> BoundarySamples:
        """Random samples: ``draw``, then ``evaluate``; equal generators give equal samples on every grid."""
        return self.evaluate(self.draw(count, generator), nodes, times)

    def _check_parameters(self, parameters: Parameters) -> None:
        missing = [p.name for p in self.parameters if p.name not in parameters]
        if missing:
            raise InvalidArgumentError(f"Problem '{self.name}' needs all its parameters, missing: {missing}.")
        first = next((parameters[p.name] for p in self.parameters), None)
        count = len(first) if isinstance(first, Tensor) and first.ndim else 1
        for p in self.parameters:
            given, expected = parameters[p.name], (count, *p.shape)
            got = tuple(given.shape) if isinstance(given, Tensor) else type(given).__name__
            if got != expected or not count:
                raise InvalidArgumentError(
                    f"parameter '{p.name}' of problem '{self.name}' must be a tensor (batch, *shape) with at least one "
                    f"sample, such as {(max(1, count), *p.shape)}, got {got}."
                )
            if not bool(torch.isfinite(given).all()):
                raise InvalidArgumentError(f"parameter '{p.name}' of problem '{self.name}' must be finite.")


def _boundary(conditions: Sequence[AxisConditions], output: Tensor, gradients: SidePairs | None) -> SidePairs:
    """Values on the sides: boundary nodes of the output for Dirichlet, gradients along the whole face for Neumann."""

    def on_side(axis: int, last: int) -> Tensor:
        nodes = output.select(2 + axis, -last)
        if isinstance(conditions[axis][last], Dirichlet):
            return nodes.clone()
        pair = None if gradients is None else gradients[axis]
        if pair is None:
            raise InvalidArgumentError(f"gradients need a pair for axis {axis}, whose sides are Neumann's.")
        return pair[last].expand(nodes.shape).clone()

    return tuple(
        None if isinstance(pair[0], Periodic) else (on_side(axis, 0), on_side(axis, 1))
        for axis, pair in enumerate(conditions)
    )
