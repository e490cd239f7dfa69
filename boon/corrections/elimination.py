"""Elimination: kernels without coupling from the interior to the boundary (Saad et al. 2023), in the fast form.

Let k_ab be the kernel from end b to end a of the axis, its ends 0 and N, and s = k_00 − k_0N k_N0/k_NN. The input of
the kernel is changed at the ends, first at 0, then at N (T₂):

    y_0 = 2 x_0 − ((K x)_0 − (k_0N/k_NN) (K x)_N + k_0N x_N)/s,      z_N = 2 y_N − (K y)_N/k_NN.

Then (K z)_0 = s x_0 and (K z)_N = k_NN x_N: neither end sees the interior. The output's boundary nodes are then set so
that every channel keeps the boundary functional of the input (T₁): B(T₁ K T₂ x) = B x, which for Dirichlet is
(T₁ K T₂ x)_B = x_B. On a periodic axis there is no T₂, and T₁ sets both ends to their average.

That is the paper's form, on fields of one axis. With more axes all sides are eliminated at once, corners included. This
is not the form of the paper or of its authors' code, see ``all_sides``.

The paper has one channel. With more of them k_ab is, as in its authors' code, the response of channel 0 at end a to
ones in all channels at end b, and one number for all channels: (K z)_B then still depends on the interior, 50 to
70 % as much as (K x)_B, on any number of axes. With a
matrix k_ab it would not, but in trained layers of 32 channels its least singular value is 1e-3 to 1e-6 of the largest.

What is needed at the ends are sums over the kept modes; no transform of the field is repeated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from boon.conditions.functionals import Boundary, set_nodes
from boon.conditions.sides import AxisSides
from boon.corrections.all_sides import eliminate_all_sides
from boon.corrections.correction import Correction, PrescriptionStep, Step
from boon.corrections.pivots import checked
from boon.errors import InvalidArgumentError
from boon.spectral import Basis, Convolution, analyse, convolve, multiply, synthesise


@dataclass(frozen=True, kw_only=True)
class Elimination(Correction):
    """T₁ K T₂ in every layer, prescription at the output: on one axis as in the paper, else elimination of all sides.

    With several channels the boundary nodes of a layer still depend on the interior, 50 to 70 % as much as without
    elimination.

    Args:
        hidden: Whether to prescribe hidden features as well, so that boundary values enter the layers as in the paper.
    """

    hidden: bool = True
    acts_on_kernels: ClassVar[bool] = True
    needs_nodes: ClassVar[bool] = True

    def __setstate__(self, state: dict[str, Any]) -> None:
        if "block" in state:
            raise InvalidArgumentError(
                "This Elimination was pickled by version 0.3 or older, whose form lacks the Schur term; write the "
                "operator there with boon.save and read the file here with boon.load."
            )
        vars(self).update(state)

    def step(self, conditions: Sequence[AxisSides], channels: int) -> Step:  # noqa: ARG002
        check_both_sides(conditions)
        return PrescriptionStep()

    def kernel(self, convolution: Convolution, v: Tensor, bases: Sequence[Basis], boundary: Boundary) -> Tensor:
        if not boundary.sides:
            return set_nodes(convolution(v, bases), boundary)
        form = eliminate if len(bases) == 1 else eliminate_all_sides
        return corrected(convolution, v, bases, boundary, form)


def check_both_sides(conditions: Sequence[AxisSides]) -> None:
    """Refuses an axis with a condition on one side only."""
    for axis, sides in enumerate(conditions):
        if sides.has_free_side:
            raise InvalidArgumentError(
                f"Elimination acts on both ends of an axis, but axis {axis} has a condition on one side only or on "
                "a part of a side; use MixedTransform(), SmoothExtension() or Prescription()."
            )


def corrected(
    convolution: Convolution,
    v: Tensor,
    bases: Sequence[Basis],
    boundary: Boundary,
    eliminate: Callable[[Tensor, Tensor, Sequence[Basis], Sequence[int]], Tensor],
) -> Tensor:
    """T₁ K T₂ v: the kernel with eliminated ends, its boundary nodes set so that every channel keeps B v.

    ``eliminate`` gives K T₂ v from v ``(batch, c, *space)``, the weights ``(*modes, c, c)``, the bases and the axes
    with sides. Autocast leaves it in the dtype of the bases.
    """
    if torch.is_autocast_enabled(v.device.type):
        with torch.autocast(v.device.type, enabled=False):
            return corrected(convolution, v.to(bases[0].analysis.dtype), bases, boundary, eliminate)
    if not boundary.sides:
        return convolution(v, bases)
    values = tuple(side.read(v) for side in boundary.sides)
    result = eliminate(v, convolution.weight, bases, tuple(boundary.by_axis()))
    return set_nodes(result, replace(boundary, data=values))


def eliminate(x: Tensor, weight: Tensor, bases: Sequence[Basis], axes: Sequence[int] = (0,)) -> Tensor:  # noqa: ARG001
    """K T₂ x for features ``(batch, c, n)`` on one axis and the weights ``(modes, c, c)`` of the kernel.

    Raises:
        SingularKernelError: If k_NN or s is too small to divide by. While weights are trained this is a warning, and
            where a graph is recorded the result is NaN.
    """
    (basis,), nodes = bases, end_nodes(bases[0])
    at_ends = (replace(basis, analysis=basis.analysis[:, nodes], synthesis=basis.synthesis[nodes]),)
    unit = torch.eye(2, dtype=x.dtype, device=x.device)
    probes = unit[:, None].expand(-1, x.shape[1], -1)
    (k_00, k_n0), (k_0n, k_nn) = convolve(probes, weight, at_ends)[:, 0]
    terms = convolve(probes, weight.abs().to(weight.dtype), at_ends)[0, 0, 0]
    k_nn = _checked(k_nn, terms)
    schur = _checked(k_00 - k_0n * k_n0 / k_nn, terms)

    modes = multiply(analyse(x, bases), weight)
    x_0, x_n = x[..., nodes].unbind(-1)
    z_0, z_n = synthesise(modes, at_ends).unbind(-1)
    change = x_0 - (z_0 - (k_0n / k_nn) * z_n + k_0n * x_n) / schur
    modes = modes + multiply(analyse(change[..., None] * unit[0], at_ends), weight)
    change = x_n - synthesise(modes, at_ends)[..., 1] / k_nn
    return synthesise(modes + multiply(analyse(change[..., None] * unit[1], at_ends), weight), bases)


def _checked(pivot: Tensor, terms: Tensor) -> Tensor:
    """A pivot that has half of its digits: the terms have errors of ε times their size, so √ε of it is the least."""
    smallest = torch.finfo(terms.dtype).eps ** 0.5
    return checked(
        pivot,
        ~(pivot.abs() > smallest * terms),
        lambda: (
            f"A pivot of this layer is {float(pivot.detach()):.2g}, its terms in size add up to "
            f"{float(terms.detach()):.2g}, and elimination in {terms.dtype} divides by no less than {smallest:.2g} "
            "of that"
        ),
        f"A pivot of a layer, by which elimination divides, is below {smallest:.2g} of its terms in size",
    )


def end_nodes(basis: Basis) -> list[int]:
    """The first and the last node of the domain."""
    return [basis.margin, basis.analysis.shape[-1] - 1 - basis.margin]
