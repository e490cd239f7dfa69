"""Random functions of a problem and random points of them: batches for training and testing surrogates.

A *function* is one draw of the problem's parameter. Its context is a product grid: one uniform draw of the time from
each of equal intervals, and sorted uniform positions; targets are a product grid of sorted uniform times and positions.
Values come from the closed form, or from a bank of finite-volume solutions at its cell centres and output times.
Source: Hansen et al. 2023, appendix C. Generators are arguments; equal generators give equal batches.
"""

from dataclasses import dataclass
from math import pi
from typing import Unpack

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.solve import SolveOptions, solve
from solvers.grids import CellGrid
from solvers.problems.conservation import Problem


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Numbers of points drawn per function.

    Args:
        context_times: Times of the context, one from each of as many equal intervals.
        context_places: Points of the context at every time.
        target_times: Times of the targets.
        target_places: Points of the targets at every time.

    Raises:
        InvalidArgumentError: If a number is below 1.
    """

    context_times: int = 10
    context_places: int = 10
    target_times: int = 10
    target_places: int = 10

    def __post_init__(self) -> None:
        for name in ("context_times", "context_places", "target_times", "target_places"):
            if getattr(self, name) < 1:
                raise InvalidArgumentError(f"{name} must be at least 1, got {getattr(self, name)}.")


@dataclass(frozen=True)
class FunctionBatch:
    """Context and target points of several functions; float64.

    Args:
        parameter: The functions' parameters ``(batch,)``.
        context_points: Points (t, x) ``(batch, n, 2)``.
        context_values: Field ``(batch, n)``.
        target_points: Points (t, x) ``(batch, q, 2)``.
        target_values: Field ``(batch, q)``.
    """

    parameter: Float[Tensor, " batch"]
    context_points: Float[Tensor, "batch n 2"]
    context_values: Float[Tensor, "batch n"]
    target_points: Float[Tensor, "batch q 2"]
    target_values: Float[Tensor, "batch q"]


@dataclass(frozen=True)
class SolutionBank:
    """Solutions for many parameters on one grid, to sample from.

    Args:
        parameter: Parameters ``(members,)``.
        times: Output times ``(t,)``, increasing.
        places: Cell centres ``(n,)``, increasing.
        values: Cell averages ``(members, t, n)``; float32 saves memory.

    Raises:
        InvalidArgumentError: If the shapes do not match or a value is not finite.
    """

    parameter: Float[Tensor, " members"]
    times: Float[Tensor, " t"]
    places: Float[Tensor, " n"]
    values: Float[Tensor, "members t n"]

    def __post_init__(self) -> None:
        expected = (len(self.parameter), len(self.times), len(self.places))
        if tuple(self.values.shape) != expected:
            raise InvalidArgumentError(
                f"values of a solution bank must be (members, t, n) = {expected}, got {tuple(self.values.shape)}."
            )
        if not bool(torch.isfinite(self.values).all()):
            raise InvalidArgumentError("values of a solution bank must be finite; solve these parameters again.")

    def within(self, low: float, high: float) -> "SolutionBank":
        """The members whose parameter lies in [low, high].

        Raises:
            InvalidArgumentError: If there is none.
        """
        chosen = (self.parameter >= low) & (self.parameter <= high)
        if not bool(chosen.any()):
            raise InvalidArgumentError(f"No member of the bank has its parameter in [{low:g}, {high:g}].")
        return SolutionBank(self.parameter[chosen], self.times, self.places, self.values[chosen])


def even_parameters(interval: tuple[float, float], count: int) -> Float[Tensor, " count"]:
    """Midpoints ``(count,)`` of equal parts of an interval of the parameter."""
    low, high = interval
    return low + (high - low) * (torch.arange(count, dtype=torch.float64) + 0.5) / count


def random_parameters(problem: Problem, count: int, generator: Generator) -> Float[Tensor, " count"]:
    """Parameters ``(count,)`` drawn uniformly from the problem's training range."""
    low, high = problem.training_range
    return low + (high - low) * _uniform((count,), generator)


def end_weighted_parameters(problem: Problem, count: int, generator: Generator) -> Float[Tensor, " count"]:
    """Parameters ``(count,)`` of the training range with the arcsine density, which is largest at its ends.

    A network is least accurate at the ends of the range, where it has training data on one side only; more draws
    compensate for that.
    """
    low, high = problem.training_range
    return low + (high - low) * torch.sin(0.5 * pi * _uniform((count,), generator)).square()


def solve_problem(
    problem: Problem,
    grid: CellGrid,
    parameter: Float[Tensor, "*batch"],
    times: Float[Tensor, " t"],
    **options: Unpack[SolveOptions],
) -> Float[Tensor, "*batch t n"]:
    """Finite-volume solutions of a problem from its initial field, float64; ``options`` are those of ``solve``."""
    boundary, initial = problem.boundary(parameter), problem.initial(grid, parameter)
    return solve(problem.law(parameter), grid, boundary=boundary, initial=initial, times=times, **options).values


def sample_exact(
    problem: Problem, parameter: Float[Tensor, " batch"], protocol: Protocol, generator: Generator
) -> FunctionBatch:
    """Functions with one parameter each, from the problem's closed form at new times and positions."""
    batch = len(parameter)

    def draw(times: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        low, high = problem.domain
        t, x = problem.final_time * times, low + (high - low) * places
        values = problem.solution(t[:, :, None], x[:, None, :], parameter[:, None, None])
        return product_points(t, x), values.flatten(start_dim=1)

    context, target = (draw(*each) for each in _draws(batch, protocol, generator))
    return FunctionBatch(parameter.double(), *context, *target)


def sample_bank(bank: SolutionBank, count: int, protocol: Protocol, generator: Generator) -> FunctionBatch:
    """``count`` functions from stored solutions: random members, which may repeat, at cell centres and output times.

    The draws of ``sample_exact`` are mapped to indices of output times and cells, so with many of both the points have
    nearly the same distribution.
    """
    member = torch.randint(len(bank.parameter), (count,), generator=generator)

    def draw(times: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        row, column = _index(times, len(bank.times)), _index(places, len(bank.places))
        values = bank.values[member[:, None, None], row[:, :, None], column[:, None, :]]
        return product_points(bank.times[row], bank.places[column]), values.flatten(start_dim=1).double()

    context, target = (draw(*each) for each in _draws(count, protocol, generator))
    return FunctionBatch(bank.parameter[member].double(), *context, *target)


def product_points(times: Float[Tensor, "*batch t"], places: Float[Tensor, "*batch n"]) -> Float[Tensor, "*batch tn 2"]:
    """Points (t, x) of the product of times and positions, time-major: ``(*batch, t·n, 2)``, float64."""
    shape = (*times.shape, places.shape[-1])
    t = times.double()[..., :, None].expand(shape)
    x = places.double()[..., None, :].expand(shape)
    return torch.stack((t, x), dim=-1).flatten(start_dim=-3, end_dim=-2)


def _draws(batch: int, protocol: Protocol, generator: Generator) -> tuple[tuple[Tensor, Tensor], ...]:
    """Times and positions of context and targets in [0, 1), all sorted; one time of the context per equal interval."""
    shape = (batch, protocol.context_times)
    times = (torch.arange(shape[1], dtype=torch.float64) + _uniform(shape, generator)) / shape[1]
    sizes = protocol.context_places, protocol.target_times, protocol.target_places
    places, *target = (_uniform((batch, size), generator).sort(dim=-1).values for size in sizes)
    return (times, places), (target[0], target[1])


def _index(fraction: Tensor, count: int) -> Tensor:
    """Fractions in [0, 1] → indices 0 … count − 1; a fraction may round up to 1."""
    return (fraction * count).long().clamp(max=count - 1)


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)
