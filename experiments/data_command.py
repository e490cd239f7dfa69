"""The command ``data``: a file of training data for operators, made in parts so that it goes on after an interrupt."""

import json as json_module
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from joblib import Parallel, delayed
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from experiments.errors import InvalidArgumentError, unknown_name
from experiments.options import DataOptions
from experiments.records.storage import alone_with, read_object, writable_folder, write_json
from experiments.stages import one_thread
from solvers.data_files.field_set import FieldSet, installed_versions
from solvers.data_files.files import Layout, PDEBench, TheWell, export, load
from solvers.errors import DataFileError
from solvers.problems.operator_problems import OPERATOR_PROBLEMS
from solvers.problems.operator_problems.problem import OperatorProblem
from solvers.problems.operator_problems.samples import join, operator_samples

_SETTINGS = "settings.json"
_PART = 20  # samples of a part


@dataclass(frozen=True, kw_only=True)
class _Set:
    """A set of samples to be made."""

    problem: OperatorProblem
    n: int
    split: Literal["train", "validation", "test"]
    seed: int
    file: Path
    part: int

    @property
    def folder(self) -> Path:
        """Folder of finished parts."""
        return self.file.with_name(f"{self.file.name}.parts")

    @property
    def settings(self) -> dict[str, Any]:
        """All settings that change the samples, as JSON reads it back."""
        problem = {"name": self.problem.name, "equation": self.problem.equation, **asdict(self.problem)}  # pyright: ignore[reportArgumentType]
        content = {"problem": problem, "n": self.n, "split": self.split, "seed": self.seed}
        content |= {"part": self.part, "versions": installed_versions()}
        return json_module.loads(json_module.dumps(content))

    @property
    def parts(self) -> dict[int, Path]:
        """File of every part by its first sample."""
        return {first: self.folder / f"{first:08d}.h5" for first in range(0, self.n, self.part)}


def make_data(name: str, options: DataOptions, json: bool) -> None:
    """Makes a file of training data, and says what it holds."""
    if name not in OPERATOR_PROBLEMS:
        raise unknown_name("problem", name, OPERATOR_PROBLEMS)
    problem = OPERATOR_PROBLEMS[name]
    layout = _layout(problem, options.layout)
    wanted = _Set(
        problem=problem,
        n=options.n or getattr(problem.recipe, options.split),
        split=options.split,
        seed=options.seed,
        file=options.out or Path(f"{name}-{options.split}.h5"),
        part=_PART,
    )
    started = time.monotonic()
    with alone_with(wanted.file):
        _begin(wanted)
        _make_parts(wanted, options.workers)
        whole = join([load(path) for path in wanted.parts.values()])
        export(whole, wanted.file, layout)
        shutil.rmtree(wanted.folder)
    seconds = time.monotonic() - started
    if json:
        samples = operator_samples(whole, problem.inputs)
        shapes = {"inputs": list(samples.inputs.shape), "outputs": list(samples.outputs.shape)}
        content = {**wanted.settings, **shapes, "file": str(wanted.file), "seconds": seconds}
        print(json_module.dumps(content, ensure_ascii=False))
    else:
        print(_summary(wanted, whole, seconds))


def _layout(problem: OperatorProblem, given: str | None) -> Layout:
    unread = problem.dimension > 1 and bool(problem.recipe.times)
    if given == "pdebench" and unread:
        raise InvalidArgumentError(
            f"--layout pdebench cannot hold {problem.name}: PDEBench's loader of fields that change in time in two "
            "axes reads one group per sample, which export does not write; take --layout the-well."
        )
    return TheWell(name=problem.name) if given == "the-well" or (given is None and unread) else PDEBench()


def _begin(wanted: _Set) -> None:
    """Makes the folder of parts, or checks that those that are there belong to the same set."""
    if wanted.file.exists():
        raise InvalidArgumentError(f"--out '{wanted.file}' exists; choose another file, or delete it.")
    path = writable_folder(wanted.folder) / _SETTINGS
    if not path.exists():
        write_json(path, wanted.settings)
        return
    stored, settings = read_object(path), wanted.settings
    changed = [key for key in settings if stored.get(key) != settings[key]]
    if changed:
        raise InvalidArgumentError(
            f"'{wanted.folder}' holds parts of a set with other settings ({', '.join(changed)}): go on with "
            f"{', '.join(f'{key} {_short(stored.get(key))}' for key in changed)}, choose another --out, or delete it."
        )


def _short(value: Any) -> str:
    return str(value["name"] if isinstance(value, dict) else value)


def _make_parts(wanted: _Set, workers: int) -> None:
    """Makes the parts that are missing or damaged."""
    with _progress(wanted.n) as bar:
        task = bar.add_task("", total=wanted.n)
        missing = []
        for first, path in wanted.parts.items():
            if _is_whole(path):
                bar.advance(task, _count(wanted, first))
            else:
                missing.append(first)
        make = partial(_make_part, wanted)
        made: Iterator[int] = Parallel(n_jobs=workers, return_as="generator_unordered")(  # pyright: ignore[reportAssignmentType]
            delayed(make)(first) for first in missing
        )
        for first in made:
            bar.advance(task, _count(wanted, first))


def _make_part(wanted: _Set, first: int) -> int:
    """Makes and stores one part, in double precision."""
    with one_thread():
        part = wanted.problem.sample(_count(wanted, first), first=first, split=wanted.split, seed=wanted.seed)
    export(part, wanted.parts[first], PDEBench(precision=torch.float64))
    return first


def _count(wanted: _Set, first: int) -> int:
    return min(wanted.part, wanted.n - first)


def _is_whole(path: Path) -> bool:
    try:
        load(path)
    except (FileNotFoundError, DataFileError):
        return False
    return True


def _progress(total: int) -> Progress:
    """A bar on standard error that counts samples."""
    columns = (MofNCompleteColumn(), BarColumn(20), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=total == 0)


def _summary(wanted: _Set, whole: FieldSet, seconds: float) -> str:
    """Summary of the file: its arrays, their shapes, and how to read it."""
    problem, file = wanted.problem, wanted.file
    samples = operator_samples(whole, problem.inputs)
    default = samples.input_names == operator_samples(whole).input_names
    times = f"{len(samples.times)} times up to {problem.recipe.times[-1]:g}" if problem.recipe.times else "steady"
    sides = "; ".join(f"{first}, {last}" for first, last in samples.kinds)
    inputs = "" if default else f", inputs={json_module.dumps(problem.inputs)}"
    return f"""{problem.name}: {problem.equation}
Random: {problem.data}

{wanted.n} samples ({wanted.split}, seed {wanted.seed}), solved on {_product(problem.cells().count)} cells
inputs    {_product(samples.inputs.shape):<26}{", ".join(samples.input_names)}
outputs   {_product(samples.outputs.shape):<26}{", ".join(samples.output_names)}; {times}
sides     {sides}

File: {file} ({file.stat().st_size / 1e6:.1f} MB, {seconds:.0f} s)
Read it:
    from solvers.problems.operator_problems.samples import load_samples
    samples = load_samples({json_module.dumps(str(file), ensure_ascii=False)}{inputs})
    samples.inputs, samples.boundary, samples.outputs"""


def _product(sizes: Sequence[int]) -> str:
    return " × ".join(str(size) for size in sizes)
