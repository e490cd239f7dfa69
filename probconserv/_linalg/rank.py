"""Rows that are independent under Σ, from the whitened rows G R with Σ = R Rᵀ; and rows that contradict each other.

S = G Σ Gᵀ + σ² I has lost the square of what distinguishes nearly dependent rows; the whitened rows keep it, down to
rounding. Where Σ is stored by its entries, no root knows more than S does, and S decides.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from linear_operator.operators import DiagLinearOperator, LinearOperator
from torch import Tensor

from probconserv._linalg.covariance import Covariance
from probconserv._linalg.rows import SMALL, Rows
from probconserv.errors import DependentConstraintsError, InfeasibleConstraintError
from solvers.recording import are_readable

EPS = torch.finfo(torch.float64).eps
_SINGLE = torch.finfo(torch.float32).eps
NEARLY_DEPENDENT = 1e-7  # squared pivot of S with unit diagonal below which whitened rows are needed


def least_pivot(k: int) -> float:
    """Squared pivot of S with unit diagonal up to which its row depends on others, where S alone is known."""
    return 1e3 * k * EPS


def least_distance(rows: Tensor, covariance: Covariance, epsilon: float) -> float:
    """Distance of a whitened row from the span of others, relative to its length, that rounding may leave of zero.

    Roots of variances are exact, so that under independent values it is the rounding of rows, which predictions below
    double precision may share; other roots are known to the precision of the prior.
    """
    of_prior = 10 * min(epsilon, _SINGLE) if covariance.is_independent else min(100 * epsilon, 0.1)
    return of_prior + 8 * sum(rows.shape[-2:]) * EPS


def resolution_of_entries(k: int, nearly: bool) -> float:
    """The same where S alone is known."""
    return (NEARLY_DEPENDENT if nearly else least_pivot(k)) ** 0.5


def depend_on(rows: Float[Tensor, "*batch k n"], others: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    """Rows that are combinations of others, to rounding in double precision, in all entries of a batch."""
    flat = rows.reshape(-1, *rows.shape[-2:])
    basis, left = torch.linalg.qr(flat[:, others].mT).Q, flat
    for _ in range(2):
        left = left - (left @ basis) @ basis.mT
    distance, length = (torch.linalg.vector_norm(part, dim=-1) for part in (left, flat))
    return (distance <= _rounding_of(rows) * length).all(dim=0)


def _rounding_of(rows: Tensor) -> float:
    """The distance of a row ``(*batch, k, n)`` from the span of others that rounding may leave, of its length."""
    return (10 + 8 * sum(rows.shape[-2:])) * EPS


def independent_given(
    rows: Float[Tensor, "*batch k n"], first: Float[Tensor, " k"], least: float | None = None
) -> Float[Tensor, " k"]:
    """Mask of the first rows and of those that are no combinations of them and of rows before them.

    Rows are combinations up to ``least`` of their length, by default the rounding of double precision. Where they are
    so in a part of a batch only, the mask has all rows that are no combinations of the first ones.
    """
    order = torch.cat([first.nonzero()[:, 0], (~first).nonzero()[:, 0]])
    flat = rows.reshape(-1, *rows.shape[-2:])[:, order]
    unit = flat / torch.linalg.vector_norm(flat, dim=-1, keepdim=True)
    chol, info = torch.linalg.cholesky_ex(unit @ unit.mT)
    if not bool(info.any()) and smallest_pivot(chol) >= NEARLY_DEPENDENT:  # as nearly always
        return torch.ones_like(first)
    found = _distant(flat, int(first.sum()), _rounding_of(rows) if least is None else least)
    if found is None:
        return first | ~depend_on(rows, first)
    return torch.zeros_like(first).index_put((order,), found)


def whitened_rows(
    covariance: Covariance, rows: Float[Tensor, "*batch k n"], deviation: Float[Tensor, "*batch k"]
) -> Tensor | None:
    """(G R, diag σ) ``(*batch, k, r + k)``, whose square is S; None if Σ is stored by its entries."""
    if not covariance.is_factored:
        return None
    parts = [torch.diag_embed(deviation)]
    for root in covariance.roots(EPS):
        diagonal = isinstance(root, DiagLinearOperator)
        parts.append(rows * root.diagonal()[..., None, :] if diagonal else rows @ root.to_dense())
    batch = torch.broadcast_shapes(*(part.shape[:-2] for part in parts))
    return torch.cat([part.expand(*batch, *part.shape[-2:]) for part in parts], dim=-1)


def triangular_factor(whitened: Float[Tensor, "*batch k r"]) -> Float[Tensor, "*batch k k"]:
    """Lower triangular L with L Lᵀ the Gram matrix of the rows and no negative pivot, by a QR factorisation."""
    upper = torch.linalg.qr(whitened.mT).R
    sign = torch.where(upper.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0)
    return (sign[..., None] * upper).mT


def cholesky_of_rows(
    innovation: Tensor, covariance: Covariance, rows: Tensor, deviation: Tensor, epsilon: float
) -> Tensor:
    """Cholesky factor L of D S D, by a QR factorisation of the whitened rows where they are nearly dependent.

    Args:
        innovation: D S D.
        covariance: Σ.
        rows: D G.
        deviation: D σ.
        epsilon: See ``factorise``.

    Raises:
        DependentConstraintsError: If a combination of the whitened rows of length one is rounding, in whatever order
            they are: the last pivot alone may be many times the rounding of another row.
    """
    k, members = rows.shape[-2], covariance.members
    chol, info = torch.linalg.cholesky_ex(innovation)
    regular = not bool(info.any())
    if regular and smallest_pivot(chol) >= NEARLY_DEPENDENT:
        return chol
    whitened = whitened_rows(covariance, rows, deviation)
    if whitened is not None:
        require_independent(torch.tensor(whitened.shape[-1] >= k), k, members)
        chol = triangular_factor(whitened)
        smallest = torch.linalg.svdvals(chol.detach())[..., -1]
        require_independent((smallest > least_distance(rows, covariance, epsilon)).all(), k, members)
        return chol
    require_independent(torch.tensor(regular and smallest_pivot(chol) > least_pivot(k)), k, members)
    return _refine(chol, covariance, rows, deviation)


def _refine(chol: Tensor, covariance: Covariance, rows: Tensor, deviation: Tensor) -> Tensor:
    """L of nearly dependent rows where Σ has no root, from the covariance of L⁻¹ D G u, close to the unit matrix.

    S loses the square of what distinguishes such rows; the whitened rows keep it (Cholesky QR, done twice). Where that
    covariance is far from the unit matrix, the smallest pivot of S was rounding, and the rows are dependent.
    """
    white = torch.linalg.solve_triangular(chol, rows, upper=False)
    noise = torch.linalg.solve_triangular(chol, torch.diag_embed(deviation), upper=False)
    again, info = torch.linalg.cholesky_ex(covariance.times(white) @ white.mT + noise @ noise.mT)
    require_independent((info == 0).all() & (smallest_pivot(again) > 0.1), rows.shape[-2])
    return chol @ again


def smallest_pivot(chol: Tensor) -> float:
    """Smallest squared pivot of D S D: 1 for independent rows (or one), 0 for dependent ones."""
    if chol.shape[-1] == 1 or not chol.numel():
        return 1.0
    return float(chol.detach().diagonal(dim1=-2, dim2=-1).min().square())


def independent_of_others(
    covariance: Covariance, rows: Tensor, noise: Tensor, epsilon: float, nearly: bool = False
) -> Tensor | None:
    """Rows ``(k,)`` that leave no other one more than rounding; None if those differ in the batch.

    Rows far from each other come first, and of those that depend on each other the ones with fewest entries: which are
    chosen does not depend on their order. ``nearly`` leaves out rows that S alone hardly distinguishes.
    """
    k = rows.shape[-2]
    innovation = covariance.times(rows) @ rows.mT + torch.diag_embed(noise)
    diagonal = innovation.diagonal(dim1=-2, dim2=-1)
    varies = exceed_rounding(diagonal, covariance, covariance.variance, rows, epsilon)
    scale = torch.where(varies, torch.where(varies, diagonal, 1.0).rsqrt(), 0.0)
    scaled = (scale[..., None] * innovation * scale[..., None, :]).reshape(-1, k, k)
    order = torch.tensor(sorted(range(k), key=lambda row: _key(rows[..., row, :])), device=rows.device)
    clear = _shared(independent_rows(scaled[:, order][:, :, order], NEARLY_DEPENDENT))
    if clear is None:
        return None
    order = torch.cat([order[clear], order[~clear]])
    if nearly:
        found = clear.sort(descending=True, stable=True).values
    else:
        whitened = whitened_rows(covariance, scale[..., None] * rows, scale * noise.sqrt())
        if whitened is None:
            found = _shared(independent_rows(scaled[:, order][:, :, order], least_pivot(k)))
        else:
            least = least_distance(rows, covariance, epsilon)
            whitened = whitened.reshape(-1, *whitened.shape[-2:])[:, order]
            found = _distant(whitened, int(clear.sum()), least)
    if found is None:
        return None
    kept = torch.zeros(k, dtype=torch.bool, device=rows.device)
    kept[order] = found
    return kept


def _key(row: Tensor) -> tuple[int, bytes]:
    """A row's place among others, the same in whatever order they are given."""
    return int(row.count_nonzero()), row.contiguous().numpy(force=True).tobytes()


def _shared(independent: Tensor) -> Tensor | None:
    """Mask ``(k,)`` of rows that are independent in all entries of a batch ``(p, k)``; None if that differs."""
    return independent[0] if bool((independent == independent[0]).all()) else None


def _distant(whitened: Tensor, clear: int, least: float) -> Tensor | None:
    """Mask of unit rows ``(p, k, r)`` farther than ``least`` from the span of those before; the first ones
    are. Each is orthogonalised twice, which is enough (Giraud, Langou & Rozložník 2005)."""
    found = torch.ones(whitened.shape[-2], dtype=torch.bool, device=whitened.device)
    basis = torch.linalg.qr(whitened[:, :clear].mT).Q
    for row in range(clear, whitened.shape[-2]):
        left = whitened[:, row, :, None]
        length = torch.linalg.vector_norm(left, dim=1, keepdim=True)
        for _ in range(2):
            left = left - basis @ (basis.mT @ left)
        distance = torch.linalg.vector_norm(left, dim=1, keepdim=True)
        far = distance > least * length
        if not bool((far == far[0]).all()):
            return None
        found[row] = bool(far[0])
        if found[row]:
            basis = torch.cat([basis, left / distance], dim=-1)
    return found


def exceed_rounding(diagonal: Tensor, covariance: Covariance, variance: Tensor, rows: Tensor, epsilon: float) -> Tensor:
    """Mask of the S_ii ``(*batch, k)`` above what rounding leaves of a zero; arguments are those of ``Gain``."""
    if covariance.is_independent:
        return diagonal > 0
    relative = min(100 * epsilon, 0.1)
    if are_readable(diagonal):  # a bound that is cheaper, and decides nearly always
        largest = (rows.abs() @ variance.sqrt()[..., None])[..., 0].square()
        if bool((diagonal > relative * largest).all()):
            return torch.ones_like(diagonal, dtype=torch.bool)
    return diagonal > covariance.detached().rounding(rows, relative)


def require_independent(independent: Tensor, k: int, members: int | None = None) -> None:
    """Raises DependentConstraintsError unless the k rows are independent, under the covariance of this many members."""
    if not bool(independent):
        if members is not None and k >= members:
            raise DependentConstraintsError(
                f"An ensemble of {members} members varies in at most {members - 1} directions, too few for {k} rows. "
                'Let correlations fade that so few members cannot support, by shrinkage="auto" of from_samples or '
                "condition_fields, or give every value an independent variance, by the noise_variance of these "
                "functions (that of the law would only make the law inexact)."
            )
        raise DependentConstraintsError(
            f"The {k} constraint rows are not independent under this prior: S = G Σ Gᵀ + σ² I is singular. Drop "
            "redundant rows, do not condition twice on one exact law, or set noise_variance > 0."
        )


def independent_rows(matrix: Tensor, least: float) -> Tensor:
    """Mask of the rows of S ``(*batch, k, k)`` with unit diagonal that have a pivot ``(*batch, k)``.

    A pivot up to ``least`` makes its row depend on rows before it, in Cholesky's factorisation without such rows.
    """
    chol, independent = torch.zeros_like(matrix), torch.zeros_like(matrix[..., 0], dtype=torch.bool)
    for j in range(matrix.shape[-1]):
        column = matrix[..., j:, j] - (chol[..., j:, :j] @ chol[..., j, :j, None])[..., 0]
        independent[..., j] = column[..., 0] > least
        pivot = column[..., :1].clamp_min(least)
        chol[..., j:, j] = torch.where(independent[..., j, None], column / pivot.sqrt(), 0.0)
    return independent


@contextmanager
def contradictions_named(G: Tensor | LinearOperator | Rows, b: Tensor, noise: Tensor) -> Iterator[None]:
    """Turns the error for dependent rows into InfeasibleConstraintError if no field at all meets the exact ones.

    Args:
        G: Rows ``(*batch, k, n)``; structured ones are not looked at where they are too many for a matrix.
        b: Right-hand sides ``(*batch, k)``.
        noise: σ² ``(*batch, k)``.
    """
    try:
        yield
    except DependentConstraintsError:
        require_consistent(G, b, noise)
        raise


def require_consistent(G: Tensor | LinearOperator | Rows, b: Tensor, noise: Tensor) -> None:
    """Raises InfeasibleConstraintError if no field meets the exact rows; arguments as of ``contradictions_named``."""
    if isinstance(G, Rows) and G.shape.numel() > SMALL:
        return
    rows = G if isinstance(G, Tensor) else G.to_dense()
    scale = torch.where(noise == 0, 1 / torch.linalg.vector_norm(rows, dim=-1), 0.0)
    rows, b = scale[..., None] * rows, scale * b
    basis, size, _ = torch.linalg.svd(rows, full_matrices=False)
    rounding = max(rows.shape[-2:]) * torch.finfo(torch.float64).eps * size[..., :1]
    basis = torch.where((size > rounding)[..., None, :], basis, 0.0)
    missed = b - (basis @ (basis.mT @ b[..., None]))[..., 0]
    if bool((missed.abs() > 1e-8 * b.abs().amax(dim=-1, keepdim=True)).any()):
        raise InfeasibleConstraintError(
            "The rows of the law contradict each other: the same combination of values is given two totals, so no "
            "field meets them all. Correct the right-hand sides, or set noise_variance > 0."
        )
