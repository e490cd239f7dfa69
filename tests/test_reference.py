"""The reference names all that is public, and all that is public says what it is."""

import importlib
import inspect
import re
import subprocess
import sys
from types import ModuleType

import pytest

from docs.blocks import BLOCK
from tests.documents import ROOT

PACKAGES = ("probconserv", "boon", "solvers", "experiments")


def text_of(package: str) -> str:
    """The pages of the reference about a package, one after the other."""
    folder = ROOT / "docs" / "reference"
    pages = [folder / f"{package}.md", *sorted((folder / package).glob("*.md"))]
    return "\n".join(page.read_text(encoding="utf-8") for page in pages)


def documented(package: str) -> list[str]:
    """Names that the reference documents, with the package's name."""
    return re.findall(r"^::: (\S+)$", text_of(package), flags=re.MULTILINE)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference_once(package: str) -> None:
    names = documented(package)
    assert len(names) == len(set(names))
    public = {f"{package}.{name}" for name in importlib.import_module(package).__all__}
    assert public <= set(names), f"missing in docs/reference of {package}: {sorted(public - set(names))}"
    assert not {name for name in names if name.count(".") == 1 and not is_module(name)} - public
    assert not [name for name in public if is_module(name)], "the reference would show the module of that name"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_an_example(package: str) -> None:
    """``tests/test_documents.py`` runs the examples."""
    blocks = (block["code"] for block in BLOCK.finditer(text_of(package)))
    code = re.sub(r"^(from .*?import \([^)]*\)|(from|import) .*?)$", "", "\n".join(blocks), flags=re.MULTILINE)
    unused = [name for name in importlib.import_module(package).__all__ if not re.search(rf"(?<!\w){name}(?!\w)", code)]
    assert not unused, f"docs/reference of {package} has no example of {unused}"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_has_a_docstring(package: str) -> None:
    silent = []
    for name in documented(package):
        thing = found(name)
        if isinstance(thing, ModuleType):
            described = {name: thing} | {
                f"{name}.{key}": member for key, member in vars(thing).items() if is_own(key, member, thing)
            }
        elif inspect.isclass(thing):
            described = {name: thing} | {
                f"{name}.{key}": getattr(thing, key)
                for key, member in vars(thing).items()
                if not key.startswith("_") and (inspect.isfunction(member) or isinstance(member, property))
            }
        else:
            described = {name: thing}
        silent += [key for key, value in described.items() if not inspect.getdoc(value)]
    assert not silent


def found(name: str) -> object:
    """The object of a dotted name."""
    if is_module(name):
        return importlib.import_module(name)
    module, _, last = name.rpartition(".")
    return getattr(importlib.import_module(module), last)


def is_module(name: str) -> bool:
    """Whether a dotted name is that of a module."""
    return (ROOT / f"{name.replace('.', '/')}.py").is_file()


def is_own(key: str, member: object, module: ModuleType) -> bool:
    """Whether a module's member is public and defined there."""
    return not key.startswith("_") and getattr(member, "__module__", "") == module.__name__


@pytest.mark.long
@pytest.mark.parametrize("package", PACKAGES)
def test_an_import_gives_no_warning(package: str) -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", f"import {package}"], check=True)
