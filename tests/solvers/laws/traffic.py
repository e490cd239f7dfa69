"""A law of a user, which no kernel knows."""

from solvers import ConvectiveLaw


class Traffic(ConvectiveLaw):
    """f = u (1 − u), concave."""

    def convective_flux(self, u):
        return u * (1.0 - u)

    def characteristic_speed(self, u):
        return 1.0 - 2.0 * u

    def stationary_points(self):
        return (0.5,)
