"""The methods of the boundary-condition experiments.

All of one case have the same network, training and samples. Source of methods and protocol: Saad et al. 2023, whose
BOON takes boundary values from the test target while their FNO sees the initial field only; ``Method.information``
says of each method what it sees.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from boon import Correction, MixedTransform, Prescription, SmoothExtension
from boon.corrections.without_schur import EliminationWithoutSchur
from experiments.boundary.baselines.architectures import (
    Convolutional,
    DeepOperator,
    NeuralOperator,
    PrincipalComponents,
    has_neuraloperator,
)
from experiments.boundary.cases import BoundaryCase
from experiments.boundary.operator import Treatment
from experiments.experiment import Style
from experiments.plots import BARE, CONSERVED, GREY, HARD, PURPLE, SKY, SOFT, TRUTH, YELLOW
from experiments.storage import read_object
from solvers import Neumann


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


FNO, CHANNELS, PRESCRIPTION, LIFTING = "fno", "boundary-channels", "output-prescription", "lifting"
PENALTY, CIRCLE = "soft-penalty", "circle"
SLOPES, CHANNEL_SLOPES = "boon-slopes", "boundary-channels-slopes"
WITHOUT_SCHUR, WITHOUT_SCHUR_CHANNELS = "boon-without-schur", "boon-without-schur-channels"
RESIDUAL, DEFAULT = "boon-residual", "boon-default"
PCA, DEEPONET, UNET = "pca", "deeponet", "unet"
PACKAGE, PACKAGE_PLAIN, PACKAGE_DEFAULTS = "neuralop", "neuralop-plain", "neuralop-defaults"
OTHERS = (PCA, DEEPONET, UNET, PACKAGE, PACKAGE_PLAIN, PACKAGE_DEFAULTS)
"""Other architectures than the FNO of this library."""
BASELINES = (FNO, CHANNELS, CHANNEL_SLOPES, PRESCRIPTION, LIFTING, PENALTY, CIRCLE, *OTHERS)
"""All methods but BOON."""
RELEASED = (FNO, PRESCRIPTION, WITHOUT_SCHUR, WITHOUT_SCHUR_CHANNELS, DEFAULT)
"""Whose weights are released."""
SETTINGS_OF = {RESIDUAL: DEFAULT, SLOPES: DEFAULT, CHANNEL_SLOPES: CHANNELS}
"""Methods that are not tuned, and whose settings they have."""
SLOPE_LOSS = 0.1
"""Of the error of slopes in the loss of methods that learn slopes where gradients are given."""
TRUE_FIELD = Method(key="truth", label="truth", style=Style(TRUTH, "--"))


@cache
def settings() -> Mapping[str, Any]:
    """Settings that were chosen on the validation set, by problem, case and method.

    Of a method they are options of the ``architecture`` and of the ``correction``, and the ``rate``. Every method had
    four trials of a fifth of the steps: structures at the usual peak learning rate (padding and channel MLP of an FNO,
    with mixed kernels the share of Fourier series too), and then, where these are fewer, the first of them at a third.
    """
    return read_object(Path(__file__).parent / "baselines" / "settings.json")


def methods(case: BoundaryCase) -> tuple[Method, ...]:
    """The methods of a case, the truth first, with the settings that were chosen for them."""
    return tuple(tuned(method, case) for method in untuned(case))


def untuned(case: BoundaryCase) -> tuple[Method, ...]:
    """The methods of a case in their usual settings, the truth first.

    Every method but the plain FNO, that of neuraloperator and one of the two rows of elimination has the boundary data
    as channels. On periodic axes there are none: instead of channels and lifting, an FNO on the circle; the default has
    the circle too.
    """
    told: dict[str, Any] = {"channels": _has_channels(case)}
    default = Treatment(correction=default_of(case), circle=all(case.periodic), **told)
    with_data, package = " + channels" if told["channels"] else "", "FNO of neuraloperator"
    eliminated, elimination = (
        "BOON (elimination without the Schur term)",
        Treatment(correction=EliminationWithoutSchur()),
    )

    def row(key: str, label: str, style: Style, **options: Any) -> Method:
        return Method(key=key, label=label, style=style, treatment=Treatment(**options))

    def boon(key: str, label: str, dashes: Any, treatment: Treatment = default) -> Method:
        return Method(key=key, label=label, style=Style(CONSERVED, dashes), treatment=treatment)

    slopes, whole = {"channels": True, "slopes": SLOPE_LOSS}, NeuralOperator(own_defaults=True)
    rows = (
        row(FNO, "FNO", Style(BARE)),
        row(PCA, "PCA regression", Style(GREY), architecture=PrincipalComponents(), **told),
        row(DEEPONET, "DeepONet", Style(YELLOW), architecture=DeepOperator(), **told),
        row(UNET, f"U-Net{with_data}", Style(GREY, "--"), architecture=Convolutional(), **told),
        row(PACKAGE, f"{package}{with_data}", Style(BARE, "--"), architecture=NeuralOperator(), **told),
        row(PACKAGE_PLAIN, package, Style(BARE, ":"), architecture=NeuralOperator()),
        row(PACKAGE_DEFAULTS, f"{package}, its defaults{with_data}", Style(BARE, "-."), architecture=whole, **told),
        row(CHANNELS, "FNO + boundary channels", Style(SKY), channels=True),
        row(CHANNEL_SLOPES, "FNO + boundary channels, slopes in the loss", Style(SKY, ":"), **slopes),
        row(CIRCLE, "FNO on the circle", Style(SKY, "--"), circle=True),
        row(PRESCRIPTION, "FNO + output prescription", Style(HARD), correction=Prescription(), **told),
        row(LIFTING, "lifting", Style(PURPLE), lifting=True, **told),
        row(PENALTY, "FNO + soft penalty", Style(SOFT), penalty=1.0, **told),
        boon(WITHOUT_SCHUR, eliminated, ":", elimination),
        boon(WITHOUT_SCHUR_CHANNELS, f"{eliminated} + channels", "--", replace(elimination, channels=True)),
        boon(RESIDUAL, "BOON (default), residual in the loss", "-.", replace(default, penalty=0.1)),
        boon(SLOPES, "BOON (default), slopes in the loss", (0, (1, 3)), replace(default, slopes=SLOPE_LOSS)),
        boon(DEFAULT, "BOON (default)", "-"),
    )
    left_out = _left_out(case)
    return TRUE_FIELD, *(method for method in rows if method.key not in left_out)


def tuned(method: Method, case: BoundaryCase) -> Method:
    """A method with the settings that were chosen for it on a problem; as it is where none were."""
    key = SETTINGS_OF.get(method.key, method.key)
    chosen = settings().get(case.source.name, {}).get(case.training_case.key, {}).get(key)
    if chosen is None or method.treatment is None:
        return method
    changed = {
        name: replace(getattr(method.treatment, name), **chosen[name])
        for name in ("architecture", "correction")
        if name in chosen
    }
    return replace(method, treatment=replace(method.treatment, **changed), rate=chosen.get("rate", 1.0))


def _has_channels(case: BoundaryCase) -> bool:
    """Whether there are boundary data that an operator can have as channels."""
    return case.given and not all(case.periodic)


def default_of(case: BoundaryCase) -> Correction:
    """The default correction: of the library, at the output only where unknowns have conditions of their own."""
    mixed = MixedTransform()
    return mixed if case.shared else SmoothExtension(length=mixed.length)


def _left_out(case: BoundaryCase) -> set[str]:
    """Keys of the methods that a case cannot have, that take too long, or that it does not need.

    The FNO of neuraloperator without channels is there where boundary data do not follow from the input fields.
    """
    left_out = {LIFTING, RESIDUAL} if all(case.periodic) else {CIRCLE}
    if not _has_channels(case):
        left_out |= {CHANNELS, WITHOUT_SCHUR_CHANNELS}
    gradients = any(isinstance(side, Neumann) for pair in case.conditions for side in pair)
    if case.axes > 1 or case.published or not gradients:
        left_out |= {SLOPES, CHANNEL_SLOPES}
    if not case.independent:
        left_out.add(PACKAGE_PLAIN)
    if not case.shared:  # features inside the layers belong to all unknowns
        left_out |= {WITHOUT_SCHUR, WITHOUT_SCHUR_CHANNELS}
    if case.published:
        left_out |= {*BASELINES, WITHOUT_SCHUR_CHANNELS, RESIDUAL} - {FNO, PCA}
    if case.axes == 2:
        left_out |= {PENALTY, LIFTING} | ({PRESCRIPTION} if case.given else set())
    return left_out
