"""The law of the user's field: options, and the total at every time of the prediction over the domain."""

import textwrap
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from experiments.errors import InvalidArgumentError
from experiments.predict.observations import REQUIRED, Observations
from probconserv.surrogates.gp import GPConfig
from solvers.problems import PROBLEMS, Problem

LawName = Literal["fluxes", "diffusion", "porous_medium", "stefan", "advection", "burgers_shock"]


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """The conservation law of the observed field, and where to predict it.

    Args:
        law: fluxes, for the total from the fluxes through both ends, or a problem with a closed-form total.
        parameter: Parameter of the problem (k, m, u* or a); not with fluxes.
        initial_total: ∫ u dx over the domain at --start; required with fluxes.
        flux_left: Flux through the left end, positive if it enters the domain: a number, or the name of a column of
            your file with one value per time.
        flux_right: Flux through the right end, positive if it leaves the domain: a number, or the name of a column.
        start: Time at which the total is --initial-total.
        times: Times of the prediction, one or several; by default the observed one nearest the middle of all.
        low: Left end of the domain; the smallest x, or that of the problem, by default.
        high: Right end of the domain; the largest x, or that of the problem, by default.
        points: Number of equally spaced points of the prediction, both ends included.
        non_negative: Also constrain the prediction to u ≥ 0.
        smoothness: ν of the Matérn kernel: 0.5 for fields with shocks, 2.5 for smooth ones, 1.5 between.
        columns: What your file calls t, x and u, where it is something else: t=time,x=position,u=temperature.
        skip_missing: Leave out rows with an empty cell, NaN or infinity in one of the columns that are read.
        out: Folder of the results.

    Raises:
        InvalidArgumentError: If a number is not finite, or options contradict each other.
    """

    law: LawName = "fluxes"
    parameter: float | None = None
    initial_total: float | None = None
    flux_left: float | str = 0.0
    flux_right: float | str = 0.0
    start: float = 0.0
    times: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    points: int = 201
    non_negative: bool = False
    smoothness: float = 0.5
    columns: tuple[str, ...] = ()
    skip_missing: bool = False
    out: Path = Path("results/predict")

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not isfinite(number):
                    raise InvalidArgumentError(f"--{name.replace('_', '-')} must be finite, got {number}.")
        for pair in ",".join(self.columns).split(",") if self.columns else ():
            name, _, column = pair.partition("=")
            if name not in REQUIRED or not column:
                raise InvalidArgumentError(f"--columns takes t=NAME, x=NAME and u=NAME, got '{pair}'.")
        if self.points < 2:
            raise InvalidArgumentError(f"--points must be at least 2, got {self.points}.")
        if self.law == "fluxes" and self.parameter is not None:
            raise InvalidArgumentError("--parameter belongs to a problem; name it with --law, or drop --parameter.")
        if self.law == "fluxes" and self.initial_total is None:
            raise InvalidArgumentError(
                "--law fluxes needs --initial-total, the integral of u over the domain at --start; give it, or name a "
                "problem with --law."
            )
        of_fluxes = self.flux_left, self.flux_right, self.start
        if self.law != "fluxes" and (self.initial_total is not None or any(of_fluxes)):
            raise InvalidArgumentError(
                f"--law {self.law} has a closed-form total; drop --initial-total, --flux-left, --flux-right and "
                "--start, or give --law fluxes."
            )

    @property
    def names(self) -> dict[str, str]:
        """Names of t, x and u in the file, where they differ."""
        return dict(pair.split("=", 1) for pair in ",".join(self.columns).split(",") if pair)

    @property
    def flux_columns(self) -> tuple[str, ...]:
        """Columns of the file that hold fluxes."""
        return tuple(dict.fromkeys(flux for flux in (self.flux_left, self.flux_right) if isinstance(flux, str)))


class ConservedTotals(NamedTuple):
    """Totals ∫ u dx over [low, high] that the law requires, in the units of u times those of x, one per time ``(t,)``.

    The notes say assumptions and extrapolations that the user should see.
    """

    times: np.ndarray
    totals: np.ndarray
    low: float
    high: float
    notes: tuple[str, ...]


def conserved_totals(observations: Observations, options: PredictOptions) -> ConservedTotals:
    """The totals that the law requires, with notes on what goes beyond the observations.

    Raises:
        DataFileError: If a flux column has two values at one time.
        InvalidArgumentError: If the options do not fit each other or the observations.
    """
    observed = observations.columns["t"]
    middle = np.abs(observed - 0.5 * (observed.min() + observed.max())).argmin()
    times = np.array(options.times or (float(observed[middle]),))
    low, high = _domain(observations.columns["x"], options)
    notes = _limits_of_the_data(observations, times, (low, high), options)
    if options.law == "fluxes":
        assert options.initial_total is not None  # the options check it
        if times.min() < options.start:
            raise InvalidArgumentError(
                f"--times {times.min():g} is before --start {options.start:g}; give later times, or an earlier --start "
                "with its --initial-total."
            )
        fluxes = options.flux_left, options.flux_right
        entering, leaving = (_flux_integral(flux, observations, options.start, times, notes) for flux in fluxes)
        totals = options.initial_total + entering - leaving
    else:
        totals = _closed_form_totals(PROBLEMS[options.law], options.parameter, times)
    if options.non_negative and totals.min() < 0:
        raise InvalidArgumentError(
            f"The law gives the total {totals.min():g} at t = {times[totals.argmin()]:g}, which no field with u ≥ 0 "
            "has; drop --non-negative, or check --initial-total and the signs of the fluxes."
        )
    return ConservedTotals(times, totals, low, high, tuple(dict.fromkeys(notes)))


def _limits_of_the_data(
    observations: Observations, times: np.ndarray, domain: tuple[float, float], options: PredictOptions
) -> list[str]:
    """Notes on unused columns, a domain that nobody gave, extrapolation and an approximate fit."""
    t, x = observations.columns["t"], observations.columns["x"]
    (low, high), ends = domain, {"--low": options.low, "--high": options.high}
    missing = " and ".join(name for name, end in ends.items() if end is None)
    unused = textwrap.shorten(", ".join(observations.unused), 200, placeholder=" …")
    used, gp = ", ".join(observations.names.get(name, name) for name in observations.columns), GPConfig()
    outside = ", ".join(f"{time:g}" for time in times if not t.min() <= time <= t.max())
    early = int((t < options.start).sum())  # a problem starts at 0, the default
    skipped = observations.left_out
    notes = {
        f"Rows left out, since they lack a number: {skipped} of {skipped + len(t)}.": skipped > 0,
        f"Rows before the start, t = {options.start:g}: {early}, the first at t = {t.min():g}. The Gaussian process "
        "sees them, but the law says nothing of that time; check --start and the column of times.": early > 0,
        f"Columns not used: {unused}. Used: {used}; name flux columns with --flux-left and --flux-right.": unused,
        f"The total is taken over [{low:g}, {high:g}], as far as x was observed; if the domain is larger, give "
        f"{missing}.": missing and options.law == "fluxes",
        f"t = {outside} is outside the observed times, {t.min():g} to {t.max():g}: the prediction is an "
        "extrapolation.": outside,
        f"The domain [{low:g}, {high:g}] is larger than the observed range of x, [{x.min():g}, {x.max():g}]: the "
        "prediction is an extrapolation outside that range.": low < x.min() or high > x.max(),
        f"The Gaussian process sees the {len(t)} rows through {gp.inducing_points} points among them, an approximation "
        f"that rows above {gp.exact_up_to} need; thin the file to avoid it.": len(t) > gp.exact_up_to,
    }
    return [note for note, applies in notes.items() if applies]


def _flux_integral(
    flux: float | str, observations: Observations, start: float, times: np.ndarray, notes: list[str]
) -> np.ndarray:
    """∫ flux dt from start to every time by the trapezoid rule.

    The first value of a column also counts before its first time, for at most as long as the column lasts; a note says
    so.
    """
    if not isinstance(flux, str):
        return flux * (times - start)
    given, values = observations.series(flux)
    begin, end, last = given[0], given[-1], times.max()
    if end < last:
        raise InvalidArgumentError(
            f"Column '{flux}' ends at t = {end:g}, but the total at t = {last:g} needs the flux up to there; predict "
            "earlier times with --times, or give the flux as a number."
        )
    gap = min(begin, last) - start
    if gap > 0 and begin - start > end - begin:
        raise InvalidArgumentError(
            f"Column '{flux}' begins at t = {begin:g}, too long after --start {start:g} to extend it; give a later "
            "--start with its --initial-total, or the flux as a number."
        )
    if gap > 0:
        notes.append(
            f"Column '{flux}' begins at t = {begin:g}. Its first value, {values[0]:g}, is used from --start {start:g} "
            f"on, which makes up {gap * values[0]:.3g} of its integral."
        )
    spans = [np.array([start, *given[(given > start) & (given < time)], time]) for time in times]
    return np.array([np.trapezoid(np.interp(span, given, values), span) for span in spans])


def _closed_form_totals(problem: Problem, parameter: float | None, times: np.ndarray) -> np.ndarray:
    """Totals of a problem, within the range of parameters around that of the trainings."""
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
    first, last = float(x.min()), float(x.max())
    default = (first, last) if options.law == "fluxes" else PROBLEMS[options.law].domain
    low = default[0] if options.low is None else options.low
    high = default[1] if options.high is None else options.high
    if options.law != "fluxes" and (low, high) != default:
        raise InvalidArgumentError(
            f"--law {options.law} has the domain [{default[0]:g}, {default[1]:g}]; drop --low and --high, or give "
            "--law fluxes."
        )
    if not low < high or low > first or high < last:
        raise InvalidArgumentError(
            f"The domain [{low:g}, {high:g}] must contain all x, which span [{first:g}, {last:g}]; give its ends with "
            "--low and --high."
        )
    return low, high
