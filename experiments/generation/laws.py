"""Laws of generated fields, built from one true field: what it shares with all fields of its condition."""

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.generation.families import RATE
from probconserv import LinearConstraint, NonlinearLaw

_ALL = slice(None)
_FLUX_STEPS = 5  # of Godunov's scheme, as published by PCFM (Utkarsh et al. 2025)
_SMOOTHING = 1e-6  # of the positive and negative parts in the flux, as published


def value_rows(u: Float[Tensor, "t x"], where: tuple[slice | int, slice | int]) -> LinearConstraint:
    """The values of a field on part of its nodes."""
    index = torch.arange(u.numel()).reshape(u.shape)[where].flatten()
    place = torch.stack([torch.arange(len(index)), index])
    rows = torch.sparse_coo_tensor(
        place, torch.ones(len(index), dtype=u.dtype), (len(index), u.numel()), check_invariants=False
    )
    return LinearConstraint(rows, u[where].flatten())


def mass_rows(u: Float[Tensor, "t x"], weights: Float[Tensor, " x"]) -> LinearConstraint:
    """Σ_i w_i u_i at every time but the first, which an initial value implies."""
    rows = torch.kron(torch.eye(len(u), dtype=u.dtype), weights[None])[1:]
    return LinearConstraint(rows.to_sparse(), u[1:] @ weights)


def trapezoid(points: Float[Tensor, " x"]) -> Float[Tensor, " x"]:
    """Weights of the trapezoidal rule on nodes."""
    half = 0.5 * points.diff()
    return torch.nn.functional.pad(half, (1, 0)) + torch.nn.functional.pad(half, (0, 1))


def initial(u: Tensor, times: Tensor, points: Tensor) -> LinearConstraint:  # noqa: ARG001 - one signature for all laws
    """The initial value."""
    return value_rows(u, (0, _ALL))


def left(u: Tensor, times: Tensor, points: Tensor) -> LinearConstraint:  # noqa: ARG001
    """The values on the left side."""
    return value_rows(u, (_ALL, 0))


def initial_and_mean(u: Tensor, times: Tensor, points: Tensor) -> LinearConstraint:
    """The initial value, and the mean over points that all weigh the same."""
    return initial(u, times, points) & mass_rows(u, torch.full_like(points, 1 / len(points)))


def initial_and_mass(u: Tensor, times: Tensor, points: Tensor) -> LinearConstraint:
    """The initial value, and the mass by the trapezoidal rule."""
    return initial(u, times, points) & mass_rows(u, trapezoid(points))


def initial_inflow_and_flux(u: Tensor, times: Tensor, points: Tensor) -> NonlinearLaw:
    """The initial value, a constant inflow, and the first five steps of Godunov's scheme at inner cells.

    The mass grows at a constant rate, whatever it is: M_{n+1} − 2 M_n + M_{n−1} = 0.
    """
    second = torch.eye(len(times), dtype=u.dtype).diff(dim=0).diff(dim=0)
    rows = torch.kron(second, torch.full((1, len(points)), 1 / len(points), dtype=u.dtype))
    inflow = LinearConstraint(rows.to_sparse(), torch.zeros(len(rows), dtype=u.dtype))
    ratio = float(times[1] - times[0]) / float(points[1] - points[0])

    def residual(fields: Float[Tensor, "s n"]) -> Float[Tensor, "s k"]:
        return godunov_residual(fields.reshape(-1, *u.shape), ratio)

    law = NonlinearLaw(residual_function=residual, points=u.numel())
    return law & initial(u, times, points) & inflow


def godunov_residual(fields: Float[Tensor, "s t x"], ratio: float) -> Float[Tensor, "s k"]:
    """u_i^{t+1} − u_i^t + (Δt/Δx)(F_{i+½} − F_{i−½}) of Burgers' equation at inner points, for the first steps.

    ``ratio`` is Δt/Δx.
    """
    u = fields[:, : _FLUX_STEPS + 1]
    root = (u.square() + _SMOOTHING**2).sqrt()
    flux = 0.125 * ((u + root)[..., :-1].square() + (u - root)[..., 1:].square())
    change = ratio * flux[:, :-1].diff(dim=-1)
    return (u[:, 1:, 1:-1] - u[:, :-1, 1:-1] + change).flatten(1)


def initial_and_reaction(u: Tensor, times: Tensor, points: Tensor) -> NonlinearLaw:
    """The initial value, and a mass that changes by the reaction and by an inflow, constant but unknown.

    With D_n = M_{n+1} − M_n − ∫∫ ρ u (1 − u), the double integral over cells and one step by the trapezoidal rule, the
    rows are D_n − D_{n−1} less the same of the true field, the error of the rule (3e-5 of D at 24 times).
    """
    shape, step = u.shape, float(times[1] - times[0])

    def balance(fields: Tensor) -> Tensor:
        v = fields.reshape(-1, *shape)
        growth = (RATE * v * (1 - v)).mean(dim=-1)
        gained = v.mean(dim=-1).diff(dim=-1) - 0.5 * step * (growth[:, 1:] + growth[:, :-1])
        return gained.diff(dim=-1)

    error = balance(u.flatten()[None])
    law = NonlinearLaw(residual_function=lambda fields: balance(fields) - error, points=u.numel())
    return law & initial(u, times, points)
