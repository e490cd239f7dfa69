"""Rates and implicit stages of any term, by the functions of the steps."""

from typing import Any, NamedTuple

import numpy as np

from solvers.finite_volume._operator import Operator
from solvers.finite_volume.diffusion._diffusion import DiffusionTerm
from solvers.finite_volume.march import implicit, plan
from solvers.finite_volume.march.arguments import LANE, ImplicitScheme, Outputs, StepControl
from solvers.finite_volume.march.lines import NEWTON_TOLERANCE, LineStages
from solvers.finite_volume.march.newton import RowNewton
from solvers.finite_volume.march.tiles import Tile
from solvers.finite_volume.steppers.steppers import Tableau

Array = np.ndarray


class Stage(NamedTuple):
    """The equations u = r + s·rate(u, data, t), one per row, with a first iterate and the allowed mean |error|."""

    right: Array
    s: Array
    data: Array
    t: Array
    guess: Array
    allowed: Array


class StageSolution(NamedTuple):
    """u, rate ``(rows, cells)``, flow ``(rows, 2d + 1)``, whether converged, iterations and last mean |change|."""

    u: Array
    du: Array
    flow: Array
    converged: Array
    iterations: Array
    residual: Array


def operator_of(term: DiffusionTerm) -> Operator:
    return Operator(term.grid, term.sides, term, None, None)


def diffusion_rate(term: DiffusionTerm, u: Array, data: Array, t: Array) -> tuple[Array, Array]:
    """Rate ``(rows, cells)`` and fluxes through the sides ``(rows, 2d)``."""
    tile = Tile(operator_of(term), len(u), (term, None, None))
    tile.enter(np.arange(len(u)))
    rate, flow, _ = tile.rates(u, data, t)
    return rate, flow[:, :-3]


def radius(term: DiffusionTerm, u: Array, data: Array) -> Array:
    """Bound of the spectral radius ``(rows,)``."""
    return 2.0 * operator_of(term).euler_rate([u], data, np.zeros(len(u)))


def solve_stage(term: DiffusionTerm, stage: Stage, iterations: int = 30) -> StageSolution:
    """The solution of a stage, row by row."""
    solve = _solve_row_in_space if term.grid.dimension > 1 else _solve_row
    rows = [solve(term, stage, row, iterations) for row in range(len(stage.right))]
    return StageSolution(*(np.array(part) for part in zip(*rows, strict=True)))


def _solve_row_in_space(term: DiffusionTerm, stage: Stage, row: int, iterations: int) -> Any:
    newton = RowNewton(operator_of(term), False, iterations)
    newton.enter(np.array([row]))
    rate, flow = np.empty_like(stage.right[row]), np.zeros(2 * term.grid.dimension + 1)
    given = stage.right[row], stage.guess[row], stage.s[row], stage.data[row : row + 1], stage.t[row : row + 1]
    found = newton.solve(*given, stage.allowed[row], rate, flow)
    return stage.right[row] + stage.s[row] * rate, rate, flow, *found


def _solve_row(term: DiffusionTerm, stage: Stage, row: int, iterations: int) -> Any:
    """One step of the implicit Euler method, whose only stage this is."""
    one, two, n = np.array([0.0, 1.0]), np.array([[0.0, 0.0], [0.0, 1.0]]), stage.right.shape[1]
    tableau = Tableau(implicit=two, explicit=two, weights=one, nodes=one, error=one, middle=0)
    operator, start = operator_of(term).take(np.array([row])), np.zeros(1, LANE)
    start["proposal"], start["longest"] = 1.0, np.inf
    lines = LineStages(operator, tableau, 1, False, stage.right[row : row + 1], start)
    control = StepControl(np.inf, 0.0, 1.0, 0.0, stage.allowed[row] / NEWTON_TOLERANCE)
    given = operator.sides.limits, np.asarray(term.sides.modes), float(term.grid.spacing[0])
    scheme = ImplicitScheme(tableau, 2, control, np.array([1.0]), *given, NEWTON_TOLERANCE, iterations)
    out = Outputs(
        values=np.zeros((1, 1, n)),
        budget=np.zeros((1, 1, 3)),
        finished=np.zeros(1, LANE),
        total=np.zeros((1, 3)),
        sampled=np.zeros((1, 2)),
        course=np.zeros((3, n)),
        balance=np.zeros((3, 3)),
    )
    implicit.advance(lines.system, scheme, out, lines.part(0, 0), 0, 1)
    arrays = lines.system.arrays
    lane, length = arrays.lanes[0], stage.s[row]
    arrays.states[plan.LENGTHS], lane["length"], lane["fresh"] = length, length, 0.0
    arrays.states[plan.SLOPE, :n] = (stage.guess[row] - stage.right[row]) / length
    lines.system.medium.side_data[:], lines.moments[:] = stage.data[row][:, None], stage.t[row]
    implicit.advance(lines.system, scheme, out, lines.part(1, 2), 0, 0)
    assert not lines.errors
    found = lane["converged"] > 0.0, int(lane["evaluations"]), lane["residual"]
    return arrays.states[plan.END, :n].copy(), arrays.rates[1, :n].copy(), arrays.flow[0, 1, :, 0].copy(), *found
