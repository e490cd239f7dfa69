"""The operators of an experiment under both constraints, trained without being scored: in one process or in several."""

from pathlib import Path

from experiments.errors import UnknownNameError
from experiments.experiment import RunOptions
from experiments.field_config import SIZES
from experiments.field_experiments import study_of
from experiments.field_run import checked_folder
from experiments.field_study import groups
from experiments.train_field import trained_field


def train_fields(name: str, options: RunOptions, role: str | None = None) -> list[Path]:
    """Trains all operators of an experiment, or those of one kind of network; ``run`` then finds them finished.

    Args:
        name: The experiment.
        options: Preset, seed, device and output folder.
        role: Name of the network, for instance ``fno`` or ``end-to-end``; all by default.

    Returns:
        The files of weights.

    Raises:
        UnknownNameError: If there is no such experiment or network.
        InvalidArgumentError: If an option does not belong to these experiments.
        TrainingInterruptedError: If a training was stopped before its end.
        TrainingDivergedError: If a training diverged.
    """
    out = checked_folder(options)
    own = groups(study_of(name), SIZES[options.preset], options.seed)
    trainings = {
        (group.case.name, training.identity): (group.case, training) for group in own for training in group.trainings
    }
    chosen = [pair for pair in trainings.values() if role in (None, pair[1].network.name)]
    if not chosen:
        known = dict.fromkeys(training.network.name for _, training in trainings.values())
        raise UnknownNameError(f"There is no network '{role}' in {name}. Known: {', '.join(known)}.")
    return [trained_field(case, training, out, options.device) for case, training in chosen]
