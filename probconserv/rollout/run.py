"""The steps of a rollout: what the operator predicts, brought to the totals of the balance and within bounds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.values import are_finite, cached, square_root
from probconserv.errors import ConvergenceError, InfeasibleConstraintError, InvalidArgumentError
from probconserv.inequalities.bounds import Bounds
from probconserv.rollout.learned_response import ResponseOfField
from probconserv.rollout.walls import Exchange, integrated
from solvers.recording import are_readable

_ITERATIONS = 50
_RECORDED = 8  # iterations in a graph, which cannot ask whether they have converged


class RolloutState(NamedTuple):
    """State of a rollout, from which it can continue.

    Attributes:
        field: u ``(*batch, c, *space)``.
        total: M ``(*batch, k)``, float64: what the balance has come to, free of the rounding of the field.
        changed: By how much the law changed the totals in the last step ``(*batch, k)``.
        step: Number of steps that are done.
        rate: What fluxes and sources that depend on the field give to the totals now ``(*batch, k)``; None if that was
            not needed so far.
    """

    field: Tensor
    total: Tensor
    changed: Tensor
    step: int
    rate: Tensor | None = None
    moved: Tensor | None = None


class Trajectory(NamedTuple):
    """A rollout.

    Attributes:
        fields: u at the start and after every step ``(*batch, t, c, *space)``.
        totals: M at the same times ``(*batch, t, k)``, float64.
        moved: How far law and bounds moved the field in every step, root mean square over the domain, 0 at the start
            ``(*batch, t, c)``.
        state: The last state.
    """

    fields: Tensor
    totals: Tensor
    moved: Tensor
    state: RolloutState

    def __repr__(self) -> str:
        return f"Trajectory(fields {tuple(self.fields.shape)}, totals {tuple(self.totals.shape)})"


def totals_of(
    field: Float[Tensor, "..."], weights: Float[Tensor, "*space"], conserved: tuple[int, ...] | None
) -> Tensor:
    """Totals ``(*batch, k)`` of the conserved channels of a field ``(*batch, c, *space)``, float64."""
    totals = integrated(field, weights)
    return totals if conserved is None else totals[..., list(conserved)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A rollout with the data of its walls."""

    source: Callable[[Tensor, Tensor], Tensor] | None
    conserved: tuple[int, ...] | None
    tolerance: float
    times: Tensor
    exchange: Exchange
    weights: Tensor  # of the quadrature ``(*space)``
    response: Tensor  # how fields move when a total changes by one ``(k, c·points)``
    learned: ResponseOfField | None  # the same by the predicted field
    trust: tuple[Tensor, ...] | None  # the part of what is missing that is corrected ``(*batch, k, k)``; None for all
    bounds: Bounds | None

    @cached
    def gained(self) -> tuple[Tensor, ...]:
        """Exchange through the walls in every step that is known in advance ``(*batch, k)``."""
        return self.exchange.gained.unbind(-2)

    @cached
    def halves(self) -> tuple[Tensor, ...]:
        """Half the length of every step."""
        return (0.5 * self.times.diff()).unbind()

    @cached
    def _mean(self) -> Tensor:
        """The weights of a mean over the domain."""
        return self.weights / self.weights.sum()

    @property
    def moves_vary(self) -> bool:
        """Whether fields move by more than a multiple of one response."""
        return self.bounds is not None or self.learned is not None

    @cached
    def _read_responses(self) -> list[Tensor]:
        return self._responses(self.response)

    def _responses(self, response: Tensor) -> list[Tensor]:
        """A response of what the rates depend on ``(*batch, k, …)``."""
        read, lead = self._read(response.unflatten(-1, (-1, *self.weights.shape))), response.ndim - 1
        return [part.flatten(lead) for part in read]

    def corrected(self, state: RolloutState, predicted: Tensor) -> RolloutState:
        """The state after a step whose field the operator has predicted."""
        if not isinstance(predicted, Tensor) or predicted.shape != state.field.shape:
            got = tuple(predicted.shape) if isinstance(predicted, Tensor) else type(predicted).__name__
            raise InvalidArgumentError(
                f"The operator must give a field of the shape of its input, {tuple(state.field.shape)}, got {got}."
            )
        given, target, rate = predicted.to(torch.float64), state.total + self.gained[state.step], None
        of_given = totals_of(given, self.weights, self.conserved)
        self._check(predicted, of_given, state)
        if self.exchange.before:
            target = sum((wall.gain(state.field, state.step) for wall in self.exchange.before), target)
            if are_readable(target):
                refuse_missing(target, f"The totals that the flux model demands at step {state.step} hold")
        response, bounds = self.response, self.bounds
        if self.learned is not None:
            response, variance = self.learned(given)
            bounds = bounds and replace(bounds, variance=variance)
        if self.exchange.during or self.source is not None:
            target, rate = self._implicit(state, given, target, of_given, response, bounds)
        change = self._trusted(target - of_given, state.step)
        field = self._moved(given, of_given, change, response, bounds, state.step)
        moved = None
        if self.moves_vary:
            moved = square_root(integrated((field - given).square(), self._mean))
        total = target if self.trust is None else of_given + change
        return RolloutState(field.to(predicted.dtype), total, change, state.step + 1, rate, moved)

    def _moved(
        self, given: Tensor, of_given: Tensor, change: Tensor, response: Tensor, bounds: Bounds | None, step: int
    ) -> Tensor:
        """The predicted field, float64, with its totals changed, and within bounds."""
        field = given + _times(change, response).view(given.shape)
        if bounds is None:
            return field
        try:
            return bounds.nearest(field, of_given + change)
        except InfeasibleConstraintError as error:
            raise InfeasibleConstraintError(f"Law and bounds contradict each other at step {step}: {error}") from error

    def moved(self, change: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch c"]:
        """How far fields move where totals change, root mean square over the domain."""
        response = self.response.unflatten(-1, (-1, self.weights.numel())).movedim(-2, 0)
        squares = (response * self._mean.flatten()) @ response.mT
        change = change[..., None, None, :]
        return square_root(((change @ squares) * change).sum(dim=(-2, -1)))

    def _trusted(self, missing: Tensor, step: int) -> Tensor:
        """By how much the totals are changed ``(*batch, k)``."""
        if self.trust is None:
            return missing
        return (self.trust[step % len(self.trust)] @ missing[..., None])[..., 0]

    def _implicit(
        self,
        state: RolloutState,
        given: Tensor,
        known: Tensor,
        of_given: Tensor,
        response: Tensor,
        bounds: Bounds | None,
    ) -> tuple[Tensor, Tensor]:
        """The totals that agree with the rates of the field that has them, and these rates ``(*batch, k)``.

        Ends where the next iteration would change the totals less than the tolerance, as the last two have done.
        """
        step, readable = state.step, are_readable(given)
        half, parts = self.halves[step], self._read(given)
        rate = self._rate(self._read(state.field.to(torch.float64)), step) if state.rate is None else state.rate
        known, target = known + half * rate, known + 2 * half * rate
        tolerance = max(self.tolerance, 0.01 * torch.finfo(state.field.dtype).eps)
        allowed = tolerance * (totals_of(given.abs(), self.weights, self.conserved) + known.abs())
        before, responses = allowed, self._read_responses if self.learned is None else self._responses(response)
        for iteration in range(_ITERATIONS if readable else _RECORDED):
            last, change = target, self._trusted(target - of_given, step)
            if self.bounds is None:
                moved = [part + _times(change, by).view(part.shape) for part, by in zip(parts, responses, strict=True)]
            else:
                moved = self._read(self._moved(given, of_given, change, response, bounds, step))
            rate = self._rate(moved, step + 1)
            target = known + half * rate
            changed = (target - last).abs()
            if readable and iteration and bool((changed.square() <= allowed * before).all()):
                break
            before = changed
            if iteration == _ITERATIONS - 1:
                raise ConvergenceError(
                    f"Fluxes and sources that depend on the field have not settled in {_ITERATIONS} iterations at step "
                    f"{step}: the total still changes by {float(changed.max()):.3g}. Take shorter steps, or check that "
                    "flux and source give finite rates, per unit of time."
                )
        return target, rate

    def _read(self, field: Tensor) -> list[Tensor]:
        """Values that rates depend on, of a field ``(*batch, c, *space)``: those at walls, all if there is a source."""
        parts = [wall.values(field) for wall in self.exchange.during]
        return parts if self.source is None else [*parts, field]

    def _rate(self, parts: list[Tensor], time: int) -> Tensor:
        """Rates of change of the totals by fluxes and sources that depend on the field."""
        rates = [wall.rate(part, time) for wall, part in zip(self.exchange.during, parts, strict=False)]
        if self.source is not None:
            source, field = self.source(parts[-1], self.times[time]), parts[-1]
            wanted = self.response.shape[0], *self.weights.shape
            if source.shape[-len(wanted) :] != wanted:
                raise InvalidArgumentError(
                    f"The source of fields {tuple(field.shape)} must be (*batch, {', '.join(map(str, wanted))}), got "
                    f"{tuple(source.shape)}."
                )
            rates.append(integrated(source, self.weights))
        return sum(rates[1:], rates[0])

    def _check(self, predicted: Tensor, totals: Tensor, state: RolloutState) -> None:
        """Refuses a field that is not finite, as its totals are then not; those of other channels are looked at."""
        if are_readable(predicted) and not are_finite(totals if self.conserved is None else predicted):
            time = float(self.times[state.step])
            refuse_missing(predicted, f"What the operator predicts at step {state.step}, from t = {time:g}, holds")


def _times(change: Float[Tensor, "*batch k"], response: Float[Tensor, "*batch k n"]) -> Float[Tensor, "*batch n"]:
    return change @ response if response.ndim == 2 else (change[..., None, :] @ response)[..., 0, :]
