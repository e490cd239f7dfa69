"""``export`` writes a set of solutions to an HDF5 file that others' loaders read, ``load`` reads it back; the layouts
of PDEBench and of The Well.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from solvers.data_files.field_set import CATEGORIES, FieldSet, collect
from solvers.errors import DataFileError, InvalidArgumentError
from solvers.finite_volume.solve import Solution
from solvers.grids import CellGrid, Grid, NodeGrid
from solvers.steady.solve import SteadySolution
from solvers.systems.solution import SystemSolution
from solvers.tensor_files import existing, replacing

_AXES = "xyz"
_WELL_KINDS = {"Periodic": "PERIODIC", "Outflow": "OPEN"}  # all others are walls
_PRECISIONS = (torch.float32, torch.float64)
_METADATA = "probconserv_boon"
_FORMAT = 1
_HDF5_ERRORS = (OSError, KeyError, OverflowError, RuntimeError, TypeError, ValueError)  # of h5py for damaged files


class Layout(ABC):
    """Places of the arrays of a ``FieldSet``."""

    @abstractmethod
    def write(self, file: h5py.File, data: FieldSet) -> dict[str, dict[str, str]]:
        """Writes the arrays.

        Args:
            file: An empty file.
            data: The samples.

        Returns:
            Path in the file of every array, by category and name.

        Raises:
            InvalidArgumentError: If the layout has no place for an array.
        """


@dataclass(frozen=True)
class PDEBench(Layout):
    """The layout of PDEBench (Takamoto et al. 2022) for one scalar field or for several.

    One field is ``tensor`` (b, t, *space), several have their own names; coordinates are ``x-coordinate`` … and
    ``t-coordinate``; the coefficient ``conductivity`` is ``nu`` (b, *space), as in 2-D Darcy flow. PDEBench's loader
    reads ``tensor`` in one axis, and in two axes for Darcy flow with ``nu``; for what changes in time in two axes take
    ``TheWell``.

    Args:
        precision: ``torch.float32`` as in PDEBench, or ``torch.float64``.

    Raises:
        InvalidArgumentError: If the precision is another.
    """

    precision: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        _check_precision(self.precision)

    def write(self, file: h5py.File, data: FieldSet) -> dict[str, dict[str, str]]:
        if data.vectors:
            raise InvalidArgumentError(
                f"PDEBench has no vector fields; give the components of {sorted(data.vectors)} as fields, or take "
                "TheWell()."
            )
        for letter, points in zip(_axis_names(data), data.grid.axes, strict=True):
            file[f"{letter}-coordinate"] = _stored(points, self.precision, letter)
        file["t-coordinate"] = _stored(data.times, self.precision, "times")
        fields = {name: "tensor" if len(data.fields) == 1 else name for name in data.fields}
        coefficients = {name: "nu" if name == "conductivity" else name for name in data.coefficients}
        paths = {"fields": fields, "coefficients": coefficients}
        paths |= {c: {name: name for name in getattr(data, c)} for c in ("parameters", "extras")}
        taken = {f"{letter}-coordinate" for letter in "txyz"}
        for category, places in paths.items():
            for name, path in places.items():
                if path in taken:
                    raise InvalidArgumentError(f"The name {name!r} is taken by PDEBench's own {path!r}; rename it.")
                taken.add(path)
                file[path] = _stored(getattr(data, category)[name], self.precision, path)
        return paths


@dataclass(frozen=True)
class TheWell(Layout):
    """The layout of The Well (Ohana et al. 2024): groups by tensor order, with what varies as attributes.

    Fields are in ``t0_fields``, vectors in ``t1_fields``, coefficients in ``t0_fields`` as constant in time, parameters
    in ``scalars``, other arrays in a group ``extras`` that The Well's loader passes over. Periodic sides are PERIODIC,
    outflow is OPEN, all other conditions are WALL; sides of unknown kind are left out and read as open. The
    Well's loader takes windows of at least two times, so steady problems are better in ``PDEBench``.

    Args:
        name: Name of the data set.
        precision: ``torch.float32`` as in The Well, or ``torch.float64``.

    Raises:
        InvalidArgumentError: If the precision is another.
    """

    name: str = "dataset"
    precision: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        _check_precision(self.precision)

    def write(self, file: h5py.File, data: FieldSet) -> dict[str, dict[str, str]]:
        file.attrs["dataset_name"] = self.name
        file.attrs["grid_type"] = "cartesian"
        file.attrs["n_spatial_dims"] = data.grid.dimension
        file.attrs["n_trajectories"] = data.samples
        _set_texts(file, "simulation_parameters", [])
        self._write_dimensions(file, data)
        _write_boundary(file, data)
        paths = {
            "fields": {name: f"t0_fields/{name}" for name in data.fields},
            "vectors": {name: f"t1_fields/{name}" for name in data.vectors},
            "coefficients": {name: f"t0_fields/{name}" for name in data.coefficients},
            "parameters": {name: f"scalars/{name}" for name in data.parameters},
            "extras": {name: f"extras/{name}" for name in data.extras},
        }
        for group in ("t0_fields", "t1_fields", "t2_fields", "scalars"):
            within = [p for places in paths.values() for p in places.values() if p.startswith(f"{group}/")]
            _set_texts(file.create_group(group), "field_names", [PurePosixPath(path).name for path in within])
        for category, places in paths.items():
            for name, path in places.items():
                numbers = _stored(getattr(data, category)[name], self.precision, path)
                written = file.create_dataset(path, data=numbers)
                written.attrs["sample_varying"] = True
                written.attrs["time_varying"] = category in ("fields", "vectors")
                if path.startswith("t"):
                    written.attrs["dim_varying"] = np.ones(data.grid.dimension, dtype=bool)
        return paths

    def _write_dimensions(self, file: h5py.File, data: FieldSet) -> None:
        group, letters = file.create_group("dimensions"), _axis_names(data)
        _set_texts(group, "spatial_dims", letters)
        group["time"] = _stored(data.times, self.precision, "times")
        group["time"].attrs["sample_varying"] = False
        for letter, points in zip(letters, data.grid.axes, strict=True):
            group[letter] = _stored(points, self.precision, letter)
            group[letter].attrs["sample_varying"] = False
            group[letter].attrs["time_varying"] = False


def _write_boundary(file: h5py.File, data: FieldSet) -> None:
    """One group per axis whose sides are of one type, else one per side."""
    group = file.create_group("boundary_conditions")
    for letter, pair, count in zip(_axis_names(data), data.boundary, data.grid.count, strict=False):
        kinds = [_WELL_KINDS.get(kind, "WALL") for kind in pair]
        sides = {letter: (kinds[0], [0, -1])}
        if kinds[0] != kinds[1]:
            sides = {f"{letter}_first": (kinds[0], [0]), f"{letter}_last": (kinds[1], [-1])}
        for name, (kind, ends) in sides.items():
            side = group.create_group(name)
            _set_texts(side, "associated_dims", [letter])
            _set_texts(side, "associated_fields", [])
            side.attrs["bc_type"] = kind
            side.attrs["sample_varying"] = False
            side.attrs["time_varying"] = False
            mask = np.zeros(count, dtype=bool)
            mask[ends] = True
            side["mask"] = mask


def _stored(array: Tensor, precision: torch.dtype, name: str) -> np.ndarray:
    converted = array.detach().to("cpu", precision)
    if not bool(torch.isfinite(converted).all()):
        raise InvalidArgumentError(f"{name} does not fit float32; take precision=torch.float64.")
    return converted.numpy()


def _axis_names(data: FieldSet) -> Sequence[str]:
    if data.grid.dimension > len(_AXES):
        raise InvalidArgumentError(f"Data files hold up to 3 axes, got {data.grid.dimension}.")
    return list(_AXES[: data.grid.dimension])


def _set_texts(item: h5py.Group, name: str, texts: Sequence[str]) -> None:
    item.attrs.create(name, np.array(texts, dtype=object), dtype=h5py.string_dtype())


def _check_precision(precision: torch.dtype) -> None:
    if precision not in _PRECISIONS:
        raise InvalidArgumentError(f"precision must be torch.float32 or torch.float64, got {precision}.")


def export(
    data: FieldSet | Solution | SteadySolution | SystemSolution, path: str | Path, layout: Layout | None = None
) -> None:
    """Writes samples to an HDF5 file, completely or not at all.

    Beside the layout's own data sets, the file has the attributes ``equation``, ``boundary``, ``seed`` and ``versions``
    and a text ``probconserv_boon`` with what ``load`` needs, checksums among it. The layouts store 32-bit numbers
    unless stated otherwise.

    Args:
        data: A ``FieldSet``, or a solution, for which ``collect`` makes one without further details.
        path: The file; its folder must exist. A file that is there is replaced.
        layout: ``PDEBench()`` by default, or ``TheWell()``.

    Raises:
        InvalidArgumentError: If data or layout have another type, or the layout has no place for an array.
        OSError: If the folder cannot be written.
    """
    layout = PDEBench() if layout is None else layout
    if isinstance(data, Solution | SteadySolution | SystemSolution):
        data = collect(data)
    if not isinstance(data, FieldSet):
        raise InvalidArgumentError(f"data must be a FieldSet or a solution, got {type(data).__name__}; see collect.")
    if not isinstance(layout, Layout):
        raise InvalidArgumentError(f"layout must be PDEBench() or TheWell(), got {layout!r}.")
    with replacing(Path(path)) as temporary, h5py.File(temporary, "w") as file:
        _describe(file, data, layout.write(file, data), layout)


def load(path: str | Path) -> FieldSet:
    """Reads a file that ``export`` wrote, in whichever layout.

    Args:
        path: The file. Read files of your own only: the HDF5 library may crash on one that is made to damage.

    Returns:
        The samples, float64; rounded to 32 bits if they were stored so.

    Raises:
        DataFileError: If the file is damaged or not by ``export``; the text names it.
        MissingFileError: If there is no such file.
    """
    path = existing(path)
    try:
        with h5py.File(path, "r") as file:
            text = file[_METADATA][()] if _METADATA in file else None  # pyright: ignore[reportIndexIssue]
            if not isinstance(text, bytes):
                raise DataFileError(f"{path} was not written by export: it has no text {_METADATA!r}.")
            if hashlib.sha256(text).hexdigest() != file[_METADATA].attrs["sha256"]:
                raise ValueError("its text does not have its checksum")
            return _read(file, json.loads(text))
    except DataFileError:
        raise
    except _HDF5_ERRORS as problem:
        raise DataFileError(f"{path} is damaged ({problem}); write it again.") from problem


def _describe(file: h5py.File, data: FieldSet, paths: dict[str, dict[str, str]], layout: Layout) -> None:
    """Writes the attributes and the text that ``load`` needs."""
    grid = data.grid
    metadata: dict[str, Any] = {
        "format": _FORMAT,
        "layout": type(layout).__name__,
        "grid": {"location": grid.location, "low": grid.low, "high": grid.high, "count": grid.count},
        "times": data.times.tolist(),
        "paths": paths,
        "checksums": {path: _checksum(_numbers(file, path)) for places in paths.values() for path in places.values()},
        "boundary": data.boundary,
        "equation": data.equation,
        "seed": data.seed,
        "versions": dict(data.versions),
    }
    text = json.dumps(metadata)
    file[_METADATA] = text
    file[_METADATA].attrs["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    file.attrs["equation"] = data.equation
    file.attrs["seed"] = "" if data.seed is None else data.seed
    file.attrs["boundary"] = json.dumps(data.boundary)
    file.attrs["versions"] = json.dumps(dict(data.versions))


def _read(file: h5py.File, metadata: dict[str, Any]) -> FieldSet:
    if metadata["format"] != _FORMAT:
        raise ValueError(f"its format is {metadata['format']}, this version reads {_FORMAT}")
    extent = metadata["grid"]
    kind: type[Grid] = {"cell": CellGrid, "node": NodeGrid}[extent["location"]]
    arrays = {
        category: {
            name: _read_array(file, path, metadata["checksums"][path])
            for name, path in metadata["paths"].get(category, {}).items()
        }
        for category in CATEGORIES
    }
    return FieldSet(
        grid=kind(extent["low"], extent["high"], extent["count"]),  # pyright: ignore[reportCallIssue]
        times=torch.tensor(metadata["times"], dtype=torch.float64),
        boundary=tuple((first, last) for first, last in metadata["boundary"]),
        equation=metadata["equation"],
        seed=metadata["seed"],
        versions=metadata["versions"],
        **arrays,
    )


def _read_array(file: h5py.File, path: str, checksum: str) -> Tensor:
    numbers = _numbers(file, path)
    if _checksum(numbers) != checksum:
        raise ValueError(f"{path!r} does not have its checksum")
    return torch.from_numpy(numbers).to(torch.float64)


def _numbers(file: h5py.File, path: str) -> np.ndarray:
    dataset = file[path]
    if not isinstance(dataset, h5py.Dataset):
        raise TypeError(f"{path!r} is not a data set")
    return np.asarray(dataset[()])


def _checksum(numbers: np.ndarray) -> str:
    described = f"{numbers.dtype.str} {numbers.shape}".encode()
    return hashlib.sha256(described + np.ascontiguousarray(numbers).tobytes()).hexdigest()
