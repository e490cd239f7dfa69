"""Integrals of a function of time between output times, with an estimate of their error.

Panels are halved until a polynomial through every other node predicts the values between them. The nodes are those of
Clenshaw and Curtis, drawn in by a millionth of the panel: a jump near an end of a panel lies between two nodes, and a
jump at an end, such as a breakpoint, between two panels.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from probconserv._linalg.values import as_tensor
from probconserv.errors import ConvergenceError, InvalidArgumentError, LibraryError
from solvers.recording import are_readable

PANELS = 64
"""Panels over the whole time, at least; where the function is smooth no more are needed."""
_DEGREE = 16
_ALLOWED = 1e-10  # error of a panel, as a part of ∫ |F| dt over the whole time
_SMOOTH = 1e-6  # the same as a part of that over the panel; the error of the finer rule is about the square
_ROUNDING = 1e-12  # part of ∫ |F| dt over a panel below which an error is one of rounding
_MOST = 1 << 14  # panels that are halved at once
_HALVINGS = 100


def _nested_rule() -> tuple[Tensor, Tensor, Tensor]:
    """Nodes and weights on [−1, 1] ``(17,)``, and what the weighted values at odd nodes differ by ``(17, 8)``."""
    legendre = np.polynomial.legendre.legvander
    nodes = (2.0**-20 - 1) * np.cos(np.pi * np.arange(_DEGREE + 1) / _DEGREE)
    weights = np.linalg.solve(legendre(nodes, _DEGREE).T, 2.0 * np.eye(_DEGREE + 1)[0])
    even, odd = (legendre(nodes[first::2], _DEGREE // 2) for first in (0, 1))
    differences = np.empty((_DEGREE + 1, _DEGREE // 2))
    differences[::2], differences[1::2] = -np.linalg.solve(even.T, odd.T), np.eye(_DEGREE // 2)
    return torch.from_numpy(nodes), torch.from_numpy(weights), torch.from_numpy(differences * weights[1::2])


_RULE = _nested_rule()
"""Computed here, since a compiled graph holds no polynomials of NumPy."""


def integrate_intervals(
    function: Callable[[Tensor], Tensor], times: Tensor, breakpoints: Sequence[float] = ()
) -> tuple[Tensor, Tensor]:
    """∫ F dt between one time and the next, and the error of that, 0 within rounding; both ``(*batch, t − 1)``.

    In a compiled graph and under ``vmap``, where values cannot be read, no panel is halved.

    Raises:
        ConvergenceError: If halving does not resolve the function.
        InvalidArgumentError: If its values are not finite or have another shape than ``(*batch, q)``.
    """
    left, right, interval = _panels(times, breakpoints)
    allowed, sums, limit = None, None, _MOST + len(left)
    for _ in range(_HALVINGS):
        parts = _rule_on(function, left, right)
        value, error, size = parts[0], parts[1].detach(), parts[2].detach()
        if sums is None or allowed is None:
            allowed = _ALLOWED * size.sum(dim=-1, keepdim=True)
            sums = [each.new_zeros(*each.shape[:-1], len(times) - 1) for each in (value, error)]
        middle = 0.5 * (left + right)
        split = torch.zeros_like(left, dtype=torch.bool)
        if are_readable(error):
            coarse = (error > allowed) & (error > _SMOOTH * size)
            split = coarse.reshape(-1, len(left)).any(dim=0) & (left < middle) & (middle < right)
        error = torch.where(error > _ROUNDING * size, error, 0.0)
        done = [torch.where(split, 0.0, each) for each in (value, error)]
        sums = [whole.index_add(-1, interval, part) for whole, part in zip(sums, done, strict=True)]
        if not are_readable(error) or not bool(split.any()):
            return sums[0], sums[1]
        if int(split.sum()) > limit:
            break
        left, right, interval = (
            torch.cat(pair)
            for pair in ((left[split], middle[split]), (middle[split], right[split]), (interval[split],) * 2)
        )
    raise ConvergenceError(
        f"A flux given as a function cannot be integrated over [{float(times[0]):g}, {float(times[-1]):g}]: "
        f"{len(left)} panels from t = {float(left.min()):g} to {float(right.max()):g} do not resolve it. Give the "
        "times of jumps and narrow features as breakpoints=; of a noisy flux give the values at the times."
    )


def _panels(times: Tensor, breakpoints: Sequence[float]) -> tuple[Tensor, Tensor, Tensor]:
    """First and last times of the panels ``(p,)``, and the number of the interval in which each lies."""
    first, last = times[0], times[-1]
    even = first + (last - first) * torch.arange(1, PANELS, dtype=times.dtype, device=times.device) / PANELS
    further = torch.as_tensor(list(breakpoints), dtype=times.dtype, device=times.device).reshape(-1)
    points, order = torch.cat([times, torch.clamp(torch.cat([even, further]), first, last)]).sort(stable=True)
    interval = ((order < len(times)).cumsum(dim=0)[:-1] - 1).clamp_max(len(times) - 2)
    left, right = points[:-1], points[1:]
    wide = right > left if are_readable(times) else slice(None)
    return left[wide], right[wide], interval[wide]


def _rule_on(function: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """∫ F dt over every panel, the estimate of its error and ∫ |F| dt ``(*batch, p)``."""
    nodes, weights, differences = (part.to(left) for part in _RULE)
    half = 0.5 * (right - left)
    at = (0.5 * (left + right))[:, None] + half[:, None] * nodes
    values = _values(function, at.flatten()).unflatten(-1, at.shape)
    return half * (values @ weights), half * (values @ differences).abs().sum(dim=-1), half * (values.abs() @ weights)


def _values(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """Values ``(*batch, q)`` at the times ``(q,)``, float64."""
    if not are_readable(at):
        values = function(at)
    else:
        try:
            values = function(at)
        except LibraryError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            raise InvalidArgumentError(
                "A flux given as a function takes all times (q,) at once and returns (*batch, q), but this one failed: "
                f"{error} Of a function f of one number make lambda t: torch.tensor([f(float(s)) for s in t])."
            ) from error
    values = as_tensor(values)
    if values.ndim and values.shape[-1] not in (1, len(at)):
        raise InvalidArgumentError(
            f"A flux given as a function must return (*batch, q), here q = {len(at)}, but got {tuple(values.shape)}."
        )
    if are_readable(values) and not bool(torch.isfinite(values).all()):
        bad = ~torch.isfinite(values.detach().expand(*values.shape[:-1], len(at)).reshape(-1, len(at))).all(dim=0)
        raise InvalidArgumentError(
            f"A flux given as a function is not finite at t = {float(at[bad][0]):g}; give its integrals instead."
        )
    return values.expand(*values.shape[:-1], len(at))
