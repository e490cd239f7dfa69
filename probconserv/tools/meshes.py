"""Laws on the degrees of freedom of scikit-fem: totals over a mesh, and fluxes through parts of its boundary.

Any other package gives its mass matrix M: the weights of a total are its row sums, the law is
``LinearConstraint((M @ ones)[None], …)``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse
from skfem import Basis, FacetBasis, LinearForm  # pyright: ignore[reportMissingImports] - an optional package
from skfem.helpers import dot, grad  # pyright: ignore[reportMissingImports]

from probconserv._linalg.values import as_tensor
from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError

Coefficient = float | Callable[[np.ndarray], np.ndarray]
"""A number, or a function of the coordinates ``(d, …)`` of points, as scikit-fem calls them."""


def mesh_total(basis: Basis, total: Any, *, density: Coefficient = 1.0, noise_variance: Any = 0.0) -> LinearConstraint:
    """∫ ρ u dx = total, for the degrees of freedom u ``(*batch, n)`` of a basis: elements of any shape and order.

    Args:
        basis: A ``Basis`` with scalar elements; of a part of the mesh, if it is built with ``elements=``.
        total: Total, one number or ``(*batch,)``.
        density: ρ.
        noise_variance: σ² of the total.
    """
    _check_basis(basis, Basis, "mesh_total")
    row = LinearForm(lambda v, w: _values(density, w.x) * v).assemble(basis)
    return _law(row, total, noise_variance)


def boundary_flux(
    basis: FacetBasis, flux: Any, *, conductivity: Coefficient = 1.0, noise_variance: Any = 0.0
) -> LinearConstraint:
    """−∫_Γ k ∇u · n ds = flux, what leaves the domain through a part Γ of its boundary.

    It is the flux of the discrete field, which is off by O(h) for linear elements and by O(h²) for quadratic ones:
    ``law.with_rule_variance(variance)`` tells the law of that error.

    Args:
        basis: A ``FacetBasis`` with scalar elements on facets of the boundary: ``basis.boundary("outlet")``.
        flux: Flux out of the domain, one number or ``(*batch,)``.
        conductivity: k.
        noise_variance: σ² of the flux.
    """
    _check_basis(basis, FacetBasis, "boundary_flux")
    inner = np.setdiff1d(basis.find, basis.mesh.boundary_facets())
    if len(inner) or not len(basis.find):
        raise InvalidArgumentError(
            f"boundary_flux needs facets of the boundary, got {len(inner)} inner ones of {len(basis.find)}, whose "
            "normals have no side; select them by basis.boundary(...)."
        )

    def outward(v: Any, w: Any) -> Any:
        slope: Any = grad(v)
        return -_values(conductivity, w.x) * dot(slope, w.n)

    return _law(LinearForm(outward).assemble(basis), flux, noise_variance)


def _law(row: np.ndarray, value: Any, noise_variance: Any) -> LinearConstraint:
    if not np.isfinite(row).all() or not row.any():
        raise InvalidArgumentError("density and conductivity must be finite, and not zero everywhere.")
    sparse: Any = scipy.sparse.csr_array(row[None])
    return LinearConstraint(sparse, as_tensor(value)[..., None], noise_variance)


def _values(coefficient: Coefficient, x: np.ndarray) -> Any:
    values = coefficient(x) if callable(coefficient) else coefficient
    if np.ndim(values) and np.shape(values) != x.shape[1:]:
        raise InvalidArgumentError(
            "density and conductivity must be a number, or a function of coordinates (d, …) that gives one value for "
            f"each of {x.shape[1:]} points, got {np.shape(values)}; of values at nodes, basis.interpolator(values)."
        )
    return values


def _check_basis(basis: Any, kind: type, name: str) -> None:
    if not isinstance(basis, kind):
        raise InvalidArgumentError(f"{name} needs a {kind.__name__} of scikit-fem, got {type(basis).__name__}.")
    if len(basis.basis[0]) != 1 or np.ndim(basis.basis[0][0]) != 2:
        raise InvalidArgumentError(
            f"{name} is about one scalar field, but {type(basis.elem).__name__} has several components; give a basis "
            "of one of them, and its degrees of freedom alone as the field."
        )
