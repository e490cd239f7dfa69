"""Boundary conditions as linear functionals of the field, and prescription, which enforces them.

A side's condition reads B u = g with B u = Σ_j w_j u_j over the boundary node (j = 0) and the nodes next to it
(as in Hansen et al. 2023, whose functionals are integrals):

* Dirichlet u = g: w = v, the weights of the value.
* Neumann ∂u/∂x = g: w = c/h, c the weights of a one-sided difference.
* Robin a u + b ∂u/∂x = g: w = a v + b c/h.

At nodes v = (1) and c is of order p = 1 to 4. In cells u_j is the average over [j h, (j + 1) h], and value and
derivative at the wall are the first and second derivatives of the primitive U(j h) = h Σ_{i<j} u_i, by one-sided
differences of order p on its values at faces: (3 u_0 − u_1)/2 and (−2 u_0 + 3 u_1 − u_2)/h for p = 2.

Prescription solves B u = g for the boundary node (or cell), u_0 = (g − Σ_{j≥1} w_j u_j)/w_0 (Saad et al. 2023). On a
periodic axis of nodes both ends are set to their average; on one of cells nothing is to be set.

**Corners.** Functionals of different axes commute, so two sides with data g₁ and g₂ are compatible where they meet if
and only if B₂ g₁ = B₁ g₂ there. Periodic axes come first, then Dirichlet sides, then Neumann and Robin sides, each in
the order of the axes; the later side's data are changed at the corner nodes so that the earlier side holds. Two
Dirichlet sides (or a Dirichlet side along a periodic axis) that disagree are an error; a derivative is only accurate
to the order of its stencil, so there the earlier side takes priority. In cells a value at the corner is accurate to
that order as well, and two Dirichlet sides disagree if they differ by more than the data vary in the last cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

import torch
from jaxtyping import Float
from torch import Tensor

from boon._tensors.values import check_real
from boon.conditions.corners import check_gap, name_of
from boon.conditions.parts import Part
from boon.conditions.varying import Varying, close_axes, set_varying
from boon.errors import InvalidArgumentError
from solvers.stencils import difference_weights, one_sided_gradient

DIFFERENCES = {
    (order, last): tuple(one_sided_gradient(order, "last" if last else "first").tolist())
    for order in (1, 2, 3, 4)
    for last in (False, True)
}
"""Weights c of one-sided differences, boundary node first, by order and side, for a distance of 1 between nodes."""


def _in_cells(order: int, last: bool, derivative: int) -> tuple[float, ...]:
    """Weights of averages in a derivative of their primitive at a wall: sums of those of its values at faces."""
    weights = difference_weights(tuple(range(order + derivative)), derivative)[1:].flip(0).cumsum(0).flip(0)
    return tuple((-weights if last and derivative == 2 else weights).tolist())


STENCILS = {
    (*key, cells): (_in_cells(*key, 1), _in_cells(*key, 2)) if cells else ((1.0,), difference)
    for key, difference in DIFFERENCES.items()
    for cells in (False, True)
}
"""Weights v of the value and c of the derivative at a wall, from there inward, by order, side and whether in cells."""


@dataclass(frozen=True, kw_only=True)
class Functional:
    """B u = Σ_j w_j u_j on one side.

    Args:
        axis: Axis of the side, 0 … d − 1.
        last: Whether it is the last node of the axis, else the first.
        weights: w_0 … w_p, boundary node first, then inward.
        is_value: Whether it is the value itself (Dirichlet).
        cells: Whether fields are averages over cells.
        margin: Nodes of padding in the array beyond the side (and as many beyond the opposite one).
    """

    axis: int
    last: bool
    weights: tuple[float, ...]
    is_value: bool = False
    cells: bool = False
    margin: int = 0

    @property
    def of_one(self) -> float:
        """B 1, the functional of the constant 1."""
        return 1.0 if self.is_value else sum(self.weights)

    def read(self, u: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *face"]:
        """B u, in float64."""
        return read_strip(self, u.narrow(*self.strip(u.shape[2 + self.axis])).to(torch.float64))

    def scale(self, u: Float[Tensor, "batch channels *space"]) -> Float[Tensor, "batch channels *face"]:
        """Σ_j |w_j u_j|, in float64."""
        absolute = replace(self, weights=tuple(abs(weight) for weight in self.weights))
        return read_strip(absolute, u.narrow(*self.strip(u.shape[2 + self.axis])).to(torch.float64).abs())

    def of_one_on(self, data: Float[Tensor, "batch channels *face"]) -> Float[Tensor, " nodes"]:
        """B 1 on the nodes of the side, in the dtype of its data."""
        return data.new_full((data.shape[2:].numel(),), self.of_one)

    def node(self, offset: int, count: int) -> int:
        """Index of the node ``offset`` nodes inward on an axis with ``count`` nodes."""
        inward = self.margin + offset
        return count - 1 - inward if self.last else inward

    def strip(self, count: int, inner: bool = False) -> tuple[int, int, int]:
        """Its nodes as (dim, start, width) of a field with ``count`` nodes along the axis.

        Args:
            count: Number of nodes of the axis.
            inner: Leaves the boundary node out.
        """
        width = len(self.weights) - inner
        before = self.margin + inner
        return 2 + self.axis, count - width - before if self.last else before, width


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """The conditions of all sides of a field with their data.

    Args:
        functionals: One per side, in order of priority at corners.
        data: g of each of them, ``(batch, channels, *face)``, float64.
        periodic: The periodic axes, whose ends are one point; none in cells.
        varying: In place of the functionals where a condition varies along a side.
        grid: Nodes along every axis of the fields that the conditions are for; None leaves them unchecked.
        cells: Whether fields are averages over cells.
    """

    functionals: tuple[Functional, ...]
    data: tuple[Tensor, ...]
    periodic: tuple[int, ...] = ()
    varying: tuple[Varying, ...] = ()
    grid: tuple[int, ...] | None = None
    cells: bool = False

    @property
    def has_any(self) -> bool:
        """Whether there is any condition."""
        return bool(self.sides or self.periodic)

    @property
    def sides(self) -> tuple[Functional | Varying, ...]:
        """The functional of every side."""
        return self.varying or self.functionals

    def check_grid(self, u: Tensor) -> None:
        """Refuses a field on another grid, for which the weights of derivatives are wrong."""
        if self.grid is not None and tuple(u.shape[2:]) != self.grid:
            raise InvalidArgumentError(
                f"The conditions are discretised on a grid of {self.grid} nodes but the field has "
                f"{tuple(u.shape[2:])}; discretise them anew with a field of that grid."
            )

    def by_axis(self) -> dict[int, list[int]]:
        """The axes with sides, in order, and the indices of their sides."""
        axes = sorted({side.axis for side in self.sides})
        return {axis: [number for number, side in enumerate(self.sides) if side.axis == axis] for axis in axes}

    def inside(self, margins: Sequence[int]) -> "Boundary":
        """The same sides in arrays with ``margins`` more nodes beyond both ends of every axis, with the same data.

        Raises:
            InvalidArgumentError: If a periodic axis has a margin, or conditions vary along a side.
        """
        if not any(margins):
            return self
        if self.varying:
            raise InvalidArgumentError(
                "Conditions that vary along a side do not say what holds in padding beyond its ends; build the "
                "operator without domain padding, or correct it at its output."
            )
        for axis in self.periodic:
            if margins[axis]:
                raise InvalidArgumentError(f"Axis {axis} is periodic but padded; leave periodic axes without padding.")
        return replace(self, functionals=tuple(replace(side, margin=margins[side.axis]) for side in self.functionals))


def functional(part: Part, axis: int, last: bool, spacing: float, order: int, cells: bool = False) -> Functional:
    """The functional of a condition on a grid.

    Args:
        part: The condition of the side, with numbers as coefficients.
        axis: Axis of the side.
        last: Whether it is the last side of the axis.
        spacing: Distance h between nodes.
        order: Order 1 to 4 of the one-sided difference.
        cells: Whether fields are averages over cells.

    Raises:
        InvalidArgumentError: If a Robin condition does not depend on the boundary node: |a v₀ + b c₀/h| below 1e-6 of
            |a v₀| + |b c₀/h|.
    """
    value, difference = STENCILS[order, last, cells]
    if part.is_value:
        return Functional(axis=axis, last=last, weights=value, is_value=True, cells=cells)
    gradient = [weight / spacing for weight in difference]
    a, b = (float(each) for each in part.coefficients)
    pairs = zip_longest(value, gradient, fillvalue=0.0)
    first, *others = (a * weight + b * slope for weight, slope in pairs)
    if abs(first) < 1e-6 * (abs(a * value[0]) + abs(b * gradient[0])):
        raise InvalidArgumentError(
            f"Robin(a={a}, b={b}) on the {name_of(axis, last)} cannot "
            f"be solved for the boundary node: a + b·c₀/h = {first:.3g} at spacing h={spacing:.3g}. "
            "Check the sign of b (∂u/∂x is not the outward derivative) or change the grid or the stencil order."
        )
    return Functional(axis=axis, last=last, weights=(first, *others), cells=cells)


def read_strip(side: Functional, strip: Tensor, inner: bool = False) -> Float[Tensor, "batch channels *face"]:
    """B u, or Σ_{j≥1} w_j u_j if ``inner``, from the nodes of ``Functional.strip``, in their dtype."""
    weights = side.weights[1:] if inner else side.weights
    nodes = strip.unbind(2 + side.axis)
    first, *others = zip(weights, reversed(nodes) if side.last else nodes, strict=True)
    total = first[0] * first[1]
    for weight, node in others:
        total = torch.add(total, node, alpha=weight)
    return total


def harmonise(boundary: Boundary, tolerance: float) -> Boundary:
    """Changes data at corners so that all sides are compatible; see the rule at the top of this module.

    Args:
        boundary: Conditions and data.
        tolerance: Largest disagreement of two Dirichlet sides, relative to the largest value on all of them, of every
            sample and channel.

    Raises:
        IncompatibleCornersError: If two Dirichlet sides, or a Dirichlet side along a periodic axis, disagree.
    """
    done: list[Tensor] = []
    values = [data for side, data in zip(boundary.functionals, boundary.data, strict=True) if side.is_value]
    for side, data in zip(boundary.functionals, boundary.data, strict=True):
        adjusted = set_nodes(data, _on_face(side, boundary, done))
        if side.is_value:
            gaps = _gaps_in_cells(side, data, boundary, done) if boundary.cells else [data - adjusted]
            for gap in gaps:
                check_gap(gap, values, tolerance, name_of(side.axis, side.last))
        done.append(adjusted)
    return replace(boundary, data=tuple(done))


def prescribe(u: Float[Tensor, "batch channels *space"], boundary: Boundary) -> Tensor:
    """Sets the boundary nodes so that every condition holds, for any u.

    Args:
        u: A field.
        boundary: Conditions with harmonised data.

    Returns:
        The field with new boundary nodes: B u = g to round-off, exactly for Dirichlet and periodic sides.

    Raises:
        InvalidArgumentError: If the field is not real, or on another grid than the conditions.
    """
    check_real(u)
    boundary.check_grid(u)
    return set_nodes(u.to(torch.float64), boundary).to(u.dtype)


def set_nodes(u: Tensor, boundary: Boundary) -> Tensor:
    """``prescribe`` in the dtype of u: derivatives first, then values, then periodic ends, which stay exact."""
    if boundary.varying:
        return set_varying(u, boundary.varying, boundary.data, boundary.periodic)
    order = sorted(range(len(boundary.functionals)), key=lambda index: boundary.functionals[index].is_value)
    for side, data in ((boundary.functionals[index], boundary.data[index]) for index in order):
        dim, face = 2 + side.axis, data.to(u.dtype)
        if len(side.weights) > 1:
            inner = read_strip(side, u.narrow(*side.strip(u.shape[dim], inner=True)), inner=True)
            face = (face - inner) / side.weights[0]
        shape = (*u.shape[:dim], *u.shape[dim + 1 :])
        u = u.select_scatter(face.expand(shape), dim, side.node(0, u.shape[dim]))
    return close_axes(u, boundary.periodic)


def _on_face(side: Functional, boundary: Boundary, done: Sequence[Tensor]) -> Boundary:
    """The conditions of earlier sides and periodic axes on the data of a side, a field on its face."""
    earlier = [
        (other, data) for other, data in zip(boundary.functionals, done, strict=False) if other.axis != side.axis
    ]
    return Boundary(
        functionals=tuple(_without(other, side.axis) for other, _ in earlier),
        data=tuple(_without(side, other.axis).read(data) for other, data in earlier),
        periodic=tuple(axis - (axis > side.axis) for axis in boundary.periodic),
    )


def _gaps_in_cells(side: Functional, data: Tensor, boundary: Boundary, done: Sequence[Tensor]) -> list[Tensor]:
    """How far values on a side are from those of earlier sides where they meet, less twice what both change from the
    last cell to the corner."""
    gaps = []
    for other, others in zip(boundary.functionals, done, strict=False):
        if other.is_value and other.axis != side.axis:
            ends = (_without(other, side.axis), data), (_without(side, other.axis), others)
            here, there = (each.read(values) for each, values in ends)
            changes = [
                each.read(values) - values.select(2 + each.axis, each.node(0, values.shape[2 + each.axis]))
                for each, values in ends
            ]
            gaps.append(((here - there).abs() - 2 * sum(change.abs() for change in changes)).clamp_min(0.0))
    return gaps


def _without(side: Functional, axis: int) -> Functional:
    """The same functional on a face from which an axis has been removed."""
    return replace(side, axis=side.axis - (side.axis > axis))
