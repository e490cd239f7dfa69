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
from experiments.records.storage import writable_folder
from experiments.stages import one_thread

METHODS = {
    "network": "anp",
    "HardC": "hardc-anp",
    "law": "probconserv-anp",
    "law, u ≥ 0": "probconserv-anp-non-negative",
}
SCORES = {
    "total is off by": "signed_CE",
    "CRPS of 9, in 1/1000": "CRPS",
    "truth in the 90 % band": "coverage90",
    "smallest temperature": "mean",
}
SIZES = Sizes(functions=9, samples=20, curve_functions=1, curve_times=2)


def show(out: Path) -> None:
    """Prints the scores of one prediction without and with its conservation law, and draws it.

    Args:
        out: Folder of the picture.
    """
    drawing = _score(RunContext(options=RunOptions(preset="laptop", out=out), released=True))
    first, *_, last = columns = [drawing.scored[key] for key in METHODS.values()]
    (picture, _) = save(draw_profile(drawing, first, last), writable_folder(out / "demo") / "stefan")
    print("Stefan problem, u* = 0.6: a front moves into a cold medium. A neural process saw")
    print("100 values of one field. It predicts the field at t = 0.05; its total is known.\n")
    print(f"{'':24}" + "".join(f"{name:>14}" for name in METHODS))
    for label, score in SCORES.items():
        values = [entry.arrays[score] if score == "CRPS" else entry.arrays[score][drawing.shown] for entry in columns]
        print(f"{label:24}" + "".join(f"{_text(score, each):>14}" for each in values))
    shifted, ours = (columns[number].arrays["coverage90"][drawing.shown] for number in (1, -1))
    points = drawing.truth["points"]
    change = drawing.profile(last)[0] - drawing.profile(first)[0]
    furthest = int(np.abs(change).argmax())
    print(
        f"\nThe law and the sign moved the field most at x = {points[furthest]:.3f}, by {change[furthest]:+.3f}: "
        f"near the\nfront ({drawing.front:.3f}), where the network was unsure. The 90 % band holds {ours:.0%} of\n"
        f"the truth; that of the field shifted onto its total (HardC) holds {shifted:.0%}."
    )
    print(f"Picture: {picture}\nNext: python -m experiments reproduce stokes")


def _text(score: str, values: np.ndarray) -> str:
    """The mean CRPS of all functions, a score of the one shown, or the smallest of its values."""
    if score == "coverage90":
        return f"{float(values):.0%}"
    return f"{1000 * float(values.mean()):.2f}" if score == "CRPS" else f"{float(values.min()):.3g}"


def _score(context: RunContext) -> Drawing:
    """The network and its update on a few functions."""
    experiment = EXPERIMENTS["stefan"]
    case = replace(experiment.cases(context)[0], data="exact", sizes=SIZES)
    stored = []
    with one_thread():
        for method in experiment.methods(case):
            if method.key in ("truth", *METHODS.values()):
                trainings = experiment.trainings(case, method, 0, context)
                weights = [released_weights(str(training.release)) for training in trainings]
                stored.append((method, experiment.score(case, method, 0, weights, context)))
    drawing = drawing_of(case, stored)
    assert drawing is not None
    return drawing
