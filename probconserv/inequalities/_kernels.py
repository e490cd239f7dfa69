"""Compiled projection of many fields onto rows that share no point, bounds and an order, for a diagonal Σ.

The minimiser of ½ Σ_i (u_i − x_i)²/v_i with wᵀu = b or wᵀu ≤ b is u(λ), where λ is the multiplier of the row: with
z = x − λ v∘w,

    bounds alone          u(λ) = clip(z, lower, upper)
    increasing, bounded   u(λ) = isotonic regression of z with weights 1/v between the bounds, by pooling

(Best, Chakravarti & Ubhaya 2000). f(λ) = wᵀu(λ) − σ²λ − b is continuous, piecewise linear and never increasing, so
Newton steps kept in a bracket end at its root exactly. Every evaluation is O(n).
"""

import numpy as np

from solvers._compiled import compiled, inner

_Array = np.ndarray
_EPS, _TINY = float(np.finfo(np.float64).eps), float(np.finfo(np.float64).tiny)
_EVALUATIONS = 400  # a bracket of floating-point numbers needs far fewer: about 60 halvings, 30 expansions
_POLISHES = 3


@inner
def _pool(
    x: _Array,
    metric: tuple[_Array, _Array],
    bounds: tuple[_Array, _Array],
    multiplier: float,
    result: tuple[_Array, _Array],
    scratch: tuple[_Array, int],
) -> None:
    """u(λ) and −du/dλ of increasing fields: neighbours out of order are pooled, never from one line to the next.

    ``scratch`` is an array (4, n) for mean, precision 1/v, Σ w and first node of every pool, and the length of a line.
    Bounds increase along a line, so that the last lower and the first upper one bound a pool.
    """
    pools, length = scratch
    v, w = metric
    lower, upper = bounds
    u, slope = result
    n = x.shape[0]
    count, barrier, line = 0, 0, 0
    for i in range(n):
        if i == line:
            barrier = count
            line += length
        mean = x[i] - multiplier * v[i] * w[i]
        precision, weight, first = 1.0 / v[i] if v[i] > 0.0 else 1.0, w[i], i
        value = min(max(mean, lower[i]), upper[i])
        while count > barrier:
            before = int(pools[3, count - 1])
            if min(max(pools[0, count - 1], lower[first - 1]), upper[before]) <= value:
                break
            count -= 1
            ratio = pools[1, count] / (pools[1, count] + precision)
            mean += ratio * (pools[0, count] - mean)
            precision += pools[1, count]
            weight += pools[2, count]
            first = before
            value = min(max(mean, lower[i]), upper[first])
        pools[0, count], pools[1, count], pools[2, count], pools[3, count] = mean, precision, weight, first
        count += 1
    end = n
    for pool in range(count - 1, -1, -1):
        first = int(pools[3, pool])
        mean, low, high = pools[0, pool], lower[end - 1], upper[first]
        rate = pools[2, pool] / pools[1, pool] if low < mean < high else 0.0
        value = min(max(mean, low), high)
        for i in range(first, end):
            u[i] = value
            slope[i] = rate
        end = first


@inner
def _evaluate(
    x: _Array,
    metric: tuple[_Array, _Array],
    bounds: tuple[_Array, _Array],
    multiplier: float,
    result: tuple[_Array, _Array],
    scratch: tuple[_Array, int],
) -> None:
    """u(λ) and −du/dλ of one row w into ``result``, pooled if scratch has a length; ``metric`` is v and w."""
    if scratch[1] > 0:
        _pool(x, metric, bounds, multiplier, result, scratch)
        return
    v, w = metric
    lower, upper = bounds
    u, slope = result
    for i in range(x.shape[0]):
        step = v[i] * w[i]
        value = x[i] - multiplier * step
        inside = lower[i] < value < upper[i]
        u[i] = min(max(value, lower[i]), upper[i])
        slope[i] = step if inside else 0.0


@inner(fastmath={"reassoc", "contract"})
def _measure(x: _Array, w: _Array, u: _Array, slope: _Array) -> tuple[float, float, float]:
    """wᵀu, −d(wᵀu)/dλ, and the size of the numbers whose rounding enters wᵀu."""
    total, rate, size = 0.0, 0.0, 0.0
    for i in range(x.shape[0]):
        total += w[i] * u[i]
        rate += w[i] * slope[i]
        size += abs(w[i]) * (abs(u[i]) + (abs(x[i]) if slope[i] != 0.0 else 0.0))
    return total, rate, size


@inner
def _search(
    x: _Array,
    metric: tuple[_Array, _Array],
    bounds: tuple[_Array, _Array],
    law: tuple[float, float, float],
    result: tuple[_Array, _Array, _Array],
    scratch: tuple[_Array, int],
) -> tuple[float, float, float]:
    """Writes u(λ) and −du/dλ at the root of f to ``result``, whose last array is scratch; returns λ, −df/dλ and 1.

    If the bracket shrinks to neighbouring numbers before f vanishes, because λ is too coarse for u, the law is met
    between the fields at its ends: then derivatives are with respect to the fraction of the way from the lower to the
    upper end, and the last number is dλ by that fraction.
    """
    target, noise, least = law
    u, slope, other = result
    v, w = metric
    stiffness = noise
    for i in range(x.shape[0]):
        stiffness += w[i] * v[i] * w[i]
    multiplier, low, high, rate, growth = 0.0, -np.inf, np.inf, 0.0, 0.0
    closed = False
    for evaluation in range(_EVALUATIONS):
        _evaluate(x, metric, bounds, multiplier, (u, slope), scratch)
        if closed:
            rate = noise * (high - low)
            for i in range(x.shape[0]):
                slope[i] = u[i] - other[i]
                rate += w[i] * slope[i]
            return low, rate, high - low
        total, rate, size = _measure(x, w, u, slope)
        value = total - noise * multiplier - target
        rate += noise
        within = abs(value) <= 2.0 * _EPS * (size + abs(target) + noise * abs(multiplier))
        if within or stiffness == 0.0 or (multiplier == least and value <= 0.0):
            break
        if value > 0.0:
            low = multiplier
        else:
            high = multiplier
        growth = abs(value) / stiffness if evaluation == 0 else 4.0 * growth
        proposed = multiplier + value / rate if rate > 0.0 else np.nan
        if not low < proposed < high:
            if low > -np.inf and high < np.inf:
                proposed = low + 0.5 * (high - low)
            else:
                proposed = multiplier + growth if value > 0.0 else multiplier - growth
        if proposed in (low, high):
            if high - low == np.inf:
                break
            if multiplier != high:
                _evaluate(x, metric, bounds, high, (u, slope), scratch)
            for i in range(x.shape[0]):  # an assignment of slices takes two seconds to compile
                other[i] = u[i]
            closed, proposed = True, low
        multiplier = max(proposed, least)
    return multiplier, rate, 1.0


@inner
def _polish(
    w: _Array,
    bounds: tuple[_Array, _Array],
    law: tuple[float, float, float],
    state: tuple[float, float, float],
    result: tuple[_Array, _Array, _Array],
) -> float:
    """Reduces the residual of the law along −du/dλ, with a compensated sum; returns the remaining residual.

    The residual is relative to |b| + Σ|w u|, or the least normal number; ``state`` is the result of ``_search``.
    """
    target, noise = law[0], law[1]
    multiplier, rate, stretch = state
    u, slope, _ = result
    lower, upper = bounds
    remainder = 0.0
    for _ in range(_POLISHES):
        total, lost, size = -target, 0.0, abs(target)
        for i in range(w.shape[0]):
            term = w[i] * u[i]
            partial = total + term
            lost += (total - partial) + term if abs(total) >= abs(term) else (term - partial) + total
            total = partial
            size += abs(term)
        value = total + lost - noise * multiplier
        remainder = abs(value) / max(size, _TINY)
        if remainder <= _EPS or rate <= 0.0:
            break
        shift = value / rate
        multiplier += shift * stretch
        for i in range(w.shape[0]):
            u[i] = min(max(u[i] - shift * slope[i], lower[i]), upper[i])
    return remainder


@inner
def _project(
    x: _Array,
    metric: tuple[_Array, _Array],
    bounds: tuple[_Array, _Array],
    law: tuple[float, float, float],
    result: tuple[_Array, _Array, _Array],
    scratch: tuple[_Array, int],
) -> tuple[float, float]:
    """Projects the points of one row; returns the multiplier and the residual of the row where it holds."""
    state = _search(x, metric, bounds, law, result, scratch)
    missed = 0.0 if state[0] == law[2] else _polish(metric[1], bounds, law, state, result)
    return state[0], missed


@compiled
def project_rows(
    x: _Array,
    v: _Array,
    bounds: _Array,
    law: _Array,
    rows: tuple[_Array, _Array, _Array],
    length: int,
    result: tuple[_Array, _Array],
) -> float:
    """Projects every field; parameters with fewer fields p, a divisor of the number of fields, are repeated.

    x (fields, n) and v (p, n); ``bounds`` lower and upper (p, 2, n), increasing along a line if the fields do, both
    equal where v is 0; ``law`` b, σ² and the least multiplier (p, 3, k): −∞ for wᵀu = b, 0 for wᵀu ≤ b; ``rows`` where
    every row starts (k + 1,), its points (entries,) and their weights (p, entries). Fields increase along lines of
    ``length`` points, for a single row with all points; 0 for no order. ``result`` takes projections (fields, n),
    clipped at points of no row, and multipliers (fields, k). Returns the largest residual of a row relative to |b| +
    Σ|w u|, of inequalities only where they hold with equality.
    """
    starts, columns, weights = rows
    fields, n = x.shape
    u, multipliers = result
    worst, longest = 0.0, 0
    for r in range(starts.shape[0] - 1):
        longest = max(longest, starts[r + 1] - starts[r])
    memory = np.empty((7, longest))
    scratch = (np.empty((4, n if length else 0)), length)
    for f in range(fields):
        d, box, goal = v[f % v.shape[0]], bounds[f % bounds.shape[0]], law[f % law.shape[0]]
        w, lower, upper = weights[f % weights.shape[0]], box[0], box[1]
        if longest < n:
            for i in range(n):
                u[f, i] = min(max(x[f, i], lower[i]), upper[i])
        for r in range(starts.shape[0] - 1):
            first, size = starts[r], starts[r + 1] - starts[r]
            stated = (goal[0, r], goal[1, r], goal[2, r])
            slope, other = memory[0, :size], memory[1, :size]
            if size == n:
                whole, points = (d, w[first : first + n]), (u[f], slope, other)
                multipliers[f, r], missed = _project(x[f], whole, (lower, upper), stated, points, scratch)
                worst = max(worst, missed)
                continue
            for e in range(size):
                i = columns[first + e]
                memory[2, e], memory[3, e], memory[4, e], memory[5, e] = x[f, i], d[i], lower[i], upper[i]
            row, between = (memory[3, :size], w[first : first + size]), (memory[4, :size], memory[5, :size])
            part = (memory[6, :size], slope, other)
            multipliers[f, r], missed = _project(memory[2, :size], row, between, stated, part, scratch)
            worst = max(worst, missed)
            for e in range(size):
                u[f, columns[first + e]] = part[0][e]
        if length:
            for start in range(0, n, length):
                for i in range(start + 1, start + length):
                    u[f, i] = max(u[f, i], u[f, i - 1])
    return worst
