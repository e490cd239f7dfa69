"""Packages import a public name on first use, and no heavy package before."""

import ast
import copy
import importlib
import importlib.metadata
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from solvers import _lazy

HEAVY = {"numba", "h5py", "rich", "scipy.stats"}
ROOT = Path(_lazy.__file__).parents[1]
PACKAGES = sorted(
    ".".join(stub.parent.relative_to(ROOT).parts)
    for library in ("solvers", "boon", "probconserv")
    for stub in (ROOT / library).rglob("__init__.pyi")
)


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


@pytest.mark.parametrize("package", PACKAGES)
def test_stub_all_and_imports_have_the_same_names(package: str) -> None:
    stub = ROOT / package.replace(".", "/") / "__init__.pyi"
    lines = [line for line in ast.parse(stub.read_text()).body if isinstance(line, ast.ImportFrom)]
    written = {name.name: line.module for line in lines for name in line.names}
    module = importlib.import_module(package)
    assert module.__all__ == sorted(written)
    star: dict[str, object] = {}
    exec(f"from {package} import *", star)
    for name, source in written.items():
        assert star[name] is getattr(importlib.import_module(str(source)), name)
    assert set(module.__all__) <= set(dir(module))
    for name in dir(module):
        getattr(module, name)


def test_the_packages_show_few_names() -> None:
    """A name enters when another leaves; more than release 0.4 had are `gaussian`, `doubt` and `law_misfit`."""
    tops = {"probconserv": 28, "boon": 18, "solvers": 38}
    below = set(PACKAGES) - set(tops)
    assert all(len(importlib.import_module(package).__all__) <= most for package, most in tops.items())
    assert sum(len(importlib.import_module(package).__all__) for package in below) <= 36
    former = [line for text in _lazy.RENAMED.values() for line in text.split("\n") if line.strip()]
    assert len(former) + len(_lazy.REMOVED) <= 60


def test_packages_have_the_version_and_say_what_they_lack() -> None:
    for library in ("solvers", "boon", "probconserv"):
        module = importlib.import_module(library)
        assert module.__version__ == importlib.metadata.version("probconserv-boon")
        assert not hasattr(module, "NoSuchName")


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
    names = {"good": "good", "missing": "needs_package", "broken": "broken", "gone": "good"}
    lines = [f"from lazy_example.{module} import {name} as {name}\n" for name, module in names.items()]
    (folder / "__init__.pyi").write_text("".join(lines))
    (folder / "good.py").write_text("good = less_known = 1\n")
    monkeypatch.setitem(_lazy.RENAMED, "lazy_example", "bad: bad\n  good: good less_known former=good")
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
    assert module.good == 1
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


@pytest.mark.parametrize(("old", "new"), [("less_known", "less_known"), ("former", "good")])
def test_renamed_names_are_imported_with_a_deprecation(package: str, old: str, new: str) -> None:
    module = importlib.import_module(package)
    text = f"{package}.{old} is {new} of {package}.good since release 0.5; the old name goes with 0.6."
    with pytest.warns(DeprecationWarning, match=text) as caught:
        assert getattr(module, old) == 1
    assert caught[0].filename == __file__
    assert old not in dir(module)


def test_a_package_gives_names_of_modules_below_it_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_lazy.RENAMED, "top", "one: a b=c  inner.two: d  inner: e")
    assert _lazy.renamed_names("top") == {
        "a": ("top.one", "a"),
        "b": ("top.one", "c"),
        "d": ("top.inner.two", "d"),
        "e": ("top.inner", "e"),
    }
    assert _lazy.renamed_names("top.inner") == {"d": ("top.inner.two", "d")}
    assert _lazy.renamed_names("top.inner.two") == _lazy.renamed_names("other") == {}


def test_removed_names_say_what_to_use_instead(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_lazy.REMOVED, "lazy_example.left", "Use good.")
    with pytest.raises(ImportError, match=r"left left the library with release 0.5: Use good. Release 0.4 has it."):
        exec(f"from {package} import left")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_renamed_name_is_where_the_table_says(package: str) -> None:
    module = importlib.import_module(package)
    for old in _lazy.renamed_names(package).keys() - set(module.__all__):
        with pytest.warns(DeprecationWarning, match=f"{package}.{old} is "):
            getattr(module, old)
        assert f"{package}.{old}" not in _lazy.REMOVED
