"""Periodic viscous Burgers on [0, 1): Gaussian random initial fields and a Fourier solver resolved to 1e-6.

Fields are stored as Fourier coefficients c_0 … c_K of u(x) = Σ_{|k| ≤ K} c_k e^{2πikx} with c_{−k} the conjugate of
c_k, so they can be evaluated at any points, and one draw is the same function on every grid. All quantities are
dimensionless.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite, pi
from numbers import Integral

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from solvers._arguments import check_positive_number, output_times
from solvers.errors import InvalidArgumentError, SolverDivergedError

_CONTOUR_POINTS = 64
_GROWTH = 1.05  # of max |u|, which never grows but is known at some points only
_SHORT = 1e-3  # part of the energy that may come into the last third of the spectrum: errors of a few per cent
_ROUND_OFF = 1e-20  # of an energy
_SAMPLES_TOGETHER = 64  # 64 × 512 complex numbers fit the processor's cache


@dataclass(frozen=True, kw_only=True)
class SpectralResolution:
    """Resolution of the Fourier solver.

    Args:
        points: Collocation points M; the 2/3 rule keeps the modes |k| < M/3.
        step: Largest time step.

    Raises:
        InvalidArgumentError: If there are fewer than 8 points, an odd number, or the step is not positive.
    """

    points: int = 512
    step: float = 1e-3

    def __post_init__(self) -> None:
        even = isinstance(self.points, Integral) and self.points >= 8 and self.points % 2 == 0
        if not (even and isfinite(self.step) and self.step > 0):
            raise InvalidArgumentError(
                f"SpectralResolution needs an even number of at least 8 points and a step > 0, got {self.points} "
                f"points and step {self.step}."
            )

    @property
    def modes(self) -> int:
        """Largest wave number K that is kept."""
        return (self.points - 1) // 3


def random_field(noise: Float[Tensor, "*batch 2 modes"]) -> Complex[Tensor, "*batch modes"]:
    """Fourier coefficients of draws of the Gaussian random field N(0, 625(−Δ + 25 I)⁻²) on the unit circle.

    With ξ = noise[0] and η = noise[1], u = √λ₀ ξ₀ + Σ √λ_k √2 (ξ_k cos 2πkx + η_k sin 2πkx), √λ_k = 25/(4π²k² + 25).
    Source: Saad et al. 2023 and Li et al. 2021, appendix A.3.1; the constant mode is included.

    Args:
        noise: Independent standard normal numbers; η₀ is not used.

    Returns:
        c_0 … c_K, complex128.
    """
    noise = noise.to(torch.float64)
    k = torch.arange(noise.shape[-1], dtype=torch.float64)
    amplitude = 25 / (4 * pi**2 * k**2 + 25)
    coefficients = amplitude * torch.complex(noise[..., 0, :], -noise[..., 1, :]) / 2**0.5
    coefficients[..., 0] = (amplitude * noise[..., 0, :])[..., 0]
    return coefficients


def evaluate(coefficients: Complex[Tensor, "*batch modes"], points: Float[Tensor, " n"]) -> Float[Tensor, "*batch n"]:
    """The field with Fourier coefficients c_0 … c_K at given points, float64."""
    k = torch.arange(coefficients.shape[-1], dtype=torch.float64)
    phase = 2 * pi * k[:, None] * points.to(torch.float64)
    weight = torch.where(k > 0, 2.0, 1.0)[:, None]
    return coefficients.real @ (weight * torch.cos(phase)) - coefficients.imag @ (weight * torch.sin(phase))


def solve_periodic_burgers(
    initial: Complex[Tensor, "*batch modes"],
    times: Sequence[float] | np.ndarray | Tensor,
    viscosity: float,
    resolution: SpectralResolution | None = None,
) -> Complex[Tensor, "*batch t kept"]:
    """Solves u_t + (u²/2)_x = ν u_xx on [0, 1), periodic.

    Fourier–Galerkin in space, with the square de-aliased on M points (2/3 rule); in time the
    exponential Runge–Kutta method ETDRK4 of Cox & Matthews 2002 with the contour integrals of Kassam & Trefethen
    2005, fourth order, the viscous term exact. The default is resolved to 1e-6 for ν ≥ 0.1 and fields of order one.
    A field that grows, or has much energy in its shortest waves at an output time, is an error; solve again with half
    the step and twice the points to learn the accuracy of others.

    Args:
        initial: c_0 … c_K at t = 0; modes that the resolution cannot represent raise an error.
        times: Increasing output times, none before 0.
        viscosity: ν > 0, one number.
        resolution: Points and time step.

    Returns:
        Fourier coefficients at the output times, complex128.

    Raises:
        InvalidArgumentError: If times do not increase from 0, ν is not one positive number, or the initial field is no
            finite tensor of complex numbers or has too many modes.
        SolverDivergedError: If the solution is not resolved or grows; a smaller step or more points are needed.
    """
    resolution = resolution or SpectralResolution()
    outputs = output_times(times, 0.0).tolist()
    _check(initial, viscosity, resolution)
    flat = torch.zeros(initial[..., 0].numel(), resolution.modes + 1, dtype=torch.complex128)
    flat[:, : initial.shape[-1]] = initial.reshape(-1, initial.shape[-1])
    parts = [_integrate(part, outputs, viscosity, resolution) for part in flat.split(_SAMPLES_TOGETHER)]
    return torch.cat(parts).reshape(*initial.shape[:-1], len(outputs), resolution.modes + 1)


@dataclass(frozen=True)
class _Coefficients:
    """ETDRK4 for one step h and the linear rates L of every mode: e^{hL}, e^{hL/2}, Q and the three weights."""

    whole: Tensor
    half: Tensor
    stage: Tensor
    weights: tuple[Tensor, Tensor, Tensor]


def _etdrk4(rates: Tensor, step: float) -> _Coefficients:
    """Coefficients as means over a circle of radius 1 around hL, which avoids the cancellation near hL = 0."""
    angle = pi * (torch.arange(1, _CONTOUR_POINTS + 1, dtype=torch.float64) - 0.5) / _CONTOUR_POINTS
    z = (step * rates)[:, None] + torch.exp(1j * angle)
    e = torch.exp(z)
    stage = (torch.exp(0.5 * z) - 1) / z
    first = (-4 - z + e * (4 - 3 * z + z**2)) / z**3
    middle = (2 + z + e * (z - 2)) / z**3
    last = (-4 - 3 * z - z**2 + e * (4 - z)) / z**3
    mean = [step * value.mean(dim=-1).real for value in (stage, first, middle, last)]
    return _Coefficients(
        torch.exp(step * rates), torch.exp(0.5 * step * rates), mean[0], (mean[1], 2 * mean[2], mean[3])
    )


def _integrate(v: Tensor, times: list[float], viscosity: float, resolution: SpectralResolution) -> Tensor:
    """Coefficients ``(samples, t, modes)``: equal steps from one output time to the next."""
    wave_numbers = 2 * pi * torch.arange(resolution.modes + 1, dtype=torch.float64)
    prepared: dict[str, _Coefficients] = {}
    results, now, start = [], 0.0, v
    for time in times:
        steps = ceil((time - now) / resolution.step * (1 - 1e-12))
        for _ in range(steps):
            step = (time - now) / steps
            key = f"{step:.12e}"  # output times that are equally spaced up to rounding share their coefficients
            if key not in prepared:
                prepared[key] = _etdrk4(-viscosity * wave_numbers**2, step)
            v = _step(v, prepared[key], wave_numbers, resolution.points)
        now = time
        _check_resolved(v, start, time, resolution)
        results.append(v)
    return torch.stack(results, dim=-2)


def _check_resolved(v: Tensor, start: Tensor, time: float, resolution: SpectralResolution) -> None:
    """Raises an error for a solution that grows, or whose waves are too short for the points; NaN is both.

    max |u| of the start is taken at four times the points, which miss at most 3.4 %: the shortest wave has twelve.
    """

    def largest(modes: Tensor, points: int) -> Tensor:
        return torch.fft.irfft(modes, n=points, norm="forward").abs().amax(-1)

    def energy(modes: Tensor, first: int) -> Tensor:
        return modes[..., first:].abs().square().sum(-1)

    short = 2 * v.shape[-1] // 3
    small = largest(v, resolution.points) <= _GROWTH * largest(start, 4 * resolution.points)
    allowed = energy(start, short) + _SHORT * energy(v, 1) + _ROUND_OFF * energy(start, 0)
    if bool((small & (energy(v, short) <= allowed)).all()):
        return
    what = "has waves too short for its points" if bool(small.all()) else "has grown above its start"
    raise SolverDivergedError(
        f"Periodic Burgers {what} at time {time:g} with step {resolution.step:g} and {resolution.points} points; "
        "take a smaller step or more points."
    )


def _step(v: Tensor, coefficients: _Coefficients, wave_numbers: Tensor, points: int) -> Tensor:
    def nonlinear(modes: Tensor) -> Tensor:
        u = torch.fft.irfft(modes, n=points, norm="forward")
        return -0.5j * wave_numbers * torch.fft.rfft(u * u, norm="forward")[..., : modes.shape[-1]]

    half, stage = coefficients.half, coefficients.stage
    first, middle, last = coefficients.weights
    slope = nonlinear(v)
    a = half * v + stage * slope
    slope_a = nonlinear(a)
    slope_b = nonlinear(half * v + stage * slope_a)
    slope_c = nonlinear(half * a + stage * (2 * slope_b - slope))
    return coefficients.whole * v + first * slope + middle * (slope_a + slope_b) + last * slope_c


def _check(initial: Tensor, viscosity: float, resolution: SpectralResolution) -> None:
    check_positive_number(viscosity, "viscosity of periodic Burgers")
    if not (isinstance(initial, Tensor) and initial.is_complex() and initial.ndim and initial.shape[-1]):
        got = f"{initial.dtype} {tuple(initial.shape)}" if isinstance(initial, Tensor) else type(initial).__name__
        raise InvalidArgumentError(
            f"initial must be a complex tensor of coefficients c_0 … c_K, got {got}; for values at equal points take "
            'torch.fft.rfft(values, norm="forward").'
        )
    if not bool(torch.isfinite(initial).all()):
        raise InvalidArgumentError("initial must be finite; remove NaN and infinite entries.")
    if initial.shape[-1] > resolution.modes + 1:
        raise InvalidArgumentError(
            f"initial has wave numbers up to {initial.shape[-1] - 1}, but {resolution.points} points keep those up to "
            f"{resolution.modes}; take more points."
        )
