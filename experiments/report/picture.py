"""The figure that stands for an experiment: of released results a small copy in the library, of a run its first one.

``python -m experiments.maintain release NAME`` makes the small copy.
"""

import io
from pathlib import Path

from PIL import Image

from experiments.errors import DataFileError
from experiments.storage import read_object, write_bytes

FOLDER = Path(__file__).parent / "figures"
SMALL, LARGE = 640, 1280
"""Widths in pixels of the copies that come with the library, and of figures on the page."""
LARGEST = 40_000
"""Bytes of a small copy."""
_COLOURS = (256, 128, 64, 32, 16)


def leading_figure(name: str, run: Path | None) -> bytes | None:
    """The figure of results as PNG; None if the run has drawn none, or none comes with the library."""
    if run is None:
        released = FOLDER / f"{name}.png"
        return released.read_bytes() if released.is_file() else None
    drawn = _first_figure(run)
    return None if drawn is None else shrunk(drawn, LARGE)


def keep_figure(name: str, run: Path, folder: Path = FOLDER) -> list[Path]:
    """Writes a small copy of the first figure of a run into a folder; returns its file, or nothing without a figure."""
    drawn = _first_figure(run)
    if drawn is None:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{name}.png", shrunk(drawn, SMALL, LARGEST))
    return [folder / f"{name}.png"]


def _first_figure(run: Path) -> Path | None:
    names = read_object(run / "metrics.json").get("figures", [])
    return run / names[0] if names else None


def shrunk(path: Path, width: int, largest: int | None = None) -> bytes:
    """A figure as a PNG of few colours and at most these sizes, in pixels and bytes; colours are given up for bytes."""
    try:
        picture = Image.open(path).convert("RGB")
    except OSError as error:
        raise DataFileError(f"'{path}' cannot be read as a picture ({error}); run the experiment again.") from error
    picture.thumbnail((width, 10 * width), Image.Resampling.LANCZOS)
    content = b""
    for colours in _COLOURS:
        buffer = io.BytesIO()
        picture.quantize(colours, dither=Image.Dither.NONE).save(buffer, format="PNG", optimize=True)
        content = buffer.getvalue()
        if largest is None or len(content) <= largest:
            break
    return content
