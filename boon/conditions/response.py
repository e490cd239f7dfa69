"""How a field moves when its total changes, without a change of what the conditions say: (κ² − Δ) r = 1, B r = 0.

Where no condition varies along its side, r is a product of solutions along the axes, 1 − Σ_s α_s (exp(−κ d_s) +
exp(−κ (2L − d_s))) with the distance d_s from side s: B of a product vanishes where that of a factor does. Else one
sparse system has κ² − Δ at the nodes or cells that no side sets and B at the others. Sides without conditions reflect.
κ is as small as r ≥ 0 allows: r is constant between given gradients, nearly a parabola between given values.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from boon.conditions.discretisation import discretise
from boon.conditions.functionals import Boundary, Functional, prescribe
from boon.conditions.sides import AxisSides, periodic_axes
from boon.conditions.varying import Varying
from boon.domain import Domain, intervals, positions
from boon.errors import InvalidArgumentError

_RATES = tuple((1e-3 * 8**power) ** 0.5 for power in range(12))  # κ times the length of an axis, the longest
_ROUNDING = 1e-9  # of B 1, relative to its terms: derivatives of a constant
_NEGATIVE = 1e-6  # how far r may fall below 0, relative to its largest value, by the error of the solver


def homogeneous(axes: Sequence[AxisSides], domain: Domain, shape: Sequence[int], order: int, like: Tensor) -> Boundary:
    """The conditions with data 0 on a grid, for fields with the device of ``like``; coefficients may have channels.

    Raises:
        InvalidArgumentError: If coefficients of Robin differ between samples.
    """
    tensors = [each for each in coefficients_of(axes) if isinstance(each, Tensor | np.ndarray) and each.ndim > 1]
    if any(each.shape[0] > 1 for each in tensors):
        raise InvalidArgumentError(
            "Coefficients of Robin that differ between samples have another response for every sample; wrap the "
            "operator once for each, or give coefficients (1, channels, *face)."
        )
    without = [each.without_data() for each in axes]
    channels = max([1, *(each.shape[1] for each in tensors)])
    return discretise(without, domain, None, like.new_zeros((1, channels, *shape), dtype=torch.float64), order)


def coefficients_of(axes: Sequence[AxisSides]) -> list[Any]:
    """a and b of all conditions."""
    return [each for axis in axes for part in axis.parts for each in part.coefficients]


def response(axes: Sequence[AxisSides], domain: Domain, shape: tuple[int, ...], order: int) -> Tensor:
    """r ≥ 0 with B r = 0 to round-off ``(channels|1, *space)``, float64, with the largest value 1.

    Args:
        axes: The sides of every axis; their data count as 0.
        domain: The domain.
        shape: Nodes or cells along every axis.
        order: Order of one-sided differences.

    Raises:
        InvalidArgumentError: If coefficients of Robin differ between samples, or no r has one sign, since a Robin side
            is a strong source.
    """
    boundary = homogeneous(axes, domain, shape, order, torch.empty(()))
    channels = max([1, *(data.shape[1] for data in boundary.data)])
    r = torch.ones(1, channels, *shape, dtype=torch.float64)
    if boundary.varying:
        rings = periodic_axes(axes)
        solved = [_solved(boundary, domain, shape, channel, rings) for channel in range(channels)]
        r = torch.stack(solved)[None]
    else:
        for axis, numbers in boundary.by_axis().items():
            r = r * _along([boundary.functionals[number] for number in numbers], axis, shape)
    r = prescribe(r.clamp_min(0.0), boundary)[0]
    return r / r.flatten(1).amax(dim=1).reshape(-1, *[1] * len(shape)).clamp_min(torch.finfo(r.dtype).tiny)


def _along(sides: Sequence[Functional], axis: int, shape: tuple[int, ...]) -> Tensor:
    """The factor of r that varies along an axis ``(1, 1, *space)``, constant along the others."""
    x = positions(shape[axis], sides[0].cells)
    one = torch.ones_like(x).reshape(1, 1, *[-1 if other == axis else 1 for other in range(len(shape))])
    of_one = torch.stack([side.read(one).flatten() for side in sides])
    size = torch.stack([side.scale(one).flatten() for side in sides])
    of_one = torch.where(of_one.abs() > _ROUNDING * size, of_one, 0.0)
    for rate in _RATES:
        distances = [1.0 - x if side.last else x for side in sides]
        parts = torch.stack([(-rate * d).exp() + (-rate * (2.0 - d)).exp() for d in distances])
        fields = parts.reshape(-1, *one.shape[1:])
        rows = torch.stack([side.read(fields).flatten() for side in sides])
        amounts = torch.linalg.solve_ex(rows, of_one)[0]
        r = one - (amounts.reshape(-1, *[1] * (one.ndim - 1)) * fields).sum(dim=0, keepdim=True)
        if bool(r.isfinite().all()) and float(r.min()) >= -_NEGATIVE * float(r.max()):
            return r
    raise _no_sign()


def _solved(
    boundary: Boundary, domain: Domain, shape: tuple[int, ...], channel: int, periodic: Sequence[int]
) -> Tensor:
    """r of a channel by one sparse system, where conditions vary along sides."""
    from scipy.sparse import coo_array, diags_array
    from scipy.sparse.linalg import LinearOperator, bicgstab, spilu, spsolve

    nodes, lengths = np.arange(np.prod(shape)).reshape(shape), domain.lengths
    triples = list(_side_rows(boundary.varying, nodes, channel))
    free = np.ones(nodes.size)
    free[np.concatenate([row for row, _, _ in triples])] = 0.0
    inside = free.reshape(shape) == 1
    for axis, count in enumerate(shape):
        inward = 0 if domain.cells else 1  # what is beyond an end: round the axis, or reflected
        ends = [-1 - inward, inward] if axis in periodic else [inward, -1 - inward]
        before, after = (nodes.take(np.arange(count) + step, axis, mode="clip") for step in (-1, 1))
        for neighbours, end, beyond in ((before, 0, ends[0]), (after, -1, ends[1])):
            np.moveaxis(neighbours, axis, 0)[end] = nodes.take(beyond, axis)
        for to, weight in ((nodes, 2.0), (before, -1.0), (after, -1.0)):
            value = np.full(int(free.sum()), weight * (intervals(count, domain.cells) / lengths[axis]) ** 2)
            triples.append((nodes[inside], to[inside], value))
    rows, columns, values = (np.concatenate(parts) for parts in zip(*triples, strict=True))
    scale = 1.0 / np.bincount(rows, np.abs(values), nodes.size)
    matrix = coo_array((values * scale[rows], (rows, columns)), (nodes.size, nodes.size)).tocsc()
    for rate in _RATES:
        system = (matrix + (rate / max(lengths)) ** 2 * diags_array(free * scale)).tocsc()
        if len(shape) < 3:
            r = np.asarray(spsolve(system, free * scale))
        else:
            inverse = LinearOperator(system.shape, spilu(system, drop_tol=1e-3, fill_factor=8).solve)
            r = np.asarray(bicgstab(system, free * scale, M=inverse, rtol=1e-6)[0])
        if np.isfinite(r).all() and r.min() >= -_NEGATIVE * r.max():
            return torch.from_numpy(r.reshape(shape))
    raise _no_sign()


def _side_rows(
    sides: Sequence[Varying], nodes: np.ndarray, channel: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows, columns and weights of B at the nodes that sides set."""
    for side in sides:
        holds = side.holds.cpu().numpy()
        strip = [np.asarray(nodes.take(-1 - j if side.last else j, side.axis)) for j in range(len(side.gradient))]
        for at, weights in zip(strip, side.weights, strict=True):
            values = weights[0, min(channel, weights.shape[1] - 1)].cpu().numpy()
            yield strip[0][holds], at[holds], values[holds]


def _no_sign() -> InvalidArgumentError:
    return InvalidArgumentError(
        "No field of one sign meets the conditions with data 0; check the signs of a and b of Robin (∂u/∂x is not the "
        "outward derivative)."
    )
