"""Errors of ``solve_system``: every argument used wrongly in three ways."""

import pytest
import torch

from solvers import (
    Burgers,
    CellGrid,
    Dirichlet,
    Godunov,
    Neumann,
    NodeGrid,
    Outflow,
    Periodic,
    PointwiseLaw,
    Reflecting,
    ShallowWater,
    solve_system,
)
from solvers.errors import InvalidArgumentError
from solvers.systems.laws import HLLC
from solvers.systems.pointwise import PointFunctions

GRID = CellGrid(0.0, 1.0, 20)
WALLS = (Reflecting(), Reflecting())
STILL = torch.stack([torch.ones(20), torch.zeros(20)]).double()


def twice(u, axis):  # noqa: ARG001 - the same along every axis
    return 2.0 * u[0], 2.0 * u[1]


def two(u, axis):  # noqa: ARG001 - the same along every axis
    return (2.0 + 0.0 * u[0],)


class Linear(PointwiseLaw):
    """Two waves that do not meet."""

    def components(self, dimension):  # noqa: ARG002 - as many with every dimension
        return ("a", "b")

    def functions(self, dimension):  # noqa: ARG002 - the same with every dimension
        return PointFunctions(flux=twice, eigenvalues=two)


def run(**changes):
    arguments = {"law": ShallowWater(1.0), "grid": GRID, "boundary": WALLS, "initial": STILL, "times": [0.1]} | changes
    return solve_system(**arguments)


def negative():
    return torch.stack([torch.where(GRID.points < 0.5, 1.0, -0.1), 0 * GRID.points])


def dry_with_momentum():
    return torch.stack([torch.where(GRID.points < 0.5, 1.0, 0.0), torch.where(GRID.points < 0.5, 0.0, 1.0)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"law": Burgers()}, r"law must be ShallowWater\(\), .* or derive from PointwiseLaw, got Burgers"),
        ({"law": ShallowWater}, r"law must be ShallowWater\(\)"),
        ({"law": 9.81}, "derive from PointwiseLaw, got 9.81"),
        ({"grid": NodeGrid(0.0, 1.0, 20)}, "grid must be a CellGrid"),
        ({"grid": CellGrid(0.0, 1.0, 1), "initial": STILL[:, :1]}, "MUSCL needs at least 2 cells"),
        ({"grid": CellGrid((0,) * 3, (1,) * 3, (2,) * 3)}, "one or two space axes, got 3"),
        ({"boundary": Reflecting()}, "a .first, last. pair of conditions with one axis"),
        ({"boundary": (Reflecting(), Periodic())}, "periodic on one side only"),
        ({"boundary": (Reflecting(), Neumann(0.0))}, "boundary of axis 0 must be"),
        ({"boundary": (Dirichlet(), Outflow())}, "axis 0, first side is missing"),
        ({"boundary": (Dirichlet(1.0), Outflow())}, r"needs a state of shape \(c,\) .* = \(2,\), got shape \(\)"),
        (
            {"boundary": (Dirichlet([-1.0, 0.0]), Outflow())},
            "axis 0, first side: the state at time 0 is not admissible",
        ),
        ({"boundary": (Dirichlet(torch.ones(3)), Outflow())}, "needs a state of shape"),
        ({"initial": 1.0}, r"initial must have the shape \(\*batch, c, \*cells\) with c = 2"),
        ({"initial": STILL.T}, "initial must have the shape"),
        ({"initial": STILL / 0.0}, "initial is not finite"),
        ({"initial": negative()}, r"initial is not admissible for ShallowWater in cell \(10,\)"),
        ({"initial": dry_with_momentum()}, r"not admissible for ShallowWater in cell \(10,\), .*: \[0.0, 1.0\]"),
        (
            {"boundary": (Dirichlet(torch.tensor([0.0, 0.5])), Outflow())},
            "axis 0, first side: the state at time 0 is not admissible",
        ),
        ({"initial": STILL.clone().requires_grad_()}, r"initial requires a gradient"),
        ({"initial": "ones"}, "initial must be a number"),
        ({"times": []}, "times must be finite, strictly increasing"),
        ({"times": [0.2, 0.1]}, "times must be finite, strictly increasing"),
        ({"times": "soon"}, "times must be a number"),
        ({"bottom": torch.zeros(19)}, r"bottom must broadcast to \(\*batch, \*cells\)"),
        ({"bottom": 0.0}, "bottom must broadcast"),
        ({"bottom": torch.full((20,), torch.nan)}, "bottom is not finite"),
        ({"law": Linear(), "boundary": (Outflow(), Outflow()), "bottom": torch.zeros(20)}, "for ShallowWater only"),
        ({"bottom": torch.zeros(3, 20), "initial": STILL.expand(2, 2, 20)}, "batch axes that do not broadcast"),
        ({"flux": "HLL"}, "flux must be HLL.., HLLC.. or Rusanov.., got"),
        ({"flux": Godunov()}, "flux must be HLL.., HLLC.. or Rusanov.., got"),
        ({"flux": HLLC(), "law": Linear(), "boundary": (Outflow(), Outflow())}, "is for ShallowWater only"),
        ({"reconstruction": "MUSCL"}, "reconstruction must be MUSCL.. or Constant.., got"),
        ({"reconstruction": HLLC()}, "reconstruction must be MUSCL.. or Constant.., got"),
        ({"courant": 0.9}, r"courant must be a number in \(0, 0.5\], got 0.9"),
        ({"courant": 0.0}, "courant must be a number"),
        ({"courant": "fast"}, "courant must be a number"),
        ({"largest_step": 0.0}, "largest_step must be a positive number"),
        ({"largest_step": float("nan")}, "largest_step must be a positive number"),
        ({"largest_step": "short"}, "largest_step must be a positive number"),
        ({"start": 1.0}, "not before start = 1"),
        ({"start": float("inf")}, "start must be a finite number"),
        ({"start": "now"}, "start must be a finite number"),
        ({"progess": True}, "takes no option progess; the options are bottom"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(InvalidArgumentError, match=message):
        run(**changes)


@pytest.mark.parametrize("gravity", [0.0, float("nan"), torch.ones(3), "9.81"])
def test_gravity_is_one_positive_number(gravity):
    with pytest.raises(InvalidArgumentError, match="gravity must be one finite number above 0"):
        ShallowWater(gravity)


def test_a_state_that_becomes_inadmissible_is_an_error_with_its_time():
    boundary = (Dirichlet(lambda t: [0.5 - t, 0.0]), Outflow())
    with pytest.raises(InvalidArgumentError, match=r"axis 0, first side: the state at time 0\.5\d* is not admissible"):
        run(boundary=boundary, times=[1.0])


def test_a_bottom_and_an_initial_field_may_be_functions_of_the_points():
    result = run(bottom=lambda x: 0.1 * x, initial=lambda x: torch.stack([1.0 - 0.1 * x, 0.0 * x]))
    assert (result.values[0] - torch.stack([1.0 - 0.1 * GRID.points, 0.0 * GRID.points])).abs().max() < 1e-14


def test_batch_axes_of_bottom_initial_field_and_sides_broadcast():
    inflow = Dirichlet(torch.tensor([[1.0, 0.1], [1.0, 0.2]]))
    result = run(bottom=torch.zeros(3, 1, 20), boundary=(inflow, Outflow()))
    assert result.values.shape == (3, 2, 1, 2, 20)
    assert result.boundary_flux.shape == (3, 2, 1, 2, 2)
    assert result.steps.shape == (3, 2)
    assert (result.boundary_flux[:, 1] > result.boundary_flux[:, 0]).any()
    assert torch.equal(result.values[0], result.values[2])


def test_a_progress_bar_is_shown_if_wanted(capsys):
    run(progress=True)
    captured = capsys.readouterr()
    assert "solving" in captured.err
    assert not captured.out
