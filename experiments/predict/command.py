"""The command ``predict``: what is printed, and the files."""

import csv
import io
import json as json_module
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from experiments.predict.figure import before_and_after
from experiments.predict.law import ConservedTotals, conserved_totals
from experiments.predict.observations import Observations, read_observations
from experiments.predict.options import PredictOptions
from experiments.predict.prediction import ConstrainedPrediction, predict
from experiments.report.plots import BAND, save
from experiments.storage import writable_folder, write_bytes

_LINE = 79  # characters of a line on the terminal


def predict_command(
    file: Annotated[Path, tyro.conf.Positional],
    options: Annotated[PredictOptions, tyro.conf.arg(name="")],
    json: bool = False,
) -> None:
    """Predicts a field from your observations under a conservation law.

    A Gaussian process is fitted to the columns t, x and u, and conditioned on the total of u over the domain,
    U(t) = initial_total + ∫ (flux_left − flux_right) dt. Fluxes count positive to the right, along +x: a positive left
    flux enters the domain, a positive right flux leaves it.

    Args:
        file: CSV or HDF5 with the columns t, x and u, and with fluxes if the options name them.
        options: The law, the times and the rest.
        json: Print one JSON object on standard output and nothing else there.
    """
    observations = read_observations(file, options.flux_columns)
    law = conserved_totals(observations, options)
    folder = writable_folder(options.out / file.name)
    for note in law.notes:
        print(textwrap.fill(f"note: {note}", _LINE, subsequent_indent="      "), file=sys.stderr)
    prediction = predict(observations, law, options)
    table = folder / "prediction.csv"
    write_bytes(table, _as_csv(prediction, law).encode())
    figure = before_and_after(prediction, law, observations, file.name)
    files = [table, *save(figure, folder / "prediction")]
    if json:
        content = _as_json(prediction, law) | {"files": [str(file) for file in files]}
        print(json_module.dumps(content, ensure_ascii=False))
    else:
        print(_summary(prediction, law, observations))
        print(f"\nTable and figure: {folder}")


def _summary(prediction: ConstrainedPrediction, law: ConservedTotals, observations: Observations) -> str:
    heading = (
        f"Total ∫ u dx over [{law.low:g}, {law.high:g}] by the law, and by the Gaussian process on "
        f"{len(observations.points)} observations before and after it is conditioned on the law:"
    )
    lines = [textwrap.fill(heading, _LINE), "", f"{'t':>10} {'law':>12} {'before':>12} {'after':>12}  mean moved most"]
    before, after = (prediction.totals(field) for field in (prediction.before, prediction.after))
    for index, time in enumerate(law.times):
        change = prediction.change[index]
        most = np.abs(change).argmax()
        lines.append(
            f"{time:10.4g} {law.totals[index]:12.6g} {before[index]:12.6g} {after[index]:12.6g}  "
            f"by {change[most]:+.3g} at x = {prediction.x[most]:.4g}"
        )
    return "\n".join(lines)


def _as_json(prediction: ConstrainedPrediction, law: ConservedTotals) -> dict[str, Any]:
    methods = {"GP": prediction.before, "ProbConserv-GP": prediction.after}
    predictions = [
        {"time": time, "total": total}
        | {
            name: {"mean": field.mean[index].tolist(), "standard_deviation": field.standard_deviation[index].tolist()}
            for name, field in methods.items()
        }
        for index, (time, total) in enumerate(zip(law.times.tolist(), law.totals.tolist(), strict=True))
    ]
    return {"x": prediction.x.tolist(), "predictions": predictions}


def _as_csv(prediction: ConstrainedPrediction, law: ConservedTotals) -> str:
    """One row per time and point."""
    names, columns = ["t", "x"], [*np.broadcast_arrays(law.times[:, None], prediction.x)]
    for name, field in (("GP", prediction.before), ("ProbConserv-GP", prediction.after)):
        names += [f"{name} mean", f"{name} low95", f"{name} high95"]
        band = BAND * field.standard_deviation
        columns += [field.mean, field.mean - band, field.mean + band]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(np.stack([column.ravel() for column in columns], axis=-1).tolist())
    return text.getvalue()
