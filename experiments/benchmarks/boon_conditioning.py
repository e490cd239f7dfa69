"""Condition number of the kernel K_BB between boundary nodes against the number of nodes, padded and not.

``python -m experiments.benchmarks.boon_conditioning`` prints the table in docs/boon_conditioning.md.
"""

from collections.abc import Sequence

import torch

from boon.elimination import boundary_kernel, hermitian
from boon.spectral import SpectralConvolution, fourier_basis

NODES = (64, 128, 256, 500, 1024, 2048, 4096)
PADDINGS = (0.0, 0.03125, 0.125, 0.25, 0.5)
WIDTH, MODES, SEEDS = 32, 16, 5


def condition_number(nodes: int, padding: float, both_ends: bool) -> float:
    """Median over seeds of cond(K_BB) in the 2-norm, of a layer as it is initialised.

    Args:
        nodes: Number of nodes of the axis, both ends included.
        padding: Extension of the axis as a fraction of its length.
        both_ends: K_BB of both ends ``(2c, 2c)``, else of the first alone ``(c, c)``.
    """
    numbers = []
    bases = (fourier_basis(nodes, MODES, padding, like=torch.zeros((), dtype=torch.float64)),)
    for seed in range(SEEDS):
        torch.manual_seed(seed)
        weight = SpectralConvolution(WIDTH, WIDTH, (MODES,)).double().weight.detach()
        ends: Sequence[int] = (0, nodes - 1) if both_ends else (0,)
        numbers.append(torch.linalg.cond(boundary_kernel(hermitian(weight, bases), bases, 0, ends)))
    return float(torch.stack(numbers).median())


def table() -> list[str]:
    """The rows of a Markdown table: one per number of nodes."""
    heads = [f"both ends, padding {100 * padding:g} %" for padding in PADDINGS] + ["one end"]
    lines = ["| n | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for nodes in NODES:
        values = [condition_number(nodes, padding, both_ends=True) for padding in PADDINGS]
        values.append(condition_number(nodes, 0.0, both_ends=False))
        lines.append(f"| {nodes} | " + " | ".join(f"{value:.1e}" for value in values) + " |")
    return lines


if __name__ == "__main__":
    print("\n".join(table()))
