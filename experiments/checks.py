"""Checks that configs share."""

from typing import Any

from experiments.errors import InvalidArgumentError


def require_at_least(config: Any, **least: int) -> None:
    """Raises InvalidArgumentError for the first named entry of a config that is below its least value."""
    for name, minimum in least.items():
        if getattr(config, name) < minimum:
            raise InvalidArgumentError(f"{name} must be at least {minimum}, got {getattr(config, name)}.")
