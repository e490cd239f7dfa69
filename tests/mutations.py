"""Mutations of modules drawn with a seed, and which of them tests catch.

    python -m tests.mutations --count 20 --seed 0 probconserv/update.py -- tests/probconserv/update

A mutation changes one operator, comparison or number. It is tried in a copy of the repository, so that nothing is left
changed; the tests run with ``-x`` and the arguments after ``--``.
"""

import argparse
import ast
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SWAPS = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Lt: ast.GtE, ast.LtE: ast.Gt,
    ast.Gt: ast.LtE, ast.GtE: ast.Lt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.And: ast.Or, ast.Or: ast.And,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.USub: ast.UAdd, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip


def sites(tree: ast.Module) -> list[ast.AST]:
    """Nodes that can be changed: operators and numbers within functions."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    bodies = [node for function in functions for part in function.body for node in ast.walk(part)]
    return [node for node in dict.fromkeys(bodies) if _changed(node) is not None]


def _changed(node: ast.AST) -> tuple[str, object] | None:
    """Field of a node, and its new value."""
    if isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp) and type(node.op) in SWAPS:
        return "op", SWAPS[type(node.op)]()
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        return "ops", [SWAPS[type(node.ops[0])](), *node.ops[1:]]
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        return "value", not node.value if isinstance(node.value, bool) else node.value + 1
    return None


def mutated(source: str, number: int) -> tuple[str, str]:
    """The source with one site changed, and what changed in a line."""
    tree = ast.parse(source)
    node = sites(tree)[number]
    before = ast.unparse(node)
    name, value = _changed(node) or ("", None)
    setattr(node, name, value)
    return ast.unparse(tree), f"{node.lineno}: {before} → {ast.unparse(node)}"  # type: ignore[attr-defined]


def main() -> None:
    """Draws mutations, tries them one after the other, and says which were caught."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    options, tests = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    found = [[ROOT / path] if path.suffix else (ROOT / path).rglob("*.py") for path in options.paths]
    files = sorted(file for files in found for file in files)
    every = [(file, number) for file in files for number in range(len(sites(ast.parse(file.read_text()))))]
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.safetensors"))
        caught = 0
        for file, number in random.Random(options.seed).sample(every, options.count):
            source = file.read_text()
            text, said = mutated(source, number)
            target = copy / file.relative_to(ROOT)
            target.write_text(text)
            command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
            try:
                failed = subprocess.run(command, cwd=copy, capture_output=True, timeout=600).returncode != 0
            except subprocess.TimeoutExpired:  # a search that does not end
                failed = True
            target.write_text(source)
            caught += failed
            print("caught  " if failed else "SURVIVED", file.relative_to(ROOT), said, flush=True)
    print(f"{caught} of {options.count} caught")


if __name__ == "__main__":
    main()
