"""The moving picture of README: a front over time, in three predictions.

``python -m docs.moving_front`` writes ``docs/figures/front.gif``: a network
that saw 100 values of one field of the Stefan problem, its mean shifted onto
the total at each time (HardC), and conditioned on total, sign and order.
"""

import io

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from PIL import Image

from docs.drawings import BARE, FIGURES, PROBCONSERV, STYLE, TRUTH
from experiments import load_pretrained
from probconserv import (
    Context,
    Monotone,
    NonNegative,
    Query,
    condition,
    integral,
)
from probconserv.baselines import project_uniformly
from probconserv.surrogates.surrogate import Surrogate
from solvers import NodeGrid
from solvers.problems import STEFAN

HARD = "#009E73"
PARAMETER = 0.6
FIRST = 4  # of the times: the frame that a still picture shows
TIMES = torch.linspace(0.04, 0.1, 13, dtype=torch.float64)
PIXELS_PER_INCH = 128
COLOURS = 128
MILLISECONDS = 450


def frames() -> list[Image.Image]:
    """One frame per time, the one that shows most first."""
    generator = torch.Generator().manual_seed(2)
    sides = torch.tensor([[0.1], [1.0]], dtype=torch.float64)
    random = torch.rand(2, 100, generator=generator, dtype=torch.float64)
    t, x = random * sides
    values = STEFAN.solution(t, x, PARAMETER)
    observed = Context(torch.stack((t, x), dim=-1), values)
    network = load_pretrained("stefan")
    order = torch.cat((TIMES[FIRST:], TIMES[:FIRST])).tolist()
    return [_frame(network, observed, time) for time in order]


def _frame(network: Surrogate, observed: Context, time: float) -> Image.Image:
    grid = NodeGrid(0.0, 1.0, 201)
    times = torch.full_like(grid.points, time)
    query = Query(torch.stack((times, grid.points), dim=-1))
    truth = STEFAN.solution(times, grid.points, PARAMETER)
    total = integral(grid, STEFAN.total(time, PARAMETER))
    with torch.no_grad():
        bare = network.predict(observed, query)
    order = Monotone(decreasing=True) & NonNegative()
    panels = (
        ("network", BARE, bare),
        ("shifted (HardC)", HARD, project_uniformly(bare, total)),
        ("law and order", PROBCONSERV, condition(bare, total & order)),
    )
    figure = Figure(figsize=(10, 3.5), layout="constrained")
    figure.suptitle(f"A melting front, t = {time:.3f}. Dashed: the truth")
    row = figure.subplots(1, len(panels), sharey=True)
    for axes, (name, colour, prediction) in zip(row, panels, strict=True):
        mean, deviation = prediction.mean, prediction.variance.sqrt()
        low, high = mean - 1.96 * deviation, mean + 1.96 * deviation
        if name == panels[-1][0]:
            low = low.clamp(min=0.0)
        axes.fill_between(grid.points, low, high, color=colour, alpha=0.3, lw=0)
        axes.plot(grid.points, mean, color=colour, lw=2.5)
        axes.plot(grid.points, truth, color=TRUTH, lw=1.2, ls="--")
        missed = abs(float(torch.trapezoid(mean, grid.points) - total.b))
        axes.set_title(f"{name}: total off by {missed:.4f}", fontsize=12)
        axes.set(xlim=(0.18, 0.38), ylim=(-0.15, 0.85), xlabel="x")
        axes.set_xticks((0.2, 0.25, 0.3, 0.35))
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=PIXELS_PER_INCH)
    return Image.open(buffer).convert("RGB")


def main() -> None:
    """Writes the picture."""
    with mpl.rc_context(STYLE):
        first, *others = (frame.quantize(COLOURS) for frame in frames())
    first.save(
        FIGURES / "front.gif",
        save_all=True,
        append_images=others,
        duration=MILLISECONDS,
        loop=0,
        optimize=True,
    )


if __name__ == "__main__":
    main()
