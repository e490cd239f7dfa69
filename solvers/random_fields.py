"""Gaussian random fields with a given spectrum on a box, and coefficients made of them.

A field is drawn as the coefficients of the eigenfunctions of −Δ, not as values on a grid: one draw is one function,
the same on every grid. The eigenfunctions are products of sines and cosines, so values on a grid are one small matrix
product per axis, which is the cosine, sine or Fourier transform of the coefficients at any positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from math import isfinite, pi
from typing import Any

import torch
from torch import Tensor

from solvers.conditions import AxisConditions, Condition, Dirichlet, Neumann, Periodic, per_axis
from solvers.errors import InvalidArgumentError
from solvers.grids import Grid, NodeGrid

_SIDES = "Dirichlet(0.0), Neumann(gradient=0.0) or Periodic()"


@dataclass(frozen=True, kw_only=True)
class Matern:
    """The spectrum λ(μ) = σ² (μ + τ²)^−α of the covariance σ² (−Δ + τ²)^−α, for eigenvalues μ of −Δ.

    In d dimensions a field on a large domain has Matérn covariance of smoothness ν = α − d/2 and length √(2ν)/τ.

    Args:
        amplitude: σ > 0, in the units of the field times length^(d/2 − α).
        inverse_length: τ ≥ 0, 1/length. With τ = 0 constants have infinite variance, so a side must be Dirichlet.
        smoothness: α > d/2, or the variance grows without bound as modes are added.

    Raises:
        InvalidArgumentError: If a number is out of its range.
    """

    amplitude: float
    inverse_length: float
    smoothness: float

    def __post_init__(self) -> None:
        numbers = (self.amplitude, self.inverse_length, self.smoothness)
        if not all(isfinite(x) for x in numbers) or self.amplitude <= 0 or self.inverse_length < 0 or numbers[2] <= 0:
            raise InvalidArgumentError(
                "Matern needs a finite amplitude > 0, inverse_length ≥ 0 and smoothness > 0, got "
                f"{self.amplitude}, {self.inverse_length} and {self.smoothness}."
            )

    def __call__(self, eigenvalues: Tensor) -> Tensor:
        """λ at eigenvalues of −Δ."""
        return self.amplitude**2 * (eigenvalues + self.inverse_length**2) ** -self.smoothness


@dataclass(frozen=True, kw_only=True)
class GaussianField:
    """The Gaussian random field u = Σ_k √λ_k ξ_k φ_k with independent standard normal ξ_k and mean 0.

    φ_k are the eigenfunctions of −Δ on the box under homogeneous conditions, orthonormal in L², with eigenvalues μ_k,
    and λ_k = spectrum(μ_k). Source: the Karhunen–Loève expansion.

    Args:
        low: Lower end of every axis.
        high: Upper end of every axis.
        spectrum: Function of the eigenvalues μ of −Δ (1/length²), such as ``Matern``.
        boundary: Conditions that every draw satisfies, in the form of ``solve``: ``Dirichlet(0.0)`` and
            ``Neumann(gradient=0.0)`` on any side, or ``Periodic()``.
        modes: Largest number of half waves along each axis; of whole waves on periodic axes.

    Raises:
        InvalidArgumentError: If the box is empty, there is no mode, a condition is of another kind or not
            homogeneous, or the spectrum is negative or not finite.
    """

    low: float | Sequence[float]
    high: float | Sequence[float]
    spectrum: Callable[[Tensor], Tensor]
    boundary: Sequence[Any]
    modes: int | Sequence[int]

    def __post_init__(self) -> None:
        box = self._box
        if isinstance(self.modes, Sequence) and len(self.modes) != box.dimension:
            raise InvalidArgumentError(f"modes needs one number per axis, {box.dimension}, got {self.modes!r}.")
        if any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in self._modes):
            raise InvalidArgumentError(f"modes must be integers of at least 1, got {self.modes!r}.")
        for side in (side for pair in self._conditions for side in pair):
            if not _is_homogeneous(side):
                raise InvalidArgumentError(f"boundary of a GaussianField must be {_SIDES}, got {side!r}.")
        spectrum = self.variances
        if not bool(torch.isfinite(spectrum).all()) or bool((spectrum < 0).any()):
            raise InvalidArgumentError(
                "spectrum must be finite and not negative at the eigenvalues of −Δ, got values from "
                f"{float(spectrum.min()):g} to {float(spectrum.max()):g}; with Matern take inverse_length > 0 unless a "
                "side is Dirichlet."
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of modes along every axis: the trailing shape of a draw's coefficients."""
        return tuple(len(waves) for waves in self._waves())

    @property
    def variances(self) -> Tensor:
        """λ_k ``(*shape)``, float64."""
        eigenvalues = torch.zeros((), dtype=torch.float64)
        for waves in self._waves():
            eigenvalues = eigenvalues[..., None] + waves**2
        return torch.as_tensor(self.spectrum(eigenvalues), dtype=torch.float64).expand(eigenvalues.shape)

    def draw(self, batch: int | Sequence[int] = (), *, generator: torch.Generator) -> Tensor:
        """Coefficients √λ_k ξ_k of independent draws; ``values`` evaluates them.

        Args:
            batch: Number of draws or shape of the batch.
            generator: Source of the random numbers.

        Returns:
            Coefficients ``(*batch, *shape)``, float64.
        """
        leading = (batch,) if isinstance(batch, int) else tuple(batch)
        noise = torch.randn((*leading, *self.shape), generator=generator, dtype=torch.float64)
        return self.variances.sqrt() * noise

    def values(self, coefficients: Tensor, grid: Grid) -> Tensor:
        """Point values of draws at the points of a grid, nodes or cell centres.

        Args:
            coefficients: ``(*batch, *shape)``.
            grid: A grid inside the box, of any size.

        Returns:
            Values ``(*batch, *space)``, float64.

        Raises:
            InvalidArgumentError: If the grid leaves the box or the coefficients have another shape.
        """
        d = self._box.dimension
        if tuple(coefficients.shape[-d:]) != self.shape or coefficients.ndim < d:
            raise InvalidArgumentError(
                f"coefficients must end in {self.shape}, got {tuple(coefficients.shape)}; draw them from this field."
            )
        return _along_axes(coefficients.to(torch.float64), self._bases(grid))

    def covariance(self, first: Grid, second: Grid) -> Tensor:
        """Cov(u(x), u(y)) = Σ_k λ_k φ_k(x) φ_k(y) for all points of two grids, ``(n, m)`` with points flattened."""
        left, right = (reduce(torch.kron, self._bases(grid)) for grid in (first, second))
        return (left * self.variances.reshape(-1)) @ right.mT

    def variance(self, grid: Grid) -> Tensor:
        """Var u(x) = Σ_k λ_k φ_k(x)² at the points of a grid ``(*space)``."""
        return _along_axes(self.variances, [basis**2 for basis in self._bases(grid)])

    @property
    def _box(self) -> NodeGrid:
        ends = self.low if isinstance(self.low, Sequence) else (self.low,)
        return NodeGrid(self.low, self.high, (2,) * len(ends))

    @property
    def _modes(self) -> tuple[int, ...]:
        return tuple(self.modes) if isinstance(self.modes, Sequence) else (self.modes,) * self._box.dimension

    @property
    def _conditions(self) -> tuple[AxisConditions, ...]:
        return per_axis(self.boundary, self._box.dimension)

    def _waves(self) -> list[Tensor]:
        """Square roots of the eigenvalues along every axis."""
        box = self._box
        lengths = (b - a for a, b in zip(box.low, box.high, strict=True))
        return [_wave_numbers(pair, n) / x for pair, n, x in zip(self._conditions, self._modes, lengths, strict=True)]

    def _bases(self, grid: Grid) -> list[Tensor]:
        """Eigenfunctions along every axis at the points of a grid, ``(points, modes)`` each."""
        box = self._box
        if grid.dimension != box.dimension or any(
            a < low or b > high for a, b, low, high in zip(grid.low, grid.high, box.low, box.high, strict=True)
        ):
            raise InvalidArgumentError(
                f"grid from {grid.low} to {grid.high} is not inside the box of the field, {box.low} to {box.high}."
            )
        bases = []
        for axis, waves in enumerate(self._waves()):
            length = box.high[axis] - box.low[axis]
            phase = (grid.axes[axis] - box.low[axis])[:, None] * waves
            scale = ((1.0 + (waves > 0).to(torch.float64)) / length).sqrt()
            bases.append(scale * _waveforms(self._conditions[axis], phase))
        return bases


def log_normal(values: Tensor, median: float = 1.0) -> Tensor:
    """The coefficient median · e^u.

    Args:
        values: u ``(*batch, *space)``, values of a Gaussian field.
        median: Median of the coefficient where u has mean 0, positive.

    Returns:
        Positive values, same shape.

    Raises:
        InvalidArgumentError: If the median is not positive or e^u overflows.
    """
    result = median * values.exp()
    if not median > 0 or not bool((torch.isfinite(result) & (result > 0)).all()):
        raise InvalidArgumentError(
            f"log_normal needs median > 0 and values whose exponential is finite and positive, got median {median} and "
            f"values up to ±{float(values.abs().max()):g}; take a smaller amplitude."
        )
    return result


def two_phase(values: Tensor, below: float, above: float, threshold: float = 0.0) -> Tensor:
    """The coefficient ``above`` where u > threshold and ``below`` elsewhere, ``(*batch, *space)``.

    Args:
        values: u, values of a Gaussian field.
        below: Value of the first phase.
        above: Value of the second phase.
        threshold: Level of u at the interface; at 0 both phases have equal probability.

    Returns:
        The coefficient in the dtype of u, or float64 if u are integers or Boolean.

    Raises:
        InvalidArgumentError: If a value is NaN.
    """
    if bool(values.isnan().any()):
        raise InvalidArgumentError("values must not be NaN, which is in neither phase; remove such fields.")
    phases = torch.tensor([below, above], dtype=values.dtype if values.is_floating_point() else torch.float64)
    return phases[(values > threshold).long()]


def _is_homogeneous(side: Condition) -> bool:
    """Whether a condition is periodic, or states that u or its gradient is 0."""
    if isinstance(side, Dirichlet):
        value = side.value
    elif isinstance(side, Neumann) and side.flux is None:
        value = side.gradient
    else:
        return isinstance(side, Periodic)
    return isinstance(value, int | float) and value == 0


def _wave_numbers(pair: AxisConditions, modes: int) -> Tensor:
    """Wave numbers on an axis of length 1; periodic: 0, then every one twice (cosine, sine)."""
    whole = torch.arange(modes + 1, dtype=torch.float64)
    if isinstance(pair[0], Periodic):
        return 2 * pi * torch.cat([whole[:1], whole[1:].repeat_interleave(2)])
    if isinstance(pair[0], Dirichlet) and isinstance(pair[1], Dirichlet):
        return pi * whole[1:]
    if isinstance(pair[0], Neumann) and isinstance(pair[1], Neumann):
        return pi * whole
    return pi * (whole[1:] - 0.5)


def _waveforms(pair: AxisConditions, phase: Tensor) -> Tensor:
    """Sines or cosines of phases ``(points, modes)``: what starts as the first side demands."""
    if isinstance(pair[0], Periodic):
        number = torch.arange(phase.shape[-1])
        return torch.where((number % 2 == 1) | (number == 0), phase.cos(), phase.sin())
    return phase.sin() if isinstance(pair[0], Dirichlet) else phase.cos()


def _along_axes(values: Tensor, matrices: list[Tensor]) -> Tensor:
    """Applies one matrix ``(points, modes)`` along each of the last axes; they rotate, so that the next is in place."""
    for matrix in matrices:
        values = values.movedim(values.ndim - len(matrices), -1) @ matrix.mT
    return values
