"""Published draws of physics-constrained flow matching for Burgers' equation, under all their laws and bounds at once.

The draws of PCFM.jl (Utkarsh, Cai et al., NeurIPS 2025; MIT) meet an initial value, the mass at all times and five
steps of Godunov's scheme to single precision, but leave [0, 1], where the solution lies. Here laws and bounds are
imposed on them together. The file is not part of this package: ``burgers_ic_mass_flux5.jld2`` of their repository.
"""

import time
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator
from torch import Tensor

from probconserv import Bounded, InvalidArgumentError, LinearConstraint, NonlinearLaw, project

FILE = "burgers_ic_mass_flux5.jld2"
_SMOOTHING = 1e-6  # of the positive and negative parts in the flux, as published


@dataclass(frozen=True, kw_only=True)
class BurgersRows:
    """The laws of the published draws on a grid of times and points, fields ``(times, points)``.

    Args:
        times: Number of times.
        points: Number of points in space.
        flux_steps: Steps of Godunov's scheme that hold.
        time_step: Δt.
        spacing: Δx.
        front: Width of the initial front, 1/(1 + exp((x − ½)/width)).
    """

    times: int = 101
    points: int = 101
    flux_steps: int = 5
    time_step: float = 0.01
    spacing: float = 0.01
    front: float = 0.02

    def initial_values(self) -> Float[Tensor, " points"]:
        """u₀ at the points."""
        x = torch.linspace(0, 1, self.points, dtype=torch.float64)
        return 1 / (1 + torch.exp((x - 0.5) / self.front))

    def residual(self, fields: Float[Tensor, "s n"]) -> Float[Tensor, "s k"]:
        """u_i^{t+1} − u_i^t + (Δt/Δx)(F_{i+½} − F_{i−½}) at inner points, for the first steps."""
        u = fields.reshape(len(fields), self.times, self.points)[:, : self.flux_steps + 1]
        root = (u.square() + _SMOOTHING**2).sqrt()
        flux = 0.125 * ((u + root)[..., :-1].square() + (u - root)[..., 1:].square())
        change = (self.time_step / self.spacing) * flux[:, :-1].diff(dim=-1)
        return (u[:, 1:, 1:-1] - u[:, :-1, 1:-1] + change).flatten(1)

    def initial(self) -> LinearConstraint:
        """The values at the first time."""
        rows = torch.eye(self.points, self.times * self.points, dtype=torch.float64)
        return LinearConstraint(rows.to_sparse(), self.initial_values())

    def masses(self, first: int = 0) -> LinearConstraint:
        """Σ_i u_i Δx at every time from the one with number ``first``; the initial value already implies the first."""
        weights = torch.full((self.points,), self.spacing, dtype=torch.float64)
        rows = torch.kron(torch.eye(self.times, dtype=torch.float64), weights[None])[first:]
        total = weights @ self.initial_values()
        return LinearConstraint(rows.to_sparse(), total.expand(self.times - first))

    def law(self) -> NonlinearLaw:
        """All rows that are independent."""
        points = self.times * self.points
        return NonlinearLaw(residual_function=self.residual, points=points) & self.initial() & self.masses(1)


@dataclass(frozen=True, kw_only=True)
class Constrained:
    """Published draws before and after.

    Args:
        draws: Number of fields.
        rows: Number of rows of the law, with the mass at the first time.
        outside: Fraction of values below 0 and above 1, before.
        outside_after: The same after.
        residuals: Largest residual before and after, by kind of row.
        moved: Root mean square change of a value.
        seconds: Processor time for all draws.
        fields: The fields ``(draws, times, points)``.
    """

    draws: int
    rows: int
    outside: tuple[float, float]
    outside_after: tuple[float, float]
    residuals: dict[str, tuple[float, float]]
    moved: float
    seconds: float
    fields: Tensor


def constrain_published(
    folder: str | Path, count: int | None = None, *, dataset: str = "samples_exa_cpu", rows: BurgersRows | None = None
) -> Constrained:
    """Imposes all laws and [0, 1] jointly on published draws: the nearest such field to each.

    Args:
        folder: Folder of the file.
        count: Number of draws, all of them without it.
        dataset: Name in the file.
        rows: The laws; those of the publication without it.

    Returns:
        Fields, values outside, residuals and seconds.

    Raises:
        InvalidArgumentError: If the file is missing or holds other shapes.
        ConvergenceError: If a draw does not converge.
    """
    rows = rows or BurgersRows()
    given = _read(Path(folder) / FILE, dataset, rows)[:count]
    law, unit = rows.law() & Bounded(0.0, 1.0), torch.ones(rows.times * rows.points, dtype=torch.float64)
    start = time.process_time()
    after = project(given, DiagLinearOperator(unit), law)
    seconds = time.process_time() - start
    kinds = {"initial value": rows.initial().residual, "mass": rows.masses().residual, "flux": rows.residual}
    return Constrained(
        draws=len(given),
        rows=sum(kind(given[:1]).shape[-1] for kind in kinds.values()),
        outside=_outside(given),
        outside_after=_outside(after),
        residuals={name: (_largest(kind(given)), _largest(kind(after))) for name, kind in kinds.items()},
        moved=float((after - given).square().mean().sqrt()),
        seconds=seconds,
        fields=after.reshape(len(given), rows.times, rows.points),
    )


def _read(path: Path, dataset: str, rows: BurgersRows) -> Tensor:
    try:
        with h5py.File(path, "r") as file:
            values = np.asarray(file[dataset])
    except (OSError, KeyError) as error:
        raise InvalidArgumentError(
            f"'{path}' cannot be read as an HDF5 file with a dataset '{dataset}' ({error}); give the folder of the "
            "draws that PCFM.jl published."
        ) from error
    if values.ndim != 4 or values.shape[1:] != (1, rows.times, rows.points):
        raise InvalidArgumentError(f"'{dataset}' must be (draws, 1, {rows.times}, {rows.points}), got {values.shape}.")
    return torch.from_numpy(values).to(torch.float64).flatten(1)


def _outside(fields: Tensor) -> tuple[float, float]:
    return float((fields < 0).double().mean()), float((fields > 1).double().mean())


def _largest(residual: Tensor) -> float:
    return float(residual.abs().max())
