"""Published draws under all laws: a small file of the same layout, and messages."""

from pathlib import Path

import h5py
import pytest
import torch

from experiments.generation.published import FILE, BurgersRows, constrain_published
from probconserv import InvalidArgumentError

SMALL = BurgersRows(times=7, points=21, flux_steps=3, time_step=0.05, spacing=0.05, front=0.1)


def write(folder: Path) -> None:
    noise = torch.randn(2, 1, 7, 21, generator=torch.Generator().manual_seed(0))
    with h5py.File(folder / FILE, "w") as file:
        file["samples_exa_cpu"] = (SMALL.initial_values() + 0.1 * noise).float().numpy()


def test_laws_and_bounds_hold_together(tmp_path: Path) -> None:
    write(tmp_path)
    result = constrain_published(tmp_path, rows=SMALL)
    assert (result.draws, result.rows) == (2, 21 + 7 + 3 * 19)
    assert min(result.outside) > 0.05
    assert result.outside_after == (0.0, 0.0)
    for before, after in result.residuals.values():
        assert before > 1e-3
        assert after <= 1e-12
    assert 0 < result.moved < 0.2
    assert constrain_published(tmp_path, 1, rows=SMALL).draws == 1


def test_the_rows_vanish_on_the_scheme_itself() -> None:
    """Godunov's scheme for u in [0, 1], written out: F_{i+½} = u_i²/2."""
    u = [SMALL.initial_values()]
    for _ in range(6):
        before, after = u[-1], u[-1].clone()
        after[1:-1] = before[1:-1] - 0.5 * (before[1:-1].square() - before[:-2].square())
        u.append(after)
    field = torch.stack(u).flatten()[None]
    assert float(SMALL.residual(field).abs().max()) <= 1e-12  # the smoothing changes u² by 1e-12 at most
    assert float(SMALL.initial().residual(field).abs().max()) == 0.0


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="cannot be read"):
        constrain_published(tmp_path)
    write(tmp_path)
    with pytest.raises(InvalidArgumentError, match=r"must be \(draws, 1, 101, 101\), got \(2, 1, 7, 21\)"):
        constrain_published(tmp_path)
    with pytest.raises(InvalidArgumentError, match="dataset 'other'"):
        constrain_published(tmp_path, dataset="other", rows=SMALL)
