"""The shortest vector that meets equations and inequalities, by the dual active-set method (Goldfarb & Idnani 1983).

    minimise ½ |z|²   subject to   E z = e,  A z ≥ b

The most violated inequality becomes active; on the way there, active ones whose multiplier falls to zero are released.
|z| grows with every inequality, so that no active set comes back, and an inequality that can neither be approached nor
be reached by releasing others proves that there is no z. The active rows are kept as a QR factorisation.
"""

import numpy as np
from scipy.linalg import (
    qr_delete,  # pyright: ignore[reportAttributeAccessIssue]  (in a compiled module without types)
    qr_insert,  # pyright: ignore[reportAttributeAccessIssue]
    solve_triangular,
)

from probconserv.errors import ConvergenceError, DependentConstraintsError, InfeasibleConstraintError

_Array = np.ndarray
_DEPENDENT = 1e-11  # part of a row of length one that is orthogonal to the active rows, below which it depends on them
_ROUNDING = 1e-13  # violation relative to |b| + |z|
_CHANGES = 50  # of the active set, for every row


def least_norm(
    equations: _Array, goal: _Array, inequalities: _Array, limits: _Array, rounding: _Array | float = 0.0
) -> tuple[_Array, _Array]:
    """z and the multipliers of all rows, those of inequalities positive where they are active: z = Eᵀ λ + Aᵀ μ.

    Args:
        equations: E ``(k, r)``, rows of length one.
        goal: e ``(k,)``.
        inequalities: A ``(m, r)``, rows of length one.
        limits: b ``(m,)``.
        rounding: By how much limits are uncertain ``(m,)``; inequalities may be missed by it.

    Returns:
        z ``(r,)`` and multipliers ``(k + m,)``.

    Raises:
        DependentConstraintsError: If rows of E are dependent.
        InfeasibleConstraintError: If no z meets all of them.
        ConvergenceError: If rounding keeps the active set from being final.
    """
    k, multipliers, active = len(goal), np.zeros(0), np.zeros(0, dtype=int)
    Q, R = np.eye(inequalities.shape[1]), np.zeros((inequalities.shape[1], 0))
    z = np.zeros(len(Q))
    if k:
        Q, R = np.linalg.qr(equations.T, mode="complete")
        if k > len(Q) or np.square(np.diag(R)).min() <= 1e3 * k * np.finfo(float).eps:
            raise DependentConstraintsError(f"The {k} rows are not independent under this prior; drop redundant rows.")
        coefficients = solve_triangular(R[:k], goal, trans=1)
        z, multipliers = Q[:, :k] @ coefficients, solve_triangular(R[:k], coefficients)
    changes = 0
    while changes <= _CHANGES * (k + len(limits) + 1):
        slack = inequalities @ z - limits
        slack[active] = 0.0
        missed = slack + np.maximum(rounding, _ROUNDING * (np.abs(limits) + np.linalg.norm(z)))
        entering = int(missed.argmin()) if len(limits) else 0
        if not len(limits) or missed[entering] >= 0:
            result = np.zeros(k + len(limits))
            result[:k], result[k + active] = multipliers[:k], multipliers[k:]
            return z, result
        row, gap, own = inequalities[entering], -slack[entering], 0.0
        while True:
            changes, q = changes + 1, len(multipliers)
            parts = Q.T @ row
            falling = solve_triangular(R[:q], parts[:q]) if q else parts[:0]
            ratios = np.full(q, np.inf)
            np.divide(multipliers, falling, out=ratios, where=(falling > 0) & (np.arange(q) >= k))
            leaving = int(ratios.argmin()) if q else 0
            release, apart = ratios[leaving] if q else np.inf, float(parts[q:] @ parts[q:])
            reach = gap / apart if apart > _DEPENDENT**2 else np.inf
            length = min(release, reach)
            if np.isinf(length):
                raise InfeasibleConstraintError("No vector meets equations and inequalities together.")
            multipliers, own = multipliers - length * falling, own + length
            if np.isfinite(reach):
                z, gap = z + length * (Q[:, q:] @ parts[q:]), gap - length * apart
            if reach <= release:
                Q, R = qr_insert(Q, R, row, q, which="col")
                active, multipliers = np.append(active, entering), np.append(multipliers, own)
                break
            Q, R = qr_delete(Q, R, leaving, which="col")
            active, multipliers = np.delete(active, leaving - k), np.delete(multipliers, leaving)
    raise ConvergenceError(
        f"The active inequalities did not become final in {changes} changes: rounding decides which of them hold. Drop "
        "redundant ones, or widen bounds that nearly coincide."
    )
