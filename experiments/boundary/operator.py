"""Operators as a case needs them: an FNO, and what is done with the boundary."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

import boon
from boon import BOON, FNO, Correction, FNOConfig, Operator, boundary_channels, relative_l2
from boon.conditions import discretise
from boon.corrections.lifting import LiftingStep
from boon.functionals import Boundary, Functional, residuals
from experiments.boundary.cases import BoundaryCase
from experiments.boundary.data import Fields, Values
from experiments.errors import InvalidArgumentError
from experiments.operators import TRANSFORM


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """How an operator gets to know the boundary.

    Args:
        correction: The correction of a BOON around the FNO; None for none.
        channels: Gives the boundary values to the FNO as input channels.
        lifting: u = extension of the boundary data + envelope · FNO, see ``lift``.
        penalty: λ of the loss relative L2 + λ ‖B u − g‖/‖s‖, s = |g| + Σ_j |w_j u_j|; 0 for none.
        circle: Gives the Fourier series of the FNO the period of the domain along periodic axes.
    """

    correction: Correction | None = None
    channels: bool = False
    lifting: bool = False
    penalty: float = 0.0
    circle: bool = False

    def __post_init__(self) -> None:
        if not self.penalty >= 0:
            raise InvalidArgumentError(f"penalty must not be negative, got {self.penalty}.")

    @property
    def information(self) -> str:
        """What the operator sees besides the initial field, and where."""
        inputs = {
            "channels": self.channels,
            "layers": self.correction is not None and self.correction.hidden,
            "output": self.correction is not None or self.lifting,
            "loss": self.penalty > 0,
        }
        seen = ", ".join(name for name, used in inputs.items() if used)
        circle = "; periodicity in the network" if self.circle else ""
        return "initial field" + (f"; boundary in {seen}" if seen else "") + circle


class ConditionedOperator(nn.Module):
    """An operator with its treatment as one map: input field and boundary values → output field."""

    def __init__(self, operator: Operator, treatment: Treatment, case: BoundaryCase) -> None:
        super().__init__()
        self.operator, self.treatment, self.case = operator, treatment, case

    def forward(self, a: Float[Tensor, "batch 1 *space"], values: Values) -> Float[Tensor, "batch channels *space"]:
        boundary = self.discretise(a, values) if self.treatment.channels or self.treatment.lifting else None
        if boundary is not None and self.treatment.channels:
            a = torch.cat([a, boundary_channels(boundary, a.shape[2:], a.dtype)], dim=1)
        u = self.operator(a, values) if isinstance(self.operator, BOON) else self.operator(a)
        return lift(u, boundary) if boundary is not None and self.treatment.lifting else u

    def discretise(self, like: Tensor, values: Values) -> Boundary:
        """The conditions with their data on the grid of a field ``(batch, any, *space)``."""
        conditions, lengths = _conditions(self.case), (1.0,) * (like.ndim - 2)
        output = like[:, :1].expand(-1, self.case.channels, *like.shape[2:])
        return discretise(conditions, lengths, values, output, self.case.sizes.network.order)

    def loss(self, fields: Fields) -> Tensor:
        """Mean relative L2 of a batch, plus the penalty."""
        u = self(fields.input, fields.values)
        loss = relative_l2(u, fields.output)
        if not self.treatment.penalty:
            return loss
        pairs = residuals(u, self.discretise(u, fields.values))
        miss, scale = (torch.cat([part.flatten() for part in parts]).norm() for parts in zip(*pairs, strict=True))
        return loss + self.treatment.penalty * (miss / scale).to(loss.dtype)

    def predict(self, fields: Fields, batch: int) -> Tensor:
        """Output fields of all samples, ``batch`` at a time, without gradients."""
        parts = [fields.take(slice(start, start + batch)) for start in range(0, len(fields), batch)]
        with torch.no_grad():
            return torch.cat([self(part.input, part.values) for part in parts])


def _conditions(case: BoundaryCase) -> tuple:
    """One pair per axis of the fields; None for time."""
    return (*case.problem.conditions, None) if case.sizes.network.time_modes else case.problem.conditions


def build(treatment: Treatment, case: BoundaryCase) -> ConditionedOperator:
    """An untrained operator, its weights drawn from torch's global generator."""
    network, periodic, over_time = case.sizes.network, case.periodic, case.sizes.network.time_modes > 0
    sides = 2 * periodic.count(False) if treatment.channels else 0
    config = FNOConfig(
        in_channels=1 + sides * case.channels,
        out_channels=case.channels,
        width=network.width,
        modes=(network.modes,) * len(periodic) + ((network.time_modes,) if over_time else ()),
        depth=network.depth,
        periodic=periodic + ((False,) if over_time else ()) if treatment.circle else (),
        transform=TRANSFORM,
    )
    operator: FNO | BOON = FNO(config)
    if treatment.correction is not None:
        operator = BOON(operator, _conditions(case), None, treatment.correction, network.order)
    return ConditionedOperator(operator, treatment, case)


def load(path: Path, treatment: Treatment, case: BoundaryCase) -> ConditionedOperator:
    """A stored operator as a map of a case."""
    return ConditionedOperator(boon.load(path), treatment, case).eval()


def lift(n: Float[Tensor, "batch channels *space"], boundary: Boundary) -> Float[Tensor, "batch channels *space"]:
    """The field made of an operator's output N that meets the conditions up to rounding.

        u = e N + E (g − B (e N)),   B E = I,

    with the envelope e = Π 4x(1 − x) over axes with Dirichlet conditions (only its factors at Dirichlet ends where the
    sides differ) and E the columns of polynomials of the lowest degree that carry one datum each. Where all sides are
    Dirichlet's, B (e N) = 0 and this is extension + envelope · N: linear interpolation of the two ends in one
    dimension, transfinite interpolation in two. No envelope can leave the value at a Neumann end free and its gradient
    zero, so there e = 1 and the polynomials take the gradient of N away.
    """
    u = n
    for side in boundary.functionals:
        if side.is_value:
            u = u * _envelope(side, u)
    return LiftingStep()(u, boundary)


def _envelope(side: Functional, u: Tensor) -> Tensor:
    """2x, or 2(1 − x) at the last side, along the axis of the side."""
    rising = torch.linspace(0.0, 2.0, u.shape[2 + side.axis], dtype=torch.float64)
    along = [-1 if axis == side.axis else 1 for axis in range(u.ndim - 2)]
    return (rising.flip(0) if side.last else rising).to(u).view(along)
