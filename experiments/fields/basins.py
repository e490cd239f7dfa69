"""Waves in a closed basin: reference solutions on fine cells, as averages over coarse ones."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d

from experiments.errors import require_at_least
from experiments.records.release import data_version
from experiments.records.store import config_hash
from experiments.storage import cached_arrays
from solvers import CellGrid, Reflecting, ShallowWater, solve_system
from solvers.problems.operator_problems.standard import Basin, initial_depth

WATER = ShallowWater(gravity=1.0)
WALLS = ((Reflecting(), Reflecting()),) * 2
States = Float[Tensor, "basins times 3 rows columns"]


@dataclass(frozen=True, kw_only=True)
class Basins:
    """A set of basins, each at rest at the start with three bumps of the surface; see ``Basin``.

    Args:
        stream: Sets of different streams and seeds share no basin.
        cells: Coarse cells along each axis of the unit square.
        refinement: Fine cells per coarse one, along each axis.
        interval: Time between outputs; long waves have speed 1.
        steps: Outputs after the start.
    """

    count: int
    stream: int
    seed: int
    cells: int = 32
    refinement: int = 2
    interval: float = 0.05
    steps: int = 100

    def __post_init__(self) -> None:
        require_at_least(self, count=1, cells=4, refinement=1, steps=1)

    def states(self, folder: Path) -> States:
        """Depth and both momenta at the start and at every output; solved once and kept in the folder."""
        name = config_hash({"data_version": data_version("shallow_water_rollout"), **asdict(self)})
        path = folder / f"basins-{name}.safetensors"
        return torch.from_numpy(cached_arrays(path, lambda: {"states": self._solve().numpy()})["states"])

    def _solve(self) -> States:
        problem, n = Basin(), self.cells * self.refinement
        random = [np.random.default_rng((self.seed, self.stream, number)) for number in range(self.count)]
        drawn = [problem.draw(each) for each in random]
        draws = {name: torch.stack([one[name] for one in drawn]) for name in drawn[0]}
        grid = CellGrid((0.0, 0.0), (1.0, 1.0), (n, n))
        depth = initial_depth(draws, grid)
        start = torch.stack([depth, torch.zeros_like(depth), torch.zeros_like(depth)], dim=1)
        times = [self.interval * (step + 1) for step in range(self.steps)]
        solution = solve_system(WATER, grid, WALLS, start, times).values
        fine = torch.cat([start[:, None], solution], dim=1)
        return avg_pool2d(fine.flatten(0, 1), self.refinement).unflatten(0, fine.shape[:2])
