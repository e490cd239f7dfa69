"""Settings of methods that were chosen on the validation set, by problem, case and method: the data of settings.json.

Every method had four trials of a fifth of the steps: structures at the usual peak learning rate (padding and channel
MLP of an FNO, with mixed kernels the share of Fourier series too, levels of a U-Net, the trunk of a DeepONet), and
then, where these are fewer, the first of them at a third.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from experiments.errors import DataFileError
from experiments.storage import read_object

FILE = Path(__file__).parent / "settings.json"
Settings = Mapping[str, Mapping[str, Mapping[str, "Setting"]]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What was chosen of the architecture and the correction, and the peak learning rate in units of the case's."""

    architecture: Mapping[str, float] = field(default_factory=dict)
    correction: Mapping[str, float] = field(default_factory=dict)
    rate: float = 1.0


@cache
def settings(file: Path = FILE) -> Settings:
    """The settings that were chosen."""
    try:
        return {
            problem: {
                case: {method: Setting(**entry) for method, entry in methods.items()} for case, methods in cases.items()
            }
            for problem, cases in read_object(file).items()
        }
    except (AttributeError, TypeError) as error:
        raise DataFileError(f"'{file}' does not hold settings by problem, case and method ({error}).") from error
