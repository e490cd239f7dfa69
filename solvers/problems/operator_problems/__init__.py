"""Problems whose solution operators are to be learned: random inputs and data of the sides, solved and restricted."""

from solvers.problems.operator_problems.problem import OperatorProblem, Recipe, restrict
from solvers.problems.operator_problems.samples import OperatorSamples, join, load_samples, operator_samples
from solvers.problems.operator_problems.standard import (
    AdvectionDiffusion,
    Basin,
    Darcy,
    ReactionDiffusion,
    ViscousBurgers,
)

OPERATOR_PROBLEMS: dict[str, OperatorProblem] = {
    problem.name: problem for problem in (ViscousBurgers(), ReactionDiffusion(), Darcy(), AdvectionDiffusion(), Basin())
}
"""The standard problems by name."""

__all__ = [
    "OPERATOR_PROBLEMS",
    "AdvectionDiffusion",
    "Basin",
    "Darcy",
    "OperatorProblem",
    "OperatorSamples",
    "ReactionDiffusion",
    "Recipe",
    "ViscousBurgers",
    "join",
    "load_samples",
    "operator_samples",
    "restrict",
]
