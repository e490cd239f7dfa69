"""Problems whose solution operators are to be learned: random inputs and data of the sides, solved and restricted."""

from solvers.problems.operator_problems.problem import OperatorProblem as OperatorProblem
from solvers.problems.operator_problems.problem import Recipe as Recipe
from solvers.problems.operator_problems.problem import restrict as restrict
from solvers.problems.operator_problems.samples import OperatorSamples as OperatorSamples
from solvers.problems.operator_problems.samples import join as join
from solvers.problems.operator_problems.samples import load_samples as load_samples
from solvers.problems.operator_problems.samples import operator_samples as operator_samples
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
