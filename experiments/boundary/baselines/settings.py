"""Settings that methods are tuned in, and those that were chosen, by problem, case and method.

Every method has four trials: its structures at the usual peak learning rate, and then, where these are fewer, the first
of them at a third.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from boon import MixedTransform
from experiments.boundary.baselines.architectures import MLP, WITH_MLP, FourierOperator
from experiments.errors import DataFileError
from experiments.storage import read_object, write_json

if TYPE_CHECKING:
    from experiments.boundary.operator import Treatment

TRIALS = 4
SLOWER = 1 / 3
"""The other peak learning rate, in units of that of the case."""
_KERNELS = (("half matched", 0.5, 0.125), ("all Fourier", 1.0, 0.5))
"""Name, share of Fourier series and padding of what is tried of mixed kernels."""
FILE = Path(__file__).parent / "settings.json"
Settings = Mapping[str, Mapping[str, Mapping[str, "Setting"]]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is tuned of a method.

    Args:
        structure: A key of ``structures``.
        rate: Peak learning rate in units of that of the case.
    """

    structure: str
    rate: float = 1.0

    @property
    def label(self) -> str:
        """For tables."""
        return self.structure + ("" if self.rate == 1.0 else f", {self.rate:.2g} of the rate")


def structures(treatment: "Treatment") -> dict[str, "Treatment"]:
    """What is tried of a method besides learning rates: variants of the network, and with mixed kernels the share of
    Fourier series. The first one is the usual one; empty for what tries everything when it is fitted.
    """
    if isinstance(treatment.correction, MixedTransform):
        return {
            name + more: replace(
                treatment,
                correction=replace(treatment.correction, share=share),
                architecture=FourierOperator(padding=padding, channel_mlp=mlp),
            )
            for more, mlp in (("", None), (f", {WITH_MLP}", MLP))
            for name, share, padding in _KERNELS
        }
    variants = treatment.architecture.variants()
    return {name: replace(treatment, architecture=each) for name, each in variants.items()}


def trials(treatment: "Treatment") -> tuple[Setting, ...]:
    """The settings that are tried of a method."""
    names = tuple(structures(treatment))
    tried = (Setting(structure=name, rate=rate) for rate in (1.0, SLOWER) for name in names)
    return tuple(tried)[:TRIALS]


@cache
def settings(file: Path = FILE) -> Settings:
    """The settings that were chosen.

    Raises:
        DataFileError: If the file does not hold settings.
    """
    try:
        return {
            problem: {
                case: {method: Setting(**entry) for method, entry in methods.items()} for case, methods in cases.items()
            }
            for problem, cases in read_object(file).items()
        }
    except (AttributeError, TypeError) as error:
        raise DataFileError(f"'{file}' does not hold settings by problem, case and method ({error}).") from error


def store(problem: str, case: str, chosen: Mapping[str, Setting], file: Path = FILE) -> dict[str, Setting]:
    """Puts settings of methods on one case into the file; those of other methods and cases stay.

    Returns:
        The settings that the file had for methods on this case.
    """
    content = read_object(file) if file.exists() else {}
    entries = {method: {"structure": each.structure, "rate": each.rate} for method, each in chosen.items()}
    cases = content.setdefault(problem, {})
    before = cases.get(case, {})
    cases[case] = dict(sorted((before | entries).items()))
    write_json(file, dict(sorted(content.items())))
    settings.cache_clear()
    return {method: Setting(**entry) for method, entry in before.items()}
