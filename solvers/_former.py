"""Arguments that had another name or position in release 0.4, which works with a deprecation until 0.6."""

import sys
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from solvers.errors import InvalidArgumentError

_P = ParamSpec("_P")
_R = TypeVar("_R")
_T = TypeVar("_T")
_WITHIN = ("solvers", "probconserv", "boon", "torch", "jaxtyping", "beartype")


def renamed(**names: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """A decorator of functions and methods: keyword arguments may be given under the names of 0.4, ``old="new"``.

    Type checkers see the new names alone.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            for old in names.keys() & kwargs.keys():
                new, name = names[old], function.__qualname__
                if new in kwargs:
                    raise InvalidArgumentError(f"{name} takes {new}, of which {old} is the former name; give it once.")
                warn_of_former(f"The argument {old} of {name} is {new} since release 0.5; the old name goes with 0.6.")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate


def by_keyword(*names: str, after: int, instead: str) -> Callable[[type[_T]], type[_T]]:
    """A decorator of classes: arguments that follow the first ones may be given by position, in this order.

    Args:
        names: The arguments.
        after: Number of the first ones.
        instead: A sentence for who gives them so and means something else.
    """

    def decorate(cls: type[_T]) -> type[_T]:
        construct = cls.__init__

        @wraps(construct)
        def call(self: _T, *args: Any, **kwargs: Any) -> None:
            given = dict(zip(names, args[after:], strict=False))
            if len(args) > after + len(names) or given.keys() & kwargs.keys():
                raise TypeError(f"{cls.__name__} takes {after} arguments, then {', '.join(names)}, each of them once.")
            if given:
                warn_of_former(
                    f"{cls.__name__} takes {', '.join(given)} by keyword since release 0.5, by position until 0.6. "
                    f"{instead}"
                )
            construct(self, *args[:after], **kwargs, **given)

        cls.__init__ = call  # type: ignore[method-assign]
        return cls

    return decorate


def warn_of_former(text: str) -> None:
    """A DeprecationWarning at the line that called the library."""
    warn_at_caller(text, DeprecationWarning)


def warn_at_caller(text: str, category: type[Warning] = UserWarning) -> None:
    """A warning at the line that called the library, directly or as a module of torch."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _WITHIN:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)
