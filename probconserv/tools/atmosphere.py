"""A corrector of weather and climate models: budgets of dry air, moisture and energy on named variables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import xarray  # pyright: ignore[reportMissingImports] - an optional package
from torch import Tensor

from probconserv.errors import InvalidArgumentError
from probconserv.fields.atmosphere import AtmosphereFixer
from probconserv.tools.labelled import (
    Budget,
    area_fractions,
    check_coordinates,
    check_pairs,
    check_variables,
    deviation_like,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Atmosphere:
    """``AtmosphereFixer`` on the variables of a ``Dataset``: budgets of a step, and the step that keeps them.

    Args:
        a: Part of the thickness that does not depend on the surface pressure, Pa, a ``DataArray`` over levels.
        b: Part that is proportional to it; 0 on levels of constant pressure.
        seconds: Length of a step.
        moisture_fluxes: Names with signs, +1 for what moistens the air: {"evaporation": 1.0, "precipitation": -1.0};
            kg m⁻² s⁻¹. Without any, total water is as before.
        energy_fluxes: Names with signs, W m⁻²; None for no law of energy.
        humidity: Name of q, kg kg⁻¹.
        pressure: Name of pₛ, Pa.
        temperature: Name of T, K.
        extra: Name of a further energy, J kg⁻¹, which is not corrected: kinetic energy plus surface geopotential.
        non_negative: Variables that must not be negative, humidity by default.
        at_most: Pairs {"snowfall": "precipitation"}, the first nowhere above the second.
        area: Dimensions of a level: latitudes and longitudes.
    """

    a: Any
    b: Any = 0.0
    seconds: float
    moisture_fluxes: Mapping[str, float] = field(default_factory=dict)
    energy_fluxes: Mapping[str, float] | None = None
    humidity: str = "q"
    pressure: str = "ps"
    temperature: str = "T"
    extra: str | None = None
    non_negative: tuple[str, ...] | None = None
    at_most: Mapping[str, str] = field(default_factory=dict)
    area: tuple[str, ...] = ("lat", "lon")

    def __post_init__(self) -> None:
        dims = [getattr(part, "dims", ()) for part in (self.a, self.b)]
        if len(dims[0]) != 1 or dims[1] not in ((), dims[0]) or not self.seconds > 0:
            raise InvalidArgumentError(
                "Atmosphere needs a, a DataArray over the levels, b like it or a number, and seconds > 0; got the "
                f"dimensions {dims[0]} and {dims[1]} and {self.seconds} seconds."
            )

    def contents(self, data: Any) -> dict[str, Any]:
        """Dry air and water (kg m⁻²) and energy (J m⁻²) of a column, means over the area."""
        state, fixer = self._checked(data, {}), self._fixer(data)
        contents = ["dry air", "moisture", *(["energy"] if self.energy_fluxes is not None else [])]

        def of_arrays(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
            found = fixer.contents(dict(zip(state, map(_tensor, arrays), strict=True)))
            return tuple(found[name].numpy() for name in contents)

        columns = self._applied(of_arrays, [state[name] for name in state], [[]] * len(contents))
        return dict(zip(contents, columns, strict=True))

    def missed(self, before: Any, after: Any) -> dict[str, Any]:
        """How far a step is from its budgets, in the units of ``contents``."""
        start, end = self.contents(before), self.contents(after)
        gained = {"moisture": self.moisture_fluxes, "energy": self.energy_fluxes or {}}
        for content, fluxes in gained.items():
            for name, sign in fluxes.items():
                flux = after[name].astype("float64") * area_fractions(after, self.area)
                start[content] = start[content] + self.seconds * sign * flux.sum(self.area)
        return {name: end[name] - start[name] for name in start}

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
        fluxes = dict.fromkeys(self.moisture_fluxes, "kg m-2 s-1") | dict.fromkeys(self.energy_fluxes or {}, "W m-2")
        start, end = self._checked(before, {}), self._checked(after, fluxes)
        fixer, dims = self._fixer(after), [*self.a.dims, *self.area]
        positive = (self.humidity,) if self.non_negative is None else self.non_negative
        names = list(dict.fromkeys([*end, *positive, *self.at_most, *self.at_most.values()]))
        moved = [name for name in names if name != self.extra]
        if not set(moved) <= set(std):
            raise InvalidArgumentError(f"std must say how uncertain each of {moved} is, got {list(std)}.")
        check_variables(after, names, dims)
        check_pairs(after, self.at_most, dims)
        check_coordinates(after, start, self.a, self.b, *std.values())
        spreads = [deviation_like(after[name], std[name], dims) for name in moved]

        def of_arrays(*arrays: np.ndarray) -> tuple[np.ndarray, ...]:
            given = map(_tensor, arrays)
            first, last, deviations = (dict(zip(keys, given, strict=False)) for keys in (list(start), names, moved))
            corrected = fixer.correct(first, last, deviations)
            return tuple(corrected[name].numpy() for name in moved)

        inputs = [*(start[name] for name in start), *(after[name] for name in names), *spreads]
        found = self._applied(of_arrays, inputs, [self._core(after[name]) for name in moved])
        parts = dict(zip(moved, found, strict=True))
        parts = {name: after[name].copy(data=part.transpose(*after[name].dims).data) for name, part in parts.items()}
        corrected, shown = after.assign(parts), [name for name in std if name in after]
        with xarray.set_options(keep_attrs=True):
            return corrected, corrected[shown] - after[shown]

    def _applied(self, function: Any, inputs: list[Any], outputs: list[list[str]]) -> tuple[Any, ...]:
        """A function of arrays whose last axes are levels and places, on labelled ones."""
        results = xarray.apply_ufunc(
            function,
            *inputs,
            input_core_dims=[self._core(part) for part in inputs],
            output_core_dims=outputs,
            output_dtypes=[np.float64] * len(outputs),
            dask="parallelized",
        )
        return results if isinstance(results, tuple) else (results,)

    def _core(self, variable: Any) -> list[str]:
        return [dim for dim in (*self.a.dims, *self.area) if dim in variable.dims]

    def _fixer(self, data: Any) -> AtmosphereFixer:
        """The budgets on tensors, with the areas of the data."""
        ones = xarray.DataArray(np.ones([data.sizes[dim] for dim in self.area]), dims=self.area)
        fractions = (area_fractions(data, self.area) * ones).transpose(*self.area)
        shared = ("seconds", "moisture_fluxes", "energy_fluxes", "humidity", "pressure", "temperature", "extra")
        return AtmosphereFixer(
            a=_tensor(self.a.values),
            b=_tensor((self.b + 0 * self.a).values),
            area=_tensor(fractions.values),
            non_negative=self.non_negative,
            at_most=self.at_most,
            **{name: getattr(self, name) for name in shared},
        )

    def _checked(self, data: Any, fluxes: Mapping[str, str]) -> Any:
        """The variables in float64; refuses data without one, or with other units."""
        units = {self.humidity: "kg kg-1", self.pressure: "Pa", **fluxes}
        units |= {self.temperature: "K"} if self.energy_fluxes is not None else {}
        units |= {self.extra: "J kg-1"} if self.extra else {}
        check_variables(data, list(units), [*self.a.dims, *self.area])
        check_coordinates(data, self.a, self.b)
        Budget(units, 0.0, units=units).check(data, [*self.a.dims, *self.area])
        return data[list(units)].astype("float64")


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array))
