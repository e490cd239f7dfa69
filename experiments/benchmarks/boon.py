"""Cost of a training step under a boundary correction against the same step of the plain operator, and of that one
against the FNO of the neuraloperator package where it is installed (the extra ``neuraloperator``)."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from boon import BOON, FNO, Correction, Elimination, FNOConfig, MatchedTransform, Prescription, SmoothExtension
from experiments.benchmarks.measure import compared, report, take_turns
from probconserv.training import say_once
from solvers import Dirichlet, Neumann

Step = Callable[[], None]


class Size(NamedTuple):
    """Sizes of one case, those of Saad et al. 2023; ``free`` trailing axes (time) have no conditions."""

    name: str
    batch: int
    shape: tuple[int, ...]
    modes: tuple[int, ...]
    width: int
    free: int
    rounds: int


SIZES = (
    Size("1-D", batch=20, shape=(500,), modes=(16,), width=64, free=0, rounds=30),
    Size("1-D + time", batch=20, shape=(500, 25), modes=(12, 12), width=32, free=1, rounds=8),
    Size("2-D + time", batch=10, shape=(50, 50, 25), modes=(8, 8, 8), width=20, free=1, rounds=5),
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
    "matched transforms, the default of 0.1": MatchedTransform(),
}


def run(sizes: Sequence[Size] = SIZES, corrections: Mapping[str, Correction | None] = CORRECTIONS) -> dict[str, Any]:
    """Times forward, backward and Adam update; each pair of operators takes turns, so both see the same machine.

    Other than in the other benchmarks, ``ratio`` is ours over the baseline.
    """
    cases = []
    theirs = importlib.util.find_spec("neuralop") is not None
    if not theirs:
        say_once("neuraloperator is not installed; its FNO is left out.")
    for size in sizes:
        pairs = {(name, "FNO"): partial(_corrected, correction) for name, correction in corrections.items()}
        pairs |= {("FNO", "FNO of neuraloperator"): _neuraloperator} if theirs else {}
        for (name, baseline), steps in pairs.items():
            torch.manual_seed(0)
            ours, other = take_turns(steps(size, *torch.randn(2, size.batch, 1, *size.shape)), size.rounds)
            title = f"{size.name}, batch {size.batch}, {'×'.join(map(str, size.shape))} nodes: {name}"
            cases.append(compared(title, ours, baseline, other) | {"ratio": ours / other})
    return report("boon", cases)


def _corrected(correction: Correction | None, size: Size, a: Tensor, target: Tensor) -> tuple[Step, Step]:
    """Steps of the corrected and of the plain operator."""
    axes, config = len(size.shape) - size.free, FNOConfig(modes=size.modes, width=size.width)
    conditions = [(Dirichlet(), Neumann(0.0)), (Neumann(0.0), Dirichlet(0.0))][:axes] + [None] * size.free
    values = [(torch.zeros(size.batch, *(1 for _ in size.shape)), None)] + [None] * (len(size.shape) - 1)
    corrected, plain = BOON(FNO(config), conditions, correction=correction), FNO(config)
    return _step(corrected, lambda: corrected(a, values), target), _step(plain, lambda: plain(a), target)


def _neuraloperator(size: Size, a: Tensor, target: Tensor) -> tuple[Step, Step]:
    """Steps of both plain operators with as many frequencies, channels and layers."""
    from neuralop.models import FNO as NeuralopFNO  # pyright: ignore[reportMissingImports]

    config, modes = FNOConfig(modes=size.modes, width=size.width), tuple(2 * m - 1 for m in size.modes)
    channels: dict[str, Any] = {"in_channels": 1, "out_channels": 1, "hidden_channels": size.width}
    ours, theirs = FNO(config), NeuralopFNO(n_modes=modes, n_layers=config.depth, **channels)
    return _step(ours, lambda: ours(a), target), _step(theirs, lambda: theirs(a), target)


def _step(operator: nn.Module, forward: Callable[[], Tensor], target: Tensor) -> Step:
    optimiser = torch.optim.Adam(operator.parameters(), lr=1e-3, weight_decay=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        (forward() - target).square().mean().backward()
        optimiser.step()

    return step
