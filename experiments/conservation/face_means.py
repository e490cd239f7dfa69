"""u at a fixed point against time for the face means of the finite volumes on the Stefan problem.

The arithmetic and harmonic means of a discontinuous conductivity lock the front or make the solution oscillate in
time; the integral mean advances it in small monotone stair-steps (Maddix, Sampaio, Gerritsen, J. Comput. Phys. 2018).
"""

from pathlib import Path

import torch
from matplotlib.figure import Figure

from experiments import plots
from experiments.conservation.cases import Case
from experiments.storage import Arrays, cached_arrays
from solvers import CellGrid, solve
from solvers.finite_volume.diffusion.face_means import ArithmeticMean, HarmonicMean, IntegralMean
from solvers.problems import STEFAN

POINT, THRESHOLD, CELLS, END, TIMES = 0.1, 0.5, 50, 0.04, 400
MEANS = {"arithmetic mean": ArithmeticMean(), "harmonic mean": HarmonicMean(), "integral mean": IntegralMean()}


def face_mean_traces() -> Arrays:
    """``times``, ``exact`` and by the name of the mean u in the cell of the point, ``(t,)`` each."""
    grid = CellGrid(*STEFAN.domain, CELLS)
    cell = int(torch.searchsorted(grid.faces[0], POINT)) - 1
    times = torch.linspace(0.0, END, TIMES + 1, dtype=torch.float64)[1:]
    arrays = {"times": times, "exact": STEFAN.solution(times, grid.points[cell], THRESHOLD)}
    law, boundary = STEFAN.law(THRESHOLD), STEFAN.boundary(THRESHOLD)
    for name, mean in MEANS.items():
        result = solve(law, grid, boundary=boundary, initial=0.0, times=times, face_mean=mean)
        arrays[name] = result.values[:, cell]
    return {name: values.numpy() for name, values in arrays.items()}


def face_means(case: Case, folder: Path) -> dict[str, Figure]:
    """A panel per face mean, for the case of the threshold; traces are stored once in the folder of the run."""
    if case.parameter != THRESHOLD:
        return {}
    arrays = cached_arrays(folder / "face-means.safetensors", face_mean_traces)
    title = f"Stefan problem, u* = {THRESHOLD}, {CELLS} cells: u in one cell against time"
    figure, axes = plots.panels(len(MEANS), title, width=0.72)
    for panel, name, colour in zip(axes, MEANS, (plots.VERMILION, plots.ORANGE, plots.BLUE), strict=True):
        panel.plot(arrays["times"], arrays[name], color=colour, lw=1.3, label="finite volumes")
        panel.plot(arrays["times"], arrays["exact"], color=plots.TRUTH, lw=1.0, ls="--", label="exact")
        panel.set_title(name, fontsize=10)
        panel.set_xlabel("t")
    axes[0].set_ylabel(f"u at x = {POINT:g}")
    plots.legend_below(figure, axes[0], grey=("finite volumes",))
    return {"face-means": figure}
