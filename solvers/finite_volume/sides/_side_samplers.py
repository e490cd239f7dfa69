"""Side data of rows in the form that compiled loops over steps take."""

import numpy as np

from solvers.finite_volume.sides._data_kernels import TERMS, Panels, Sampler, Series
from solvers.finite_volume.sides._side_data import SideData


def sampler_of(sides: SideData, largest_step: float) -> Sampler:
    """The data of all sides.

    Args:
        sides: The data of rows; where they change with time, of rows along one axis.
        largest_step: Largest step that sees what changes with time by itself.
    """
    scan, (rows, entries) = sides.scan, sides.fixed.shape
    column, scale = np.full(entries, -1), np.ones((rows, entries))
    for number, each in enumerate(sides.changing):
        column[each.part] = number
        if each.scale is not None:
            scale[:, each.part] = each.scale[:, None]
    if scan is None:
        ends = np.array([sides.start]), np.array([sides.end])
        one = np.array([0, 1])
        panels = Panels(
            np.zeros(rows, np.int64), one, *ends, np.ones(1, np.bool_), np.zeros((1, 2), np.bool_), 0.0, False
        )
        series = Series(one, *ends, np.zeros((1, 1, TERMS)))
    else:
        breaks = scan.ends_at_break, scan.jumps_at_ends
        panels = Panels(sides.scanned_rows, scan.first, scan.low, scan.high, *breaks, scan.margin, scan.has_breaks)
        series = sides.series()
    span = float(sides.start), float(sides.end)
    return Sampler(span, largest_step, sides.fixed, column, scale, sides.dirichlet, panels, series)
