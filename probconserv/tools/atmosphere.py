"""A corrector of weather and climate models: budgets of dry air, moisture and energy on named variables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
import xarray  # pyright: ignore[reportMissingImports] - an optional package
from torch import Tensor

from probconserv.errors import InvalidArgumentError
from probconserv.fields.atmosphere import AtmosphereFixer, StepBudgets
from probconserv.tools.labelled import (
    Budget,
    area_fractions,
    check_coordinates,
    check_pairs,
    check_variables,
    deviation_like,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Atmosphere(StepBudgets):
    """``AtmosphereFixer`` on the variables of a ``Dataset``: budgets of a step, and the step that keeps them.

    Args:
        a: Part of the thickness that does not depend on the surface pressure, Pa, a ``DataArray`` over levels.
        b: Part that is proportional to it; 0 on levels of constant pressure.
        area: Dimensions of a level: latitudes and longitudes.

    Further arguments are those of ``StepBudgets``.
    """

    a: Any
    b: Any = 0.0
    area: tuple[str, ...] = ("lat", "lon")

    def __post_init__(self) -> None:
        super().__post_init__()
        dims = [getattr(part, "dims", ()) for part in (self.a, self.b)]
        if len(dims[0]) != 1 or dims[1] not in ((), dims[0]):
            raise InvalidArgumentError(
                "Atmosphere needs a, a DataArray over the levels, and b like it or a number; got the dimensions "
                f"{dims[0]} and {dims[1]}."
            )

    def contents(self, data: Any) -> dict[str, Any]:
        """Dry air and water (kg m⁻²) and energy (J m⁻²) of a column, means over the area."""
        state = self._checked(data, self.state_units)
        return self._applied(self._fixer(data).contents, [state], self._means)

    def missed(self, before: Any, after: Any) -> dict[str, Any]:
        """How far a step is from its budgets, in the units of ``contents``."""
        states = self._checked(before, self.state_units), self._checked(after, self.state_units | self.flux_units)
        check_coordinates(*states)
        return self._applied(self._fixer(after).missed, states, self._means)

    def correct(self, before: Any, after: Any, std: Any) -> tuple[Any, Any]:
        """The step that keeps all budgets, and what it differs by from the one that was predicted.

        Args:
            before: ``Dataset`` at the start of the step; of several steps at once, with the times of ``after``.
            after: The predicted ``Dataset`` at its end, with the fluxes during it.
            std: Standard deviations by variable, numbers or ``DataArray``s, for instance over levels: of temperature,
                humidity, surface pressure and every flux; of cells with the same area, so that the size of a cell has
                no part in how far its values move. 0 leaves a variable as it is.

        Raises:
            InvalidArgumentError: See ``constrain``.
        """
        moved, dims = self.corrected, self._dims
        start = self._checked(before, self.state_units)
        end = self._checked(after, self.state_units | self.flux_units)
        if not set(moved) <= set(std):
            raise InvalidArgumentError(f"std must say how uncertain each of {moved} is, got {list(std)}.")
        check_variables(after, [*end, *moved], dims)
        check_pairs(after, self.at_most, dims)
        check_coordinates(after, start, *std.values())
        spreads = {name: deviation_like(after[name], std[name], dims) for name in moved}
        last = {name: after[name] for name in dict.fromkeys([*end, *moved])}
        outputs = {name: last[name] for name in moved}
        found = self._applied(self._fixer(after).correct, [start, last, spreads], outputs)
        parts = {name: last[name].copy(data=found[name].transpose(*last[name].dims).data) for name in moved}
        corrected, shown = after.assign(parts), [name for name in std if name in after]
        with xarray.set_options(keep_attrs=True):
            return corrected, corrected[shown] - after[shown]

    def _applied(self, function: Any, groups: Sequence[Any], like: Mapping[str, Any]) -> dict[str, Any]:
        """A function of tensors by name, whose last axes are levels and places, on groups of labelled arrays.

        ``like`` has the names of its results, with arrays of their levels, places and precision.
        """
        inputs = [group[name] for group in groups for name in group]

        def of_arrays(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
            tensors = map(_tensor, arrays)
            found = function(*({name: next(tensors) for name in group} for group in groups))
            return tuple(found[name].numpy() for name in like)

        results = xarray.apply_ufunc(
            of_arrays,
            *inputs,
            input_core_dims=[self._core(part) for part in inputs],
            output_core_dims=[self._core(part) for part in like.values()],
            output_dtypes=[part.dtype for part in like.values()],
            dask="parallelized",
        )
        return dict(zip(like, results, strict=True))

    @property
    def _means(self) -> dict[str, Any]:
        """Arrays like means over the area."""
        return dict.fromkeys(self.balanced, xarray.DataArray(0.0))

    @property
    def _dims(self) -> list[str]:
        """Dimensions of a layer: levels and places."""
        return [*self.a.dims, *self.area]

    def _core(self, variable: Any) -> list[str]:
        return [dim for dim in self._dims if dim in variable.dims]

    def _fixer(self, data: Any) -> AtmosphereFixer:
        """The budgets on tensors, with the areas of the data."""
        ones = xarray.DataArray(np.ones([data.sizes[dim] for dim in self.area]), dims=self.area)
        fractions = (area_fractions(data, self.area) * ones).transpose(*self.area)
        return AtmosphereFixer(
            a=_tensor(self.a.values),
            b=_tensor((self.b + 0 * self.a).values),
            area=_tensor(fractions.values),
            **{each.name: getattr(self, each.name) for each in fields(StepBudgets)},
        )

    def _checked(self, data: Any, units: Mapping[str, str]) -> Any:
        """The variables in float64; refuses data without one, or with other units."""
        check_variables(data, list(units), self._dims)
        check_coordinates(data, self.a, self.b)
        Budget(units, 0.0, units=units).check(data, self._dims)
        return data[list(units)].astype("float64")


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))
