"""Side data of rows in the form that compiled loops over steps take."""

import numpy as np

from solvers.finite_volume.sides._data_kernels import TERMS, Panels, Sampler, Series
from solvers.finite_volume.sides._side_data import SideData


def sampler_of(sides: SideData, largest_step: float, known: bool = True) -> Sampler:
    """The data of all sides.

    Args:
        sides: The data of rows.
        largest_step: Largest step that sees what changes with time by itself.
        known: Whether to make series of the data that change, which takes long with many faces.
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
    else:
        breaks = scan.ends_at_break, scan.jumps_at_ends
        panels = Panels(sides.scanned_rows, scan.first, scan.low, scan.high, *breaks, scan.margin, scan.has_breaks)
    none = Series(np.array([0, 1]), np.array([sides.start]), np.array([sides.end]), np.zeros((1, 1, TERMS)))
    series = sides.series() if known and scan is not None else none
    span = float(sides.start), float(sides.end)
    return Sampler(span, largest_step, sides.fixed, column, scale, sides.dirichlet, panels, series, not sides.constant)
