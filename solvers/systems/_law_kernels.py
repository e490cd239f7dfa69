"""A law as compiled kernels: shallow water's, or those made of functions of numbers.

A law of a user's own is checked once per solution: results, and the eigenvalues against the derivative of the flux.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import nan
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.convection.schemes import Rusanov
from solvers.finite_volume.march.kernels import NOTHING, call_from_python
from solvers.systems import _shallow, pointwise
from solvers.systems.euler import Euler
from solvers.systems.laws import HLLC, ShallowWater, SystemFlux
from solvers.systems.pointwise import PointwiseLaw

Law = ShallowWater | PointwiseLaw

_SAMPLES = 16
_TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class LawKernels:
    """Kernels of a law for compiled steps; ``march.systems`` calls them.

    Attributes:
        fluxes: Fluxes and waves of states; of shallow water fluxes through faces.
        mirror: States as walls mirror them.
        check: Whether states are admissible.
        primitives: Variables of shallow water that are reconstructed; None for other laws.
        parameters: The law's parameters.
    """

    fluxes: Any
    mirror: Any
    check: Any
    primitives: Any = None
    parameters: np.ndarray


def law_kernels(law: Law, flux: SystemFlux, components: int, dimension: int, walls: bool) -> LawKernels:
    """The kernels of a law with c components.

    Raises:
        InvalidArgumentError: If law and flux do not go together, a wall needs a mirror image that the law does not
            have, or a function cannot be compiled.
    """
    if isinstance(flux, HLLC) and not isinstance(law, ShallowWater):
        raise InvalidArgumentError(f"HLLC() is for ShallowWater only, got {law!r}; use HLL().")
    if isinstance(law, ShallowWater):
        return _of_water(law, flux, components)
    return _of_points(law, components, dimension, walls)


def _of_water(law: ShallowWater, flux: SystemFlux, components: int) -> LawKernels:
    if isinstance(flux, Rusanov):
        raise InvalidArgumentError("ShallowWater takes HLL() or HLLC(), which keep depths positive, got Rusanov().")
    return LawKernels(
        fluxes=_shallow.faces,
        mirror=_shallow.mirror,
        check=_shallow.check,
        primitives=_shallow.primitives,
        parameters=np.array([law.gravity, float(isinstance(flux, HLLC)), components, 0.0]),
    )


def _of_points(law: PointwiseLaw, components: int, dimension: int, walls: bool) -> LawKernels:
    functions = law.functions(dimension)
    if walls and functions.reflect is None:
        raise InvalidArgumentError(
            f"Reflecting() needs a function reflect(u, axis) among {type(law).__name__}.functions, u as a wall "
            "mirrors it; give it, or take another condition."
        )
    parameters = np.array([*functions.parameters, 0.0])
    functions = replace(functions, parameters=(0.0,) * len(functions.parameters))  # one kernel whatever they are
    return LawKernels(
        fluxes=pointwise.fluxes_kernel(functions, components, dimension),
        mirror=pointwise.mirror_kernel(functions, components) if walls else NOTHING,
        check=pointwise.check_kernel(functions, components),
        parameters=parameters,
    )


def admissible(law: Law, u: Tensor, dimension: int) -> Tensor:
    """Whether states ``(entries, c, *points)`` are admissible ``(entries, *points)``."""
    if isinstance(law, ShallowWater):
        return law.admissible(u)
    functions = law.functions(dimension)
    states = u.movedim(1, 0).reshape(u.shape[1], -1).contiguous().numpy()
    good, parameters = np.zeros(states.shape[1]), np.array([*functions.parameters, 0.0])
    functions = replace(functions, parameters=(0.0,) * len(functions.parameters))
    check = pointwise.check_kernel(functions, u.shape[1]).address
    call_from_python(check, (states, parameters, states, states, good, states, states), good.size, good.size)
    return torch.from_numpy(good == 1.0).reshape(u.shape[0], *u.shape[2:])


def check_law(law: Law, states: Tensor, dimension: int) -> None:
    """Raises an error for a law of a user's own whose functions are not those of a hyperbolic system.

    They are called for some of the states ``(n, c)``. It is an error if a result has the wrong shape, or ∂f/∂u has
    complex eigenvalues or one outside the range of those that the law gives.
    """
    if isinstance(law, ShallowWater | Euler):
        return
    states = states[torch.linspace(0, len(states) - 1, min(_SAMPLES, len(states))).long()]
    for axis in range(dimension):
        given, jacobian = _at_points(law, states, axis, dimension)
        keep = torch.isfinite(given).all(1) & torch.isfinite(jacobian).flatten(1).all(1)
        keep &= admissible(law, states, dimension)
        _check_eigenvalues(type(law).__name__, states[keep], axis, given[keep], jacobian[keep])


def _check_eigenvalues(name: str, states: Tensor, axis: int, given: Tensor, jacobian: Tensor) -> None:
    """Compares the eigenvalues that a law gives with those of ∂f/∂u."""
    slowest, fastest = given.amin(1), given.amax(1)
    true = torch.linalg.eigvals(jacobian)
    margin = _TOLERANCE * (true.abs().amax(1) + (fastest - slowest))
    if bool((true.imag.abs().amax(1) > margin).any()):
        raise InvalidArgumentError(
            f"{name} is not hyperbolic at some initial states: ∂f/∂u along axis {axis} has complex eigenvalues; check "
            "the flux."
        )
    outside = (true.real.amax(1) > fastest + margin) | (true.real.amin(1) < slowest - margin)
    if bool(outside.any()):
        worst = int(torch.nonzero(outside)[0, 0])
        raise InvalidArgumentError(
            f"{name}.eigenvalues(u, axis={axis}) must include the smallest and the largest eigenvalue of ∂f/∂u; "
            f"for u = {states[worst].tolist()} they are {float(true.real[worst].min()):.4g} and "
            f"{float(true.real[worst].max()):.4g}, got {given[worst].tolist()}."
        )


def _at_points(law: PointwiseLaw, states: Tensor, axis: int, dimension: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues ``(n, k)`` and ∂f/∂u by central differences ``(n, c, c)`` of a law given as functions of numbers."""
    functions, c = law.functions(dimension), states.shape[1]
    name, parameters = type(law).__name__, functions.parameters

    def evaluate(function: Callable[..., Any], u: list[float], wanted: int | None) -> list[float]:
        plain = getattr(function, "py_func", function)
        try:
            with np.errstate(all="ignore"):
                result = plain(tuple(u), axis, *parameters)
        except (ArithmeticError, ValueError):
            return [nan] * (wanted or 1)
        except Exception as error:
            raise InvalidArgumentError(
                f"{name}: {plain.__name__} failed for u = {u} along axis {axis}: {type(error).__name__}: {error}. It "
                "takes the components as a tuple of numbers, the axis and the parameters."
            ) from error
        fits = isinstance(result, tuple) and len(result) == (wanted or len(result)) > 0
        if not (fits and all(isinstance(x, Real) for x in result)):
            count = "one or more numbers" if wanted is None else f"{wanted} numbers, one for each component"
            raise InvalidArgumentError(f"{name}: {plain.__name__} must return a tuple of {count}, got {result!r}.")
        return [float(x) for x in result]

    given = [evaluate(functions.eigenvalues, u, None) for u in states.tolist()]
    longest = max(len(row) for row in given)
    jacobian = torch.empty(len(states), c, c, dtype=torch.float64)
    for k in range(c):
        step = 6e-6 * states.abs().amax(1).clamp(min=1e-3)
        for side, sign in enumerate((1.0, -1.0)):
            shifted = states.clone()
            shifted[:, k] += sign * step
            flux = torch.tensor([evaluate(functions.flux, u, c) for u in shifted.tolist()], dtype=torch.float64)
            jacobian[:, :, k] = flux if side == 0 else (jacobian[:, :, k] - flux) / (2.0 * step[:, None])
    rows = [row if len(row) == longest else [nan] * longest for row in given]
    return torch.tensor(rows, dtype=torch.float64), jacobian
