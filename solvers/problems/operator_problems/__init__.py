"""Problems whose solution operators are to be learned: random inputs and data of the sides, solved and restricted."""

from solvers.problems.operator_problems.basin import Basin
from solvers.problems.operator_problems.darcy import Darcy
from solvers.problems.operator_problems.problem import OperatorProblem, Recipe
from solvers.problems.operator_problems.samples import OperatorSamples, join, load_samples, operator_samples

OPERATOR_PROBLEMS: dict[str, OperatorProblem] = {problem.name: problem for problem in (Darcy(), Basin())}
"""The standard problems by name."""

__all__ = [
    "OPERATOR_PROBLEMS",
    "Basin",
    "Darcy",
    "OperatorProblem",
    "OperatorSamples",
    "Recipe",
    "join",
    "load_samples",
    "operator_samples",
]
