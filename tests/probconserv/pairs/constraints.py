"""The constraints of the matrix, each as the library takes it and as dense rows, from the numbers of a prior."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from probconserv import Bounded, LinearConstraint, NonlinearLaw, condition
from tests.probconserv.pairs.dense import Array, Field, Rows, on_sphere
from tests.probconserv.pairs.priors import Numbers

Statement = Any


@dataclass(frozen=True)
class Constraint:
    """Statements one after the other, in one order or in several, and what they say of one field.

    Args:
        orders: (numbers, fields, batch shape) → the sequences of statements that all mean the same.
        rows: (numbers, prior of a field, its number) → dense rows.
        lower: The bound, in units of the field; None without one.
    """

    orders: Callable[[Numbers, list[int], tuple[int, ...]], list[list[Statement]]]
    rows: Callable[[Numbers, Field, int], Rows]
    lower: float | None = None


def total(n: int) -> Array:
    return np.full((1, n), 1 / n)


def halves(n: int) -> Array:
    left = np.where(np.arange(n) < n // 2, 1.0, 0.0)
    return np.stack([left / left.sum(), (1 - left) / (1 - left).sum()])


def end(n: int) -> Array:
    return np.eye(n)[-1:]


def global_and_halves(n: int) -> Array:
    """Three rows, of which each follows from the two others."""
    return np.concatenate([total(n), halves(n)])


def rows_of(matrix: Callable[[int], Array], *noise: float) -> Callable[[Numbers, Field, int], Rows]:
    """Rows with the right-hand sides of one positive field near the centre; noise in units of the field."""

    def rows(numbers: Numbers, _: Field, field: int) -> Rows:
        centre = numbers.centre[field]
        truth = np.maximum(centre + 0.3 * numbers.deviation[field] * numbers.around[-1, field], 0.05 * numbers.scale)
        G = numbers.factor * matrix(len(centre))
        return Rows(G, G @ truth, np.square(noise or (0.0,) * len(G)) * (numbers.factor * numbers.scale) ** 2)

    return rows


def law(rows: Callable[[Numbers, Field, int], Rows]) -> Callable[..., LinearConstraint]:
    """The same rows as the library takes them, with one right-hand side for every field."""

    def constraint(numbers: Numbers, fields: list[int], shape: tuple[int, ...]) -> LinearConstraint:
        every = [rows(numbers, None, field) for field in fields]
        b = torch.tensor(np.stack([each.b for each in every])).reshape(*shape, -1)
        return LinearConstraint(torch.tensor(every[0].G), b, noise_variance=torch.tensor(every[0].noise))

    return constraint


def level(numbers: Numbers) -> float:
    """A mean square that fields near every centre reach."""
    return 1.2 * float((numbers.centre**2).mean(axis=1).max())


def energy(numbers: Numbers, *_: Any) -> list[list[Statement]]:
    """mean(u²) is given."""
    mean_square, unit = level(numbers), numbers.scale**2
    points = numbers.centre.shape[1]
    function = lambda u: (u.square().mean(-1, keepdim=True) - mean_square) / unit  # noqa: E731
    return [[NonlinearLaw(residual_function=function, points=points)]]


ONE, TWO, VALUE = rows_of(total), rows_of(halves), rows_of(end)
REDUNDANT, NOISY = rows_of(global_and_halves), rows_of(halves, 0.2, 0.4)
LOWER = 0.0


def single(rows: Callable[[Numbers, Field, int], Rows]) -> Constraint:
    return Constraint(lambda *given: [[law(rows)(*given)]], rows)


CONSTRAINTS: dict[str, Constraint] = {
    "law": single(ONE),
    "two laws": Constraint(
        lambda *given: [[law(ONE)(*given), law(VALUE)(*given)], [law(VALUE)(*given), law(ONE)(*given)]],
        lambda *given: ONE(*given) & VALUE(*given),
    ),
    "redundant rows": single(REDUNDANT),
    "noisy rows": single(NOISY),
    "inequality": Constraint(lambda *given: [[law(ONE)(*given) & Bounded(LOWER)]], ONE, LOWER),
    "nonlinear law": Constraint(energy, lambda numbers, prior, _: on_sphere(prior, level(numbers), numbers.scale**2)),
}


def imposed(prior: Any, statements: list[Statement], **options: bool) -> Any:
    """The prediction under statements one after the other."""
    for statement in statements:
        prior = condition(prior, statement, **options)
    return prior
