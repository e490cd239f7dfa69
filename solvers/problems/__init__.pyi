from solvers.problems.conservation import PROBLEMS as PROBLEMS
from solvers.problems.conservation import Problem as Problem
