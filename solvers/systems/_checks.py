"""Checks of a law once per solution: shapes, and the eigenvalues against the derivative of the flux."""

import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.systems.laws import SystemLaw

_SAMPLES = 64
_TOLERANCE = 1e-3


def check_law(law: SystemLaw, states: Tensor, dimension: int) -> None:
    """Raises an error for a law whose methods are not those of a hyperbolic system.

    Args:
        law: The law.
        states: Some admissible states ``(n, c)``.
        dimension: Number of space axes.

    Raises:
        InvalidArgumentError: If a result has the wrong shape, the flux cannot be differentiated, ∂f/∂u has complex
            eigenvalues, or one outside the range of those that the law gives.
    """
    states = states[torch.linspace(0, len(states) - 1, min(_SAMPLES, len(states))).long()]
    name = type(law).__name__
    for axis in range(dimension):
        _check_shapes(law, states, axis, dimension)
        given = law.eigenvalues(states, axis)
        slowest, fastest = given.amin(1), given.amax(1)
        jacobian = _jacobian(law, states, axis)
        keep = torch.isfinite(given).all(1) & torch.isfinite(jacobian).flatten(1).all(1) & law.admissible(states)
        true = torch.linalg.eigvals(torch.where(keep[:, None, None], jacobian, 0.0))
        scale = true.abs().amax(1) + (fastest - slowest)
        margin = _TOLERANCE * scale
        if bool((keep & (true.imag.abs().amax(1) > margin)).any()):
            raise InvalidArgumentError(
                f"{name} is not hyperbolic at some initial states: ∂f/∂u along axis {axis} has complex eigenvalues; "
                "check the flux."
            )
        outside = (true.real.amax(1) > fastest + margin) | (true.real.amin(1) < slowest - margin)
        if bool((keep & outside).any()):
            worst = int(torch.nonzero(keep & outside)[0, 0])
            raise InvalidArgumentError(
                f"{name}.eigenvalues(u, axis={axis}) must include the smallest and the largest eigenvalue of ∂f/∂u; "
                f"for u = {states[worst].tolist()} they are {float(true.real[worst].min()):.4g} and "
                f"{float(true.real[worst].max()):.4g}, got {given[worst].tolist()}."
            )


def _check_shapes(law: SystemLaw, states: Tensor, axis: int, dimension: int) -> None:
    """Calls the methods with as many points as no array of a law has by chance."""
    n, c = states.shape
    points = (n + 3, *[2] * (dimension - 1))
    u = states[:, :, None].expand(n, c, n + 3).reshape(n, c, n + 3, *[1] * (dimension - 1)).expand(n, c, *points)
    u = u.contiguous()
    for method, arguments, wanted in (
        ("flux", (axis,), (n, c, *points)),
        ("eigenvalues", (axis,), (n, None, *points)),
        ("admissible", (), (n, *points)),
    ):
        try:
            result = getattr(law, method)(u.clone(), *arguments)
            got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        except (RuntimeError, IndexError) as error:
            result, got = None, f"{type(error).__name__}: {error}"
        fits = isinstance(result, Tensor) and len(got) == len(wanted)
        if not (fits and all(b is None or a == b for a, b in zip(got, wanted, strict=True))):
            shown = str(wanted).replace("None", "k")
            raise InvalidArgumentError(
                f"{type(law).__name__}.{method} must return a tensor of shape {shown} for states (entries, c, *points) "
                f"= {tuple(u.shape)}, got {got}; parameters are numbers, and u.unbind(1) gives the components."
            )


def _jacobian(law: SystemLaw, states: Tensor, axis: int) -> Tensor:
    """∂f/∂u of some states ``(n, c, c)`` by automatic differentiation."""
    with torch.enable_grad():
        variable = states.clone().requires_grad_()
        flux = law.flux(variable, axis)
        if not flux.requires_grad:
            raise InvalidArgumentError(
                f"{type(law).__name__}.flux does not depend on u by torch operations, so that its eigenvalues cannot "
                "be checked; compute it from u without NumPy and detach."
            )
        rows = [
            torch.autograd.grad(flux[:, k].sum(), variable, retain_graph=True, allow_unused=True)[0]
            if flux[:, k].requires_grad
            else None
            for k in range(states.shape[1])
        ]
    return torch.stack([torch.zeros_like(states) if row is None else row for row in rows], dim=1)
