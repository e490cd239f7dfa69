"""README's tables: by problem the model without its constraint, the strongest rival of any kind, and ours.

The rival is the one of least error among all that do not use what the row shows, a regression or a law that is
inverted alone included; *gain* is its error over ours, ``within noise`` where they differ by less than both standard
errors.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from experiments.records.record import beyond_errors
from experiments.report.results import Results
from experiments.report.tables import markdown, results_of, score_of


class Line(NamedTuple):
    """A row of a table.

    Attributes:
        without: Key of the model without the constraint.
        ours: Key of the model under it.
        rivals: Keys of the rivals, among which the least error counts.
    """

    label: str
    experiment: str
    case: str
    without: str
    ours: str
    rivals: Sequence[str]


_ALONE = ("hardc-anp", "softc-anp", "ensemble", "gp", "hardc-gp", "search", "empirical", "total-inverted")
_MEDIA = tuple(f"bounded-{each}" for each in ("search", "matern", "smoother", "anp", "ensemble", "gaussian"))
_FREE = (*(f"{base}{way}" for base in ("regression", "fno", "increments") for way in ("", "-walls")), "fno-default")
_OBSERVED = ("uniform", "ratio", "regression", "mint")
_DRAWN = ("training-fields", "gaussian", "smoother", "eci", "pcfm")
_BEYOND = ("conformal", "displaced", "tempered", "total-inverted", "anp")
_NETWORKS = ("fno", "pca", "deeponet", "unet", "neuralop", "neuralop-defaults", "boundary-channels")
_ELIMINATED = ("boon-without-schur", "boon-without-schur-channels")
_OPERATORS = (*_NETWORKS, "output-prescription", "lifting", "soft-penalty", *_ELIMINATED)
LAWS = (
    Line("random media, 10 observations", "gpme", "insulated-10", "local", "bounded-local", _MEDIA),
    Line("random media with inflow", "gpme", "inflow-10", "local", "bounded-local", _MEDIA),
    Line("plumes in two axes", "gpme", "plume-10", "local", "bounded-local", ("search", *_MEDIA)),
    Line("fields drawn from 10 noisy values", "generate_gpme", "values-10", "unconstrained", "ours", _DRAWN),
    Line("fields drawn from 2 noisy values", "generate_gpme", "values-2", "unconstrained", "ours", _DRAWN),
    Line("temperature, scenario E1", "observations", "temperature-e1", "none", "calibrated", _OBSERVED),
    Line("surface energy, W/m²", "observations", "energy", "none", "calibrated", _OBSERVED),
    Line("traffic", "observations", "traffic", "none", "calibrated", _OBSERVED),
    Line("advection out of range, a = 7", "advection-calibration", "a=7", "anp", "by-law", _BEYOND),
    Line("Burgers shock, a = 1", "burgers_shock", "a=1", "anp", "probconserv-anp", _ALONE),
    Line("Burgers shock, a = 3", "burgers_shock", "a=3", "anp", "probconserv-anp", _ALONE),
)
ROLLED = (
    Line("heat with fluxes given, 200 steps", "open_rollouts", "heat", "fno", "emulator", _FREE),
    Line("the same, 2,000 steps", "open_rollouts", "heat-long", "fno", "emulator", _FREE),
    Line("rod in random media, 200 steps", "open_rollouts", "robin", "fno", "emulator", _FREE),
)
OPERATORS = (
    Line("Darcy's flow in two phases", "darcy", "single", "fno", "boon-default", _OPERATORS),
    Line("growth in a random medium", "reaction_diffusion", "single", "fno", "boon-default", _OPERATORS),
    Line("viscous Burgers, 40 modes", "viscous_burgers", "single", "fno", "boon-default", _OPERATORS),
    Line("transport by a random flow", "advection_diffusion", "single", "fno", "boon-default", _OPERATORS),
    Line("rain on an open basin", "basin", "single", "fno", "boon-default", _OPERATORS),
)
PAPERS = (
    *(
        Line(label, problem, case, "anp", "probconserv-anp", _ALONE)
        for label, problem, case in (
            ("Stefan, u\\* = 0.6", "stefan", "u=0.6"),
            ("Stefan, u\\* = 0.5, out of range", "stefan", "u=0.5"),
            ("porous medium, m = 1", "porous_medium", "m=1"),
            ("porous medium, m = 6", "porous_medium", "m=6"),
        )
    ),
    Line("Stokes", "stokes", "multi-notebook", "fno", "boon-without-schur", ("fno", "pca")),
    Line("heat, gradients given", "heat_neumann", "multi-notebook", "fno", "boon-without-schur", ("fno", "pca")),
    Line("Burgers on a circle", "burgers_periodic", "multi", "fno", "boon-without-schur", ("fno", "pca")),
)


def laws() -> str:
    """Continuous ranked probability score, coverage of the 90 % band and residual of the law."""
    return markdown(pd.DataFrame([_of_prediction(line) for line in LAWS]))


def operators() -> str:
    """Relative L2 of rollouts under a balance and of operators with boundary conditions, and what they miss it by."""
    rolled = [(line, "open_error", "total_drift") for line in ROLLED]
    rows = [*rolled, *((line, "relative_l2", "boundary_relative") for line in OPERATORS)]
    return markdown(pd.DataFrame([_compared(line, error) | _missed(line, residual) for line, error, residual in rows]))


def papers() -> str:
    """The papers' problems with the papers' numbers: mean squared error, relative L2."""
    rows = []
    for line in PAPERS:
        score = "MSE" if line.ours == "probconserv-anp" else "relative_l2"
        frame = results_of(line.experiment).numbers
        published = _digits(float(frame[f"{score}_paper"][line.case, line.ours]))
        name = {"MSE": "MSE", "relative_l2": "L2"}[score]
        rows.append(_compared(line._replace(label=f"{line.label}: {name}"), score) | {"published": published})
    return markdown(pd.DataFrame(rows))


def _of_prediction(line: Line) -> dict[str, str]:
    covered = "coverage90_positive" if line.experiment == "gpme" else "coverage90"
    before, after = (_scored(line, key, covered)[0] for key in (line.without, line.ours))
    return _compared(line, "CRPS") | {"90 % band": f"{before:.0%} → {after:.0%}"} | _missed(line, "CE")


def _missed(line: Line, score: str) -> dict[str, str]:
    if score not in results_of(line.experiment).numbers:
        return {"misses it by": "—"}
    before, after = (_scored(line, key, score)[0] for key in (line.without, line.ours))
    return {"misses it by": f"{_digits(before)} → {_digits(after) if after > 1e-7 else '0'}"}


def _compared(line: Line, score: str) -> dict[str, str]:
    """Errors without, of the strongest rival and of ours, and the gain."""
    results = results_of(line.experiment)
    rivals = {key: _scored(line, key, score) for key in line.rivals if (line.case, key) in results.numbers.index}
    name, rival = min(rivals.items(), key=lambda item: item[1][0])
    without, ours = (_scored(line, key, score) for key in (line.without, line.ours))
    apart = beyond_errors(rival[0] - ours[0], rival[1], ours[1])
    return {
        "problem": line.label,
        "without": _with_error(*without),
        "strongest rival": f"{_with_error(*rival)} {_short(results, name)}",
        "ours": _with_error(*ours),
        "gain": _times(rival[0] / ours[0]) if apart else "within noise",
    }


def _scored(line: Line, key: str, score: str) -> tuple[float, float]:
    return score_of(results_of(line.experiment), line.case, key, score)


def _short(results: Results, key: str) -> str:
    return f"({results.description.methods[key].replace(' (', ', ').replace(')', '')})"


def _times(gain: float) -> str:
    return f"{gain:.2f} ×" if gain >= 0.005 else "< 0.01 ×"


def _with_error(mean: float, error: float) -> str:
    return f"{_digits(mean, 3)} ± {_digits(error)}" if error > 0 else _digits(mean, 3)


def _digits(value: float, count: int = 2) -> str:
    """So many significant digits."""
    if 0 < abs(value) < 1e-3:
        return f"{value:.{count - 1}e}".replace("e-0", "e-")
    return f"{value:.{count}g}"
