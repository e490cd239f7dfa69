"""Constrained prediction for a user's own data: a Gaussian process on (t, x, u) that keeps the conservation law."""

import csv
import io
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal

from experiments import figures
from experiments.errors import InvalidArgumentError
from experiments.observations import Observations, read_observations
from experiments.storage import writable_folder, write_bytes
from probconserv import GPSurrogate, condition, integral
from probconserv.gp import GPConfig
from probconserv.prediction import Prediction
from probconserv.surrogate import Context, Query
from solvers import NodeGrid
from solvers.problems import PROBLEMS, Problem

MOST_ROWS = 4000  # the covariance of so many points fills 128 MB, and its factorisation takes seconds
LawName = Literal["fluxes", "diffusion", "porous_medium", "stefan", "advection", "burgers_shock"]


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What is known about the data besides the observations.

    The conserved total at a time is U(t) = initial_total + ∫ (flux_left − flux_right) dt from ``start`` on, fluxes
    positive along +x; or, for one of the library's problems, the closed form that belongs to ``parameter``.

    Args:
        law: "fluxes" for the total from boundary fluxes, or a problem whose closed-form total is used.
        parameter: The problem's parameter (k, m, u*, a); only with a problem's name.
        initial_total: ∫ u dx over the domain at ``start``; only with "fluxes".
        flux_left: Flux through the left end: a number, or a column of the file that depends on t only.
        flux_right: Flux through the right end, likewise.
        start: Time at which the total is ``initial_total``.
        time: Time of the prediction; by default the middle of the observed times.
        low: Left end of the domain over which the total is meant; by default that of the problem, or the smallest x.
        high: Right end of the domain; by default that of the problem, or the largest x.
        places: Number of equally spaced places of the prediction, ends included.
        smoothness: ν of the Matérn kernel: 0.5 for fields with shocks, 1.5, or 2.5 for smooth ones.
        out: Folder of the results.

    Raises:
        InvalidArgumentError: If options are not finite or do not go together.
    """

    law: LawName = "fluxes"
    parameter: float | None = None
    initial_total: float | None = None
    flux_left: str = "0"
    flux_right: str = "0"
    start: float = 0.0
    time: float | None = None
    low: float | None = None
    high: float | None = None
    places: int = 201
    smoothness: float = 0.5
    out: Path = Path("results/predict")

    def __post_init__(self) -> None:
        for name in ("parameter", "initial_total", "start", "time", "low", "high"):
            value = getattr(self, name)
            if value is not None and not isfinite(value):
                raise InvalidArgumentError(f"--{name.replace('_', '-')} must be finite, got {value}.")
        if self.places < 2:
            raise InvalidArgumentError(f"--places must be at least 2, got {self.places}.")
        if self.law == "fluxes":
            if self.parameter is not None:
                raise InvalidArgumentError("--parameter belongs to a problem; name it with --law, or drop --parameter.")
            if self.initial_total is None:
                raise InvalidArgumentError(
                    "--law fluxes needs --initial-total, the integral of u over the domain at --start; or name another."
                )
        elif self.initial_total is not None or (self.flux_left, self.flux_right, self.start) != ("0", "0", 0.0):
            raise InvalidArgumentError(
                f"--law {self.law} has its own total; drop --initial-total, --flux-left, --flux-right and --start."
            )


@dataclass(frozen=True, kw_only=True)
class ConstrainedPrediction:
    """A prediction before and after the update, at the places ``(n,)`` of one time.

    Args:
        time: Time of the prediction.
        total: Conserved total that the law gives.
        places: x ``(n,)``.
        before: The Gaussian process.
        after: The same, conditioned on the law.
        files: Table, PNG and PDF.
    """

    time: float
    total: float
    places: np.ndarray
    before: figures.Profile
    after: figures.Profile
    files: list[Path]


def predict(path: Path, options: PredictOptions) -> ConstrainedPrediction:
    """Predicts a field from a file of observations, with and without its conservation law.

    Args:
        path: CSV or HDF5 with columns t, x, u, and flux columns if the options name them.
        options: The law and the rest.

    Returns:
        Both predictions, and the files with table and picture.

    Raises:
        DataFileError: If the file is missing, damaged or incomplete.
        InvalidArgumentError: If the options do not fit together.
        OutputFolderError: If the results cannot be written.
    """
    observations = read_observations(path)
    times, x = observations.columns["t"], observations.columns["x"]
    time = 0.5 * float(times.min() + times.max()) if options.time is None else options.time
    low, high = _domain(x, options)
    total = conserved_total(observations, options, time)
    folder = writable_folder(options.out / path.name)
    grid = NodeGrid(low, high, options.places)
    before = _gaussian_process(observations, time, grid, options.smoothness)
    after = condition(before, integral(grid, torch.tensor(total, dtype=torch.float64)))
    profiles = {"GP": _profile(before), "ProbConserv-GP": _profile(after)}
    title = f"{path.name} at t = {time:g}, total {total:g}"
    figure = figures.profiles(grid.points.numpy(), None, profiles, title, _nearest(observations, time))
    table = folder / "prediction.csv"
    write_bytes(table, _as_csv(grid.points.numpy(), profiles).encode())
    return ConstrainedPrediction(
        time=time,
        total=total,
        places=grid.points.numpy(),
        before=profiles["GP"],
        after=profiles["ProbConserv-GP"],
        files=[table, *figures.save(figure, folder / "prediction")],
    )


def conserved_total(observations: Observations, options: PredictOptions, time: float) -> float:
    """The total ∫ u dx at a time, from the options' closed form or boundary fluxes.

    Args:
        observations: Holds the flux columns.
        options: The law.
        time: Time t.

    Returns:
        U(t), in the units of u times those of x.

    Raises:
        InvalidArgumentError: If the law lacks its numbers, or fluxes are not known up to the time.
    """
    if options.initial_total is None:
        return _closed_form_total(PROBLEMS[options.law], options.parameter, time)
    if time < options.start:
        raise InvalidArgumentError(f"--time {time:g} lies before --start {options.start:g}.")
    inflow = _flux_integral(observations, options.flux_left, options.start, time)
    return options.initial_total + inflow - _flux_integral(observations, options.flux_right, options.start, time)


def _closed_form_total(problem: Problem, parameter: float | None, time: float) -> float:
    if parameter is None:
        raise InvalidArgumentError(f"--law {problem.name} needs --parameter ({problem.symbol}).")
    if not 0 <= time <= problem.final_time:
        raise InvalidArgumentError(
            f"--law {problem.name} is known for times from 0 to {problem.final_time:g}, got --time {time:g}."
        )
    low, high = problem.training_range
    if not 0.5 * low <= parameter <= 2.0 * high:
        raise InvalidArgumentError(
            f"--parameter {parameter:g} is far from the range of {problem.symbol} in problem {problem.name}, "
            f"[{low:g}, {high:g}]."
        )
    return float(problem.total(time, parameter))


def _domain(x: np.ndarray, options: PredictOptions) -> tuple[float, float]:
    """Ends of the domain; all observed places must lie in it."""
    known = None if options.law == "fluxes" else PROBLEMS[options.law].domain
    default = known or (float(x.min()), float(x.max()))
    low = default[0] if options.low is None else options.low
    high = default[1] if options.high is None else options.high
    if known is not None and (low, high) != known:
        raise InvalidArgumentError(
            f"--law {options.law} lives on [{known[0]:g}, {known[1]:g}]; drop --low and --high, or give --law fluxes."
        )
    if not low < high or low > x.min() or high < x.max():
        raise InvalidArgumentError(
            f"The domain [{low:g}, {high:g}] must hold all x, which span [{x.min():g}, {x.max():g}]; "
            "give its ends with --low and --high."
        )
    return low, high


def _flux_integral(observations: Observations, flux: str, start: float, time: float) -> float:
    """∫ flux dt from start to time: of a number, or by the trapezoid rule of a column."""
    try:
        return float(flux) * (time - start)
    except ValueError:
        times, values = observations.series(flux)
    if times[0] > start or times[-1] < time:
        raise InvalidArgumentError(
            f"Column '{flux}' covers t from {times[0]:g} to {times[-1]:g}, but the total needs it from "
            f"--start {start:g} to --time {time:g}."
        )
    inside = times[(times > start) & (times < time)]
    nodes = np.concatenate(([start], inside, [time]))
    return float(np.trapezoid(np.interp(nodes, times, values), nodes))


def _gaussian_process(observations: Observations, time: float, grid: NodeGrid, smoothness: float) -> MultivariateNormal:
    if len(observations.points) > MOST_ROWS:
        raise InvalidArgumentError(
            f"'{observations.source}' has {len(observations.points)} rows; an exact Gaussian process takes at most "
            f"{MOST_ROWS}. Thin the file, for instance to times near the prediction's."
        )
    places = grid.points
    query = Query(torch.stack((torch.full_like(places, time), places), dim=-1))
    context = Context(torch.from_numpy(observations.points), torch.from_numpy(observations.columns["u"]))
    return GPSurrogate(GPConfig(smoothness=smoothness)).predict(context, query)


def _profile(prediction: Prediction) -> figures.Profile:
    return figures.Profile(prediction.mean.numpy(), prediction.variance.sqrt().numpy())


def _nearest(observations: Observations, time: float) -> tuple[np.ndarray, np.ndarray]:
    """Places and values of the observations at the observed time that is nearest."""
    times = observations.columns["t"]
    near = times == times[np.abs(times - time).argmin()]
    return observations.columns["x"][near], observations.columns["u"][near]


def _as_csv(places: np.ndarray, profiles: dict[str, figures.Profile]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["x", *(f"{method} {column}" for method in profiles for column in ("mean", "low95", "high95"))])
    columns = [places]
    for profile in profiles.values():
        band = figures.BAND * profile.deviation
        columns += [profile.mean, profile.mean - band, profile.mean + band]
    writer.writerows(zip(*(column.tolist() for column in columns), strict=True))
    return text.getvalue()
