"""Laws on the variables of an ``xarray.Dataset``, by the names of dimensions and coordinates."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray  # pyright: ignore[reportMissingImports] - an optional package
from torch import Tensor

from probconserv.errors import InvalidArgumentError
from probconserv.fields._variables import SharedLaw, condition_variables

_LATITUDES, _LONGITUDES = ("lat", "latitude", "rlat"), ("lon", "longitude", "rlon")


@dataclass(frozen=True, eq=False)
class Budget:
    """The law Σ weight · coefficient · value = total, summed over variables and over places.

    Args:
        terms: Name of a variable, or names with coefficients: numbers, or a ``DataArray`` such as the mass of layers.
        total: A number, or a ``DataArray`` over dimensions that the sum leaves, such as time.
        weights: A number for all places, 1 for a plain sum, or a ``DataArray``, 0 where a place does not count. Without
            it they are fractions of the area, see ``area_fractions``, so that the total is a mean over the area.
        units: Units that variables must have in their attributes; those of the total by default, if it has some and is
            about one variable. Variables whose coefficients are 1 or −1 must have the same.
    """

    terms: str | Mapping[str, Any]
    total: Any
    weights: Any = None
    units: Mapping[str, str] | None = None

    @property
    def coefficients(self) -> dict[str, Any]:
        """Coefficients by variable."""
        return {self.terms: 1.0} if isinstance(self.terms, str) else dict(self.terms)

    def check(self, dataset: Any, dims: Sequence[str]) -> None:
        """Refuses variables in other units, also to add them as they are, and a total that does not fit them."""
        total = self.total
        outer = {dim for name in self.coefficients for dim in dataset[name].dims} - set(dims)
        if np.ndim(total) and not set(getattr(total, "dims", (None,))) <= outer:
            raise InvalidArgumentError(
                f"The total of {self.terms} must be a number, or a DataArray over dimensions among {sorted(outer)}, "
                f"got {getattr(total, 'dims', np.shape(total))}."
            )
        if not np.isfinite(total).all():
            raise InvalidArgumentError(
                f"The total of {self.terms} holds NaN or infinite entries; repair them, or leave out the data there."
            )
        of_total = getattr(total, "attrs", {}).get("units")
        stated = {self.terms: of_total} if of_total and isinstance(self.terms, str) else {}
        for name, expected in (self.units or stated).items():
            units = dataset[name].attrs.get("units")
            if _plain(units) != _plain(expected):
                raise InvalidArgumentError(
                    f"'{name}' must be in {expected!r}, but its attribute units is {units!r}; convert it and set that."
                )
        added = [name for name, factor in self.coefficients.items() if not np.ndim(factor) and factor in (1, -1)]
        of_added = {name: dataset[name].attrs.get("units") for name in added}
        if len({_plain(units) for units in of_added.values() if units}) > 1:
            raise InvalidArgumentError(
                f"The law adds variables in different units, {of_added}; convert them, or give coefficients that do."
            )

    def rows(self, dataset: Any, dims: Sequence[str]) -> dict[str, Any]:
        """Weight times coefficient of every place, by variable."""
        rows, fractions = {}, area_fractions(dataset, dims) if self.weights is None else None
        for name, coefficient in self.coefficients.items():
            along = [dim for dim in dataset[name].dims if dim in dims]
            if fractions is None:
                weights: Any = xarray.DataArray(self.weights)
                if not weights.ndim:
                    weights = weights * xarray.DataArray(np.ones([dataset.sizes[dim] for dim in along]), dims=along)
            else:
                weights = fractions.sum([dim for dim in fractions.dims if dim not in along])
            rows[name] = weights * xarray.DataArray(coefficient)
            lacking, beyond = set(along) - set(rows[name].dims), set(rows[name].dims) - set(dataset[name].dims)
            if lacking or beyond:
                raise InvalidArgumentError(
                    f"The weights of '{name}' lack its dimensions {sorted(lacking)} and have others, {sorted(beyond)}; "
                    "give weights=1 for a plain sum or a DataArray over all dimensions, or multiply the coefficient by "
                    "the sizes of cells along each, a DataArray."
                )
            if not np.isfinite(rows[name]).all():
                raise InvalidArgumentError(f"The weights of '{name}' hold NaN; fill them with 0 where nothing counts.")
        return rows


def area_fractions(dataset: Any, dims: Sequence[str]) -> Any:
    """Fractions of the area, a ``DataArray`` over those of the dimensions that are latitudes and longitudes.

    Their sum is 1. Faces are midway between the latitudes and end at the poles, or come from the ``bounds`` of the
    coordinate (CF conventions), which is known by ``standard_name`` or by name: lat, latitude, lon, longitude.
    """
    result = xarray.DataArray(1.0)
    for dim in dims:
        name = dataset[dim].attrs.get("standard_name", dim)
        if name.removeprefix("grid_") in _LATITUDES:
            faces = np.sin(np.deg2rad(np.clip(_faces(dataset, dim, 90.0), -90, 90)))
        elif name.removeprefix("grid_") in _LONGITUDES:
            faces = _faces(dataset, dim, 720.0)
            if np.abs(np.diff(faces)).sum() > 360.001:
                raise InvalidArgumentError(f"'{dim}' goes around the globe and further; leave out what comes twice.")
        else:
            continue
        size = np.abs(np.diff(faces, axis=-1))[:, 0]
        result = result * xarray.DataArray(size / size.sum(), dims=dim, coords={dim: dataset[dim]})
    return result


def _faces(dataset: Any, dim: str, limit: float) -> np.ndarray:
    """First and last face of every cell along a coordinate in degrees ``(n, 2)``."""
    if dim not in dataset.coords:
        raise InvalidArgumentError(f"Dimension '{dim}' has no coordinate to make weights of; give weights.")
    coordinate = dataset[dim]
    units, centres = coordinate.attrs.get("units", ""), coordinate.values.astype(float)
    steps, largest = np.diff(centres), np.abs(centres).max()
    if not units.startswith("degree") and (units or (limit == 90 and largest <= np.pi / 2)):
        raise InvalidArgumentError(
            f"'{dim}' must be in degrees, but its attribute units is {units!r} and its largest value {largest:g}; "
            "convert it and set units to 'degrees'."
        )
    if not largest <= limit or not ((steps > 0).all() or (steps < 0).all()):
        raise InvalidArgumentError(
            f"'{dim}' must increase or decrease, within ±{limit:g} degrees, got {centres[:3]} … {centres[-1]}; sort it."
        )
    if coordinate.attrs.get("bounds") in dataset:
        return dataset[coordinate.attrs["bounds"]].transpose(dim, ...).values.astype(float)
    if len(centres) == 1:
        return centres[:, None] + [[-0.5, 0.5]]
    faces = np.concatenate([[centres[0] - steps[0] / 2], centres[1:] - steps / 2, [centres[-1] + steps[-1] / 2]])
    return np.stack([faces[:-1], faces[1:]], axis=-1)


def constrain(
    data: Any,
    laws: Budget | Iterable[Budget],
    dims: str | Sequence[str],
    *,
    std: Any = None,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    at_most: Mapping[str, str] | None = None,
    return_std: bool = False,
) -> Any:
    """The most probable data under the laws: each value moves in proportion to its variance; see ``condition``.

    Dimensions, coordinates, attributes and precision stay, and so do values that are missing where no weight is.
    Chunks of dask along other dimensions than ``dims`` are corrected one by one, when they are computed.

    Args:
        data: A ``Dataset``, or a ``DataArray`` with a name.
        laws: Budgets that hold together.
        dims: Dimensions over which they sum; one set of laws for every index of the others, such as time.
        std: Standard deviations: a ``Dataset``, or by variable numbers, ``DataArray``s or arrays over its last
            dimensions; for one variable that alone. Errors are independent, so that of equally uncertain cells a small
            one moves less: divide by the root of ``area_fractions`` if all shall move alike. Without it, for one law of
            one variable, all that have a weight move alike.
        bounds: Lowest and highest value of variables, None for no bound.
        at_most: Pairs {"frozen": "total"} of variables, the first nowhere above the second; chains of pairs hold around
            values that are missing, which move nothing themselves.
        return_std: Whether the standard deviations under the laws come with the data, from 500 draws where bounds hold;
            needs ``std``.

    Returns:
        The data; with ``return_std`` a pair of them and the deviations of the variables, a ``Dataset`` as well, or a
        ``DataArray`` if the data are one.

    Raises:
        InvalidArgumentError: If a name, a unit or a coordinate does not fit, values with a weight are missing, or
            chunks cut ``dims``; where the data are chunks of dask, missing values are found when they are computed.
    """
    if isinstance(data, xarray.DataArray) and data.name is not None:
        options = {"std": std, "bounds": bounds, "at_most": at_most, "return_std": return_std}
        result = constrain(data.to_dataset(), laws, dims, **options)
        return tuple(part[data.name] for part in result) if return_std else result[data.name]
    if not isinstance(data, xarray.Dataset):
        raise InvalidArgumentError(
            f"data must be a Dataset, or a DataArray with a name, got {type(data).__name__}; the laws are about names."
        )
    laws = list(laws) if isinstance(laws, Iterable) else [laws]
    dims = [dims] if isinstance(dims, str) else list(dims)
    if not dims or not laws or not all(isinstance(law, Budget) for law in laws):
        raise InvalidArgumentError(f"constrain needs at least one Budget and one dimension, got {laws} and {dims}.")
    for name, pair in (bounds or {}).items():
        if isinstance(pair, str) or getattr(pair, "__len__", int)() != 2:
            raise InvalidArgumentError(
                f"bounds of '{name}' must be a pair (lowest, highest) with None for no bound, such as (0, None), got "
                f"{pair!r:.60}."
            )
    pairs = dict(at_most or {})
    named = [*(name for law in laws for name in law.coefficients), *(bounds or {}), *pairs, *pairs.values()]
    names = list(dict.fromkeys(named))
    check_variables(data, names, dims)
    check_pairs(data, pairs, dims)
    cores = [[dim for dim in dims if dim in data[name].dims] for name in names]
    if std is not None and not isinstance(std, Mapping) and len(names) == 1:
        std = {names[0]: std}
    if return_std and std is None:
        raise InvalidArgumentError("return_std needs std, from which deviations under the laws follow; give both.")
    rows, deviations, totals = _aligned(data, laws, dims, names, std)

    def update(*parts: np.ndarray) -> Any:
        given = iter(parts)
        means, spreads = (
            {name: _flat(next(given), core) for name, core in zip(names, cores, strict=True)} for _ in range(2)
        )
        entries = [{name: _flat(next(given), cores[names.index(name)]) for name in law} for law in rows]
        shared = [SharedLaw(law, _flat(next(given), [])[..., 0]) for law in entries]
        found = condition_variables(means, spreads, shared, bounds or {}, pairs)
        fields = [found.values, *([found.deviations] if return_std else [])]
        changed = [
            field[name].reshape(part.shape).numpy().astype(part.dtype)
            for field in fields
            for name, part in zip(names, parts, strict=False)
        ]
        return tuple(changed) if len(changed) > 1 else changed[0]

    results = xarray.apply_ufunc(
        update,
        *(data[name] for name in names),
        *deviations,
        *(row for law in rows for row in law.values()),
        *totals,
        input_core_dims=[
            *cores,
            *cores,
            *(cores[names.index(name)] for law in rows for name in law),
            *[[]] * len(laws),
        ],
        output_core_dims=cores * (1 + return_std),
        output_dtypes=[data[name].dtype for name in names] * (1 + return_std),
        dask="parallelized",
    )
    results = results if isinstance(results, tuple) else (results,)
    corrected, *deviating = (
        {
            name: data[name].copy(data=part.transpose(*data[name].dims).data)
            for name, part in zip(names, results[first : first + len(names)], strict=True)
        }
        for first in range(0, len(results), len(names))
    )
    return (data.assign(corrected), data[names].assign(deviating[0])) if return_std else data.assign(corrected)


def check_variables(data: Any, names: Sequence[str], dims: Sequence[str]) -> None:
    """Refuses names that are not there, and variables that the laws cannot join."""
    absent = [name for name in names if name not in data.data_vars] or [dim for dim in dims if dim not in data.dims]
    if absent:
        raise InvalidArgumentError(
            f"laws and dims name {absent}, but data has the variables {list(data.data_vars)} and the "
            f"dimensions {list(data.dims)}."
        )
    outer = set(data[names[0]].dims) - set(dims)
    for name in names:
        variable = data[name]
        if variable.dtype.kind != "f" or not set(variable.dims) & set(dims) or set(variable.dims) - set(dims) != outer:
            raise InvalidArgumentError(
                f"'{name}' is {variable.dtype} with the dimensions {variable.dims}; the laws join real variables "
                f"with some of {list(dims)} and all of {sorted(outer)}."
            )
        cut = [dim for dim in dims if len(variable.chunksizes.get(dim, ())) > 1]
        if cut:
            raise InvalidArgumentError(
                f"'{name}' has several chunks along {cut}, over which the laws sum; join them by "
                f".chunk({dict.fromkeys(cut, -1)})."
            )


def check_pairs(data: Any, pairs: Mapping[str, str], dims: Sequence[str]) -> None:
    """Refuses to compare variables that differ in places or units."""
    for each in pairs.items():
        places = [set(data[name].dims) & set(dims) for name in each]
        units = {_plain(data[name].attrs.get("units")) for name in each}
        if places[0] != places[1] or len(units) > 1:
            raise InvalidArgumentError(
                f"at_most compares variables with the same places and units, but {each} have {places} and {units}."
            )


def check_coordinates(*parts: Any) -> None:
    """Refuses arrays whose dimensions have other coordinates, since arithmetic would cut them to what is common."""
    try:
        xarray.align(*(part for part in parts if hasattr(part, "dims")), join="exact")
    except ValueError as error:
        raise InvalidArgumentError(
            f"Coordinates of data, weights, std and totals must be equal; bring all to one grid ({error})."
        ) from error


def _aligned(data: Any, laws: Sequence[Budget], dims: Sequence[str], names: Sequence[str], std: Any) -> Any:
    """Rows, standard deviations and totals, on the coordinates of the data."""
    stated = list(std) if isinstance(std, Mapping) else []
    if not set(names) <= set(stated) and not (std is None and len(names) == len(laws) == 1):
        raise InvalidArgumentError(
            f"std must say how uncertain each of {names} is, by a Dataset or {{name: deviation}}, got "
            f"{stated or type(std).__name__}."
        )
    unknown = [name for name in stated if name not in data.data_vars]
    if unknown:
        raise InvalidArgumentError(
            f"std names {unknown}, but data has the variables {list(data.data_vars)}; correct them or leave them out."
        )
    spreads = [std[name] for name in names] if std is not None else []
    for law in laws:
        check_coordinates(data[names], law.total, law.weights, *law.coefficients.values(), *spreads)
        law.check(data, dims)
    rows = [law.rows(data, dims) for law in laws]
    if std is None:
        weights = abs(rows[0][names[0]])
        spreads = [weights.where(weights > 0, np.inf) ** -0.5]
    deviations = [deviation_like(data[name], spread, dims) for name, spread in zip(names, spreads, strict=True)]
    return rows, deviations, [xarray.DataArray(law.total) for law in laws]


def deviation_like(variable: Any, std: Any, dims: Sequence[str]) -> Any:
    """A standard deviation at every place that the laws sum over."""
    if not hasattr(std, "dims"):
        std = np.asarray(std)
        along = variable.dims[variable.ndim - std.ndim :]
        if std.shape != tuple(variable.sizes[dim] for dim in along):
            raise InvalidArgumentError(
                f"std of '{variable.name}' must be a number or a DataArray, whose axes have names, or an array over "
                f"its last dimensions {dict(variable.sizes)}, got an array {std.shape}."
            )
        std = xarray.DataArray(std, dims=along)
    if bool(std.isnull().any()):
        raise InvalidArgumentError(
            f"std of '{variable.name}' holds {int(std.isnull().sum())} missing values; fill them, with any number "
            "where the data are missing, as by .fillna(1)."
        )
    units = [each.attrs.get("units") for each in (variable, std)]
    if (
        not set(std.dims) <= set(variable.dims)
        or (all(units) and len(set(map(_plain, units))) > 1)
        or not bool((std >= 0).all())
    ):
        raise InvalidArgumentError(
            f"std of '{variable.name}' must not be negative, have dimensions of {variable.dims} and its units "
            f"{units[0]!r}; got {std.dims}, {units[1]!r} and a smallest value of {float(std.min()):g}."
        )
    return std.broadcast_like(variable.isel({dim: 0 for dim in variable.dims if dim not in (*dims, *std.dims)}))


def _plain(units: str | None) -> str | None:
    """Units in one of their spellings."""
    return units and units.replace("**", "").replace("^", "").replace("kg kg-1", "1")


def _flat(values: np.ndarray, core: Sequence[str]) -> Tensor:
    """Values with the core dimensions, the last ones, as one."""
    tensor = torch.from_numpy(np.array(values, dtype=np.float64))
    return tensor.flatten(-len(core)) if core else tensor[..., None]
