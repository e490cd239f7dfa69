"""Linear laws of generated fields, built from one true field: what it shares with all fields of its condition."""

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv import LinearConstraint
from solvers.grids import trapezoid_weights

_ALL = slice(None)


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


def initial(u: Tensor, times: Tensor, points: Tensor) -> LinearConstraint:  # noqa: ARG001 - one signature for all laws
    """The initial value."""
    return value_rows(u, (0, _ALL))


def left(u: Tensor, times: Tensor, points: Tensor) -> LinearConstraint:  # noqa: ARG001
    """The values on the left side."""
    return value_rows(u, (_ALL, 0))


def initial_and_mass(u: Tensor, times: Tensor, points: Tensor) -> LinearConstraint:
    """The initial value, and the mass by the trapezoidal rule."""
    return initial(u, times, points) & mass_rows(u, trapezoid_weights(points))
