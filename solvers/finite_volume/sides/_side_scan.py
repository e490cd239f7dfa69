"""An examination of data over the whole span: how long steps may be, where data jump, what their integral is.

The span is divided into panels with the 15 nodes of a Kronrod rule. A panel is halved until a parabola through three of
its values describes the others, so that a step of its length, which samples the data two or three times, sees them. A
jump is located by bisection and ends a panel. Every row has separate panels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from solvers.finite_volume.sides._panels import Panels

Array = np.ndarray
Evaluate = Callable[[Array], Array]

_HALF_NODES = (
    0.991455371120812639206854697526329, 0.949107912342758524526189684047851, 0.864864423359769072789712788640926,
    0.741531185599394439863864773280788, 0.586087235467691130294144691693013, 0.405845151377397166906606412076961,
    0.207784955007898467600689403773245,
)  # fmt: skip
_HALF_WEIGHTS = (
    0.022935322010529224963732008058970, 0.063092092629978553290700663189204, 0.104790010322250183839876322541518,
    0.140653259715525918745189590510238, 0.169004726639267902826583426598550, 0.190350578064785409913256402421014,
    0.204432940075298892414161999234649,
)  # fmt: skip
_NODES = 0.5 + 0.5 * np.array([-x for x in _HALF_NODES] + [0.0] + list(reversed(_HALF_NODES)))
_WEIGHTS = 0.5 * np.array([*_HALF_WEIGHTS, 0.209482141084727828012999174891714, *reversed(_HALF_WEIGHTS)])
_COUNT, _MIDDLE = 15, 7

_PANELS = 32
_PANELS_OF_STRETCH = 4
_SHARE_OF_PANEL, _SHARE_OF_SPAN = 1e-2, 2e-4
_SHORTEST = 1e-9
_MARGIN = 1e-10
_JUMP_IN_PANEL, _JUMP_AT_BORDER, _SMALL_JUMP = 0.8, 4.0, 1e-3
_MOST_SEARCHES = 20
_CHUNK = 2**18  # numbers examined at once
_ONE_SIGN, _ANY_SIGN, _QUADRATURE, _ROUND_OFF = 1.5, 3.0, 1e-3, 1e-11


class _Panels(NamedTuple):
    """Panels of every row in the order of time ``(panels, rows)``; those that only fill up have no length."""

    low: Array
    high: Array
    ends_at_break: Array


class _Sums(NamedTuple):
    """State of the panels: ``(panels, rows, columns)`` and, of the gaps between nodes, ``(gaps, rows)``."""

    integral: Array
    deviation: Array
    misfit: Array
    sampling: Array
    gap: Array


class _Jumps(NamedTuple):
    """Rows and times of jumps, and in which panels they are or at whose ends ``(panels, rows)``."""

    rows: Array
    times: Array
    panels: Array


@dataclass(frozen=True, eq=False)
class Scan:
    """Panels of all rows, one row after another, and what follows from them.

    Attributes:
        panels: The panels.
        integral: Integral of the data from the start of the span to that of the panel ``(panels, columns)``.
        sampling: Sums over the panels before of the error that a first-order step of a panel's length makes, and of its
            square ``(panels, 2, columns)``.
        spread: ∫|g − mean| over the span ``(rows, columns)``.
        size: ∫|g| over the span ``(rows, columns)``.
        span: Start and end.
    """

    panels: Panels
    integral: Array
    sampling: Array
    spread: Array
    size: Array
    span: tuple[float, float]

    @classmethod
    def of(
        cls, evaluate: Evaluate, rows: int, span: tuple[float, float], breakpoints: Array, points: int = 0
    ) -> "Scan":
        """Examines data, whose values ``(k, rows, columns)`` at times ``(k, rows)`` ``evaluate`` gives.

        With ``points`` panels must describe the data at as many evenly spaced times over the span, too.
        """
        margin = _MARGIN * (span[1] - span[0]) + 16 * np.finfo(float).eps * max(abs(span[0]), abs(span[1]))
        search = _Search(evaluate, span, margin, points)
        breaks = [_spaced(breakpoints, span, margin)] * rows
        panels, jumps = search.run(_first_panels(span, breaks))
        for left in reversed(range(_MOST_SEARCHES)):
            if not len(jumps[0]):
                break
            breaks = [
                _spaced(np.append(old, jumps[1][jumps[0] == row]), span, margin) for row, old in enumerate(breaks)
            ]
            panels, jumps = search.run(_first_panels(span, breaks), last=left == 0)
        return cls._assembled(panels, rows, search, margin)

    @classmethod
    def _assembled(cls, panels: tuple[Array, ...], rows: int, search: "_Search", margin: float) -> "Scan":
        row, low, high, ends_at_break, integral, sampling = panels
        order = np.lexsort((low, row))
        first = np.searchsorted(row[order], np.arange(rows + 1))
        jumps = search.jumps_at_ends(rows)
        has_breaks = int(ends_at_break.sum()) > rows or bool(jumps.any())
        low, high, ends_at_break = low[order], high[order], ends_at_break[order]
        lengths = high - low
        passing = np.where(ends_at_break, -np.inf, np.minimum(lengths, np.append(lengths[1:], lengths[-1])))
        return cls(
            panels=Panels(first, low, high, passing, jumps, margin, has_breaks, search.span),
            integral=_sums_before(integral[order], first),
            sampling=_sums_before(sampling[order], first),
            spread=search.spread,
            size=search.size,
            span=search.span,
        )

    @property
    def row_count(self) -> int:
        """Number of rows; one if all rows of the batch have the same data."""
        return len(self.panels.first) - 1

    def integral_to(self, times: Array, rows: Array, evaluate: Evaluate) -> tuple[Array, Array]:
        """Integral of the data since the start of the span ``(rows, columns)``, and ``sampling`` up to the times."""
        panel = self.panels.locate(rows, times)
        low, high = self.panels.low[panel], self.panels.high[panel]
        length = np.minimum(times, high) - low
        values = evaluate(low + _NODES[:, None] * length)
        rest = length[:, None] * _weighted(values[None])[0]
        integral, sampling = (part[panel][..., : rest.shape[-1]] for part in (self.integral, self.sampling))
        return integral + rest, sampling + _first_order_error(values, length[:, None])

    def allowed(self, sampling: Array, rows: Array) -> Array:
        """Largest difference of a time integral that honest steps can cause ``(rows, columns)``.

        First-order errors of one sign add up, as on a ramp; else they partly cancel, as on waves.
        """
        steps = _ONE_SIGN * np.abs(sampling[:, 0]) + _ANY_SIGN * np.sqrt(np.maximum(sampling[:, 1], 0.0))
        spread, size = (part[rows][:, : steps.shape[1]] for part in (self.spread, self.size))
        return steps + _QUADRATURE * spread + _ROUND_OFF * size


class _Search:
    """Halves panels until each is described by a parabola, or a jump is found."""

    def __init__(self, evaluate: Evaluate, span: tuple[float, float], margin: float, points: int) -> None:
        self.evaluate, self.span, self.margin, self.points = evaluate, span, margin, points

    def run(self, panels: _Panels, last: bool = False) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
        """All panels (rows, ends, sums), and rows and times of the jumps located on the way, none in the last run."""
        finished: list[tuple[Array, ...]] = []
        jumps = [_Jumps(np.empty(0, int), np.empty(0), np.zeros(panels.low.shape, dtype=bool))]
        values = self._set_scale(panels)
        while True:
            hidden = self._hidden(panels, values)
            sums = self._sums(panels, values)
            coarse = self._coarse(panels, sums, np.maximum(sums.misfit, hidden))
            if not last:
                jumps.append(self._jumps(panels, sums, coarse))
                coarse &= ~jumps[-1].panels
            done = ~coarse & (panels.high > panels.low)
            finished.append(
                (
                    np.nonzero(done)[1], *(part[done] for part in panels), sums.integral[done],
                    sums.sampling[done],
                )
            )  # fmt: skip
            if not coarse.any():
                rows, times = (np.concatenate([getattr(jump, name) for jump in jumps]) for name in ("rows", "times"))
                return tuple(np.concatenate(part) for part in zip(*finished, strict=True)), (rows, times)
            panels = _halved(panels, coarse)
            values = self._values(panels)

    def _values(self, panels: _Panels) -> Array:
        """Data at the nodes ``(panels, nodes, rows, columns)``."""
        times = panels.low[:, None] + _NODES[:, None] * (panels.high - panels.low)[:, None]
        values = self.evaluate(times.reshape(-1, times.shape[-1]))
        return values.reshape(*times.shape, -1)

    def _set_scale(self, panels: _Panels) -> Array:
        """Values on the first panels; sets mean, spread and size of the data by them."""
        values = self._values(panels)
        length = (panels.high - panels.low)[..., None]
        self.mean = _last_sum(length * _weighted(values)) / (self.span[1] - self.span[0])
        self.spread = _last_sum(length * _weighted(np.abs(values - self.mean)))
        self.size = _last_sum(length * _weighted(np.abs(values)))
        self.largest, self.unit = np.zeros_like(self.mean), np.full_like(self.mean, np.inf)
        self._widen(values)
        return values

    def _widen(self, values: Array) -> None:
        """Widens the range of the data by values ``(panels, times, rows, columns)``."""
        self.largest = np.maximum(self.largest, np.abs(values).max(axis=(0, 1)))
        distance = np.maximum(np.abs(values - self.mean).max(axis=(0, 1)), np.where(self.unit < np.inf, self.unit, 0.0))
        self.unit = np.where(distance > 64 * np.finfo(float).eps * self.largest, distance, np.inf)

    def _sums(self, panels: _Panels, values: Array) -> _Sums:
        length = (panels.high - panels.low)[..., None]
        parabola = _parabola(values, _NODES)
        along = values.reshape(-1, *values.shape[2:])
        return _Sums(
            integral=length * _weighted(values),
            deviation=length * _weighted(np.abs(values - self.mean)),
            misfit=length * _weighted(np.abs(values - parabola)),
            sampling=_first_order_error(values.swapaxes(0, 1), length),
            gap=(np.abs(np.diff(along, axis=0)) / self.unit).sum(axis=-1),
        )

    def _coarse(self, panels: _Panels, sums: _Sums, misfit: Array) -> Array:
        """Whether a panel must be halved by an integral of |data − parabola| ``(panels, rows, columns)``."""
        length = (panels.high - panels.low)[..., None]
        noise = 64 * np.finfo(float).eps * self.largest * length
        allowed = np.maximum(_SHARE_OF_PANEL * sums.deviation, _SHARE_OF_SPAN * self.spread) + noise
        long_enough = length[..., 0] > _SHORTEST * (self.span[1] - self.span[0])
        return (misfit > allowed).any(axis=-1) & long_enough

    def _hidden(self, panels: _Panels, values: Array) -> Array:
        """Integral of |data − parabola| by evenly spaced points, 0 where the nodes are as close to each other."""
        length = panels.high - panels.low
        count = int(np.ceil(self.points * length.max() / (self.span[1] - self.span[0])))
        misfit, part = np.zeros((*length.shape, values.shape[-1])), (np.arange(count) + 0.5) / count
        many = max(1, _CHUNK // (max(count, 1) * values[0, 0].size))
        for first in range(0, len(length) if count > _COUNT else 0, many):
            chosen = slice(first, first + many)
            times = panels.low[chosen, None] + part[:, None] * length[chosen, None]
            found = self.evaluate(times.reshape(-1, times.shape[-1])).reshape(*times.shape, -1)
            self._widen(found)
            off = np.abs(found - _parabola(values[chosen], part)).mean(axis=1)
            misfit[chosen] = length[chosen, :, None] * off
        return misfit

    def _jumps(self, panels: _Panels, sums: _Sums, coarse: Array) -> _Jumps:
        """Jumps: where nearly all change in a panel, or far more than on both sides of a border, is in one gap."""
        gap = np.concatenate((sums.gap, np.zeros((1, sums.gap.shape[1])))).reshape(len(panels.low), _COUNT, -1)
        inside, border = gap[:, :-1], gap[:-1, -1]
        suspect = np.zeros(gap.shape, dtype=bool)
        largest = (inside == inside.max(axis=1, keepdims=True)) & (inside > 0)
        suspect[:, :-1] = largest & (inside >= _JUMP_IN_PANEL * inside.sum(axis=1, keepdims=True)) & coarse[:, None]
        joined = (panels.high[:-1] == panels.low[1:]) & ~panels.ends_at_break[:-1] & (panels.high[1:] > panels.low[1:])
        around = inside[:-1, -1] + inside[1:, 0]
        suspect[:-1, -1] = joined & (border > _JUMP_AT_BORDER * around + _SMALL_JUMP)
        if not suspect.any():
            return _Jumps(np.empty(0, int), np.empty(0), np.zeros_like(coarse))
        times = panels.low[:, None] + _NODES[:, None] * (panels.high - panels.low)[:, None]
        times, suspect = times.reshape(-1, times.shape[-1]), suspect.reshape(-1, suspect.shape[-1])
        gaps = np.broadcast_to(np.arange(len(times))[:, None], times.shape)
        (low, high, gaps), valid = _gathered((times, np.roll(times, -1, axis=0), gaps), suspect)
        middle, found = self._bisected(low, np.where(valid, high, low), valid)
        rows = np.nonzero(found)[1]
        jumped = np.zeros_like(coarse)
        jumped[gaps[found] // _COUNT, rows] = True
        return _Jumps(rows, middle[found], jumped)

    def _bisected(self, low: Array, high: Array, active: Array) -> tuple[Array, Array]:
        """Times of jumps between times ``(k, rows)``, and a mask: half of the change stays in any short interval."""
        at_low, at_high = self.evaluate(low), self.evaluate(high)
        change = self._distance(at_low, at_high)
        alive = active.copy()
        while (active := alive & (high - low > 0.5 * self.margin)).any():
            middle = 0.5 * (low + high)
            value = self.evaluate(middle)
            to_left = active & (self._distance(at_low, value) >= self._distance(value, at_high))
            to_right = active & ~to_left
            high, low = np.where(to_left, middle, high), np.where(to_right, middle, low)
            at_high = np.where(to_left[..., None], value, at_high)
            at_low = np.where(to_right[..., None], value, at_low)
            alive &= self._distance(at_low, at_high) >= 0.5 * change
        return 0.5 * (low + high), alive

    def jumps_at_ends(self, rows: int) -> Array:
        """Whether the data jump right after the start and right before the end of the span ``(rows, 2)``."""
        jumps = np.empty((rows, 2), dtype=bool)
        for end, inwards in enumerate((1.0, -1.0)):
            node = inwards * _NODES[0] * (self.span[1] - self.span[0]) / _PANELS
            times = self.span[end] + np.array([[0.0], [inwards * self.margin], [node]])
            at_end, near, inside = self.evaluate(np.repeat(times, rows, axis=1))
            change, noise = np.abs(inside - at_end), 64 * np.finfo(float).eps * np.maximum(self.largest, np.abs(at_end))
            jumps[:, end] = ((change > noise) & (np.abs(near - at_end) >= 0.5 * change)).any(axis=-1)
        return jumps

    def _distance(self, one: Array, other: Array) -> Array:
        return (np.abs(one - other) / self.unit).sum(axis=-1)


def _first_panels(span: tuple[float, float], breaks: list[Array]) -> _Panels:
    """Panels of about a thirty-second of the span, and at least four between break points."""
    built: dict[bytes, tuple[Array, Array]] = {}
    for times in breaks:
        if times.tobytes() not in built:
            ends = np.concatenate(([span[0]], times, [span[1]]))
            counts = np.ceil(_PANELS * np.diff(ends) / (span[1] - span[0]) - 1e-9).astype(int)
            counts = np.maximum(counts, _PANELS_OF_STRETCH)
            edges = [np.linspace(a, b, n + 1)[:-1] for a, b, n in zip(ends[:-1], ends[1:], counts, strict=True)]
            at_break = np.zeros(counts.sum(), dtype=bool)
            at_break[np.cumsum(counts) - 1] = True
            built[times.tobytes()] = np.append(np.concatenate(edges), span[1]), at_break
    most = max(len(at_break) for _, at_break in built.values())
    low, high = np.full((2, most, len(breaks)), span[1])
    ends_at_break = np.zeros((most, len(breaks)), dtype=bool)
    for row, times in enumerate(breaks):
        edges, at_break = built[times.tobytes()]
        count = len(at_break)
        low[:count, row], high[:count, row], ends_at_break[:count, row] = edges[:-1], edges[1:], at_break
    return _Panels(low, high, ends_at_break)


def _halved(panels: _Panels, coarse: Array) -> _Panels:
    """The halves of the coarse panels."""
    (low, high, ends_at_break), valid = _gathered(panels, coarse)
    high = np.where(valid, high, low)
    middle = 0.5 * (low + high)
    halves = ((low, middle), (middle, high), (np.zeros_like(valid), ends_at_break & valid))
    return _Panels(*(np.stack(pair, axis=1).reshape(-1, low.shape[1]) for pair in halves))


def _gathered(arrays: tuple[Array, ...], mask: Array) -> tuple[list[Array], Array]:
    """The marked entries of every row of arrays ``(k, rows)``, in order, and which entries are not mere filling."""
    order = np.argsort(~mask, axis=0, kind="stable")[: mask.sum(axis=0).max()]
    return [np.take_along_axis(array, order, axis=0) for array in arrays], np.take_along_axis(mask, order, axis=0)


def _spaced(times: Array, span: tuple[float, float], margin: float) -> Array:
    """Sorted times within the span, apart from one another and from its ends."""
    times = np.sort(times[(times > span[0] + 2 * margin) & (times < span[1] - 2 * margin)])
    return times[np.diff(times, prepend=-np.inf) > 2 * margin]


def _weighted(values: Array) -> Array:
    """Kronrod's mean over the nodes, axis 1, added in order so that a row does not depend on the others."""
    total = _WEIGHTS[0] * values[:, 0]
    for j in range(1, _COUNT):
        total += _WEIGHTS[j] * values[:, j]
    return total


def _first_order_error(values: Array, length: Array) -> Array:
    """Error of the rule that takes the value at one end, and a bound of its square, stacked before the last axis."""
    error = 0.5 * length * (values[-1] - values[0])
    largest = 0.5 * length * _last_sum(np.abs(np.diff(values, axis=0)))
    return np.stack((error, largest**2), axis=-2)


def _sums_before(values: Array, first: Array) -> Array:
    """Sums over the panels of a row before each."""
    total = np.zeros_like(values)
    for a, b in pairwise(first.tolist()):
        np.cumsum(values[a : b - 1], axis=0, out=total[a + 1 : b])
    return total


def _last_sum(values: Array) -> Array:
    return np.cumsum(values, axis=0)[-1]


def _parabola(values: Array, at: Array) -> Array:
    """The parabola through the first, the middle and the last of values at the nodes, axis 1, at parts of the panel."""
    places = 0, _MIDDLE, _COUNT - 1
    ends = _NODES[0], _NODES[_MIDDLE], _NODES[-1]
    first, middle, last = (values[:, [place]] * _lagrange(ends, k, at)[:, None, None] for k, place in enumerate(places))
    return first + middle + last


def _lagrange(points: tuple[float, ...], index: int, at: Array) -> Array:
    """Values at some places of the polynomial that is 1 at one of the points and 0 at the others."""
    factors = [(at - x) / (points[index] - x) for k, x in enumerate(points) if k != index]
    return np.prod(factors, axis=0)
