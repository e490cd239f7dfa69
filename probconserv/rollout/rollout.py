"""The autoregressive prediction of an open system under its balance.

An operator predicts the field one step on; the total of what it predicts is made that which the balance demands,

    M(t + Δt) = M(t) + ∫ (F_first − F_last) dt + ∫∫ s dx dt,

so that errors of the total do not add up. What is missing is spread over the field as ``condition`` does it,
u − Σ Gᵀ (G Σ Gᵀ + σ² I)⁻¹ (G u − M).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.values import Array, are_finite, as_tensor
from probconserv.errors import InvalidArgumentError
from probconserv.inequalities.bounds import Bounds
from probconserv.inequalities.inequality import Inequality
from probconserv.rollout.diagnosis import Diagnosis, RolloutBand, diagnose, fit_band
from probconserv.rollout.learned_response import LearnedResponse, ResponseOfField
from probconserv.rollout.run import RolloutState, Run, Trajectory, totals_of
from probconserv.rollout.sides import PerAxis, accepts_walls, sides_of_rollout
from probconserv.rollout.step_update import StepUpdate, rows_of
from probconserv.rollout.wall_response import wall_response
from probconserv.rollout.walls import AllFluxes, Walls, check_flux, exchange_of, warn_of_unlike_ends, warn_of_values
from solvers._former import warn_of_former
from solvers.grids import Grid
from solvers.recording import are_readable, check_recording


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
        flux: How the fluxes follow from ``values`` that are given at the sides. None: ``fluxes`` are given. A function
            from the field at a wall ``(*batch, c, *face)`` and the values there ``(*batch, m, *face)`` to the flux
            along +axis ``(*batch, k, *face)``, such as −κ(u) g for given gradients g: the trapezoid rule over the step,
            solved for the new field. Or a ``FluxModel``. Or pairs (first, last), one per axis, of these. Slopes are not
            read off the field: those of a prediction are wrong.
        source: From a field ``(*batch, c, *space)``, float64, and a time to the source ``(*batch, k, *space)`` per
            volume and time; by the trapezoid rule, solved for the new field.
        update: How what is missing is spread; uniformly by default, but for walls that the operator meets.
        response: Where in the field it belongs, by what ``fit_response`` has learnt from errors of single steps, in
            place of the update's way; the update's variances still say how far the law is to be trusted.
        bounds: Inequalities that fields meet after every step as ``condition`` does it, such as ``NonNegative()``, on
            all values of a field ``(c·points)``: the nearest field with the same totals, in the metric of the variances
            of ``update``. Around an operator that meets walls, fields move along its response where they are off
            their bounds: given values stay, slopes and Robin conditions do where no value next to them is at a bound.
            A start outside of them is used as given.
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
        response: LearnedResponse | None = None,
        bounds: Inequality | None = None,
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
        self.update, self.response = StepUpdate() if update is None else update, response
        if bounds is not None and (not isinstance(bounds, Inequality) or bounds.joined().law is not None):
            raise InvalidArgumentError(
                "bounds must be inequalities, such as NonNegative(), without a law, since the balance is the law; got "
                f"{type(bounds).__name__}."
            )
        self.conserved, self.tolerance, self.bounds = conserved, tolerance, bounds
        self.wall_response = wall_response(operator, grid)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({"bounds": None, "response": None, **state})
        if "wall_response" not in state:  # of release 0.3
            self.wall_response = wall_response(self.operator, self.grid)

    def extra_repr(self) -> str:
        """The grid, and what is given beside the operator."""
        options = ("flux", "source", "response", "bounds", "conserved")
        given = [name for name in options if getattr(self, name) is not None]
        return ", ".join([str(self.grid), *(f"{name}=…" for name in given)])

    @accepts_walls
    def forward(
        self,
        start: Float[Array, "..."] | RolloutState,
        times: Float[Array, " t"],
        *inputs: Tensor,
        values: PerAxis | None = None,
        fluxes: PerAxis | None = None,
        breakpoints: Sequence[float] = (),
    ) -> Trajectory:
        """The fields at all times.

        Args:
            start: The field at the first time ``(*batch, c, *space)``; or a state that a call with the same times and
                data returned, from which this one goes on.
            times: Increasing times, one step from each to the next.
            inputs: Further arguments of the operator ``(*batch, t − 1, …)``, one entry per step.
            values: What a function ``flux`` takes at the sides: a pair (first, last) per axis, ``Periodic()`` for a
                periodic one. A side is a number, a function from times ``(q,)`` to ``(*batch, q, m, *face)`` or values
                at the times ``(*batch, t, m, *face)``; None where ``flux`` has no function.
            fluxes: What passes the other sides, along +axis, per area and time; a pair per axis as above. A side is a
                number, 0.0 where it is closed, a function from times ``(q,)`` to ``(*batch, q, k, *face)``, fluxes at
                the times ``(*batch, t, k, *face)``, for which the error of the trapezoid rule counts as variance, or
                integrals over the steps ``(*batch, t − 1, k, *face)``.
            breakpoints: Times of jumps and narrow features of sides that are functions of time, which are integrated
                as by ``total_over_time``.

        Raises:
            ConvergenceError: If the iteration for fluxes and sources that depend on the field does not converge.
            DependentConstraintsError: If no value may move that a total counts.
            InfeasibleConstraintError: If no field has the totals of a step within the bounds.

        Warns:
            UserWarning: If the nodes at the two ends of a periodic axis, which are one place, start with other values,
                or fluxes begin with the values of the field at their side.
        """
        first = self.state_of(start)
        return self._along(self.run(first, times, self._sides(values, fluxes), breakpoints), first, inputs)

    if TYPE_CHECKING:
        __call__: Callable[..., Trajectory]

    def between(
        self, start: Float[Array, "..."], times: Float[Array, " t"], walls: Walls, inputs: tuple[Tensor, ...]
    ) -> Trajectory:
        """The fields at all times, between walls with the data of ``sides_of_rollout``."""
        first = self.state_of(start)
        return self._along(self.run(first, times, walls), first, inputs)

    def _sides(self, values: PerAxis | None, fluxes: PerAxis | None) -> Walls:
        flux, count = self.flux, self.grid.dimension
        return sides_of_rollout(values, fluxes, [(flux, flux)] * count if flux is None or callable(flux) else flux)

    def _along(self, run: Run, first: RolloutState, inputs: tuple[Tensor, ...]) -> Trajectory:
        states, axis = [first, *self.follow(run, first, inputs)], first.total.ndim - 1
        fields, totals, changed = (torch.stack(parts, dim=axis) for parts in list(zip(*states, strict=True))[:3])
        each_moved = [state.moved for state in states if state.moved is not None]
        moved = torch.stack(each_moved, dim=axis) if run.moves_vary else run.moved(changed)
        return Trajectory(fields, totals, moved.to(fields.dtype), states[-1])

    @accepts_walls
    def iterate(
        self,
        start: Float[Array, "..."] | RolloutState,
        times: Float[Array, " t"],
        *inputs: Tensor,
        values: PerAxis | None = None,
        fluxes: PerAxis | None = None,
        breakpoints: Sequence[float] = (),
    ) -> Iterator[RolloutState]:
        """The state after every step, one by one, for long runs; arguments are those of ``forward``."""
        state = self.state_of(start)
        return self.follow(self.run(state, times, self._sides(values, fluxes), breakpoints), state, inputs)

    def steps(self, *arguments: Any, **options: Any) -> Iterator[RolloutState]:
        """The name of ``iterate`` in release 0.4."""
        warn_of_former("Rollout.steps is Rollout.iterate since release 0.5; the old name goes with 0.6.")
        return self.iterate(*arguments, **options)

    def follow(self, run: Run, state: RolloutState, inputs: tuple[Tensor, ...]) -> Iterator[RolloutState]:
        """The states after a state of a run."""
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

    def state_of(self, start: Float[Array, "..."] | RolloutState) -> RolloutState:
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
        varies = self.bounds is not None or self.response is not None
        still = total.new_zeros(start.shape[: 1 - axes]) if varies else None
        return RolloutState(start, total, torch.zeros_like(total), 0, moved=still)

    @accepts_walls
    def diagnose(
        self,
        fields: Float[Tensor, "..."],
        times: Float[Array, " t"],
        *inputs: Tensor,
        values: PerAxis | None = None,
        fluxes: PerAxis | None = None,
        breakpoints: Sequence[float] = (),
    ) -> Diagnosis:
        """Whether the law helps over the steps of true trajectories, and by how much: rollouts without and with it.

        Args:
            fields: True fields of validation functions ``(*batch, t, c, *space)``.
            times: As for ``forward``.
            inputs: As for ``forward``.
            values: As for ``forward``, of these functions.
            fluxes: As for ``forward``, of these functions.
            breakpoints: As for ``forward``.

        Returns:
            Errors of both over all steps, the horizon that counts; its text says what they mean.
        """
        with torch.no_grad():
            states = self._states(fields, times)
            run = self.run(states[0], times, self._sides(values, fluxes), breakpoints, exact=True)
            return diagnose(run, states, self.follow(run, states[0], inputs), self.operator, inputs)

    @accepts_walls
    def fit_band(
        self,
        fields: Float[Tensor, "..."],
        times: Float[Array, " t"],
        *inputs: Tensor,
        values: PerAxis | None = None,
        fluxes: PerAxis | None = None,
        level: float = 0.9,
        breakpoints: Sequence[float] = (),
    ) -> RolloutBand:
        """Pointwise bands around rollouts by validation functions (split conformal prediction), arguments as above.

        The half width at a time and point is the ⌈(n + 1)·level⌉-th smallest error there of n rollouts, so that the
        value of a new function, exchangeable with them, lies in the band there with probability ``level`` at least; a
        whole field does so less often. For bands of fields see ``fit_band`` of a prediction, ``kind="field"``.
        """
        with torch.no_grad():
            states = self._states(fields, times)
            result = self(states[0], times, *inputs, values=values, fluxes=fluxes, breakpoints=breakpoints)
            return fit_band(states, result, level, self.bounds)

    def _states(self, fields: Float[Tensor, "..."], times: Float[Array, " t"]) -> list[RolloutState]:
        """True states of validation functions at all times."""
        lead = fields.ndim - self.grid.dimension - 2
        if lead < 1 or fields.shape[lead] != len(times):
            raise InvalidArgumentError(
                f"fields must be validation trajectories (*batch, {len(times)}, c, *space), at all times and with at "
                f"least one batch axis, got {tuple(fields.shape)}."
            )
        return [self.state_of(part) for part in fields.unbind(dim=lead)]

    def totals_of(self, field: Float[Tensor, "..."]) -> Float[Tensor, "*batch k"]:
        """Totals of the conserved channels of a field ``(*batch, c, *space)``, float64."""
        return totals_of(field, self.grid.weights.to(field.device), self.conserved)

    def run(
        self,
        state: RolloutState,
        times: Float[Array, " t"],
        walls: Walls,
        breakpoints: Sequence[float] = (),
        *,
        exact: bool = False,
    ) -> Run:
        """Common arguments of all steps of a call; with an exact balance on request."""
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
        if self.wall_response is not None:
            self.wall_response.check(walls)
        if state.step == 0:
            warn_of_values(state.field, walls, exchange, self.grid, len(times))
            warn_of_unlike_ends(state.field, self.grid, [pair is None for pair in walls])
        for wall in exchange.before if state.step == 0 else ():
            wall.function.check(times, state.field, wall.data, str(wall))  # type: ignore[union-attr]
        weights = self.grid.weights.to(times.device)
        response, covariance, variance = self.update.response(weights, self._channels(count), count, self.wall_response)
        learned = self._learned(weights, count)
        noise = None if exact else self.update.noise(exchange.noise, state.total)
        trust = None
        if noise is not None:  # Σ_M (Σ_M + σ²)⁻¹
            both = covariance + torch.diag_embed(noise)
            certain = both.diagonal(dim1=-2, dim2=-1) == 0  # neither is ever wrong
            both = both + torch.diag_embed(certain.to(both))
            trust = torch.linalg.solve(both, covariance.expand_as(both), left=False).unbind(-3)
        bounds = None
        if self.bounds is not None:
            bounds = Bounds.of(self.bounds.joined(), rows_of(weights, self._channels(count), count), variance)
        return Run(
            source=self.source,
            conserved=self.conserved,
            tolerance=self.tolerance,
            times=times,
            exchange=exchange,
            weights=weights,
            response=response,
            learned=learned,
            trust=trust,
            bounds=bounds,
        )

    def fit_response(self, fields: Float[Tensor, "..."], *inputs: Tensor, largest: int = 2000) -> LearnedResponse:
        """Fits where in the field a missing total belongs, from the operator's errors in single steps from true fields.

        Args:
            fields: True fields of validation functions ``(*batch, t, c, *space)``.
            inputs: As for ``forward``.
            largest: About how many steps are read, evenly spaced.

        Returns:
            A response for ``Rollout(…, response=…)``, in place of the uniform one or that of the walls, whose data are
            met all the same.
        """
        lead = fields.ndim - self.grid.dimension - 2
        if lead < 1 or fields.shape[lead] < 2 or tuple(fields.shape[lead + 2 :]) != self.grid.shape:
            raise InvalidArgumentError(
                f"fields must be trajectories (*batch, t, c, {', '.join(map(str, self.grid.shape))}) with at least one "
                f"batch axis and two times, got {tuple(fields.shape)}."
            )
        count, steps, weights = fields.shape[lead + 1], fields.shape[lead] - 1, self.grid.weights.to(fields.device)
        every = slice(None, None, max(1, fields.shape[:lead].numel() * steps // largest))
        before, after = (fields.narrow(lead, first, steps).flatten(0, lead)[every] for first in (0, 1))
        with torch.no_grad():
            predicted = self.operator(before, *(part.flatten(0, lead)[every] for part in inputs))
        channels = list(self._channels(count))
        shape = self._shape(weights, count)[channels]
        return LearnedResponse.fit(predicted[:, channels], after[:, channels], shape, weights)

    def _shape(self, weights: Tensor, count: int) -> Tensor:
        """How every channel moves without a covariance ``(c, *space)``, float64; 0 where it has no total."""
        plain = replace(self.update, covariance=None, noise_variance=0.0)
        response = plain.response(weights, self._channels(count), count, self.wall_response)[0]
        return response.sum(dim=0).view(count, *weights.shape)

    def _learned(self, weights: Tensor, count: int) -> ResponseOfField | None:
        if self.response is None:
            return None
        channels, learned = list(self._channels(count)), self.response
        if len(learned.coefficients) != len(channels):
            raise InvalidArgumentError(
                f"The response was learnt for {len(learned.coefficients)} channels, but {len(channels)} are conserved."
            )
        return learned.within(self._shape(weights, count), channels, weights, self.wall_response)

    def _channels(self, count: int) -> tuple[int, ...]:
        return tuple(range(count)) if self.conserved is None else self.conserved
