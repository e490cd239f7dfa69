"""Calls of ``fit`` with the arguments of release 0.3, until 0.5."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from probconserv.training.config import TrainingConfig

Method = TypeVar("Method", bound=Callable[..., Any])
Converted = dict[str, Any] | None


def accepts_former(names: str, convert: Callable[[dict[str, Any]], Converted]) -> Callable[[Method], Method]:
    """Lets a method take the arguments that it had in release 0.3, with a deprecation.

    Args:
        names: Its arguments then, in order.
        convert: From the arguments of a call by these names to those of now; None if the call is one of now.
    """

    def decorate(method: Method) -> Method:
        @wraps(method)
        def call(self: Any, *arguments: Any, **named: Any) -> Any:
            converted = convert(dict(zip(names.split(), arguments, strict=False)) | named)
            if converted is None:
                return method(self, *arguments, **named)
            text = (
                f"{method.__qualname__} takes {', '.join(converted)} since release 0.4; its former call goes with 0.5."
            )
            warnings.warn(text, DeprecationWarning, stacklevel=2)
            return method(self, **converted)

        return call  # type: ignore[return-value]

    return decorate


def data_then_config(given: dict[str, Any]) -> Converted:
    """Training data and, as ``training``, the configuration: the first arguments of a training in release 0.3."""
    if not isinstance(given.get("training"), TrainingConfig):
        return None
    rest = dict(given)
    data = rest.pop("dataset" if "dataset" in rest else "fields")
    return {"training": data, "config": rest.pop("training")} | rest
