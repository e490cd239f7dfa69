"""Draws of a field given scattered observations of it: from a flow, a neural process, and what needs no network.

All see the same observations, at nodes of the flow's grid, and are asked for the same nodes at one time of that grid,
so that nothing is interpolated. The law is that of the total at this time.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from experiments import plots
from experiments.conservation.cases import Case, Laws, Target, laws_of
from experiments.conservation.methods import (
    EMPIRICAL,
    GP,
    INVERTED,
    NETWORK,
    BlackBox,
    Distribution,
    Transform,
    bare,
    conserved,
)
from experiments.conservation.scoring import predict
from experiments.experiment import Style
from experiments.generation.problems import GenerationProblem
from experiments.storage import checksum
from probconserv import FlowMatching, LinearConstraint, SamplingOptions, condition, conditioned
from probconserv.sampling import draw
from probconserv.surrogates.flow.observations import given_observations, interpolation_rows
from probconserv.surrogates.surrogate import Context
from solvers.problems import Problem, sampling

OBSERVATION = 1e-6
"""Variance of an observation's error relative to that of the fields, for what needs one; observations are exact."""


@dataclass(frozen=True, kw_only=True)
class PredictionCase:
    """Functions of one parameter, all the same field, each observed at other nodes.

    Args:
        base: Problem, parameter, seed and sizes; its test time is one of the grid's.
        fields: Number of fields that the flow was trained on.
    """

    base: Case
    family: GenerationProblem
    nodes: int
    steps: int
    fields: int

    @property
    def problem(self) -> Problem:
        return self.base.problem

    @property
    def parameter(self) -> float:
        return self.base.parameter

    @property
    def key(self) -> str:
        return self.base.key

    @property
    def label(self) -> str:
        return self.base.label

    @property
    def config(self) -> dict[str, Any]:
        sizes = {"nodes": self.nodes, "steps": self.steps, "fields": self.fields, "observation": OBSERVATION}
        return {**self.base.config, **self.family.description, **sizes}

    @property
    def target(self) -> Target:
        """The nodes at the test time."""
        return Target(self.base, nodes=self.nodes)

    @property
    def row(self) -> slice:
        """Where the values at the test time lie in a field ``(t·x,)``."""
        times, _ = self.family.axes(self.nodes)
        start = int((times - self.problem.test_time).abs().argmin()) * self.nodes
        return slice(start, start + self.nodes)

    def generator(self, stream: int = 0) -> Generator:
        """Random numbers of the parameter and the seed, one stream for each use."""
        return Generator().manual_seed(10**5 * self.base.seed + 10 * round(100 * self.parameter) + stream)

    def observations(self) -> Context:
        """Values ``(functions, n)`` at random nodes, in the protocol of Hansen et al. 2023."""
        parameter = torch.tensor([self.parameter], dtype=torch.float64)
        fields = self.family.fields(parameter[:, None], self.nodes)
        bank = sampling.SolutionBank(parameter, *self.family.axes(self.nodes), fields)
        batch = sampling.sample_bank(bank, self.base.sizes.functions, sampling.Protocol(), self.generator())
        return Context(batch.context_points, batch.context_values, self.problem.name)


DrawnBy = Callable[[PredictionCase, Sequence[Path]], Float[Tensor, "s functions x"]]
"""(case, files of the networks) → draws at the test time, float64."""


@dataclass(frozen=True)
class Method:
    """One row: how it draws, and the networks that it needs, ``anp`` or ``flow``."""

    key: str
    label: str
    style: Style
    draws: DrawnBy
    networks: tuple[str, ...] = ()
    _: KW_ONLY
    information: str = ""


def by_law(prior: Distribution, laws: Laws) -> Distribution:
    """Conditioned on the law up to its quadrature error by Bayes' theorem, which weighs components anew."""
    return condition(prior, laws.loose)


def of_black_box(box: BlackBox, transform: Transform, case: PredictionCase, files: Sequence[Path]) -> Tensor:
    """Draws of the Gaussian process or the neural process, after something is done to the prediction."""
    prior = _predicted(box, tuple((path, checksum(path)) for path in files), case)
    prediction = transform(prior, laws_of(case.target))
    return draw(prediction, (case.base.sizes.samples,), case.generator(1))[:, 0]


@lru_cache(maxsize=4)
def _predicted(box: BlackBox, weights: tuple[tuple[Path, str], ...], case: PredictionCase) -> Distribution:
    return predict(box.build(case.base, [path for path, _ in weights]), case.target, case.observations())


def of_flow(with_law: bool, case: PredictionCase, files: Sequence[Path]) -> Tensor:
    """Draws of the flow under observations, and under the law as an exact row of every draw."""
    return _flow_draws(with_law, (files[0], checksum(files[0])), case)


@lru_cache(maxsize=2)
def _flow_draws(with_law: bool, weights: tuple[Path, str], case: PredictionCase) -> Tensor:
    flow, context = FlowMatching.load(weights[0]), case.observations()
    assert flow.axes is not None
    variance = float(flow.covariance().diagonal().mean())
    noise = OBSERVATION * variance
    options, count = SamplingOptions(steps=case.steps, local=True, order=1), case.base.sizes.samples
    drawn = []
    for number, (points, values) in enumerate(zip(context.points, context.values, strict=True)):
        observations = LinearConstraint(interpolation_rows(flow.axes, points), values, torch.full_like(values, noise))
        seed = 1000 * case.base.seed + number

        def sample(observed: LinearConstraint, seed: int = seed) -> Tensor:
            law = observed & law_of_fields(case) if with_law else observed
            return flow.sample(count, law=law, sampler=conditioned, options=options, seed=seed)

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The draws miss the observations")
            fields = given_observations(sample, observations, variance)
        drawn.append(fields[:, case.row])
    return torch.stack(drawn, dim=1)


def law_of_fields(case: PredictionCase) -> LinearConstraint:
    """The law of the test time as a row of whole fields."""
    exact = laws_of(case.target).exact
    row = torch.zeros(1, case.nodes**2, dtype=torch.float64)
    row[:, case.row] = exact.rows
    return LinearConstraint(row.to_sparse(), exact.b.reshape(1))


def of_flow_by_evidence(case: PredictionCase, files: Sequence[Path]) -> Tensor:
    """Draws of the flow, drawn again in proportion to the likelihood of the law up to its quadrature error."""
    draws, loose = of_flow(False, case, files), laws_of(case.target).loose
    likelihood = -0.5 * (loose.residual(draws[:, None]).square() / loose.noise).sum(dim=-1)[:, 0]
    return resampled(draws, likelihood, case)


def of_training_fields(case: PredictionCase, files: Sequence[Path]) -> Tensor:  # noqa: ARG001 - one signature
    """Fields of the kind that the flow was trained on, drawn in proportion to the likelihood of the observations."""
    fields, context = _fields(case.family, case.fields, case.nodes), case.observations()
    noise, drawn = OBSERVATION * float(fields.var(dim=0).mean()), []
    for points, values in zip(context.points, context.values, strict=True):
        seen = interpolation_rows(case.family.axes(case.nodes), points).functional(fields)
        drawn.append(-0.5 * (seen - values).square().sum(dim=-1) / noise)
    likelihood = torch.stack(drawn, dim=1)
    return resampled(fields[:, None, case.row].expand(-1, likelihood.shape[1], -1), likelihood, case)


@lru_cache(maxsize=1)
def _fields(family: GenerationProblem, count: int, nodes: int) -> Tensor:
    return family.draws(count, nodes, seed=0).flatten(1)


def resampled(draws: Float[Tensor, "c functions x"], likelihood: Float[Tensor, "c functions"], case: PredictionCase):
    """Draws ``(s, functions, x)`` with replacement, in proportion to the exponential of a log-likelihood."""
    chosen = torch.multinomial(
        likelihood.mT.softmax(dim=-1), case.base.sizes.samples, replacement=True, generator=case.generator(2)
    )
    return torch.stack([draws[rows, number] for number, rows in enumerate(chosen)], dim=1)


_LAW = "the total at the test time"
_EVIDENCE = f"{_LAW}, up to its quadrature error"


def _of_box(box: BlackBox, key: str, label: str, colour: str, networks: tuple[str, ...] = ()) -> tuple[Method, ...]:
    """The rows of a black box: without the law, under it, and with its evidence."""
    rows = (
        (key, label, "-", bare, ""),
        (f"probconserv-{key}", f"ProbConserv-{label}", "--", conserved, _LAW),
        (f"{key}-by-evidence", f"{label} by evidence", ":", by_law, _EVIDENCE),
    )
    return tuple(
        Method(name, text, Style(colour, dashes), partial(of_black_box, box, transform), networks, information=told)
        for name, text, dashes, transform, told in rows
    )


METHODS = (
    *_of_box(GP, "gp", "GP", plots.GAUSSIAN_PROCESS),
    *_of_box(NETWORK, "anp", "ANP", plots.BARE, ("anp",)),
    Method("flow", "flow", Style(plots.CONSERVED), partial(of_flow, False), ("flow",)),
    Method(
        "flow-law",
        "flow under the law",
        Style(plots.CONSERVED, "--"),
        partial(of_flow, True),
        ("flow",),
        information=_LAW,
    ),
    Method(
        "flow-by-evidence",
        "flow by evidence",
        Style(plots.CONSERVED, ":"),
        of_flow_by_evidence,
        ("flow",),
        information=_EVIDENCE,
    ),
    Method("training-fields", "training fields", Style(plots.GREY), of_training_fields),
    *_of_box(EMPIRICAL, "empirical", "EmpiricalGP", plots.YELLOW),
    Method(
        "total-inverted",
        "total inverted",
        Style(plots.BLACK, ":"),
        partial(of_black_box, INVERTED, bare),
        information=_LAW,
    ),
)
"""The rows: each black box without the law, under it exactly, and with its evidence; and the rivals without a network.

These are the flow's training fields, the covariance of functions of the training range, and the law alone.
"""
