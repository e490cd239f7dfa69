"""Cells of the matrix: a prior under a constraint, asked one question in one way, against dense rows."""

import pickle
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from gpytorch.distributions import MultivariateNormal
from torch import Generator, Tensor
from torch.distributions import Normal, kl_divergence

from probconserv import Mixture
from probconserv.inequalities.projected import Projected
from probconserv.posterior import Posterior
from probconserv.sampling import draw
from tests.probconserv.pairs import dense
from tests.probconserv.pairs.constraints import CONSTRAINTS, imposed
from tests.probconserv.pairs.dense import Array, Conditioned, Field
from tests.probconserv.pairs.priors import PRIORS, Numbers

FIELDS = [0, 1, 2]
COUNT, SIGMAS = 2000, 7.0
"""Random draws, and the standard errors within which their moments are."""
ROUNDING = {torch.float64: 1e-9, torch.float32: 2e-4}
"""Largest relative error: 1e6 and 2e3 machine epsilons, for covariances with a condition number of about 1e3."""


@dataclass(frozen=True)
class Case:
    """A prior under a constraint.

    Args:
        numbers: What both are made of.
        prior: Name of the prior.
        constraint: Name of the constraint.
        order: Number of the sequence of statements.
    """

    numbers: Numbers
    prior: str
    constraint: str
    order: int = 0

    def given(self, fields: list[int], shape: tuple[int, ...]) -> Any:
        """The prior in the library."""
        return PRIORS[self.prior][0](self.numbers, fields, shape)

    def statements(self, fields: list[int], shape: tuple[int, ...]) -> list[Any]:
        """The constraint in the library."""
        return CONSTRAINTS[self.constraint].orders(self.numbers, fields, shape)[self.order]

    @cache  # noqa: B019 - a few hundred small arrays
    def dense(self, field: int) -> Conditioned:
        """The answer by dense matrices."""
        prior = PRIORS[self.prior][1](self.numbers, field)
        found = CONSTRAINTS[self.constraint]
        conditioned = dense.conditioned(prior, found.rows(self.numbers, prior, field))
        lower = prior.lower if found.lower is None else found.lower
        return replace(conditioned, field=replace(conditioned.field, lower=lower))


# Ways: (case, what to ask) → what was answered


@dataclass(frozen=True)
class Asked:
    """An answer of the library.

    Args:
        answer: Tensors with the batch axes first.
        prediction: What was asked.
        fields: Number of the field of every batch entry.
        shape: The batch axes.
    """

    answer: list[Tensor]
    prediction: Any
    fields: list[int]
    shape: tuple[int, ...]


Ask = Callable[[Any], list[Tensor]]


def simply(case: Case, ask: Ask, fields: list[int], shape: tuple[int, ...], **options: bool) -> Asked:
    prediction = imposed(case.given(fields, shape), case.statements(fields, shape), **options)
    return Asked(ask(prediction), prediction, fields, shape)


def expanded_first(case: Case, ask: Ask) -> Asked:
    prediction = imposed(_expanded(case.given([0], ())), case.statements([0], ()))
    return Asked(ask(prediction), prediction, [0, 0], (2,))


def expanded_last(case: Case, ask: Ask) -> Asked:
    prediction = _expanded(imposed(case.given([0], ()), case.statements([0], ())))
    return Asked(ask(prediction), prediction, [0, 0], (2,))


def _expanded(prediction: Any) -> Any:
    points = prediction.loc.shape if isinstance(prediction, Normal) else ()
    return prediction.expand(torch.Size([2, *points]))


def indexed_first(case: Case, ask: Ask) -> Asked:
    prediction = imposed(case.given(FIELDS, (3,))[1], case.statements([1], ()))
    return Asked(ask(prediction), prediction, [1], ())


def indexed_last(case: Case, ask: Ask) -> Asked:
    prediction = imposed(case.given(FIELDS, (3,)), case.statements(FIELDS, (3,)))[1]
    return Asked(ask(prediction), prediction, [1], ())


def pickled(case: Case, ask: Ask) -> Asked:
    """The prior stored and read again before, the prediction after."""
    prediction = imposed(pickle.loads(pickle.dumps(case.given([0], ()))), case.statements([0], ()))
    prediction = pickle.loads(pickle.dumps(prediction))
    return Asked(ask(prediction), prediction, [0], ())


def compiled(case: Case, ask: Ask) -> Asked:
    """As a user compiles, with breaks of the graph where there are some."""
    torch._dynamo.reset()
    prior, statements = case.given([0], ()), case.statements([0], ())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the compiler's about its own work; ours are those of the other ways
        answer = torch.compile(lambda prior: ask(imposed(prior, statements)), backend="eager")(prior)
    return Asked(answer, imposed(prior, statements), [0], ())


WAYS: dict[str, Callable[[Case, Ask], Asked]] = {
    "alone": lambda case, ask: simply(case, ask, [0], ()),
    "batch": lambda case, ask: simply(case, ask, FIELDS, (3,)),
    "(1, n)": lambda case, ask: simply(case, ask, [0], (1,)),
    "expanded first": expanded_first,
    "expanded last": expanded_last,
    "indexed first": indexed_first,
    "indexed last": indexed_last,
    "validate=False": lambda case, ask: simply(case, ask, [0], (), validate=False),
    "compiled": compiled,
    "pickled": pickled,
}


# Questions: what is asked, and what the dense answer for one field is


@dataclass(frozen=True)
class Entry:
    """The answer for one field of a batch, and what to compare it with.

    Args:
        case: Prior and constraint.
        answer: Arrays without batch axes.
        prediction: Of all fields.
        position: In the batch.
        field: Number of the field.
    """

    case: Case
    answer: list[Array]
    prediction: Any
    position: int

    field: int

    @property
    def dense(self) -> Conditioned:
        """The dense answer, before the bound."""
        return self.case.dense(self.field)

    def require(self, actual: Array, expected: Any, power: int = 0) -> None:
        """Raises unless arrays agree within rounding; they have the unit of the field to a power."""
        rounding = ROUNDING[self.case.numbers.dtype]
        np.testing.assert_allclose(actual, expected, rounding, rounding * self.case.numbers.scale**power)

    def projections(self, count: int, seed: int) -> list[Array]:
        """Draws of every component under the bound, dense, from the Gaussian ones that the library starts from."""
        parts = self.prediction.components if isinstance(self.prediction, Mixture) else self.prediction
        generator = Generator().manual_seed(seed)
        raw = draw(parts.prior, (count,), generator).double()
        prior, rows = self.dense.prior, self.dense.rows
        noise = torch.tensor(rows.independent().noise)
        errors = torch.zeros(*raw.shape[:-1], len(noise), dtype=torch.float64)
        if noise.any():
            errors.normal_(generator=generator).mul_(noise.sqrt())

        def of_components(values: Tensor) -> Array:
            parts = values.reshape(count, len(self.weights), -1, values.shape[-1])
            return parts[:, :, self.position].transpose(0, 1).numpy()

        found = []
        for component, fields, error in zip(prior.components, of_components(raw), of_components(errors), strict=False):
            y = dense.matheron(component, rows, fields, error)
            found.append(dense.projected(y, np.diag(component.covariance), rows, self.dense.field.lower))
        return found

    @property
    def weights(self) -> Array:
        """Weights of the components, as many as the library keeps."""
        count = len(self.prediction.weights) if isinstance(self.prediction, Mixture) else 1
        return self.dense.field.weights[:count]

    def moments(self) -> tuple[Array, Array]:
        """Mean, and covariance or (under a bound) variance."""
        field = self.dense.field
        if field.lower is None:
            return field.mean, field.covariance
        draws = np.stack(self.projections(500, 0))
        mean, within = draws.mean(axis=1), draws.var(axis=1, ddof=1)
        if len(draws) > 1:  # the means of components scatter as means of draws do
            within = within * (1 - 1 / draws.shape[1])
        return self.weights @ mean, self.weights @ (within + (mean - self.weights @ mean) ** 2)


def ask_mean(prediction: Any) -> list[Tensor]:
    return [prediction.mean, prediction.mode] if isinstance(prediction, Projected) else [prediction.mean]


def compare_mean(entry: Entry) -> None:
    entry.require(entry.answer[0], entry.moments()[0], 1)
    if len(entry.answer) > 1:
        field, rows = entry.dense.field, entry.dense.rows
        variance = np.diag(entry.dense.prior.covariance)
        entry.require(entry.answer[1], dense.projected(field.means, variance, rows, field.lower)[0], 1)


def ask_covariance(prediction: Any) -> list[Tensor]:
    if isinstance(prediction, MultivariateNormal):
        return [prediction.variance, prediction.lazy_covariance_matrix.to_dense()]
    return [prediction.variance]


def compare_covariance(entry: Entry) -> None:
    expected = entry.moments()[1]
    entry.require(entry.answer[0], expected if expected.ndim == 1 else np.diag(expected), 2)
    if len(entry.answer) > 1:
        entry.require(entry.answer[1], expected, 2)


def ask_draws(prediction: Any) -> list[Tensor]:
    """Of a posterior those of unit vectors, whose images are a root of the covariance; of others random ones."""
    if isinstance(prediction, Posterior):
        size = prediction.base_sample_shape[0]
        normals = torch.eye(size + 1, dtype=torch.float64)[:, :size]
        lead = normals.reshape(size + 1, *[1] * len(prediction.batch_shape), size)
        drawn = prediction.rsample(base_samples=lead.expand(size + 1, *prediction.batch_shape, size))
    else:
        drawn = draw(prediction, (COUNT,), Generator().manual_seed(1))
    return [drawn.movedim(0, -2)]


def compare_draws(entry: Entry) -> None:
    drawn, field, rows = entry.answer[0], entry.dense.field, entry.dense.rows
    if isinstance(entry.prediction, Posterior):
        root = drawn[:-1] - drawn[-1]
        entry.require(drawn[-1], field.mean, 1)
        return entry.require(root.T @ root, field.covariance, 2)
    exact = rows.noise == 0
    entry.require(drawn @ rows.G[exact].T, np.broadcast_to(rows.b[exact], (len(drawn), exact.sum())), 1)
    assert field.lower is None or drawn.min() >= field.lower
    if isinstance(entry.prediction, Projected):
        return entry.require(drawn, entry.projections(COUNT, 1)[0], 1)
    mean, covariance = entry.moments()
    spread = np.maximum(np.diag(covariance) if covariance.ndim > 1 else covariance, 0.0)
    rounding, scale = ROUNDING[entry.case.numbers.dtype], entry.case.numbers.scale
    error = SIGMAS * np.sqrt(spread / len(drawn)) + rounding * scale
    assert (np.abs(drawn.mean(axis=0) - mean) <= error).all()
    error = SIGMAS * (2 / len(drawn)) ** 0.5
    np.testing.assert_allclose(drawn.var(axis=0), spread, error, rounding * scale**2)


def ask_log_evidence(prediction: Any) -> list[Tensor]:
    """That of a mixture is in the weights of its components."""
    if isinstance(prediction, Mixture):
        return [prediction.field_weights.expand(-1, *prediction.batch_shape).movedim(0, -1)]
    return [prediction.log_evidence]


def compare_log_evidence(entry: Entry) -> None:
    if isinstance(entry.prediction, Mixture):
        return entry.require(entry.answer[0], entry.weights)
    entry.require(entry.answer[0], entry.dense.log_evidence)


def ask_entropy(prediction: Any) -> list[Tensor]:
    return [prediction.entropy()]


def compare_entropy(entry: Entry) -> None:
    entry.require(entry.answer[0], dense.entropy(entry.dense.field))


def ask_divergence(prediction: Any) -> list[Tensor]:
    """From a standard Gaussian, in both directions."""
    n = prediction.mean.shape[-1]
    identity = torch.eye(n, dtype=prediction.mean.dtype)
    standard = MultivariateNormal(identity.new_zeros(n), identity).expand(prediction.batch_shape)
    return [kl_divergence(prediction, standard), kl_divergence(standard, prediction)]


def compare_divergence(entry: Entry) -> None:
    field, n = entry.dense.field, entry.dense.field.means.shape[1]
    standard = Field(np.ones(1), np.zeros((1, n)), np.eye(n)[None])
    entry.require(entry.answer[0], dense.divergence(field, standard))
    entry.require(entry.answer[1], dense.divergence(standard, field))


QUESTIONS: dict[str, tuple[Ask, Callable[[Entry], None]]] = {
    "mean": (ask_mean, compare_mean),
    "covariance": (ask_covariance, compare_covariance),
    "draws": (ask_draws, compare_draws),
    "log evidence": (ask_log_evidence, compare_log_evidence),
    "entropy": (ask_entropy, compare_entropy),
    "kl": (ask_divergence, compare_divergence),
}


class Undefined(ValueError):
    """An answer that is NaN throughout."""


def check(case: Case, question: str, way: str) -> None:
    """Raises unless the library's answer has the right shape and is the dense one for every field.

    Raises:
        Undefined: If the library answers with NaN throughout.
    """
    ask, compare = QUESTIONS[question]
    found = WAYS[way](case, ask)
    axes = len(found.shape)
    for answer in found.answer:
        assert tuple(answer.shape[:axes]) == found.shape, answer.shape
    if all(bool(answer.isnan().all()) for answer in found.answer):
        raise Undefined("Every value is NaN.")
    count = len(found.fields)
    parts = [answer.double().numpy().reshape(count, *answer.shape[axes:]) for answer in found.answer]
    for position, field in enumerate(found.fields):
        compare(Entry(case, [part[position] for part in parts], found.prediction, position, field))
