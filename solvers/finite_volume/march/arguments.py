"""Arguments of the compiled steps: records of numbers, one for each lane, and arrays and settings by name.

A lane is a place in a tile of rows that go through the steps side by side; a row that ends gives its lane to the next.
"""

from typing import Any, NamedTuple

import numpy as np

from solvers.finite_volume.sides._panels import Limits
from solvers.finite_volume.steppers.steppers import Tableau

Array = np.ndarray

LANE = np.dtype(
    [
        (name, np.float64)
        for name in (
            # which row is in it (−1 for none), time, length of the step, proposed length, longest one by events
            *("row", "time", "length", "proposal", "longest"),
            # whether the last step failed, whether rates at the start are unknown, next output, verdict, counts
            *("failed", "fresh", "cursor", "verdict", "steps", "rejected", "evaluations"),
            # range of the states at the start with Dirichlet values, of all states so far, and at the end of the step
            *("low", "high", "seen_low", "seen_high", "end_low", "end_high"),
            # estimated mean error; allowed error of Newton's iteration; residual for messages; size a source gives
            *("error", "allowed", "residual", "source_size"),
            # by how much times keep off the ends of a step where something jumps there
            *("after_start", "before_end"),
            # of Newton's iteration: a sum over cells, the last change, the part taken; open, converged, step accepted
            *("cell_sum", "change", "taken", "is_open", "converged", "accepted"),
            # of explicit steps: stages, whether under way, largest speed, inverse Euler step at the end; of systems the
            # speed of signals in cells per time, and the first cell without an admissible state, or −1
            *("stages", "live", "worst", "euler", "speed", "place"),
        )
    ]
)
"""Numbers of a lane."""

Lanes = Any
"""Records of ``LANE``, whose numbers compiled steps read as attributes: ``lanes[j].time``, or ``lanes.time`` of all."""


class StepControl(NamedTuple):
    """Longest step, span and allowed errors."""

    longest: float
    start: float
    end: float
    tolerance: float
    atol: float


class Outputs(NamedTuple):
    """What steps write.

    Attributes:
        values: States at the output times ``(rows, t, cells)``.
        budget: Time-integrated flow until then ``(rows, t, f)``.
        finished: The lanes of rows that are at the end or cannot go on ``(rows,)``.
        total: Time-integrated flow so far ``(rows, f)``.
        sampled: Time integrals of the data of the sides, as the steps see them ``(rows, S)``.
        course: Scratch: states of one row at the start, within and at the end of a step ``(3, cells)``.
        balance: Scratch: its budget before a step, and what the step adds until the fraction and its end ``(3, f)``.
    """

    values: Array
    budget: Array
    finished: Array
    total: Array
    sampled: Array
    course: Array
    balance: Array


class ImplicitScheme(NamedTuple):
    """An implicit method, and the problem along one axis: sides, spacing, Newton's tolerance and most iterations."""

    tableau: Tableau
    order: int
    control: StepControl
    times: Array
    limits: Limits
    modes: Array
    spacing: float
    newton: float
    iterations: int


class StageArrays(NamedTuple):
    """Arrays over the cells of all lanes: cell i of lane j is at i·width + j.

    Attributes:
        states: States by the names of ``plan``.
        rates: Implicit rates ``(stages, cells)``.
        explicit_rates: Explicit ones, without cells where there are none.
        scratch: Scratch by the names of ``implicit``.
        lanes: Numbers of the lanes.
        flow: Flows of implicit and explicit rates ``(2, stages, f, width)``.
    """

    states: Array
    rates: Array
    explicit_rates: Array
    scratch: Array
    lanes: Lanes
    flow: Array


class LaneMedium(NamedTuple):
    """Parameters of law and source, coefficients on faces, pulls and data of the sides ``(stages, S, width)``."""

    law: Array
    source: Array
    coefficient: Array
    pull: Array
    side_data: Array


class RowMedium(NamedTuple):
    """What belongs to the rows: the numbers that a lane starts with ``(1,)``, initial states, what goes into
    ``LaneMedium``, and sizes that sources give the rows."""

    start: Array
    initial: Array
    law: Array
    source: Array
    coefficient: Array
    pull: Array
    side_data: Array
    source_sizes: Array


class ImplicitLaws(NamedTuple):
    """Kernels of law and source, whether there is a source, whether all is linear, and the rows of time among their
    parameters, −1 for none."""

    law: Any
    source: Any
    reacts: bool
    linear: bool
    law_time: int
    source_time: int


class LineSystem(NamedTuple):
    """Rows along one axis."""

    arrays: StageArrays
    medium: LaneMedium
    rows: RowMedium
    laws: ImplicitLaws


class StageRange(NamedTuple):
    """Stages to solve.

    Attributes:
        first: The first one.
        after: The one after the last.
        moments: Times of the stages ``(stages, width)``.
        info: Row, time and whether there is a row, of every lane, for laws in tensors ``(3, width)``.
        write_side_data: Writes data of the sides at these times.
        changes: Whether they change.
    """

    first: int
    after: int
    moments: Array
    info: Array
    write_side_data: Any
    changes: bool


class ExplicitScheme(NamedTuple):
    """SSPRK3 with a Courant number, or RKL2, where it is 0; whether there is a source, and whether the rate at the end
    is computed and kept for the next step."""

    courant: float
    order: int
    sources: bool
    keeps: bool
    control: StepControl
    times: Array


class ExplicitArrays(NamedTuple):
    """Arrays over the cells ``(8, rows, size)`` and flows ``(5, rows, 2d + 3)`` by the names of ``explicit``, numbers
    of the lanes, and row, time and a mark of every row for laws in tensors ``(3, rows)``."""

    cells: Array
    flow: Array
    lanes: Lanes
    info: Array


class StageData(NamedTuple):
    """Data of the sides ``(stages, rows, S)``, the last for all later stages, their times ``(stages, rows)``, the
    function that writes them, whether they change with time, and the limits of steps."""

    values: Array
    moments: Array
    write: Any
    changes: bool
    limits: Limits


class TileLaws(NamedTuple):
    """Kernels of the terms, the kind of diffusion, 0 for none, and whether there are convection and a source."""

    diffusion: Any
    convection: Any
    slopes: Any
    source: Any
    kind: int
    convects: bool
    reacts: bool


class TileMedium(NamedTuple):
    """Parameters of the terms, ``(axes, k, cells)`` and of the source ``(k, cells)``, and weights ``(axes, cells)``."""

    diffusion: Array
    convection: Array
    source: Array
    weights: Array


class TileGrid(NamedTuple):
    """The layout of a row, modes and pulls ``(rows, 2d)`` of the sides, and spacings ``(d,)``."""

    layout: Any
    modes: Array
    pull: Array
    spacing: Array


class Timed(NamedTuple):
    """Rows of time among the parameters of the terms, −1 for none, and whether a term uses the time at all."""

    diffusion: int
    convection: int
    source: int
    used: bool


class TileSystem(NamedTuple):
    """The terms on a tile of rows, with scratch ``(5, cells)``."""

    laws: TileLaws
    medium: TileMedium
    grid: TileGrid
    work: Array
    timed: Timed


class Equation(NamedTuple):
    """u = r + step·rate(u) with an allowed mean |error|, whether all is linear, the most iterations, and whether the
    law is."""

    step: float
    allowed: float
    linear: bool
    iterations: int
    linear_law: bool


class RowArrays(NamedTuple):
    """Arrays of some rows side by side.

    Attributes:
        states: States at the start of a step and after its stages ``(4, c, rows, size)``.
        rate: Their rate of change in a stage ``(c, rows, size)``.
        flow: Flows of a stage, and their mean over the step ``(2, rows, 2d + 1, c)``.
        lanes: Numbers of the rows.
        side_data: States given at the sides at the start, the end and in the middle of a step ``(3, rows, c, S)``.
        sampled: Their time integrals where they change ``(rows, c, S)``.
        total: Time-integrated flows ``(rows, 2d + 1, c)``.
    """

    states: Array
    rate: Array
    flow: Array
    lanes: Lanes
    side_data: Array
    sampled: Array
    total: Array


class SystemLaws(NamedTuple):
    """Kernels of a law: waves of states, mirror images, slopes, variables that are reconstructed and fluxes through
    faces of water over a bottom, ``_move_to_averages``, ``_hll`` and the check of states; whether slopes are limited,
    and whether there is a bottom."""

    waves: Any
    mirror: Any
    slopes: Any
    primitives: Any
    faces: Any
    move: Any
    hll: Any
    check: Any
    reconstructs: bool
    bottom: bool


class SystemGrid(NamedTuple):
    """Layout of a row, its ghost cells, kinds of the sides and spacings."""

    layout: Any
    ghosts: Any
    kinds: Array
    spacing: Array


class Scratch(NamedTuple):
    """Scratch of the rates: variables that are reconstructed and half their slopes, ends of cells and waves there,
    fluxes, four arrays, ghost cells of one side, thin depths now and at the start, and good states; and options of
    ``_hll``."""

    variables: Array
    half: Array
    ends: Array
    waves: Array
    flux: Array
    rest: Array
    near: Array
    thin: Array
    good: Array
    options: Array


class System(NamedTuple):
    """A law on rows: kernels, parameters and bottom, grid, scratch, the limits of steps, and the function that writes
    states at the sides: at the start of rows that are fresh, or, when lengths are known, at the end and in the middle
    of the steps."""

    laws: SystemLaws
    parameters: Array
    ground: Array
    grid: SystemGrid
    scratch: Scratch
    limits: Limits
    write_side_data: Any


class SystemScheme(NamedTuple):
    """Where the steps end, the fraction of a cell that a signal may cross, and the largest and the smallest step."""

    target: float
    courant: float
    longest: float
    smallest: float
