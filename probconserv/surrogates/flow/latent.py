"""Coordinates in which a flow works: Karhunen–Loève coefficients of the training set, or those of the user.

A latent turns fields into coordinates z and back, draws the noise z₀ at which the flow starts, and says how uncertain
the clean field still is at time t: Σ_t = B_t B_tᵀ + D_t, its covariance given z_t = (1 − t) z₀ + t z₁ for Gaussian
data. A flow corrects its clean field in this metric.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import prod
from typing import Self

import torch
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator, LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import Generator, Tensor, nn

from probconserv._linalg.values import as_tensor
from probconserv.errors import InvalidArgumentError

_EXACT = 1500  # fields or points up to which all singular vectors are computed
_FLOOR = 1e-9  # smallest noise variance relative to the mean variance of the fields
_REST = 64  # modes beside those of the flow
_RESOLVED = 50.0  # standard deviation of a mode, in machine epsilons of the leading one, below which it is round-off


class Latent(nn.Module, ABC):
    """Fields with axes of the lengths ``shape``, in row-major order, as coordinates z ``(count, *state_shape)``."""

    def __init__(self, shape: tuple[int, ...], state_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape, self.state_shape = tuple(shape), tuple(state_shape)

    def extra_repr(self) -> str:
        """Shapes of a field and of its coordinates, in the line that a module prints."""
        return f"shape={self.shape}, state_shape={self.state_shape}"

    @property
    def points(self) -> int:
        """Number n of values of a field."""
        return prod(self.shape)

    def flat(self, fields: Float[Tensor, "s ..."]) -> Float[Tensor, "s n"]:
        """Fields ``(s, *shape)`` or ``(s, n)`` as ``(s, n)``, float64."""
        fields = as_tensor(fields)
        if fields.shape[1:] not in (self.shape, (self.points,)):
            raise InvalidArgumentError(
                f"fields must be (s, *{self.shape}) or (s, {self.points}), got {tuple(fields.shape)}."
            )
        return fields.flatten(1)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves what is in float64 to another device and leaves it in float64, as coordinates and fields are."""

        def applied(tensor: Tensor) -> Tensor:
            result = fn(tensor)
            return tensor.to(result.device) if tensor.dtype == torch.float64 else result

        return super()._apply(applied, recurse)

    @abstractmethod
    def encode(self, fields: Float[Tensor, "s ..."]) -> Float[Tensor, "s ..."]:
        """Coordinates of fields ``(s, *shape)`` or ``(s, n)``."""

    @abstractmethod
    def decode(self, z: Float[Tensor, "s ..."]) -> Float[Tensor, "s n"]:
        """Fields with these coordinates, float64."""

    @abstractmethod
    def clean_covariance(self, t: float) -> LinearOperator:
        """Σ_t ``(n, n)`` at a time t of the flow, low rank plus diagonal; at t = 0 the covariance of the fields."""

    def spread_at(self, t: float) -> tuple[Tensor | float, Tensor | float]:
        """Standard deviations σ of z_t for Gaussian data, and σ̇/σ; those of data like the noise by default."""
        variance = (1 - t) ** 2 + t**2
        return variance**0.5, (2 * t - 1) / variance

    def noise(self, count: int, generator: Generator | None = None) -> Float[Tensor, "count ..."]:
        """Starting points z₀ of the flow, standard normal, float64."""
        return torch.randn(count, *self.state_shape, dtype=torch.float64, generator=generator)


class KarhunenLoeve(Latent):
    """Coefficients of the leading modes of a training set: u = m + Σ_j z_j b_j, z_j with standard deviation s_j.

    The noise of the flow has variance 1 in all of them. Whitened coefficients have s = 1: noise and data are alike, and
    a flow has little to do. With s_j < 1 in weak modes the noise is as large in all modes, as that of a model on
    fields; samplers that project in the identity metric need this, since they move weak modes by as much as strong
    ones.

    Linear, so that a linear law stays linear. What the modes leave out has the covariance RᵀR + D: further modes R, and
    noise of variance D at every point. A correction may use it, draws do not contain it. It is smooth: many rows of a
    law that took it for independent noise would average it away and be far too sure of the coefficients.

    Args:
        mean: m ``(n,)``.
        basis: b, the modes times the standard deviation of the noise in them ``(r, n)``, orthogonal.
        noise_variance: D ``(n,)``.
        shape: Lengths of the axes of a field.
        rest: Further modes R ``(q, n)`` times standard deviations; none by default.
        spread: s ``(r,)``; 1 by default.
    """

    mean: Tensor
    basis: Tensor
    noise_variance: Tensor
    rest: Tensor
    spread: Tensor

    def __init__(
        self,
        mean: Tensor,
        basis: Tensor,
        noise_variance: Tensor,
        shape: tuple[int, ...],
        rest: Float[Tensor, "q n"] | None = None,
        spread: Float[Tensor, " r"] | None = None,
    ) -> None:
        super().__init__(shape, (len(basis),))
        rest = mean.new_zeros(0, self.points) if rest is None else rest
        spread = mean.new_ones(len(basis)) if spread is None else spread
        if mean.shape != (self.points,) or basis.shape[1:] != mean.shape or noise_variance.shape != mean.shape:
            raise InvalidArgumentError(
                f"mean and noise_variance must be (n,) and basis (r, n) with the n = {self.points} values of a field "
                f"{self.shape}, got {tuple(mean.shape)}, {tuple(noise_variance.shape)} and {tuple(basis.shape)}."
            )
        if rest.shape[1:] != mean.shape:
            raise InvalidArgumentError(f"rest must be (q, n) with n = {self.points}, got {tuple(rest.shape)}.")
        if spread.shape != (len(basis),) or not bool((spread > 0).all()):
            raise InvalidArgumentError(f"spread must be ({len(basis)},) and positive, got {tuple(spread.shape)}.")
        if not bool((noise_variance > 0).all()):
            raise InvalidArgumentError(
                f"noise_variance must be positive, got {float(noise_variance.min()):g}; a small one will do."
            )
        buffers = {"mean": mean, "basis": basis, "noise_variance": noise_variance, "rest": rest, "spread": spread}
        for name, values in buffers.items():
            self.register_buffer(name, values.to(torch.float64).contiguous())  # sums keep their order in a file

    @classmethod
    def of(cls, fields: Float[Tensor, "count ..."], size: int, *, seed: int = 0, whitened: bool = True) -> Self:
        """The modes of a training set.

        Args:
            fields: Training fields, at least two more than modes.
            size: Number r of modes; up to 64 further ones, as the fields allow, describe what these leave out.
            seed: Of the random projections that find the modes of more than 1,500 fields at as many points.
            whitened: Whether s = 1; otherwise the noise has the variance of the leading mode in all modes.

        Raises:
            InvalidArgumentError: If there are too few fields, or modes beyond the first ones are round-off of their
                precision.
        """
        fields = as_tensor(fields, dtype=None)
        flat = _flat(fields)
        if not 1 <= size <= min(len(flat) - 2, flat.shape[-1]):
            raise InvalidArgumentError(
                f"size must lie between 1 and {min(len(flat) - 2, flat.shape[-1])}, for {len(flat)} fields at "
                f"{flat.shape[-1]} points, got {size}."
            )
        mean = flat.mean(dim=0)
        most = min(size + _REST, len(flat) - 2, flat.shape[-1])
        modes = _modes((flat - mean) / (len(flat) - 1) ** 0.5, most, seed)
        deviation = torch.linalg.vector_norm(modes, dim=-1)
        resolved = deviation > _RESOLVED * _epsilon(fields) * deviation[0]
        if not bool(resolved[:size].all()):
            raise InvalidArgumentError(
                f"The fields have fewer than {size} modes above round-off: {int(resolved.sum())} in {fields.dtype}. "
                "Ask for a smaller size, or give fields of higher precision."
            )
        basis, rest = modes[:size], modes[size:][resolved[size:]]
        variance = flat.var(dim=0)
        floor = _FLOOR * float(variance.mean())
        left = (variance - basis.square().sum(dim=0) - rest.square().sum(dim=0)).clamp_min(floor)
        spread = torch.ones(size) if whitened else deviation[:size] / deviation[0]
        return cls(mean, basis / spread[:, None].to(basis), left, tuple(fields.shape[1:]), rest, spread)

    @property
    def root(self) -> Float[Tensor, "r n"]:
        """The modes times the standard deviations of the data in them."""
        return self.spread[:, None] * self.basis

    def clean_variances(self, t: float) -> Float[Tensor, " r"]:
        """v_t = s² (1 − t)²/((1 − t)² + t² s²), the variances of z₁ given z_t for Gaussian data."""
        data, noise = self.spread.square(), (1 - t) ** 2
        return data * noise / (noise + t**2 * data)

    def spread_at(self, t: float) -> tuple[Tensor, Tensor]:
        """See ``Latent``; σ² = (1 − t)² + t² s²."""
        data = self.spread.square()
        variance = (1 - t) ** 2 + t**2 * data
        return variance.sqrt(), (t * data - (1 - t)) / variance

    def encode(self, fields: Float[Tensor, "s ..."]) -> Float[Tensor, "s r"]:
        size = self.basis.square().sum(dim=-1)
        return (self.flat(fields) - self.mean) @ (self.basis / size[:, None]).mT

    def decode(self, z: Float[Tensor, "s r"]) -> Float[Tensor, "s n"]:
        return self.mean + z.to(torch.float64) @ self.basis

    def clean_covariance(self, t: float) -> LinearOperator:
        """See ``Latent``; B_t = √v_t B, and RᵀR + D at all times."""
        root = torch.cat([self.clean_variances(t).sqrt()[:, None] * self.basis, self.rest])
        return PsdSumLinearOperator(RootLinearOperator(root.mT), DiagLinearOperator(self.noise_variance))


def mean_of(latent: Latent) -> Float[Tensor, " n"]:
    """The field whose coordinates are all 0, float64."""
    return latent.decode(torch.zeros(1, *latent.state_shape, dtype=torch.float64))[0]


def _flat(fields: Tensor) -> Tensor:
    if fields.ndim < 2 or len(fields) < 3:
        raise InvalidArgumentError(
            f"fields must be (count, *space) with at least three fields, got {tuple(fields.shape)}."
        )
    flat = fields.detach().to(torch.float64).flatten(1)
    wrong = ~torch.isfinite(flat)
    if bool(wrong.any()):
        raise InvalidArgumentError(
            f"fields must be finite, got {int(wrong.sum())} NaN or infinite values in {int(wrong.any(dim=-1).sum())} "
            f"of {len(flat)} fields; drop or repair these."
        )
    return flat


def _epsilon(fields: Tensor) -> float:
    """Machine epsilon of the precision that the fields are given in."""
    return torch.finfo(fields.dtype if fields.is_floating_point() else torch.float64).eps


def _modes(centred: Tensor, size: int, seed: int) -> Tensor:
    """Leading right singular vectors times singular values ``(size, n)``."""
    if min(centred.shape) <= _EXACT:
        _, values, vectors = torch.linalg.svd(centred, full_matrices=False)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            _, values, modes = torch.svd_lowrank(centred, q=min(2 * size + 10, *centred.shape), niter=4)
            vectors = modes.mT
    return values[:size, None] * vectors[:size]
