"""The command ``predict``: what is printed, and the files."""

import json as json_module
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import tyro

from experiments.plots import BAND, save
from experiments.predict.law import ConservedTotals, PredictOptions, conserved_totals
from experiments.predict.observations import read_observations
from experiments.predict.prediction import ConstrainedPrediction, Marginals, before_and_after, contradiction, predict
from experiments.records.storage import checksum, writable_folder, write_bytes, write_json
from experiments.records.store import config_hash

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
        file: CSV or HDF5 with the columns t, x and u, or those of --columns, and with fluxes if the options name them.
        options: The law, the times and the rest.
        json: Print one JSON object on standard output and nothing else there.
    """
    observations = read_observations(file, options.flux_columns, options.names, options.skip_missing)
    law = conserved_totals(observations, options)
    folder = _folder(file, options)
    _print_notes(law.notes)
    prediction = predict(observations, law, options)
    found = [note for note in [contradiction(prediction, law, observations, options)] if note]
    _print_notes(found)
    methods = (("GP", prediction.before), ("ProbConserv-GP", prediction.after))
    table = folder / "prediction.csv"
    write_bytes(table, _table(prediction.x, law, methods).to_csv(index=False, lineterminator="\n").encode())
    figure = before_and_after(prediction, law, observations, file.name)
    files = [str(file) for file in (table, *save(figure, folder / "prediction"))]
    if json:
        content = _as_json(prediction, law, methods) | {"notes": [*law.notes, *found], "files": files}
        print(json_module.dumps(content, ensure_ascii=False))
    else:
        _print_summary(prediction, law, len(observations.points))
        print(f"\nTable and figure: {folder}")


def _folder(file: Path, options: PredictOptions) -> Path:
    """Creates ``out/<file>/<config hash>`` with ``config.json``, which says what the prediction is of."""
    chosen = {name: value for name, value in vars(options).items() if name != "out"} | {"columns": options.names}
    config = {"file": file.name, "checksum": checksum(file), "options": chosen}
    folder = writable_folder(options.out / file.name / config_hash(config))
    write_json(folder / "config.json", config)
    return folder


def _print_notes(notes: Sequence[str]) -> None:
    for note in notes:
        print(textwrap.fill(f"note: {note}", _LINE, subsequent_indent="      "), file=sys.stderr)


def _as_json(
    prediction: ConstrainedPrediction, law: ConservedTotals, methods: Sequence[tuple[str, Marginals]]
) -> dict[str, Any]:
    """The domain, the points, and the fields at every time."""
    numbers = zip(law.times.tolist(), law.totals.tolist(), prediction.standardised_residual.tolist(), strict=True)
    predictions = [
        {"time": time, "total": total, "standardised_residual": residual}
        | {name: {key: values[i].tolist() for key, values in field._asdict().items()} for name, field in methods}
        for i, (time, total, residual) in enumerate(numbers)
    ]
    return {"domain": [law.low, law.high], "x": prediction.x.tolist(), "predictions": predictions}


def _print_summary(prediction: ConstrainedPrediction, law: ConservedTotals, rows: int) -> None:
    """Totals by the law, before and after, and where the mean moved most."""
    heading = (
        f"Total ∫ u dx over [{law.low:g}, {law.high:g}] by the law, and by the Gaussian process on {rows} observations "
        "before and after it is conditioned on the law:"
    )
    print(f"{textwrap.fill(heading, _LINE)}\n\n{'t':>10} {'law':>12} {'before':>12} {'after':>12}  mean moved most")
    totals = [law.totals, *(prediction.totals(field) for field in (prediction.before, prediction.after))]
    for time, change, *row in zip(law.times, prediction.change, *totals, strict=True):
        most = np.abs(change).argmax()
        numbers = " ".join(f"{total:12.6g}" for total in row)
        print(f"{time:10.4g} {numbers}  by {change[most]:+.3g} at x = {prediction.x[most]:.4g}")


def _table(x: np.ndarray, law: ConservedTotals, methods: Sequence[tuple[str, Marginals]]) -> pd.DataFrame:
    """One row per time and point."""
    columns = dict(zip(("t", "x"), np.broadcast_arrays(law.times[:, None], x), strict=True))
    for name, (mean, deviation) in methods:
        band = BAND * deviation
        columns |= {f"{name} mean": mean, f"{name} low95": mean - band, f"{name} high95": mean + band}
    return pd.DataFrame({name: column.ravel() for name, column in columns.items()})
