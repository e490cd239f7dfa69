"""A corrector of weather and climate models: budgets of dry air, moisture and energy on named variables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray  # pyright: ignore[reportMissingImports] - an optional package

from probconserv.errors import InvalidArgumentError
from probconserv.tools.labelled import Budget, area_fractions, check_coordinates, check_variables, constrain

GRAVITY, HEAT_CAPACITY, LATENT_HEAT = 9.80665, 1004.7, 2.501e6
"""m s⁻², J kg⁻¹ K⁻¹ of dry air at constant pressure, J kg⁻¹ of water vapour."""
_PASSES = 3  # linearisations; the laws are bilinear, so that errors are squared in each


@dataclass(frozen=True, kw_only=True, eq=False)
class Atmosphere:
    """Budgets of a step of an atmospheric model, and the most probable step that keeps them.

    With ⟨·⟩ the mean over the area, Δp = a + b pₛ the thickness of a layer and F fluxes averaged over the step:

        dry air   ⟨pₛ − Σ q Δp⟩ / g = as before
        moisture  ⟨Σ q Δp⟩ / g = before + seconds ⟨Σ F⟩
        energy    ⟨Σ (c_p T + L q + extra) Δp⟩ / g = before + seconds ⟨Σ F⟩

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
        state = self._checked(data, {})
        mass = (self.a + self.b * state[self.pressure]) / GRAVITY
        water = (state[self.humidity] * mass).sum(self.a.dims)
        columns = {"dry air": state[self.pressure] / GRAVITY - water, "moisture": water}
        if self.energy_fluxes is not None:
            columns["energy"] = (self._energy(state) * mass).sum(self.a.dims)
        return {name: (column * area_fractions(data, self.area)).sum(self.area) for name, column in columns.items()}

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
        start, corrected = self.contents(before), after
        fractions = area_fractions(after, self.area)
        positive = (self.humidity,) if self.non_negative is None else self.non_negative
        check_coordinates(after, self.a, self.b, *start.values(), *std.values())
        with xarray.set_options(keep_attrs=True):
            spreads = {name: each / fractions**0.5 for name, each in std.items()}
        for _ in range(_PASSES if np.any(self.b) else 1):
            corrected = constrain(
                after,
                self._laws(self._checked(corrected, fluxes), start, fractions),
                [*self.a.dims, *self.area],
                std=spreads,
                bounds={name: (0.0, None) for name in positive},
                at_most=self.at_most,
            )
        moved = [name for name in std if name in after]
        with xarray.set_options(keep_attrs=True):
            return corrected, corrected[moved] - after[moved]

    def _laws(self, state: Any, start: Any, fractions: Any) -> list[Budget]:
        """The budgets, linear about a state."""
        mass, levels = (self.a + self.b * state[self.pressure]) / GRAVITY, self.a.dims
        share = (self.b + 0 * self.a) / GRAVITY  # of the surface pressure in the mass of a layer
        of_water = (state[self.humidity] * share).sum(levels)
        bent = (of_water * state[self.pressure] * fractions).sum(self.area)
        moist = {name: -self.seconds * sign for name, sign in self.moisture_fluxes.items()}
        laws = [
            Budget({self.pressure: 1 / GRAVITY - of_water, self.humidity: -mass}, start["dry air"] - bent),
            Budget({self.humidity: mass, self.pressure: of_water} | moist, start["moisture"] + bent),
        ]
        if self.energy_fluxes is None:
            return laws
        of_energy = (self._energy(state) * share).sum(levels)
        further = (state[self.extra] * mass).sum(levels) if self.extra else 0.0
        terms = {self.temperature: HEAT_CAPACITY * mass, self.humidity: LATENT_HEAT * mass, self.pressure: of_energy}
        terms |= {name: -self.seconds * sign for name, sign in self.energy_fluxes.items()}
        bent = ((of_energy * state[self.pressure] - further) * fractions).sum(self.area)
        return [*laws, Budget(terms, start["energy"] + bent)]

    def _checked(self, data: Any, fluxes: Mapping[str, str]) -> Any:
        """The variables in float64; refuses data without one, or with other units."""
        units = {self.humidity: "kg kg-1", self.pressure: "Pa", **fluxes}
        units |= {self.temperature: "K"} if self.energy_fluxes is not None else {}
        units |= {self.extra: "J kg-1"} if self.extra else {}
        check_variables(data, list(units), [*self.a.dims, *self.area])
        check_coordinates(data, self.a, self.b)
        Budget(units, 0.0, units=units).check(data, [*self.a.dims, *self.area])
        return data[list(units)].astype("float64")

    def _energy(self, data: Any) -> Any:
        """Energy of air, J kg⁻¹."""
        heat = HEAT_CAPACITY * data[self.temperature] + LATENT_HEAT * data[self.humidity]
        return heat + data[self.extra] if self.extra else heat
