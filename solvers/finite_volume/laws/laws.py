"""Balance laws u_t + ∇·f = ∇·(k ∇u) + s as frozen dataclasses: convection, diffusion, both together, and sources.

A law defines its flux and the derivative of the flux by operations that work on NumPy arrays and torch tensors, so
that the finite-volume solver and a training penalty by automatic differentiation use the same definition. Fields are
``(*batch, *space)``. A parameter is a number, an array ``(*batch,)``, a ``Field`` on the cells, or a function of x, or
of x and t, with values that broadcast to ``(*batch, *space)``; one that is not finite, or not positive where it must
be, is an ``InvalidArgumentError``. All quantities are dimensionless.

To add a law, derive from ``DiffusiveLaw`` (flux F = −Φ(u)_x) or ``ConvectiveLaw`` (flux F = f(u)). To allow functions
of x for its parameters, list them in ``varying``.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.laws.coefficients import (
    FaceValue,
    FaceVelocity,
    Field,
    Function,
    Parameter,
    Values,
    align,
    closed,
    function_on_faces,
    is_time_dependent,
)
from solvers.finite_volume.laws.parametrised import Parametrised, require_above
from solvers.grids import CellGrid

Array = TypeVar("Array", np.ndarray, Tensor)


class DiffusiveLaw(Parametrised, ABC):
    """u_t = ∇·(k(u) ∇u) = ∇²Φ(u) with the Kirchhoff potential Φ(u) = ∫₀ᵘ k; Φ must not decrease."""

    @abstractmethod
    def potential(self, u: Array) -> Array:
        """Kirchhoff potential Φ(u), same shape as ``u``."""

    @abstractmethod
    def conductivity(self, u: Array) -> Array:
        """Conductivity k(u) = Φ′(u) ≥ 0, same shape as ``u``."""

    def potential_difference(self, left: Array, right: Array) -> Array:
        """Φ(left) − Φ(right), of their shape."""
        return self.potential(left) - self.potential(right)

    def flux(self, u: Array, gradient: Array) -> Array:
        """Flux F = −k(u) u_x, positive along +x."""
        return -self.conductivity(u) * gradient


class ConvectiveLaw(Parametrised, ABC):
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

    def inflection_points(self) -> tuple[float, ...] | None:
        """States where f″ changes sign; None by default: not specified, so that the solver samples |f′|."""
        return None

    def flux(self, u: Array, gradient: Array) -> Array:  # noqa: ARG002 - one signature for all laws
        """Flux F = f(u), positive along +x; ``gradient`` is not used."""
        return self.convective_flux(u)


Law = DiffusiveLaw | ConvectiveLaw


@dataclass(frozen=True)
class Diffusion(DiffusiveLaw):
    """Linear diffusion u_t = k ∇²u.

    Args:
        diffusivity: k > 0, a number, one per batch entry ``(*batch,)``, or k(x) as a ``Field`` or a function; on faces
            the harmonic mean of the cells, on sides the function or the value of the cell.
    """

    varying: ClassVar = {"diffusivity": FaceValue.HARMONIC}

    diffusivity: Parameter

    def __post_init__(self) -> None:
        require_above(self, "diffusivity", minimum=0.0)

    def potential(self, u: Array) -> Array:
        return align(self.diffusivity, u) * u

    def conductivity(self, u: Array) -> Array:
        return align(self.diffusivity, u) + 0.0 * u


@dataclass(frozen=True)
class PorousMedium(DiffusiveLaw):
    """Porous medium equation u_t = ∇·(uᵐ ∇u), degenerate at u = 0; the conductivity of negative states is 0.

    Args:
        exponent: m > 0, a number, one per batch entry ``(*batch,)``, a ``Field`` or a function of x.
    """

    varying: ClassVar = {"exponent": FaceValue.ARITHMETIC}

    exponent: Parameter

    def __post_init__(self) -> None:
        require_above(self, "exponent", minimum=0.0)

    def potential(self, u: Array) -> Array:
        exponent = align(self.exponent, u)
        return _positive_power(u, exponent + 1.0) / (exponent + 1.0)

    def conductivity(self, u: Array) -> Array:
        return _positive_power(u, align(self.exponent, u))


def _positive_power(u: Array, exponent: Array) -> Array:
    """uᵖ of positive states and 0 of the others, whose derivatives of all orders are 0 as well."""
    return (u.clip(min=0.0) + (u <= 0.0)) ** exponent * (u > 0.0)


@dataclass(frozen=True)
class Stefan(DiffusiveLaw):
    """One-phase Stefan problem in generalised porous medium form: k(u) = k₀ where u ≥ u*, else 0.

    Args:
        threshold: u*, a number, one per batch entry ``(*batch,)``, a ``Field`` or a function of x.
        diffusivity: k₀ > 0, likewise; on faces the harmonic mean of the cells.
    """

    varying: ClassVar = {"threshold": FaceValue.ARITHMETIC, "diffusivity": FaceValue.HARMONIC}

    threshold: Parameter
    diffusivity: Parameter = 1.0

    def __post_init__(self) -> None:
        require_above(self, "threshold", minimum=-np.inf)
        require_above(self, "diffusivity", minimum=0.0)

    def potential(self, u: Array) -> Array:
        return align(self.diffusivity, u) * (u - align(self.threshold, u)).clip(min=0.0)

    def conductivity(self, u: Array) -> Array:
        melted = u >= align(self.threshold, u)
        return align(self.diffusivity, u) * (melted + 0.0 * u)


@dataclass(frozen=True)
class Advection(ConvectiveLaw):
    """Linear advection u_t + a u_x = 0 (along every axis with the same a).

    Args:
        speed: a, a number, one per batch entry ``(*batch,)``, or a(x) as a ``Field`` or a function, for
            u_t + ∇·(a(x) u) = 0. A velocity per axis is a ``Transport``.
    """

    varying: ClassVar = {"speed": FaceValue.DIRECT}

    speed: Parameter

    def __post_init__(self) -> None:
        require_above(self, "speed", minimum=-np.inf)

    def convective_flux(self, u: Array) -> Array:
        return align(self.speed, u) * u

    def characteristic_speed(self, u: Array) -> Array:
        return align(self.speed, u) + 0.0 * u

    def stationary_points(self) -> tuple[float, ...]:
        return ()

    def inflection_points(self) -> tuple[float, ...]:
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

    def inflection_points(self) -> tuple[float, ...]:
        return ()


@dataclass(frozen=True)
class Transport(ConvectiveLaw):
    """Linear transport u_t + ∇·(v u) = 0 by a velocity field v(x, t).

    The law differs along the axes, so its formulas are those of ``at(grid, time, axis)``, an ``Advection`` with the
    normal velocity on the faces of that axis.

    Args:
        velocity: A tuple with one number or array ``(*batch,)`` per axis; a ``FaceVelocity``; or a function of x, or of
            x and t, with values ``(*batch, *space, d)`` at points ``(*space, d)``, with one axis ``(*batch, n)`` at
            points ``(n,)``.

    Raises:
        InvalidArgumentError: If the velocity has another type or is not finite.
    """

    velocity: tuple[Any, ...] | FaceVelocity | Function

    def __post_init__(self) -> None:
        if isinstance(self.velocity, tuple):
            for axis, component in enumerate(self.velocity):
                if isinstance(component, Field) or callable(component):
                    raise InvalidArgumentError(
                        f"Transport: velocity[{axis}] must be a number or an array (*batch,), got "
                        f"{type(component).__name__}; give a velocity that varies in space as a whole, as a "
                        "FaceVelocity or a function of x."
                    )
                Advection(component)
        elif not (isinstance(self.velocity, FaceVelocity) or callable(self.velocity)):
            raise InvalidArgumentError(
                "Transport: velocity must be a tuple with one number per axis, a FaceVelocity, or a function of x "
                f"or of x and t, got {type(self.velocity).__name__}."
            )

    @property
    def varies_in_space(self) -> bool:
        return True

    @property
    def varies_in_time(self) -> bool:
        return is_time_dependent(self.velocity)

    def at(self, grid: CellGrid, time: float | Tensor = 0.0, axis: int | None = None, periodic: bool = False) -> Any:
        if axis is None:
            raise InvalidArgumentError("Transport has velocities on faces only; give the axis of the faces.")
        if isinstance(self.velocity, tuple):
            if len(self.velocity) != grid.dimension:
                raise InvalidArgumentError(
                    f"Transport: velocity must have one entry per axis, {grid.dimension}, got {len(self.velocity)}."
                )
            return Advection(self.velocity[axis])
        if isinstance(self.velocity, FaceVelocity):
            self.velocity.require_cells(grid)
            faces = closed(self.velocity.values[axis], axis - grid.dimension, periodic, "FaceVelocity")
            return Advection(Values(faces))
        label = "Transport.velocity"
        return Advection(Values(function_on_faces(self.velocity, grid, time, axis, periodic, label, vector=True)))

    def convective_flux(self, u: Array) -> Array:
        raise _no_single_flux(u)

    def characteristic_speed(self, u: Array) -> Array:
        raise _no_single_flux(u)

    def stationary_points(self) -> tuple[float, ...]:
        return ()

    def inflection_points(self) -> tuple[float, ...]:
        return ()


def _no_single_flux(u: Any) -> InvalidArgumentError:
    return InvalidArgumentError(
        "Transport has another flux along every axis: evaluate law.at(grid, time, axis) for states on the faces of an "
        f"axis, got states of shape {tuple(u.shape)}."
    )


@dataclass(frozen=True)
class ConvectionDiffusion:
    """u_t + ∇·f(u) = ∇·(k(u) ∇u), such as viscous Burgers or advection–diffusion.

    Args:
        convection: The law with f.
        diffusion: The law with k.

    Raises:
        InvalidArgumentError: If a part is not a law of its kind.
    """

    convection: ConvectiveLaw
    diffusion: DiffusiveLaw

    def __post_init__(self) -> None:
        for name, kind in (("convection", ConvectiveLaw), ("diffusion", DiffusiveLaw)):
            law = getattr(self, name)
            if not isinstance(law, kind):
                raise InvalidArgumentError(
                    f"ConvectionDiffusion: {name} must be an instance of a {kind.__name__}, got {law!r}."
                )

    def flux(self, u: Array, gradient: Array) -> Array:
        """Flux F = f(u) − k(u) u_x, positive along +x."""
        return self.convection.flux(u, gradient) + self.diffusion.flux(u, gradient)


class Source(Parametrised, ABC):
    """A source s(u, x, t) on the right-hand side, with its parameters as fields of a frozen dataclass."""

    @abstractmethod
    def __call__(self, u: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Source per volume and time.

        Args:
            u: States ``(*batch, *space)``.
            x: Cell centres ``grid.points``: ``(n,)`` with one axis, ``(*space, d)`` with more.
            t: Times ``(*batch, 1, …, 1)``.

        Returns:
            s, same shape as ``u``.
        """


SourceFunction = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Logistic(Source):
    """Logistic growth s = r u (1 − u), the source of the Kolmogorov–Petrovsky–Piskunov equation.

    Args:
        rate: r, a number, one per batch entry ``(*batch,)``, a ``Field`` or a function of x.
    """

    varying: ClassVar = {"rate": FaceValue.ARITHMETIC}

    rate: Parameter

    def __post_init__(self) -> None:
        require_above(self, "rate", minimum=-np.inf)

    def __call__(self, u: Any, x: Any, t: Any) -> Any:  # noqa: ARG002 - one signature for all sources
        return align(self.rate, u) * u * (1.0 - u)
