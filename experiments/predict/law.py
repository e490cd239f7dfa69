"""The law of the user's field: its total at every time of the prediction, over the domain."""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from experiments.errors import InvalidArgumentError
from experiments.predict.observations import Observations
from experiments.predict.options import PredictOptions
from solvers import PROBLEMS, Problem


@dataclass(frozen=True, kw_only=True)
class ConservedTotals:
    """The totals ∫ u dx over [low, high] that the law requires.

    Args:
        times: Times of the prediction ``(t,)``.
        totals: Total at each ``(t,)``, in the units of u times those of x.
        low: Left end of the domain.
        high: Right end.
        notes: Assumptions and extrapolations that the user should see.
    """

    times: np.ndarray
    totals: np.ndarray
    low: float
    high: float
    notes: tuple[str, ...]


def conserved_totals(observations: Observations, options: PredictOptions) -> ConservedTotals:
    """The totals that the law requires, with notes on what goes beyond the observations.

    Args:
        observations: Observed field, with the flux columns.
        options: The law, the domain and the times.

    Returns:
        One total per time, over the domain.

    Raises:
        DataFileError: If a flux column has two values at one time.
        InvalidArgumentError: If the options do not fit each other or the observations.
    """
    observed = observations.columns["t"]
    times = np.array(options.times or (0.5 * float(observed.min() + observed.max()),))
    low, high = _domain(observations.columns["x"], options)
    notes = [*_limits_of_the_data(observations, times, low, high)]
    if options.law == "fluxes":
        totals, extensions = _totals_from_fluxes(observations, options, times)
        notes += extensions
    else:
        totals = _closed_form_totals(PROBLEMS[options.law], options.parameter, times)
    if options.non_negative and totals.min() < 0:
        worst = totals.argmin()
        raise InvalidArgumentError(
            f"The law gives the total {totals[worst]:g} at t = {times[worst]:g}, which no field with u ≥ 0 has; "
            "drop --non-negative, or check --initial-total and the signs of the fluxes."
        )
    return ConservedTotals(times=times, totals=totals, low=low, high=high, notes=tuple(notes))


def _limits_of_the_data(observations: Observations, times: np.ndarray, low: float, high: float) -> Iterator[str]:
    """Notes on unused columns, extrapolation and a long fit."""
    t, x = observations.columns["t"], observations.columns["x"]
    if observations.unused:
        unused = textwrap.shorten(", ".join(observations.unused), 200, placeholder=" …")
        yield (
            f"Columns not used: {unused}. Used: {', '.join(observations.columns)}; name flux columns with --flux-left "
            "and --flux-right."
        )
    outside = times[(times < t.min()) | (times > t.max())]
    if outside.size:
        yield (
            f"t = {', '.join(f'{time:g}' for time in outside)} is outside the observed times, {t.min():g} to "
            f"{t.max():g}: the prediction is an extrapolation."
        )
    if low < x.min() or high > x.max():
        yield (
            f"The domain [{low:g}, {high:g}] is larger than the observed range of x, [{x.min():g}, {x.max():g}]: the "
            "prediction is an extrapolation outside that range."
        )
    if len(t) > 1000:
        yield f"A Gaussian process on {len(t)} rows takes minutes: its cost grows as the cube of their number."


def _totals_from_fluxes(
    observations: Observations, options: PredictOptions, times: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """initial_total + ∫ (flux_left − flux_right) dt at every time, and a note for each extended column."""
    assert options.initial_total is not None  # the options check it
    if times.min() < options.start:
        raise InvalidArgumentError(
            f"--times {times.min():g} is before --start {options.start:g}; give later times, or an earlier --start "
            "with its --initial-total."
        )
    integrals, notes = [], {}
    for flux in (options.flux_left, options.flux_right):
        if isinstance(flux, str):
            series = observations.series(flux)
            notes[flux] = _extension(flux, *series, start=options.start, last=times.max())
        else:
            series = np.array([options.start]), np.array([flux])
        integrals.append(np.array([_integral(*series, options.start, time) for time in times.tolist()]))
    entering, leaving = integrals
    return options.initial_total + entering - leaving, [note for note in notes.values() if note]


def _extension(name: str, times: np.ndarray, values: np.ndarray, *, start: float, last: float) -> str:
    """A note if the first value of a column is used before its first time, by at most the time that it covers."""
    if times[-1] < last:
        raise InvalidArgumentError(
            f"Column '{name}' ends at t = {times[-1]:g}, but the total at t = {last:g} needs the flux up to there; "
            "predict earlier times with --times, or give the flux as a number."
        )
    gap = min(times[0], last) - start
    if gap <= 0:
        return ""
    if times[0] - start > times[-1] - times[0]:
        raise InvalidArgumentError(
            f"Column '{name}' begins at t = {times[0]:g}, too long after --start {start:g} to extend it; give a later "
            "--start with its --initial-total, or the flux as a number."
        )
    return (
        f"Column '{name}' begins at t = {times[0]:g}. Its first value, {values[0]:g}, is used from --start {start:g} "
        f"on, which makes up {gap * values[0]:.3g} of its integral."
    )


def _integral(times: np.ndarray, values: np.ndarray, start: float, time: float) -> float:
    """∫ flux dt from start to time by the trapezoid rule; before its first time the flux has its first value."""
    inside = times[(times > start) & (times < time)]
    nodes = np.concatenate(([start], inside, [time]))
    return float(np.trapezoid(np.interp(nodes, times, values), nodes))


def _closed_form_totals(problem: Problem, parameter: float | None, times: np.ndarray) -> np.ndarray:
    low, high = 0.5 * problem.training_range[0], 2.0 * problem.training_range[1]
    if parameter is None or not low <= parameter <= high:
        raise InvalidArgumentError(
            f"--law {problem.name} needs --parameter ({problem.symbol}) from {low:g} to {high:g}, got {parameter}."
        )
    if times.min() < 0 or times.max() > problem.final_time:
        raise InvalidArgumentError(
            f"--law {problem.name} needs --times from 0 to {problem.final_time:g}, got {', '.join(map(str, times))}."
        )
    return np.array([float(problem.total(time, parameter)) for time in times.tolist()])


def _domain(x: np.ndarray, options: PredictOptions) -> tuple[float, float]:
    """Ends of the domain, which must contain all observed x."""
    observed = float(x.min()), float(x.max())
    default = observed if options.law == "fluxes" else PROBLEMS[options.law].domain
    low = default[0] if options.low is None else options.low
    high = default[1] if options.high is None else options.high
    if options.law != "fluxes" and (low, high) != default:
        raise InvalidArgumentError(
            f"--law {options.law} has the domain [{default[0]:g}, {default[1]:g}]; drop --low and --high, or give "
            "--law fluxes."
        )
    if not low < high or low > observed[0] or high < observed[1]:
        raise InvalidArgumentError(
            f"The domain [{low:g}, {high:g}] must contain all x, which span [{observed[0]:g}, {observed[1]:g}]; "
            "give its ends with --low and --high."
        )
    return low, high
