"""Packages that import a public name when it is first used.

``__init__.pyi`` beside a package's ``__init__.py`` is the one list of its names: type checkers read it, and
``lazy_names`` takes from it which module defines each name. ``import boon`` then loads no solver, and what one solver
needs is loaded with that solver.
"""

import ast
import importlib
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterable
from typing import Any

RENAMED: dict[str, str] = {
    "solvers.Direct": "solvers.steady.linear:Direct",
    "solvers.Jacobi": "solvers.steady.linear:Jacobi",
    "solvers.Multigrid": "solvers.steady.linear:Multigrid",
    "solvers.cavity": "solvers.problems:cavity",
    "solvers.spectral": "solvers.problems:spectral",
}
"""Public names of release 0.3 and what they are now, ``module:name``; imported with a deprecation until 0.5."""

REMOVED: dict[str, str] = {
    "boon.FNOVelocity": "Wrap boon.FNO, with the time as channels.",
    "probconserv.surrogates.flow.FieldLatent": "Write a Latent of fields as in docs/tutorials/own_flow.md.",
    "probconserv.surrogates.flow.ResidualFieldVelocity": "Take any module on fields as the velocity.",
    "probconserv.surrogates.flow.smooth_noise": "Write Latent.noise.",
    "probconserv.tools.ExactField": "Build the field around the network as in docs/other_tools.md.",
    "probconserv.tools.boundary_flux": "Assemble the row with scikit-fem as in docs/other_tools.md.",
    "solvers.LinearSolver": "Pass a function of matrix and right-hand sides as solver of solve_steady.",
    "solvers.Preconditioner": "Pass a function of the matrix as preconditioner of ConjugateGradients.",
    "solvers.BackwardEuler": "TRBDF2() has second order and the same stability.",
    "solvers.Newton": "Steppers choose the accuracy of Newton's method themselves.",
    "solvers.WENO": "Take MUSCL(), the default, on more cells.",
    "solvers.power": "max(u, 0.0) ** m is compiled as well.",
    "probconserv.tools.mesh_total": "Assemble the row with scikit-fem as in docs/other_tools.md.",
}
"""Public names that only release 0.3 has, and what to use instead."""


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The ``__getattr__``, ``__dir__`` and ``__all__`` of a package that imports its names on first use.

    ``package.module`` works without an import of its own, too.

    Args:
        package: The package's ``__name__``. Its ``__init__.pyi`` holds lines ``from module import name as name``; those
            under ``if TYPE_CHECKING:`` are left out of ``__all__``.

    Returns:
        The three, to be assigned in the package's ``__init__.py``.
    """
    stub = pkgutil.get_data(package, "__init__.pyi")
    assert stub is not None, package
    lines = ast.parse(stub).body
    public = _modules_by_name(lines)
    modules = public | _modules_by_name(line for block in lines if isinstance(block, ast.If) for line in block.body)
    namespace = vars(sys.modules[package])

    def load(name: str) -> Any:
        old = f"{package}.{name}"
        if old in RENAMED:
            return _renamed(old, inside=package)
        if old in REMOVED:  # an AttributeError would lose its text in ``from package import name``
            raise ImportError(f"{old} left the library with release 0.4: {REMOVED[old]} Release 0.3 has it.")
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

    return load, names, sorted(public)


def _renamed(old: str, inside: str) -> Any:
    """The object that an old name stands for, with a warning at the line outside the package that imports it."""
    module, _, name = RENAMED[old].partition(":")
    level, frame = 1, sys._getframe(0)
    while frame.f_back and frame.f_globals["__name__"] in (__name__, inside):
        level, frame = level + 1, frame.f_back
    text = f"{old} is {name} of {module} since release 0.4; the old name goes with 0.5."
    warnings.warn(text, DeprecationWarning, stacklevel=level)
    return getattr(importlib.import_module(module), name)


def _modules_by_name(lines: Iterable[ast.stmt]) -> dict[str, str]:
    """The module that each imported name is from."""
    imports = [line for line in lines if isinstance(line, ast.ImportFrom) and line.module != "typing"]
    return {name.name: str(line.module) for line in imports for name in line.names}
