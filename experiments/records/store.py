"""Config hashes, tables of scores as files, and the machine that they were made on."""

import dataclasses
import gzip
import hashlib
import importlib.util
import json
import platform
import subprocess
import time
import zlib
from collections.abc import Iterable, Mapping
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from experiments.errors import DataFileError
from experiments.records.record import COLUMNS, Arrays, Source, per_function
from experiments.records.storage import write_bytes

PACKAGES = ("probconserv-boon", "torch", "numpy", "scipy", "scikit-learn", "gpytorch", "linear_operator", "numba")
OPTIONAL = ("iterative-ensemble-smoother",)
"""Packages whose versions are stored where they are installed."""
SCORE_KEY = ["case", "method", "seed", "function"]
"""Columns that distinguish rows of scores per function."""


def as_json(value: Any) -> Any:
    """A value as JSON can hold it; dataclasses become dictionaries with the names of their classes.

    Fields that do not take part in comparisons (``field(compare=False)``) are left out, and options that were added
    after a release (``metadata={"later": True}``) as long as they have their default, so that hashes stay. For the same
    reason options that left are there, which a class lists as ``former`` with the values that they would have.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        compared = [
            entry.name
            for entry in dataclasses.fields(value)
            if entry.compare and not ("later" in entry.metadata and getattr(value, entry.name) == entry.default)
        ]
        content = {name: as_json(getattr(value, name)) for name in compared}
        return {"type": type(value).__name__, **content, **getattr(value, "former", {})}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(key): as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_json(entry) for entry in value]
    return value


def config_hash(content: Any) -> str:
    """Twelve hexadecimal digits of JSON content: nothing but the content changes them."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def scores_frame(stored: Iterable[tuple[str, str, int, Arrays]]) -> pd.DataFrame:
    """Scores per function as a table.

    Columns are ``SCORE_KEY``, then one per score; scores with one value per case stand beside the first function.
    """
    parts = []
    for case, method, seed, arrays in stored:
        scores = per_function(arrays)
        count = max((len(values) for values in scores.values()), default=0)
        padded = {
            name: np.pad(values.astype(float), (0, count - len(values)), constant_values=np.nan)
            for name, values in scores.items()
        }
        parts.append(pd.DataFrame({"case": case, "method": method, "seed": seed, "function": range(count), **padded}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=SCORE_KEY)


def scores_file(folder: Path, case: str, method: str, seed: int) -> Path:
    """File of the scores of one method on one case with one seed, by their keys."""
    return folder / "scores" / f"{case}-{method}-{seed}.safetensors"


def write_scores(path: Path, scores: pd.DataFrame) -> None:
    """Writes scores per function as compressed CSV with all digits; the same scores give the same bytes."""
    write_bytes(path, gzip.compress(scores.to_csv(index=False).encode(), mtime=0))


def read_scores(path: Path) -> pd.DataFrame:
    """Reads what ``write_scores`` wrote."""
    return _read_csv(path, SCORE_KEY).astype({"case": str, "method": str})


def write_records(path: Path, records: pd.DataFrame) -> None:
    """Writes records as CSV with all digits."""
    frame = records.assign(source=[source.value for source in records["source"]])
    write_bytes(path, frame.to_csv(index=False).encode())


def read_records(path: Path) -> pd.DataFrame:
    """Reads what ``write_records`` wrote."""
    frame = _read_csv(path, COLUMNS)
    try:
        frame = frame.assign(source=[Source(value) for value in frame["source"]], note=frame["note"].fillna(""))
        return frame.astype({"case": str, "seed": "Int64", "mean": float, "standard_error": float})
    except (ValueError, TypeError) as error:
        raise DataFileError(f"'{path}' holds no records ({error}); delete it and run again.") from error


def _read_csv(path: Path, columns: Iterable[str]) -> pd.DataFrame:
    try:
        frame = pd.read_csv(
            path, dtype={"case": str, "method": str, "note": str}, keep_default_na=False, na_values=[""]
        )
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise DataFileError(f"'{path}' cannot be read as a table ({error}); delete it and run again.") from error
    missing = [name for name in columns if name not in frame]
    if missing:
        raise DataFileError(f"'{path}' lacks the column '{missing[0]}'; delete it and run again.")
    return frame


def environment() -> dict[str, Any]:
    """Versions, revision and machine, as stored with every run and printed with every benchmark."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in (*PACKAGES, *filter(_is_installed, OPTIONAL))},
        "revision": _git_revision(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name.replace("-", "_")) is not None


def _git_revision() -> str | None:
    """Revision of the source tree, with "+" if it has uncommitted changes; None outside a checkout."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            result = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return None
        return result.stdout.strip() if result.returncode == 0 else None

    tracked = git("ls-files", "--error-unmatch", Path(__file__).name)
    revision = git("rev-parse", "--short=12", "HEAD")
    if tracked is None or revision is None:
        return None
    return revision + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
