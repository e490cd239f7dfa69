"""Rows that keep their structure, for tests."""

import torch

from probconserv import LinearConstraint
from probconserv._linalg import structured
from probconserv._linalg.rows import BlockRows

ROWS = ("blocks", "weighted blocks", "regions", "overlapping", "stacked")


def take_large_paths(monkeypatch):
    """Small problems take the paths of large ones."""
    monkeypatch.setattr(structured, "_DENSE", 0)


def make_rows(kind, generator):
    """Rows over 24 points, as given to ``LinearConstraint``."""
    weights = torch.rand(24, dtype=torch.float64, generator=generator) + 0.2
    blocks = BlockRows(counts=(3, 2), sizes=(2, 2), entries=weights)
    if kind == "blocks":
        return BlockRows(counts=(3, 2), sizes=(2, 2), entries=torch.tensor(0.25, dtype=torch.float64))
    if kind == "weighted blocks":
        return blocks
    if kind == "stacked":
        total = LinearConstraint(torch.ones(1, 24).double(), torch.ones(1))
        return (LinearConstraint(blocks, torch.zeros(6)) & total).G
    label = torch.randint(-1, 4, (24,), generator=generator)
    label[:8] = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0])  # with these the eight overlapping rows are independent
    dense = (label == torch.arange(4)[:, None]) * weights
    if kind == "overlapping":
        second = torch.roll(dense, 1, dims=1) * torch.randn(4, 24, dtype=torch.float64, generator=generator)
        dense = torch.cat([dense, second])
    return dense.to_sparse()
