"""Operators as a case needs them: a network between normalised fields, and what is done with the boundary."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

import boon
from boon import BOON, ChannelBOON, Correction, Normalised, boundary_channels, relative_l2
from boon.conditions.discretisation import discretise
from boon.conditions.functionals import Boundary, prescribe
from boon.conditions.sides import check_conditions
from boon.domain import domain_of
from boon.scores import relative_residual
from boon.slopes import slope_error
from experiments.boundary.baselines.architectures import Architecture, FourierOperator, PrincipalComponents
from experiments.boundary.baselines.layout import Layout, Sensors
from experiments.boundary.baselines.pca import blank
from experiments.boundary.cases import BoundaryCase
from experiments.boundary.data import Fields, Values
from experiments.errors import InvalidArgumentError


@dataclass(frozen=True, kw_only=True)
class Treatment:
    """A network, and how it gets to know the boundary.

    Args:
        architecture: The network.
        correction: The correction of a BOON around the operator; None for none.
        channels: Gives the boundary values to the operator as input channels.
        penalty: λ of the loss relative L2 + λ ‖B u − g‖/‖s‖, s = |g| + Σ_j |w_j u_j|; 0 for none. Under a correction u
            is what the operator gives before its sides are corrected, see ``BOON.with_residual``.
        circle: Gives the Fourier series of the FNO the period of the domain along periodic axes.
        slopes: λ of a further term λ · ``slope_error`` of the loss; 0 for none.
        as_nodes: Takes averages over cells for values at nodes.
    """

    architecture: Architecture = field(default_factory=FourierOperator)
    correction: Correction | None = None
    channels: bool = False
    penalty: float = 0.0
    circle: bool = False
    slopes: float = field(default=0.0, metadata={"later": True})
    as_nodes: bool = field(default=False, metadata={"later": True})
    former: ClassVar[Mapping[str, Any]] = {"lifting": False}

    def __post_init__(self) -> None:
        for name in ("penalty", "slopes"):
            if not getattr(self, name) >= 0:
                raise InvalidArgumentError(f"{name} must not be negative, got {getattr(self, name)}.")

    @property
    def information(self) -> str:
        """Further input channels of the operator."""
        inputs = {
            "channels": self.channels,
            "layers": self.correction is not None and self.correction.hidden,
            "output": self.correction is not None,
            "loss": self.penalty > 0 or self.slopes > 0,
        }
        seen = ", ".join(name for name, used in inputs.items() if used)
        circle = "; periodicity in the network" if self.circle else ""
        return "initial field" + (f"; boundary in {seen}" if seen else "") + circle


class ConditionedOperator(nn.Module):
    """An operator with its treatment as one map: input fields and boundary values → output field.

    The operator itself, a ``BOON`` or a network, is ``operator``; boundary channels are made around it.
    """

    def __init__(self, operator: nn.Module, treatment: Treatment, case: BoundaryCase) -> None:
        super().__init__()
        self.operator, self.treatment, self.case = operator, treatment, as_taken(case, treatment)

    def forward(
        self, a: Float[Tensor, "batch inputs *space"], values: Values | None = None
    ) -> Float[Tensor, "batch channels *space"]:
        """Maps input fields to output fields.

        Args:
            a: Input fields, both ends of every axis included.
            values: Boundary values as for ``BOON``; None where a case has none that differ between samples.
        """
        inputs = with_channels(a, values, self.treatment, self.case)
        if isinstance(self.operator, BOON):
            return self.operator(inputs, values)
        return self.operator(inputs)

    def discretise(self, like: Tensor, values: Values | None) -> Boundary | list[Boundary]:
        """The conditions with their data on the grid of a field, see ``discretise_case``."""
        return discretise_case(self.case, like, values)

    def loss(self, fields: Fields) -> Tensor:
        """Mean relative L2 of a batch, plus the penalty and the error of slopes."""
        penalty, slopes = self.treatment.penalty, self.treatment.slopes
        u, missed = self._with_residual(fields) if penalty else (self(fields.input, fields.values), 0.0)
        loss = relative_l2(u, fields.output) + penalty * missed
        if slopes:
            loss = loss + slopes * slope_error(u, fields.output, _over_time(self.case.conditions, self.case))
        return loss

    def _with_residual(self, fields: Fields) -> tuple[Tensor, Tensor]:
        """The output, and how far the network itself is from the conditions."""
        if isinstance(self.operator, ChannelBOON):
            return self.operator.with_residual(fields.input)
        if isinstance(self.operator, BOON):
            inputs = with_channels(fields.input, fields.values, self.treatment, self.case)
            return self.operator.with_residual(inputs, fields.values)
        u = self(fields.input, fields.values)
        return u, relative_residual(u, self.discretise(u, fields.values))

    def predict(self, fields: Fields, batch: int) -> Tensor:
        """Output fields of all samples, ``batch`` at a time, without gradients."""
        parts = [fields.take(slice(start, start + batch)) for start in range(0, len(fields), batch)]
        with torch.no_grad():
            return torch.cat([self(part.input, part.values) for part in parts])


def discretise_case(case: BoundaryCase, like: Tensor, values: Values | None) -> Boundary | list[Boundary]:
    """The conditions of a case with their data on the grid of a field: one for all channels, or one for each."""
    domain, order = domain_of(None, case.grid, like.ndim - 2), case.sizes.network.order
    output = like[:, :1].expand(-1, case.channels, *like.shape[2:])
    if case.shared:
        return discretise(check_conditions(_over_time(case.conditions, case)), domain, values, output, order)
    return [discretise(check_conditions(each), domain, None, output[:, :1], order) for each in _of_channels(case)]


def as_taken(case: BoundaryCase, treatment: Treatment) -> BoundaryCase:
    """A case with fields where the operator takes them to be."""
    return replace(case, cells=case.cells and not treatment.as_nodes)


def with_channels(a: Tensor, values: Values | None, treatment: Treatment, case: BoundaryCase) -> Tensor:
    """Input fields with the boundary values as further channels, if a treatment says so."""
    if not treatment.channels:
        return a
    boundary = discretise_case(case, a, values)
    if not isinstance(boundary, Boundary):
        raise InvalidArgumentError(f"{case.label}: conditions per channel have no data for input channels.")
    return torch.cat([a, boundary_channels(boundary, a.shape[2:], a.dtype)], dim=1)


def _over_time(conditions: Sequence, case: BoundaryCase) -> tuple:
    """One pair per axis of the fields; None for time."""
    return (*conditions, None) if case.sizes.network.time_modes else tuple(conditions)


def _of_channels(case: BoundaryCase) -> list[tuple]:
    """The conditions of every output channel."""
    unknowns = [_over_time(each, case) for each in case.source.conditions]
    return unknowns * (case.channels // len(unknowns))


def prescribed(u: Tensor, boundary: Boundary | Sequence[Boundary]) -> Tensor:
    """A field with boundary nodes that meet the conditions, of all channels or of one after the other."""
    if isinstance(boundary, Boundary):
        return prescribe(u, boundary)
    return torch.cat([prescribe(part, each) for part, each in zip(u.split(1, dim=1), boundary, strict=True)], dim=1)


def build(treatment: Treatment, case: BoundaryCase, training_set: Fields) -> ConditionedOperator:
    """An untrained operator, normalised by a training set, its weights drawn from torch's global generator."""
    case = as_taken(case, treatment)
    inputs = with_channels(training_set.input, training_set.values, treatment, case)
    operator = Normalised.fit(nn.Identity(), inputs, training_set.output, cells=case.cells)
    operator.operator = treatment.architecture.build(layout_of(treatment, case, training_set))
    return ConditionedOperator(corrected(operator, treatment.correction, case), treatment, case)


def corrected(operator: nn.Module, correction: Correction | None, case: BoundaryCase) -> nn.Module:
    """An operator whose output meets the conditions of a case, unless the correction is None."""
    order = case.sizes.network.order
    if correction is None:
        return operator
    if case.shared:
        return BOON(operator, _over_time(case.conditions, case), None, correction, order, grid=case.grid)
    return ChannelBOON(operator, _of_channels(case), None, correction, order, grid=case.grid)


def layout_of(treatment: Treatment, case: BoundaryCase, fields: Fields) -> Layout:
    """Channels in and out of the network of a case, on the grid of these fields."""
    sizes, over_time = case.sizes.network, case.sizes.network.time_modes > 0
    space = tuple(fields.input.shape[2:])
    constant: list[int | None] = [len(space) - 1 if over_time else None] * fields.input.shape[1]
    boundary = discretise_case(case, fields.input, fields.values) if treatment.channels else ()
    if isinstance(boundary, Boundary):
        constant += [side.axis for side in boundary.functionals for _ in range(case.channels)]
    periodic = (*case.periodic, False) if over_time else case.periodic
    return Layout(
        sensors=Sensors(space=space, constant=tuple(constant)),
        out_channels=case.channels,
        width=sizes.width,
        modes=(sizes.modes,) * case.axes + ((sizes.time_modes,) if over_time else ()),
        depth=sizes.depth,
        periodic=periodic if treatment.circle else (),
        cells=case.cells,
    )


def load(path: Path, treatment: Treatment, case: BoundaryCase) -> ConditionedOperator:
    """A stored operator as a map of a case."""
    return ConditionedOperator(boon.load(path, _unfilled(path, treatment)), treatment, case).eval()


def _unfilled(path: Path, treatment: Treatment) -> nn.Module | None:
    """A module like the one in a file, if that is none of the library's."""
    if isinstance(treatment.architecture, FourierOperator):
        return None
    notes = boon.read_notes(path)
    layout = Layout.from_json(notes["layout"])
    if isinstance(treatment.architecture, PrincipalComponents):
        return blank(layout.sensors, notes["regression"])
    return treatment.architecture.build(layout)
