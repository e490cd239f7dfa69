"""Surrogates on the Hugging Face hub."""

from pathlib import Path
from typing import Any

from torch import nn

from probconserv.errors import DataFileError, InvalidArgumentError
from probconserv.surrogates.anp import ANP
from probconserv.surrogates.empirical import EmpiricalGP
from probconserv.surrogates.flow.matching import FlowMatching
from probconserv.surrogates.gp import GPSurrogate
from solvers.hub import OnHub

_KINDS: dict[str, Any] = {kind.__name__: kind for kind in (ANP, EmpiricalGP, FlowMatching, GPSurrogate)}


class SurrogateOnHub(OnHub):
    """An ``ANP``, ``FlowMatching``, ``GPSurrogate`` or ``EmpiricalGP`` as a repository; see ``OnHub``.

    Its methods are those of ``.model``. A flow with a velocity or latent space of your own takes them again:
    ``from_pretrained(..., velocity=...)``.
    """

    @staticmethod
    def write(model: nn.Module, path: Path) -> None:
        if type(model).__name__ not in _KINDS:
            raise InvalidArgumentError(
                f"SurrogateOnHub takes one of {sorted(_KINDS)}, got {type(model).__name__}; for operators there "
                "is boon.hub.OperatorOnHub."
            )
        model.save(path)  # pyright: ignore[reportCallIssue] - all of these have it

    @staticmethod
    def read(path: Path, kind: str, **parts: Any) -> nn.Module:
        if kind not in _KINDS:
            raise DataFileError(
                f"{path.parent} has no config.json that names one of {sorted(_KINDS)}, got {kind!r}; write it by "
                "save_pretrained."
            )
        return _KINDS[kind].load(path, **parts)
