"""The figure that stands for an experiment: of released results a copy in the library, of a run its first one.

``python -m experiments.maintain release NAME`` makes the copy; ``figures`` draws those anew that need records alone.
"""

import io
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

from experiments.errors import DataFileError
from experiments.plots import WIDTH, resolution
from experiments.records.overview import draw_overview
from experiments.records.run import FILE
from experiments.records.storage import read_object, write_bytes
from experiments.report.results import Results

FOLDER = Path(__file__).parent / "figures"
COLOURS = 256
"""Of figures on the page."""


def leading_figure(name: str, run: Path | None) -> bytes | None:
    """The figure of results as PNG; None if the run has drawn none, or none comes with the library."""
    if run is None:
        released = FOLDER / f"{name}.png"
        return released.read_bytes() if released.is_file() else None
    drawn = _first_figure(run)
    return None if drawn is None else shrunk(drawn)


def keep_figure(name: str, run: Path, folder: Path = FOLDER) -> list[Path]:
    """Writes a copy of the first figure of a run into a folder; returns its file, or nothing without a figure."""
    drawn = _first_figure(run)
    if drawn is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{name}.png", shrunk(drawn))
    return [folder / f"{name}.png"]


def redraw(results: Results, *figures: Figure, folder: Path = FOLDER) -> Path:
    """Keeps the first of the figures, without any the main score of all methods of the results; returns the file."""
    figure = figures[0] if figures else draw_overview(results.description, results.records, results.scores)
    buffer = io.BytesIO()
    if figure is None:
        raise DataFileError(f"The records of '{results.name}' have no two methods to compare.")
    figure.savefig(buffer, format="png", dpi=resolution(figure))
    write_bytes(folder / f"{results.name}.png", _reduced(Image.open(buffer)))
    return folder / f"{results.name}.png"


def _first_figure(run: Path) -> Path | None:
    names = read_object(run / FILE).get("figures", [])
    return run / names[0] if names else None


def shrunk(path: Path) -> bytes:
    """A figure as a PNG of the page's width at most."""
    try:
        return _reduced(Image.open(path))
    except OSError as error:
        raise DataFileError(f"'{path}' cannot be read as a picture ({error}); run the experiment again.") from error


def _reduced(picture: Image.Image) -> bytes:
    picture = picture.convert("RGB")
    picture.thumbnail((WIDTH, 10 * WIDTH), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
