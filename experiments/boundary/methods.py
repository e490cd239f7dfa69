"""The methods of the boundary-condition experiments.

All of one case have the same network, training and samples. Source of methods and protocol: Saad et al. 2023, whose
BOON takes boundary values from the test target while their FNO sees the initial field only; ``Method.information``
says of each method what it sees.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from boon import Correction, Elimination, MixedTransform, Prescription, SmoothExtension
from boon.corrections.without_schur import EliminationWithoutSchur
from experiments.boundary.baselines.architectures import (
    Convolutional,
    NeuralOperator,
    PrincipalComponents,
    has_neuraloperator,
)
from experiments.boundary.cases import BoundaryCase
from experiments.boundary.operator import Treatment
from experiments.experiment import Style
from experiments.plots import BARE, CONSERVED, GREY, HARD, SKY, SOFT, TRUTH


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of a table.

    Args:
        treatment: The operator; None for the truth.
        rate: Peak learning rate in units of that of the case.
    """

    key: str
    label: str
    style: Style = field(default_factory=Style)
    treatment: Treatment | None = None
    rate: float = 1.0

    @property
    def available(self) -> bool:
        """Whether the package that it needs is installed."""
        needs = self.treatment is not None and isinstance(self.treatment.architecture, NeuralOperator)
        return has_neuraloperator() or not needs

    @property
    def random(self) -> bool:
        """Whether another seed gives another operator."""
        return self.treatment is not None and not isinstance(self.treatment.architecture, PrincipalComponents)

    @property
    def information(self) -> str:
        return "" if self.treatment is None else self.treatment.information

    @property
    def kind(self) -> str:
        """``baseline`` for what is done without BOON; else empty."""
        return "baseline" if self.key in BASELINES else ""


FNO, CHANNELS, PRESCRIPTION = "fno", "boundary-channels", "output-prescription"
PENALTY, CIRCLE = "soft-penalty", "circle"
SLOPES, CHANNEL_SLOPES = "boon-slopes", "boundary-channels-slopes"
WITHOUT_SCHUR, WITHOUT_SCHUR_CHANNELS = "boon-without-schur", "boon-without-schur-channels"
RESIDUAL, DEFAULT = "boon-residual", "boon-default"
ELIMINATION = "boon-paper"
PRESCRIPTION_AT_NODES, DEFAULT_AT_NODES = "output-prescription-nodes", "boon-default-nodes"
PCA, UNET, PACKAGE = "pca", "unet", "neuralop-defaults"
_NETWORKS = (FNO, PCA, UNET, PACKAGE)
_BOON = (WITHOUT_SCHUR, WITHOUT_SCHUR_CHANNELS, RESIDUAL, DEFAULT)
ON_INTERVAL = (*_NETWORKS, CHANNELS, PRESCRIPTION, PENALTY, *_BOON)
WITH_GRADIENTS = (*ON_INTERVAL, CHANNEL_SLOPES, SLOPES)
ON_SQUARE = (*_NETWORKS, CHANNELS, *_BOON)
ON_CIRCLE = (*_NETWORKS, CIRCLE, PRESCRIPTION, PENALTY, WITHOUT_SCHUR, DEFAULT)
BETWEEN_WALLS = (*_NETWORKS, PRESCRIPTION, RESIDUAL, DEFAULT)
"""Unknowns with different conditions and no data: features inside the layers belong to all of them."""
IN_CELLS = (FNO, CHANNELS, PRESCRIPTION_AT_NODES, PRESCRIPTION, DEFAULT_AT_NODES, DEFAULT)
"""Averages over cells, and the same corrections with conditions at nodes."""
PUBLISHED = (FNO, PCA, ELIMINATION, WITHOUT_SCHUR, DEFAULT)
"""Of cases that are there for a published number."""
BASELINES = (
    *(FNO, CHANNELS, CHANNEL_SLOPES, PRESCRIPTION, PRESCRIPTION_AT_NODES),
    *(PENALTY, CIRCLE, PCA, UNET, PACKAGE),
)
"""All methods but BOON."""
RELEASED = (FNO, PRESCRIPTION, ELIMINATION, WITHOUT_SCHUR, WITHOUT_SCHUR_CHANNELS, DEFAULT)
"""Whose weights are released."""
SETTINGS_OF = {RESIDUAL: DEFAULT, SLOPES: DEFAULT, CHANNEL_SLOPES: CHANNELS}
"""Methods that are not tuned, and whose settings they have."""
SLOPE_LOSS = 0.1
"""Of the error of slopes in the loss of methods that learn slopes where gradients are given."""
TRUE_FIELD = Method(key="truth", label="truth", style=Style(TRUTH, "--"))


def methods(case: BoundaryCase) -> tuple[Method, ...]:
    """The methods of a case, the truth first, with the settings that were chosen for them."""
    return tuple(tuned(method, case) for method in untuned(case))


def untuned(case: BoundaryCase) -> tuple[Method, ...]:
    """The methods of a case in their usual settings, the truth first.

    Every method but the plain FNO, BOON as published and one of the two rows without its Schur term has the boundary
    data as channels. On periodic axes there are none: instead of channels, an FNO on the circle; the
    default has the circle too. BOON as published is for fields of one axis, and left out where time is another.
    """
    data: dict[str, Any] = {"channels": case.given}
    default = Treatment(correction=default_of(case), circle=all(case.periodic), **data)
    with_data = " + channels" if case.given else ""
    eliminated = "BOON (elimination without the Schur term)"
    elimination = Treatment(correction=EliminationWithoutSchur())

    def row(key: str, label: str, style: Style, **options: Any) -> Method:
        return Method(key=key, label=label, style=style, treatment=Treatment(**options))

    def boon(key: str, label: str, dashes: Any, treatment: Treatment = default) -> Method:
        return Method(key=key, label=label, style=Style(CONSERVED, dashes), treatment=treatment)

    package, slopes = "FNO of neuraloperator, its defaults", {"channels": True, "slopes": SLOPE_LOSS}
    rows = (
        row(FNO, "FNO", Style(BARE)),
        row(PCA, "PCA regression", Style(GREY), architecture=PrincipalComponents(), **data),
        row(UNET, f"U-Net{with_data}", Style(GREY, "--"), architecture=Convolutional(), **data),
        row(PACKAGE, f"{package}{with_data}", Style(BARE, "-."), architecture=NeuralOperator(), **data),
        row(CHANNELS, "FNO + boundary channels", Style(SKY), channels=True),
        row(CHANNEL_SLOPES, "FNO + boundary channels, slopes in the loss", Style(SKY, ":"), **slopes),
        row(CIRCLE, "FNO on the circle", Style(SKY, "--"), circle=True),
        row(PRESCRIPTION, "FNO + output prescription", Style(HARD), correction=Prescription(), **data),
        row(
            *(PRESCRIPTION_AT_NODES, "FNO + output prescription, cells taken for nodes", Style(HARD, ":")),
            **(data | {"correction": Prescription(), "as_nodes": True}),
        ),
        row(PENALTY, "FNO + soft penalty", Style(SOFT), penalty=1.0, **data),
        boon(ELIMINATION, "BOON (Elimination, as published)", (0, (5, 1)), Treatment(correction=Elimination())),
        boon(WITHOUT_SCHUR, eliminated, ":", elimination),
        boon(WITHOUT_SCHUR_CHANNELS, f"{eliminated} + channels", "--", replace(elimination, channels=True)),
        boon(RESIDUAL, "BOON (default), residual in the loss", "-.", replace(default, penalty=0.1)),
        boon(SLOPES, "BOON (default), slopes in the loss", (0, (1, 3)), replace(default, slopes=SLOPE_LOSS)),
        boon(DEFAULT_AT_NODES, "BOON (default), cells taken for nodes", ":", replace(default, as_nodes=True)),
        boon(DEFAULT, "BOON (default)", "-"),
    )
    possible = [key for key in case.methods if key != ELIMINATION or not case.sizes.network.time_modes]
    return TRUE_FIELD, *(method for method in rows if method.key in possible)


def tuned(method: Method, case: BoundaryCase) -> Method:
    """A method with the settings that were chosen for it on a problem; as it is where none were."""
    chosen = case.settings.get(SETTINGS_OF.get(method.key, method.key))
    if chosen is None or method.treatment is None:
        return method
    parts: dict[str, Any] = {"architecture": method.treatment.architecture, "correction": method.treatment.correction}
    options = {"architecture": chosen.architecture, "correction": chosen.correction}
    changed = {name: replace(part, **options[name]) for name, part in parts.items() if part is not None}
    return replace(method, treatment=replace(method.treatment, **changed), rate=chosen.rate)


def default_of(case: BoundaryCase) -> Correction:
    """The default correction: of the library, at the output only where unknowns have different conditions."""
    mixed = MixedTransform()
    return mixed if case.shared else SmoothExtension(length=mixed.length)
