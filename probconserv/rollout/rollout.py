"""The autoregressive prediction of an open system under its balance.

An operator predicts the field one step on; the total of what it predicts is made that which the balance demands,

    M(t + Δt) = M(t) + ∫ (F_first − F_last) dt + ∫∫ s dx dt,

so that errors of the total do not add up. What is missing is spread over the field as ``condition`` does it,
u − Σ Gᵀ (G Σ Gᵀ + σ² I)⁻¹ (G u − M).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probconserv._linalg.checks import are_finite, refuse_missing
from probconserv._linalg.values import as_tensor, cached, square_root
from probconserv.errors import ConvergenceError, InvalidArgumentError
from probconserv.rollout.diagnosis import Diagnosis, RolloutBand, diagnose, fit_band
from probconserv.rollout.step_update import StepUpdate
from probconserv.rollout.wall_response import wall_response
from probconserv.rollout.walls import AllFluxes, Exchange, Walls, check_flux, exchange_of, integrated
from solvers.grids import Grid
from solvers.recording import are_readable, check_recording

_ITERATIONS = 50
_RECORDED = 8  # iterations in a graph, which cannot ask whether they have converged


class RolloutState(NamedTuple):
    """Where a rollout stands, and from where it goes on.

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


class Trajectory(NamedTuple):
    """A rollout.

    Attributes:
        fields: u at the start and after every step ``(*batch, t, c, *space)``.
        totals: M at the same times ``(*batch, t, k)``, float64.
        moved: How far the law moved the field in every step, root mean square over the domain, 0 at the start
            ``(*batch, t, c)``.
        state: The last state.
    """

    fields: Tensor
    totals: Tensor
    moved: Tensor
    state: RolloutState


class Rollout(nn.Module):
    """An operator from field to field, step by step, with the balance of an open system met in every step.

    The operator is any callable; what one from ``boon`` meets at the walls is met after every step, to round-off. The
    balance holds to round-off, unless it has a variance; the initial value is kept, and fixed values are those of the
    operator. Results can be differentiated, and the module compiled, or exported where all data are tensors.

    Args:
        operator: From ``(*batch, c, *space)``, and what ``inputs`` hold for the step, to the field one step on. Where
            it has a method ``response(grid, fields=None)``, see ``boon.BOON.response``, or is a module or function that
            holds one operator with it, fields move without leaving what they meet at the walls.
        grid: Nodes or cells of the field.
        flux: What the data of the walls are. None: fluxes. A function from the values at a wall ``(*batch, c, *face)``
            and the data there ``(*batch, m, *face)`` to the flux along +axis ``(*batch, k, *face)``, such as −κ(u) g
            for given gradients g: the trapezoid rule over the step, solved for the new field. A ``FluxModel`` where the
            data are values. Or pairs (first, last), one per axis, of these. Slopes are not read off the field: those
            of a prediction are wrong.
        source: From a field ``(*batch, c, *space)``, float64, and a time to the source ``(*batch, k, *space)`` per
            volume and time; by the trapezoid rule, solved for the new field.
        update: How what is missing is spread; uniformly by default, but for walls that the operator meets.
        conserved: The channels that have a balance, k of them; all by default.
        tolerance: Of the iteration for fluxes and sources that depend on the field, relative to ∫ |u|.

    Warns:
        UserWarning: If the operator meets walls that are not protected; the text says why.
    """

    def __init__(
        self,
        operator: Callable[..., Tensor],
        grid: Grid,
        *,
        flux: AllFluxes = None,
        source: Callable[[Tensor, Tensor], Tensor] | None = None,
        update: StepUpdate | None = None,
        conserved: tuple[int, ...] | None = None,
        tolerance: float = 1e-12,
    ) -> None:
        super().__init__()
        if not isinstance(grid, Grid):
            raise InvalidArgumentError(f"grid must be a NodeGrid or a CellGrid, got {type(grid).__name__}.")
        if not callable(operator):
            raise InvalidArgumentError(f"operator must map fields to fields, got {type(operator).__name__}.")
        if conserved is not None and (not conserved or len(set(conserved)) < len(conserved)):
            raise InvalidArgumentError(f"conserved must name different channels, at least one, got {conserved}.")
        check_flux(flux, grid)
        self.operator, self.grid, self.flux, self.source = operator, grid, flux, source
        self.update = StepUpdate() if update is None else update
        self.conserved, self.tolerance = conserved, tolerance
        self.walls = wall_response(operator, grid)

    def forward(
        self,
        start: Float[Tensor, "..."] | RolloutState,
        times: Float[Tensor, " t"],
        walls: Walls,
        *inputs: Tensor,
        breakpoints: Sequence[float] = (),
    ) -> Trajectory:
        """The fields at all times.

        Args:
            start: The field at the first time ``(*batch, c, *space)``; or a state that a call with the same times and
                data returned, from which this one goes on.
            times: Increasing times, one step from each to the next.
            walls: A pair (first, last) per axis, None for a periodic one. A side is a number, a function from times
                ``(q,)`` to ``(*batch, q, k, *face)``, values at the times ``(*batch, t, k, *face)``, for which the
                error of the trapezoid rule counts as variance, or integrals over the steps ``(*batch, t − 1, k,
                *face)``. Where ``flux`` is a function: its data, a number, a function of time or values at the times.
            inputs: Further arguments of the operator ``(*batch, t − 1, …)``, one entry per step.
            breakpoints: Times of jumps and narrow features of sides that are functions of time, which are integrated
                as by ``total_over_time``.

        Raises:
            ConvergenceError: If the iteration for fluxes and sources that depend on the field does not converge.
            DependentConstraintsError: If no value may move that a total counts.
        """
        first = self.state_of(start)
        run = self.run(first, times, walls, breakpoints)
        states, axis = [first, *self._steps(run, first, inputs)], first.total.ndim - 1
        fields, totals, changed = (torch.stack(parts, dim=axis) for parts in list(zip(*states, strict=True))[:3])
        return Trajectory(fields, totals, run.moved(changed).to(fields.dtype), states[-1])

    def steps(
        self,
        start: Float[Tensor, "..."] | RolloutState,
        times: Float[Tensor, " t"],
        walls: Walls,
        *inputs: Tensor,
        breakpoints: Sequence[float] = (),
    ) -> Iterator[RolloutState]:
        """The state after every step, one by one, for long runs; arguments are those of ``forward``."""
        state = self.state_of(start)
        return self._steps(self.run(state, times, walls, breakpoints), state, inputs)

    def _steps(self, run: "Run", state: RolloutState, inputs: tuple[Tensor, ...]) -> Iterator[RolloutState]:
        lead = state.total.ndim - 1
        if any(not isinstance(part, Tensor) or part.shape[lead : lead + 1] != (len(run.times) - 1,) for part in inputs):
            raise InvalidArgumentError(
                f"inputs need one entry for each of the {len(run.times) - 1} steps, (*batch, {len(run.times) - 1}, …) "
                f"with {lead} batch axes, got {[tuple(getattr(part, 'shape', ())) for part in inputs]}."
            )
        for step in range(state.step, len(run.times) - 1):
            predicted = self.operator(state.field, *(part.select(lead, step) for part in inputs))
            state = run.corrected(state, predicted)
            yield state

    def state_of(self, start: Float[Tensor, "..."] | RolloutState) -> RolloutState:
        """The state at the start."""
        if isinstance(start, RolloutState):
            expected = self.state_of(start.field)
            if start.total.shape != expected.total.shape or (are_readable(start.total) and not are_finite(start.total)):
                raise InvalidArgumentError(
                    f"A state to go on from needs finite totals {tuple(expected.total.shape)}, got {start.total}."
                )
            return start
        axes, channels = self.grid.dimension + 1, self.conserved
        start = as_tensor(start, dtype=None)
        if start.ndim < axes or tuple(start.shape[1 - axes :]) != self.grid.shape or not start.is_floating_point():
            raise InvalidArgumentError(
                f"start must be a field (*batch, channels, {', '.join(map(str, self.grid.shape))}) of floating-point "
                f"numbers, got {tuple(start.shape)} of {start.dtype}."
            )
        if channels is not None and not set(channels) <= set(range(start.shape[-axes])):
            raise InvalidArgumentError(f"conserved must name channels of {start.shape[-axes]}, got {channels}.")
        if are_readable(start):
            refuse_missing(start, "start holds")
        total = self.totals_of(start)
        return RolloutState(start, total, torch.zeros_like(total), 0)

    def diagnose(
        self,
        fields: Float[Tensor, "..."],
        times: Float[Tensor, " t"],
        walls: Walls,
        *inputs: Tensor,
        breakpoints: Sequence[float] = (),
    ) -> Diagnosis:
        """Whether the law helps, and how far it moves the field in a step, on true trajectories.

        Args:
            fields: True fields of validation functions ``(*batch, t, c, *space)``.
            times: As for ``forward``.
            walls: As for ``forward``, of these functions.
            inputs: As for ``forward``.
            breakpoints: As for ``forward``.

        Returns:
            Errors of law and operator in steps from true fields; its text says what they mean.
        """
        with torch.no_grad():
            return diagnose(self, fields, times, walls, inputs, breakpoints)

    def fit_band(
        self,
        fields: Float[Tensor, "..."],
        times: Float[Tensor, " t"],
        walls: Walls,
        *inputs: Tensor,
        level: float = 0.9,
        breakpoints: Sequence[float] = (),
    ) -> RolloutBand:
        """Pointwise bands around rollouts by validation functions (split conformal prediction), arguments as above.

        The half width at a time and point is the ⌈(n + 1)·level⌉-th smallest error there of n rollouts, so that the
        value of a new function, exchangeable with them, lies in the band there with probability ``level`` at least; a
        whole field does so less often. For bands of fields see ``fit_band`` of a prediction, ``kind="field"``.
        """
        with torch.no_grad():
            return fit_band(self, fields, times, walls, inputs, level, breakpoints)

    def totals_of(self, field: Float[Tensor, "..."]) -> Float[Tensor, "*batch k"]:
        """Totals of the conserved channels of a field ``(*batch, c, *space)``, float64."""
        return self.totals_under(self.grid.weights.to(field.device), field)

    def totals_under(self, weights: Tensor, field: Float[Tensor, "..."]) -> Float[Tensor, "*batch k"]:
        """``totals_of`` with quadrature weights at hand."""
        totals = integrated(field, weights)
        return totals if self.conserved is None else totals[..., list(self.conserved)]

    def run(
        self,
        state: RolloutState,
        times: Float[Tensor, " t"],
        walls: Walls,
        breakpoints: Sequence[float] = (),
        *,
        exact: bool = False,
    ) -> "Run":
        """What all steps of a call have in common; with an exact balance, if that is asked for."""
        check_recording()
        times, count = as_tensor(times).to(state.field.device), state.field.shape[-self.grid.dimension - 1]
        if times.ndim != 1 or len(times) < 2 or (are_readable(times) and not bool((times.diff() > 0).all())):
            raise InvalidArgumentError("times must be at least two, in one row, finite and strictly increasing.")
        if state.step >= len(times):
            raise InvalidArgumentError(
                f"The state comes after {state.step} steps, but the times have {len(times) - 1}; go on with the times "
                "and data of all steps, from the first."
            )
        exchange = exchange_of(self.grid, state.total, walls, times, self.flux, breakpoints)
        weights = self.grid.weights.to(times.device)
        response, covariance = self.update.response(weights, self._channels(count), count, self.walls)
        noise = None if exact else self.update.noise(exchange.noise, state.total)
        trust = None
        if noise is not None:  # Σ_M (Σ_M + σ²)⁻¹
            both = covariance + torch.diag_embed(noise)
            certain = both.diagonal(dim1=-2, dim2=-1) == 0  # neither is ever wrong
            both = both + torch.diag_embed(certain.to(both))
            trust = torch.linalg.solve(both, covariance.expand_as(both), left=False).unbind(-3)
        return Run(rollout=self, times=times, exchange=exchange, weights=weights, response=response, trust=trust)

    def _channels(self, count: int) -> tuple[int, ...]:
        return tuple(range(count)) if self.conserved is None else self.conserved


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """A rollout with the data of its walls."""

    rollout: Rollout
    times: Tensor
    exchange: Exchange
    weights: Tensor  # of the quadrature ``(*space)``
    response: Tensor  # how fields move when a total changes by one ``(k, c·points)``
    trust: tuple[Tensor, ...] | None  # the part of what is missing that is corrected ``(*batch, k, k)``; None for all

    @cached
    def gained(self) -> tuple[Tensor, ...]:
        """What is known ahead to pass the walls in every step ``(*batch, k)``."""
        return self.exchange.gained.unbind(-2)

    @cached
    def halves(self) -> tuple[Tensor, ...]:
        """Half the length of every step."""
        return (0.5 * self.times.diff()).unbind()

    @cached
    def responses(self) -> list[Tensor]:
        """``response`` of what the rates depend on ``(k, …)``."""
        return [part.flatten(1) for part in self._read(self.response.unflatten(-1, (-1, *self.weights.shape)))]

    def corrected(self, state: RolloutState, predicted: Tensor) -> RolloutState:
        """The state after a step whose field the operator has predicted."""
        if not isinstance(predicted, Tensor) or predicted.shape != state.field.shape:
            got = tuple(predicted.shape) if isinstance(predicted, Tensor) else type(predicted).__name__
            raise InvalidArgumentError(
                f"The operator must give a field of the shape of its input, {tuple(state.field.shape)}, got {got}."
            )
        given, target, rate = predicted.to(torch.float64), state.total + self.gained[state.step], None
        of_given = self.rollout.totals_under(self.weights, given)
        self._check(predicted, of_given, state)
        if self.exchange.before:
            target = sum((wall.gain(state.field, state.step) for wall in self.exchange.before), target)
            if are_readable(target):
                refuse_missing(target, f"The totals that the flux model demands at step {state.step} hold")
        if self.exchange.during or self.rollout.source is not None:
            target, rate = self._implicit(state, given, target, of_given)
        change = self._trusted(target - of_given, state.step)
        field = (given + (change @ self.response).view(given.shape)).to(predicted.dtype)
        return RolloutState(field, target if self.trust is None else of_given + change, change, state.step + 1, rate)

    def moved(self, change: Float[Tensor, "*batch k"]) -> Float[Tensor, "*batch c"]:
        """How far fields move where totals change, root mean square over the domain."""
        response = self.response.unflatten(-1, (-1, self.weights.numel())).movedim(-2, 0)
        squares = (response * (self.weights / self.weights.sum()).flatten()) @ response.mT
        change = change[..., None, None, :]
        return square_root(((change @ squares) * change).sum(dim=(-2, -1)))

    def _trusted(self, missing: Tensor, step: int) -> Tensor:
        """By how much the totals are changed ``(*batch, k)``."""
        if self.trust is None:
            return missing
        return (self.trust[step % len(self.trust)] @ missing[..., None])[..., 0]

    def _implicit(self, state: RolloutState, given: Tensor, known: Tensor, of_given: Tensor) -> tuple[Tensor, Tensor]:
        """The totals that agree with the rates of the field that has them, and these rates ``(*batch, k)``.

        Ends where the next iteration would change the totals less than the tolerance, as the last two have done.
        """
        step, readable = state.step, are_readable(given)
        half, parts = self.halves[step], self._read(given)
        rate = self._rate(self._read(state.field.to(torch.float64)), step) if state.rate is None else state.rate
        known, target = known + half * rate, known + 2 * half * rate
        tolerance = max(self.rollout.tolerance, 0.01 * torch.finfo(state.field.dtype).eps)
        allowed = tolerance * (self.rollout.totals_under(self.weights, given.abs()) + known.abs())
        before = allowed
        for iteration in range(_ITERATIONS if readable else _RECORDED):
            last, change = target, self._trusted(target - of_given, step)
            moved = [part + (change @ by).view(part.shape) for part, by in zip(parts, self.responses, strict=True)]
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
        """What the rates depend on, of a field ``(*batch, c, *space)``: values at walls, all if there is a source."""
        parts = [wall.values(field) for wall in self.exchange.during]
        return parts if self.rollout.source is None else [*parts, field]

    def _rate(self, parts: list[Tensor], time: int) -> Tensor:
        """What fluxes and sources that depend on the field give to the totals at a time."""
        rates = [wall.rate(part, time) for wall, part in zip(self.exchange.during, parts, strict=False)]
        if self.rollout.source is not None:
            source, field = self.rollout.source(parts[-1], self.times[time]), parts[-1]
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
        if are_readable(predicted) and not are_finite(totals if self.rollout.conserved is None else predicted):
            time = float(self.times[state.step])
            refuse_missing(predicted, f"What the operator predicts at step {state.step}, from t = {time:g}, holds")
