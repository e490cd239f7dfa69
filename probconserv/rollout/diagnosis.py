"""A rollout on validation trajectories: whether its law helps, and bands that hold with a probability."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from probconserv.calibration.conformal import conformal_rank
from probconserv.inequalities.inequality import Inequality
from probconserv.rollout.run import RolloutState, Run, Trajectory, totals_of
from probconserv.rollout.step_update import StepUpdate
from probconserv.rollout.walls import integrated

_NO_TRUST = 1e12  # variance of a law that does harm, relative to that of the operator in a step


@dataclass(frozen=True, kw_only=True, eq=False)
class Diagnosis:
    """Errors of rollouts without and with the law, root mean squares over functions and all steps.

    Errors of a law add up over a rollout where they are systematic, as those of a flux model may be, and the operator's
    may not: single steps do not show it.

    Args:
        steps: Number of steps.
        conserved: The channels that have a balance, k of them.
        law_error: How far the totals that the law demands are from the true ones ``(k,)``, float64: by given fluxes, by
            the rule that integrates them, and by what fluxes and sources read off the prediction.
        operator_error: How far the operator's totals are from the true ones ``(k,)``.
        step_error: The same in one step from true fields ``(k,)``.
        field_error: Error of the field without the law ``(c,)``.
        corrected_error: Error of the field with it ``(c,)``.
        moved: How far law and bounds move the field in a step ``(c,)``.
        spread: Standard deviation of the true fields ``(c,)``.
    """

    steps: int
    conserved: tuple[int, ...]
    law_error: Float[Tensor, " k"]
    operator_error: Float[Tensor, " k"]
    step_error: Float[Tensor, " k"]
    field_error: Float[Tensor, " c"]
    corrected_error: Float[Tensor, " c"]
    moved: Float[Tensor, " c"]
    spread: Float[Tensor, " c"]

    @property
    def helps(self) -> Bool[Tensor, " k"]:
        """Whether the rollouts of a channel are better with its law than without."""
        channels = list(self.conserved)
        return self.corrected_error[channels] < self.field_error[channels]

    @property
    def trust(self) -> Float[Tensor, " k"]:
        """The part of a missing total that is best corrected, var_operator / (var_operator + var_law); 0 where the law
        does harm.
        """
        return torch.where(self.helps, 1.0 / (1.0 + self._ratio), 0.0)

    @property
    def _ratio(self) -> Float[Tensor, " k"]:
        """Variance of the law relative to that of the operator, by the totals of their rollouts."""
        return (self.law_error / self.operator_error.clamp_min(torch.finfo(torch.float64).tiny)).square()

    def weighed(self, update: StepUpdate | None = None) -> StepUpdate:
        """The update that trusts the law so far, uniform or with the covariance of another update."""
        update = StepUpdate() if update is None else update
        of_step = self.step_error.square()
        scale = None if update.covariance is not None else of_step
        distrusted = _NO_TRUST * of_step + self.law_error.square()
        return replace(
            update, total_variance=scale, noise_variance=torch.where(self.helps, of_step * self._ratio, distrusted)
        )

    def __str__(self) -> str:
        lines = []
        for i, channel in enumerate(self.conserved):
            without, under_law = float(self.field_error[channel]), float(self.corrected_error[channel])
            law, operator, trust = (float(each[i]) for each in (self.law_error, self.operator_error, self.trust))
            lines.append(
                f"Over {self.steps} steps the law {'helps' if self.helps[i] else 'does harm'} in channel {channel}: "
                f"the error is {under_law:.2g} with it and {without:.2g} without, of a spread of "
                f"{float(self.spread[channel]):.2g}; its total is {law:.2g} off, the operator's {operator:.2g} (trust "
                f"{trust:.2f}), and a step is moved by {float(self.moved[channel]):.2g}."
            )
        return "\n".join(lines)


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

    def ends(self, trajectory: "Trajectory | Tensor") -> tuple[Tensor, Tensor]:
        """Lower and upper end of the fields ``(*batch, t, c, *space)``, within the bounds of values after the start."""
        fields = trajectory if isinstance(trajectory, Tensor) else trajectory.fields
        ends = fields - self.fields, fields + self.fields
        if self.bounds is None:
            return ends
        joined, shape = self.bounds.joined(), fields.shape[-self.fields.ndim + 1 :]
        for bound, nearest in ((joined.lower, torch.maximum), (joined.upper, torch.minimum)):
            along = bound.to(ends[0])
            along = along.reshape(*along.shape[:-1], 1, *shape) if along.ndim and along.shape[-1] > 1 else along
            ends = nearest(ends[0], along), nearest(ends[1], along)
        return ends


def diagnose(
    run: Run,
    states: Sequence[RolloutState],
    following: Iterator[RolloutState],
    operator: Callable[..., Tensor],
    inputs: tuple[Tensor, ...],
) -> Diagnosis:
    """See ``Rollout.diagnose``: true states, those that follow from the first under the law, and the operator alone."""
    mean, errors, free, lead = run.weights / run.weights.sum(), [], states[0].field, states[0].total.ndim - 1
    for step, (under_law, after) in enumerate(zip(following, states[1:], strict=True)):
        given = [part.select(lead, step) for part in inputs]
        single = operator(states[step].field, *given)
        free = operator(free, *given)
        alone, freely = (totals_of(field, run.weights, run.conserved) - after.total for field in (single, free))
        of_totals = [under_law.total - after.total, freely, alone]
        of_fields = [integrated((field - after.field).square(), mean) for field in (free, under_law.field)]
        moved = run.moved(under_law.changed) if under_law.moved is None else under_law.moved
        errors.append([*(error.square() for error in of_totals), *of_fields, moved.square()])
    law, alone, single, field, corrected, moved = (_root_mean(list(parts)) for parts in zip(*errors, strict=True))
    fields = torch.stack([state.field for state in states], dim=lead)
    centred = fields - fields.mean(dim=list(range(lead + 1)), keepdim=True)
    return Diagnosis(
        steps=len(states) - 1,
        conserved=tuple(range(fields.shape[lead + 1])) if run.conserved is None else run.conserved,
        law_error=law,
        operator_error=alone,
        step_error=single,
        field_error=field,
        corrected_error=corrected,
        moved=moved,
        spread=_root_mean([integrated(centred.square(), mean)]),
    )


def fit_band(
    states: Sequence[RolloutState], result: Trajectory, level: float, bounds: Inequality | None
) -> RolloutBand:
    """See ``Rollout.fit_band``: true states and the rollout from the first."""
    lead = states[0].total.ndim - 1
    fields = torch.stack([state.field for state in states], dim=lead)
    totals = torch.stack([state.total for state in states], dim=lead)
    errors = [(result.fields - fields).abs(), (result.totals - totals).abs()]
    each = [error.flatten(0, lead - 1) for error in errors]
    rank = conformal_rank(len(each[0]), 1, level)
    widths = [error.kthvalue(rank, dim=0).values for error in each]
    return RolloutBand(level=level, fields=widths[0], totals=widths[1], bounds=bounds)


def _root_mean(squares: list[Tensor]) -> Tensor:
    """Root of the mean over steps and functions of squares ``(*batch, m)``; infinite where fields are not finite."""
    root = torch.stack(squares).flatten(0, -2).mean(dim=0).sqrt()
    return torch.where(root.isnan(), torch.inf, root)
