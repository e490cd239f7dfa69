"""Manufactured solutions of u_t + ∇·(v u) = ∇·(k ∇u) + s for tests of orders: their sources, sides and errors."""

import math
from dataclasses import dataclass

import numpy as np
import torch

from solvers import (
    SSPRK3,
    Burgers,
    CellGrid,
    ConvectionDiffusion,
    Diffusion,
    DiffusiveLaw,
    Dirichlet,
    Neumann,
    Outflow,
    Robin,
    Source,
    solve,
)
from solvers.finite_volume.laws.coefficients import FaceValue
from solvers.finite_volume.laws.laws import Transport, align

AMPLITUDE = torch.tensor([0.7, 1.3], dtype=torch.float64)
SIZES = {1: (8, 16, 32, 64), 2: (6, 12, 24)}
END = 0.05


def along(x, dimension, axis):
    """A coordinate of points ``(n,)`` or ``(*space, 2)``."""
    return x if dimension == 1 else x[..., axis]


def exact(coordinates, t, amplitude):
    """u = 2 + a e^{−t} sin(x + y/2 + 0.3), monotone on [0, 1]², for every amplitude."""
    phase = coordinates[0] + (0.5 * coordinates[1] if len(coordinates) > 1 else 0.0)
    return 2.0 + amplitude * torch.exp(-t) * torch.sin(phase + 0.3)


def conductivity(coordinates, t):
    """k(x, t); of x alone at t = 0."""
    return 1.0 + 0.5 * torch.sin(3.0 * coordinates[0] + 2.0 * t) + 0.3 * (coordinates[-1] - 0.5) ** 2


def velocity(coordinates, t):
    """v(x, t), positive in every component; of x alone at t = 0."""
    first, last = coordinates[0], coordinates[-1]
    parts = 1.0 + 0.3 * torch.sin(2.0 * first + t), 0.8 + 0.2 * torch.cos(first + last - t)
    return parts[: len(coordinates)]


@dataclass(frozen=True)
class Case:
    """Terms of a manufactured solution: v u or u²/2, and k (1 + b u²)."""

    transports: bool = False
    steepens: bool = False
    diffuses: bool = False
    bends: float = 0.0
    varies_in_time: bool = False

    def time(self, t):
        return t if self.varies_in_time else 0.0 * t

    def flux(self, axis, coordinates, t, amplitude):
        """Flux of the exact solution along an axis; differentiable."""
        u = exact(coordinates, t, amplitude)
        total = torch.zeros_like(u)
        if self.transports:
            total = total + velocity(coordinates, self.time(t))[axis] * u
        if self.steepens:
            total = total + 0.5 * u * u
        if self.diffuses:
            gradient = derivative(u, coordinates[axis])
            total = total - conductivity(coordinates, self.time(t)) * (1.0 + self.bends * u * u) * gradient
        return total

    def source(self, x, t, amplitude, dimension):
        """s = u_t + ∇·F by automatic differentiation."""
        with torch.enable_grad():
            shape = torch.broadcast_shapes(amplitude.shape, t.shape, along(x, dimension, 0).shape)
            t = t.expand(shape).clone().requires_grad_()
            points = [along(x, dimension, axis).expand(shape).clone().requires_grad_() for axis in range(dimension)]
            terms = [derivative(exact(points, t, amplitude), t)]
            terms += [derivative(self.flux(axis, points, t, amplitude), points[axis]) for axis in range(dimension)]
            return sum(terms).detach()


def derivative(values, variable):
    """∂values/∂variable, entry by entry; zero if they do not depend on it."""
    (slope,) = torch.autograd.grad(values.sum(), variable, create_graph=True, allow_unused=True)
    return torch.zeros_like(variable) if slope is None else slope


@dataclass(frozen=True)
class Manufactured(Source):
    """The source of a case, with the amplitude as a parameter per batch entry."""

    case: Case
    dimension: int
    amplitude: torch.Tensor

    def __call__(self, u, x, t):
        return self.case.source(x, t, align(self.amplitude, u), self.dimension)


@dataclass(frozen=True)
class Bent(DiffusiveLaw):
    """k = c(x, t) (1 + b u²)."""

    varying = {"factor": FaceValue.HARMONIC}  # noqa: RUF012 - as in the documentation of laws

    factor: object
    bends: float

    def potential(self, u):
        return align(self.factor, u) * (u + self.bends * u * u * u / 3.0)

    def conductivity(self, u):
        return align(self.factor, u) * (1.0 + self.bends * u * u)


def coefficient(case, dimension):
    """k as a function of x, or of x and t."""

    def split(x):
        return [along(x, dimension, axis) for axis in range(dimension)]

    if case.varies_in_time:
        return lambda x, t: conductivity(split(x), t)
    return lambda x: conductivity(split(x), torch.zeros(()))


def velocities(case, dimension):
    """v as a function of x, or of x and t."""

    def stacked(x, t):
        parts = velocity([along(x, dimension, axis) for axis in range(dimension)], t)
        return parts[0] if dimension == 1 else torch.stack(torch.broadcast_tensors(*parts), -1)

    return stacked if case.varies_in_time else lambda x: stacked(x, torch.zeros(()))


def law_of(case, dimension):
    convection = Burgers() if case.steepens else Transport(velocities(case, dimension))
    factor = coefficient(case, dimension)
    diffusion = Bent(factor, case.bends) if case.bends else Diffusion(factor)
    if not case.diffuses:
        return convection
    return ConvectionDiffusion(convection, diffusion) if case.transports or case.steepens else diffusion


def sides_of(kind, dimension, case, grid):
    """Conditions that the exact solution meets, with values per batch entry."""

    def side(axis, last):
        a = AMPLITUDE.reshape(-1, *[1] * (dimension - 1))
        points = [
            torch.full((), float(last), dtype=torch.float64) if k == axis else grid.axes[k] for k in range(dimension)
        ]

        def value(t):
            return exact(points, torch.as_tensor(t, dtype=torch.float64), a)

        def gradient(t):
            phase = points[0] + (0.5 * points[1] if dimension > 1 else 0.0)
            scale = 0.5 if axis == 1 else 1.0
            return scale * a * torch.exp(-torch.as_tensor(t, dtype=torch.float64)) * torch.cos(phase + 0.3)

        weight = (1.0 if last else -1.0) * AMPLITUDE
        aligned = weight.reshape(a.shape)
        if not case.diffuses and last:
            return Outflow()
        return {
            "dirichlet": lambda: Dirichlet(value),
            "gradient": lambda: Neumann(gradient=gradient) if last else Dirichlet(value),
            "robin": lambda: Robin(2.0 * AMPLITUDE, weight, lambda t: 2.0 * a * value(t) + aligned * gradient(t)),
        }[kind]()

    return [(side(axis, False), side(axis, True)) for axis in range(dimension)]


def errors_of(case, dimension, stepper, sides="dirichlet", law=None, plain_source=False, sizes=None, **options):
    """Mean |error| of the worse of two amplitudes on every size."""
    errors = []
    for n in sizes or SIZES[dimension]:
        grid = CellGrid((0.0,) * dimension, (1.0,) * dimension, (n,) * dimension)
        points = [along(grid.points, dimension, axis) for axis in range(dimension)]
        a = AMPLITUDE.reshape(-1, *[1] * dimension)
        source = Manufactured(case, dimension, AMPLITUDE)
        if plain_source:
            source = lambda u, x, t, a=a: case.source(x, t, a, dimension)  # noqa: E731, ARG005
        result = solve(
            law_of(case, dimension) if law is None else law(grid),
            grid,
            sides_of(sides, dimension, case, grid),
            exact(points, torch.zeros(()), a),
            [END],
            source=source,
            stepper=SSPRK3() if stepper is SSPRK3 else stepper(math.inf, largest_step=0.25 / n),
            **options,
        )
        expected = exact(points, torch.full((), END, dtype=torch.float64), a)
        errors.append(float((result.values[:, 0] - expected).abs().flatten(1).mean(1).max()))
        assert float((result.imbalance.abs() / result.total.abs()).max()) < 1e-12
    return errors


def assert_order(errors, order, slack=0.2):
    slopes = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert abs(slopes[-1] - order) < slack, (errors, slopes)
