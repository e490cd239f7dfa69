"""The rows: what predicts the field from a few values, what is given the laws, and how they are imposed.

no law        the local EmpiricalGP from the values alone, and the neural process
identity      its draws taken to the nearest fields that meet the laws, in the identity's metric
HardC         the mean taken there, the variances kept (Hansen et al. 2023)
given laws    the laws are observations: of a search among the functions, of the ensemble smoother ES-MDA, in the
              weights of the local EmpiricalGP; or inputs of a network trained on windows
update        the prediction conditioned on the laws, by its own covariance
u ≥ 0         draws of another row taken to the nearest fields under the laws that are not negative
"""

import importlib.util
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from torch import Generator, Tensor
from torch.distributions import Normal

from experiments import plots
from experiments.experiment import Style
from experiments.gpme.cases import Observed
from experiments.gpme.methods import Predicted, functions_at, training_gaussian
from experiments.gpme.queries.cases import QueryCase, part_of
from experiments.gpme.queries.network import network_draws
from probconserv import (
    ANP,
    Context,
    EmpiricalGP,
    LinearConstraint,
    NonNegative,
    condition,
    from_samples,
    scores,
)
from probconserv.baselines import project_uniformly
from probconserv.sampling import draw

AT_ONCE = 20
"""Queries that are predicted together in one axis; one at a time in two."""
VALIDATED, CHOSEN_ON = 20, 4
"""Validation functions of seed 0 that settings are chosen on; laws of each, for those of the local EmpiricalGP."""
WIDTHS, SLACKS = (0.03, 0.06, 0.12, 0.2), (0.003, 0.01, 0.03)
"""Deviations of a search's likelihood that are tried: of values and of averages."""
BANDWIDTHS, EFFECTIVE = (0.6, 0.8, 1.0), (60, 200)
"""Settings of the local EmpiricalGP that are tried."""
MEMBERS, ASSIMILATIONS = 1000, 4
"""Of ES-MDA."""
TINY = 1e-8
"""Variance of the errors of exact averages, for rivals that need one."""
SPREAD = 1e-3
"""Least deviation of draws in the metric in which a bound moves them."""
SMOOTHER = "iterative-ensemble-smoother"
"""The package of ES-MDA."""


class Asked(NamedTuple):
    """Some queries of a case, the seed of its functions, files of networks, and the source of random numbers."""

    case: QueryCase
    seed: int
    files: Sequence[Path]
    observed: Observed
    generator: Generator


Imposed = Callable[[Predicted, LinearConstraint, Asked], Tensor]


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row.

    Args:
        base: What predicts: rows of one base differ in what is imposed alone.
        imposed: Makes draws ``(s, queries, n)`` of the prediction; None for draws of ``after`` under a bound.
        constrained: Whether the library's update, or its projection onto bounds, imposes the laws.
        networks: Names of the networks that it needs.
        package: A package that it needs.
    """

    key: str
    label: str
    style: Style
    base: str
    imposed: Imposed | None
    after: str = ""
    information: str = "values, laws"
    constrained: bool = False
    networks: tuple[str, ...] = ()
    package: str = ""

    @property
    def missing(self) -> str:
        """The package, if it is not installed."""
        found = not self.package or importlib.util.find_spec(self.package.replace("-", "_"))
        return "" if found else self.package


def local(asked: Asked, *, informed: bool) -> Predicted:
    """The functions near to the values, and to the laws if ``informed``; settings by validation functions."""
    case, observed = asked.case, asked.observed
    bandwidth, effective = _local_settings(replace(case, laws=CHOSEN_ON, error=0.0, empty=False), informed)
    model = EmpiricalGP(case.base.functions("training", asked.seed), case.base.axes, bandwidth, effective=effective)
    return model.weighted(observed.context, observed.query, observed.law if informed else None)


@lru_cache
def _local_settings(case: QueryCase, informed: bool) -> tuple[float, float | None]:
    validation = part_of(case.observed("validation", 0), slice(VALIDATED))
    given = (validation.context, validation.query, validation.truth)
    model = EmpiricalGP(case.base.functions("training", 0), case.base.axes)
    law = validation.law if informed else None
    model.fit(validation=given, bandwidths=BANDWIDTHS, effective=EFFECTIVE, law=law)
    return model.bandwidth, model.effective


def gaussian(asked: Asked) -> Predicted:
    """Mean and covariance of the training functions."""
    return training_gaussian(asked.case.base, asked.seed).predict(asked.observed.context, asked.observed.query)


def neural(asked: Asked) -> Predicted:
    """The neural process, which learnt the noise."""
    seen = asked.observed.context
    return ANP.load(asked.files[0]).predict(Context(seen.points, seen.values), asked.observed.query)


def network(asked: Asked) -> Predicted:
    """Draws of the network that was trained on windows."""
    return network_draws(asked.files[0], asked.case, asked.observed, asked.generator)


def searched(asked: Asked) -> Tensor:
    """Training functions in proportion to the likelihood of values and averages; settings by validation functions."""
    return _search(asked.case, asked.seed, asked.observed, _search_settings(asked.case), asked.generator)


@lru_cache
def _search_settings(case: QueryCase) -> tuple[float, float]:
    validation, tried = part_of(case.observed("validation", 0), slice(VALIDATED)), []
    for settings in ((width, slack) for width in WIDTHS for slack in SLACKS):
        draws = _search(case, 0, validation, settings, Generator().manual_seed(0))
        tried.append((float(scores.crps_of_samples(validation.truth, draws).mean()), settings))
    return min(tried)[1]


def _search(
    case: QueryCase, seed: int, observed: Observed, settings: tuple[float, float], generator: Generator
) -> Tensor:
    functions, law = case.base.functions("training", seed), observed.law
    fields = functions[:, case.base.member.wanted].flatten(1)
    missed = functions_at(case.base, functions, observed.context) - observed.context.values  # (training, queries, M)
    off = torch.einsum("fn,qkn->fqk", fields, law.rows) - law.b
    likelihood = (missed / settings[0]).square().sum(dim=-1) + (off / settings[1]).square().sum(dim=-1)
    chosen = torch.multinomial((-0.5 * likelihood.mT).softmax(dim=-1), case.base.sizes.draws, True, generator=generator)
    return fields[chosen].movedim(1, 0)


def smoothed(asked: Asked) -> Tensor:
    """ES-MDA of the package: an ensemble of training functions, the laws among its observations."""
    from iterative_ensemble_smoother import ESMDA  # pyright: ignore[reportMissingImports]

    case, observed = asked.case, asked.observed
    functions = case.base.functions("training", asked.seed)
    members = torch.randperm(len(functions), generator=asked.generator)[:MEMBERS]
    fields = functions[members][:, case.base.member.wanted].flatten(1).mT.numpy()
    seen = functions_at(case.base, functions[members], observed.context).movedim(1, 0).mT.numpy()
    noise, law, drawn = observed.context.noise, observed.law, []
    assert noise is not None
    for number, rows in enumerate(law.rows.numpy()):
        variance = np.concatenate([noise[number].numpy(), np.full(len(rows), max(case.error**2, TINY))])
        observations = np.concatenate([observed.context.values[number].numpy(), law.b[number].numpy()])
        smoother = ESMDA(variance, observations, ASSIMILATIONS, seed=number)
        state = np.concatenate([fields, seen[number]])
        for _ in range(smoother.num_assimilations()):
            averages = rows @ state[: len(fields)]
            smoother.prepare_assimilation(Y=np.concatenate([state[len(fields) :], averages]), truncation=1.0)
            state = smoother.assimilate_batch(X=state)
        drawn.append(torch.from_numpy(state[: len(fields), : case.base.sizes.draws].T.copy()))
    return torch.stack(drawn, dim=1)


def sampled(prediction: Predicted, _: LinearConstraint, asked: Asked) -> Tensor:
    """Draws ``(s, queries, n)`` as they are."""
    if isinstance(prediction, Tensor):
        return prediction
    return draw(prediction, (asked.case.base.sizes.draws,), asked.generator)  # type: ignore[arg-type]


def nearest(prediction: Predicted, law: LinearConstraint, asked: Asked) -> Tensor:
    """The nearest fields to draws that meet the laws."""
    exact = LinearConstraint(law.rows, law.b)
    return by_query(sampled(prediction, law, asked), exact, lambda u, one: condition(_alike(u), one).mean)


def hardc(prediction: Predicted, law: LinearConstraint, asked: Asked) -> Tensor:
    """Draws around the projected mean."""
    return sampled(project_uniformly(prediction, law), law, asked)  # type: ignore[arg-type]


def updated(prediction: Predicted, law: LinearConstraint, asked: Asked) -> Tensor:
    """Draws under the laws; those of a tensor are moved by the gain of their covariance."""
    if not isinstance(prediction, Tensor):
        return sampled(condition(prediction, law), law, asked)  # type: ignore[arg-type]
    return by_query(prediction, law, partial(_moved, asked.generator))


def _moved(generator: Generator, draws: Tensor, law: LinearConstraint) -> Tensor:
    """Draws ``(s, n)`` moved onto laws; averages with errors are disturbed anew for each draw."""
    covariance = from_samples(draws, SPREAD**2).lazy_covariance_matrix
    error = law.noise.sqrt() * torch.randn(len(draws), law.b.shape[-1], generator=generator, dtype=torch.float64)
    disturbed = LinearConstraint(law.rows, law.b + error, noise_variance=law.noise_variance)
    return condition(MultivariateNormal(draws, covariance.expand(len(draws), -1, -1)), disturbed).mean


def bounded(draws: Tensor, law: LinearConstraint, *, alike: bool = False) -> Tensor:
    """Draws taken to the nearest non-negative fields under the laws, in the metric of their variances or alike."""

    def of_query(u: Tensor, one: LinearConstraint) -> Tensor:
        around = _alike(u) if alike else Normal(u, (u.std(dim=0) + SPREAD).expand_as(u))
        return condition(around, one & NonNegative()).mode

    return by_query(draws, law, of_query)


def by_query(draws: Tensor, law: LinearConstraint, move: Callable[[Tensor, LinearConstraint], Tensor]) -> Tensor:
    """A treatment of the draws ``(s, n)`` of every query with its law."""
    laws = (
        LinearConstraint(rows, b, noise_variance=law.noise_variance) for rows, b in zip(law.rows, law.b, strict=True)
    )
    return torch.stack([move(draws[:, number], one) for number, one in enumerate(laws)], dim=1)


def _alike(draws: Tensor) -> Normal:
    return Normal(draws, torch.ones_like(draws))


@dataclass(frozen=True)
class Base:
    """A model, and its look in figures."""

    label: str
    colour: str
    predict: Callable[[Asked], Predicted]
    networks: tuple[str, ...] = ()
    package: str = ""


BASES = {
    "local": Base("EmpiricalGP, local", plots.GREY, partial(local, informed=False)),
    "weighted": Base("EmpiricalGP, local, laws in the weights", plots.CONSERVED, partial(local, informed=True)),
    "gaussian": Base("Gaussian of the functions", plots.GREEN, gaussian),
    "anp": Base("ANP", plots.GAUSSIAN_PROCESS, neural, ("anp",)),
    "search": Base("search with the laws", plots.YELLOW, searched),
    "esmda": Base("ES-MDA with the laws", plots.ORANGE, smoothed, package=SMOOTHER),
    "network": Base("network on windows", plots.VERMILION, network, ("windows",)),
}
_ROWS: tuple[tuple[str, str, str, str, Imposed], ...] = (
    ("none", "local", ", no law", ":", sampled),
    ("identity", "local", ", identity projection", "--", nearest),
    ("hardc", "local", ", HardC", "-.", hardc),
    ("law-local", "local", " + update", "-", updated),
    ("weighted", "weighted", "", ":", sampled),
    ("law-weighted", "weighted", " + update", "-", updated),
    ("law-gaussian", "gaussian", " + update", "-", updated),
    ("anp", "anp", ", no law", ":", sampled),
    ("law-anp", "anp", " + update", "-", updated),
    ("search", "search", "", "-", sampled),
    ("identity-search", "search", ", identity projection", "--", nearest),
    ("esmda", "esmda", "", "-", sampled),
    ("network", "network", "", "-", sampled),
    ("identity-network", "network", ", identity projection", "--", nearest),
    ("law-network", "network", " + update", "--", updated),
)
_BOUNDED = ("identity", "law-weighted", "law-gaussian", "law-anp", "search", "esmda", "law-network")
"""Rows that are scored under u ≥ 0 as well; of the first all points count alike in the metric."""


def _rows() -> Iterator[Method]:
    for key, base, suffix, dashes, imposed in _ROWS:
        yield Method(
            key=key,
            label=f"{BASES[base].label}{suffix}",
            style=Style(BASES[base].colour, dashes),
            base=base,
            imposed=imposed,
            information="values" if imposed is sampled and key in ("none", "anp") else "values, laws",
            constrained=imposed is updated,
            networks=BASES[base].networks,
            package=BASES[base].package,
        )


_UNBOUNDED = {method.key: method for method in _rows()}
METHODS = (
    *_UNBOUNDED.values(),
    *(
        replace(
            _UNBOUNDED[key],
            key=f"bounded-{key}",
            label=f"{_UNBOUNDED[key].label}, u ≥ 0",
            imposed=None,
            after=key,
            constrained=key != "identity",
        )
        for key in _BOUNDED
    ),
)
"""The rows; all see the same values and, but for those without a law, the same laws."""
OURS = "law-weighted"
"""The row that is compared with rivals, declared before anything was scored."""


def drawn(case: QueryCase, method: Method, seed: int, files: Sequence[Path]) -> tuple[Tensor, Observed, float]:
    """Draws ``(s, queries, n)`` of a row for the test functions, these, and the milliseconds that a draw took."""
    observed = _test(case, seed)
    draws, seconds = _drawn(method, case, seed, tuple(files))
    return draws, observed, 1e3 * seconds / draws[..., 0].numel()


@lru_cache(maxsize=2)
def _test(case: QueryCase, seed: int) -> Observed:
    return part_of(case.observed("test", seed), slice(None if seed == 0 else case.fewer))


@lru_cache(maxsize=2)
def _predicted(base: str, case: QueryCase, seed: int, files: tuple[Path, ...]) -> tuple[list[Any], float]:
    """Parts of the queries and their predictions, and the seconds that these took; rows of a base share them."""
    observed, generator, parts = _test(case, seed), Generator().manual_seed(1000 + seed), []
    size, start = AT_ONCE if case.base.member.grid.dimension == 1 else 1, time.process_time()
    for first in range(0, len(observed.truth), size):
        asked = Asked(case, seed, files, part_of(observed, slice(first, first + size)), generator)
        parts.append((asked, BASES[base].predict(asked)))
    return parts, time.process_time() - start


@lru_cache(maxsize=4)
def _drawn(method: Method, case: QueryCase, seed: int, files: tuple[Path, ...]) -> tuple[Tensor, float]:
    """Draws of a row, and the seconds that they took."""
    if method.imposed is None:
        draws, before = _drawn(_UNBOUNDED[method.after], case, seed, files)
        start = time.process_time()
        draws = bounded(draws, _test(case, seed).law, alike=method.after == "identity")
        return draws, before + time.process_time() - start
    parts, before = _predicted(method.base, case, seed, files)
    start, generator = time.process_time(), Generator().manual_seed(2000 + seed)
    asked = [(each._replace(generator=generator), prediction) for each, prediction in parts]
    draws = [method.imposed(prediction, each.observed.law, each) for each, prediction in asked]
    return torch.cat(draws, dim=1), before + time.process_time() - start
