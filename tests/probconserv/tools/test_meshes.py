"""Laws on the degrees of freedom of scikit-fem."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from probconserv import IncompatibleQueryError, InvalidArgumentError, LinearConstraint, NonNegative, condition

fem = pytest.importorskip("skfem", reason="needs scikit-fem: pip install 'probconserv-boon[tools]'")
tools = pytest.importorskip("probconserv.tools")
mesh_total, boundary_flux = tools.mesh_total, tools.boundary_flux

MESH = fem.MeshTri().refined(3)
BASIS = fem.Basis(MESH, fem.ElementTriP1())


def right(x):
    return np.isclose(x[0], 1)


def outlet(basis):
    return basis.boundary(MESH.facets_satisfying(right))


@pytest.mark.parametrize("element", [fem.ElementTriP1(), fem.ElementTriP2()], ids=["linear", "quadratic"])
def test_totals_and_fluxes_of_polynomials_are_exact(element):
    basis = fem.Basis(MESH, element)
    x, y = basis.doflocs
    u = torch.tensor(x + 2 * y)
    assert float(mesh_total(basis, 1.5).residual(u)) == pytest.approx(0, abs=1e-14)
    assert float(mesh_total(basis, 5 / 6, density=lambda x: x[0]).residual(u)) == pytest.approx(0, abs=1e-14)
    assert float(boundary_flux(outlet(basis), -1.0).residual(u)) == pytest.approx(0, abs=1e-13)  # uphill, so inward
    varying = boundary_flux(outlet(basis), -1.5, conductivity=lambda x: 1 + x[1])
    assert float(varying.residual(u)) == pytest.approx(0, abs=1e-13)


@pytest.mark.parametrize(("element", "order"), [(fem.ElementTriP1, 1), (fem.ElementTriP2, 2)])
def test_a_flux_is_off_by_the_order_of_the_gradient(element, order):
    missed = []
    for level in (3, 4, 5, 6):
        mesh = fem.MeshTri().refined(level)
        basis = fem.Basis(mesh, element())
        x, y = basis.doflocs
        law = boundary_flux(basis.boundary(mesh.facets_satisfying(right)), -np.e * np.sin(1))
        missed.append(abs(float(law.residual(torch.tensor(np.exp(x) * np.cos(y))))))
    np.testing.assert_allclose(-np.diff(np.log2(missed)), order, atol=0.2)


def test_the_weights_are_the_row_sums_of_the_mass_matrix():
    mass = fem.BilinearForm(lambda u, v, _: u * v).assemble(BASIS)
    weights = torch.tensor(mass @ np.ones(BASIS.N))
    law = LinearConstraint(weights[None], torch.tensor([1.5]))
    u = torch.rand(4, BASIS.N, dtype=torch.float64)
    torch.testing.assert_close(law.residual(u), mesh_total(BASIS, 1.5).residual(u))


def test_both_laws_and_a_sign_hold_on_one_prediction():
    torch.manual_seed(0)
    law = mesh_total(BASIS, torch.tensor([0.5, 0.6, 0.7])) & boundary_flux(outlet(BASIS), 0.1)
    prior = Normal(torch.rand(3, BASIS.N, dtype=torch.float64), 0.2 + torch.zeros(BASIS.N, dtype=torch.float64))
    assert law.residual(condition(prior, law).mean).abs().max() < 1e-13
    mode = condition(prior, law & NonNegative()).mode
    assert law.residual(mode).abs().max() < 1e-8
    assert mode.min() >= 0


def test_a_part_of_the_mesh_has_its_own_total():
    half = fem.Basis(MESH, fem.ElementTriP1(), elements=MESH.elements_satisfying(lambda x: x[0] < 0.5))
    assert float(mesh_total(half, 0.5).residual(torch.ones(BASIS.N))) == pytest.approx(0, abs=1e-14)


WRONG = {
    "a mesh": (lambda: mesh_total(MESH, 1.0), "needs a CellBasis of scikit-fem, got MeshTri1"),
    "facets for a total": (lambda: mesh_total(outlet(BASIS), 1.0), "needs a CellBasis"),
    "cells for a flux": (lambda: boundary_flux(BASIS, 1.0), "needs a FacetBasis"),
    "inner facets": (
        lambda: boundary_flux(fem.FacetBasis(MESH, fem.ElementTriP1(), facets=np.arange(5)), 1.0),
        "inner ones of 5",
    ),
    "no facets": (lambda: boundary_flux(BASIS.boundary(np.array([], dtype=int)), 1.0), "0 inner ones of 0"),
    "vectors": (lambda: mesh_total(fem.Basis(MESH, fem.ElementVector(fem.ElementTriP1())), 1.0), "one scalar field"),
    "fluxes as unknowns": (lambda: mesh_total(fem.Basis(MESH, fem.ElementTriRT0()), 1.0), "has several components"),
    "two fields": (
        lambda: mesh_total(fem.Basis(MESH, fem.ElementTriP1() * fem.ElementTriP0()), 1.0),
        "ElementComposite",
    ),
    "a density of vectors": (lambda: mesh_total(BASIS, 1.0, density=lambda x: x), "one value for each of"),
    "a density at nodes": (lambda: mesh_total(BASIS, 1.0, density=np.ones(BASIS.N)), "basis.interpolator"),
    "no density": (lambda: mesh_total(BASIS, 1.0, density=0.0), "not zero everywhere"),
    "a density with NaN": (lambda: mesh_total(BASIS, 1.0, density=np.nan), "must be finite"),
    "a total that is NaN": (lambda: mesh_total(BASIS, np.nan), "b of the constraint holds"),
    "a flux where nothing flows": (
        lambda: boundary_flux(fem.Basis(MESH, fem.ElementTriP0()).boundary(), 1.0),
        "not zero everywhere|grad",
    ),
    "a field on another mesh": (
        lambda: condition(Normal(torch.zeros(50), torch.ones(50)), mesh_total(BASIS, 1.0)),
        "81",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case):
    act, message = WRONG[case]
    with pytest.raises((InvalidArgumentError, IncompatibleQueryError), match=message):
        act()
