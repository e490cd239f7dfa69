"""The first minute: one field of the Stefan problem, predicted by the released network, without and with the law."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.conservation.cases import Sizes
from experiments.conservation.experiment import EXPERIMENTS
from experiments.conservation.figures import Drawing, draw_profile, drawing_of
from experiments.experiment import RunContext, RunOptions
from experiments.plots import save
from experiments.records.release import released_weights
from experiments.stages import one_thread
from experiments.storage import writable_folder

METHODS = ("truth", "anp", "probconserv-anp")
SIZES = Sizes(functions=9, samples=20, curve_functions=1, curve_times=2)


def show(out: Path) -> None:
    """Prints one prediction without and with its conservation law, and draws it.

    Args:
        out: Folder of the picture.
    """
    drawing = _score(RunContext(options=RunOptions(preset="laptop", out=out), released=True))
    before, after = (drawing.scored[key] for key in METHODS[1:])
    (picture, _) = save(draw_profile(drawing, before, after), writable_folder(out / "demo") / "stefan")
    points, shown = drawing.truth["points"], drawing.shown
    moved = drawing.profile(after)[0] - drawing.profile(before)[0]
    furthest = int(np.abs(moved).argmax())
    print("Stefan problem, u* = 0.6: a front moves into a cold medium. A neural process saw")
    print("100 values of one field. It predicts the field at t = 0.05; its total is known.\n")
    print(f"{'':24}{'network':>14}{'under the law':>16}")
    for label, score in {"total is off by": "signed_CE", "mean squared error": "MSE", "log-likelihood": "LL"}.items():
        values = (float(entry.arrays[score][shown]) for entry in (before, after))
        print(f"{label:24}" + "".join(f"{value:>{width}.3g}" for value, width in zip(values, (14, 16), strict=True)))
    print(
        f"\nThe law moved the field most at x = {points[furthest]:.3f}, by {moved[furthest]:+.3f}: at the front "
        f"({drawing.front:.3f}),\nwhere the network was unsure."
    )
    print(f"Picture: {picture}\nNext: python -m experiments reproduce stefan")


def _score(context: RunContext) -> Drawing:
    """The network and its update on a few functions."""
    experiment = EXPERIMENTS["stefan"]
    case = replace(experiment.cases(context)[0], data="exact", sizes=SIZES)
    stored = []
    with one_thread():
        for method in experiment.methods(case):
            if method.key in METHODS:
                trainings = experiment.trainings(case, method, 0, context)
                weights = [released_weights(str(training.release)) for training in trainings]
                stored.append((method, experiment.score(case, method, 0, weights, context)))
    drawing = drawing_of(case, stored)
    assert drawing is not None
    return drawing
