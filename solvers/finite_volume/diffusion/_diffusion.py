"""Diffusion ∇·(k(u, x, t) ∇u) on rows: its laws for compiled steps, rates, and bounds of its spectrum."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from solvers.finite_volume.diffusion.face_means import FaceMean, IntegralMean
from solvers.finite_volume.laws import _shipped_kernels as shipped
from solvers.finite_volume.laws._law_rows import columns_of, on_rows
from solvers.finite_volume.laws._rows import cached_rows
from solvers.finite_volume.laws._scalar_kernels import faces_kernel
from solvers.finite_volume.laws.coefficients import Values
from solvers.finite_volume.laws.laws import Diffusion, PorousMedium, Stefan
from solvers.finite_volume.laws.scalar import ScalarDiffusion
from solvers.finite_volume.march.kernels import Array
from solvers.finite_volume.march.tiles import CompiledLaw, side_factors
from solvers.grids import CellGrid

_KERNELS = {
    Diffusion: (shipped.LINEAR, None),
    PorousMedium: (shipped.POROUS, "exponent"),
    Stefan: (shipped.STEFAN, "threshold"),
}


@dataclass(frozen=True, eq=False)
class DiffusionTerm:
    """∇·(k ∇u) of a diffusive law on the rows of a batch, in conservation form.

    A side with a state is closed through Φ over the half cell: the flux is that between the state and the cell.

    Args:
        law: Law on the rows (``LawRows``).
        grid: The cells.
        sides: Modes, pulls and offsets of the sides (``SideData``).
        face_mean: Mean of the conductivity at faces.
    """

    law: Any
    grid: CellGrid
    sides: Any
    face_mean: FaceMean

    @property
    def linear(self) -> bool:
        """Whether the flux is linear in the states, by a compiled law."""
        return self.compiled_law is not None and type(self.law.law) is Diffusion

    def take(self, index: Array) -> "DiffusionTerm":
        """The term of some of the rows."""
        return replace(self, law=self.law.take(index), sides=self.sides.take(index))

    @cached_property
    def compiled_law(self) -> CompiledLaw | None:
        """The compiled law; None where it is one in tensors."""
        d, law = self.grid.dimension, self.law.law
        if not isinstance(self.face_mean, IntegralMean):
            return None
        if isinstance(law, ScalarDiffusion):
            parts = [self.law.at(0.0, axis).parameters for axis in range(d)]
            columns = tuple(columns_of(part, self.law.rows) for part in parts)
            names = parts[0].arguments.names
            return CompiledLaw(faces_kernel(*parts[0].calls), columns, names.index("t") if "t" in names else -1)
        if type(law) not in _KERNELS or self.law.varies_in_time:
            return None
        kernel, name = _KERNELS[type(law)]
        if name is None:
            return CompiledLaw(kernel, (np.zeros((1, 0, 1)),) * d)
        value = getattr(self.law.at(0.0).parameters, name)
        if isinstance(value, Values):
            return None
        values = on_rows(value, self.law.rows)
        columns = [values, 1.0 / (values + 1.0)] if kernel is shipped.POROUS else [values]
        return CompiledLaw(kernel, (np.stack(columns, 1)[:, :, None],) * d)

    @cached_property
    def face_weights(self) -> list[Array]:
        """c/h² on the faces of every axis ``(rows or 1, faces)``, twice that at sides with a state."""
        weights = []
        for axis, (n, h) in enumerate(zip(self.grid.shape, self.grid.spacing, strict=True)):
            faces = tuple(m + (other == axis) for other, m in enumerate(self.grid.shape))
            weight = np.full(n + 1, 1.0 / (h * h))
            weight[[0, -1]] *= side_factors(self.sides.modes, axis)
            shape = [-1 if other == axis else 1 for other in range(self.grid.dimension)]
            values = self._coefficient(axis)
            values = values.reshape(len(values), *(faces if values.shape[1] > 1 else [1] * len(faces)))
            weights.append(
                np.broadcast_to(values * weight.reshape(shape), (len(values), *faces)).reshape(len(values), -1)
            )
        return weights

    def _coefficient(self, axis: int) -> Array:
        """Factor of the conductivity beside the compiled law ``(rows or 1, 1 or faces)``."""
        if self.compiled_law is None or isinstance(self.law.law, ScalarDiffusion):
            return np.ones((1, 1))
        values = getattr(self.law.at(0.0, axis).parameters, "diffusivity", 1.0)
        return on_rows(values, self.law.rows).reshape(self.law.rows, -1)

    def between(self, rows: Array, times: Array, axis: int, before: Array, behind: Array) -> tuple[Array, ...]:
        """Fluxes across an axis from states ``(rows, faces)`` at distance 1, and their derivatives, both ≥ 0."""
        shape = tuple(n + (other == axis) for other, n in enumerate(self.grid.shape))
        left, right = (torch.from_numpy(each).reshape(-1, *shape) for each in (before, behind))
        law = cached_rows(self.law, rows)
        law = law.at(times, axis) if law.varies_in_space else law
        face = self.face_mean.flux(law, left, right, torch.ones((), dtype=torch.float64))
        parts = face.value, face.by_left, -face.by_right
        return tuple(part.detach().reshape(len(rows), -1).numpy() for part in parts)
