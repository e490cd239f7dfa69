"""Laws of users, which no kernel knows."""

from dataclasses import dataclass

from solvers import ConvectiveLaw, DiffusiveLaw
from solvers.finite_volume.laws.laws import align


class Traffic(ConvectiveLaw):
    """f = u (1 − u), concave."""

    def convective_flux(self, u):
        return u * (1.0 - u)

    def characteristic_speed(self, u):
        return 1.0 - 2.0 * u

    def stationary_points(self):
        return (0.5,)


class BuckleyLeverett(ConvectiveLaw):
    """f = u²/(u² + ½(1 − u)²), neither convex nor concave between 0 and 1."""

    def convective_flux(self, u):
        return u * u / (u * u + 0.5 * (1.0 - u) ** 2)

    def characteristic_speed(self, u):
        return u * (1.0 - u) / (u * u + 0.5 * (1.0 - u) ** 2) ** 2

    def stationary_points(self):
        return (0.0, 1.0)


@dataclass(frozen=True)
class Cubic(DiffusiveLaw):
    """A user's law with a parameter per batch entry."""

    factor: object

    def potential(self, u):
        return align(self.factor, u) * u**3 / 3.0

    def conductivity(self, u):
        return align(self.factor, u) * u**2


@dataclass(frozen=True)
class Averaged(Cubic):
    """A law whose parameter happens to be as long as the batch, but is no parameter of the batch."""

    def potential(self, u):
        return self.factor.mean() * u

    def conductivity(self, u):
        return self.factor.mean() + 0.0 * u


class Plain(DiffusiveLaw):
    """A law that is no dataclass and knows the shape of its batch."""

    def __init__(self, factor):
        self.factor = factor

    def potential(self, u):
        return self.factor[..., None] * u

    def conductivity(self, u):
        return self.factor[..., None] + 0.0 * u
