"""A campaign: random set-ups of every kind of solve against LSODA, closed forms or a finer grid.

A seed draws one set-up: diffusion in one to three axes with sides of every kind and sources, stiff ones too; shocks and
rarefactions of random polynomials; convection with diffusion; gas dynamics. The reference shares no line with the
library. Errors are relative to the spread of the reference.

The tolerance of diffusion is one on the mean error, and a mean can sit in one cell: after a pulse of inflow, Stefan's
front alone holds what the total is wrong by. So its mean error is at most 5e-3 in every set-up, and its largest one at
most that or ``STATED`` times the solution's own estimate.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import Phase, example, given, settings
from scipy.integrate import solve_ivp
from torch import Tensor

import solvers
from tests.solvers.systems.riemann import density_at
from tests.strategies import seeds

BALANCE = 1e-11
"""Largest imbalance relative to the totals and fluxes of a run."""
STATED = 2.1
"""Largest error over ``error_estimate``, as docs/speed.md states it."""
Array = np.ndarray


@dataclass(frozen=True)
class Outcome:
    """Result of a set-up: its error and the largest that is accepted, its imbalance, what was drawn."""

    error: float
    accepted: float
    imbalance: float
    label: str


def outcome(solution: Any, expected: Array, accepted: float, label: str, past: Any = 0.0) -> Outcome:
    """The outcome of a solution against reference values at its last time; past ones count in the spread.

    Where the solution has an estimate of its error and the mean error is accepted, so is what the estimate states.
    """
    found = solution.values.select(-1 - solution.grid.dimension, -1).numpy()
    spread = max(float(np.ptp(expected)), float(np.ptp(past)), 1e-3 * float(np.abs(expected).max()), 1e-300)
    totals = solution.values.abs().sum().item() * float(solution.grid.weights.flatten()[0])
    size = max(totals, float(solution.boundary_flux.abs().max()), 1e-300)
    errors = np.abs(found.reshape(expected.shape) - expected) / spread
    if solution.error_estimate is not None and errors.mean() <= accepted:
        accepted = max(accepted, STATED * float(solution.error_estimate.max()) / spread)
    return Outcome(float(errors.max()), accepted, float(solution.imbalance.abs().max()) / size, label)


@dataclass(frozen=True)
class Side:
    """A condition of the library, and its coefficients: a flux, or a u + b ∂u/∂x = value, a number or of time."""

    condition: Any
    value: Any
    a: float = 1.0
    b: float = 0.0
    is_flux: bool = False


@dataclass(frozen=True)
class Medium:
    """A law, its potential Φ with F = −factor ∂Φ(u)/∂x, and the size of the conductivity."""

    law: Any
    potential: Callable[[Array], Array]
    factor: Array
    size: float


def medium(random: np.random.Generator, shape: tuple[int, ...], amplitude: float, size: float, linear: bool) -> Medium:
    """A diffusive law; nonlinear ones take states from 0 on."""
    ones = np.ones(shape)
    if linear and random.random() < 0.5:
        powers = random.normal(0, 0.4, shape) if random.random() < 0.5 else random.integers(-5, 1, shape)
        factor = size * 10.0**powers
        return Medium(solvers.Diffusion(solvers.Field(torch.tensor(factor))), lambda u: u, factor, size)
    if linear:
        return Medium(solvers.Diffusion(size), lambda u: u, size * ones, size)
    if random.random() < 0.6:
        m = float(random.choice([0.3, 0.5, 1.0, 2.0, 3.0, 6.0]))
        return Medium(solvers.PorousMedium(m), lambda u: np.maximum(u, 0) ** (m + 1) / (m + 1), ones, amplitude**m)
    level = amplitude * float(random.choice([0.0, 0.3, 0.5]))
    return Medium(solvers.Stefan(level, size), lambda u: size * np.maximum(u - level, 0), ones, size)


def side(random: np.random.Generator, first: bool, face: tuple[int, ...], span: float, flow: tuple[float, ...]) -> Side:
    """A side with data along it and in time; ``flow`` is offset and amplitude of values, size of fluxes, length."""
    offset, amplitude, flux, length = flow
    sign = 1.0 if first else -1.0
    along = amplitude * random.random(face)
    rate, middle = random.integers(1, 8) * 2 * np.pi / span, random.uniform(0.2, 0.8) * span
    inflow = sign * flux * random.random()
    kind = random.choice(["value", "swinging value", "flux", "pulse", "gradient", "mixed"])
    if kind == "value":
        return Side(solvers.Dirichlet(torch.tensor(offset + along)), offset + along)
    if kind == "swinging value":
        swing = lambda time: offset + along * (1 + np.sin(rate * time)) / 2  # noqa: E731
        return Side(solvers.Dirichlet(lambda time: torch.as_tensor(swing(time))), swing)
    if kind == "flux":
        return Side(solvers.Neumann(flux=inflow), inflow, is_flux=True)
    if kind == "pulse":
        pulse = lambda time: inflow * np.exp(-(((time - middle) / (0.05 * span)) ** 2))  # noqa: E731
        return Side(solvers.Neumann(flux=pulse), pulse, is_flux=True)
    if kind == "gradient":
        gradient = -sign * amplitude / length * random.uniform(0, 0.3)
        return Side(solvers.Neumann(gradient=gradient), gradient, 0.0, 1.0)
    b, value = -sign * length * random.uniform(0.2, 2.0), offset + amplitude * random.random()
    return Side(solvers.Robin(1.0, b, value), value, 1.0, b)


def diffusive_rates(grid: solvers.CellGrid, of: Medium, sides: list[tuple[Side, Side] | None], source: Any) -> Any:
    """du/dt of the finite volumes, written out: ``rates(t, u)`` of flattened cells."""
    k = of.factor

    def through(end: Side, edge: Array, conductivity: Array, time: float, sign: float, h: float) -> Array:
        value = end.value(time) if callable(end.value) else end.value
        if end.is_flux:
            return value + 0 * edge
        slope = sign * 2 * end.b / h
        at_side = (value - slope * edge) / (end.a - slope)
        return -sign * conductivity * (of.potential(edge) - of.potential(at_side)) / (h / 2)

    def rates(time: float, flat: Array) -> Array:
        u = flat.reshape(grid.shape)
        now = torch.full((1,) * grid.dimension, time, dtype=torch.float64)
        result = source(torch.from_numpy(u), grid.points, now).numpy().copy()
        for axis, (pair, h) in enumerate(zip(sides, grid.spacing, strict=True)):
            v, c = np.moveaxis(u, axis, 0), np.moveaxis(k, axis, 0)
            p, flux = of.potential(v), np.zeros((len(v) + 1, *v.shape[1:]))
            flux[1:-1] = -2 * c[1:] * c[:-1] / (c[1:] + c[:-1]) * np.diff(p, axis=0) / h
            if pair is None:
                flux[0] = flux[-1] = -2 * c[0] * c[-1] / (c[0] + c[-1]) * (p[0] - p[-1]) / h
            else:
                flux[0] = through(pair[0], v[0], c[0], time, 1.0, h)
                flux[-1] = through(pair[1], v[-1], c[-1], time, -1.0, h)
            result -= np.moveaxis(np.diff(flux, axis=0) / h, 0, axis)
        return result.ravel()

    return rates


def source_of(random: np.random.Generator, span: float, low: float, amplitude: float, grid: solvers.CellGrid) -> tuple:
    """A source as the library takes it, as a function of tensors (u, points, time), and its name."""
    kind, rate = (
        random.choice(["none", "none", "logistic", "relaxation", "moving"]),
        10.0 ** random.uniform(0, 6) / span,
    )
    if kind == "logistic" and amplitude == 1.0 and not low:
        return solvers.Logistic(5.0 / span), lambda u, *_: 5.0 / span * u * (1 - u), kind
    ends = torch.tensor(grid.high)

    def relaxation(u: Tensor, *_: Tensor) -> Tensor:
        return -rate * (u - low - 0.5 * amplitude)

    def moving(u: Tensor, points: Tensor, time: Tensor) -> Tensor:
        at = points[..., None] if grid.dimension == 1 else points
        return amplitude / span * torch.exp(-8 * ((at / ends - time[..., None] / span) ** 2).sum(-1)) + 0 * u

    function = {"relaxation": relaxation, "moving": moving}.get(kind)
    return function, function or (lambda u, *_: 0 * u), f"{kind} {rate * span:.0f}"


def diffusive(random: np.random.Generator, dimension: int) -> Outcome:
    """Diffusion on a line, a rectangle or a box against LSODA."""
    linear = bool(random.random() < 0.6)
    amplitude = float(random.choice([1.0, 1.0, 1e-6, 1e5])) if linear else float(random.choice([1.0, 0.1, 3.0]))
    offset = float(random.choice([0.0, 0.0, 293.0])) if linear else 0.0
    length = float(random.choice([1.0, 1e-3, 1e2])) if linear else 1.0
    lengths = length * random.uniform(0.5, 2.0, dimension)
    shape = tuple(int(n) for n in random.integers(1, {1: 65, 2: 11, 3: 6}[dimension], dimension))
    grid = solvers.CellGrid((0.0,) * dimension, tuple(lengths), shape)
    of = medium(random, shape, amplitude, length**2, linear)
    span = length**2 / of.size * 10 ** random.uniform(-1.5, 0.3)
    pairs: list[tuple[Side, Side] | None] = []
    for axis in range(dimension):
        flow = (offset, amplitude, 0.3 * of.size * amplitude / length, lengths[axis])
        face = shape[:axis] + shape[axis + 1 :]
        first, last = (side(random, each, face, span, flow) for each in (True, False))
        pairs.append(None if random.random() < 0.15 else (first, last))
    given, source, name = source_of(random, span, offset, amplitude, grid)
    initial = offset + amplitude * (random.random(shape) if random.random() < 0.7 else np.zeros(shape))
    boundary = [tuple(end.condition for end in pair) if pair else (solvers.Periodic(),) * 2 for pair in pairs]
    stepper = random.choice([None, solvers.TRBDF2(), solvers.RKL2()]) if given is None else None
    options = {option: each for option, each in (("source", given), ("stepper", stepper)) if each is not None}
    problem = of.law, grid, boundary, torch.tensor(initial), [span]
    band = {"lband": 1, "uband": 1} if dimension == 1 and shape[0] > 3 and pairs[0] else {}
    reference = solve_ivp(
        diffusive_rates(grid, of, pairs, source), (0, span), initial.ravel(), "LSODA", np.linspace(0, span, 9),
        rtol=1e-6, atol=1e-11 * amplitude, max_step=span / 100, **band,
    )  # fmt: skip
    kinds = ["periodic" if pair is None else "/".join(type(end.condition).__name__ for end in pair) for pair in pairs]
    label = f"{type(of.law).__name__} {shape} ×{amplitude:g}+{offset:g} L={length:g} {kinds} source {name} {stepper}"
    judged = reference.y[:, -1].reshape(shape), 5e-3, label, reference.y
    result = outcome(solvers.solve(*problem, **options), *judged)
    if result.error > result.accepted:
        result = outcome(solvers.solve(*problem, **options, estimate_error=True), *judged)
    return result


@dataclass(frozen=True)
class Polynomial(solvers.ConvectiveLaw):
    """u_t + p(u)_x = 0."""

    coefficients: tuple[float, ...]

    def _values(self, u: Tensor, order: int) -> Tensor:
        result, coefficients = torch.zeros_like(u), np.polynomial.polynomial.polyder(self.coefficients, order)
        for each in coefficients[::-1]:
            result = result * u + float(each)
        return result

    def convective_flux(self, u: Tensor) -> Tensor:
        return self._values(u, 0)

    def characteristic_speed(self, u: Tensor) -> Tensor:
        return self._values(u, 1)

    def _roots(self, order: int) -> tuple[float, ...]:
        roots = np.polynomial.Polynomial(self.coefficients).deriv(order).roots()
        return tuple(float(root.real) for root in roots if abs(root.imag) < 1e-12)

    def stationary_points(self) -> tuple[float, ...]:
        return self._roots(1)

    def inflection_points(self) -> tuple[float, ...]:
        return self._roots(2)


def riemann_averages(flux: Any, left: float, right: float, faces: Array, time: float) -> Array:
    """Cell averages of the entropy solution: the hull of the flux between the two states (Osher 1984)."""
    u = np.linspace(left, right, 4001)
    f, hull = flux(u), list[int]()

    def slope(a: int, b: int) -> float:
        return (f[b] - f[a]) / (u[b] - u[a])

    for i in range(len(u)):
        while len(hull) > 1 and slope(hull[-1], i) <= slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(i)
    states, speeds = u[hull], np.diff(f[hull]) / np.diff(u[hull])
    jumps = (np.diff(states) * np.maximum(faces[:, None] - speeds * time, 0)).sum(-1)
    return np.diff(states[0] * faces + jumps) / np.diff(faces)


def convective(random: np.random.Generator) -> Outcome:
    """A jump under a random polynomial flux; the error is the mean over the domain."""
    coefficients = tuple(random.normal(size=int(random.integers(3, 7))))
    left, right = random.uniform(-1.5, 1.5, 2)
    flux = np.polynomial.Polynomial(coefficients)
    grid = solvers.CellGrid(-1.0, 1.0, 200)
    time = 0.7 / float(np.abs(flux.deriv()(np.linspace(*sorted((left, right)), 400))).max())
    reconstruction = random.choice([solvers.MUSCL(), solvers.finite_volume.convection.schemes.Constant()])
    initial = torch.where(grid.points < 0, torch.tensor(left), torch.tensor(right))
    options = {"reconstruction": reconstruction, "flux": random.choice([solvers.Godunov(), solvers.Rusanov()])}
    outflow = (solvers.Outflow(), solvers.Outflow())
    solution = solvers.solve(Polynomial(coefficients), grid, outflow, initial, [time], **options)
    expected = riemann_averages(flux, left, right, grid.faces[0].numpy(), time)
    found = outcome(solution, expected, 0, "")
    mean = float(np.abs(solution.values[0].numpy() - expected).mean()) / abs(left - right)
    accepted = 0.012
    if isinstance(reconstruction, solvers.finite_volume.convection.schemes.Constant):
        # The least that a nearly linear jump loses over 0.7: the viscosity |p'| h / 2 smears it by σ = √(0.7 h), whose
        # mean error over the domain of length 2 is σ √(2/π) / 2 = 0.0334; with 1 % for the reference.
        accepted = 1.01 * float(np.sqrt(0.7 * grid.spacing[0] * 2 / np.pi)) / 2
    label = f"degree {len(coefficients) - 1}, {left:.2f} → {right:.2f}, {options}"
    return Outcome(mean, accepted, found.imbalance, label)


def mixed(random: np.random.Generator) -> Outcome:
    """Convection and diffusion on 64 cells against central differences and LSODA on 256."""
    n, fine, speed, viscosity = 64, 256, random.uniform(-2, 2), random.uniform(0.05, 0.5)
    burgers, nonlinear = bool(random.random() < 0.4), bool(random.random() < 0.4)
    varying = lambda x, time: speed * (1 + 0.5 * np.sin(5 * x + 6 * time))  # noqa: E731
    advection = solvers.Advection(lambda x, time: speed * (1 + 0.5 * torch.sin(5 * x + 6 * time)))
    convection = solvers.Burgers() if burgers else advection
    diffusion = solvers.PorousMedium(1.0) if nonlinear else solvers.Diffusion(viscosity)
    potential = (lambda u: np.maximum(u, 0) ** 2 / 2) if nonlinear else (lambda u: viscosity * u)
    inner, outer, rate, sink = *random.uniform(0.2, 1.2, 2), random.uniform(2, 15), float(random.choice([0.0, 3.0]))
    left = lambda time: inner + 0.2 * np.sin(rate * time)  # noqa: E731
    given_flux = bool(random.random() < 0.4)
    ends = (solvers.Neumann(flux=0.2) if given_flux else solvers.Dirichlet(left)), solvers.Dirichlet(outer)
    faces = np.linspace(0, 1, fine + 1)

    def rates(time: float, u: Array) -> Array:
        ahead, h = lambda v, x: v * v / 2 if burgers else varying(x, time) * v, 1 / fine
        p, flux = potential(u), np.empty(fine + 1)
        flux[1:-1] = ahead(0.5 * (u[1:] + u[:-1]), faces[1:-1]) - np.diff(p) / h
        flux[0] = 0.2 if given_flux else ahead(left(time), 0.0) - (p[0] - potential(left(time))) / (h / 2)
        flux[-1] = ahead(outer, 1.0) - (potential(outer) - p[-1]) / (h / 2)
        return -np.diff(flux) / h - sink * u

    initial, time = 0.5 + 0.3 * np.cos(3 * 0.5 * (faces[1:] + faces[:-1])), random.uniform(0.1, 1.0)
    options = {"source": lambda u, *_: -sink * u} if sink else {}
    coarse, law = torch.tensor(initial.reshape(n, -1).mean(1)), solvers.ConvectionDiffusion(convection, diffusion)
    solution = solvers.solve(law, solvers.CellGrid(0.0, 1.0, n), ends, coarse, [time], **options)
    reference = solve_ivp(rates, (0, time), initial, "LSODA", lband=1, uband=1, rtol=1e-6, atol=1e-8, max_step=0.02)
    label = f"{convection}, {diffusion}, {ends}, sink {sink:g}"
    return outcome(solution, reference.y[:, -1].reshape(n, -1).mean(1), 2e-2, label)


def gas(random: np.random.Generator) -> Outcome:
    """A shock tube with random states; the error is the mean of the density over the domain."""
    states = 10 ** random.uniform(-1, 0.5, (2, 3))
    states[:, 1] = random.uniform(-1, 1, 2)
    left, right = states
    grid = solvers.CellGrid(0.0, 1.0, 200)
    time = 0.25 / max(abs(u) + np.sqrt(1.4 * p / rho) for rho, u, p in states)
    rho, u, p = (torch.where(grid.points < 0.5, *map(float, pair)).double() for pair in states.T)
    initial = torch.stack([rho, rho * u, p / 0.4 + 0.5 * rho * u * u])
    solution = solvers.solve_system(solvers.Euler(), grid, (solvers.Outflow(), solvers.Outflow()), initial, [time])
    places = ((np.arange(2000) + 0.5) / 2000 - 0.5) / time
    expected = density_at(left, right, places, 1.4).reshape(200, 10).mean(1)
    error = np.abs(solution.values[0, 0].numpy() - expected).mean() / expected.mean()
    imbalance = float(solution.imbalance.abs().max() / solution.values.abs().max())
    return Outcome(float(error), 0.05, imbalance, f"{np.round(left, 3)} | {np.round(right, 3)}")


FAMILIES: dict[str, tuple[int, Callable[[np.random.Generator], Outcome]]] = {
    "diffusion on a line": (70, lambda random: diffusive(random, 1)),
    "diffusion in a plane": (40, lambda random: diffusive(random, 2)),
    "diffusion in space": (20, lambda random: diffusive(random, 3)),
    "shocks and rarefactions": (30, convective),
    "convection with diffusion": (20, mixed),
    "gas dynamics": (20, gas),
}
"""How many of 200 set-ups are of a family, and how one is drawn and solved."""


def require(families: dict[str, tuple[int, Callable[[np.random.Generator], Outcome]]], family: str, seed: int) -> None:
    """Raises unless a set-up agrees with its reference and balances."""
    found = families[family][1](np.random.default_rng((len(family), seed)))
    assert found.error <= found.accepted, found
    assert found.imbalance <= BALANCE, found


@pytest.mark.long
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("family", FAMILIES)
def test_a_random_set_up_agrees_with_its_reference_and_balances(family: str, seed: int) -> None:
    require(FAMILIES, family, seed)


@pytest.mark.slow
@settings(max_examples=300, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.sampled_from([family for family, (count, _) in FAMILIES.items() for _ in range(count)]), seeds)
@example("diffusion on a line", 8282)  # Stefan's front holds all that the total is wrong by
def test_random_set_ups_agree_with_their_references_and_balance(family: str, seed: int) -> None:
    require(FAMILIES, family, seed)
