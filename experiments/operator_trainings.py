"""The operators of a boundary-condition experiment, trained without being scored: in one process or in several."""

from pathlib import Path

from experiments.errors import UnknownNameError
from experiments.experiment import RunOptions
from experiments.operator_methods import methods
from experiments.operator_problems import boundary_cases
from experiments.operator_run import place_of, seeds
from probconserv.training import launched, say_once
from experiments.train_operator import shareable, slug, trained_operator


def train_operators(name: str, options: RunOptions, role: str | None = None) -> list[Path]:
    """Trains all operators of an experiment, or those of one method; ``run`` then finds them finished.

    Several processes leave out methods that only one can train, and say so on standard error.

    Args:
        name: The experiment.
        options: Preset, cases, seed, device and output folder.
        role: Name of a method as in file names, for instance ``boon-default``; all by default.

    Returns:
        The files of weights.

    Raises:
        UnknownNameError: If there is no such experiment, case or method.
        TrainingInterruptedError: If a training was stopped before its end.
        TrainingDivergedError: If a training diverged.
    """
    cases, share = boundary_cases(name, options), launched()
    chosen = [(case, method) for case in cases for method in methods(case) if role in (None, slug(method.name))]
    if not chosen:
        known = dict.fromkeys(slug(method.name) for case in cases for method in methods(case))
        raise UnknownNameError(f"There is no operator '{role}' of {name}. Known: {', '.join(known)}.")
    place, files = place_of(name, options), []
    for case, method in chosen:
        if share.world_size > 1 and not shareable(method):
            say_once(f"'{method.name}' trains in one process; run does that.")
            continue
        files += [trained_operator(case, method, place, seed) for seed in seeds(case, options.seed)]
    return files
