"""Cost of forecasts made to add up (MinT with shrinkage), against the package hierarchicalforecast."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.benchmarks.measure import best_of, compared, difference_within, random_fields, report
from experiments.errors import MissingPackageError
from probconserv import LinearConstraint, condition, fit_covariance

GROUPS, STEPS, PAST = 10, 12, 100
"""Groups under the total, steps forecast, and steps whose errors are known."""


def run(sizes: tuple[int, ...] = (10, 100)) -> dict[str, Any]:
    """Times fit and reconciliation of a total, its groups and the series of each; sizes are series of a group."""
    try:
        from hierarchicalforecast.methods import MinTrace  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingPackageError("this needs hierarchicalforecast; pip install '.[bench]' in a clone.") from error
    cases = []
    for size in sizes:
        groups = torch.eye(GROUPS, dtype=torch.float64).repeat_interleave(size, dim=1)
        aggregates = torch.cat([torch.ones(1, groups.shape[1], dtype=torch.float64), groups])
        count = sum(aggregates.shape)
        forecasts, _, generator = random_fields(STEPS, count)
        errors = torch.randn(PAST, count, generator=generator, dtype=torch.float64)
        errors = errors + torch.randn(PAST, 1, generator=generator, dtype=torch.float64)
        law = LinearConstraint(
            torch.cat([torch.eye(len(aggregates), dtype=torch.float64), -aggregates], dim=1),
            torch.zeros(STEPS, len(aggregates), dtype=torch.float64),
        )
        summing = np.vstack([aggregates, np.eye(count - len(aggregates))])

        def ours(errors: Tensor = errors, forecasts: Tensor = forecasts, law: LinearConstraint = law) -> Tensor:
            return condition(fit_covariance(errors).around(forecasts), law).mean

        def theirs(errors: Tensor = errors, forecasts: Tensor = forecasts, summing: Any = summing) -> Tensor:
            past = errors.mT.numpy()
            trace = MinTrace("mint_shrink", mint_shr_ridge=0.0)
            zero = np.zeros_like(past)
            mean = trace.fit_predict(summing, forecasts.mT.numpy(), y_insample=past, y_hat_insample=zero)["mean"]
            return torch.from_numpy(np.asarray(mean)).mT

        (seconds, mean), (other, baseline) = best_of(ours), best_of(theirs)
        difference = difference_within(mean, baseline, 1e-6)
        name = f"{count:,} series, {STEPS} steps"
        cases.append(compared(name, seconds, "hierarchicalforecast, mint_shrink", other, difference=difference))
    return report("reconciliation", cases)
