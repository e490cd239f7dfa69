"""Right-hand sides from fluxes: totals over time, and the law of every control volume.

u_t + ∇·F = 0 in integral form: the content of a volume changes by the flux through its faces,

    U(t) = U(t₀) + ∫ (F_first − F_last) dt,

with fluxes positive along +x on both sides (Hansen et al. 2023, sec. 2).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pad

from probconserv._linalg.checks import refuse_missing
from probconserv._linalg.values import Array, as_tensor
from probconserv._quadrature import integrate_intervals
from probconserv.constraints import Domain, LinearConstraint, integral
from probconserv.errors import InvalidArgumentError
from solvers.grids import CellGrid
from solvers.recording import are_readable

Flux = Tensor | np.ndarray | Callable[[Tensor], Tensor]


def total_over_time(
    times: Float[Array, " t"],
    initial_total: Float[Array, "*batch"] | float,
    flux_first: Flux,
    flux_last: Flux,
    *,
    breakpoints: Sequence[float] = (),
) -> Float[Tensor, "*batch t"]:
    """U(t) = U(t₀) + ∫_{t₀}^{t} (F_first − F_last) dt at every time ``(*batch, t)``, float64; the first is U(t₀).

    Args:
        times: Increasing times; the first is t₀.
        initial_total: U(t₀) ``(*batch,)``.
        flux_first: Flux through the first side, positive along +x: values ``(*batch, t)`` at the times, integrated by
            the trapezoid rule, or a function from times ``(q,)`` to ``(*batch, q)``, integrated adaptively (nested
            Clenshaw–Curtis rules) from panels between the times, at least 64 in all. With several axes, the sum over
            the first sides.
        flux_last: The same for the last side.
        breakpoints: Times of jumps and narrow features of fluxes that are functions; panels end there. A jump is found
            without; a pulse shorter than a tenth of a panel may lie between two nodes and be missed.

    Raises:
        ConvergenceError: If a function cannot be resolved to a relative 1e-10, such as noise.
        InvalidArgumentError: If times do not increase, a flux is not finite or of another shape, or a total is not
            finite.
    """
    return _totals_with_error(times, initial_total, flux_first, flux_last, breakpoints)[0]


def _totals_with_error(
    times: Array, initial_total: Array | float, flux_first: Flux, flux_last: Flux, breakpoints: Sequence[float]
) -> tuple[Tensor, Tensor | None]:
    """Totals at the times, and how far they may be off by the quadrature of functions; None without any."""
    times = as_tensor(times)
    ordered = not are_readable(times) or bool((times.diff() > 0).all())
    if times.ndim != 1 or len(times) < 2 or not ordered:
        raise InvalidArgumentError("times must be at least two, in one row, finite and strictly increasing.")
    for name, values in (("initial_total", initial_total), ("flux_first", flux_first), ("flux_last", flux_last)):
        if not callable(values) and are_readable(given := as_tensor(values)):
            refuse_missing(given, f"{name} holds")
    initial = as_tensor(initial_total)[..., None]
    first, last = (passed_between(flux, times, breakpoints) for flux in (flux_first, flux_last))
    later = initial + (first[0] - last[0]).cumsum(dim=-1)
    totals = torch.cat([initial.expand(*later.shape[:-1], 1), later], dim=-1)
    errors = [error for _, error in (first, last) if error is not None]
    return totals, pad(sum(errors[1:], errors[0]).cumsum(dim=-1), (1, 0)) if errors else None


def conservation(
    domain: Domain,
    times: Float[Array, " t"],
    initial_total: Float[Array, "*batch"] | float,
    flux_first: Flux,
    flux_last: Flux,
    *,
    breakpoints: Sequence[float] = (),
) -> LinearConstraint:
    """The global conservation law, one exact row per function and time, from the initial total and the fluxes.

    Of fluxes that are functions the error of the quadrature is the law's ``rule_variance``.

    If the total has a closed form, or points move in time, use ``integral(domain, total)``. ``domain`` is that of
    ``integral``, the same at all times; the other arguments are those of ``total_over_time``.
    """
    if isinstance(domain, Tensor | np.ndarray) and domain.ndim > 1:
        domain = domain[..., None, :]
    totals, error = _totals_with_error(times, initial_total, flux_first, flux_last, breakpoints)
    return integral(domain, totals, rule_variance=None if error is None else error.square()[..., None])


def local_conservation(
    domain: Domain,
    faces: Float[Array, " faces"],
    initial_contents: Float[Array, "*batch volumes"],
    passed: Float[Array, "*batch faces"],
) -> LinearConstraint:
    """The conservation law of every control volume along one axis: final content = initial content + net inflow.

        ∫_{volume j} u dx = initial_j + passed_j − passed_{j+1}

    On a ``NodeGrid`` and on points the integral is that of the piecewise linear field, on a ``CellGrid`` that of the
    piecewise constant one, so faces may lie anywhere in the domain and the rows add up to ``integral``.

    Args:
        domain: A grid with one axis, or increasing points ``(n,)``.
        faces: Increasing ends of the volumes, within the domain.
        initial_contents: ∫ u dx of every volume at the start.
        passed: Flux through every face, integrated over time, positive along +x.
    """
    faces, initial_contents, passed = as_tensor(faces).cpu(), as_tensor(initial_contents), as_tensor(passed)
    nodes = _interval_ends(domain).cpu()
    slack = 1e-12 * float(nodes[-1] - nodes[0])
    if faces.ndim != 1 or len(faces) < 2 or not bool((faces.diff() > 0).all()):
        raise InvalidArgumentError("faces must be at least two, in one row, finite and strictly increasing.")
    if float(faces[0]) < float(nodes[0]) - slack or float(faces[-1]) > float(nodes[-1]) + slack:
        raise InvalidArgumentError(
            f"faces must lie in the domain [{float(nodes[0]):g}, {float(nodes[-1]):g}], got "
            f"[{float(faces[0]):g}, {float(faces[-1]):g}]."
        )
    if initial_contents.shape[-1] != len(faces) - 1 or passed.shape[-1] != len(faces):
        raise InvalidArgumentError(
            f"{len(faces)} faces need {len(faces) - 1} initial contents and {len(faces)} passed fluxes, got "
            f"{initial_contents.shape[-1]} and {passed.shape[-1]}."
        )
    contents = initial_contents - passed.diff(dim=-1)
    left, right = torch.maximum(faces[:-1, None], nodes[:-1]), torch.minimum(faces[1:, None], nodes[1:])
    rows = (right - left).clamp_min(0.0)  # lengths of volumes within intervals ``(volumes, intervals)``
    if not isinstance(domain, CellGrid):  # times a linear field at the centres of these
        part = (0.5 * (left + right) - nodes[:-1]) / nodes.diff()
        rows = pad(rows * (1 - part), (0, 1)) + pad(rows * part, (1, 0))
    return LinearConstraint(rows.to(contents.device), contents)


def passed_between(flux: Flux, times: Tensor, breakpoints: Sequence[float]) -> tuple[Tensor, Tensor | None]:
    """∫ F dt between one time and the next ``(*batch, t − 1)``, and of a function the error of that."""
    if not isinstance(flux, Tensor | np.ndarray):
        return integrate_intervals(flux, times, breakpoints)
    flux = as_tensor(flux)
    if flux.shape[-1] != len(times):
        raise InvalidArgumentError(f"A flux needs one value per time, {len(times)}, got {flux.shape[-1]}.")
    return 0.5 * times.diff() * (flux[..., 1:] + flux[..., :-1]), None


def _interval_ends(domain: Domain) -> Tensor:
    """Nodes, or faces of cells, along the only axis."""
    if isinstance(domain, Tensor | np.ndarray):
        domain = as_tensor(domain)
        if domain.ndim != 1:
            raise InvalidArgumentError(f"Local conservation needs points (n,), got {tuple(domain.shape)}.")
        return domain
    if domain.dimension != 1:
        raise InvalidArgumentError(f"Local conservation is along one axis, got a grid with {domain.dimension}.")
    return domain.faces[0] if isinstance(domain, CellGrid) else domain.axes[0]
