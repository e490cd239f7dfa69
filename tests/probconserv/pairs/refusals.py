"""The cells of the matrix that refuse, with the error and the reason."""

from dataclasses import dataclass

from probconserv.errors import ConvergenceError, InvalidArgumentError
from tests.probconserv.pairs.matrix import Undefined

Cell = tuple[str, str, str, str]
"""Prior, constraint, question, way."""
Names = frozenset[str]
ANY: Names = frozenset()
EXACT = frozenset({"law", "two laws", "redundant rows", "nonlinear law"})
GAUSSIANS = frozenset({"normal", "dense", "ensemble", "samples", "flow draws"})
MIXTURES, BOUNDED = frozenset({"mixture", "empirical"}), frozenset({"projected"})
INEQUALITY, NONLINEAR = frozenset({"inequality"}), frozenset({"nonlinear law"})


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Cells that refuse alike: those whose names are among the given ones on every axis; an empty set means any.

    Args:
        error: The error.
        says: A pattern of its text.
        reason: Why there is no answer.
    """

    error: type[Exception]
    says: str
    reason: str
    priors: Names = ANY
    constraints: Names = ANY
    questions: Names = ANY
    ways: Names = ANY

    def covers(self, cell: Cell) -> bool:
        """Whether a cell is one of these."""
        axes = self.priors, self.constraints, self.questions, self.ways
        return all(not names or name in names for names, name in zip(axes, cell, strict=True))


def names(*chosen: str) -> Names:
    return frozenset(chosen)


UNCHECKED = names("validate=False", "compiled")
_UNCHECKED = "Where values are not checked, rows that follow from others give NaN instead of being left out."
_NO_EXPAND = {
    "error": AttributeError,
    "says": "has no attribute 'expand'",
    "reason": "Mixtures and predictions under bounds are no torch distributions; expand the Gaussian inside.",
}
_NO_INDEX = {
    "error": TypeError,
    "says": "object is not subscriptable",
    "reason": "Mixtures, predictions under bounds and a Normal cannot be indexed; index what they are made of.",
}
_NO_KL = {
    "error": NotImplementedError,
    "says": r"No KL\(p \|\| q\) is implemented",
    "reason": "The divergence of mixtures and of projected draws has no closed form.",
}
REFUSALS = [
    # The prior does not get as far as the constraint.
    Refusal(priors=MIXTURES | BOUNDED, ways=names("expanded first"), **_NO_EXPAND),
    Refusal(priors=MIXTURES | BOUNDED | names("normal"), ways=names("indexed first"), **_NO_INDEX),
    # The constraint is not imposed.
    Refusal(
        priors=MIXTURES,
        constraints=NONLINEAR,
        error=InvalidArgumentError,
        says="condition its components",
        reason="The law is linearised at one most probable field; a mixture has one for every component.",
    ),
    Refusal(
        priors=MIXTURES,
        constraints=names("redundant rows"),
        ways=names("validate=False"),
        error=InvalidArgumentError,
        says="sum between nan and nan",
        reason=_UNCHECKED,
    ),
    Refusal(
        priors=BOUNDED,
        constraints=names("redundant rows"),
        questions=names("mean", "covariance", "draws", "kl"),
        ways=names("compiled"),
        error=ConvergenceError,
        says="The law is missed by nan",
        reason=_UNCHECKED,
    ),
    # The conditioned prediction does not get as far as the question.
    Refusal(priors=MIXTURES | BOUNDED, ways=names("expanded last"), **_NO_EXPAND),
    Refusal(constraints=INEQUALITY, ways=names("expanded last"), **_NO_EXPAND),
    Refusal(priors=MIXTURES | BOUNDED, ways=names("indexed last"), **_NO_INDEX),
    Refusal(constraints=INEQUALITY, ways=names("indexed last"), **_NO_INDEX),
    # The question has no answer.
    Refusal(
        priors=MIXTURES,
        questions=names("entropy"),
        error=AttributeError,
        says="'Mixture' object has no attribute 'entropy'",
        reason="The entropy of a mixture has no closed form.",
    ),
    Refusal(priors=MIXTURES | BOUNDED, questions=names("kl"), **_NO_KL),
    Refusal(constraints=INEQUALITY, questions=names("kl"), **_NO_KL),
    *[
        Refusal(
            **cells,
            questions=names("log evidence", "entropy"),
            error=AttributeError,
            says="'Projected' object has no attribute",
            reason="Projected draws lie on their bounds with positive probability and have no density.",
        )
        for cells in ({"priors": BOUNDED}, {"priors": GAUSSIANS, "constraints": INEQUALITY})
    ],
    Refusal(
        priors=GAUSSIANS,
        constraints=names("redundant rows"),
        questions=names("mean", "covariance", "draws", "log evidence"),
        ways=UNCHECKED,
        error=Undefined,
        says="Every value is NaN",
        reason=_UNCHECKED,
    ),
    Refusal(
        priors=MIXTURES,
        constraints=names("redundant rows"),
        questions=names("mean", "covariance", "log evidence"),
        ways=names("compiled"),
        error=Undefined,
        says="Every value is NaN",
        reason=_UNCHECKED,
    ),
    Refusal(
        priors=MIXTURES,
        constraints=names("redundant rows"),
        questions=names("draws"),
        ways=names("compiled"),
        error=RuntimeError,
        says="invalid multinomial distribution",
        reason=_UNCHECKED,
    ),
    Refusal(
        constraints=EXACT,
        questions=names("entropy"),
        error=InvalidArgumentError,
        says="exact rows leave no variance along them",
        reason="There is no density over all values.",
    ),
    Refusal(
        priors=names("samples"),
        constraints=names("noisy rows"),
        questions=names("entropy", "kl"),
        error=InvalidArgumentError,
        says="singular",
        reason="Five members without noise vary in four directions only.",
    ),
]
"""The first one that covers a cell counts."""


def refusal_of(cell: Cell) -> Refusal | None:
    """Why a cell refuses; None if it answers."""
    return next((refusal for refusal in REFUSALS if refusal.covers(cell)), None)
