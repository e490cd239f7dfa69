"""The rows of the boundary-condition experiments as data: operators, and how they are told of the boundary.

All of one case have the same network, training and samples. Source of rows and protocol: Saad et al. 2023, whose
BOON takes boundary values from the test target while their FNO sees the initial field only; ``Method.information``
says of each row what it sees.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon import (
    BOON,
    FNO,
    Boundary,
    Correction,
    Elimination,
    FNOConfig,
    MatchedTransform,
    Prescription,
    SmoothExtension,
    boundary_channels,
    relative_l2,
)
from boon.conditions import discretise
from boon.functionals import residuals
from experiments.errors import InvalidArgumentError
from experiments.boundary.lifting import lift
from experiments.operator_config import SHORT_EXTENSION, OperatorCase
from experiments.operator_data import Fields, Values
from solvers import Periodic


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row: an FNO and what is done with the boundary.

    Args:
        name: Name in tables.
        correction: The correction of a BOON around the FNO; None for none.
        channels: Gives the boundary values to the FNO as input channels.
        lifting: u = extension of the boundary data + envelope · FNO, see ``experiments.lifting``.
        penalty: λ of the loss relative L2 + λ ‖B u − g‖/‖s‖, s = |g| + Σ_j |w_j u_j|; 0 for none.
        circle: Tells the FNO that periodic axes are.

    Raises:
        InvalidArgumentError: If the penalty is negative.
    """

    name: str
    correction: Correction | None = None
    channels: bool = False
    lifting: bool = False
    penalty: float = 0.0
    circle: bool = False

    def __post_init__(self) -> None:
        if not self.penalty >= 0:
            raise InvalidArgumentError(f"penalty of method '{self.name}' must not be negative, got {self.penalty}.")

    @property
    def information(self) -> str:
        """What the method sees besides the initial field, and where."""
        places = {
            "channels": self.channels,
            "layers": self.correction is not None and self.correction.hidden,
            "output": self.correction is not None or self.lifting,
            "loss": self.penalty > 0,
        }
        seen = ", ".join(place for place, there in places.items() if there)
        circle = "; periodicity in the network" if self.circle else ""
        return "initial field" + (f"; boundary in {seen}" if seen else "") + circle


class ConditionedOperator(nn.Module):
    """A method of a case as one map: input field and boundary values → output field.

    Args:
        operator: What is trained and stored.
        method: The method.
        case: The case.
    """

    def __init__(self, operator: FNO | BOON, method: Method, case: OperatorCase) -> None:
        super().__init__()
        self.operator, self.method, self.case = operator, method, case
        network = case.sizes.network
        self.channels = 1 if network.time_modes else case.times

    def forward(self, a: Float[Tensor, "batch 1 *space"], values: Values) -> Float[Tensor, "batch channels *space"]:
        """The output field.

        Args:
            a: Input field.
            values: Boundary values, as in ``Fields``.
        """
        if self.method.channels or self.method.lifting:
            boundary = self.discretise(a, values)
            seen = [boundary_channels(boundary, a.shape[2:], a.dtype)] if self.method.channels else []
            u = self._run(torch.cat([a, *seen], dim=1), values)
            return lift(u, boundary) if self.method.lifting else u
        return self._run(a, values)

    def discretise(self, like: Tensor, values: Values) -> Boundary:
        """The conditions with their data on the grid of a field ``(batch, any, *space)``."""
        conditions, lengths = operator_conditions(self.case), (1.0,) * (like.ndim - 2)
        output = like[:, :1].expand(-1, self.channels, *like.shape[2:])
        return discretise(conditions, lengths, values, output, self.case.sizes.network.order)

    def loss(self, fields: Fields) -> Tensor:
        """Mean relative L2 of a batch, plus the penalty of the method."""
        u = self(fields.input, fields.values)
        loss = relative_l2(u, fields.output)
        if not self.method.penalty:
            return loss
        pairs = residuals(u, self.discretise(u, fields.values))
        miss, scale = (torch.cat([part.flatten() for part in parts]).norm() for parts in zip(*pairs, strict=True))
        return loss + self.method.penalty * (miss / scale).to(loss.dtype)

    def _run(self, a: Tensor, values: Values) -> Tensor:
        return self.operator(a, values) if isinstance(self.operator, BOON) else self.operator(a)


def operator_conditions(case: OperatorCase) -> tuple:
    """The conditions of a case, one pair per axis of its fields; None for time."""
    return (*case.problem.conditions, None) if case.sizes.network.time_modes else case.problem.conditions


def build(method: Method, case: OperatorCase) -> ConditionedOperator:
    """The untrained operator of a method, its weights drawn from torch's global generator."""
    network = case.sizes.network
    space = len(case.problem.conditions)
    over_time = network.time_modes > 0
    sides = sum(2 for pair in case.problem.conditions if not isinstance(pair[0], Periodic))
    out_channels = 1 if over_time else case.times
    periodic = tuple(isinstance(pair[0], Periodic) for pair in case.problem.conditions)
    operator: FNO | BOON = FNO(
        FNOConfig(
            in_channels=1 + (sides * out_channels if method.channels else 0),
            out_channels=out_channels,
            width=network.width,
            modes=(network.modes,) * space + ((network.time_modes,) if over_time else ()),
            depth=network.depth,
            periodic=periodic + ((False,) if over_time else ()) if method.circle else (),
        )
    )
    if method.correction is not None:
        operator = BOON(operator, operator_conditions(case), None, method.correction, network.order)
    return ConditionedOperator(operator, method, case)


DEFAULT_NAME = "BOON (default)"
"""The row with the correction of ``boon.BOON`` around an FNO, its extension as long as the case says."""
CHANNELS, PRESCRIBED, LIFTED = "FNO + boundary channels", "FNO + output prescription", "lifting"
SOFT, CIRCLE, PAPER = "FNO + soft penalty", "FNO on the circle", "BOON (paper's form)"
BASELINES = (CHANNELS, PRESCRIBED, LIFTED, SOFT, CIRCLE)
"""The baselines that are told of the boundary as BOON is."""


def methods(case: OperatorCase) -> tuple[Method, ...]:
    """The rows of a case.

    Where boundary data follow from the initial field, methods see them as they do by themselves; where they do not,
    every method but the plain FNO and the paper's form has them as channels. On periodic axes there are no data:
    instead of channels and lifting, an FNO on the circle.
    """
    told = case.independent
    plain = Method(name="FNO")
    channels = Method(name=CHANNELS, channels=True)
    paper = Method(name=PAPER, correction=Elimination(block=False))
    default = Method(name=DEFAULT_NAME, correction=MatchedTransform(length=case.extension), channels=told)
    if case.few_methods:
        return plain, channels, paper, default
    prescribed = Method(name=PRESCRIBED, correction=Prescription(), channels=told)
    soft = Method(name=SOFT, penalty=1.0, channels=told)
    if is_periodic(case):
        return plain, Method(name=CIRCLE, circle=True), prescribed, soft, paper, default
    lifted = Method(name=LIFTED, lifting=True, channels=told)
    return plain, channels, prescribed, lifted, soft, paper, default


def candidates(case: OperatorCase) -> tuple[Method, ...]:
    """What the default may be: every correction of the family, with and without boundary channels or the circle.

    On periodic axes elimination comes down to prescription, and there is nothing to lift and nothing to extend from a
    side, so these are left out there.
    Where boundary data are independent of the initial field, only with channels. They are ranked by their validation
    scores, see ``experiments.operator_choice``.
    """
    short = "matched transforms and lifting, short extension"
    family: dict[str, Correction] = {
        "prescription": Prescription(),
        "prescription in all layers": Prescription(hidden=True),
        "scalar elimination": Elimination(block=False),
        "block elimination": Elimination(),
        "smooth extension": SmoothExtension(),
        "smooth extension in all layers": SmoothExtension(hidden=True),
        "matched transforms": MatchedTransform(hidden=False),
        "matched transforms and lifting in all layers": MatchedTransform(),
        short: MatchedTransform(length=SHORT_EXTENSION),
    }
    bare = tuple(Method(name=name, correction=correction) for name, correction in family.items())
    if is_periodic(case):
        left_out = ("scalar elimination", "block elimination", "matched transforms", short)
        few = [method for name, method in zip(family, bare, strict=True) if name not in left_out]
        return (*few, *(replace(method, name=f"{method.name}, circle", circle=True) for method in few))
    told = tuple(replace(method, name=f"{method.name}, channels", channels=True) for method in bare)
    return told if case.independent else (*bare, *told)


def is_periodic(case: OperatorCase) -> bool:
    """Whether all axes of the problem are periodic, so that there are no boundary data."""
    return all(isinstance(pair[0], Periodic) for pair in case.problem.conditions)
