"""Laws in tensors: errors of those that are wrong."""

from dataclasses import dataclass

import pytest
import torch

from solvers import CellGrid, Periodic, Reflecting, SystemLaw, solve_system
from solvers.errors import InvalidArgumentError

pytestmark = pytest.mark.long

WALLS = (Reflecting(), Reflecting())


@dataclass(frozen=True)
class Waves(SystemLaw):
    """The wave equation as a system, with mistakes to choose from."""

    speed: object = 1.0
    factor: float = 1.0
    sign: float = 1.0
    numbers: bool = False

    def components(self, dimension):
        return ("p", "q")[: dimension + 1]

    def flux(self, u, axis):  # noqa: ARG002 - one axis only
        p, q = u.unbind(1)
        flux = torch.stack([self.speed * q, self.sign * self.speed * p], dim=1)
        return flux.detach() if self.numbers else flux

    def eigenvalues(self, u, axis):  # noqa: ARG002 - one axis only
        p = u[:, 0]
        return self.factor * torch.stack([-self.speed + 0.0 * p, self.speed + 0.0 * p], dim=1)


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (Waves(factor=0.1), r"Waves.eigenvalues\(u, axis=0\) must include .* they are -1 and 1"),
        (Waves(sign=-1.0), "not hyperbolic .* complex eigenvalues"),
        (Waves(numbers=True), "does not depend on u by torch operations"),
        (Waves(speed=torch.ones(20)), "parameters are numbers"),
    ],
)
def test_a_wrong_law_is_refused(law, message):
    grid = CellGrid(0.0, 1.0, 20)
    initial = torch.stack([torch.sin(grid.points), torch.zeros(20)])
    with pytest.raises((InvalidArgumentError), match=message):
        solve_system(law, grid, (Periodic(), Periodic()), initial, [0.1])


def test_a_wall_needs_reflect():
    grid = CellGrid(0.0, 1.0, 20)
    initial = torch.stack([torch.sin(grid.points), torch.zeros(20)])
    with pytest.raises(InvalidArgumentError, match=r"needs Waves.reflect"):
        solve_system(Waves(), grid, WALLS, initial, [0.1])
