"""Boundary conditions that vary along a side: parts with different conditions, Robin coefficients as fields.

On a side a u + b ∂u/∂x = g with a, b and g functions of the place on it; a = 1 and b = 0 on a Dirichlet part. A node
(or cell) of a side may also have no condition.

**Corners.** A node has one value, so of the conditions that meet at it one sets it: values first, then sides in the
order of the axes. Functionals whose coefficients vary do not commute, so no change of data could make the others hold
as well; they do where coefficients are constant and data compatible (``functionals``). Two values that disagree are an
error at nodes; in cells, where no value is at a corner, they are not compared.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations, zip_longest
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from boon._tensors.values import real_tensor
from boon.conditions.corners import check_gap, name_of
from boon.conditions.parts import Part
from boon.errors import InvalidArgumentError
from solvers.recording import are_readable


@dataclass(frozen=True, kw_only=True, eq=False)
class Varying:
    """B u = a Σ_j v_j u_j + b Σ_j (c_j/h) u_j on one side, with a and b that vary along it.

    Args:
        axis: Axis of the side, 0 … d − 1.
        last: Whether it is the last node of the axis, else the first.
        a: ``(batch|1, channels|1, *face)``, float64, 0 where there is no condition.
        b: The same.
        stencil: v_0 … of the value, (1) at nodes, boundary node first, then inward.
        gradient: c_0/h … c_p/h of the derivative.
        cells: Whether fields are averages over cells.
        holds: Where the side sets its node, ``(*face)``.
        given: Where it gives the value itself (Dirichlet), ``(*face)``.
    """

    axis: int
    last: bool
    a: Float[Tensor, "batch channels *face"]
    b: Float[Tensor, "batch channels *face"]
    stencil: tuple[float, ...]
    gradient: tuple[float, ...]
    cells: bool
    holds: Bool[Tensor, "*face"]
    given: Bool[Tensor, "*face"]

    def nodes(self, u: Tensor) -> list[Tensor]:
        """u at the boundary node and the nodes next to it, ``(batch, channels, *face)`` each."""
        dim = 2 + self.axis
        return [u.select(dim, -1 - j if self.last else j) for j in range(len(self.gradient))]

    @property
    def weights(self) -> list[Tensor]:
        """w_j = a v_j + b c_j/h ``(batch|1, channels|1, *face)``, float64."""
        pairs = zip_longest(self.stencil, self.gradient, fillvalue=0.0)
        return [self.a * value + self.b * slope for value, slope in pairs]

    def value(self, u: Tensor) -> Tensor:
        """a u at the wall, in float64."""
        return self.a * _sum(self.stencil, self.nodes(u.to(torch.float64)))

    def read(self, u: Tensor) -> Tensor:
        """B u, in float64."""
        return self.value(u) + self.b * _sum(self.gradient, self.nodes(u.to(torch.float64)))

    def scale(self, u: Tensor) -> Tensor:
        """Σ_j |w_j u_j|, in float64."""
        return _sum([weight.abs() for weight in self.weights], [node.abs() for node in self.nodes(u.to(torch.float64))])

    def of_one_on(self, data: Tensor) -> Float[Tensor, "batch 1 nodes"]:
        """B 1 on the nodes of the side, for features, which are sums over the channels of the data.

        Raises:
            InvalidArgumentError: If it differs between channels.
        """
        if self.a.shape[1] > 1 or self.b.shape[1] > 1:
            raise InvalidArgumentError(
                "Robin coefficients that differ between channels do not pass into hidden features, which are sums over "
                "channels; use a correction at the output (SmoothExtension() or Prescription()), or ChannelBOON."
            )
        return self.a.expand(len(data), *self.a.shape[1:]).reshape(len(data), 1, data.shape[2:].numel())

    def set(self, u: Tensor, data: Tensor) -> Tensor:
        """The field with its boundary nodes such that B u = g where the side holds."""
        (first, *others), (pivot, *weights) = self.nodes(u), (weight.to(u.dtype) for weight in self.weights)
        data = data.to(u.dtype)
        solved = (data - _sum(weights, others)) / torch.where(self.holds, pivot, 1.0)
        if len(self.stencil) == 1:
            solved = torch.where(self.given, data, solved)
        new = torch.where(self.holds, solved, first)
        return u.select_scatter(new, 2 + self.axis, u.shape[2 + self.axis] - 1 if self.last else 0)

    def where(self, holds: Tensor) -> "Varying":
        """The same condition on fewer nodes."""
        return replace(
            self,
            a=torch.where(holds, self.a, 0.0),
            b=torch.where(holds, self.b, 0.0),
            holds=holds,
            given=holds & self.given,
        )


def _sum(weights: Sequence[float] | Sequence[Tensor], nodes: Sequence[Tensor]) -> Tensor:
    """Σ_j w_j u_j."""
    total = weights[0] * nodes[0]
    for weight, node in zip(weights[1:], nodes[1:], strict=False):  # a value has fewer weights than a derivative
        total = total + weight * node
    return total


def coefficients(
    part: Part,
    coordinates: Sequence[Tensor],
    here: Bool[Tensor, "*face"],
    first: tuple[float, float],
    u: Tensor,
    name: str,
) -> tuple[Tensor, Tensor]:
    """a and b of a u + b ∂u/∂x, ``(batch|1, channels|1, *face)``, float64, as they are given also beside ``here``.

    ``first`` are the weights of the boundary node in u and ∂u/∂x.

    Raises:
        InvalidArgumentError: If they have the wrong shape or the condition does not depend on the boundary node.
    """
    shape = (*u.shape[:2], *here.shape)
    a, b = (
        _coefficient(value, letter, coordinates, shape, u, name)
        for letter, value in zip("ab", part.coefficients, strict=True)
    )
    of_value, of_slope = a * first[0], b * first[1]
    pivot, size = (of_value + of_slope).abs(), of_value.abs() + of_slope.abs()
    if are_readable(pivot) and bool((here & (pivot < 1e-6 * size)).any()):
        raise InvalidArgumentError(
            f"{name}: Robin cannot be solved for the boundary node where a + b·c₀/h is small, here "
            f"{float(pivot.detach().where(here, torch.inf).min()):.3g}. Check the sign of b (∂u/∂x is not the outward "
            "derivative) or change the grid or the stencil order."
        )
    return a, b


def _coefficient(
    value: Any, letter: str, coordinates: Sequence[Tensor], shape: tuple[int, ...], u: Tensor, name: str
) -> Tensor:
    """A Robin coefficient on the nodes of a side; a function is called with their coordinates.

    Raises:
        InvalidArgumentError: If it has the wrong shape, or a function gives a number that no coefficient can be.
    """
    value_here = value(*coordinates) if callable(value) else value
    tensor = real_tensor(value_here, torch.float64, u.device, f"{name}: {letter} of Robin")
    if callable(value) and tensor.ndim < len(shape):
        tensor = tensor.expand(*(1,) * (len(shape) - tensor.ndim), *tensor.shape)
    fits = tensor.ndim == len(shape) and all(n in (1, m) for n, m in zip(tensor.shape, shape, strict=True))
    if tensor.ndim > 0 and not fits:
        raise InvalidArgumentError(
            f"{name}: {letter} of Robin must be a number or have one axis for the batch, one for the channels and "
            f"those of the side, each of the size in {shape} or 1, got shape {tuple(tensor.shape)}."
        )
    if callable(value) and are_readable(tensor) and not _is_coefficient(tensor, letter):
        raise InvalidArgumentError(
            f"{name}: the function for {letter} of Robin gives a number that is not finite, or b = 0; where the value "
            "itself is known, make a part of the side Dirichlet."
        )
    return tensor.expand(*(tensor.shape[:2] if tensor.ndim else (1, 1)), *shape[2:])


def _is_coefficient(tensor: Tensor, letter: str) -> bool:
    return bool(torch.isfinite(tensor).all()) and not (letter == "b" and bool((tensor == 0).any()))


def set_varying(u: Tensor, sides: Sequence[Varying], data: Sequence[Tensor], periodic: Sequence[int]) -> Tensor:
    """Sets the boundary nodes so that every condition holds; periodic ends become their average.

    A node on an edge depends on nodes of one face, a node at a vertex on those of edges, so as many sweeps as there are
    axes give every node its final value.
    """
    for _ in {side.axis for side in sides}:
        for side, values in zip(sides, data, strict=True):
            u = side.set(u, values)
    return close_axes(u, periodic)


def close_axes(u: Tensor, periodic: Sequence[int]) -> Tensor:
    """The field with both ends of periodic axes at their average."""
    for axis in periodic:
        dim = 2 + axis
        mean = 0.5 * (u.select(dim, 0) + u.select(dim, -1))
        u = u.select_scatter(mean, dim, 0).select_scatter(mean, dim, u.shape[dim] - 1)
    return u


def assign_corners(
    sides: Sequence[Varying], data: Sequence[Tensor], periodic: Sequence[int], tolerance: float
) -> tuple[tuple[Varying, ...], tuple[Tensor, ...]]:
    """Decides which side sets every node where sides meet; see the rule at the top of this module.

    Args:
        sides: The conditions, each on all of its nodes.
        data: Their data ``(batch, channels, *face)``.
        periodic: The periodic axes.
        tolerance: Largest disagreement of two values, relative to the largest value on their sides of the same sample
            and channel.

    Raises:
        IncompatibleCornersError: If values disagree where two sides, or the ends of a periodic axis, meet.
        InvalidArgumentError: If a condition is not the same at both ends of a periodic axis.
    """
    for side, values in zip(sides, data, strict=True):
        for axis in periodic:
            _check_periodic(side, values, axis, tolerance)
    result = []
    for index, side in enumerate(sides):
        holds = side.holds.clone()
        for earlier, other in ((number < index, other) for number, other in enumerate(sides)):
            if other.axis != side.axis:
                here, there = _edge(side, other), _edge(other, side)
                equal = other.given[there] == side.given[here]
                wins = other.given[there] & ~side.given[here]
                wins = wins | (other.holds[there] & equal) if earlier else wins
                holds[here] = holds[here] & ~wins
        result.append(side.where(holds))
    for (side, values), (other, others) in combinations(zip(sides, data, strict=True), 2):
        if other.axis != side.axis and not side.cells:
            _check_corner(side, values, other, others, tolerance)
    masked = (torch.where(side.holds, values, 0.0) for side, values in zip(result, data, strict=True))
    return tuple(result), tuple(masked)


def _check_corner(side: Varying, data: Tensor, other: Varying, others: Tensor, tolerance: float) -> None:
    here, there = _edge(side, other), _edge(other, side)
    both = side.given[here] & other.given[there]
    gap = torch.where(both, data[:, :, *here] - others[:, :, *there], 0.0)
    values = [torch.where(each.given, found, 0.0) for each, found in ((side, data), (other, others))]
    check_gap(gap, values, tolerance, name_of(other.axis, other.last))


def _edge(side: Varying, other: Varying) -> tuple[slice | int, ...]:
    """Index of the nodes on the face of a side that lie on another side as well."""
    return (*[slice(None)] * (other.axis - (other.axis > side.axis)), -1 if other.last else 0)


def _check_periodic(side: Varying, data: Tensor, axis: int, tolerance: float) -> None:
    dim, name = axis - (axis > side.axis), name_of(side.axis, side.last)
    ends = [
        [each.select(dim - side.holds.ndim, end) for each in (side.holds, side.given, side.a, side.b, data)]
        for end in (0, -1)
    ]
    if not are_readable(data, side.a):
        return
    sizes = [tolerance * each.abs().max() for each in (side.a, side.b)]
    same = all(torch.equal(*pair) for pair in zip(ends[0][:2], ends[1][:2], strict=True))
    gaps = [(first - last).abs().max() for first, last in zip(ends[0][2:4], ends[1][2:4], strict=True)]
    if not same or any(bool(gap > size) for gap, size in zip(gaps, sizes, strict=True)):
        raise InvalidArgumentError(
            f"A condition on the {name} differs between the two ends of the periodic axis {axis}; give both "
            "ends the same parts and coefficients."
        )
    gap = torch.where(ends[0][0], ends[0][4] - ends[1][4], 0.0)
    alike = side.given == ends[0][1].unsqueeze(dim)
    check_gap(gap, [torch.where(side.holds & alike, data, 0.0)], tolerance, name)
