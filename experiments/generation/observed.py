"""The experiment on fields of many parameters: many true fields, each under a different law, and scores against them.

The exact distribution given values with noise follows from many solutions, weighted by their likelihood, as long as
enough of them are near. Proper scores against the true fields need no such distribution.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from experiments import plots
from experiments.experiment import Preset, RunContext, Table
from experiments.generation.cases import Condition, Sizes
from experiments.generation.conditioning import ManyFields, OneField
from experiments.generation.experiment import GenerationExperiment
from experiments.generation.methods import OURS, TOLD_METHODS, Method
from experiments.generation.problem import GenerationProblem
from experiments.generation.scoring import drawn_by, frechet, outside
from experiments.records.record import TRUTH, Arrays
from experiments.records.storage import cached_arrays, writable_folder
from experiments.records.store import config_hash
from probconserv import scores
from probconserv.surrogates.flow import KarhunenLoeve

FIELDS: Mapping[Preset, int] = {"smoke": 3, "laptop": 20, "paper": 200}
"""True fields."""
POOL: Mapping[Preset, int] = {"smoke": 500, "laptop": 100_000, "paper": 1_000_000}
"""Solutions that posteriors are weighted from."""
ENOUGH = 100.0
"""Effective number of solutions from which a posterior counts as known."""
_POOL_SEED, _COEFFICIENTS, _OF_PRIOR, _REFERENCES = 9, 10, 8192, 1000
_LEAST = 1e-6  # weight of a solution, relative to the largest, that is left out
OF_POSTERIOR = ("mean_error", "deviation_error", "frechet", "effective_size")
SHOWN = ("energy", "CRPS", "coverage90", "mean_error", "deviation_error", "frechet", "draw_milliseconds")
"""Scores of tables."""
OF_FIELD = ("energy", "CRPS", "MSE", "coverage90", "outside", "draw_milliseconds")


class Posterior(NamedTuple):
    """Solutions ``(s, t·x)`` in single precision and their weights under a law."""

    fields: Tensor
    weights: Float[Tensor, " s"]

    @property
    def size(self) -> float:
        """Effective number of solutions."""
        return float(1 / self.weights.square().sum())

    def draws(self, count: int, seed: int) -> Float[Tensor, "s n"]:
        """Solutions in proportion to their weights."""
        chosen = self.weights.multinomial(count, replacement=True, generator=torch.Generator().manual_seed(seed))
        return self.fields[chosen].double()


@dataclass(frozen=True, kw_only=True)
class ObservedExperiment:
    """Draws of a flow under laws of many true fields, against rivals that take the same training fields."""

    name: str
    problem: GenerationProblem
    conditions: tuple[Condition, ...]
    sizes: Mapping[Preset, Sizes]

    @property
    def table(self) -> Table:
        """The declaration of its table: the flows of ``GenerationExperiment``, scored otherwise."""
        flows = GenerationExperiment(name=self.name, problem=self.problem, conditions=(), sizes=self.sizes)
        return replace(
            flows.table,
            title=self.title,
            cases=self.cases,
            methods=lambda _: TOLD_METHODS,
            score=self.score,
            figures=lambda *_: {},  # errors over the number of values are drawn for all cases together
            overview=self.overview,
            headline=headline,
            published=lambda _: (),
            seeded=True,
        )

    def title(self, cases: Sequence[ManyFields]) -> str:
        """The problem, its draws and true fields."""
        case = cases[0]
        drawn = f"{case.draws} draws for each of {case.fields} true fields"
        return f"{self.problem.label}: {drawn}; trainings: {case.sizes.groups}"

    def cases(self, context: RunContext) -> list[ManyFields]:
        preset = context.options.preset
        common = {"problem": self.problem, "sizes": self.sizes[preset], "fields": FIELDS[preset]}
        return [ManyFields(condition=condition, **common) for condition in self.conditions]

    def score(
        self, case: ManyFields, method: Method, seed: int, weights: Sequence[Path], context: RunContext
    ) -> Arrays:
        pool = solutions(self.problem, case.sizes.nodes, POOL[context.options.preset], context.data_folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of single laws; their number is scored
            fields = case.each(seed)
            known = [posterior(one, pool) for one in fields]
            if sum(each is not None for each in known) < len(fields) / 2:  # a mean over few would say little
                known = [None] * len(fields)
            first = 1000 * context.options.seed + 10 * seed
            found = [score_field(one, method, each, weights, first) for one, each in zip(fields, known, strict=True)]
        return {name: np.array([each[name] for each in found]) for name in found[0]}

    def overview(self, cases: Sequence[ManyFields], records: pd.DataFrame) -> dict[str, Figure]:
        """The energy score over that of ours, over the number of values, without and with the total."""
        means = records[records["score"] == "energy"].set_index(["method", "case"])["mean"]
        noisy = means[means.index.get_level_values("case").str.startswith("values-")]
        best = noisy.unstack("method").drop(columns=TRUTH, errors="ignore").idxmin(axis=1).eq(OURS)
        title = f"{self.problem.label}: energy score smallest by ours in {best.sum()} of {len(best)} cases"
        figure, axes = plots.panels(2, title)
        figure.supylabel("energy score over that of ours", fontsize=10)
        for panel, prefix in zip(axes, ("values-", "values-total-"), strict=True):
            counts = {
                case.key: int(case.key.removeprefix(prefix))
                for case in cases
                if case.key.rstrip("0123456789") == prefix
            }
            for method in TOLD_METHODS:
                if method.key in means and OURS in means:
                    ratio = (means[method.key] / means[OURS]).reindex(counts)
                    style = {"color": method.style.colour, "ls": method.style.dashes, "marker": "o", "ms": 3}
                    panel.plot(list(counts.values()), ratio, label=method.label, **style)
            panel.set(title="values" if prefix == "values-" else "values and the last total", xlabel="values")
        plots.legend_below(figure, *axes)
        return {"observations": figure}


def headline(_: ManyFields, records: pd.DataFrame) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All rows that were scored; true draws, where the posterior is known, last."""
    truth, *others = TOLD_METHODS
    scored = set(records["method"])
    return tuple(each.key for each in (*others, truth) if each.key in scored), SHOWN


def solutions(problem: GenerationProblem, nodes: int, count: int, folder: Path) -> Float[Tensor, "s n"]:
    """Solutions of random parameters in single precision, from their file or made and kept there."""
    name = config_hash({**problem.description, "nodes": nodes, "count": count, "seed": _POOL_SEED})
    return _solutions(problem, nodes, count, writable_folder(folder) / f"{problem.name}-solutions-{name}.safetensors")


@lru_cache(maxsize=1)
def _solutions(problem: GenerationProblem, nodes: int, count: int, path: Path) -> Tensor:
    def build() -> Arrays:
        return {"fields": problem.draws(count, nodes, _POOL_SEED).flatten(1).float().numpy()}

    return torch.from_numpy(cached_arrays(path, build)["fields"])


def posterior(one: OneField, pool: Float[Tensor, "s n"]) -> Posterior | None:
    """The solutions, weighted by the likelihood of what is known; None where too few are near or a row is exact."""
    log_weights, law = torch.zeros(len(pool), dtype=torch.float64), one.law
    if law is None:
        pool, log_weights = pool[:_OF_PRIOR], log_weights[:_OF_PRIOR]
    elif bool((law.noise > 0).all()):
        missed = (pool @ law.rows.to(pool).mT).double() - law.b
        log_weights = -0.5 * (missed.square() / law.noise).sum(dim=-1)
    else:
        return None
    found = Posterior(pool, log_weights.softmax(dim=0))
    return found if found.size >= ENOUGH else None


def score_field(
    one: OneField, method: Method, known: Posterior | None, weights: Sequence[Path], seed: int
) -> dict[str, float]:
    """Scores against one true field, and against its posterior where that is known, else NaN."""
    assert one.problem.bounds is not None
    if method.key == TRUTH and known is None:
        return dict.fromkeys((*OF_FIELD, *OF_POSTERIOR), math.nan)
    if method.key == TRUTH and known is not None:
        draws, seconds = known.draws(one.draws, seed + one.number), math.nan
    else:
        fields, seconds = drawn_by(one, method, weights, seed + one.number)
        draws = fields.flatten(1)
    truth = one.truth.flatten()
    scored = {
        "energy": scores.energy_score(truth, draws),
        "CRPS": scores.crps_of_samples(truth, draws),
        "MSE": scores.mse(truth, draws.mean(dim=0)),
        "coverage90": scores.coverage_of_samples(truth, draws, 0.9),
        "outside": outside(draws, one.problem.bounds).mean(),
        "draw_milliseconds": 1000 * seconds / len(draws),
    }
    return {name: float(value) for name, value in (scored | _against(one, known, draws)).items()}


def _against(one: OneField, known: Posterior | None, draws: Float[Tensor, "s n"]) -> dict[str, Any]:
    """Errors of the pointwise moments, Fréchet distance of leading coefficients, and what the posterior is worth."""
    if known is None:
        return dict.fromkeys(OF_POSTERIOR, math.nan)
    weights, fields = known.weights, known.fields
    likely = weights > _LEAST * weights.max()
    weights, fields = weights[likely] / weights[likely].sum(), fields[likely].double()
    mean = weights @ fields
    deviation = (weights @ (fields - mean).square()).sqrt()
    modes = _modes(one.problem, one.sizes.nodes)
    return {
        "mean_error": (draws.mean(dim=0) - mean).square().mean(),
        "deviation_error": (draws.std(dim=0) - deviation).square().mean(),
        "frechet": frechet(modes.encode(draws), modes.encode(known.draws(_REFERENCES, seed=0))),
        "effective_size": known.size,
    }


@lru_cache(maxsize=1)
def _modes(problem: GenerationProblem, nodes: int) -> KarhunenLoeve:
    """Leading coefficients, in units of their standard deviations."""
    return KarhunenLoeve.of(problem.draws(100 * _COEFFICIENTS, nodes, _POOL_SEED + 1), _COEFFICIENTS)
