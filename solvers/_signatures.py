"""Former names and positions of arguments, which work with a deprecation until 0.7."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from solvers.errors import InvalidArgumentError

F = TypeVar("F", bound=Callable[..., Any])


def accepting(*by_keyword: str, instead: str = "", **renamed: str) -> Callable[[F], F]:
    """Makes a function, or the constructor of a class, accept former arguments.

    Args:
        by_keyword: Arguments that follow the positional ones and could once be given by position, in that order.
        instead: A sentence for who gives them so and means something else.
        renamed: New names of arguments by their former names.
    """

    def decorate(function: F) -> F:
        target = function.__init__ if inspect.isclass(function) else function
        name, parameters = function.__name__, inspect.signature(target).parameters
        known = frozenset(parameters)
        positional = sum(each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters.values())

        @wraps(target)
        def call(*args: Any, **kwargs: Any) -> Any:
            if by_keyword and len(args) > positional:
                given = _named(name, by_keyword, args[positional:], instead)
                if given.keys() & kwargs.keys():
                    raise TypeError(f"{name} got multiple values for argument '{min(given.keys() & kwargs.keys())}'.")
                args, kwargs = args[:positional], kwargs | given
            if not known.issuperset(kwargs):
                kwargs = _translated(name, kwargs, renamed)
            return target(*args, **kwargs)

        if not inspect.isclass(function):
            return cast(F, call)
        function.__init__ = call  # type: ignore[misc]
        return cast(F, function)

    return decorate


def _named(function: str, names: tuple[str, ...], values: tuple[Any, ...], instead: str) -> dict[str, Any]:
    if len(values) > len(names):
        raise TypeError(f"{function} takes {len(names)} arguments after the first ones, {', '.join(names)}.")
    given = dict(zip(names, values, strict=False))
    text = f"{function} takes {', '.join(given)} by keyword since release 0.5, by position until 0.7. {instead}"
    warnings.warn(text.rstrip(), DeprecationWarning, stacklevel=3)
    return given


def _translated(function: str, given: Mapping[str, Any], renamed: Mapping[str, str]) -> dict[str, Any]:
    """Arguments by their names of today."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        new = renamed.get(name, name)
        if new in found or (new != name and new in given):
            raise InvalidArgumentError(f"{function} got {new} and {name}, its former name; give {new} alone.")
        if new != name:
            text = f"{name} of {function} is {new} since release 0.5; the old name goes with 0.7."
            warnings.warn(text, DeprecationWarning, stacklevel=3)
        found[new] = value
    return found
