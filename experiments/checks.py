"""Checks that configs and options share."""

from collections.abc import Sequence
from typing import Any

from experiments.errors import InvalidArgumentError, UnknownNameError


def require_at_least(config: Any, **least: int) -> None:
    """Raises InvalidArgumentError for the first named entry of a config that is below its least value."""
    for name, minimum in least.items():
        if getattr(config, name) < minimum:
            raise InvalidArgumentError(f"{name} must be at least {minimum}, got {getattr(config, name)}.")


def chosen_names(kind: str, wanted: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """Those of the known names that are wanted, in their own order; all if none is.

    Args:
        kind: What is named, for the message.
        wanted: What a user asks for.
        known: What there is.

    Raises:
        UnknownNameError: If a wanted name is not known.
    """
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UnknownNameError(f"There is no {kind} '{unknown[0]}' here. Known: {', '.join(known) or 'none'}.")
    return tuple(name for name in known if not wanted or name in wanted)
