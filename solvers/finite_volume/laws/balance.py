"""Balance laws u_t + ∇·f = ∇·(k ∇u) + s: convection and diffusion together, and sources."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.laws.coefficients import FaceValue, Parameter, align
from solvers.finite_volume.laws.laws import Array, ConvectiveLaw, DiffusiveLaw, Parametrised, require_above


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

    Raises:
        InvalidArgumentError: If the rate is not finite.
    """

    varying: ClassVar = {"rate": FaceValue.ARITHMETIC}

    rate: Parameter

    def __post_init__(self) -> None:
        require_above(self, "rate", minimum=-np.inf)

    def __call__(self, u: Any, x: Any, t: Any) -> Any:  # noqa: ARG002 - one signature for all sources
        return align(self.rate, u) * u * (1.0 - u)
