"""The methods of the boundary-condition experiments.

All of one case have the same network, training and samples. Source of methods and protocol: Saad et al. 2023, whose
BOON takes boundary values from the test target while their FNO sees the initial field only; ``Method.information``
says of each method what it sees.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from boon import Correction, Elimination, MixedTransform, Prescription, SmoothExtension
from experiments.boundary.baselines.architectures import (
    Architecture,
    Convolutional,
    DeepOperator,
    NeuralOperator,
    has_neuraloperator,
)
from experiments.boundary.baselines.settings import settings
from experiments.boundary.baselines.stored_pca import PrincipalComponents
from experiments.boundary.cases import BoundaryCase
from experiments.boundary.operator import Treatment
from experiments.experiment import Style
from experiments.plots import BARE, CONSERVED, GREY, HARD, PURPLE, SKY, SOFT, TRUTH, YELLOW
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
PAPER, PAPER_CHANNELS, RESIDUAL, DEFAULT = "boon-paper", "boon-paper-channels", "boon-residual", "boon-default"
PCA, DEEPONET, UNET = "pca", "deeponet", "unet"
PACKAGE, PACKAGE_PLAIN, PACKAGE_DEFAULTS = "neuralop", "neuralop-plain", "neuralop-defaults"
OTHERS = (PCA, DEEPONET, UNET, PACKAGE, PACKAGE_PLAIN, PACKAGE_DEFAULTS)
"""Other architectures than the FNO of this library."""
BASELINES = (FNO, CHANNELS, CHANNEL_SLOPES, PRESCRIPTION, LIFTING, PENALTY, CIRCLE, *OTHERS)
"""All methods but BOON."""
RELEASED = (FNO, PCA, CHANNELS, CIRCLE, PAPER, PAPER_CHANNELS, DEFAULT)
"""Whose weights the problems of the papers release; hard problems release those of all but ``SETTINGS_OF``."""
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

    Every method but the plain FNO and one of the two rows of the paper's form has the boundary data as channels. On
    periodic axes there are none: instead of channels and lifting, an FNO on the circle; the default has the circle too.
    """
    channels, paper = _has_channels(case), Elimination()
    default = Treatment(correction=default_of(case), channels=channels, circle=all(case.periodic))
    rows = (
        (FNO, "FNO", Style(BARE), Treatment()),
        (CHANNELS, "FNO + boundary channels", Style(SKY), Treatment(channels=True)),
        (
            CHANNEL_SLOPES,
            "FNO + boundary channels, slopes in the loss",
            Style(SKY, ":"),
            Treatment(channels=True, slopes=SLOPE_LOSS),
        ),
        (CIRCLE, "FNO on the circle", Style(SKY, "--"), Treatment(circle=True)),
        (
            PRESCRIPTION,
            "FNO + output prescription",
            Style(HARD),
            Treatment(correction=Prescription(), channels=channels),
        ),
        (LIFTING, "lifting", Style(PURPLE), Treatment(lifting=True, channels=channels)),
        (PENALTY, "FNO + soft penalty", Style(SOFT), Treatment(penalty=1.0, channels=channels)),
        (PAPER, "BOON (paper's form)", Style(CONSERVED, ":"), Treatment(correction=paper)),
        (
            PAPER_CHANNELS,
            "BOON (paper's form) + channels",
            Style(CONSERVED, "--"),
            Treatment(correction=paper, channels=True),
        ),
        (RESIDUAL, "BOON (default), residual in the loss", Style(CONSERVED, "-."), replace(default, penalty=0.1)),
        (
            SLOPES,
            "BOON (default), slopes in the loss",
            Style(CONSERVED, (0, (1, 3))),
            replace(default, slopes=SLOPE_LOSS),
        ),
        (DEFAULT, "BOON (default)", Style(CONSERVED), default),
    )
    fno, *rest = (Method(key=row[0], label=row[1], style=row[2], treatment=row[3]) for row in rows)
    left_out = _left_out(case)
    return TRUE_FIELD, fno, *(method for method in (*_others(case), *rest) if method.key not in left_out)


def tuned(method: Method, case: BoundaryCase) -> Method:
    """A method with the settings that were chosen for it on a problem; as it is where none were."""
    key = SETTINGS_OF.get(method.key, method.key)
    chosen = settings().get(case.source.name, {}).get(case.training_case.key, {}).get(key)
    if chosen is None or method.treatment is None:
        return method
    architecture: Any = method.treatment.architecture
    correction: Any = method.treatment.correction
    changed = {"architecture": replace(architecture, **chosen.architecture)}
    if correction is not None:
        changed["correction"] = replace(correction, **chosen.correction)
    return replace(method, treatment=replace(method.treatment, **changed), rate=chosen.rate)


def _others(case: BoundaryCase) -> tuple[Method, ...]:
    """Other architectures, which have boundary data as channels where there are data."""
    channels = _has_channels(case)
    with_data, package = " + channels" if channels else "", "FNO of neuraloperator"
    named: tuple[tuple[str, str, Style, Architecture], ...] = (
        (PCA, "PCA regression", Style(GREY), PrincipalComponents()),
        (DEEPONET, "DeepONet", Style(YELLOW), DeepOperator()),
        (UNET, "U-Net" + with_data, Style(GREY, "--"), Convolutional()),
        (PACKAGE, package + with_data, Style(BARE, "--"), NeuralOperator()),
        (PACKAGE_PLAIN, package, Style(BARE, ":"), NeuralOperator()),
        (
            PACKAGE_DEFAULTS,
            package + ", its defaults" + with_data,
            Style(BARE, "-."),
            NeuralOperator(own_defaults=True),
        ),
    )
    return tuple(
        Method(
            key=key,
            label=label,
            style=style,
            treatment=Treatment(architecture=architecture, channels=channels and key != PACKAGE_PLAIN),
        )
        for key, label, style, architecture in named
    )


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
        left_out |= {CHANNELS, PAPER_CHANNELS}
    gradients = any(isinstance(side, Neumann) for pair in case.conditions for side in pair)
    if case.axes > 1 or case.published or not gradients:
        left_out |= {SLOPES, CHANNEL_SLOPES}
    if not case.independent:
        left_out.add(PACKAGE_PLAIN)
    if not case.shared:  # features inside the layers belong to all unknowns
        left_out |= {PAPER, PAPER_CHANNELS}
    if case.published:
        left_out |= {*BASELINES, PAPER_CHANNELS, RESIDUAL} - {FNO, PCA}
    if case.axes == 2:
        left_out |= {PENALTY, LIFTING} | ({PRESCRIPTION} if case.given else set())
    return left_out
