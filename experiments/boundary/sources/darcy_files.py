"""The small set for Darcy flow that comes with neuraloperator; it is read from a folder and is no part of this package.

Fields are on 16 or 32 points an axis, the first on the wall, the last one spacing inside. One node with u = 0 is added
on the last sides, where the coefficient is continued as a constant: 17 or 33 nodes, both walls included. On the first
wall the pressure of the set is about 1 % of its size rather than 0.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from typing_extensions import override

from experiments.boundary.sources.source import Conditions, DataStore, SampleConfig, Samples, Source
from experiments.errors import DataFileError, MissingFilesError
from solvers import Dirichlet

_WALLS = (Dirichlet(0.0), Dirichlet(0.0))
CHECKSUMS = {
    "darcy_train_16.pt": "0be662acdb1dab7dfd1a1da0b140e97f75cc94f98a14edcf768abe6968b3b418",
    "darcy_test_16.pt": "d2b19af9d4a6ae04ba2de54b8ecccc8b89766472faf6ce7f506c0b2a60f69a4c",
    "darcy_test_32.pt": "bcbd10622373e94df84a17fcdb72ac4317d76e024c2499d21fd1fd34d0742cfd",
}
"""SHA-256 of the files."""


@dataclass(frozen=True, kw_only=True)
class DarcyFiles(Source):
    """−∇·(a ∇u) = f with u = 0 on all walls."""

    checksums: Mapping[str, str] = field(default_factory=lambda: dict(CHECKSUMS))

    @property
    def name(self) -> str:
        return "darcy_small"

    @property
    def equation(self) -> str:
        return "-div(a grad u) = f, a of two phases, u = 0 on all walls"

    @property
    def conditions(self) -> tuple[Conditions, ...]:
        return ((_WALLS, _WALLS),)

    @override
    def times(self, config: SampleConfig) -> Tensor:
        return torch.zeros(1, dtype=torch.float64)

    def describe(self, config: SampleConfig) -> dict[str, Any]:
        numbers = {name: getattr(config, name) for name in ("samples", "validation", "split")}
        return {"problem": self.name, "file": self._file(config), "checksums": dict(self.checksums), "config": numbers}

    def samples(self, config: SampleConfig, store: DataStore) -> Samples:
        """The first samples of a file; the validation set are its last."""
        name = self._file(config)
        if store.given is None:
            raise MissingFilesError(
                f"{self.name} reads '{name}' of the small set for Darcy flow in neuraloperator's repository, which "
                "does not come with this package; give its folder as --files FOLDER."
            )
        fields = self._read(store.given / name)
        count, validation = len(fields["y"]), config.validation
        if config.samples > count:
            raise DataFileError(f"'{store.given / name}' has {count} samples, not {config.samples}.")
        rows = [*range(config.samples - validation), *range(count - validation, count)]
        a, u = (fields[key][rows].to(torch.float32)[:, None] for key in ("x", "y"))
        return Samples(
            times=self.times(config),
            input=pad(a, (0, 1, 0, 1), mode="replicate"),
            output=pad(u, (0, 1, 0, 1))[:, None],
            values=(None, None),
        )

    def _file(self, config: SampleConfig) -> str:
        return f"darcy_{config.split}_{config.nodes - 1}.pt"

    def _read(self, path: Path) -> dict[str, Tensor]:
        if path.name not in self.checksums:
            raise DataFileError(f"There is no '{path.name}' in this set; it has {', '.join(self.checksums)}.")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DataFileError(f"'{path}' cannot be read ({error}); give its folder as --files FOLDER.") from error
        if hashlib.sha256(content).hexdigest() != self.checksums[path.name]:
            raise DataFileError(f"'{path}' is damaged or another file than neuraloperator's; get it again.")
        return torch.load(path, weights_only=True)
