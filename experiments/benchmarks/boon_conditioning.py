"""Condition number of the kernel K_BB between boundary nodes against the number of nodes, padded and not.

``python -m experiments.benchmarks.boon_conditioning`` prints the table in docs/boon_conditioning.md.
"""

import pandas as pd
import torch

from boon import NodeFourier
from boon.corrections.elimination import boundary_kernel, hermitian
from boon.spectral import SpectralConvolution, fourier_basis

NODES = (64, 128, 256, 500, 1024, 2048, 4096)
PADDINGS = (0.0, 0.03125, 0.125, 0.25, 0.5)
WIDTH, MODES, SEEDS = 32, 16, 5


def condition_number(nodes: int, padding: float, both_ends: bool) -> float:
    """Median over seeds of cond(K_BB) in the 2-norm, of both ends or the first, of a layer as it is initialised."""
    numbers = []
    like = torch.zeros((), dtype=torch.float64)
    bases = (fourier_basis(nodes, MODES, padding, like=like, transform=NodeFourier()),)
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        weight = SpectralConvolution(WIDTH, WIDTH, (MODES,)).double().weight.detach()
        ends = (0, nodes - 1) if both_ends else (0,)
        numbers.append(torch.linalg.cond(boundary_kernel(hermitian(weight, bases), bases, 0, ends)))
    return float(torch.stack(numbers).median())


if __name__ == "__main__":
    columns = {f"both ends, padding {100 * padding:g} %": (padding, True) for padding in PADDINGS}
    columns["one end"] = (0.0, False)
    cells = {name: [f"{condition_number(n, *column):.1e}" for n in NODES] for name, column in columns.items()}
    print(pd.DataFrame(cells, index=pd.Index(NODES, name="n")).to_markdown(disable_numparse=True))
