"""Options of ``predict``: the conservation law and the grid of the prediction."""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Literal

from experiments.errors import InvalidArgumentError

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
        times: Times of the prediction, one or several; the middle of the observed times by default.
        low: Left end of the domain; the smallest x, or that of the problem, by default.
        high: Right end of the domain; the largest x, or that of the problem, by default.
        points: Number of equally spaced points of the prediction, both ends included.
        non_negative: Also constrain the prediction to u ≥ 0.
        smoothness: ν of the Matérn kernel: 0.5 for fields with shocks, 2.5 for smooth ones, 1.5 between.
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
    out: Path = Path("results/predict")

    def __post_init__(self) -> None:
        for name in ("parameter", "initial_total", "flux_left", "flux_right", "start", "times", "low", "high"):
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float) and not isfinite(number):
                    raise InvalidArgumentError(f"--{name.replace('_', '-')} must be finite, got {number}.")
        if self.points < 2:
            raise InvalidArgumentError(f"--points must be at least 2, got {self.points}.")
        if self.law == "fluxes":
            if self.parameter is not None:
                raise InvalidArgumentError("--parameter belongs to a problem; name it with --law, or drop --parameter.")
            if self.initial_total is None:
                raise InvalidArgumentError(
                    "--law fluxes needs --initial-total, the integral of u over the domain at --start; give it, or "
                    "name a problem with --law."
                )
        elif self.initial_total is not None or any((self.flux_left, self.flux_right, self.start)):
            raise InvalidArgumentError(
                f"--law {self.law} has a closed-form total; drop --initial-total, --flux-left, --flux-right and "
                "--start, or give --law fluxes."
            )

    @property
    def flux_columns(self) -> tuple[str, ...]:
        """Columns of the file that hold fluxes."""
        return tuple(dict.fromkeys(flux for flux in (self.flux_left, self.flux_right) if isinstance(flux, str)))
