"""Whether this PyTorch can record what the packages compute: ``torch.compile`` and ``torch.export``."""

import re

import torch

from solvers.errors import MissingPackageError

NEEDED = (2, 11)
"""The first PyTorch that records laws and boundary conditions as one graph."""

TOO_OLD = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2]) < NEEDED


def check_recording() -> None:
    """Refuses to be recorded by a PyTorch that is too old for it; without a recording any one will do.

    Raises:
        MissingPackageError: If ``torch.compile`` or ``torch.export`` of a PyTorch that is too old calls this. Where it
            wants one graph, PyTorch raises an error of its own that quotes the text.
    """
    if TOO_OLD and torch.compiler.is_compiling():
        raise MissingPackageError(
            f"torch.compile and torch.export of a constraint need torch 2.11 or newer, got {torch.__version__}; call "
            "the model without them, or install a newer torch."
        )
