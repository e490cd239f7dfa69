"""Conservation laws u_t + ∇·F = 0 as frozen dataclasses.

A law defines its flux and the derivative of the flux by operations that work on NumPy arrays and torch tensors, so
that the finite-volume solver and a training penalty by automatic differentiation use the same definition. Fields are
``(*batch, *space)``; a parameter is a number or an array ``(*batch,)``. All quantities are dimensionless.

To add a law, derive from ``DiffusiveLaw`` (flux F = −Φ(u)_x) or ``ConvectiveLaw`` (flux F = f(u)).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError

Array = TypeVar("Array", np.ndarray, Tensor)
Parameter = float | np.ndarray | Tensor


class DiffusiveLaw(ABC):
    """u_t = ∇·(k(u) ∇u) = ∇²Φ(u) with the Kirchhoff potential Φ(u) = ∫₀ᵘ k; Φ must not decrease."""

    @abstractmethod
    def potential(self, u: Array) -> Array:
        """Kirchhoff potential Φ(u), same shape as ``u``."""

    @abstractmethod
    def conductivity(self, u: Array) -> Array:
        """Conductivity k(u) = Φ′(u) ≥ 0, same shape as ``u``."""

    def flux(self, u: Array, gradient: Array) -> Array:
        """Flux F = −k(u) u_x, positive along +x."""
        return -self.conductivity(u) * gradient


class ConvectiveLaw(ABC):
    """u_t + ∇·f(u) = 0, the same flux function f along every axis."""

    @abstractmethod
    def convective_flux(self, u: Array) -> Array:
        """Flux function f(u), same shape as ``u``."""

    @abstractmethod
    def characteristic_speed(self, u: Array) -> Array:
        """Characteristic speed f′(u), same shape as ``u``."""

    def stationary_points(self) -> tuple[float, ...] | None:
        """States where f′ changes sign, needed by the Godunov flux; None by default: not specified."""
        return None

    def flux(self, u: Array, gradient: Array) -> Array:  # noqa: ARG002 - one signature for all laws
        """Flux F = f(u), positive along +x; ``gradient`` is not used."""
        return self.convective_flux(u)


Law = DiffusiveLaw | ConvectiveLaw


@dataclass(frozen=True)
class Diffusion(DiffusiveLaw):
    """Linear diffusion u_t = k ∇²u.

    Args:
        diffusivity: k > 0, a number or one per batch entry ``(*batch,)``.

    Raises:
        InvalidArgumentError: If the diffusivity is not positive and finite.
    """

    diffusivity: Parameter

    def __post_init__(self) -> None:
        _require_above(self, "diffusivity", minimum=0.0)

    def potential(self, u: Array) -> Array:
        return align(self.diffusivity, u) * u

    def conductivity(self, u: Array) -> Array:
        return align(self.diffusivity, u) + 0.0 * u


@dataclass(frozen=True)
class PorousMedium(DiffusiveLaw):
    """Porous medium equation u_t = ∇·(uᵐ ∇u), degenerate at u = 0; the conductivity of negative states is 0.

    Args:
        exponent: m > 0, a number or one per batch entry ``(*batch,)``.

    Raises:
        InvalidArgumentError: If the exponent is not positive and finite.
    """

    exponent: Parameter

    def __post_init__(self) -> None:
        _require_above(self, "exponent", minimum=0.0)

    def potential(self, u: Array) -> Array:
        exponent = align(self.exponent, u)
        return u.clip(min=0.0) ** (exponent + 1.0) / (exponent + 1.0)

    def conductivity(self, u: Array) -> Array:
        return u.clip(min=0.0) ** align(self.exponent, u)


@dataclass(frozen=True)
class Stefan(DiffusiveLaw):
    """One-phase Stefan problem in generalised porous medium form: k(u) = k₀ where u ≥ u*, else 0.

    Args:
        threshold: u*, a number or one per batch entry ``(*batch,)``.
        diffusivity: k₀ > 0, a number or one per batch entry ``(*batch,)``.

    Raises:
        InvalidArgumentError: If the threshold is not finite or the diffusivity is not positive and finite.
    """

    threshold: Parameter
    diffusivity: Parameter = 1.0

    def __post_init__(self) -> None:
        _require_above(self, "threshold", minimum=-np.inf)
        _require_above(self, "diffusivity", minimum=0.0)

    def potential(self, u: Array) -> Array:
        return align(self.diffusivity, u) * (u - align(self.threshold, u)).clip(min=0.0)

    def conductivity(self, u: Array) -> Array:
        melted = u >= align(self.threshold, u)
        return align(self.diffusivity, u) * (melted + 0.0 * u)


@dataclass(frozen=True)
class Advection(ConvectiveLaw):
    """Linear advection u_t + a u_x = 0 (along every axis with the same a).

    Args:
        speed: a, a number or one per batch entry ``(*batch,)``.

    Raises:
        InvalidArgumentError: If the speed is not finite.
    """

    speed: Parameter

    def __post_init__(self) -> None:
        _require_above(self, "speed", minimum=-np.inf)

    def convective_flux(self, u: Array) -> Array:
        return align(self.speed, u) * u

    def characteristic_speed(self, u: Array) -> Array:
        return align(self.speed, u) + 0.0 * u

    def stationary_points(self) -> tuple[float, ...]:
        return ()


@dataclass(frozen=True)
class Burgers(ConvectiveLaw):
    """Inviscid Burgers equation u_t + (u²/2)_x = 0."""

    def convective_flux(self, u: Array) -> Array:
        return 0.5 * u * u

    def characteristic_speed(self, u: Array) -> Array:
        return u

    def stationary_points(self) -> tuple[float, ...]:
        return (0.0,)


def align(parameter: Parameter, field: Array) -> Any:
    """Shapes a parameter for products with a field.

    Args:
        parameter: A number or an array ``(*batch,)``.
        field: NumPy array or torch tensor ``(*batch, *space)``.

    Returns:
        The parameter in the type, dtype and device of ``field``, as ``(*batch, 1, …, 1)``.
    """
    if isinstance(field, Tensor):
        values = torch.as_tensor(parameter, dtype=field.dtype, device=field.device)
    else:
        values = np.asarray(parameter, dtype=np.asarray(field).dtype)
    return values.reshape(tuple(values.shape) + (1,) * (field.ndim - values.ndim if values.ndim else 0))


def _require_above(law: Law, name: str, minimum: float) -> None:
    parameter = getattr(law, name)
    values = np.asarray(parameter.detach().cpu() if isinstance(parameter, Tensor) else parameter, dtype=float)
    if not (np.isfinite(values).all() and (values > minimum).all()):
        bound = "finite" if minimum == -np.inf else f"finite and above {minimum:g}"
        raise InvalidArgumentError(f"{type(law).__name__}: {name} must be {bound}, got {parameter!r}.")
