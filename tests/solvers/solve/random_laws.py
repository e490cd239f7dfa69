"""Random balance laws for random set-ups of ``solve``."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from solvers import (
    Advection,
    ArithmeticMean,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    ConvectiveLaw,
    Diffusion,
    DiffusiveLaw,
    Field,
    Logistic,
    PorousMedium,
    Rusanov,
    Stefan,
    Transport,
)


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Random numbers for a batch of which all rows or only one are wanted; the numbers do not depend on that.

    Attributes:
        random: The generator.
        rows: Size of the batch; None for a batch without axes.
        only: The wanted row, or None for all.
        grid: The cells.
        amplitude: Scale of the states.
        offset: Constant added to them.
    """

    random: np.random.Generator
    rows: int | None
    only: int | None
    grid: CellGrid
    amplitude: float = 1.0
    offset: float = 0.0

    def cut(self, values: np.ndarray) -> np.ndarray:
        """The wanted rows of values ``(rows, *points)``, ``(*batch, *points)``."""
        if self.rows is None:
            return values[0]
        return values if self.only is None else values[self.only : self.only + 1]

    def uniform(self, low: float, high: float, *points: int) -> np.ndarray:
        """Uniform values ``(*batch, *points)``."""
        return self.cut(self.random.uniform(low, high, (self.rows or 1, *points)))

    def chance(self, probability: float) -> bool:
        """Whether an event of this probability happens."""
        return bool(self.random.random() < probability)

    def power(self, low: float, high: float) -> float:
        """10 to a uniform power."""
        return float(10.0 ** self.random.uniform(low, high))


@dataclass(frozen=True, kw_only=True)
class Balance:
    """A law with its source, and what is true of it.

    Attributes:
        law: The law.
        rate: Inverse of the time in which it acts over the domain.
        convects: Whether it has convection.
        diffusivity: Largest diffusivity.
        principle: Whether solutions keep to the range of initial and boundary values, if no flux is given.
        options: Options of ``solve``.
    """

    law: Any
    rate: float
    convects: bool = False
    diffusivity: float = 0.0
    principle: bool = True
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Saturating(DiffusiveLaw):
    """A user's law k = d (1 + (u/a)²), and Φ its integral."""

    d: Any
    a: float

    def potential(self, u: Any) -> Any:
        return self._d(u) * (u + u**3 / (3.0 * self.a**2))

    def conductivity(self, u: Any) -> Any:
        return self._d(u) * (1.0 + (u / self.a) ** 2)

    def _d(self, u: Any) -> Any:
        return torch.as_tensor(self.d).reshape(np.shape(self.d) + (1,) * (u.ndim - np.ndim(self.d)))


class Capped(DiffusiveLaw):
    """A user's law k = d min(u/a, 1) above 0 that is no dataclass, so that it cannot be cut into rows."""

    def __init__(self, d: float, a: float) -> None:
        self.d, self.a = d, a

    def potential(self, u: Any) -> Any:
        low = u.clip(0.0, self.a)
        return self.d * (0.5 * low**2 / self.a + (u - self.a).clip(min=0.0))

    def conductivity(self, u: Any) -> Any:
        return self.d * (u / self.a).clip(0.0, 1.0)


@dataclass(frozen=True)
class BuckleyLeverett(ConvectiveLaw):
    """f = u²/(u² + m (1 − u)²) for 0 ≤ u ≤ 1, without stationary points, so that it needs Rusanov's flux."""

    m: float

    def convective_flux(self, u: Any) -> Any:
        return u * u / (u * u + self.m * (1.0 - u) ** 2)

    def characteristic_speed(self, u: Any) -> Any:
        return 2.0 * self.m * u * (1.0 - u) / (u * u + self.m * (1.0 - u) ** 2) ** 2


def diffusion(draw: Draw) -> Balance:
    rate = draw.power(-3.0, 3.0)
    return Balance(law=Diffusion(rate * draw.uniform(0.3, 1.0)), rate=rate, diffusivity=rate)


def layered_diffusion(draw: Draw) -> Balance:
    rate = draw.power(-3.0, 3.0)
    values = np.exp(draw.random.uniform(0.0, 3.0) * draw.uniform(-1.0, 0.0, *draw.grid.shape))
    return Balance(law=Diffusion(Field(rate * values)), rate=rate, diffusivity=rate)


def changing_diffusion(draw: Draw) -> Balance:
    """k(x, t) = r (1 + ½ sin(ω t) cos(κ x))/2."""
    rate, pace, waves = draw.power(-3.0, 3.0), draw.power(-1.0, 1.0), draw.random.uniform(1.0, 9.0)

    def diffusivity(x: Any, t: Any) -> Any:
        first = x if draw.grid.dimension == 1 else x[..., 0]
        return 0.5 * rate * (1.0 + 0.5 * torch.sin(torch.as_tensor(pace * rate * t)) * torch.cos(waves * first))

    return Balance(law=Diffusion(diffusivity), rate=rate, diffusivity=rate)


def porous_medium(draw: Draw) -> Balance:
    largest = draw.random.uniform(0.5, 6.0)
    exponent, rate = largest * draw.uniform(0.8, 1.0), draw.amplitude**largest
    options = {"face_mean": ArithmeticMean()} if draw.chance(0.15) else {}
    return Balance(law=PorousMedium(exponent), rate=rate, diffusivity=rate, options=options)


def stefan(draw: Draw) -> Balance:
    rate = draw.power(-3.0, 3.0)
    threshold = draw.offset + draw.amplitude * draw.uniform(0.2, 0.8)
    return Balance(law=Stefan(threshold, rate), rate=rate, diffusivity=rate)


def saturating(draw: Draw) -> Balance:
    d = draw.power(-3.0, 3.0)
    return Balance(law=Saturating(d * draw.uniform(0.5, 1.0), draw.amplitude), rate=d, diffusivity=2.0 * d)


def capped(draw: Draw) -> Balance:
    d = draw.power(-3.0, 3.0)
    return Balance(law=Capped(d, 0.4 * draw.amplitude), rate=d, diffusivity=d)


def advection(draw: Draw) -> Balance:
    speed = draw.power(-3.0, 3.0)
    signed = float(draw.random.choice([-1.0, 1.0])) * speed
    return Balance(law=Advection(signed * draw.uniform(0.5, 1.0)), rate=speed, convects=True)


def varying_advection(draw: Draw) -> Balance:
    """a(x) = s (1 + ½ sin 2πx): solutions may leave the range of the data."""
    speed = draw.power(-3.0, 3.0)

    def at(x: Any) -> Any:
        first = x if draw.grid.dimension == 1 else x[..., 0]
        return speed * (1.0 + 0.5 * torch.sin(2.0 * np.pi * first))

    return Balance(law=Advection(at), rate=1.5 * speed, convects=True, principle=False)


def burgers(draw: Draw) -> Balance:
    return Balance(law=Burgers(), rate=draw.amplitude + abs(draw.offset), convects=True)


def buckley_leverett(draw: Draw) -> Balance:
    mobility = draw.random.uniform(0.3, 2.0)
    return Balance(law=BuckleyLeverett(mobility), rate=4.0, convects=True, options={"flux": Rusanov()})


def viscous_burgers(draw: Draw) -> Balance:
    rate = draw.amplitude + abs(draw.offset)
    viscosity = rate * draw.power(-3.0, 0.0)
    law = ConvectionDiffusion(Burgers(), Diffusion(viscosity))
    return Balance(law=law, rate=rate, convects=True, diffusivity=viscosity)


def transport(draw: Draw) -> Balance:
    """Uniform velocity with linear or porous diffusion."""
    speed = draw.power(-3.0, 3.0)
    velocity = tuple(float(v) for v in draw.random.uniform(-speed, speed, draw.grid.dimension))
    share = speed * draw.power(-3.0, 0.0)
    law = ConvectionDiffusion(Transport(velocity), Diffusion(share * draw.uniform(0.3, 1.0)))
    return Balance(law=law, rate=speed, convects=True, diffusivity=share)


def porous_transport(draw: Draw) -> Balance:
    exponent = draw.random.uniform(1.0, 3.0)
    rate = draw.amplitude**exponent
    law = ConvectionDiffusion(Advection(rate * draw.uniform(-1.0, 1.0)), PorousMedium(exponent))
    return Balance(law=law, rate=rate, convects=True, diffusivity=rate)


def growth(draw: Draw) -> Balance:
    """KPP with states in [0, 1]; growth adds to what the sides bring, so the range of the data may be left."""
    rate, ratio = draw.power(-3.0, 3.0), draw.random.uniform(1.0, 30.0)
    options = {"source": Logistic(ratio * rate * draw.uniform(0.5, 1.0))}
    return Balance(law=Diffusion(rate), rate=rate, diffusivity=rate, principle=False, options=options)


def decay(draw: Draw) -> Balance:
    """Burgers with s = −λ u sin²(πx) by a plain function."""
    rate = draw.amplitude + abs(draw.offset)
    strength = rate * draw.random.uniform(0.1, 3.0)

    def source(u: Any, x: Any, t: Any) -> Any:  # noqa: ARG001 - the signature of sources
        first = x if draw.grid.dimension == 1 else x[..., 0]
        return -strength * u * torch.sin(np.pi * first) ** 2

    return Balance(law=Burgers(), rate=rate, convects=True, principle=False, options={"source": source})


FAMILIES: dict[str, tuple[Callable[[Draw], Balance], str]] = {
    "diffusion": (diffusion, "offset"),
    "layered diffusion": (layered_diffusion, "offset"),
    "changing diffusion": (changing_diffusion, "offset"),
    "porous medium": (porous_medium, "positive"),
    "Stefan": (stefan, "offset"),
    "saturating": (saturating, "negative"),
    "capped": (capped, "positive"),
    "advection": (advection, "offset"),
    "varying advection": (varying_advection, "negative"),
    "Burgers": (burgers, "offset"),
    "Buckley-Leverett": (buckley_leverett, "unit"),
    "viscous Burgers": (viscous_burgers, "negative"),
    "transport and diffusion": (transport, "offset"),
    "transport and porous medium": (porous_transport, "positive"),
    "growth": (growth, "unit"),
    "decay": (decay, "negative"),
}
