"""Cost of a training step under a boundary correction against the same step of the plain operator, and of that one
against the FNO of the neuraloperator package where it is installed (the extra ``neuraloperator``)."""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from boon import BOON, FNO, Correction, Elimination, FNOConfig, MatchedTransform, Prescription, SmoothExtension
from experiments.benchmarks.measure import report, take_turns
from solvers import Dirichlet, Neumann


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


def run() -> dict[str, Any]:
    """Times forward, backward and Adam update; each pair of operators takes turns, so both see the same machine.

    Returns:
        One case per size and correction: seconds a step of the corrected and of the plain operator and their ratio;
        where neuraloperator is installed, one case per size for the plain operator against theirs.
    """
    cases = []
    for size in SIZES:
        for name, correction in CORRECTIONS.items():
            cases.append(_case(size, name, "FNO", _compare(size, correction)))
        if importlib.util.find_spec("neuralop"):
            cases.append(_case(size, "FNO", "FNO of neuraloperator", _compare_with_neuraloperator(size)))
        else:
            print("neuraloperator is not installed; its FNO is left out.", file=sys.stderr)
    return report("boon", cases)


def _case(size: Size, name: str, baseline: str, seconds: tuple[float, float]) -> dict[str, Any]:
    ours, theirs = seconds
    return {
        "case": f"{size.name}, batch {size.batch}, {'×'.join(map(str, size.shape))} nodes: {name}",
        "seconds": ours,
        "baseline": baseline,
        "baseline_seconds": theirs,
        "ratio": ours / theirs,
    }


def _compare(size: Size, correction: Correction | None) -> tuple[float, float]:
    config = FNOConfig(modes=size.modes, width=size.width)
    axes = len(size.shape) - size.free
    conditions = [(Dirichlet(), Neumann(0.0)), (Neumann(0.0), Dirichlet(0.0))][:axes] + [None] * size.free
    torch.manual_seed(0)
    a, target = torch.randn(2, size.batch, 1, *size.shape)
    values = [(torch.zeros(size.batch, *(1 for _ in size.shape)), None)] + [None] * (len(size.shape) - 1)
    corrected, plain = BOON(FNO(config), conditions, correction=correction), FNO(config)
    steps = (_step(corrected, lambda: corrected(a, values), target), _step(plain, lambda: plain(a), target))
    corrected_seconds, plain_seconds = take_turns(steps, size.rounds)
    return corrected_seconds, plain_seconds


def _compare_with_neuraloperator(size: Size) -> tuple[float, float]:
    """Steps of both plain operators with as many frequencies, channels and layers."""
    from neuralop.models import FNO as NeuralopFNO  # pyright: ignore[reportMissingImports]

    config = FNOConfig(modes=size.modes, width=size.width)
    torch.manual_seed(0)
    a, target = torch.randn(2, size.batch, 1, *size.shape)
    ours = FNO(config)
    theirs = NeuralopFNO(
        n_modes=tuple(2 * m - 1 for m in size.modes),
        in_channels=1,
        out_channels=1,
        hidden_channels=size.width,
        n_layers=config.depth,
    )
    steps = (_step(ours, lambda: ours(a), target), _step(theirs, lambda: theirs(a), target))
    our_seconds, their_seconds = take_turns(steps, size.rounds)
    return our_seconds, their_seconds


def _step(operator: nn.Module, forward: Callable[[], Tensor], target: Tensor) -> Callable[[], None]:
    optimiser = torch.optim.Adam(operator.parameters(), lr=1e-3, weight_decay=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        (forward() - target).square().mean().backward()
        optimiser.step()

    return step
