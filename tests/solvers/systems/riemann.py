"""The exact solution of the Riemann problem of gas dynamics (Toro, *Riemann Solvers*, chapter 4)."""

import numpy as np
from scipy.optimize import brentq


def sound(density, pressure, gamma):
    return (gamma * pressure / density) ** 0.5


def drop(p, state, gamma):
    """Change of the speed over the wave from a state to the pressure p: a shock above its pressure, else a fan."""
    density, _, before = state
    if p > before:
        a, b = 2 / ((gamma + 1) * density), (gamma - 1) / (gamma + 1) * before
        return (p - before) * (a / (p + b)) ** 0.5
    return 2 * sound(density, before, gamma) / (gamma - 1) * ((p / before) ** ((gamma - 1) / (2 * gamma)) - 1)


def middle(left, right, gamma):
    """Pressure and speed between the two nonlinear waves; no vacuum."""
    top = 100 * max(left[2], right[2], left[0] * left[1] ** 2, right[0] * right[1] ** 2)
    mismatch = lambda p: drop(p, left, gamma) + drop(p, right, gamma) + right[1] - left[1]  # noqa: E731
    p = brentq(mismatch, 1e-14 * top, top, xtol=1e-300, rtol=1e-13)
    return p, 0.5 * (left[1] + right[1] + drop(p, right, gamma) - drop(p, left, gamma))


def density_at(left, right, ratio, gamma):
    """Density at x/t = ``ratio``, an array, of the problem between two states (ρ, v, p)."""
    p, speed = middle(left, right, gamma)
    return np.where(ratio < speed, beside(left, -1, p, speed, ratio, gamma), beside(right, 1, p, speed, ratio, gamma))


def beside(state, sign, p, speed, ratio, gamma):
    """Density on the side of the contact on which a state lies; ``sign`` is −1 on the left."""
    density, velocity, before = state
    c, quotient, g = sound(density, before, gamma), p / before, (gamma - 1) / (gamma + 1)
    outwards = sign * ratio
    if p > before:
        shock = sign * velocity + c * ((gamma + 1) / (2 * gamma) * quotient + (gamma - 1) / (2 * gamma)) ** 0.5
        return np.where(outwards > shock, density, density * (quotient + g) / (g * quotient + 1))
    behind, tail = density * quotient ** (1 / gamma), sign * speed + c * quotient ** ((gamma - 1) / (2 * gamma))
    inside = 2 / (gamma + 1) - g / c * (sign * velocity - outwards)
    fan = density * np.maximum(inside, 0.0) ** (2 / (gamma - 1))
    return np.where(outwards > sign * velocity + c, density, np.where(outwards < tail, behind, fan))
