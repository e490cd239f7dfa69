"""Cost of imposing a nonlinear law on a batch of fields: sparse Jacobians against the dense form of PCFM.

The law is that of published draws for Burgers' equation: initial value, mass at every time and five steps of Godunov's
scheme. PCFM (Utkarsh et al. 2025) takes the Jacobian J of all rows by automatic differentiation, field by field, and
steps to u − Jᵀ (J Jᵀ)⁻¹ g(u). Both forms take the same step from the same fields.
"""

from typing import Any

import torch
from linear_operator.operators import DiagLinearOperator
from torch import Generator, Tensor
from torch.func import jacrev

from experiments.benchmarks.measure import best_of, compared, difference_within, report
from experiments.generation.published import BurgersRows
from probconserv import NonlinearLaw, project
from probconserv.nonlinear._sparse_projection import linear_step

_SPREAD = 0.05  # standard deviation of what the fields miss the law by


def run(rows: BurgersRows | None = None, count: int = 16) -> dict[str, Any]:
    """Times one step of ours and of the dense form, and the whole projection to round-off."""
    rows = rows or BurgersRows()
    law, fields = rows.law(), _fields(rows, count)
    metric = DiagLinearOperator(torch.ones(fields.shape[-1], dtype=torch.float64))
    baseline, theirs = best_of(lambda: _dense_step(fields, law), repeats=1)
    seconds, ours = best_of(lambda: linear_step(fields, metric, law))
    difference = difference_within(ours, theirs, 1e-8)
    whole, projected = best_of(lambda: project(fields, metric, law), repeats=1)
    size = law.residual(fields[:1]).shape[-1]
    name = f"Burgers, {size} rows, {fields.shape[-1]:,} unknowns, {count} fields"
    other = "one step with dense Jacobians"
    left = float(law.residual(projected).abs().max())
    return report(
        "projection",
        [
            compared(f"{name}, one step", seconds, other, baseline, difference=difference),
            compared(f"{name}, to round-off", whole, other, baseline, **{"law residual": left}),
        ],
    )


def _fields(rows: BurgersRows, count: int) -> Tensor:
    """The initial value at all times, and noise."""
    level = rows.initial_values().repeat(rows.times)
    noise = torch.randn(count, len(level), dtype=torch.float64, generator=Generator().manual_seed(0))
    return level + _SPREAD * noise


def _dense_step(fields: Tensor, law: NonlinearLaw) -> Tensor:
    linear = law.linear
    assert linear is not None

    def residual(u: Tensor) -> Tensor:
        return law.residual_function(u[None])[0]

    stepped = []
    for u in fields:  # a batch of dense Jacobians does not fit into the memory of a laptop
        J = torch.cat([jacrev(residual)(u), linear.rows])
        g = torch.cat([residual(u), linear.residual(u[None])[0]])
        stepped.append(u - J.mT @ torch.linalg.solve(J @ J.mT, g))
    return torch.stack(stepped)
