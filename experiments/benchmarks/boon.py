"""Cost of a training step under a boundary correction against the same step of the plain operator, and of that one
against the FNO of the neuraloperator package where it is installed (the extra ``neuraloperator``)."""

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from boon import BOON, FNO, Correction, Elimination, FNOConfig, Prescription, SmoothExtension
from experiments.benchmarks.measure import compared, report, take_turns
from probconserv.training.distributed import say_once
from solvers import Dirichlet, Neumann

Step = Callable[[], None]
PLAIN, NEURALOP = "FNO", "FNO of neuraloperator"


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
    Size("1-D + time", batch=20, shape=(500, 25), modes=(12, 12), width=32, free=1, rounds=10),
    Size("2-D + time", batch=10, shape=(50, 50, 25), modes=(8, 8, 8), width=20, free=1, rounds=5),
)
CORRECTIONS: dict[str, Correction | None] = {
    "default": None,
    "elimination": Elimination(),
    "prescription": Prescription(),
    "prescription, hidden layers": Prescription(hidden=True),
    "smooth extension, hidden layers": SmoothExtension(hidden=True),
    "smooth extension": SmoothExtension(),
}


def run(sizes: Sequence[Size] = SIZES, corrections: Mapping[str, Correction | None] = CORRECTIONS) -> dict[str, Any]:
    """Times forward, backward and Adam update; all operators of a size take turns, so all see the same machine."""
    cases = []
    theirs = importlib.util.find_spec("neuralop") is not None
    if not theirs:
        say_once("neuraloperator is not installed; its FNO is left out.")
    for size in sizes:
        batch = torch.randn(2, size.batch, 1, *size.shape, generator=torch.Generator().manual_seed(0))
        defined = {  # elimination is the paper's, on one axis
            name: correction
            for name, correction in corrections.items()
            if len(size.shape) == 1 or not isinstance(correction, Elimination)
        }
        steps = {name: _corrected(correction, size, *batch) for name, correction in defined.items()}
        steps |= {PLAIN: _plain(size, *batch)} | ({NEURALOP: _neuraloperator(size, *batch)} if theirs else {})
        seconds = dict(zip(steps, take_turns([*steps.values()], size.rounds), strict=True))
        title = f"{size.name}, batch {size.batch}, {'×'.join(map(str, size.shape))} nodes"
        pairs = [(name, PLAIN) for name in defined] + ([(PLAIN, NEURALOP)] if theirs else [])
        cases += [compared(f"{title}: {name}", seconds[name], other, seconds[other]) for name, other in pairs]
    return report("boon", cases)


def _corrected(correction: Correction | None, size: Size, a: Tensor, target: Tensor) -> Step:
    """A step of the corrected operator."""
    axes = len(size.shape) - size.free
    conditions = [(Dirichlet(), Neumann(0.0)), (Neumann(0.0), Dirichlet(0.0))][:axes] + [None] * size.free
    values = [(torch.zeros(size.batch, *(1 for _ in size.shape)), None)] + [None] * (len(size.shape) - 1)
    corrected = BOON(_fno(size), conditions, correction=correction)
    return _step(corrected, lambda: corrected(a, values), target)


def _plain(size: Size, a: Tensor, target: Tensor) -> Step:
    """A step of the plain operator."""
    plain = _fno(size)
    return _step(plain, lambda: plain(a), target)


def _neuraloperator(size: Size, a: Tensor, target: Tensor) -> Step:
    """A step of an operator of neuraloperator with as many frequencies, channels and layers."""
    from neuralop.models import FNO as NeuralopFNO  # pyright: ignore[reportMissingImports]

    channels: dict[str, Any] = {"in_channels": 1, "out_channels": 1, "hidden_channels": size.width}
    modes = tuple(2 * m - 1 for m in size.modes)
    theirs = NeuralopFNO(n_modes=modes, n_layers=FNOConfig(modes=size.modes).depth, **channels)
    return _step(theirs, lambda: theirs(a), target)


def _fno(size: Size) -> FNO:
    torch.manual_seed(0)
    return FNO(FNOConfig(modes=size.modes, width=size.width))


def _step(operator: nn.Module, forward: Callable[[], Tensor], target: Tensor) -> Step:
    optimiser = torch.optim.Adam(operator.parameters(), lr=1e-3, weight_decay=1e-4)

    def step() -> None:
        optimiser.zero_grad()
        (forward() - target).square().mean().backward()
        optimiser.step()

    return step
