"""Several variables under shared laws: one Gaussian of all their values, each variable in a unit of its size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
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
        missing: Values that are missing ``(*batch, n)``; None if none is.
        sizes: Number n_i of values by variable.
        bounded: True where bounds hold, so that the values are the most probable ones.
    """

    posterior: Any
    unit: Tensor
    missing: Tensor | None
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
        joined = joined if self.missing is None else joined.masked_fill(self.missing, torch.nan)
        parts = (joined * self.unit).split(list(self.sizes.values()), dim=-1)
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
    sizes = {name: mean.shape[-1] for name, mean in means.items()}
    nothing = {name: means[name].new_zeros(size) for name, size in sizes.items()}
    mean, deviation = _joined(means), _joined({name: nothing[name] + deviations[name] for name in means})
    rows = [_joined(nothing | dict(law.rows)) for law in laws]
    G = torch.stack(torch.broadcast_tensors(*rows), dim=-2)
    b = torch.stack(torch.broadcast_tensors(*(law.total for law in laws)), dim=-1)
    missing = _missing(mean, G, sizes)
    units = {name: _unit(means[name], deviations[name]).expand(size) for name, size in sizes.items()}
    unit = torch.cat(list(units.values()))
    law: Any = LinearConstraint(G * unit, b)
    if bounds:
        low, high = (_side(side, bounds, units) for side in (0, 1))
        if missing is not None:
            low, high = torch.where(missing, -inf, low), torch.where(missing, inf, high)
        law &= Bounded(low, high)
    starts = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
    for lower, upper in at_most.items():
        law &= _at_most(starts[lower], starts[upper], sizes[lower], unit)
    mean, deviation = mean / unit, deviation / unit
    if missing is not None:
        mean, deviation = mean.masked_fill(missing, 0.0), deviation.masked_fill(missing, 0.0)
    posterior = condition(Normal(mean, deviation, validate_args=False), law)
    return Conditioned(posterior, unit, missing, sizes, bool(bounds or at_most))


def _missing(mean: Tensor, G: Tensor, sizes: Mapping[str, int]) -> Tensor | None:
    """Which values are missing ``(*batch, n)``, None if none is; those that rows weigh are refused."""
    missing = mean.isnan()
    if not bool(missing.any()):
        return None
    weighed = (missing & (G != 0).any(dim=-2)).split(list(sizes.values()), dim=-1)
    counts = {name: int(part.sum()) for name, part in zip(sizes, weighed, strict=True) if bool(part.any())}
    if counts:
        raise InvalidArgumentError(
            f"There are missing values where weights are not 0: {counts}. Fill them, or give weights of 0 there, such "
            "as weights.where(data.notnull(), 0); these values then stay missing."
        )
    return missing


def _joined(parts: Mapping[str, Tensor]) -> Tensor:
    """The values of all variables one after the other ``(*batch, n)``."""
    batch = torch.broadcast_shapes(*(part.shape[:-1] for part in parts.values()))
    return torch.cat([part.expand(*batch, part.shape[-1]) for part in parts.values()], dim=-1)


def _unit(mean: Tensor, deviation: Tensor) -> Tensor:
    """A power of 2 near the largest deviation of a variable, so that laws of several weigh like with like."""
    size = deviation.detach().amax()
    if not bool(size > 0):
        size = mean.detach().nan_to_num().abs().amax()
    return 2.0 ** torch.where(size > 0, size, 1.0).log2().round()


def _side(side: int, bounds: Mapping[str, tuple[float | None, float | None]], units: Mapping[str, Tensor]) -> Tensor:
    """Lower (0) or upper (1) bounds of all values, in their units; infinite where there is none."""
    parts = []
    for name, unit in units.items():
        bound = bounds.get(name, (None, None))[side]
        parts.append(torch.full_like(unit, (-inf, inf)[side] if bound is None else bound) / unit)
    return torch.cat(parts)


def _at_most(low: int, high: int, size: int, unit: Tensor) -> LinearInequality:
    """The variable that starts at place ``low`` nowhere above the one that starts at ``high``."""
    here = torch.arange(size, device=unit.device)
    index = torch.stack([here.repeat(2), torch.cat([here + low, here + high])])
    entries = unit.new_tensor([1.0, -1.0]).repeat_interleave(size) * unit[index[1]]
    rows = torch.sparse_coo_tensor(index, entries, (size, len(unit)), check_invariants=False)
    return LinearInequality(rows, unit.new_zeros(size))
