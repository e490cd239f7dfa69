"""Budgets of dry air, moisture and energy of an atmospheric model's steps, on tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.values import as_tensor
from probconserv.errors import IncompatibleQueryError, InvalidArgumentError
from probconserv.fields._variables import SharedLaw, condition_variables

GRAVITY, HEAT_CAPACITY, LATENT_HEAT = 9.80665, 1004.7, 2.501e6
"""m s⁻², J kg⁻¹ K⁻¹ of dry air at constant pressure, J kg⁻¹ of water vapour."""
_PASSES = 3  # linearisations; the laws are bilinear, so that errors are squared in each
State = Mapping[str, Tensor]
"""Variables ``(*batch, level, *cells)``, or ``(*batch, *cells)`` at the surface."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StepBudgets:
    """Length, fluxes, variables and bounds of a step: what ``AtmosphereFixer`` and ``probconserv.tools`` share.

    Args:
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

    Raises:
        InvalidArgumentError: If the step has no length.
    """

    seconds: float
    moisture_fluxes: Mapping[str, float] = field(default_factory=dict)
    energy_fluxes: Mapping[str, float] | None = None
    humidity: str = "q"
    pressure: str = "ps"
    temperature: str = "T"
    extra: str | None = None
    non_negative: tuple[str, ...] | None = None
    at_most: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.seconds > 0:
            raise InvalidArgumentError(f"seconds must be the length of a step, above 0, got {self.seconds}.")

    @property
    def balanced(self) -> tuple[str, ...]:
        """What has a budget."""
        return ("dry air", "moisture", "energy") if self.energy_fluxes is not None else ("dry air", "moisture")

    @property
    def state_units(self) -> dict[str, str]:
        """Variables of a state with their units."""
        units = {self.pressure: "Pa", self.humidity: "kg kg-1"}
        units |= {self.temperature: "K"} if self.energy_fluxes is not None else {}
        return units | ({self.extra: "J kg-1"} if self.extra else {})

    @property
    def flux_units(self) -> dict[str, str]:
        """Fluxes with their units."""
        return dict.fromkeys(self.moisture_fluxes, "kg m-2 s-1") | dict.fromkeys(self.energy_fluxes or {}, "W m-2")

    @property
    def corrected(self) -> list[str]:
        """Variables that a correction moves: those of the laws, and those with bounds."""
        of_laws = [name for name in (*self.state_units, *self.flux_units) if name != self.extra]
        return list(dict.fromkeys([*of_laws, *self.bounded, *self.at_most, *self.at_most.values()]))

    @property
    def bounded(self) -> tuple[str, ...]:
        """Variables that must not be negative."""
        return (self.humidity,) if self.non_negative is None else self.non_negative


@dataclass(frozen=True, kw_only=True, eq=False)
class AtmosphereFixer(StepBudgets):
    """Budgets of a step of an atmospheric model, and the most probable step that keeps them, on any device.

    With ⟨·⟩ the mean over the area, Δp = a + b pₛ the thickness of a layer and F fluxes averaged over the step:

        dry air   ⟨pₛ − Σ q Δp⟩ / g = as before
        moisture  ⟨Σ q Δp⟩ / g = before + seconds ⟨Σ F⟩
        energy    ⟨Σ (c_p T + L q + extra) Δp⟩ / g = before + seconds ⟨Σ F⟩

    A state holds tensors by name: ``(*batch, level, *cells)`` for T, q and the further energy, ``(*batch, *cells)`` for
    pₛ and fluxes. Corrections are differentiable, so that a model can be trained through its steps. They are computed
    in float64, and hold to the rounding of the fields' own precision.

    Args:
        a: Part of the thickness that does not depend on the surface pressure ``(level,)``, Pa.
        b: Part that is proportional to it ``(level,)``; zeros, the default, on levels of constant pressure.
        area: Fraction of the area of every cell ``(*cells)``, such as ``sphere_areas`` over their sum.

    Further arguments are those of ``StepBudgets``.
    """

    a: Tensor
    b: Tensor = field(default_factory=lambda: torch.zeros(()))
    area: Tensor

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("a", "b", "area"):
            object.__setattr__(self, name, as_tensor(getattr(self, name)))
        if self.a.ndim != 1 or self.b.shape not in ((), self.a.shape) or not self.area.ndim:
            raise InvalidArgumentError(
                "AtmosphereFixer needs a (level,), b like it or a number, and area (*cells); got shapes "
                f"{tuple(self.a.shape)}, {tuple(self.b.shape)} and {tuple(self.area.shape)}."
            )
        for name in ("a", "b", "area"):
            refuse_missing(getattr(self, name), f"{name} of the AtmosphereFixer holds")
        total = float(self.area.sum())
        if not abs(total - 1.0) <= 1e-6 or bool((self.area < 0).any()):
            raise InvalidArgumentError(f"area must be fractions that are not negative and sum to 1, got {total:g}.")

    def contents(self, state: State) -> dict[str, Tensor]:
        """Dry air and water (kg m⁻²) and energy (J m⁻²) of a column, means over the area ``(*batch)``, float64."""
        state = self._checked(state)
        mass = self._mass(state)
        water = (state[self.humidity] * mass).sum(dim=self._level)
        columns = {"dry air": state[self.pressure] / GRAVITY - water, "moisture": water}
        if self.energy_fluxes is not None:
            columns["energy"] = (self._energy(state) * mass).sum(dim=self._level)
        return {name: self._mean(column) for name, column in columns.items()}

    def missed(self, before: State, after: State) -> dict[str, Tensor]:
        """How far a step is from its budgets ``(*batch)``, in the units of ``contents``."""
        start, end = self.contents(before), self.contents(after)
        gained = {"moisture": self.moisture_fluxes, "energy": self.energy_fluxes or {}}
        for content, fluxes in gained.items():
            for name, sign in fluxes.items():
                start[content] = start[content] + self.seconds * sign * self._mean(after[name].to(torch.float64))
        return {name: end[name] - start[name] for name in start}

    def correct(self, before: State, after: State, std: Mapping[str, Tensor | float]) -> dict[str, Tensor]:
        """The step that keeps all budgets: ``after`` with those of ``std`` corrected, in their precision.

        Args:
            before: State at the start of the step.
            after: The predicted state at its end, with the fluxes during it.
            std: Standard deviations of temperature, humidity, surface pressure and every flux: numbers, or tensors that
                broadcast to the variable, such as ``(level, 1, 1)``; of cells with the same area, so that the size of a
                cell has no part in how far its values move. 0 leaves a variable as it is.

        Raises:
            InvalidArgumentError: If a variable or a deviation is missing, or values are not finite.
            IncompatibleQueryError: If shapes do not fit.
        """
        start, corrected = self.contents(before), self._checked(after)
        names = self.corrected
        lacking = [name for name in names if name not in std or name not in after]
        if lacking:
            raise InvalidArgumentError(f"after and std must name each of {names}, but {lacking} are not in both.")
        given = {name: after[name].to(torch.float64) for name in names}
        root = self.area.to(given[names[0]]).sqrt()
        spreads = {name: (as_tensor(std[name]).to(root) / root).broadcast_to(given[name].shape) for name in names}
        surface = given[self.pressure].ndim
        flat = {name: self._layers if part.ndim > surface else self._surface for name, part in given.items()}
        means, deviations = ({name: flat[name](part) for name, part in parts.items()} for parts in (given, spreads))
        bounds, fields = {name: (0.0, None) for name in self.bounded}, given
        for _ in range(_PASSES if bool(self.b.any()) else 1):
            found = condition_variables(means, deviations, self._laws(corrected, start), bounds, self.at_most).values
            fields = {name: found[name].reshape(part.shape) for name, part in given.items()}
            corrected = corrected | fields
        return dict(after) | {name: fields[name].to(after[name].dtype) for name in names}

    @property
    def _level(self) -> int:
        return -1 - self.area.ndim

    def _laws(self, state: State, start: State) -> list[SharedLaw]:
        """The budgets, linear about a state."""
        mass, area = self._mass(state), self.area.to(state[self.pressure])
        share = self._along(self.b + 0 * self.a, state) / GRAVITY  # of the surface pressure in the mass of a layer
        ps, level, layers, surface = state[self.pressure], self._level, self._layers, self._surface
        of_water = (state[self.humidity] * share).sum(dim=level)
        bent = self._mean(of_water * ps)
        moist = {name: surface(-self.seconds * sign * area) for name, sign in self.moisture_fluxes.items()}
        dry = {self.pressure: surface((1 / GRAVITY - of_water) * area), self.humidity: layers(-mass * area)}
        wet = {self.humidity: layers(mass * area), self.pressure: surface(of_water * area)} | moist
        laws = [SharedLaw(dry, start["dry air"] - bent), SharedLaw(wet, start["moisture"] + bent)]
        if self.energy_fluxes is None:
            return laws
        of_energy = (self._energy(state) * share).sum(dim=level)
        further = (state[self.extra] * mass).sum(dim=level) if self.extra else 0.0
        heat = {self.temperature: HEAT_CAPACITY * mass, self.humidity: LATENT_HEAT * mass}
        terms = {name: layers(row * area) for name, row in heat.items()} | {self.pressure: surface(of_energy * area)}
        terms |= {name: surface(-self.seconds * sign * area) for name, sign in self.energy_fluxes.items()}
        return [*laws, SharedLaw(terms, start["energy"] + self._mean(of_energy * ps - further))]

    def _checked(self, state: State) -> dict[str, Tensor]:
        """The variables of the contents in float64."""
        names = list(self.state_units)
        absent = [name for name in names if name not in state]
        if absent:
            raise InvalidArgumentError(f"The state lacks {absent}; it has {list(state)}.")
        cells, layers = tuple(self.area.shape), (len(self.a), *self.area.shape)
        for name in names:
            wanted = cells if name == self.pressure else layers
            if tuple(state[name].shape[-len(wanted) :]) != wanted:
                raise IncompatibleQueryError(
                    f"'{name}' must be (*batch, {', '.join(map(str, wanted))}), got {tuple(state[name].shape)}."
                )
        if len({tuple(state[name].shape[: -self.area.ndim - (name != self.pressure)]) for name in names}) > 1:
            shapes = {name: tuple(state[name].shape) for name in names}
            raise IncompatibleQueryError(f"All variables must have the same batch axes, got {shapes}.")
        return {name: part.to(torch.float64) for name, part in state.items()}

    def _mass(self, state: State) -> Tensor:
        """Mass of every layer, kg m⁻²."""
        ps = state[self.pressure].unsqueeze(self._level)
        return (self._along(self.a, state) + self._along(self.b + 0 * self.a, state) * ps) / GRAVITY

    def _along(self, levels: Tensor, state: State) -> Tensor:
        """Numbers of the levels ``(level, 1, …)``, to broadcast with a state."""
        return levels.to(state[self.pressure]).reshape(-1, *[1] * self.area.ndim)

    def _mean(self, column: Tensor) -> Tensor:
        return (column * self.area.to(column)).flatten(-self.area.ndim).sum(dim=-1)

    def _layers(self, values: Tensor) -> Tensor:
        return values.flatten(self._level)

    def _surface(self, values: Tensor) -> Tensor:
        return values.flatten(-self.area.ndim)

    def _energy(self, state: State) -> Tensor:
        """Energy of air, J kg⁻¹."""
        heat = HEAT_CAPACITY * state[self.temperature] + LATENT_HEAT * state[self.humidity]
        return heat + state[self.extra] if self.extra else heat
