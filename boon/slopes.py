"""The error of slopes at the sides of fields at nodes."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from boon.conditions.functionals import DIFFERENCES
from boon.conditions.sides import check_conditions
from boon.errors import InvalidArgumentError

_SMALL = 0.1
"""Of the root mean square of the slopes inside: what slopes at sides have at least."""
_SLOPES = torch.tensor(
    [[*DIFFERENCES[order, False], *[0.0] * (4 - order)] for order in (1, 2, 3, 4)], dtype=torch.float64
)
"""One-sided differences of order 1 to 4 at the first of five nodes with distance 1, a row each."""


def slope_error(
    u: Float[Tensor, "batch channels *space"],
    truth: Float[Tensor, "batch channels *space"],
    conditions: Sequence[object],
    orders: Sequence[int] = (1, 2, 3, 4),
) -> Float[Tensor, ""]:
    """Mean over p of ‖D_p u − D_p u*‖₂ / ‖D_p u*‖₂ at all sides where a gradient takes part in the condition.

    D_p is the one-sided difference of order p. A correction makes one of them right and leaves the others, and so the
    slope of the field between the nodes, to the operator: add a tenth of this to a relative L2 error, and they agree.
    Slopes count as at least a tenth of the root mean square of those inside, since at an insulated side they vanish.

    Args:
        u: Predicted fields.
        truth: True fields.
        conditions: Those of ``BOON``: a side counts where any part of it is ``Neumann`` or ``Robin``.
        orders: The p.

    Returns:
        A number, differentiable, in the dtype of u; 0 without such a side.

    Raises:
        InvalidArgumentError: If an order is none of 1 to 4, the shapes differ, or an axis has fewer than five nodes.
    """
    wanted = [
        (2 + axis, last)
        for axis, sides in enumerate(check_conditions(conditions))
        for last, side in enumerate(sides.ends)
        if not all(part.is_value for part in side.parts)
    ]
    nodes = _SLOPES.shape[1]
    if u.shape != truth.shape or any(u.shape[dim] < nodes for dim, _ in wanted):
        raise InvalidArgumentError(
            f"slope_error needs two fields of one shape with at least {nodes} nodes along an axis, got "
            f"{tuple(u.shape)} and {tuple(truth.shape)}."
        )
    if not orders or not {*orders} <= {1, 2, 3, 4}:
        raise InvalidArgumentError(f"orders must be among 1, 2, 3, 4, got {tuple(orders)}.")
    if not wanted:
        return u.new_zeros(())
    stencils = _SLOPES[[order - 1 for order in orders]].mT.to(u.device)
    pairs = torch.stack([(u - truth).to(torch.float64), truth.to(torch.float64)])
    slopes, inside = [], []
    for dim, last in wanted:
        along, intervals = pairs.movedim(1 + dim, -1), u.shape[dim] - 1
        near = along[..., -nodes:].flip(-1) if last else along[..., :nodes]
        slopes.append((near @ stencils).flatten(1, -2) * intervals)
        inside.append(along[1].diff(dim=-1).square().mean().sqrt() * intervals)
    missed, size = torch.cat(slopes, dim=1).square().mean(dim=1).sqrt()
    least = _SMALL * torch.stack(inside).square().mean().sqrt()
    return (missed / torch.maximum(size, least).clamp(min=torch.finfo(torch.float64).tiny)).mean().to(u.dtype)
