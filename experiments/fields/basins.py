"""Waves in a closed basin: reference solutions, and an imperfect stepper, which loses and makes water.

Reference solutions on fine cells are averaged over coarse ones. The stepper is a coarse solver of first order, which
conserves mass, and a linear map of monomials of the state nearby, fitted to what the coarse solver misses in one step;
nothing makes that conserve anything.
"""

from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import combinations_with_replacement
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
from solvers import CellGrid, Constant, Reflecting, ShallowWater, solve_system
from solvers.problems.operator_problems.standard import Basin, initial_depth

WATER = ShallowWater(gravity=1.0)
WALLS = ((Reflecting(), Reflecting()),) * 2
State = Float[Tensor, "basins 3 rows columns"]
States = Float[Tensor, "basins times 3 rows columns"]
REACH = 2
"""Cells on each side whose states enter linearly; products are of the cell and its four neighbours."""
_PART = 20


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


@dataclass(frozen=True)
class Stepper:
    """From a state to the next."""

    basins: Basins
    weights: Float[Tensor, "features 3"]

    def __call__(self, state: State) -> tuple[State, State]:
        """The next state, and the correction that is part of it."""
        coarse = coarse_step(self.basins, state)
        correction = (monomials(coarse) @ self.weights).movedim(-1, 1)
        return coarse + correction, correction


@dataclass(frozen=True)
class Pairs:
    """States, and what the coarse solver and the truth make of them one interval later."""

    state: State
    coarse: State
    truth: State

    @cached_property
    def missed(self) -> State:
        """What the coarse solver misses."""
        return self.truth - self.coarse


def coarse_step(basins: Basins, state: State) -> State:
    """One interval by finite volumes of first order on the coarse cells."""
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (basins.cells, basins.cells))
    solution = solve_system(WATER, grid, WALLS, state, [basins.interval], reconstruction=Constant())
    return solution.values[:, 0]


def pairs_of(basins: Basins, states: Float[Tensor, "basins times 3 rows columns"], every: int) -> Pairs:
    """Every few steps of trajectories as pairs."""
    state, truth = states[:, :-1:every].flatten(0, 1), states[:, 1::every].flatten(0, 1)
    return Pairs(state, coarse_step(basins, state), truth)


def fit_stepper(basins: Basins, pairs: Pairs, penalty: float) -> Stepper:
    """Fits the correction by ridge regression, all cells alike. ``penalty`` is λ of mean ‖y − W f‖² + λ ‖W‖²."""
    normal, right = torch.zeros(()), torch.zeros(())
    for part in range(0, len(pairs.state), _PART):
        f = monomials(pairs.coarse[part : part + _PART]).flatten(0, 2)
        normal = normal + f.mT @ f
        right = right + f.mT @ pairs.missed[part : part + _PART].movedim(1, -1).flatten(0, 2)
    count = pairs.missed[:, 0].numel()
    unit = torch.eye(len(normal), dtype=normal.dtype)
    return Stepper(basins, torch.linalg.solve(normal / count + penalty * unit, right / count))


def monomials(state: State) -> Float[Tensor, "basins rows columns features"]:
    """1, the state of 5 × 5 cells around, and products of the state of a cell and its four neighbours.

    The depth counts from 1. Behind walls is the mirror image, with the momentum across the wall reversed.
    """
    n = state.shape[-1]
    level = state - torch.tensor([1.0, 0.0, 0.0], dtype=state.dtype)[:, None, None]
    padded = _mirrored(_mirrored(level, 2, 1), 3, 2)

    def shifted(channel: int, i: int, j: int) -> Tensor:
        return padded[:, channel, REACH + i : REACH + i + n, REACH + j : REACH + j + n]

    around = range(-REACH, REACH + 1)
    linear = [shifted(c, i, j) for c in range(3) for i in around for j in around]
    cross = [shifted(c, i, j) for c in range(3) for i, j in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))]
    products = [a * b for a, b in combinations_with_replacement(cross, 2)]
    return torch.stack([torch.ones_like(linear[0]), *linear, *products], dim=-1)


def _mirrored(state: State, axis: int, normal: int) -> State:
    """The state with mirror images behind both walls of an axis; ``normal`` is the momentum across them."""
    signs = torch.ones(3, dtype=state.dtype)
    signs[normal] = -1.0
    ends = (state.narrow(axis, start, REACH).flip(axis) for start in (0, state.shape[axis] - REACH))
    before, behind = (signs[:, None, None] * end for end in ends)
    return torch.cat([before, state, behind], dim=axis)
