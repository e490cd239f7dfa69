"""u at a fixed place against time for the face means of the finite volumes on the Stefan problem.

The arithmetic and harmonic means of a discontinuous conductivity lock the front or make the solution oscillate in
time; the integral mean advances it in small monotone stair-steps (Maddix, Sampaio, Gerritsen, J. Comput. Phys. 2018).
"""

from pathlib import Path

import torch

from experiments import figures
from experiments.storage import Arrays, cached_arrays
from solvers import CellGrid, solve
from solvers.finite_volume.fluxes import ArithmeticMean, HarmonicMean, IntegralMean
from solvers.problems import STEFAN

PLACE = 0.1
THRESHOLD = 0.5
CELLS = 50
END = 0.04
TIMES = 400
MEANS = {"arithmetic mean": ArithmeticMean(), "harmonic mean": HarmonicMean(), "integral mean": IntegralMean()}


def face_mean_traces() -> Arrays:
    """Solves the Stefan problem with every face mean.

    Returns:
        ``times`` (t,), ``exact`` (t,) and, by the name of the mean, u in the cell that holds the place (t,).
    """
    grid = CellGrid(*STEFAN.domain, CELLS)
    cell = int(torch.searchsorted(grid.faces[0], PLACE)) - 1
    times = torch.linspace(0.0, END, TIMES + 1, dtype=torch.float64)[1:]
    arrays: Arrays = {
        "times": times.numpy(),
        "exact": STEFAN.solution(times, grid.points[cell], THRESHOLD).numpy(),
    }
    for name, mean in MEANS.items():
        result = solve(
            STEFAN.law(THRESHOLD), grid, boundary=STEFAN.boundary(THRESHOLD), initial=0.0, times=times, face_mean=mean
        )
        arrays[name] = result.values[:, cell].numpy()
    return arrays


def draw_face_means(folder: Path) -> list[Path]:
    """Draws what ``face_mean_traces`` makes, stored once in the folder of the run, as PNG and PDF."""
    arrays = cached_arrays(folder / "face-means.h5", face_mean_traces)
    figure = figures.traces(
        arrays["times"],
        {name: arrays[name] for name in MEANS},
        f"Stefan problem, u* = {THRESHOLD}, {CELLS} cells: u in one cell against time",
        PLACE,
        arrays["exact"],
    )
    return figures.save(figure, folder / "face-means")
