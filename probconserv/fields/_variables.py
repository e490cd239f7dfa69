"""Several variables under shared laws: one Gaussian of all their values, each variable in a unit of its size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from probconserv.constraints import LinearConstraint
from probconserv.errors import InvalidArgumentError
from probconserv.inequalities.inequality import Bounded, LinearInequality
from probconserv.update import condition


class SharedLaw(NamedTuple):
    """Σ row · value = total: rows by variable ``(*batch, n_i)``, 0 for those that are left out; total ``(*batch)``."""

    rows: Mapping[str, Tensor]
    total: Tensor


@dataclass(frozen=True)
class Conditioned:
    """Variables under laws.

    Args:
        posterior: Prediction of all values in units ``(*batch, n)``.
        unit: Unit of every value ``(n,)``.
        missing: Values that are missing ``(*batch, n)``.
        sizes: Number n_i of values by variable.
        bounded: True where bounds hold, so that the values are the most probable ones.
    """

    posterior: Any
    unit: Tensor
    missing: Tensor
    sizes: Mapping[str, int]
    bounded: bool

    @property
    def values(self) -> dict[str, Tensor]:
        """Values by variable ``(*batch, n_i)``."""
        return self._by_variable(self.posterior.mode if self.bounded else self.posterior.mean)

    @property
    def deviations(self) -> dict[str, Tensor]:
        """Standard deviations by variable ``(*batch, n_i)``."""
        return self._by_variable(self.posterior.stddev)

    def _by_variable(self, joined: Tensor) -> dict[str, Tensor]:
        parts = (joined.masked_fill(self.missing, torch.nan) * self.unit).split(list(self.sizes.values()), dim=-1)
        return dict(zip(self.sizes, parts, strict=True))


def condition_variables(
    means: Mapping[str, Tensor],
    deviations: Mapping[str, Tensor],
    laws: Sequence[SharedLaw],
    bounds: Mapping[str, tuple[float | None, float | None]],
    at_most: Mapping[str, str],
) -> Conditioned:
    """Independent values of several variables under laws, bounds and orders; see ``condition``.

    Args:
        means: Values by variable ``(*batch, n_i)``, float64; NaN where they are missing.
        deviations: Standard deviations, of shapes that broadcast to those.
        laws: Laws that hold together.
        bounds: Lowest and highest value by variable, None for no bound.
        at_most: Pairs {"frozen": "total"}, the first nowhere above the second.

    Raises:
        InvalidArgumentError: If values are missing that a law weighs.
    """
    names, sizes = list(means), {name: mean.shape[-1] for name, mean in means.items()}
    batch = torch.broadcast_shapes(
        *(part.shape[:-1] for part in (*means.values(), *deviations.values())),
        *(part.shape[:-1] for law in laws for part in law.rows.values()),
        *(law.total.shape for law in laws),
    )

    def joined(parts: Mapping[str, Tensor]) -> Tensor:
        zero = means[names[0]].new_zeros(())
        return torch.cat([parts.get(name, zero).expand(*batch, sizes[name]) for name in names], dim=-1)

    mean, deviation = joined(means), joined(deviations)
    G = torch.stack([joined(law.rows) for law in laws], dim=-2)
    b = torch.stack([law.total.expand(batch) for law in laws], dim=-1)
    missing = mean.isnan()
    if bool((missing & (G != 0).any(dim=-2)).any()):
        raise InvalidArgumentError(
            f"Some of {names} hold missing values where weights are not 0; fill them, or give weights of 0 there."
        )
    units = [_unit(means[name], deviations[name]).expand(sizes[name]) for name in names]
    unit = torch.cat(units)
    law: Any = LinearConstraint(G * unit, b)
    if bounds:
        ends = [bounds.get(name, (None, None)) for name in names]
        low, high = (
            torch.cat([torch.full_like(each, end if pair[side] is None else pair[side]) / each
                       for pair, each in zip(ends, units, strict=True)])
            for side, end in ((0, -inf), (1, inf))
        )  # fmt: skip
        law &= Bounded(torch.where(missing, -inf, low), torch.where(missing, inf, high))
    for lower, upper in at_most.items():
        law &= _at_most(names.index(lower), names.index(upper), list(sizes.values()), unit)
    scaled = ((values / unit).masked_fill(missing, 0.0) for values in (mean, deviation))
    posterior = condition(Normal(*scaled, validate_args=False), law)
    return Conditioned(posterior, unit, missing, sizes, bool(bounds or at_most))


def _unit(mean: Tensor, deviation: Tensor) -> Tensor:
    """A power of 2 near the largest deviation of a variable, so that laws of several weigh like with like."""
    largest, size = deviation.detach().amax(), mean.detach().nan_to_num().abs().amax()
    size = torch.where(largest > 0, largest, torch.where(size > 0, size, 1.0))
    return 2.0 ** size.log2().round()


def _at_most(low: int, high: int, sizes: Sequence[int], unit: Tensor) -> LinearInequality:
    """Variable ``low`` nowhere above variable ``high``."""
    n = sizes[low]
    here = torch.arange(n, device=unit.device)
    index = torch.stack([here.repeat(2), torch.cat([here + sum(sizes[:low]), here + sum(sizes[:high])])])
    entries = unit.new_tensor([1.0, -1.0]).repeat_interleave(n) * unit[index[1]]
    return LinearInequality(
        torch.sparse_coo_tensor(index, entries, (n, sum(sizes)), check_invariants=False), unit.new_zeros(n)
    )
