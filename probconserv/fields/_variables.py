"""Several variables under shared laws: one Gaussian of all their values, each variable in a unit of its size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import inf
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Normal

from probconserv._linalg.rows import SparseRows
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
    lacking = {name: _shared(part.isnan()) for name, part in means.items()}
    if bounds:
        low, high = (_joined(side) / unit for side in _bounded(bounds, at_most, lacking))
        law &= Bounded(low, high)
    starts = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
    for lower in at_most:
        rows = _at_most(_chain(lower, at_most), lacking, starts, unit)
        law = law if rows is None else law & rows
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


def _bounded(
    bounds: Mapping[str, tuple[float | None, float | None]], at_most: Mapping[str, str], lacking: Mapping[str, Tensor]
) -> list[dict[str, Tensor]]:
    """Lower and upper bounds of all values by variable ``(*batch, n_i)``; infinite where there is none.

    A missing value has no bounds, but those that its true value meets also hold for values that it lies between.
    """
    low, high = (
        {name: _filled(part, bounds.get(name, (None, None))[side], none) for name, part in lacking.items()}
        for side, none in ((0, -inf), (1, inf))
    )
    for _ in at_most:  # as many steps as the longest chain
        for lower, upper in at_most.items():
            high[lower] = torch.where(lacking[upper], torch.minimum(high[lower], high[upper]), high[lower])
            low[upper] = torch.where(lacking[lower], torch.maximum(low[lower], low[upper]), low[upper])
    return [
        {name: side[name].masked_fill(part, none) for name, part in lacking.items()}
        for side, none in ((low, -inf), (high, inf))
    ]


def _filled(like: Tensor, value: float | None, default: float) -> Tensor:
    return torch.full(like.shape, default if value is None else value, dtype=torch.float64, device=like.device)


def _shared(mask: Tensor) -> Tensor:
    """A mask ``(*batch, n)`` without its batch axes if it is the same in all entries."""
    entries = mask.reshape(-1, mask.shape[-1])
    same = entries.any(dim=0)
    return same if bool((same == entries.all(dim=0)).all()) else mask


def _chain(lower: str, at_most: Mapping[str, str]) -> list[str]:
    """A variable, the one that it is nowhere above, the one that this is nowhere above, and so on."""
    chain = [lower]
    while (name := at_most.get(chain[-1])) is not None and name not in chain:
        chain.append(name)
    return chain


def _at_most(
    chain: Sequence[str], lacking: Mapping[str, Tensor], starts: Mapping[str, int], unit: Tensor
) -> LinearInequality | None:
    """The first variable of a chain nowhere above the next that is not missing there; None if there is no such place.

    Where the first is missing, or all others are, the row reads 0 ≤ 1.
    """
    first, *others = chain
    searched = ~lacking[first]
    weights: dict[str, Tensor] = {}
    for name in others:
        weights[name] = -(searched & ~lacking[name]).to(unit)
        searched = searched & lacking[name]
        if not bool(searched.any()):
            break
    stated = ~lacking[first] & ~searched
    places = stated.reshape(-1, stated.shape[-1]).any(dim=0).nonzero()[:, 0]
    if not len(places):
        return None
    weights[first] = stated.to(unit)
    names = sorted(weights, key=starts.__getitem__)
    column = torch.stack([places + starts[name] for name in names], dim=-1)
    parts = torch.broadcast_tensors(*(weights[name][..., places] for name in names))
    values = torch.stack(parts, dim=-1) * unit[column]
    rows = SparseRows(
        rows=len(places),
        points=len(unit),
        row=torch.arange(len(places), device=unit.device).repeat_interleave(len(names)),
        column=column.flatten(),
        entries=values.flatten(-2),
        is_disjoint=True,
    )
    return LinearInequality(rows, 1.0 - stated[..., places].to(unit))
