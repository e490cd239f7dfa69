"""The command that imposes all laws and bounds on the published draws of PCFM."""

import json as json_module
from dataclasses import fields
from pathlib import Path
from typing import Annotated

import tyro

from experiments.errors import InvalidArgumentError
from experiments.generation.published import FILE, Constrained, constrain_published
from experiments.storage import write_arrays
from probconserv import InvalidArgumentError as RefusedError


def constrain_command(
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER", help=f"Folder with {FILE}.")],
    n: Annotated[int | None, tyro.conf.arg(metavar="N", help="Number of draws; all of them by default.")] = None,
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help="File for the fields, safetensors.")] = None,
    json: Annotated[bool, tyro.conf.arg(help="Print one JSON object on standard output.")] = False,
) -> None:
    """Imposes laws and [0, 1] on PCFM's published draws."""
    if n is not None and n < 1:
        raise InvalidArgumentError(f"--n must be at least 1, got {n}.")
    try:
        result = constrain_published(folder, n)
    except RefusedError as error:
        raise InvalidArgumentError(f"{error} The file is in the repository xenakistheo/PCFM.jl.") from error
    if out is not None:
        write_arrays(out, {"fields": result.fields.numpy()})
    if json:
        shown = {entry.name: getattr(result, entry.name) for entry in fields(result) if entry.name != "fields"}
        print(json_module.dumps(shown))
    else:
        print("\n".join(_lines(result)))


def _lines(result: Constrained) -> list[str]:
    """What a reader wants to know, within 80 columns."""
    (below, above), (below_after, above_after) = result.outside, result.outside_after
    return [
        f"{result.draws} published draws under {result.rows} rows and [0, 1]: {result.seconds:.1f} s",
        f"{'':16}{'before':>12}{'after':>12}",
        f"{'below 0':16}{below:>12.1%}{below_after:>12.1%}",
        f"{'above 1':16}{above:>12.1%}{above_after:>12.1%}",
        *(f"{kind:16}{before:>12.1e}{after:>12.1e}" for kind, (before, after) in result.residuals.items()),
        f"Values moved by {result.moved:.2g} (root mean square).",
    ]
