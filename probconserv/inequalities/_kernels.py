"""Compiled projection of many fields onto {wᵀu = b, lower ≤ u ≤ upper, u increasing} in the metric of a diagonal Σ.

The minimiser of Σ_i (u_i − x_i)²/v_i is u(λ), where λ is the multiplier of the law: with z = x − λ v∘w,

    bounds alone          u(λ) = clip(z, lower, upper)
    increasing, bounded   u(λ) = clip(isotonic regression of z with weights 1/v, lower, upper)

(Best & Chakravarti 1990 for the order; clipping by constant bounds commutes with it.) f(λ) = wᵀu(λ) − σ²λ − b is
continuous, piecewise linear and never increasing, so Newton steps kept in a bracket end at its root exactly. Every
evaluation is O(n).
"""

import numpy as np

from solvers._compiled import compiled

_Array = np.ndarray
_EPS = float(np.finfo(np.float64).eps)
_EVALUATIONS = 400  # a bracket of floating-point numbers needs far fewer: about 60 halvings, 30 expansions
_POLISHES = 3


@compiled
def _clip(
    x: _Array, metric: tuple[_Array, _Array], bounds: _Array, multiplier: float, u: _Array, slope: _Array
) -> None:
    """u(λ) and −du/dλ without an order; ``metric`` is v and w."""
    v, w = metric
    for i in range(x.shape[0]):
        step = v[i] * w[i]
        value = x[i] - multiplier * step
        inside = bounds[0, i] < value < bounds[1, i]
        u[i] = min(max(value, bounds[0, i]), bounds[1, i])
        slope[i] = step if inside else 0.0


@compiled
def _pool(
    x: _Array,
    metric: tuple[_Array, _Array],
    bounds: _Array,
    multiplier: float,
    result: tuple[_Array, _Array],
    scratch: tuple[_Array, int],
) -> None:
    """u(λ) and −du/dλ of increasing fields: neighbours out of order are pooled, never across a zero-variance node or
    from one line to the next.

    ``scratch`` is an array (4, n) for mean, precision 1/v, Σ w and first node of every pool, and the length of a line.
    """
    pools, length = scratch
    v, w = metric
    u, slope = result
    n = x.shape[0]
    count = 0
    barrier = 0
    line = 0
    for i in range(n):
        if i == line:
            barrier = count
            line += length
        if v[i] == 0.0:
            mean, precision, weight, first = x[i], np.inf, 0.0, i
        else:
            mean, precision, weight, first = x[i] - multiplier * v[i] * w[i], 1.0 / v[i], w[i], i
            while count > barrier and pools[0, count - 1] >= mean:
                count -= 1
                ratio = pools[1, count] / (pools[1, count] + precision)
                mean += ratio * (pools[0, count] - mean)
                precision += pools[1, count]
                weight += pools[2, count]
                first = int(pools[3, count])
        pools[0, count], pools[1, count], pools[2, count], pools[3, count] = mean, precision, weight, first
        count += 1
        if v[i] == 0.0:
            barrier = count
    end = n
    for pool in range(count - 1, -1, -1):
        first = int(pools[3, pool])
        mean = pools[0, pool]
        inside = bounds[0, first] < mean < bounds[1, first]
        value = min(max(mean, bounds[0, first]), bounds[1, first])
        rate = pools[2, pool] / pools[1, pool] if inside else 0.0
        for i in range(first, end):
            u[i] = value
            slope[i] = rate
        end = first


@compiled(fastmath={"reassoc", "contract"})
def _measure(x: _Array, w: _Array, u: _Array, slope: _Array) -> tuple[float, float, float]:
    """wᵀu, −d(wᵀu)/dλ, and the size of the numbers whose rounding enters wᵀu."""
    total, rate, size = 0.0, 0.0, 0.0
    for i in range(x.shape[0]):
        total += w[i] * u[i]
        rate += w[i] * slope[i]
        size += abs(w[i]) * (abs(u[i]) + (abs(x[i]) if slope[i] != 0.0 else 0.0))
    return total, rate, size


@compiled
def _next_multiplier(
    multiplier: float, value: float, rate: float, bracket: tuple[float, float], growth: float
) -> float:
    """Newton's step if it stays in the bracket, else its middle, else further out."""
    low, high = bracket
    if rate > 0.0:
        proposed = multiplier + value / rate
        if low < proposed < high:
            return proposed
    if low > -np.inf and high < np.inf:
        return low + 0.5 * (high - low)
    return multiplier + growth if value > 0.0 else multiplier - growth


@compiled
def _polish(
    w: _Array, bounds: _Array, law: _Array, state: tuple[float, float, float], u: _Array, slope: _Array
) -> float:
    """Reduces the residual of the law along −du/dλ, with a compensated sum; returns the remaining residual.

    The residual is relative to |b| + Σ|w u|; ``state`` is the result of ``_search``.
    """
    target, noise = law
    multiplier, rate, stretch = state
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
        remainder = abs(value) / size if size > 0.0 else 0.0
        if remainder <= _EPS or rate <= 0.0:
            break
        shift = value / rate
        multiplier += shift * stretch
        for i in range(w.shape[0]):
            u[i] = min(max(u[i] - shift * slope[i], bounds[0, i]), bounds[1, i])
    return remainder


@compiled
def _evaluate(
    x: _Array,
    metric: tuple[_Array, _Array],
    bounds: _Array,
    multiplier: float,
    result: tuple[_Array, _Array],
    scratch: tuple[_Array, int],
) -> tuple[float, float, float]:
    """u(λ) and −du/dλ into ``result``, pooled if scratch is given; returns what ``_measure`` does."""
    u, slope = result
    if scratch[1] > 0:
        _pool(x, metric, bounds, multiplier, result, scratch)
    else:
        _clip(x, metric, bounds, multiplier, u, slope)
    return _measure(x, metric[1], u, slope)


@compiled
def _search(
    x: _Array,
    metric: tuple[_Array, _Array],
    bounds: _Array,
    law: _Array,
    result: tuple[_Array, _Array],
    scratch: tuple[_Array, int],
) -> tuple[float, float, float]:
    """Writes u(λ) and −du/dλ at the root of f to ``result``; returns λ, −df/dλ and 1.

    If the bracket shrinks to neighbouring numbers before f vanishes, because λ is too coarse for u, the law is met
    between the fields at its ends: then derivatives are with respect to the fraction of the way from the lower to the
    upper end, and the last number is dλ by that fraction.
    """
    target, noise = law
    u, slope = result
    v, w = metric
    growth = noise + np.sum(w * w * v)
    multiplier, low, high, rate = 0.0, -np.inf, np.inf, 0.0
    for evaluation in range(_EVALUATIONS):
        total, rate, size = _evaluate(x, metric, bounds, multiplier, result, scratch)
        value = total - noise * multiplier - target
        rate += noise
        if abs(value) <= 2.0 * _EPS * (size + abs(target) + noise * abs(multiplier)) or growth == 0.0:
            return multiplier, rate, 1.0
        if value > 0.0:
            low = multiplier
        else:
            high = multiplier
        growth = abs(value) / growth if evaluation == 0 else 4.0 * growth
        proposed = _next_multiplier(multiplier, value, rate, (low, high), growth)
        if proposed in (low, high):
            break
        multiplier = proposed
    if high - low < np.inf:
        _evaluate(x, metric, bounds, high, result, scratch)
        other = u.copy()
        _evaluate(x, metric, bounds, low, result, scratch)
        rate = noise * (high - low)
        for i in range(x.shape[0]):
            slope[i] = u[i] - other[i]
            rate += w[i] * slope[i]
        return low, rate, high - low
    return multiplier, rate, 1.0


@compiled
def _project_row(
    x: _Array, metric: tuple[_Array, _Array], bounds: _Array, law: _Array, length: int, u: _Array
) -> float:
    """Overwrites ``u`` by the projection of x; returns the residual of the law as ``_polish`` does."""
    n = x.shape[0]
    slope = np.empty(n)
    scratch = (np.empty((4, n if length else 0)), length)
    state = _search(x, metric, bounds, law, (u, slope), scratch)
    remainder = _polish(metric[1], bounds, law, state, u, slope)
    if length:
        for start in range(0, n, length):
            for i in range(start + 1, start + length):
                u[i] = max(u[i], u[i - 1])
    return remainder


@compiled
def project_rows(x: _Array, v: _Array, w: _Array, bounds: _Array, law: _Array, length: int) -> tuple[_Array, _Array]:
    """Projects every row of x; parameters with fewer rows are repeated.

    Args:
        x: Fields (rows, n).
        v: Variances (p, n), p a divisor of the number of rows, for this and every other parameter.
        w: Row of the law (p, n); zeros for no law.
        bounds: Lower and upper (p, 2, n). For increasing fields constant between zero-variance nodes; both equal to x
            at such a node.
        law: b and σ² (p, 2).
        length: Points of a line along which the fields must increase; 0 for no order.

    Returns:
        Projections (rows, n) and residuals of the law relative to |b| + Σ|w u| (rows,).
    """
    rows = x.shape[0]
    u = np.empty_like(x)
    remainder = np.empty(rows)
    for r in range(rows):
        metric = (v[r % v.shape[0]], w[r % w.shape[0]])
        own_bounds, own_law = bounds[r % bounds.shape[0]], law[r % law.shape[0]]
        remainder[r] = _project_row(x[r], metric, own_bounds, own_law, length, u[r])
    return u, remainder
