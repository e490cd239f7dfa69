from solvers.problems.conservation import ADVECTION as ADVECTION
from solvers.problems.conservation import BURGERS as BURGERS
from solvers.problems.conservation import DIFFUSION as DIFFUSION
from solvers.problems.conservation import POROUS_MEDIUM as POROUS_MEDIUM
from solvers.problems.conservation import PROBLEMS as PROBLEMS
from solvers.problems.conservation import STEFAN as STEFAN
from solvers.problems.conservation import Problem as Problem
