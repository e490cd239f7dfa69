"""Residuals of conditions that vary along a side, extended into the interior.

    u' = u + Σ_s A_s m_s,   Σ_s B_t A_s m_s = r_t,   A_s = K b_s,

at every place of the face, with the functionals b_s = a V_s + b D_s of the value V and the derivative D, and
a kernel K on the nodes of the axis. K V and K D do not vary, so A_s is two profiles, and each place solves a system of
the size of the number of sides.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from boon.conditions.varying import Varying
from boon.domain import positions
from boon.errors import SingularKernelError
from solvers.recording import are_readable


def extend_varying(
    u: Float[Tensor, "batch channels *space"],
    sides: Sequence[Varying],
    lengths: Float[Tensor, "sides channels"],
    residuals: Sequence[Float[Tensor, "batch channels *face"]],
) -> Float[Tensor, "batch channels *space"]:
    """u' for the sides of one axis, under the squared-exponential kernel.

    Args:
        u: A field.
        sides: The one or two sides of the axis.
        lengths: ℓ of every side and channel as a fraction of the axis, float64.
        residuals: r of every side, 0 where it does not hold.

    Raises:
        SingularKernelError: If the conditions of the two ends are dependent under the kernel.
    """
    axis, count = sides[0].axis, u.shape[2 + sides[0].axis]
    rows = [_rows(side, count) for side in sides]
    points = positions(count, sides[0].cells).to(lengths.device)
    kernels = torch.exp(-0.5 * ((points[:, None] - points) / lengths[..., None, None]).square())
    profiles = [kernel @ row.mT for kernel, row in zip(kernels, rows, strict=True)]  # K V and K D (channels|1, n, 2)
    products = [
        _product(t, s, row @ profile)
        for t, row in zip(sides, rows, strict=True)
        for s, profile in zip(sides, profiles, strict=True)
    ]
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
        for coefficient, along in zip((side.a, side.b), profile.unbind(-1), strict=True):
            line = along.view(len(along), *[count if other == axis else 1 for other in range(u.ndim - 2)])
            change = change + (coefficient * amount).unsqueeze(2 + axis) * line
    return u + change.to(u.dtype)


def _rows(side: Varying, count: int) -> Float[Tensor, "2 n"]:
    """V and D of a side on all ``count`` nodes or cells of its axis, float64."""
    rows = torch.zeros(2, count, dtype=torch.float64, device=side.a.device)
    nodes = [count - 1 - j if side.last else j for j in range(len(side.gradient))]
    for row, weights in zip(rows, (side.stencil, side.gradient), strict=True):
        row[nodes[: len(weights)]] = torch.tensor(weights, dtype=torch.float64, device=side.a.device)
    return rows


def _product(t: Varying, s: Varying, kernel: Float[Tensor, "channels 2 2"]) -> Tensor:
    """B_t A_s ``(batch|1, channels|1, *face)``, 0 where either does not hold, by V_t and D_t of K V_s and K D_s."""
    (values, mixed), (turned, slopes) = (
        [each.view(-1, *[1] * t.holds.ndim) for each in row.unbind(-1)] for row in kernel.unbind(-2)
    )
    return t.a * s.a * values + t.a * s.b * mixed + t.b * s.a * turned + t.b * s.b * slopes
