"""Stored runs: ``results/<name>/<hash>/{config,environment,metrics}.json`` and the arrays figures are drawn from."""

import dataclasses
import hashlib
import json
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from experiments.storage import read_object, writable_folder, write_json

PACKAGES = ("probconserv-boon", "torch", "numpy", "scipy", "gpytorch", "linear_operator", "numba")


@dataclass(frozen=True)
class Run:
    """One run of an experiment, identified by its name and config.

    Args:
        name: The experiment.
        config: A frozen dataclass with everything that decides the result, the seed too.
        root: The output folder of all runs.
    """

    name: str
    config: Any
    root: Path

    @property
    def folder(self) -> Path:
        """``root/name/hash``; the same config and version of this package find the same folder."""
        return self.root / self.name / digest(as_json(self.config))

    def open(self) -> Path:
        """Creates the folder and stores config and environment, if an earlier start did not; returns the folder."""
        folder = writable_folder(self.folder)
        write_json(folder / "config.json", as_json(self.config))
        if not (folder / "environment.json").exists():
            write_json(folder / "environment.json", environment())
        return folder

    def finish(self, metrics: dict[str, Any]) -> None:
        """Stores the metrics, and the environment that ``open`` stored beside them: the last file of a run."""
        made = read_object(self.folder / "environment.json")
        write_json(self.folder / "metrics.json", {**metrics, "environment": made})


def as_json(config: Any) -> dict[str, Any]:
    """A dataclass as nested dictionaries with the class names, ready for JSON."""
    content: dict[str, Any] = {"type": type(config).__name__}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        content[field.name] = as_json(value) if dataclasses.is_dataclass(value) else value
    return content


def digest(content: Any) -> str:
    """Twelve hexadecimal digits that identify JSON content together with the version of this package."""
    text = json.dumps([metadata.version(PACKAGES[0]), content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def source_digest(*packages: ModuleType, modules: Sequence[str] = ()) -> str:
    """Twelve hexadecimal digits that identify source code: what was computed by other code is not read back.

    Args:
        packages: Packages whose ``*.py`` count, subfolders too.
        modules: Names of further modules, of the experiments.

    Returns:
        The digest; comments and layout count.
    """
    folders = [Path(str(package.__file__)).parent for package in packages]
    files = [Path(__file__).with_name(f"{name}.py") for name in modules]
    found = sorted({*files, *(file for folder in folders for file in folder.rglob("*.py"))})
    content = hashlib.sha256()
    for file in found:
        content.update(hashlib.sha256(file.read_bytes()).digest())
    return content.hexdigest()[:12]


def environment() -> dict[str, Any]:
    """Versions, revision and machine, as stored with every run and printed with every benchmark."""
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "revision": _git_revision(),
        "machine": {
            "system": platform.platform(),
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


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
