"""Packages import a public name on first use, and no heavy package before."""

import ast
import copy
import importlib
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from solvers import _lazy

ROOT = Path(__file__).parents[2]
HEAVY = {"numba", "h5py", "rich", "scipy.stats"}


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh process has loaded after running the code."""
    script = f"import sys\n{code}\nprint(*{HEAVY} & set(sys.modules))"
    return set(
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split()
    )


@pytest.mark.parametrize(
    "code",
    [
        "import solvers",
        "import boon",
        "from solvers import CellGrid, Dirichlet, Neumann, NodeGrid, Periodic, Robin",
        "from boon import *",
        "import probconserv",
        "from probconserv import *",
        "from probconserv.fields import *",
        "from probconserv.surrogates.flow import *",
        "import torch; from probconserv import LinearConstraint, condition; from torch.distributions import Normal\n"
        "condition(Normal(torch.zeros(4), torch.ones(4)), LinearConstraint(torch.ones(1, 4), torch.ones(1))).rsample()",
    ],
)
def test_no_heavy_package_is_loaded_before_a_solver_is_used(code: str) -> None:
    assert not loaded_by(code)


STUBS = sorted(path for top in ("solvers", "boon", "probconserv") for path in (ROOT / top).rglob("__init__.pyi"))


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.parent.name)
def test_stub_all_and_imports_have_the_same_names(stub: Path) -> None:
    package = ".".join(stub.parent.relative_to(ROOT).parts)
    lines = [line for line in ast.parse(stub.read_text()).body if isinstance(line, ast.ImportFrom)]
    written = {name.name: line.module for line in lines if line.module != "typing" for name in line.names}
    module = importlib.import_module(package)
    assert module.__all__ == sorted(written)
    star: dict[str, object] = {}
    exec(f"from {package} import *", star)
    for name, source in written.items():
        assert star[name] is getattr(importlib.import_module(str(source)), name)
    assert set(module.__all__) <= set(dir(module))
    for name in dir(module):
        getattr(module, name)


@pytest.mark.parametrize(
    ("package", "name"),
    [("solvers", "SolverError"), ("solvers", "Work"), ("boon", "BoonError"), ("boon", "NodeFourier")],
)
def test_other_names_stay_outside_all(package: str, name: str) -> None:
    module = importlib.import_module(package)
    assert hasattr(module, name)
    assert name not in module.__all__


def test_public_classes_are_pickled_and_copied() -> None:
    import solvers

    condition = solvers.Dirichlet(1.0)
    assert pickle.loads(pickle.dumps(condition)) == copy.deepcopy(condition) == condition
    assert pickle.loads(pickle.dumps(solvers.solve)) is solvers.solve


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    folder = tmp_path / "lazy_example"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from solvers._lazy import lazy_names\n__getattr__, __dir__, __all__ = lazy_names(__name__)\n"
    )
    names = {"good": "good", "old": "good", "missing": "needs_package", "broken": "broken", "gone": "good"}
    lines = {name: f"from lazy_example.{module} import {name} as {name}\n" for name, module in names.items()}
    former = f"if TYPE_CHECKING:\n    {lines.pop('old')}"
    (folder / "__init__.pyi").write_text("".join(["from typing import TYPE_CHECKING\n", *lines.values(), former]))
    (folder / "good.py").write_text("good = old = 1\n")
    (folder / "needs_package.py").write_text("import no_such_package\nmissing = 1\n")
    (folder / "broken.py").write_text("import math\nbroken = math.no_such_function\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield "lazy_example"
    for name in [name for name in sys.modules if name.startswith("lazy_example")]:
        del sys.modules[name]


def test_names_and_modules_are_imported_when_asked_for(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__all__ == ["broken", "gone", "good", "missing"]
    assert f"{package}.good" not in sys.modules
    assert module.good == module.old == 1
    with pytest.raises(AttributeError, match="module 'lazy_example' has no attribute 'nothing'"):
        _ = module.nothing
    assert not hasattr(module, "_private")


def test_errors_of_an_import_reach_the_user(package: str) -> None:
    module = importlib.import_module(package)
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        _ = module.missing
    with pytest.raises(ModuleNotFoundError, match="no_such_package"):
        _ = module.needs_package
    with pytest.raises(ImportError, match=r"lazy_example.broken cannot be imported: .*no_such_function"):
        _ = module.broken
    with pytest.raises(ImportError, match="has no attribute 'gone'"):
        _ = module.gone


def test_renamed_names_are_imported_with_a_deprecation(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_lazy.RENAMED, "lazy_example.former", "lazy_example.good:good")
    module = importlib.import_module(package)
    with pytest.warns(DeprecationWarning, match="former is good of lazy_example.good since release 0.4") as caught:
        assert module.former == 1
    assert caught[0].filename == __file__
    assert "former" not in dir(module)


def test_removed_names_say_what_to_use_instead(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_lazy.REMOVED, "lazy_example.left", "Use good.")
    with pytest.raises(ImportError, match=r"left left the library with release 0.4: Use good. Release 0.3 has it."):
        exec(f"from {package} import left")


@pytest.mark.parametrize("old", _lazy.RENAMED)
def test_every_renamed_name_is_where_the_table_says(old: str) -> None:
    package, _, name = old.rpartition(".")
    with pytest.warns(DeprecationWarning, match=f"{old} is "):
        getattr(importlib.import_module(package), name)
    assert old not in _lazy.REMOVED
