"""Operators on the Hugging Face hub."""

from pathlib import Path
from typing import Any

from torch import nn

from boon.errors import InvalidArgumentError
from boon.storage import Operator, load, save
from solvers.hub import OnHub


class OperatorOnHub(OnHub):
    """An ``FNO``, ``BOON``, ``ChannelBOON`` or ``Normalised`` as a repository; see ``OnHub``.

    What ``save`` can write is written. Around a Module of another package, such as neuraloperator's,
    ``from_pretrained(..., module=...)`` takes one that is built alike.
    """

    @staticmethod
    def write(model: nn.Module, path: Path) -> None:
        if not isinstance(model, Operator):
            raise InvalidArgumentError(
                f"OperatorOnHub takes an FNO, a Normalised, a BOON or a ChannelBOON, got {type(model).__name__}; for "
                "surrogates there is probconserv.tools.hub.SurrogateOnHub."
            )
        save(model, path)

    @staticmethod
    def read(path: Path, kind: str, **parts: Any) -> nn.Module:  # noqa: ARG004 - the file knows its class
        return load(path, parts.get("module"))
