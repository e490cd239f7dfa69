"""The option ``--files``: which experiments read files that other people made."""

from experiments import registry
from experiments.boundary.sources import DarcyFiles
from experiments.errors import InvalidArgumentError
from experiments.experiment import Experiment, RunOptions

READER = DarcyFiles().name
"""The problem whose experiments do; those that users register may."""


def require_reader(options: RunOptions, *entries: Experiment) -> None:
    """Raises InvalidArgumentError if files are given that none of the experiments reads."""
    registered = registry.families().get("registered", {})
    reads = (getattr(entry, "problem", None) == READER or entry.name in registered for entry in entries)
    if options.files is not None and not any(reads):
        names = ", ".join(entry.name for entry in entries)
        raise InvalidArgumentError(f"--files means nothing for {names}: only {READER} reads files; leave it out.")
