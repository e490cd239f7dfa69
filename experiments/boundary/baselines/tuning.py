"""Tuning: every method has four trials with a fifth of the steps on the first seed, ranked on the validation set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from experiments.boundary.baselines.settings import FILE, Setting, store, structures, trials
from experiments.boundary.cases import BoundaryCase, Versions
from experiments.boundary.experiment import BoundaryExperiment
from experiments.boundary.methods import SETTINGS_OF, Method, untuned
from experiments.boundary.versions import VERSIONS
from experiments.errors import InvalidArgumentError
from experiments.experiment import Experiment, Preset, RunContext, RunOptions

STEPS = 5
"""A trial has one in so many of the steps of a training."""
_SUBJECT = "settings of every method, ranked on the validation set"


def shorter(case: BoundaryCase) -> BoundaryCase:
    """A case with the steps of a trial."""
    training = case.sizes.training
    steps = max(1, training.steps // STEPS)
    training = replace(training, steps=steps, validate_every=min(training.validate_every, steps))
    return replace(case, sizes=replace(case.sizes, training=training))


def tuned_settings(case: BoundaryCase) -> dict[str, tuple[Method, Setting]]:
    """By key of a trial, the method that is tuned, and the setting."""
    return {
        f"{method.key}-{number}": (method, setting)
        for method in untuned(case)
        if method.treatment is not None and method.key not in SETTINGS_OF
        for number, setting in enumerate(trials(method.treatment))
    }


def trial_methods(case: BoundaryCase) -> tuple[Method, ...]:
    """The trials of all methods of a case."""
    return tuple(
        replace(
            method,
            key=key,
            label=f"{method.label}, {setting.label}",
            treatment=method.treatment and structures(method.treatment)[setting.structure],
            rate=setting.rate,
        )
        for key, (method, setting) in tuned_settings(case).items()
    )


def best_settings(case: BoundaryCase, records: pd.DataFrame) -> Mapping[str, Setting]:
    """The best setting of every method by its error on the validation set; none of a method whose trials all failed.

    Args:
        case: The case.
        records: Records of the tuning.
    """
    scores = records[(records["case"] == case.key) & (records["score"] == "validation")].set_index("method")["mean"]
    best: dict[str, tuple[float, Setting]] = {}
    for key, (method, setting) in tuned_settings(case).items():
        error = float(scores.get(key, float("inf")))
        if error < best.get(method.key, (float("inf"), setting))[0]:
            best[method.key] = error, setting
    return {method: setting for method, (_, setting) in best.items()}


def require_fair(entry: Experiment, options: RunOptions) -> None:
    """Refuses, before any trial, a tuning whose best settings are none to keep.

    Args:
        entry: The tuning.
        options: Its options.

    Raises:
        InvalidArgumentError: If trials are too short to tell settings apart, or a method would have only some of its
            trials.
    """
    if options.preset == "smoke":
        raise InvalidArgumentError(
            "--keep needs --preset laptop or paper, got smoke, whose trials are too short to choose settings by."
        )
    cases = entry.cases(RunContext(options=options))
    methods = {key: method.key for case in cases for key, (method, _) in tuned_settings(case).items()}
    named = {methods.get(key) for key in options.methods}
    lacking = [key for key, method in methods.items() if method in named and key not in options.methods]
    if lacking:
        raise InvalidArgumentError(
            f"--keep needs all trials of a method, but --methods lacks {', '.join(lacking)}; add them, or drop --keep."
        )


def keep_settings(cases: Sequence[BoundaryCase], records: pd.DataFrame, file: Path = FILE) -> str:
    """Lets methods have their best settings on these cases from now on.

    Args:
        cases: Cases that were tuned.
        records: Records of the tuning.
        file: Where settings are kept.

    Returns:
        Lines that say which settings changed, and where they are.
    """
    lines = []
    for case in cases:
        best = best_settings(case, records)
        before = store(case.source.name, case.key, best, file)
        for method, setting in best.items():
            if (old := before.get(method)) != setting:
                lines.append(f"{case.key}, {method}: {old.label if old else 'usual setting'} → {setting.label}")
    return "\n".join([*(lines or ["No setting changed."]), f"Settings: {file}"])


def _shortened(versions: Versions, preset: Preset) -> tuple[BoundaryCase, ...]:
    return tuple(shorter(case) for case in versions(preset) if not (case.trained_on or case.published))


TUNINGS: dict[str, BoundaryExperiment] = {
    name: BoundaryExperiment(
        name=f"{name}-tuning",
        problem=name,
        summary=f"{name}: {_SUBJECT}",
        durations={"smoke": "60 s", "laptop": "60 min", "paper": "9000 min", "reproduce": "1 s"},
        versions=partial(_shortened, versions),
        methods_of=trial_methods,
        subject=_SUBJECT,
        by_validation=True,
        repetitions=1,
    )
    for name, versions in VERSIONS.items()
}
"""Tunings by problem."""
