"""The figures of a stored run for the results page: what they show in words, and their pixels in few bytes."""

import base64
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageSequence

from experiments.errors import DataFileError

Encoded = tuple[str, bytes, int, int]
"""Media type, content, width and height in pixels."""


@dataclass(frozen=True)
class Kind:
    """What figures of one name show.

    Args:
        title: Short name.
        text: What is seen, for captions and for readers who do not see it.
        leading: Whether the page shows it at once.
    """

    title: str
    text: str
    leading: bool = False


_TRUTH = "truth dashed"
KINDS: dict[str, Kind] = {
    "profile": Kind("Profiles", f"predictions at one time, {_TRUTH}", leading=True),
    "mass": Kind("Total mass", "total of the predicted field over time beside the law, and its error", leading=True),
    "fields": Kind("Fields", "the true field and the predicted ones in time and place", leading=True),
    "shift": Kind(
        "Shifted parameters", "CRPS and coverage of every method, in the training range and beyond it", leading=True
    ),
    "study": Kind(
        "Few samples, values out of range, finer grids", "relative L2 of every method on each of them", leading=True
    ),
    "variants": Kind("Variants", f"means and 95 % bands of the variants of ProbConserv-ANP over x, {_TRUTH}"),
    "gp": Kind("Gaussian process", f"means and 95 % bands of the Gaussian process before and after, {_TRUTH}"),
    "local": Kind("Local conservation", f"one law for the whole domain against laws for its parts, {_TRUTH}"),
    "scores": Kind("Scores over time", "mean squared error and log-likelihood of every method over time"),
    "over-time": Kind("Error over time", "relative L2 of every method over time: mean of the samples, and one sample"),
    "calibration": Kind("Calibration", "share of the truth inside central intervals over their level"),
    "front": Kind("Front positions", "histograms of sampled front positions of every method beside the true one"),
    "context": Kind("Observations", "where in time and place a test function was observed"),
    "face-means": Kind("Face means", "u in one cell over time for three averages of the conductivity at faces"),
    "animation": Kind("Animation", "truth and predictions in motion"),
}
"""By the beginning of the file's name, in the order of the page."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A figure's file and its words.

    Args:
        path: PNG or GIF.
        kind: What it shows.
        label: Parameter or version of the problem; may be empty.
    """

    path: Path
    kind: Kind
    label: str

    @property
    def moving(self) -> bool:
        """Whether it is an animation."""
        return self.path.suffix == ".gif"

    @property
    def title(self) -> str:
        """Short name and parameter."""
        return f"{self.kind.title}, {self.label}" if self.label else self.kind.title


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as the page holds it.

    Args:
        title: Short name and parameter.
        text: What is seen.
        alt: Both and the problem, for readers who do not see it.
        data: ``data:`` address with the pixels.
        width: In pixels.
        height: In pixels.
        leading: Whether the page shows it at once.
        moving: Whether it is an animation.
    """

    title: str
    text: str
    alt: str
    data: str
    width: int
    height: int
    leading: bool
    moving: bool


@dataclass(frozen=True, kw_only=True)
class Fineness:
    """How finely pixels are kept.

    Args:
        width: Largest width in pixels.
        quality: WebP quality, 0 to 100; 85 or more allow lossless WebP where that is smaller.
    """

    width: int
    quality: int


def sources(folder: Path, labels: Mapping[str, str]) -> list[Source]:
    """The figures of a run in the order of the page.

    Args:
        folder: Folder of the run.
        labels: What captions call a parameter or version, by what file names call it.
    """
    found = []
    for path in sorted([*folder.glob("*.png"), *folder.glob("*.gif")]):
        names = [name for name in KINDS if path.stem == name or path.stem.startswith(f"{name}-")]
        name = max(names, key=len, default="")
        rest = path.stem.removeprefix(name).removeprefix("-")
        kind = KINDS.get(name) or Kind("Figure", "a figure of this run")
        found.append((list(KINDS).index(name) if name else len(KINDS), Source(path=path, kind=kind, label=rest)))
    order = list(labels)
    found.sort(key=lambda entry: (entry[0], order.index(entry[1].label) if entry[1].label in order else len(order)))
    return [Source(path=s.path, kind=s.kind, label=labels.get(s.label, s.label)) for _, s in found]


def pictures(found: Sequence[tuple[str, Source]], fineness: Fineness) -> list[Picture]:
    """Figures with their pixels.

    Args:
        found: Title of the problem and figure.
        fineness: How finely pixels are kept.

    Raises:
        DataFileError: If a file is no picture.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        encoded = list(pool.map(lambda entry: encode(entry[1].path, fineness), found))
    return [_picture(*entry, pixels) for entry, pixels in zip(found, encoded, strict=True)]


def encode(path: Path, fineness: Fineness) -> Encoded:
    """The smallest of the file as it is and WebP, not wider than asked for.

    Args:
        path: PNG or GIF.
        fineness: How finely pixels are kept.

    Raises:
        DataFileError: If the file is no picture.
    """
    try:
        original = path.read_bytes()
        with Image.open(io.BytesIO(original)) as image:
            media, (width, height) = f"image/{str(image.format).lower()}", image.size
            wide = min(width, fineness.width)
            size = (wide, max(1, round(height * wide / width)))
            frames = [_scaled(frame, size) for frame in ImageSequence.Iterator(image)]
            candidates = [("image/webp", _webp(frames, image.info.get("duration", 0), quality=fineness.quality))]
            if fineness.quality >= 85 and len(frames) == 1:
                candidates.append(("image/webp", _webp(frames, 0, lossless=True, quality=50)))
    except (OSError, ValueError) as error:
        raise DataFileError(f"'{path}' is no picture ({error}); delete it and run again.") from error
    if wide == width:
        candidates.append((media, original))
    media, content = min(candidates, key=lambda entry: len(entry[1]))
    return media, content, *size


def _scaled(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A frame on white, in this size."""
    layer = frame.convert("RGBA")
    opaque = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return opaque if opaque.size == size else opaque.resize(size, Image.Resampling.LANCZOS)


def _webp(frames: Sequence[Image.Image], duration: int, **options: int) -> bytes:
    buffer = io.BytesIO()
    first, *rest = frames
    moving = {"save_all": True, "append_images": rest, "duration": duration, "loop": 0} if rest else {}
    first.save(buffer, "WEBP", method=3, **options, **moving)
    return buffer.getvalue()


def _picture(problem: str, source: Source, encoded: Encoded) -> Picture:
    media, content, width, height = encoded
    return Picture(
        title=source.title,
        text=source.kind.text,
        alt=f"{problem}, {source.title}: {source.kind.text}",
        data=f"data:{media};base64,{base64.b64encode(content).decode()}",
        width=width,
        height=height,
        leading=source.kind.leading,
        moving=source.moving,
    )
