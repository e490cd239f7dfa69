"""The update of long fields and large batches by one row w under a diagonal Σ = diag v, in two passes over the numbers.

    first    S = Σ_i w_i² v_i + σ²,   r = Σ_i w_i u_i
    second   u − λ v∘w with λ = (r − b)/S, Σ_i w_i times it, and v − (v∘w)²/S

Sums are taken over blocks of 1,024 numbers and added with compensation (Neumaier 1974), so that round-off does not grow
with n; a result that misses the row by more than 1e-13 of b is corrected again.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from solvers._compiled import compiled

_Array = np.ndarray
_Fields = tuple[_Array, _Array, _Array, _Array, _Array]
_Results = tuple[_Array, _Array, _Array, _Array, _Array]
_BLOCK = 1024
_PER_THREAD = 1 << 17  # numbers that are worth one more thread


def update(fields: _Fields, entries: int, threads: int) -> _Results:
    """Updates fields.

    Args:
        fields: w, v and u ``(fields, n)``, or ``(1, n)`` for all fields; b and σ² ``(fields,)``.
        entries: Number of variances to return, 1 where w, v and σ² are the same for all fields.
        threads: Largest number of threads.

    Returns:
        S and λ ``(fields,)``, the smallest v of every field or 0, the fields, and the variances ``(entries, n)``.
    """
    count, n = len(fields[3]), fields[0].shape[1]
    results = np.zeros(count), np.zeros(count), np.zeros(count), np.empty((count, n)), np.empty((entries, n))
    threads = max(min(threads, count * n // _PER_THREAD), 1)
    if count >= threads:
        step = -(-count // threads)
        _each(range(0, count, step), lambda at: _update(fields, results, at, min(at + step, count)))
    else:
        step = -(-n // (threads * _BLOCK)) * _BLOCK
        for field in range(count):
            _update_in_parts(fields, results, field, [slice(at, at + step) for at in range(0, n, step)])
    return results


def _update_in_parts(fields: _Fields, results: _Results, field: int, parts: list[slice]) -> None:
    """Updates one long field, every part in a thread."""
    w, v, u = (values[field % len(values)] for values in fields[:3])
    b, noise, out = fields[3][field], fields[4][field], results[3][field]
    kept = results[4][field] if field < len(results[4]) else out[:0]
    first = _each(parts, lambda at: _first(w[at], v[at], u[at]))
    total, functional = sum(part[0] for part in first) + noise, sum(part[1] for part in first)
    results[0][field], results[1][field] = total, np.float64(functional - b) / total
    results[2][field] = min(part[2] for part in first)
    multiplier = results[1][field]
    second = _each(parts, lambda at: _second(w[at], v[at], u[at], (multiplier, 1.0 / total), (out[at], kept[at])))
    missed = sum(second) - b - noise * multiplier
    if abs(missed) > 1e-13 * abs(b):
        _each(parts, lambda at: _second(w[at], v[at], out[at], (missed / total, 0.0), (out[at], out[:0])))


def _each(pieces: Iterable[Any], work: Callable[[Any], Any]) -> list[Any]:
    """What work gives for every piece, each in a thread; all threads end here, so that forking is safe."""
    pieces = list(pieces)
    if len(pieces) == 1:
        return [work(pieces[0])]
    with ThreadPoolExecutor(len(pieces)) as pool:
        return list(pool.map(work, pieces))


@compiled
def _add(total: float, lost: float, part: float) -> tuple[float, float]:
    """Total plus part, and the accumulated rounding error."""
    larger = total + part
    lost += (total - larger) + part if abs(total) >= abs(part) else (part - larger) + total
    return larger, lost


@compiled(fastmath={"reassoc", "contract"})
def _first_block(w: _Array, v: _Array, u: _Array) -> tuple[float, float, bool]:
    total, functional, negative = 0.0, 0.0, False
    for i in range(w.shape[0]):
        total += w[i] * w[i] * v[i]
        functional += w[i] * u[i]
        negative |= v[i] < 0.0
    return total, functional, negative


@compiled(fastmath={"reassoc", "contract"})
def _second_block(w: _Array, v: _Array, u: _Array, multiplier: float, out: _Array) -> float:
    total = 0.0
    for i in range(w.shape[0]):
        value = u[i] - multiplier * w[i] * v[i]
        out[i] = value
        total += w[i] * value
    return total


@compiled
def _first(w: _Array, v: _Array, u: _Array) -> tuple[float, float, float]:
    """Σ w² v, Σ w u, and the smallest v, or 0."""
    total, lost, functional, rest, smallest = 0.0, 0.0, 0.0, 0.0, 0.0
    for at in range(0, w.shape[0], _BLOCK):
        block = slice(at, at + _BLOCK)
        squares, products, negative = _first_block(w[block], v[block], u[block])
        total, lost = _add(total, lost, squares)
        functional, rest = _add(functional, rest, products)
        if negative:
            smallest = min(smallest, v[block].min())
    return total + lost, functional + rest, smallest


@compiled
def _second(w: _Array, v: _Array, u: _Array, factors: tuple[float, float], results: tuple[_Array, _Array]) -> float:
    """Writes u − λ v∘w and, unless there is no room, v − (v∘w)²/S, at least zero; λ and 1/S are the factors.

    Returns:
        Σ w times the first.
    """
    multiplier, inverse = factors
    out, kept = results
    total, lost = 0.0, 0.0
    for at in range(0, w.shape[0], _BLOCK):
        block = slice(at, at + _BLOCK)
        total, lost = _add(total, lost, _second_block(w[block], v[block], u[block], multiplier, out[block]))
        for i in range(at, min(at + _BLOCK, kept.shape[0])):
            kept[i] = max(v[i] - (w[i] * v[i]) * (w[i] * v[i]) * inverse, 0.0)
    return total + lost


@compiled
def _update(fields: _Fields, results: _Results, first: int, last: int) -> None:
    """Updates some of the fields, one after the other."""
    weights, variances, values, b, noise = fields
    totals, multipliers, smallest, changed, reduced = results
    for field in range(first, last):
        w, v = weights[field % weights.shape[0]], variances[field % variances.shape[0]]
        out = changed[field]
        total, functional, smallest[field] = _first(w, v, values[field % values.shape[0]])
        totals[field] = total + noise[field]
        inverse = 1.0 / totals[field]
        multipliers[field] = (functional - b[field]) / totals[field]
        kept = reduced[field] if field < reduced.shape[0] else out[:0]
        functional = _second(w, v, values[field % values.shape[0]], (multipliers[field], inverse), (out, kept))
        missed = functional - b[field] - noise[field] * multipliers[field]
        if abs(missed) > 1e-13 * abs(b[field]):
            _second(w, v, out, (missed * inverse, 0.0), (out, out[:0]))
