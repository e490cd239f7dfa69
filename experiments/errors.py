"""Errors of the experiments: those of all packages, kinds that only runs have, and the checks that raise them."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

from solvers.errors import DataFileError as DataFileError
from solvers.errors import InvalidArgumentError as InvalidArgumentError
from solvers.errors import LibraryError as LibraryError
from solvers.errors import MissingPackageError as MissingPackageError
from solvers.errors import OutputFolderError as OutputFolderError
from solvers.errors import TrainingDivergedError as TrainingDivergedError
from solvers.errors import TrainingInterruptedError as TrainingInterruptedError


class UnknownNameError(LibraryError, ValueError):
    """No experiment or benchmark has this name."""


class NotReleasedError(LibraryError, ValueError):
    """Results or weights are not part of the release, or of this installation."""


class MissingFilesError(LibraryError, ValueError):
    """Files that other people made, and that do not come with the package, were not given."""


class JobsFailedError(LibraryError, RuntimeError):
    """Some of several jobs failed; names them and their logs."""


def require_at_least(config: Any, **least: int) -> None:
    """Raises InvalidArgumentError for the first named entry of a config that is below its least value."""
    for name, minimum in least.items():
        if getattr(config, name) < minimum:
            raise InvalidArgumentError(f"{name} must be at least {minimum}, got {getattr(config, name)}.")


def unknown_name(kind: str, name: str, available: Iterable[str], where: str = "") -> UnknownNameError:
    """The error about a name that nothing has; says the closest one and all there are.

    ``where`` follows the name, with a space before it.
    """
    names = list(available)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return UnknownNameError(f"There is no {kind} '{name}'{where}.{hint} Available: {', '.join(names) or 'none'}.")


def wrong_options(printed: str) -> str:
    """The message that tyro prints in a box, on one line, with the first of similar options."""
    _, problem, *rest = re.split("[─-]{3,}", re.sub("[│|╭╮╰╯]", "", printed))
    parts = [f"{' '.join(problem.split()).rstrip('.')}."]
    similar = re.search(r"(?:Perhaps you meant|similar to [^:]*):\s*(--[\w-]+)", " ".join(rest))
    return " ".join([*parts, f"Did you mean {similar[1]}?"] if similar else parts)
