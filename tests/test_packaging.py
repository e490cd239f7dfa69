"""Who imports what, what a plain installation brings, and a PyTorch that is too old."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import torch
from torch.distributions import Normal

from boon import BOON, FNO, FNOConfig
from probconserv import ProbConserv, condition, integral
from solvers import Dirichlet, NodeGrid, recording
from solvers.errors import MissingPackageError

ROOT = Path(__file__).parents[1]
LIBRARIES = ("solvers", "probconserv", "boon")
OPTIONAL = {"neuralop", "pyamg", "xarray", "skfem", "sklearn", "huggingface_hub"}
"""Packages that a function imports where a user asks for them, and modules that are for their users alone."""
WITH = {"llvmlite": "numba"}
"""Packages that come with one of ours, whose requirement settles the version."""


def required() -> set[str]:
    """The names of the packages that a plain installation brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {re.split(r"[<>=!~ \[]", line)[0] for line in project["dependencies"]}


def imports(tree: ast.AST, at_once: bool = True) -> Iterator[tuple[str, bool]]:
    """Top-level packages that a module imports, and whether importing the module does so."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from ((name.name.partition(".")[0], at_once) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, "no relative imports"
            yield node.module.partition(".")[0], at_once
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "_imported")):
            named = node.args[0]
            if isinstance(named, ast.Constant):
                yield named.value.partition(".")[0], at_once
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Try)
        yield from imports(node, at_once and not inside)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_imports_what_a_plain_installation_brings(library: str) -> None:
    brought = required()
    for path in sorted((ROOT / library).rglob("*.py")):
        for name, at_once in imports(ast.parse(path.read_text(encoding="utf-8"))):
            if name not in sys.stdlib_module_names and name not in LIBRARIES:
                asked_for = name in OPTIONAL and (not at_once or path.parent.name == "tools" or path.stem == "hub")
                known = WITH.get(name, name) in brought or asked_for
                assert known, f"{path.relative_to(ROOT)} imports {name}, which pip install . does not bring"


def test_a_plain_installation_brings_ten_packages_and_each_is_imported() -> None:
    names = {
        name
        for library in LIBRARIES
        for path in (ROOT / library).rglob("*.py")
        for name, _ in imports(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert len(required()) <= 10
    assert required() <= names


def test_a_tool_whose_package_is_missing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from probconserv import tools

    monkeypatch.setitem(sys.modules, "xarray", None)
    monkeypatch.delitem(sys.modules, "probconserv.tools.labelled", raising=False)
    with pytest.raises(MissingPackageError, match=r"constrain needs the package xarray; pip install 'probconserv-boon"):
        tools.__getattr__("constrain")


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Imports within functions count, those for types alone do not."""
    grimp = pytest.importorskip("grimp")  # comes with import-linter
    graph = grimp.build_graph(*LIBRARIES, "experiments", exclude_type_checking_imports=True, cache_dir=None)
    TopologicalSorter({each: graph.find_modules_directly_imported_by(each) for each in graph.modules}).prepare()


@pytest.mark.parametrize("package", ["boon", "probconserv"])
@pytest.mark.parametrize("other", ["solvers.py", "solvers/__init__.py"])
def test_an_import_beside_a_users_own_solvers_says_so(package: str, other: str, tmp_path: Path) -> None:
    (tmp_path / other).parent.mkdir(exist_ok=True)
    (tmp_path / other).write_text("mine = 1\n")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; import {package}"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {package} needs the package solvers that it is installed with")
    assert str(tmp_path / other) in last
    assert "Rename that file or folder" in last


GRID = NodeGrid(0.0, 1.0, 16)
LAW = integral(GRID, 0.3)
SENTENCE = r"need torch 2\.11 or newer, got .*; call the model without them"


class Unsure(torch.nn.Module):
    def forward(self, mean: torch.Tensor) -> Normal:
        return Normal(mean, torch.ones_like(mean), validate_args=False)


def predict(mean: torch.Tensor) -> torch.Tensor:
    return condition(Unsure()(mean), LAW).mean


CONSTRAINED = {
    "condition": predict,
    "ProbConserv": lambda mean: ProbConserv(Unsure(), LAW)(mean).mean,
    "BOON": BOON(FNO(FNOConfig(width=4, modes=(3,), depth=1)), [(Dirichlet(0.3), None)]),
}
FIELD = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CONSTRAINED)
def test_an_old_torch_is_named_where_a_constraint_is_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "TOO_OLD", True)
    assert CONSTRAINED[name](FIELD).shape == FIELD.shape
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with pytest.raises(MissingPackageError, match=SENTENCE):
        CONSTRAINED[name](FIELD)


@pytest.mark.skipif(not recording.TOO_OLD, reason="this torch records constraints")
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", ["condition", "BOON"])
def test_the_old_torch_here_quotes_that_sentence(name: str, whole: bool) -> None:
    torch.compiler.reset()
    with pytest.raises(Exception, match=SENTENCE):
        torch.compile(CONSTRAINED[name], backend="eager", fullgraph=whole)(FIELD)
