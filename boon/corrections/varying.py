"""Residuals of conditions that vary along a side, extended into the interior.

    u' = u + Σ_s A_s m_s,   Σ_s B_t A_s m_s = r_t,   A_s = K b_s,

at every place of the face, with the functionals b_s = a V_s + b D_s of the value V and the derivative D, and
a kernel K on the nodes of the axis. K V and K D do not vary, so A_s is two profiles, and each place solves a system of
the size of the number of sides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from boon.conditions.varying import Varying
from boon.errors import SingularKernelError
from solvers.recording import are_readable


@dataclass(frozen=True)
class Profiles:
    """What a side adds along its axis.

    Args:
        value: K V ``(channels|1, n)``, float64.
        gradient: K D, the same.
    """

    value: Float[Tensor, "channels n"]
    gradient: Float[Tensor, "channels n"]


def varying_rows(side: Varying, count: int) -> tuple[Tensor, Tensor]:
    """V and D of a side on all ``count`` nodes or cells of its axis, float64."""
    rows = torch.zeros(2, count, dtype=torch.float64, device=side.a.device)
    nodes = [count - 1 - j if side.last else j for j in range(len(side.gradient))]
    rows[0, nodes[: len(side.stencil)]] = torch.tensor(side.stencil, dtype=torch.float64, device=side.a.device)
    rows[1, nodes] = torch.tensor(side.gradient, dtype=torch.float64, device=side.a.device)
    return rows[0], rows[1]


def extend_varying(
    u: Float[Tensor, "batch channels *space"],
    sides: Sequence[Varying],
    profiles: Sequence[Profiles],
    residuals: Sequence[Float[Tensor, "batch channels *face"]],
) -> Float[Tensor, "batch channels *space"]:
    """u' for the sides of one axis.

    Args:
        u: A field.
        sides: The one or two sides of the axis.
        profiles: Their profiles.
        residuals: r of every side, 0 where it does not hold.

    Raises:
        SingularKernelError: If the conditions of the two ends are dependent under the kernel.
    """
    axis, count = sides[0].axis, u.shape[2 + sides[0].axis]
    products = [_product(t, s, profile, count) for t in sides for s, profile in zip(sides, profiles, strict=True)]
    matrix = torch.stack(torch.broadcast_tensors(*products), -1).unflatten(-1, (len(sides), len(sides)))
    free = torch.diag_embed(torch.stack([(~side.holds).to(matrix.dtype) for side in sides], -1))
    scale = matrix.abs().amax(-1, keepdim=True)
    scale = torch.where(scale == 0, 1.0, scale)
    right = torch.stack([each.to(torch.float64) for each in residuals], -1)[..., None]
    amounts, info = torch.linalg.solve_ex(matrix / scale + free, right / scale)
    if are_readable(info) and bool(info.any()):
        raise SingularKernelError(
            f"The conditions of the two ends of axis {axis} are dependent on smooth fields; check their coefficients, "
            "or start from a smaller length."
        )
    change = torch.zeros((), dtype=torch.float64, device=u.device)
    for side, profile, amount in zip(sides, profiles, amounts.squeeze(-1).unbind(-1), strict=True):
        for coefficient, along in ((side.a, profile.value), (side.b, profile.gradient)):
            line = along.view(len(along), *[count if other == axis else 1 for other in range(u.ndim - 2)])
            change = change + (coefficient * amount).unsqueeze(2 + axis) * line
    return u + change.to(u.dtype)


def _product(t: Varying, s: Varying, profile: Profiles, count: int) -> Tensor:
    """B_t A_s ``(batch|1, channels|1, *face)``, 0 where either does not hold."""
    value, gradient = varying_rows(t, count)
    pairs = (
        (t.a * s.a, profile.value @ value),
        (t.a * s.b, profile.gradient @ value),
        (t.b * s.a, profile.value @ gradient),
        (t.b * s.b, profile.gradient @ gradient),
    )
    return sum(
        (coefficient * each.view(-1, *[1] * t.holds.ndim) for coefficient, each in pairs), torch.zeros_like(t.a[:1, :1])
    )
