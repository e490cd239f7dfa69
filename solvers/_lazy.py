"""Packages that import a public name when it is first used.

``__init__.pyi`` beside a package's ``__init__.py`` is the one list of its names: type checkers read it, and
``lazy_names`` takes from it which module defines each name. ``import boon`` then loads no solver, and what one solver
needs is loaded with that solver.
"""

import ast
import importlib
import importlib.metadata
import pkgutil
import sys
import warnings
from collections.abc import Callable
from typing import Any

RENAMED: dict[str, str] = {}
"""New places of names of release 0.4: modules of each package with the names (``old=new``) that they hold.

Until 0.6 every package above the module gives them, too, with a deprecation.
"""

REMOVED: dict[str, str] = {
    "solvers.SystemLaw": "Derive from PointwiseLaw, and give flux and eigenvalues as functions of numbers.",
}
"""Public names that only release 0.4 has, there and in the packages above, and what to use instead."""


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The ``__getattr__``, ``__dir__`` and ``__all__`` of a package that imports its names on first use.

    ``package.module`` works without an import of its own, too.

    Args:
        package: The package's ``__name__``. Its ``__init__.pyi`` holds lines ``from module import name as name``.

    Returns:
        The three, to be assigned in the package's ``__init__.py``.
    """
    stub = pkgutil.get_data(package, "__init__.pyi")
    assert stub is not None, package
    imports = [line for line in ast.parse(stub).body if isinstance(line, ast.ImportFrom)]
    modules = {name.name: str(line.module) for line in imports for name in line.names}
    former = renamed_names(package)
    removed = {old.rpartition(".")[2]: text for old, text in REMOVED.items() if old.startswith(f"{package}.")}
    namespace = vars(sys.modules[package])

    def load(name: str) -> Any:
        if name == "__version__":
            return _version()
        if name in former and name not in modules:
            return _renamed(package, name, *former[name])
        if name in removed:  # an AttributeError would lose its text in ``from package import name``
            raise ImportError(
                f"{package}.{name} left the library with release 0.5: {removed[name]} Release 0.4 has it."
            )
        try:
            if name in modules:
                namespace[name] = getattr(importlib.import_module(modules[name]), name)
                return namespace[name]
            if not name.startswith("_"):
                return importlib.import_module(f"{package}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{package}.{name}":
                raise
        except AttributeError as error:  # Python would say no more than that the name cannot be imported.
            raise ImportError(f"{package}.{name} cannot be imported: {error}") from error
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    def names() -> list[str]:
        return sorted({*namespace, *modules})

    return load, names, sorted(modules)


def _version() -> str:
    """The version that is installed."""
    try:
        return importlib.metadata.version("probconserv-boon")
    except importlib.metadata.PackageNotFoundError as error:  # a checkout on the path
        raise AttributeError("The version is that of an installed package; these files are not installed.") from error


def renamed_names(package: str) -> dict[str, tuple[str, str]]:
    """The module and the name, there, of every name that ``RENAMED`` has in modules below the package."""
    top, names, module = package.partition(".")[0], {}, ""
    for word in RENAMED.get(top, "").split():
        if word.endswith(":"):
            module = f"{top}.{word[:-1]}"
        elif module.startswith(f"{package}."):
            old, _, new = word.partition("=")
            names[old] = (module, new or old)
    return names


def _renamed(package: str, old: str, module: str, name: str) -> Any:
    """The object that an old name stands for, with a warning at the line outside the package that imports it."""
    level, frame = 1, sys._getframe(0)
    while frame.f_back and frame.f_globals["__name__"] in (__name__, package):
        level, frame = level + 1, frame.f_back
    text = f"{package}.{old} is {name} of {module} since release 0.5; the old name goes with 0.6."
    warnings.warn(text, DeprecationWarning, stacklevel=level)
    return getattr(importlib.import_module(module), name)
