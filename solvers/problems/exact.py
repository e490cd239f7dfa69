"""Closed-form solutions of the five conservation problems, with totals, boundary fluxes and fronts.

Times ``t``, positions ``x`` and parameters are numbers or tensors that broadcast; results are float64 tensors of the
broadcast shape. All quantities are dimensionless. Every problem has the solution u(t, x), the antiderivative
∫ u dx (zero or constant ahead of the front; differences of it give exact cell averages), the total over the
problem's domain, the fluxes through its two ends (positive along +x), and the position of its front or shock.
A parameter out of its range (m > 0, 0 < u* < 1, a ≥ 0) raises ``InvalidArgumentError``.
Source: Hansen et al. 2023, sec. 4 and appendix B; Stefan: Maddix, Sampaio & Gerritsen 2018.
"""

from math import pi, sqrt

import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError

Value = float | Tensor


def float64(*values: Value) -> tuple[Tensor, ...]:
    """Numbers or tensors as float64 tensors."""
    return tuple(torch.as_tensor(value, dtype=torch.float64) for value in values)


def require(holds: Tensor, name: str, expected: str, got: Tensor) -> None:
    """Raises an error unless a condition holds everywhere: ``name`` must be ``expected``, both in words."""
    if not bool(holds.all()):
        raise InvalidArgumentError(f"{name} must be {expected}, got {got.detach()[~holds][0].item():g}.")


def diffusion(t: Value, x: Value, diffusivity: Value) -> Tensor:
    """Field u = e^{−kt} sin x of u_t = k u_xx, periodic on [0, 2π]."""
    t, x, k = float64(t, x, diffusivity)
    return torch.exp(-k * t) * torch.sin(x)


def diffusion_antiderivative(t: Value, x: Value, diffusivity: Value) -> Tensor:
    """Antiderivative −e^{−kt} cos x of the field."""
    t, x, k = float64(t, x, diffusivity)
    return -torch.exp(-k * t) * torch.cos(x)


def diffusion_total(t: Value, diffusivity: Value) -> Tensor:
    """Total over [0, 2π]: zero at all times."""
    t, k = float64(t, diffusivity)
    return torch.zeros_like(t * k)


def diffusion_boundary_flux(t: Value, diffusivity: Value) -> tuple[Tensor, Tensor]:
    """Flux −k e^{−kt} through both ends, equal by periodicity."""
    t, k = float64(t, diffusivity)
    flux = -k * torch.exp(-k * t)
    return flux, flux.clone()


def porous_medium(t: Value, x: Value, exponent: Value) -> Tensor:
    """Field u = (m·max(t − x, 0))^{1/m} of u_t = (uᵐ u_x)_x, a wave travelling at unit speed."""
    t, x, m = float64(t, x, _exponent(exponent))
    return (m * (t - x).clamp(min=0.0)) ** (1.0 / m)


def porous_medium_antiderivative(t: Value, x: Value, exponent: Value) -> Tensor:
    """Antiderivative −m^{1+1/m}/(m+1) · max(t − x, 0)^{1+1/m}, zero beyond the front."""
    t, x, m = float64(t, x, _exponent(exponent))
    return -_porous_medium_volume((t - x).clamp(min=0.0), m)


def porous_medium_total(t: Value, exponent: Value) -> Tensor:
    """Total m^{1+1/m}/(m+1) · t^{1+1/m} over [0, 1], for t ≤ 1 (the front is then inside)."""
    t, m = float64(t, _exponent(exponent))
    return _porous_medium_volume(t, m)


def porous_medium_inflow(t: Value, exponent: Value) -> Tensor:
    """Boundary value u(t, 0) = (mt)^{1/m}."""
    t, m = float64(t, _exponent(exponent))
    return (m * t) ** (1.0 / m)


def porous_medium_boundary_flux(t: Value, exponent: Value) -> tuple[Tensor, Tensor]:
    """Fluxes F(0) = (mt)^{1/m} (the wave has unit speed, so F = u) and F(1) = 0, for t ≤ 1."""
    inflow = porous_medium_inflow(t, exponent)
    return inflow, torch.zeros_like(inflow)


def porous_medium_front(t: Value, exponent: Value) -> Tensor:
    """Front x = t, the first point where u = 0."""
    t, m = float64(t, _exponent(exponent))
    return t + torch.zeros_like(m)


def stefan_similarity(threshold: Value) -> Tensor:
    """Root z > 0 of u* z e^{z²} erf z = (1 − u*)/√π, which sets the front x = 2z√t.

    Newton's method in s = log z on the logarithm of the equation, safeguarded by bisection; relative accuracy about
    1e-14.
    """
    (u,) = float64(threshold)
    require((u > 0) & (u < 1), "threshold of the Stefan problem", "strictly between 0 and 1", u)
    right = torch.log((1 - u) / u) - 0.5 * torch.log(torch.tensor(pi, dtype=torch.float64))
    low, high = torch.full_like(u, -40.0), torch.full_like(u, 4.0)
    s = torch.zeros_like(u)
    for _ in range(100):
        z = torch.exp(s)
        erf = torch.erf(z)
        residual = s + z * z + torch.log(erf) - right
        slope = 1 + 2 * z * z + 2 / sqrt(pi) * z * torch.exp(-z * z) / erf
        low, high = torch.where(residual < 0, s, low), torch.where(residual < 0, high, s)
        newton = s - residual / slope
        step = torch.where((newton > low) & (newton < high), newton, 0.5 * (low + high)) - s
        s = s + step
        if bool((step.abs() <= 4e-16 * (1 + s.abs())).all()):
            break
    return torch.exp(s)


def stefan_front(t: Value, threshold: Value) -> Tensor:
    """Front x*(t) = 2z√t, where the field jumps from u* to 0."""
    t, u = float64(t, threshold)
    return 2 * stefan_similarity(u) * torch.sqrt(t)


def stefan(t: Value, x: Value, threshold: Value) -> Tensor:
    """Field u = 1 − c₁ erf(x/2√t) for x ≤ x*(t) and 0 beyond, of u_t = (k(u) u_x)_x with k = 1 where u ≥ u*.

    c₁ = (1 − u*)/erf z. At t = 0 the field is 0 for x > 0 and 1 at x = 0, the boundary value.
    """
    t, x, u = float64(t, x, threshold)
    z = stefan_similarity(u)
    y = _similarity_variable(t, x)
    return torch.where(y <= z, 1 - (1 - u) * torch.erf(y) / torch.erf(z), 0.0)


def stefan_antiderivative(t: Value, x: Value, threshold: Value) -> Tensor:
    """Antiderivative of the field, constant beyond the front.

    With y = min(x/2√t, z): 2√t (y − c₁ (y erf y + e^{−y²}/√π)).
    """
    t, x, u = float64(t, x, threshold)
    z = stefan_similarity(u)
    y = torch.minimum(_similarity_variable(t, x), z)
    c1 = (1 - u) / torch.erf(z)
    return 2 * torch.sqrt(t) * (y - c1 * (y * torch.erf(y) + torch.exp(-y * y) / sqrt(pi)))


def stefan_total(t: Value, threshold: Value) -> Tensor:
    """Total 2 c₁ √(t/π) over [0, 1], while the front is inside."""
    t, u = float64(t, threshold)
    return 2 * (1 - u) / torch.erf(stefan_similarity(u)) * torch.sqrt(t / pi)


def stefan_boundary_flux(t: Value, threshold: Value) -> tuple[Tensor, Tensor]:
    """Fluxes F(0) = c₁/√(πt), infinite but integrable at t = 0, and F(1) = 0, while the front is inside."""
    t, u = float64(t, threshold)
    flux = (1 - u) / torch.erf(stefan_similarity(u)) / torch.sqrt(pi * t)
    return flux, torch.zeros_like(flux)


def advection_front(t: Value, speed: Value) -> Tensor:
    """Front ½ + at; it leaves the domain at t = 1/(2a)."""
    t, a = float64(t, speed)
    require(a >= 0, "speed a of the advected step", "0 or more", a)
    return 0.5 + a * t


def advection(t: Value, x: Value, speed: Value) -> Tensor:
    """Field u = 1 for x ≤ ½ + at, else 0, of u_t + a u_x = 0 with inflow 1."""
    t, x, a = float64(t, x, speed)
    return (x <= advection_front(t, a)).to(torch.float64)


def advection_antiderivative(t: Value, x: Value, speed: Value) -> Tensor:
    """Antiderivative min(x − ½ − at, 0), zero beyond the front."""
    t, x, a = float64(t, x, speed)
    return (x - advection_front(t, a)).clamp(max=0.0)


def advection_total(t: Value, speed: Value) -> Tensor:
    """Total min(½ + at, 1) over [0, 1]."""
    return advection_front(t, speed).clamp(max=1.0)


def advection_boundary_flux(t: Value, speed: Value) -> tuple[Tensor, Tensor]:
    """Fluxes F(0) = a and F(1) = a once the front has left, 0 before."""
    t, a = float64(t, speed)
    left = a + torch.zeros_like(t)
    return left, torch.where(advection_front(t, a) < 1.0, 0.0, left)


def burgers_front(t: Value, slope: Value) -> Tensor:
    """Position (at − 1)/2 where the field passes a/2: the middle of the ramp before breaking, the shock after it."""
    t, a = float64(t, _slope(slope))
    return 0.5 * (a * t - 1)


def burgers(t: Value, x: Value, slope: Value) -> Tensor:
    """Field of u_t + (u²/2)_x = 0 on [−1, 1] from a ramp of height and slope a, which breaks at t = 1/a.

    With w = at − 1: before breaking a for x ≤ w, ax/w for w < x < 0, else 0; after it a for x ≤ w/2, else 0.
    """
    t, x, a = float64(t, x, _slope(slope))
    width = a * t - 1
    ramp = a * (x / torch.where(width < 0, width, -1.0)).clamp(0.0, 1.0)
    return torch.where(width < 0, ramp, torch.where(x <= 0.5 * width, a, 0.0))


def burgers_antiderivative(t: Value, x: Value, slope: Value) -> Tensor:
    """Antiderivative, zero beyond the front: a(x − w/2) on the plateau, ax²/2w on the ramp, w = at − 1."""
    t, x, a = float64(t, x, _slope(slope))
    width = a * t - 1
    ramp = 0.5 * a * x.clamp(max=0.0) ** 2 / torch.where(width < 0, width, -1.0)
    plateau = a * (x - 0.5 * width)
    before = torch.where(x <= width, plateau, ramp)
    return torch.where(width < 0, before, plateau.clamp(max=0.0))


def burgers_total(t: Value, slope: Value) -> Tensor:
    """Total min((a/2)(1 + at), 2a) over [−1, 1]; the shock leaves at t = 3/a."""
    t, a = float64(t, _slope(slope))
    return torch.minimum(0.5 * a * (1 + a * t), 2 * a)


def burgers_boundary_flux(t: Value, slope: Value) -> tuple[Tensor, Tensor]:
    """Fluxes F(−1) = a²/2 and F(1) = a²/2 once the shock has left, 0 before."""
    t, a = float64(t, _slope(slope))
    left = 0.5 * a * a + torch.zeros_like(t)
    return left, torch.where(a * t < 3.0, 0.0, left)


def barenblatt(t: Value, points: Tensor, exponent: Value, constant: Value) -> Tensor:
    """Barenblatt's solution u = t^{−α} (C − κ|x|² t^{−2β})₊^{1/m} of u_t = ∇·(uᵐ ∇u) in d dimensions.

    β = 1/(dm + 2), α = dβ, κ = βm/2; compact support, constant mass. Source: Vázquez, The Porous Medium Equation,
    2007, sec. 4.4, with the factors of this form of the equation.

    Args:
        t: Times t > 0, broadcasting with the points.
        points: Points ``(*shape, d)`` with d = 1, 2 or 3; positions on a line are ``x[:, None]``.
        exponent: m > 0.
        constant: C > 0.

    Returns:
        Field ``(*shape)``, float64.

    Raises:
        InvalidArgumentError: If t, m or C is not positive, or points do not have one to three coordinates.
    """
    t, points, m, c = float64(t, points, exponent, constant)
    if not (points.ndim and 1 <= points.shape[-1] <= 3):
        raise InvalidArgumentError(
            f"points must be (*shape, d) with d = 1, 2 or 3 coordinates last, got {tuple(points.shape)}; for positions "
            "x on a line give x[..., None]."
        )
    require(t > 0, "t of Barenblatt's solution", "above 0", t)
    require(m > 0, "exponent m of Barenblatt's solution", "above 0", m)
    require(c > 0, "constant C of Barenblatt's solution", "above 0", c)
    beta = 1 / (points.shape[-1] * m + 2)
    profile = c - 0.5 * beta * m * points.square().sum(dim=-1) * t ** (-2 * beta)
    return t ** (-points.shape[-1] * beta) * profile.clamp(min=0.0) ** (1 / m)


def _exponent(exponent: Value) -> Tensor:
    """The exponent of a porous medium, checked."""
    (m,) = float64(exponent)
    require(m > 0, "exponent m of the porous medium", "above 0", m)
    return m


def _slope(slope: Value) -> Tensor:
    """The slope of Burgers' ramp, checked: the totals and fluxes are those of inflow on the left."""
    (a,) = float64(slope)
    require(a >= 0, "slope a of Burgers' ramp", "0 or more", a)
    return a


def _porous_medium_volume(depth: Tensor, m: Tensor) -> Tensor:
    """∫₀^depth (ms)^{1/m} ds."""
    return m ** (1 + 1 / m) / (m + 1) * depth ** (1 + 1 / m)


def _similarity_variable(t: Tensor, x: Tensor) -> Tensor:
    """x/2√t, continued to t = 0: infinite for x > 0 and 0 at x = 0."""
    return torch.where(x == 0, 0.0, x / (2 * torch.sqrt(t)))
