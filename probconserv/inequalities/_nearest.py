"""The nearest field to a given one that meets rows, bounds and an order, in the metric of a diagonal Σ, by its dual.

    minimise ½ Σ_i (u_i − x_i)²/v_i   subject to   G u = b,  A u ≤ c,  lower ≤ u ≤ upper,  u in order

The minimiser is u(λ) with the multipliers λ of the rows. Rows that share no point have a compiled search for one number
each; the dual of the remaining ones is concave with a piecewise linear gradient, G u(λ) − b, which semismooth Newton
steps climb (Qi & Sun 1993). With the points at a bound, the pools of the order and the rows that hold fixed, the
minimiser is the solution of one linear system: a step leads to the solution on the present piece, the last step
corrects the free points until the rows hold to round-off, and derivatives are those of the piece on which the field
lies, which is what the implicit function theorem gives.

All of it is one operation of torch, which ``torch.compile`` and ``torch.export`` record. It runs on the CPU.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from probconserv._linalg.rows import SparseRows, as_sparse_rows
from probconserv.inequalities._ascent import Ascent
from probconserv.inequalities._region import Region
from solvers.recording import are_readable, are_recorded


def nearest(region: Region, x: Tensor, target: Tensor) -> Tensor:
    """The nearest fields to x ``(s, *batch, n)`` with right-hand sides ``(s, *batch, k)``; differentiable.

    Raises:
        InfeasibleConstraintError: If no field meets rows and inequalities together.
        ConvergenceError: If float64 does not resolve the scales.
    """
    entries = x if region.near is None else region.near.entries
    parts = (x, target, region.metric, region.lower, region.upper, entries, region.far, region.noise)
    tracked = (torch.is_grad_enabled() and any(part.requires_grad for part in parts)) or not are_primal(*parts)
    u, force = solved(region, x, target, tracked)
    if tracked:
        smooth = region.piece(x, u, target, force)[1]
        u = u + (smooth - smooth.detach())
    return u


def solved(region: Region, x: Tensor, target: Tensor, tracked: bool) -> tuple[Tensor, Tensor]:
    """The nearest fields, and which rows hold with equality and, if tracked, are independent."""
    batch, n = x.shape[1:-1], x.shape[-1]

    def flat(values: Tensor, axes: int) -> Tensor:
        own = values.shape[values.ndim - axes :]
        if values.ndim == axes:
            return values.detach()[None]
        return values.detach().expand(*batch, *own).reshape(batch.numel(), *own)

    row, column, entries = x.new_zeros(0, dtype=torch.int64), x.new_zeros(0, dtype=torch.int64), x.new_zeros(0)
    if region.near is not None:
        sparse = as_sparse_rows(region.near)
        row, column, entries = sparse.row, sparse.column, sparse.entries
    recorded = not are_readable(x, target) or are_recorded(x, target)
    u, force = (nearest_field if recorded else _nearest)(
        x.detach().reshape(x.numel() // n, n),
        target.detach().reshape(x.numel() // n, target.shape[-1]),
        flat(region.metric, 1),
        flat(torch.stack(torch.broadcast_tensors(region.lower, region.upper), dim=-2), 2),
        [row, column, flat(entries, 1)],
        flat(region.far, 2),
        flat(region.noise, 1),
        region.bounded,
        region.length,
        tracked,
    )
    return u.reshape(x.shape), force.reshape(target.shape)


def _nearest(
    x: Tensor,
    target: Tensor,
    metric: Tensor,
    bounds: Tensor,
    near: list[Tensor],
    far: Tensor,
    noise: Tensor,
    bounded: Tensor,
    length: int,
    tracked: bool,
) -> tuple[Tensor, Tensor]:
    """Projections of fields ``(f, n)``, and the rows in force ``(f, k)``; p, a divisor of f, counts parameters.

    ``metric`` v ``(p, n)``, ``bounds`` ``(p, 2, n)``; ``near`` holds row and point of every entry ``(entries,)`` and
    the entries ``(p, entries)`` of rows that share no point, ``far`` the other rows ``(p, far, n)``; ``noise`` σ² ``(p,
    k)``; ``bounded`` says which rows are inequalities. If tracked, rows in force are independent, as derivatives need.
    """
    device = x.device
    x, target, metric, bounds, far, noise, bounded = (
        values.cpu() for values in (x, target, metric, bounds, far, noise, bounded)
    )
    row, column, entries = (values.cpu() for values in near)
    rows = None
    if target.shape[-1] > far.shape[-2]:
        count = target.shape[-1] - far.shape[-2]
        entries = entries[0] if len(entries) == 1 else entries
        rows = SparseRows(rows=count, points=x.shape[-1], row=row, column=column, entries=entries, is_disjoint=True)
    region = Region(
        metric=metric,
        lower=bounds[:, 0],
        upper=bounds[:, 1],
        near=rows,
        far=far,
        noise=noise,
        bounded=bounded,
        length=length,
    )
    batch = max(len(values) for values in (metric, bounds, far, noise, entries if entries.ndim > 1 else metric))
    fields = tuple(values.reshape(len(x) // batch, batch, values.shape[-1]) for values in (x, target))
    u, force = Ascent(region, *fields).run(tracked)
    return u.reshape(x.shape).to(device), force.reshape(target.shape).to(device)


_SIGNATURE = (  # written out, since torch below 2.7 reads no list[Tensor]
    "(Tensor x, Tensor target, Tensor metric, Tensor bounds, Tensor[] near, Tensor far, Tensor noise, Tensor bounded, "
    "SymInt length, bool tracked) -> (Tensor, Tensor)"
)
nearest_field = torch.library.custom_op("probconserv::nearest_field", _nearest, mutates_args=(), schema=_SIGNATURE)


@nearest_field.register_fake
def _(x: Tensor, target: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(target, dtype=torch.bool)


@nearest_field.register_vmap
def _(info: Any, in_dims: Sequence[Any], *arguments: Any) -> tuple[Any, Any]:
    """One call for every entry of the batch."""

    def entry(argument: Any, axis: Any, i: int) -> Any:
        if isinstance(argument, list):
            return [entry(part, own, i) for part, own in zip(argument, axis, strict=True)]
        return argument if axis is None else argument.select(axis, i)

    results = [
        nearest_field(*(entry(*pair, i) for pair in zip(arguments, in_dims, strict=True)))
        for i in range(info.batch_size)
    ]
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True)), (0, 0)


def are_primal(*tensors: Tensor) -> bool:
    """Whether no transformation of ``torch.func`` and no forward derivative is under way."""
    if torch.compiler.is_compiling():
        return True
    return not are_recorded(*tensors) and all(forward_ad.unpack_dual(tensor).tangent is None for tensor in tensors)
