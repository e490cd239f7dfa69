"""What linear rows say about Karhunen–Loève coefficients: H = Aᵀ M⁻¹ A and Aᵀ M⁻¹ c, with S H S diagonalised.

For fields u = m + B z + e with e ~ N(0, RᵀR + D) and rows G u = b with noise σ²,

    A = G B,   c = b − G m,   M = G (RᵀR + D) Gᵀ + σ² I,

so that rows observe B z through the correlated part of the field that the coefficients leave out. S = diag(s) holds the
standard deviations of the coefficients: an eigenvalue of S H S says how much the rows know beside the data.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from probconserv._linalg.innovation import innovation_of
from probconserv._linalg.rows import Rows, as_sparse_rows
from probconserv.constraints import LinearConstraint
from probconserv.surrogates.flow.latent import KarhunenLoeve


@dataclass(frozen=True, eq=False)
class Information:
    """H = V diag(h) Vᵀ with S V orthogonal, and what the rows say along V.

    Args:
        values: h, ascending and not negative.
        vectors: V.
        goal: y with Aᵀ M⁻¹ c = V y, of every draw or of all.
    """

    values: Float[Tensor, " r"]
    vectors: Float[Tensor, "r r"]
    goal: Float[Tensor, "*s r"]


def information_of(latent: KarhunenLoeve, law: LinearConstraint) -> Information:
    """The information in rows that are the same for all draws.

    Raises:
        DependentConstraintsError: If the rows are redundant.
    """
    rows = as_sparse_rows(law.G if isinstance(law.G, Rows) else law.rows)
    functional, rest = rows.functional(latent.basis), rows.functional(latent.rest)
    independent = innovation_of(rows, latent.noise_variance, law.noise, checked=True)
    solved, solved_rest = independent.solve(functional), independent.solve(rest)
    inner = torch.eye(len(rest), dtype=torch.float64) + rest @ solved_rest.mT
    solved = solved - (torch.cholesky_solve(solved_rest @ functional.mT, torch.linalg.cholesky(inner))).mT @ solved_rest
    spread = latent.spread
    values, vectors = torch.linalg.eigh(spread[:, None] * (functional @ solved.mT) * spread)
    goal = -law.residual(latent.mean) @ solved.mT @ (spread[:, None] * vectors)
    return Information(values.clamp_min(0.0), vectors / spread[:, None], goal)
