"""Base of problems for operators: a recipe, samples drawn by seed, and solutions restricted to nodes.

Random functions are evaluated one at a time, so that a sample does not depend on its batch.

A sample is drawn as numbers that do not depend on the grid, such as coefficients of a random field, then solved on
fine cells; every few nodes of the fine grid are kept. All quantities are dimensionless.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from solvers.conditions import AxisConditions, Condition, Dirichlet, Neumann, Periodic
from solvers.data_files.field_set import FieldSet
from solvers.errors import InvalidArgumentError
from solvers.grids import CellGrid, Grid, NodeGrid
from solvers.random_fields import GaussianField, Matern

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Draws = Mapping[str, Tensor]
Beyond = tuple[float, float] | None
"""Interval of the sizes of side data in units of the largest in training, from 1 on; None for data as in training."""
Sides = tuple[tuple[Tensor | None, Tensor | None], ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Resolution and sizes of a set of samples.

    Args:
        intervals: Intervals between nodes along every axis; there is one node more.
        refinement: Cells per interval that the reference solution is computed with.
        times: Output times after the start at 0, increasing; empty for a steady problem.
        error: Bound of ‖u − u′‖/‖u′ − mean u′‖ over all nodes and output times of a sample, where u′ is the solution
            with twice the refinement.
        train: Standard number of samples for training.
        validation: The same for validation.
        test: The same for tests.

    Raises:
        InvalidArgumentError: If a number is out of range, or times are not positive and increasing.
    """

    intervals: int
    refinement: int
    times: tuple[float, ...] = ()
    error: float
    train: int = 1000
    validation: int = 200
    test: int = 200

    def __post_init__(self) -> None:
        for name, least in {"intervals": 2, "refinement": 1, "train": 1, "validation": 1, "test": 1}.items():
            if getattr(self, name) < least:
                raise InvalidArgumentError(f"Recipe: {name} must be at least {least}, got {getattr(self, name)}.")
        if any(b <= a for a, b in zip((0.0, *self.times), self.times, strict=False)):
            raise InvalidArgumentError(f"Recipe: times must be positive and increasing, got {self.times}.")


class OperatorProblem(ABC):
    """A problem whose solution operator is to be learned, on the unit interval or square.

    A subclass is a frozen dataclass whose fields are the constants of the equation, with ``recipe`` the last. A field
    ``beyond`` is an interval as ``Beyond`` says.

    Attributes:
        recipe: Resolution and sizes.
        name: Name on the command line and in files.
        equation: Equation with its constants and domain, for file attributes.
        inputs: Names of the input fields: coefficients, and unknowns at the start.
        conditions: Kinds of the sides, one (first, last) pair per axis, without values.
        data: What is random, in a line.
    """

    recipe: Recipe
    name: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]]
    conditions: ClassVar[tuple[tuple[str, str], ...]]
    data: ClassVar[str]

    def __post_init__(self) -> None:
        beyond: Beyond = getattr(self, "beyond", None)
        if beyond is not None and not 1 <= beyond[0] < beyond[1]:
            raise InvalidArgumentError(f"beyond must be an interval (low, high) with 1 ≤ low < high, got {beyond}.")

    @property
    @abstractmethod
    def equation(self) -> str:
        """Equation with its constants, as text."""

    @abstractmethod
    def draw(self, random: np.random.Generator) -> dict[str, Tensor]:
        """The random numbers of one sample, which determine it on every grid.

        Args:
            random: Source of the random numbers.

        Returns:
            Arrays by name, float64.
        """

    @abstractmethod
    def evaluate(self, draws: Draws, refinement: int | None = None) -> FieldSet:
        """Solves samples and restricts them to the nodes.

        Args:
            draws: Random numbers of several samples, ``(b, …)`` by name.
            refinement: Cells per interval, by default that of the recipe.

        Returns:
            Fields at the nodes, ``(b, t, *nodes)`` with the start first unless the problem is steady; input fields in
            ``coefficients``; data of the sides ``(b, *face)`` in ``extras``, named ``side_0_first`` and so on: values
            at the nodes for Dirichlet, ∂u/∂x along the axis for Neumann. Dirichlet nodes hold their datum exactly
            after the start.
        """

    @property
    def dimension(self) -> int:
        """Number of space axes."""
        return len(self.conditions)

    @property
    def nodes(self) -> NodeGrid:
        """The nodes of the samples, both ends of every axis included."""
        d = self.dimension
        return NodeGrid((0.0,) * d, (1.0,) * d, (self.recipe.intervals + 1,) * d)

    def cells(self, refinement: int | None = None) -> CellGrid:
        """The cells that the reference solution is computed on."""
        d, n = self.dimension, self.recipe.intervals * (refinement or self.recipe.refinement)
        return CellGrid((0.0,) * d, (1.0,) * d, (n,) * d)

    def sample(
        self, count: int, *, first: int = 0, split: Split = "train", seed: int = 0, refinement: int | None = None
    ) -> FieldSet:
        """Samples number ``first`` to ``first + count − 1`` of a split.

        Each depends on the seed, the split and its own number alone, so parts of a set are the same as in the whole.

        Args:
            count: Number of samples.
            first: Number of the first sample, from 0.
            split: Sets of different splits share no sample.
            seed: Not negative.
            refinement: Cells per interval, by default that of the recipe.

        Returns:
            See ``evaluate``.

        Raises:
            InvalidArgumentError: If a number is out of range or the split is unknown.
        """
        if count < 1 or first < 0 or seed < 0 or split not in SPLITS:
            raise InvalidArgumentError(
                f"sample needs count ≥ 1, first ≥ 0, seed ≥ 0 and a split of {', '.join(SPLITS)}, got {count}, "
                f"{first}, {seed} and {split!r}."
            )
        stream = (seed, SPLITS.index(split))
        drawn = [self.draw(np.random.default_rng((*stream, number))) for number in range(first, first + count)]
        draws = {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}
        return replace(self.evaluate(draws, refinement), seed=seed)

    def field_set(self, fields: Draws, coefficients: Draws, sides: Sides = ()) -> FieldSet:
        """A ``FieldSet`` with the equation, times and sides of this problem."""
        data = {
            f"side_{axis}_{end}": value
            for axis, pair in enumerate(sides)
            for end, value in zip(("first", "last"), pair, strict=True)
            if value is not None
        }
        return FieldSet(
            grid=self.nodes,
            times=torch.tensor([0.0, *self.recipe.times], dtype=torch.float64),
            fields=fields,
            coefficients=coefficients,
            extras=data,
            boundary=self.conditions,
            equation=self.equation,
        )


def restrict(
    cells: Tensor, conditions: Sequence[AxisConditions], intervals: int, lengths: Sequence[float] | None = None
) -> Tensor:
    """Point values at every few nodes from averages of fine cells, such as the values of a solution.

    Inside the mean of the cells around a node; on a side with a gradient g = ∂u/∂x the parabola through two cell
    averages with that slope. Both are second order or better.

    Args:
        cells: Averages ``(*batch, *cells)``.
        conditions: One (first, last) pair per axis: ``Neumann(gradient)`` with a number or ``(*batch,)``, ``Dirichlet``
            with a number or values at the kept nodes ``(*batch, *face)``, which these nodes then hold, or ``Periodic``.
        intervals: Intervals between the kept nodes along every axis, a divisor of the number of cells.
        lengths: Length of every axis; 1 by default.

    Returns:
        Values ``(*batch, *nodes)``.

    Raises:
        InvalidArgumentError: If a side has another condition or no value, or the intervals do not divide the cells.
    """
    d = len(conditions)
    sizes = [1.0] * d if lengths is None else lengths
    if len(sizes) != d or cells.ndim < d or any(count % intervals for count in cells.shape[cells.ndim - d :]):
        raise InvalidArgumentError(
            f"restrict needs one pair of conditions and one length per axis and intervals that divide the cells, got "
            f"{d}, {len(sizes)} and {intervals} for cells {tuple(cells.shape)}."
        )
    values = cells
    for axis, (pair, length) in enumerate(zip(conditions, sizes, strict=True)):
        values = _nodes_along(values, axis - d, [_slope(side, length, d) for side in pair], intervals)
    for axis, pair in enumerate(conditions):
        for end, condition in zip((0, intervals), pair, strict=True):
            if isinstance(condition, Dirichlet):
                side = values.select(axis - d, end)
                side.copy_(torch.as_tensor(condition.value, dtype=side.dtype).expand(side.shape))
    return values


def _slope(condition: Condition, length: float, dimension: int) -> Tensor | None:
    """∂u/∂x times the length of the axis, with axes of length 1 for space; None on a circle."""
    if isinstance(condition, Periodic):
        return None
    value = condition.gradient if isinstance(condition, Neumann) else getattr(condition, "value", None)
    if value is None or callable(value) or not isinstance(condition, Neumann | Dirichlet):
        raise InvalidArgumentError(
            "restrict takes Neumann(gradient=…) and Dirichlet(value) with numbers or tensors, or Periodic, not this "
            f"{type(condition).__name__}; otherwise leave the fields in cells, and give BOON the CellGrid."
        )
    slope = torch.as_tensor(value if isinstance(condition, Neumann) else 0.0) * length
    return slope.reshape(*slope.shape, *[1] * dimension) if slope.ndim else slope


def _nodes_along(values: Tensor, axis: int, slopes: Sequence[Tensor | None], intervals: int) -> Tensor:
    """Values at the kept nodes of one axis from those at its cells."""
    n = values.shape[axis]
    inner = 0.5 * (values.narrow(axis, 0, n - 1) + values.narrow(axis, 1, n - 1))
    ends = []
    for slope, edge, next_one, sign in ((slopes[0], 0, 1, 1), (slopes[1], n - 1, n - 2, -1)):
        at_edge, neighbour = values.narrow(axis, edge, 1), values.narrow(axis, next_one, 1)
        if slope is None:
            ends.append(0.5 * (values.narrow(axis, 0, 1) + values.narrow(axis, n - 1, 1)))
        else:
            step = sign * slope / n
            ends.append(at_edge - step / 2 - (neighbour - at_edge - step) / 6)
    every = torch.arange(0, n + 1, n // intervals)
    return torch.cat([ends[0], inner, ends[1]], dim=axis).index_select(axis, every)


LEVEL = (Neumann(gradient=0.0), Neumann(gradient=0.0))
ZERO = (Dirichlet(0.0), Dirichlet(0.0))


def random_field(
    deviation: float, inverse_length: float, modes: int, *boundary: tuple, smoothness: float = 3.0
) -> GaussianField:
    """A Gaussian field on the unit box whose variance has the mean ``deviation``² over the box.

    Args:
        deviation: Root of the mean variance.
        inverse_length: τ of the Matérn spectrum.
        modes: Half waves along every axis.
        *boundary: One pair per axis, ``LEVEL`` (cosines) or ``ZERO`` (sines).
        smoothness: α of the Matérn spectrum.
    """

    def make(amplitude: float) -> GaussianField:
        spectrum = Matern(amplitude=amplitude, inverse_length=inverse_length, smoothness=smoothness)
        d = len(boundary)
        return GaussianField(low=(0.0,) * d, high=(1.0,) * d, spectrum=spectrum, boundary=boundary, modes=modes)

    return make(deviation / float(make(1.0).variances.sum().sqrt()))


def draw_field(field: GaussianField, random: np.random.Generator) -> Tensor:
    """Coefficients of one draw ``(*shape)``."""
    return field.variances.sqrt() * torch.from_numpy(random.standard_normal(field.shape))


def draw_uniform(low: float, high: float, random: np.random.Generator, *shape: int) -> Tensor:
    """Independent uniform numbers ``(*shape)``."""
    return torch.from_numpy(np.asarray(random.uniform(low, high, shape)))


_DEVIATIONS = 3.0  # what counts as the largest value of a Gaussian field in training
_POINTS = 257


def uniform_beyond(value: Tensor, largest: float, beyond: Beyond) -> Tensor:
    """Numbers in [−largest, largest], moved outwards into ``beyond`` times this with their signs, in their order."""
    if beyond is None:
        return value
    low, high = beyond
    return torch.where(value < 0, -1.0, 1.0) * (low * largest + (high - low) * value.abs())


def field_beyond(field: GaussianField, coefficients: Tensor, beyond: Beyond, random: np.random.Generator) -> Tensor:
    """Coefficients of one draw on the unit interval, its largest value scaled into ``beyond`` times 3 deviations."""
    if beyond is None:
        return coefficients
    largest = field.values(coefficients, NodeGrid(0.0, 1.0, _POINTS)).abs().max()
    deviation = field.variances.sum().sqrt()
    return coefficients * (random.uniform(*beyond) * _DEVIATIONS * deviation / largest)


def field_values(field: GaussianField, coefficients: Tensor, grid: Grid) -> Tensor:
    """Values ``(b, *space)`` of draws ``(b, *shape)``: matrix products of one sample round the same in any batch."""
    return torch.stack([field.values(one, grid) for one in coefficients])
