"""Conditions around an operator, and the solution that it is to learn."""

from typing import assert_type

import numpy as np
import torch
from torch import Tensor

from boon import BOON, FNO, FNOConfig
from solvers import CellGrid, Diffusion, Dirichlet, Neumann, Periodic, solve
from solvers.finite_volume.solve import Solution

operator = BOON(FNO(FNOConfig(width=4, modes=(3,), depth=1)), [(Dirichlet(), Neumann(np.float64(0.0)))], [1.0])
u = operator(torch.zeros(2, 1, 17), [(np.ones((2, 1)), None)])
assert_type(u, Tensor)
same, missed = operator.with_residual(torch.zeros(2, 1, 17), [(torch.ones(2, 1), None)])
assert_type(missed, Tensor)
circle = BOON(torch.nn.Identity(), [Periodic()])
assert_type(circle(torch.zeros(2, 1, 17)), Tensor)

cells = CellGrid(0.0, 1.0, 16)
start, times = np.sin(3 * np.linspace(0.0, 1.0, 16)), np.linspace(0.1, 0.3, 3)
solution = solve(Diffusion(np.array([0.1, 0.2])), cells, (Dirichlet(np.array(0.0)), Neumann(0.0)), start, times)
assert_type(solution, Solution)
assert_type(solution.values, Tensor)
assert_type(solve(Diffusion(0.1), cells, [Periodic()], start, times).total, Tensor)
