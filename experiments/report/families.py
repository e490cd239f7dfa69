"""What README's and the summary's tables compare: our method of every family, what imposes its constraint, the rows."""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class Family:
    """Declaration of a family of experiments.

    Args:
        label: What it is about, in a table of all families.
        ours: Key of our method.
        without: Keys of its base without the constraint; the first that was scored counts.
        chooses: Whether ours chooses its base by validation: then the one of least error counts.
        constrained: Pattern of the keys that impose the constraint.
        others: Pattern of those of them that impose it on another base; empty for none.
        informed: Pattern of what a method sees (``Description.information``) if it has the constraint's data.
        score: The error that methods are compared by.
        residual: The score that says how far the constraint is missed.
    """

    label: str
    ours: str
    without: tuple[str, ...]
    constrained: str
    others: str = ""
    informed: str = ""
    chooses: bool = False
    score: str = "CRPS"
    residual: str = "CE"


_PREDICTIONS = Family(
    label="conservation laws of one parameter",
    ours="probconserv-anp",
    without=("anp",),
    constrained=r"probconserv-.*",
    others=r"probconserv-(?!anp).*",
)
_OPERATORS = Family(
    label="operators with boundary conditions",
    ours="boon-default",
    without=("boundary-channels", "circle", "fno"),
    constrained=r"boon-.*",
    informed="boundary|periodicity",
    score="relative_l2",
    residual="boundary_relative",
)
_PROBCONSERV = ("diffusion", "porous_medium", "stefan", "advection", "burgers_shock")
_BOON = ("stokes", "burgers_dirichlet", "heat_neumann", "wave_neumann", "burgers_periodic", "cavity")
FAMILIES: dict[str, Family] = {
    "gpme": Family(
        label="random media under a total",
        ours="bounded-local",
        without=("local",),
        constrained=r"(law|bounded|alike|jointly|truncated)-.*",
        others=r"bounded-(?!local).*",
        informed="total",
    ),
    "query_laws": Family(
        label="laws known only with the query",
        ours="law-weighted",
        without=("weighted",),
        constrained=r"(bounded-)?law-.*|bounded-(search|esmda)",
        others=r"law-(gaussian|anp|network)|bounded-(search|esmda)",
        informed="laws",
        residual="law_residual",
    ),
    "generate_gpme": Family(
        label="generated fields in random media",
        ours="ours",
        without=("unconstrained",),
        constrained=r"ours|conditioned-.*",
        others=r"conditioned-.*",
        informed="^(?!without the law)",
    ),
    "observations": Family(
        label="observations under laws that hold roughly",
        ours="calibrated",
        without=("none",),
        constrained=r"diagonal|covariance|covariates|fitted|truncated|joint|calibrated",
        informed="law",
    ),
    "downscaling": Family(
        label="downscaling of temperatures",
        ours="update-shrunk",
        without=("bilinear",),
        constrained=r"update-.*|ridge-update",
        others=r"ridge-update",
        residual="block_error",
    ),
    "advection-calibration": Family(
        label="advection in and out of range",
        ours="by-law",
        without=("anp",),
        constrained=r"probconserv.*|by-law|displaced|tempered|conformal",
        others=r"probconserv-.*",
    ),
    "open_rollouts": Family(
        label="rollouts of open systems",
        ours="emulator",
        without=("regression", "fno", "increments"),
        chooses=True,
        constrained=r".*-(uniform|response)|emulator",
        others=r".*-(uniform|response)",
        informed="balance",
        score="open_error",
        residual="total_drift",
    ),
    **dict.fromkeys(_PROBCONSERV, _PREDICTIONS),
    **dict.fromkeys(("darcy", "reaction_diffusion", "viscous_burgers", "advection_diffusion", "basin"), _OPERATORS),
    **dict.fromkeys((*_BOON, "heat_independent"), _OPERATORS),
}
"""Our method and its comparison, by experiment."""
OF_THE_PAPERS = frozenset((*_PROBCONSERV, "advection-calibration", *_BOON))
"""Experiments on the papers' own problems."""


class Row(NamedTuple):
    """A row of a table: the label, the experiment and the case."""

    label: str
    experiment: str
    case: str


DECISIVE = (
    Row("random media, ten observations", "gpme", "insulated-10"),
    Row("four window masses, known with the query", "query_laws", "windows-4"),
    Row("heat with fluxes given, 200 steps", "open_rollouts", "heat"),
    Row("Burgers, 200 steps", "open_rollouts", "burgers"),
    Row("Darcy's flow in two phases", "darcy", "single"),
    Row("Burgers shock, a = 3", "burgers_shock", "a=3"),
)
LAWS = (
    Row("random media, 10 observations", "gpme", "insulated-10"),
    Row("four window masses, known with the query", "query_laws", "windows-4"),
    Row("plumes in two axes", "gpme", "plume-10"),
    Row("fields drawn from 10 noisy values", "generate_gpme", "values-10"),
    Row("temperature, scenario E1", "observations", "temperature-e1"),
    Row("surface energy, W/m²", "observations", "energy"),
    Row("traffic", "observations", "traffic"),
    Row("advection out of range, a = 7", "advection-calibration", "a=7"),
    Row("Burgers shock, a = 1", "burgers_shock", "a=1"),
    Row("Burgers shock, a = 3", "burgers_shock", "a=3"),
)
OPERATORS = (
    Row("heat with fluxes given, 200 steps", "open_rollouts", "heat"),
    Row("the same, 2,000 steps", "open_rollouts", "heat-long"),
    Row("rod in random media, 200 steps", "open_rollouts", "robin"),
    Row("channel of shallow water, 2,000 steps", "open_rollouts", "channel-long"),
    Row("Burgers, 200 steps", "open_rollouts", "burgers"),
    Row("Darcy's flow in two phases", "darcy", "single"),
    Row("growth in a random medium", "reaction_diffusion", "single"),
    Row("viscous Burgers, 40 modes", "viscous_burgers", "single"),
    Row("transport by a random flow", "advection_diffusion", "single"),
    Row("rain on an open basin", "basin", "single"),
)
PAPERS = (
    Row("Stefan, u\\* = 0.6", "stefan", "u=0.6"),
    Row("Stefan, u\\* = 0.5, out of range", "stefan", "u=0.5"),
    Row("porous medium, m = 1", "porous_medium", "m=1"),
    Row("porous medium, m = 6", "porous_medium", "m=6"),
    Row("Stokes", "stokes", "multi-notebook"),
    Row("heat, gradients given", "heat_neumann", "multi-notebook"),
    Row("Burgers on a circle", "burgers_periodic", "multi"),
)
