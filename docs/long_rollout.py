"""The moving picture of the README.

``python -m docs.long_rollout FOLDER`` writes ``docs/figures/rollout.gif`` from
a run of ``open_rollouts`` in that folder: an FNO over 2,000 steps of nonlinear
heat, alone and under its walls and balance.
"""

import io
import sys
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from docs.drawings import BARE, FIGURES, PROBCONSERV, STYLE, TRUTH
from experiments.boundary.open_rollouts.experiment import OpenRolloutExperiment
from experiments.boundary.open_rollouts.methods import predicted
from experiments.experiment import RunContext, RunOptions

ROWS = {
    "FNO alone": ("fno", BARE),
    "under its balance": ("fno-walls-response", PROBCONSERV),
}
FRAMES = 30
COLOURS, MILLISECONDS, PIXELS_PER_INCH = 32, 220, 96


def rollouts(folder: Path) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Nodes, the truth and the rows, fields ``(functions, steps, nodes)``."""
    context = RunContext(options=RunOptions(preset="laptop", out=folder))
    experiment = OpenRolloutExperiment()
    case = next(case for case in experiment.cases(context) if case.long)
    rows = {}
    for method in experiment.methods(case):
        if method.key in [key for key, _ in ROWS.values()]:
            trainings = experiment.trainings(case, method, 0, context)
            files = [training.weights(folder) for training in trainings]
            fields = predicted(case, method, 0, files).fields
            rows[method.key] = fields[:, :, 0].double()
    truth = case.functions("test").fields[:, :, 0].double()
    return case.system.grid.points, truth, rows


def frames(folder: Path) -> list[Image.Image]:
    """The frames, the last one first: it is what a still picture shows."""
    x, truth, rows = rollouts(folder)
    last = truth.shape[1] - 1
    steps = torch.linspace(1, last**0.5, FRAMES).square().round().long()
    scale = truth.square().mean(dim=(1, 2)).sqrt()[:, None]
    errors = {
        key: ((u - truth).square().mean(dim=2).sqrt() / scale).mean(dim=0)
        for key, u in rows.items()
    }
    totals = {
        key: torch.trapezoid(u - truth, x).abs().mean(dim=0).clamp(min=1e-6)
        for key, u in rows.items()
    }
    shown = [_frame(x, truth, rows, errors, totals, int(n)) for n in steps]
    return [shown[-1], *shown]


def _frame(
    x: Tensor,
    truth: Tensor,
    rows: dict[str, Tensor],
    errors: dict[str, Tensor],
    totals: dict[str, Tensor],
    step: int,
) -> Image.Image:
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    figure.suptitle(f"One FNO, {step:,} steps of nonlinear heat")
    left.plot(x, truth[0, step], color=TRUTH, ls="--", lw=1.4, label="truth")
    for label, (key, colour) in ROWS.items():
        left.plot(x, rows[key][0, step], color=colour, lw=2.2, label=label)
        for axes, values in ((middle, errors), (right, totals)):
            axes.plot(values[key][1 : step + 1], color=colour, lw=1.6)
    low, high = float(truth[0].min()), float(truth[0].max())
    margin = 0.6 * (high - low)
    left.set(title="one field", ylim=(low - margin, high + margin))
    left.legend(frameon=False, loc="lower left", fontsize=9)
    count = truth.shape[1]
    for axes, title, values in (
        (middle, "relative error", errors),
        (right, "error of the total", totals),
    ):
        both = torch.stack(list(values.values()))[:, 1:]
        limits = (0.7 * float(both.min()), 1.5 * float(both.max()))
        axes.set(title=title, yscale="log", xlim=(0, count), ylim=limits)
        axes.set_xlabel("step")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=PIXELS_PER_INCH)
    return Image.open(buffer).convert("RGB")


def main(folder: Path) -> None:
    """Writes the picture."""
    with mpl.rc_context({**STYLE, "font.size": 11}):
        drawn = frames(folder)
        plain = {"dither": Image.Dither.NONE}
        palette = drawn[0].quantize(COLOURS, **plain)
        first, *others = (
            each.quantize(palette=palette, **plain) for each in drawn
        )
    first.save(
        FIGURES / "rollout.gif",
        save_all=True,
        append_images=others,
        duration=[2500, *[MILLISECONDS] * len(others)],
        loop=0,
        optimize=True,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
