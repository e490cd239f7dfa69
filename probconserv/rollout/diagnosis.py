"""What validation trajectories say of a rollout: whether its law helps, and bands that hold with a probability."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probconserv.calibration.conformal import conformal_rank
from probconserv.errors import InvalidArgumentError
from probconserv.inequalities.inequality import Inequality
from probconserv.rollout.step_update import StepUpdate
from probconserv.rollout.walls import integrated

if TYPE_CHECKING:
    from probconserv.rollout.rollout import Rollout, Trajectory
    from probconserv.rollout.run import RolloutState
    from probconserv.rollout.walls import Walls


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """Errors of one step from true fields, root mean squares over functions and steps.

    Args:
        law_error: How far the totals that the law demands are from the true ones ``(k,)``, float64: that of given
            fluxes, of the rule that integrates them, and of what fluxes and sources read off the prediction.
        operator_error: How far the operator's totals are from the true ones ``(k,)``.
        field_error: Error of the operator's field ``(c,)``.
        corrected_error: Error of the field under the law ``(c,)``.
        moved: How far the law moves the field ``(c,)``.
        spread: Standard deviation of the true fields ``(c,)``.
    """

    law_error: Float[Tensor, " k"]
    operator_error: Float[Tensor, " k"]
    field_error: Float[Tensor, " c"]
    corrected_error: Float[Tensor, " c"]
    moved: Float[Tensor, " c"]
    spread: Float[Tensor, " c"]

    @property
    def helps(self) -> Bool[Tensor, " k"]:
        """Whether the law knows the totals better than the operator does."""
        return self.law_error < self.operator_error

    @property
    def trust(self) -> Float[Tensor, " k"]:
        """The part of a missing total that is best corrected, var_operator / (var_operator + var_law)."""
        operator, law = self.operator_error.square(), self.law_error.square()
        return operator / (operator + law).clamp_min(torch.finfo(torch.float64).tiny)

    def weighed(self, update: StepUpdate | None = None) -> StepUpdate:
        """The update that trusts the law so far, uniform or with the covariance of another update."""
        update = StepUpdate() if update is None else update
        scale = None if update.covariance is not None else self.operator_error.square()
        return replace(update, total_variance=scale, noise_variance=self.law_error.square())

    def __str__(self) -> str:
        lines = [
            f"Total {i}: the law {'helps' if helps else 'does harm'}; it is {law:.2g} off in a step, the operator "
            f"{operator:.2g} (trust {trust:.2f})."
            for i, (helps, law, operator, trust) in enumerate(
                zip(self.helps, self.law_error, self.operator_error, self.trust, strict=True)
            )
        ]
        parts = zip(self.moved, self.spread, self.field_error, self.corrected_error, strict=True)
        return "\n".join(
            lines
            + [
                f"Channel {i}: a step is moved by {moved:.2g} of a spread of {spread:.2g}; its error is {error:.2g} "
                f"without and {corrected:.2g} with the law."
                for i, (moved, spread, error, corrected) in enumerate(parts)
            ]
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class RolloutBand:
    """Pointwise bands around a rollout: of the value at every time, in every channel and at every point.

    Args:
        level: Probability with which a band holds, at least.
        fields: Half widths ``(t, c, *space)``; 0 at the start.
        totals: Half widths ``(t, k)``, float64.
        bounds: Inequalities of the rollout.
    """

    level: float
    fields: Tensor
    totals: Tensor
    bounds: Inequality | None = None

    def ends(self, trajectory: "Trajectory") -> tuple[Tensor, Tensor]:
        """Lower and upper end of the fields ``(*batch, t, c, *space)``, within the bounds of values after the start."""
        ends = trajectory.fields - self.fields, trajectory.fields + self.fields
        if self.bounds is None:
            return ends
        joined, shape = self.bounds.joined(), trajectory.fields.shape[-self.fields.ndim + 1 :]
        for bound, nearest in ((joined.lower, torch.maximum), (joined.upper, torch.minimum)):
            along = bound.to(ends[0])
            along = along.reshape(*along.shape[:-1], 1, *shape) if along.ndim and along.shape[-1] > 1 else along
            ends = nearest(ends[0], along), nearest(ends[1], along)
        return ends


def diagnose(
    rollout: "Rollout",
    fields: Tensor,
    times: Tensor,
    walls: "Walls",
    inputs: tuple[Tensor, ...],
    breakpoints: Sequence[float],
) -> Diagnosis:
    """See ``Rollout.diagnose``."""
    states, lead = _states(rollout, fields, times)
    run, errors = rollout.run(states[0], times, walls, breakpoints, exact=True), []
    mean = run.weights / run.weights.sum()
    for step, (before, after) in enumerate(pairwise(states)):
        predicted = rollout.operator(before.field, *(part.select(lead, step) for part in inputs))
        corrected = run.corrected(before._replace(step=step), predicted)
        pairs = (predicted, after.field), (corrected.field, after.field), (corrected.field, predicted)
        of_fields = [integrated((first - second).square(), mean) for first, second in pairs]
        of_totals = corrected.total - after.total, rollout.totals_of(predicted) - after.total
        errors.append([*(error.square() for error in of_totals), *of_fields])
    law, operator, field, under_law, moved = (_root_mean(list(parts)) for parts in zip(*errors, strict=True))
    centred = fields - fields.mean(dim=list(range(lead + 1)), keepdim=True)
    return Diagnosis(
        law_error=law,
        operator_error=operator,
        field_error=field,
        corrected_error=under_law,
        moved=moved,
        spread=_root_mean([integrated(centred.square(), mean)]),
    )


def fit_band(
    rollout: "Rollout",
    fields: Tensor,
    times: Tensor,
    walls: "Walls",
    inputs: tuple[Tensor, ...],
    level: float,
    breakpoints: Sequence[float],
) -> RolloutBand:
    """See ``Rollout.fit_band``."""
    states, lead = _states(rollout, fields, times)
    result = rollout(states[0], times, walls, *inputs, breakpoints=breakpoints)
    totals = torch.stack([state.total for state in states], dim=lead)
    errors = [(result.fields - fields).abs(), (result.totals - totals).abs()]
    each = [error.flatten(0, lead - 1) for error in errors]
    rank = conformal_rank(len(each[0]), 1, level)
    widths = [error.kthvalue(rank, dim=0).values for error in each]
    return RolloutBand(level=level, fields=widths[0], totals=widths[1], bounds=rollout.bounds)


def _states(rollout: "Rollout", fields: Tensor, times: Tensor) -> tuple[list["RolloutState"], int]:
    """True states at all times, and the number of batch axes."""
    lead = fields.ndim - rollout.grid.dimension - 2
    if lead < 1 or fields.shape[lead] != len(times):
        raise InvalidArgumentError(
            f"fields must be validation trajectories (*batch, {len(times)}, c, *space), at all times and with at least "
            f"one batch axis, got {tuple(fields.shape)}."
        )
    return [rollout.state_of(part) for part in fields.unbind(dim=lead)], lead


def _root_mean(squares: list[Tensor]) -> Tensor:
    """Root of the mean over steps and functions of squares ``(*batch, m)``."""
    return torch.stack(squares).flatten(0, -2).mean(dim=0).sqrt()
