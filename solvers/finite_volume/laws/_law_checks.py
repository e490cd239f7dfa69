"""Checks of a law before it is solved: its methods against each other, on states of the problem.

Tests check the shipped laws; here only their parameters are checked.
"""

import difflib
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from math import ceil, prod
from numbers import Real

import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.laws._law_rows import SHIPPED_LAWS, LawRows
from solvers.finite_volume.laws._rows import NO_GRADIENT, name_of, result_of
from solvers.finite_volume.laws.laws import ConvectiveLaw, DiffusiveLaw, Law
from solvers.finite_volume.laws.scalar import AtPoints

_STATES = 65
_PARTS = 64
_TOLERANCE = 1e-2
_KINKS = 0.05
_TOGETHER = "convection and diffusion together are ConvectionDiffusion(convection, diffusion)"
_ELSEWHERE = {
    "a source is an argument of solve, source=Logistic(rate) or a function of u, x and t": (
        *("source", "sources", "source_term", "reaction", "forcing"),
    ),
    "a velocity per axis is a law, Transport(velocity)": ("velocity", "velocities", "flux_x", "flux_y", "flux_z"),
    "boundary conditions are an argument of solve": ("boundary", "boundary_flux", "boundary_conditions"),
}


def check_law(rows: LawRows, low: float, high: float, start: float = 0.0) -> None:
    """Raises an error unless the methods of a law agree, on states between ``low`` and ``high`` at the time ``start``.

    f′ and Φ′ are taken by central differences at 65 states; 5 % of them may be off because of kinks.
    """
    _check_gradients(rows.law)
    if type(rows.law) in SHIPPED_LAWS:
        return
    placed = rows.at(start)
    if isinstance(rows.law, AtPoints):
        _check_scalar(_Samples(placed, low, high))
        return
    _check_names(rows.law)
    _check_results(placed)
    with torch.no_grad():
        samples = _Samples(placed, low, high)
        _check_derivative(samples)
        if high > low and isinstance(rows.law, DiffusiveLaw):
            _check_monotone(samples)
        elif high > low:
            _check_points(samples)


@dataclass(frozen=True)
class _Samples:
    """A law at states between two ends, for every row and, if the law needs its cells, on the cells of the grid.

    Values are ``(rows, k)``; the k states repeat ``states`` as ``order`` says.
    """

    rows: LawRows
    low: float
    high: float

    @property
    def methods(self) -> tuple[str, str]:
        """The function and its derivative."""
        return _methods(self.rows.law)

    @property
    def inside(self) -> bool:
        """Whether the states are those of the problem; a constant one is surrounded by others."""
        return self.high > self.low

    @cached_property
    def spacing(self) -> float:
        width = self.high - self.low if self.inside else max(abs(self.low), 1.0)
        return width / _STATES

    @cached_property
    def states(self) -> Tensor:
        """Increasing states, none at a round number such as the middle."""
        first = self.low if self.inside else self.low - 0.5 * _STATES * self.spacing
        return first + self.spacing * (torch.arange(_STATES, dtype=torch.float64) + 0.382)

    @cached_property
    def on_cells(self) -> bool:
        """Whether the law takes states on the cells of the grid only."""
        try:
            self._on_line(self.methods[1], self.states)
        except Exception:
            return True
        return False

    @cached_property
    def order(self) -> Tensor:
        cells = prod(self.rows.grid.shape)
        count = cells * ceil(_STATES / cells) if self.on_cells else _STATES
        return torch.arange(count) % _STATES

    @property
    def name(self) -> str:
        """Name of the law."""
        return name_of(self.rows.law)

    def state(self, index: tuple[int, ...]) -> float:
        """The state at a position of values."""
        return float(self.states[self.order[index[1]]])

    def neighbour(self, steps: int) -> Tensor:
        """The states some steps further up, the last ones repeated."""
        return self.states[(torch.arange(_STATES) + steps).clamp_max(_STATES - 1)]

    def values(self, name: str, states: Tensor) -> Tensor:
        """A method of the law at states ``(65,)``."""
        if not self.on_cells:
            return self._on_line(name, states)
        shape = self.rows.grid.shape
        parts = states[self.order].reshape(-1, *shape)
        results = [getattr(self.rows, name)(part.expand(self.rows.rows, *shape).clone()) for part in parts]
        return torch.cat([result.flatten(1) for result in results], 1)

    def differences(self, first: Tensor, last: Tensor) -> Tensor:
        """∫ k du between states ``(k,)``, for every row ``(rows, k)``; on cells every state is on one of them."""
        rows, shape, count = self.rows.rows, self.rows.grid.shape, len(first)
        if not self.on_cells:
            pair = (
                each.reshape(*[1] * (len(shape) - 1), -1).expand(rows, *[1] * (len(shape) - 1), count)
                for each in (first, last)
            )
            return self.rows.potential_difference(*(each.clone() for each in pair)).reshape(rows, count)
        found, cells = [], prod(shape)
        for start in range(0, count, cells):
            place = (torch.arange(cells) + start) % count
            pair = (each[place].reshape(shape).expand(rows, *shape).clone() for each in (first, last))
            found.append(self.rows.potential_difference(*pair).flatten(1))
        return torch.cat(found, 1)[:, :count]

    def _on_line(self, name: str, states: Tensor) -> Tensor:
        line = states.reshape(*[1] * (self.rows.grid.dimension - 1), _STATES)
        result = getattr(self.rows, name)(line.expand(self.rows.rows, *line.shape).clone())
        return result.reshape(self.rows.rows, _STATES)


def _check_derivative(samples: _Samples) -> None:
    value, slope = samples.methods
    step = 1e-3 * samples.spacing
    above, below = (samples.values(value, samples.states + sign * step) for sign in (1.0, -1.0))
    stated, actual = samples.values(slope, samples.states), (above - below) / (2.0 * step)
    finite = torch.isfinite(stated) & torch.isfinite(actual)
    if samples.inside and not bool(finite.all()):
        raise InvalidArgumentError(
            f"{samples.name}: {value}(u) or {slope}(u) is not finite at u = {samples.state(_first(~finite)):.6g}, a "
            "state between the smallest and the largest initial and boundary value."
        )
    stated, actual, above = (torch.where(finite, part, 0.0) for part in (stated, actual, above))
    allowed = _TOLERANCE * torch.maximum(actual.abs(), stated.abs()) + 1e-4 * _largest(actual)
    excess = (actual - stated).abs() - allowed - 1e-14 / step * _largest(above)
    excess[(excess > 0.0).double().mean(1) <= _KINKS] = 0.0
    if bool((excess > 0.0).any()):
        at = _first(excess == excess.max())
        raise InvalidArgumentError(
            f"{samples.name}.{slope}(u) must be the derivative of {value}(u): at u = {samples.state(at):.6g} it is "
            f"{float(stated[at]):.6g}, but the derivative is {float(actual[at]):.6g}."
        )


def _check_monotone(samples: _Samples) -> None:
    here, above = (samples.values("potential", samples.neighbour(steps)) for steps in (0, 1))
    conductivity = samples.values("conductivity", samples.states)
    falls = above - here < -1e-12 * _largest(here)
    if bool(falls.any()):
        at = _first(falls)
        first, second, k = (float(values[at]) for values in (here, above, conductivity))
        raise InvalidArgumentError(
            f"{samples.name}.potential(u) must not decrease: it is {first:.6g} at u = {samples.state(at):.6g} and "
            f"{second:.6g} a little further up, with conductivity {k:.6g}; the equation has no solution where the "
            "conductivity is negative."
        )


def _check_scalar(samples: _Samples) -> None:
    """Raises an error unless the functions of a ``ScalarLaw`` are finite and the conductivity suits a diffusion."""
    law = samples.rows.law
    assert isinstance(law, AtPoints)
    if "conductivity" not in law.functions:
        _require_finite(samples, "flux", samples.values("convective_flux", samples.states))
        if samples.inside:
            _check_points(samples)
        return
    k = samples.values("conductivity", samples.states)
    _require_finite(samples, "conductivity", k)
    if bool((k < 0.0).any()):
        at = _first(k < 0.0)
        raise InvalidArgumentError(
            f"{samples.name}: conductivity must not be negative, got {float(k[at]):.6g} at u = "
            f"{samples.state(at):.6g}; the equation has no solution there."
        )
    if "potential" in law.functions:
        _check_derivative(samples)
    elif samples.inside:
        _check_smooth(samples, k)
        _check_resolved(samples)


def _require_finite(samples: _Samples, parameter: str, values: Tensor) -> None:
    if samples.inside and not bool(torch.isfinite(values).all()):
        raise InvalidArgumentError(
            f"{samples.name}: {parameter} is not finite at u = {samples.state(_first(~torch.isfinite(values))):.6g}, a "
            "state between the smallest and the largest initial and boundary value."
        )


def _check_smooth(samples: _Samples, k: Tensor) -> None:
    """Raises an error where the conductivity jumps, by halving the widest change between two states."""
    changes = (samples.values("conductivity", samples.neighbour(1)) - k).abs()
    at = _first(changes == changes.max())
    low, high = samples.state(at), samples.state(at) + samples.spacing

    def at_state(u: float) -> float:
        return float(samples.values("conductivity", torch.full((_STATES,), u, dtype=torch.float64))[at])

    for _ in range(40):
        middle = 0.5 * (low + high)
        first, last = abs(at_state(middle) - at_state(low)), abs(at_state(high) - at_state(middle))
        if max(first, last) < 1e-2 * float(_largest(k)[at[0]]):
            return
        low, high = (low, middle) if first > last else (middle, high)
    raise InvalidArgumentError(
        f"{samples.name}: conductivity jumps at u = {high:.6g}; give its integral over u too, as potential, so that "
        "the flux between two cells is exact."
    )


def _check_resolved(samples: _Samples) -> None:
    """Raises an error where the five points of a flux miss a narrow peak of the conductivity.

    The integral of the conductivity over a 64th of the range is compared with that over 64 parts of it.
    """
    edges = torch.linspace(samples.low, samples.high, _STATES, dtype=torch.float64)
    left, width = edges[:-1], (samples.high - samples.low) / (_STATES - 1)
    coarse = samples.differences(left + width, left)
    parts = [left + width * (k / _PARTS) for k in range(_PARTS + 1)]
    fine = torch.stack([samples.differences(after, first) for first, after in pairwise(parts)]).sum(0)
    wrong = (coarse - fine).abs()
    missed = wrong.sum(1) > _TOLERANCE * fine.sum(1).abs()
    if bool(missed.any()):
        row = int(missed.nonzero()[0])
        state = float(left[wrong[row].argmax()])
        raise InvalidArgumentError(
            f"{samples.name}: conductivity changes between u = {state:.6g} and {state + width:.6g} too fast for the "
            "five points that the flux between two cells takes; give its integral over u too, as potential."
        )


def _check_points(samples: _Samples) -> None:
    speeds = [samples.values("characteristic_speed", samples.neighbour(steps)) for steps in (0, 1, 2)]
    scale = _largest(speeds[0])
    turns = (speeds[0] * speeds[1] < 0.0) & (torch.minimum(speeds[0].abs(), speeds[1].abs()) > 1e-9 * scale)
    _require_points(samples, "stationary_points", "f′", turns, 1)
    slopes = speeds[1] - speeds[0], speeds[2] - speeds[1]
    bends = (slopes[0] * slopes[1] < 0.0) & (torch.minimum(slopes[0].abs(), slopes[1].abs()) > 1e-6 * scale)
    _require_points(samples, "inflection_points", "f″", bends, 2)


def _require_points(samples: _Samples, method: str, symbol: str, changes: Tensor, steps: int) -> None:
    """Raises an error if a sign changes within some steps of a state, and no listed point is between."""
    points = getattr(samples.rows.law, method)()
    if points is None:
        return
    if not isinstance(points, tuple) or not all(isinstance(point, Real) for point in points):
        raise InvalidArgumentError(
            f"{samples.name}.{method}() must return a tuple of numbers, or None if they are not known, got {points!r}."
        )
    low, high = samples.states, samples.neighbour(steps)
    listed = torch.zeros(_STATES, dtype=torch.bool)
    for point in points:
        listed |= (low <= float(point)) & (float(point) <= high)
    missing = changes & ~listed[samples.order]
    if bool(missing.any()):
        state = samples.state(_first(missing))
        unknown = " and pass flux=Rusanov()" if method == "stationary_points" else ": the solver then samples f′"
        raise InvalidArgumentError(
            f"{samples.name}.{method}() returns {points}, but {symbol} changes sign between u = {state:.6g} and "
            f"{state + steps * samples.spacing:.6g}; list every state where it does. If you do not know them, return "
            f"None{unknown}."
        )


def _check_results(rows: LawRows) -> None:
    """Raises an error if a method does not return a value for every state, or one that carries a gradient."""
    u = rows.selection.scatter(torch.zeros((rows.rows, *rows.grid.shape), dtype=torch.float64))
    for method in _methods(rows.law):
        call = f"{type(rows.law).__name__}.{method}(u)"
        result_of(call, partial(getattr(rows.law, method), u), u)


def _check_gradients(law: Law) -> None:
    for name, value in getattr(law, "__dict__", {}).items():
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Tensor) and part.requires_grad:
                raise InvalidArgumentError(NO_GRADIENT.format(name=f"{type(law).__name__}: {name}"))


def _check_names(law: Law) -> None:
    """Raises an error for methods that solve would not call although their names suggest it."""
    kind, other = (DiffusiveLaw, ConvectiveLaw) if isinstance(law, DiffusiveLaw) else (ConvectiveLaw, DiffusiveLaw)
    name = type(law).__name__
    if isinstance(law, other):
        raise InvalidArgumentError(f"{name} derives from both kinds of laws; {_TOGETHER}.")
    allowed = [method for method in dir(kind) if not method.startswith("_")]
    fields = getattr(law, "__dataclass_fields__", {})
    for cls in type(law).__mro__:
        if cls in (DiffusiveLaw, ConvectiveLaw):
            break
        for method, member in vars(cls).items():
            if method == "flux":
                raise InvalidArgumentError(
                    f"{name}.flux: solve takes the flux from {' and '.join(_methods(law))}; remove the method. A flux "
                    f"with other terms is another law: {_TOGETHER}."
                )
            if callable(member) and not method.startswith("_") and method not in (*allowed, *fields):
                _check_name(name, method, allowed, [each for each in dir(other) if each not in allowed])


def _check_name(law: str, method: str, allowed: list[str], others: list[str]) -> None:
    advice = _TOGETHER if method in others else None
    for text, names in _ELSEWHERE.items():
        advice = text if method in names else advice
    similar = difflib.get_close_matches(method, allowed, n=1, cutoff=0.8)
    if advice or similar:
        raise InvalidArgumentError(
            f"{law}.{method} is no method that solve calls; {advice or f'did you mean {similar[0]}?'} (Rename it if "
            "it is a helper of your formulas.)"
        )


def _methods(law: Law) -> tuple[str, str]:
    """The function of the state and its derivative."""
    diffusive = isinstance(law, DiffusiveLaw)
    return ("potential", "conductivity") if diffusive else ("convective_flux", "characteristic_speed")


def _largest(values: Tensor) -> Tensor:
    """Largest absolute value per row ``(rows, 1)``."""
    return values.abs().amax(1, keepdim=True)


def _first(mask: Tensor) -> tuple[int, ...]:
    """Position of the first entry that is set."""
    return tuple(mask.nonzero()[0].tolist())
