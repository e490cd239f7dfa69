"""Closed-form solutions of the boundary-condition problems.

Times ``t``, positions ``x`` and parameters are numbers or tensors that broadcast; results are float64 tensors of the
broadcast shape. All quantities are dimensionless. The series of the heat equation need t > 0, where their terms
decay like e^{−kn²π²t}: they are truncated at the first N with kN²π²t ≥ 34 for the smallest t, with a remainder below
e^{−34}/34 < 1e-16 times the size of the data (the bound is derived at ``_terms``). A time that is not positive, or
needs more than 20,000 terms, is refused. Values at the ends are those of the solution there; ``Harmonics.at`` and
``heater_gradient`` give the data themselves.
Source: Saad et al. 2023, sec. 4 and appendix; the responses to boundary data follow from Carslaw & Jaeger 1959,
sec. 3.3 to 3.6.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, pi, sqrt

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.problems.exact import Value, float64, require

_EXPONENT = 34.0  # e^{−34} = 1.7e-15
_MOST_TERMS = 20_000


@dataclass(frozen=True)
class Harmonics:
    """Boundary data g(t) = Σ_j Re(c_j e^{iω_j t}): a constant if the only ω is 0, else a smooth function of time.

    Args:
        amplitudes: c ``(*batch, j)``; the batch broadcasts with times and points.
        frequencies: ω ``(j,)``, each zero or positive. As a gradient, a positive one far below the diffusivity k loses
            about log₁₀ k/ω digits; use a constant for data that hardly change.

    Raises:
        InvalidArgumentError: If the numbers of amplitudes and frequencies differ or a frequency is negative.
    """

    amplitudes: Complex[Tensor, "*batch j"]
    frequencies: Float[Tensor, " j"]

    def __post_init__(self) -> None:
        if self.amplitudes.shape[-1:] != self.frequencies.shape or not bool((self.frequencies >= 0).all()):
            raise InvalidArgumentError(
                "Harmonics needs one amplitude along the last axis for every frequency ω ≥ 0, got amplitudes "
                f"{tuple(self.amplitudes.shape)} and frequencies {self.frequencies.tolist()}."
            )

    def at(self, t: Value) -> Tensor:
        """The data at times ``t``, broadcast with the batch, float64."""
        (t,) = float64(t)
        return _real_sum(self.amplitudes, torch.exp(1j * self.frequencies * t[..., None]))


def constant(value: Value) -> Harmonics:
    """Constant boundary data: values ``(*batch,)`` → ``Harmonics``."""
    (value,) = float64(value)
    return Harmonics(value[..., None].to(torch.complex128), torch.zeros(1, dtype=torch.float64))


def stokes(t: Value, y: Value, frequency: Value, viscosity: Value, speed: Value = 2.0) -> Tensor:
    """Stokes' second problem, u = U e^{−κy} cos(κy − ωt) with κ = √(ω/2ν), of u_t = ν u_yy at an oscillating wall.

    Raises:
        InvalidArgumentError: If t is not finite, ω is negative or ν is not positive.
    """
    t, y, omega, nu, speed = float64(t, y, frequency, viscosity, speed)
    require(torch.isfinite(t), "t of Stokes' problem", "finite", t)
    require(omega >= 0, "frequency of Stokes' problem", "0 or more", omega)
    require(nu > 0, "viscosity of Stokes' problem", "above 0", nu)
    depth = torch.sqrt(omega / (2 * nu)) * y
    return speed * torch.exp(-depth) * torch.cos(depth - omega * t)


def burgers_wave(t: Value, x: Value, left: Value, right: Value, viscosity: Value) -> Tensor:
    """Travelling wave of u_t + (u²/2)_x = ν u_xx from u_L down to u_R, at x = ½ at t = 0.

    u = s − d tanh(d (x − ½ − st)/2ν) with the speed s = (u_L + u_R)/2 and d = (u_L − u_R)/2.

    Raises:
        InvalidArgumentError: If u_L is below u_R, from where no wave travels, or ν is not positive.
    """
    t, x, left, right, nu = float64(t, x, left, right, viscosity)
    require(left >= right, "left − right of the Burgers wave", "0 or more", left - right)
    require(nu > 0, "viscosity of the Burgers wave", "above 0", nu)
    speed, half = 0.5 * (left + right), 0.5 * (left - right)
    return speed - half * torch.tanh(half * (x - 0.5 - speed * t) / (2 * nu))


def heater_gradient(t: Value, heater: Value = 5.0) -> Tensor:
    """Gradient u_x(t, 1) = U sin πt of ``heat_insulator``; at x = 0 it is zero."""
    t, heater = float64(t, heater)
    return heater * torch.sin(pi * t)


def heat_insulator(t: Value, x: Value, frequency: Value, diffusivity: float = 0.01, heater: Value = 5.0) -> Tensor:
    """Heat between an insulator at x = 0 and a heater at x = 1, from u(0, x) = cos ωπx, for t > 0.

    u_t = k u_xx + Uπ(x²/2) cos πt on [0, 1] with u_x(0) = 0, u_x(1) = U sin πt has the solution
    U(x²/2) sin πt + (kU/π)(1 − cos πt) + a₀ + Σ aₙ cos(nπx) e^{−kn²π²t}, where a₀ = sinc ω and
    aₙ = sinc(ω − n) + sinc(ω + n), sinc s = sin(πs)/πs, are the cosine coefficients of the initial field.

    Args:
        t: Times t > 0.
        x: Positions in [0, 1].
        frequency: ω > 0.
        diffusivity: k.
        heater: U.
    """
    t, x, omega, heater = float64(t, x, frequency, heater)
    # |aₙ| ≤ (2ω/π)/(n² − ω²), so from n = 2ω on the coefficients are below those of the bound at _terms.
    terms = max(_terms(t, diffusivity), ceil(2 * omega.detach().max().item()))
    series = _decaying_series(
        t, x, torch.cos, diffusivity, [torch.sinc(omega - n) + torch.sinc(omega + n) for n in range(1, terms + 1)]
    )
    driven = heater * (0.5 * x * x * torch.sin(pi * t) + diffusivity / pi * (1 - torch.cos(pi * t)))
    return driven + torch.sinc(omega) + series


def wave(t: Value, x: Value, y: Value, amplitudes: Float[Tensor, "*batch m n"], speed: float = 1.0) -> Tensor:
    """Standing waves Σ A_mn cos(mπx) cos(nπy) cos(cπ√(m² + n²) t) of u_tt = c²∇²u on [0, 1]², walls u_n = 0.

    They start at rest.

    Args:
        t: Times.
        x: Positions along the first axis.
        y: Positions along the second axis.
        amplitudes: A of m, n = 0, 1, …; the batch broadcasts with times and points.
        speed: c.
    """
    t, x, y, amplitudes = float64(t, x, y, amplitudes)
    total = torch.zeros(_shape(t, x, y, amplitudes[..., 0, 0]), dtype=torch.float64)
    for m in range(amplitudes.shape[-2]):
        for n in range(amplitudes.shape[-1]):
            if bool((amplitudes[..., m, n] != 0).any()):
                swing = amplitudes[..., m, n] * torch.cos(speed * pi * sqrt(m * m + n * n) * t)
                total.addcmul_(swing * torch.cos(m * pi * x), torch.cos(n * pi * y))
    return total


def heat_dirichlet(
    t: Value, x: Value, initial: Float[Tensor, "*batch n"], left: Harmonics, right: Harmonics, diffusivity: float
) -> Tensor:
    """Heat u_t = k u_xx on [0, 1] with u(t, 0) = left, u(t, 1) = right from Σ bₙ sin(nπx), for t > 0.

    Data at the ends are independent of the initial field. The response to u(t, 0) = Re(c e^{iωt}) is
    Re c (e^{iωt} sinh(q(1 − x))/sinh q − Σ 2nπ/(n²π² + q²) sin(nπx) e^{−kn²π²t}) with q² = iω/k, where the ratio of
    sinh is 1 − x for ω = 0; the other end's is its mirror image.

    Args:
        t: Times t > 0.
        x: Positions in [0, 1].
        initial: b₁, b₂, … along the last axis; the batch broadcasts with times and points.
        left: Value at x = 0.
        right: Value at x = 1.
        diffusivity: k.
    """
    return _heat(t, x, initial, (left, right), diffusivity, gradients=False)


def heat_neumann(
    t: Value, x: Value, initial: Float[Tensor, "*batch n"], left: Harmonics, right: Harmonics, diffusivity: float
) -> Tensor:
    """Heat u_t = k u_xx on [0, 1] with u_x(t, 0) = left, u_x(t, 1) = right from Σ aₙ cos(nπx), n ≥ 0, for t > 0.

    The response to u_x(t, 0) = Re(c e^{iωt}), ω > 0, is Re c (−e^{iωt} cosh(q(1 − x))/(q sinh q) + 1/q² +
    Σ 2/(n²π² + q²) cos(nπx) e^{−kn²π²t}) with q² = iω/k. For ω = 0 the terms before the sum are
    x − x²/2 − kt − 1/3. The other end's is its mirror image, negated. Arguments as for ``heat_dirichlet``, but
    ``initial`` is a₀, a₁, … and the sides are gradients.
    """
    return _heat(t, x, initial, (left, right), diffusivity, gradients=True)


def _heat(
    t: Value, x: Value, initial: Tensor, sides: tuple[Harmonics, Harmonics], diffusivity: float, *, gradients: bool
) -> Tensor:
    """``heat_neumann`` or ``heat_dirichlet``: the responses to both ends, and a decaying series."""
    t, x, initial = float64(t, x, initial)
    sign = 1 if gradients else -1

    def start(n: int, side: Harmonics) -> Tensor:
        weight = 2 if gradients else 2 * n * pi
        return sign * _real_sum(side.amplitudes, weight / (n * n * pi * pi + _squared_rate(side, diffusivity)))

    coefficients = [
        _coefficient(initial, n + gradients) + start(n, sides[0]) - (-1) ** n * start(n, sides[1])
        for n in range(1, max(_terms(t, diffusivity), initial.shape[-1] - gradients) + 1)
    ]
    left, right = (_lasting(t, at, side, diffusivity, gradients) for at, side in zip((x, 1 - x), sides, strict=True))
    ends = left - sign * right + (initial[..., 0] if gradients else 0.0)
    return ends + _decaying_series(t, x, torch.cos if gradients else torch.sin, diffusivity, coefficients)


def sine_series(x: Value, coefficients: Float[Tensor, "*batch n"]) -> Tensor:
    """Σ bₙ sin(nπx), n = 1, 2, …: the initial field of ``heat_dirichlet``."""
    x, coefficients = float64(x, coefficients)
    n = torch.arange(1, coefficients.shape[-1] + 1, dtype=torch.float64)
    return (coefficients * torch.sin(n * pi * x[..., None])).sum(dim=-1)


def cosine_series(x: Value, coefficients: Float[Tensor, "*batch n"]) -> Tensor:
    """Σ aₙ cos(nπx), n = 0, 1, …: the initial field of ``heat_neumann``."""
    x, coefficients = float64(x, coefficients)
    n = torch.arange(coefficients.shape[-1], dtype=torch.float64)
    return (coefficients * torch.cos(n * pi * x[..., None])).sum(dim=-1)


def _terms(t: Tensor, diffusivity: float) -> int:
    """Number N of terms of a heat series: the first with E = kN²π²t ≥ 34 for the smallest t.

    The coefficients of all series are at most 2/(πn) times the size of the data. With Σ_{n>N} e^{−an²} ≤
    ∫_N^∞ e^{−as²} ds ≤ e^{−aN²}/(2aN), a = kπ²t, the remainder is at most (2/πN) e^{−E} N/(2E) = e^{−E}/(πE).
    """
    smallest = t.detach().min().item()
    if not (smallest > 0 and diffusivity > 0):
        raise InvalidArgumentError(
            f"A heat series needs times t > 0 and a diffusivity k > 0, got t = {smallest:g}, k = {diffusivity:g}; at "
            "t = 0 take the initial field itself."
        )
    terms = ceil(sqrt(_EXPONENT / (diffusivity * smallest)) / pi)
    if terms > _MOST_TERMS:
        raise InvalidArgumentError(
            f"At t = {smallest:g} the heat series needs {terms} terms, more than {_MOST_TERMS}; choose later times "
            "or the initial field."
        )
    return terms


def _decaying_series(
    t: Tensor, x: Tensor, function: Callable[[Tensor], Tensor], diffusivity: float, coefficients: list[Tensor]
) -> Tensor:
    """Σ_{n≥1} coefficientₙ · function(nπx) · e^{−kn²π²t}."""
    total = torch.zeros(_shape(t, x, *coefficients[:1]), dtype=torch.float64)
    for n, coefficient in enumerate(coefficients, start=1):
        total.addcmul_(coefficient * torch.exp(-diffusivity * (n * pi) ** 2 * t), function(n * pi * x))
    return total


def _coefficient(initial: Tensor, n: int) -> Tensor:
    """The n-th entry along the last axis, from 1; zero beyond it."""
    return initial[..., n - 1] if n <= initial.shape[-1] else torch.zeros_like(initial[..., 0])


def _lasting(t: Tensor, x: Tensor, side: Harmonics, diffusivity: float, gradients: bool) -> Tensor:
    """Σ_j Re(c_j r_j(t, x)): the response to data at x = 0, values or gradients, after its series has decayed.

    r is sinh(q(1 − x))/sinh q or −cosh(q(1 − x))/(q sinh q) times e^{iωt}, Re q > 0, here without overflow; gradients
    leave a permanent 1/q² from the start of the oscillation.
    """
    total: Tensor = torch.zeros((), dtype=torch.float64)
    kt = diffusivity * t
    for j, (frequency, squared) in enumerate(zip(side.frequencies, _squared_rate(side, diffusivity), strict=True)):
        if frequency == 0:
            answer = x - 0.5 * x * x - kt - 1 / 3 if gradients else 1 - x + 0 * kt
        else:
            q = torch.sqrt(squared)
            reflected, divisor = torch.exp(-2 * q * (1 - x)), 1 - torch.exp(-2 * q)
            near = torch.exp(-q * x)
            swing = -near * (1 + reflected) / (q * divisor) if gradients else near * (1 - reflected) / divisor
            answer = torch.exp(1j * frequency * t) * swing + float(gradients) / squared
        total = total + (side.amplitudes[..., j] * answer).real
    return total


def _squared_rate(side: Harmonics, diffusivity: float) -> Tensor:
    """q² = iω/k of every harmonic ``(j,)``."""
    return 1j * side.frequencies / diffusivity


def _real_sum(amplitudes: Tensor, factors: Tensor) -> Tensor:
    """Σ_j Re(c_j f_j) along the last axis."""
    return (amplitudes * factors).real.sum(dim=-1)


def _shape(*tensors: Tensor) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*(tensor.shape for tensor in tensors)))
