"""The methods of the boundary-condition experiments, and the candidates for the default correction.

All of one case have the same network, training and samples. Source of methods and protocol: Saad et al. 2023, whose
BOON takes boundary values from the test target while their FNO sees the initial field only; ``Method.information``
says of each method what it sees.
"""

from dataclasses import dataclass, field, replace

from boon import Correction, Elimination, MatchedTransform, Prescription, SmoothExtension
from experiments.boundary.cases import SHORT_EXTENSION, BoundaryCase
from experiments.boundary.operator import Treatment
from experiments.experiment import Style
from experiments.report.plots import BARE, CONSERVED, HARD, PURPLE, SKY, SOFT, TRUTH


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of a table.

    Args:
        key: Name in files and options.
        label: Name in tables and figures.
        style: Colour and dashes in figures.
        treatment: What an operator does with the boundary; None for the truth.
    """

    key: str
    label: str
    style: Style = field(default_factory=Style)
    treatment: Treatment | None = None

    @property
    def information(self) -> str:
        """What the method sees besides the initial field, and where."""
        return "" if self.treatment is None else self.treatment.information


FNO, CHANNELS, PRESCRIPTION, LIFTING = "fno", "boundary-channels", "output-prescription", "lifting"
PENALTY, CIRCLE, PAPER, DEFAULT = "soft-penalty", "circle", "boon-paper", "boon-default"
BASELINES = (CHANNELS, PRESCRIPTION, LIFTING, PENALTY, CIRCLE)
"""The baselines that are given the boundary as BOON is."""
TRUE_FIELD = Method(key="truth", label="truth", style=Style(TRUTH, "--"))
_LABELS = {
    FNO: "FNO",
    CHANNELS: "FNO + boundary channels",
    PRESCRIPTION: "FNO + output prescription",
    LIFTING: "lifting",
    PENALTY: "FNO + soft penalty",
    CIRCLE: "FNO on the circle",
    PAPER: "BOON (paper's form)",
    DEFAULT: "BOON (default)",
}
_STYLES = {
    FNO: Style(BARE),
    CHANNELS: Style(SKY),
    PRESCRIPTION: Style(HARD),
    LIFTING: Style(PURPLE),
    PENALTY: Style(SOFT),
    CIRCLE: Style(SKY, "--"),
    PAPER: Style(CONSERVED, ":"),
    DEFAULT: Style(CONSERVED),
}


def methods(case: BoundaryCase) -> tuple[Method, ...]:
    """The methods of a case, the truth first.

    Where boundary data follow from the initial field, methods see them in their usual way; where they do not, every
    method but the plain FNO and the paper's form has them as channels. On periodic axes there are no data: instead of
    channels and lifting, an FNO on the circle.
    """
    channels = case.independent
    treatments = {
        FNO: Treatment(),
        CHANNELS: Treatment(channels=True),
        CIRCLE: Treatment(circle=True),
        PRESCRIPTION: Treatment(correction=Prescription(), channels=channels),
        LIFTING: Treatment(lifting=True, channels=channels),
        PENALTY: Treatment(penalty=1.0, channels=channels),
        PAPER: Treatment(correction=Elimination(block=False)),
        DEFAULT: Treatment(correction=MatchedTransform(length=case.extension), channels=channels),
    }
    left_out = {CHANNELS, LIFTING} if case.is_periodic else {CIRCLE}
    few = (FNO, CHANNELS, PAPER, DEFAULT)
    keys = [key for key in treatments if key not in left_out and (key in few or not case.few_methods)]
    rows = (Method(key=k, label=_LABELS[k], style=_STYLES[k], treatment=treatments[k]) for k in keys)
    return TRUE_FIELD, *rows


def candidates(case: BoundaryCase) -> tuple[Method, ...]:
    """What the default may be: every correction of the family, with and without boundary channels or the circle.

    On periodic axes elimination comes down to prescription, and there is nothing to lift and nothing to extend from a
    side, so these are left out there. Where boundary data are independent of the initial field, only with channels.
    """
    short = "matched transforms and lifting, short extension"
    family: dict[str, Correction] = {
        "prescription": Prescription(),
        "prescription in all layers": Prescription(hidden=True),
        "scalar elimination": Elimination(block=False),
        "block elimination": Elimination(),
        "smooth extension": SmoothExtension(),
        "smooth extension in all layers": SmoothExtension(hidden=True),
        "matched transforms": MatchedTransform(hidden=False),
        "matched transforms and lifting in all layers": MatchedTransform(),
        short: MatchedTransform(length=SHORT_EXTENSION),
    }
    if case.is_periodic:
        for name in ("scalar elimination", "block elimination", "matched transforms", short):
            del family[name]
        return tuple(_candidate(*entry) for entry in family.items()) + tuple(
            _candidate(*entry, "circle", circle=True) for entry in family.items()
        )
    bare = () if case.independent else tuple(_candidate(*entry) for entry in family.items())
    return bare + tuple(_candidate(*entry, "channels", channels=True) for entry in family.items())


def _candidate(name: str, correction: Correction, suffix: str = "", **options: bool) -> Method:
    """A candidate; ``name`` becomes the key, with hyphens."""
    label = f"{name}, {suffix}" if suffix else name
    key = label.replace(",", "").replace(" ", "-")
    return Method(key=key, label=label, treatment=replace(Treatment(correction=correction), **options))
