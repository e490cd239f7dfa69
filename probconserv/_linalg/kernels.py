"""Compiled passes over long fields and large batches for one law w and a diagonal Σ = diag v.

    project      Σ_i w_i² v_i, and whether a variance is negative
    functional   Σ_i w_i u_i
    subtract     u − λ v∘w, and Σ_i w_i times it
    reduce       v − (d v∘w)², negative round-off set to zero

A pass reads every number once and allocates only its result. Sums are taken over blocks of 1,024 numbers and added with
compensation (Neumaier 1974), so that round-off does not grow with n. Arrays are ``(fields, n)``, contiguous, float64.
Shorter arrays are read cyclically (``u``), or as entry ⌊field/s⌋ where s consecutive fields have the same prior
(``weights``, ``variance``).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from solvers._compiled import compiled

_Array = np.ndarray
_Piece = tuple[int, int, int, int]  # first and last field, first and last point
_BLOCK = 1024
_PER_THREAD = 1 << 17  # numbers that are worth one more thread


def project(weights: _Array, variance: _Array, fields: int, threads: int) -> tuple[_Array, bool]:
    """Σ_i w_i² v_i ``(fields,)``, and whether an entry of v is negative."""
    pieces = _pieces(fields, weights.shape[1], threads)
    sums = np.zeros((len(pieces), fields))
    negative = np.zeros(len(pieces))
    _run(lambda i: _project(weights, variance, pieces[i], sums[i], negative[i : i + 1]), len(pieces))
    return sums.sum(axis=0), bool(negative.any())


def functional(u: _Array, weights: _Array, shape: tuple[int, int], threads: int) -> _Array:
    """Σ_i w_i u_i ``(fields,)`` for ``shape`` = (fields, s)."""
    pieces = _pieces(shape[0], u.shape[1], threads)
    sums = np.zeros((len(pieces), shape[0]))
    _run(lambda i: _functional(u, weights, shape[1], pieces[i], sums[i]), len(pieces))
    return sums.sum(axis=0)


def subtract(
    u: _Array, prior: tuple[_Array, _Array], multipliers: _Array, group: int, out: _Array, threads: int
) -> _Array:
    """Writes u − λ v∘w to ``out`` and gives Σ_i w_i times it ``(fields,)``.

    Args:
        u: Fields.
        prior: Weights w and variance v.
        multipliers: λ ``(fields,)``.
        group: Number s of consecutive fields with the same prior.
        out: Where the result goes, ``(fields, n)``.
        threads: Largest number of threads.

    Returns:
        The functional of the result.
    """
    pieces = _pieces(out.shape[0], out.shape[1], threads)
    sums = np.zeros((len(pieces), out.shape[0]))
    _run(lambda i: _subtract(u, prior, multipliers, group, (out, sums[i]), pieces[i]), len(pieces))
    return sums.sum(axis=0)


def reduce(prior: tuple[_Array, _Array], factors: _Array, slack: float, out: _Array, threads: int) -> float:
    """Writes v − (d v∘w)² to ``out``; negative entries within ``slack * v`` become zero.

    Args:
        prior: Weights w and variance v.
        factors: d ``(fields,)``.
        slack: Round-off relative to the variance.
        out: Where the result goes, ``(fields, n)``.
        threads: Largest number of threads.

    Returns:
        The smallest entry that is negative beyond round-off, 0 where there is none.
    """
    pieces = _pieces(out.shape[0], out.shape[1], threads)
    smallest = np.zeros(len(pieces))
    _run(lambda i: _reduce(prior, factors, slack, out, pieces[i], smallest[i : i + 1]), len(pieces))
    return float(smallest.min())


def _pieces(fields: int, points: int, threads: int) -> list[_Piece]:
    """One piece per thread: whole fields if there are enough of them, else whole blocks of points."""
    threads = max(min(threads, fields * points // _PER_THREAD), 1)
    if fields >= threads:
        step = -(-fields // threads)
        return [(first, min(first + step, fields), 0, points) for first in range(0, fields, step)]
    step = -(-points // (threads * _BLOCK)) * _BLOCK
    return [(0, fields, start, min(start + step, points)) for start in range(0, points, step)]


def _run(work: Callable[[int], None], pieces: int) -> None:
    """Runs the pieces in parallel, the first in this thread; all threads end here, so that forking is safe."""
    if pieces == 1:
        work(0)
        return
    with ThreadPoolExecutor(pieces - 1) as pool:
        others = [pool.submit(work, i) for i in range(1, pieces)]
        work(0)
        for other in others:
            other.result()


@compiled
def _add(total: float, lost: float, part: float) -> tuple[float, float]:
    """Total plus part, and the accumulated rounding error."""
    larger = total + part
    lost += (total - larger) + part if abs(total) >= abs(part) else (part - larger) + total
    return larger, lost


@compiled(fastmath={"reassoc", "contract"})
def _project_block(w: _Array, v: _Array) -> tuple[float, bool]:
    total, negative = 0.0, False
    for i in range(w.shape[0]):
        total += w[i] * w[i] * v[i]
        negative |= v[i] < 0.0
    return total, negative


@compiled(fastmath={"reassoc", "contract"})
def _functional_block(w: _Array, u: _Array) -> float:
    total = 0.0
    for i in range(w.shape[0]):
        total += w[i] * u[i]
    return total


@compiled(fastmath={"reassoc", "contract"})
def _subtract_block(u: _Array, w: _Array, v: _Array, multiplier: float, out: _Array) -> float:
    total = 0.0
    for i in range(w.shape[0]):
        value = u[i] - multiplier * w[i] * v[i]
        out[i] = value
        total += w[i] * value
    return total


@compiled(fastmath={"contract"})
def _reduce_block(w: _Array, v: _Array, factor: float, out: _Array) -> bool:
    negative = False
    for i in range(w.shape[0]):
        white = w[i] * v[i] * factor
        value = v[i] - white * white
        out[i] = value
        negative |= value < 0.0
    return negative


@compiled
def _clear_round_off(v: _Array, slack: float, out: _Array) -> float:
    """Sets negative entries within ``slack * v`` to zero; returns the smallest of the others, or 0."""
    smallest = 0.0
    for i in range(out.shape[0]):
        if out[i] < 0.0:
            if out[i] < -slack * v[i]:
                smallest = min(smallest, out[i])
            out[i] = 0.0
    return smallest


@compiled
def _project(weights: _Array, variance: _Array, piece: _Piece, sums: _Array, flag: _Array) -> None:
    first, last, start, stop = piece
    for field in range(first, last):
        w, v = weights[field % weights.shape[0]], variance[field % variance.shape[0]]
        total, lost = 0.0, 0.0
        for at in range(start, stop, _BLOCK):
            end = min(at + _BLOCK, stop)
            part, negative = _project_block(w[at:end], v[at:end])
            total, lost = _add(total, lost, part)
            if negative:
                flag[0] = 1.0
        sums[field] = total + lost


@compiled
def _functional(u: _Array, weights: _Array, group: int, piece: _Piece, sums: _Array) -> None:
    first, last, start, stop = piece
    for field in range(first, last):
        w, values = weights[(field // group) % weights.shape[0]], u[field % u.shape[0]]
        total, lost = 0.0, 0.0
        for at in range(start, stop, _BLOCK):
            end = min(at + _BLOCK, stop)
            total, lost = _add(total, lost, _functional_block(w[at:end], values[at:end]))
        sums[field] = total + lost


@compiled
def _subtract(
    u: _Array,
    prior: tuple[_Array, _Array],
    multipliers: _Array,
    group: int,
    result: tuple[_Array, _Array],
    piece: _Piece,
) -> None:
    weights, variance = prior
    out, sums = result
    first, last, start, stop = piece
    for field in range(first, last):
        entry = field // group
        w, v = weights[entry % weights.shape[0]], variance[entry % variance.shape[0]]
        values, changed = u[field % u.shape[0]], out[field]
        total, lost = 0.0, 0.0
        for at in range(start, stop, _BLOCK):
            end = min(at + _BLOCK, stop)
            part = _subtract_block(values[at:end], w[at:end], v[at:end], multipliers[field], changed[at:end])
            total, lost = _add(total, lost, part)
        sums[field] = total + lost


@compiled
def _reduce(
    prior: tuple[_Array, _Array], factors: _Array, slack: float, out: _Array, piece: _Piece, smallest: _Array
) -> None:
    weights, variance = prior
    first, last, start, stop = piece
    for field in range(first, last):
        w, v, reduced = weights[field % weights.shape[0]], variance[field % variance.shape[0]], out[field]
        for at in range(start, stop, _BLOCK):
            end = min(at + _BLOCK, stop)
            if _reduce_block(w[at:end], v[at:end], factors[field], reduced[at:end]):
                smallest[0] = min(smallest[0], _clear_round_off(v[at:end], slack, reduced[at:end]))
