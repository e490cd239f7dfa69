"""Cost of a training step under a boundary correction against the same step of the plain operator, and of that one
against the FNO of the neuraloperator package where it is installed (the extra ``neuraloperator``)."""

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from boon import BOON, FNO, Correction, Elimination, FNOConfig, MatchedTransform, Prescription, SmoothExtension
from experiments.benchmarks.measure import compared, report, take_turns
from solvers import Dirichlet, Neumann

Step = Callable[[], None]
Steps = Callable[[], tuple[Step, Step]]
"""Makes two operators and their training steps."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Sizes of one case, those of Saad et al. 2023.

    Args:
        name: How the case is called.
        batch: Fields a step.
        shape: Nodes along every axis.
        modes: Frequencies kept along every axis.
        width: Channels of the hidden layers.
        free: Number of trailing axes without conditions (time).
        rounds: Number of timed steps of each operator.
    """

    name: str
    batch: int
    shape: tuple[int, ...]
    modes: tuple[int, ...]
    width: int
    free: int
    rounds: int


SIZES = (
    Size(name="1-D", batch=20, shape=(500,), modes=(16,), width=64, free=0, rounds=30),
    Size(name="1-D + time", batch=20, shape=(500, 25), modes=(12, 12), width=32, free=1, rounds=8),
    Size(name="2-D + time", batch=10, shape=(50, 50, 25), modes=(8, 8, 8), width=20, free=1, rounds=5),
)
CORRECTIONS: dict[str, Correction | None] = {
    "default": None,
    "elimination, block": Elimination(),
    "elimination, block, hidden layers not prescribed": Elimination(hidden=False),
    "elimination, scalar": Elimination(block=False),
    "prescription": Prescription(),
    "prescription, hidden layers": Prescription(hidden=True),
    "smooth extension, hidden layers": SmoothExtension(hidden=True),
    "smooth extension": SmoothExtension(),
    "matched transforms, hidden layers not lifted": MatchedTransform(hidden=False),
}


def run(sizes: Sequence[Size] = SIZES, corrections: Mapping[str, Correction | None] = CORRECTIONS) -> dict[str, Any]:
    """Times forward, backward and Adam update; each pair of operators takes turns, so both see the same machine.

    Args:
        sizes: The sizes.
        corrections: The corrections, by name.

    Returns:
        One case per size and correction, against the plain operator; where neuraloperator is installed, one case per
        size for the plain operator against theirs. ``ratio`` is ours over the baseline.
    """
    cases = []
    theirs = importlib.util.find_spec("neuralop") is not None
    if not theirs:
        print("neuraloperator is not installed; its FNO is left out.", file=sys.stderr)
    for size in sizes:
        pairs = {(name, "FNO"): _corrected(size, correction) for name, correction in corrections.items()}
        pairs |= {("FNO", "FNO of neuraloperator"): _neuraloperator(size)} if theirs else {}
        for (name, baseline), steps in pairs.items():
            ours, other = take_turns(steps(), size.rounds)
            title = f"{size.name}, batch {size.batch}, {'×'.join(map(str, size.shape))} nodes: {name}"
            cases.append(compared(title, ours, baseline, other) | {"ratio": ours / other})
    return report("boon", cases)


def _corrected(size: Size, correction: Correction | None) -> Steps:
    """Steps of the corrected and of the plain operator."""

    def steps() -> tuple[Step, Step]:
        axes, config = len(size.shape) - size.free, _config(size)
        conditions = [(Dirichlet(), Neumann(0.0)), (Neumann(0.0), Dirichlet(0.0))][:axes] + [None] * size.free
        torch.manual_seed(0)
        a, target = torch.randn(2, size.batch, 1, *size.shape)
        values = [(torch.zeros(size.batch, *(1 for _ in size.shape)), None)] + [None] * (len(size.shape) - 1)
        corrected, plain = BOON(FNO(config), conditions, correction=correction), FNO(config)
        return _step(corrected, lambda: corrected(a, values), target), _step(plain, lambda: plain(a), target)

    return steps


def _neuraloperator(size: Size) -> Steps:
    """Steps of both plain operators with as many frequencies, channels and layers."""
    from neuralop.models import FNO as NeuralopFNO  # pyright: ignore[reportMissingImports]

    def steps() -> tuple[Step, Step]:
        torch.manual_seed(0)
        a, target = torch.randn(2, size.batch, 1, *size.shape)
        ours = FNO(_config(size))
        theirs = NeuralopFNO(
            n_modes=tuple(2 * m - 1 for m in size.modes),
            in_channels=1,
            out_channels=1,
            hidden_channels=size.width,
            n_layers=_config(size).depth,
        )
        return _step(ours, lambda: ours(a), target), _step(theirs, lambda: theirs(a), target)

    return steps


def _config(size: Size) -> FNOConfig:
    return FNOConfig(modes=size.modes, width=size.width)


def _step(operator: nn.Module, forward: Callable[[], Tensor], target: Tensor) -> Step:
    optimiser = torch.optim.Adam(operator.parameters(), lr=1e-3, weight_decay=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        (forward() - target).square().mean().backward()
        optimiser.step()

    return step
