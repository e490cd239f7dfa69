"""A set of solutions on one grid: what a data file holds."""

import operator
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from torch import Tensor

from solvers.conditions import per_axis
from solvers.errors import InvalidArgumentError
from solvers.finite_volume.solve import Solution
from solvers.grids import Grid
from solvers.steady.solve import SteadySolution
from solvers.systems.boundary import make_sides
from solvers.systems.solution import SystemSolution

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_PACKAGES = ("probconserv-boon", "torch", "numpy", "scipy", "h5py")
_Pair = tuple[str, str]
CATEGORIES = ("fields", "vectors", "coefficients", "parameters", "extras")


@dataclass(frozen=True, kw_only=True)
class FieldSet:
    """Samples of solutions on one grid at common times, with what made them. Arrays are named and start with b samples.

    Args:
        grid: The grid of all fields.
        times: Increasing output times ``(t,)``; one time for a steady problem.
        fields: Scalar fields that change in time, ``(b, t, *space)``.
        vectors: Vector fields ``(b, t, *space, d)``.
        coefficients: Fields that do not change, such as a conductivity or an initial field, ``(b, *space)``.
        parameters: One number per sample ``(b,)``.
        extras: Any other array per sample ``(b, …)``, such as boundary data.
        boundary: Kinds of the conditions, such as ``(("Dirichlet", "Neumann"),)``, one pair per axis; empty if unknown.
        equation: The equation as text.
        seed: Seed that the samples were drawn with.
        versions: Versions of the packages that made them, by default those installed.

    Raises:
        InvalidArgumentError: If there is no field, a name is no identifier or occurs twice, an array is no tensor, has
            another shape or is complex or not finite, times are not finite or do not increase, ``boundary`` has
            something else than names, or the seed is no integer.
    """

    grid: Grid
    times: Tensor
    fields: Mapping[str, Tensor] = field(default_factory=dict)
    vectors: Mapping[str, Tensor] = field(default_factory=dict)
    coefficients: Mapping[str, Tensor] = field(default_factory=dict)
    parameters: Mapping[str, Tensor] = field(default_factory=dict)
    extras: Mapping[str, Tensor] = field(default_factory=dict)
    boundary: tuple[tuple[str, str], ...] = ()
    equation: str = ""
    seed: int | None = None
    versions: Mapping[str, str] = field(default_factory=lambda: installed_versions())

    def __post_init__(self) -> None:
        self._check_times()
        if not self.fields and not self.vectors:
            raise InvalidArgumentError("A FieldSet needs at least one array in fields or vectors.")
        if self.boundary and not (len(self.boundary) == self.grid.dimension and all(map(_is_pair, self.boundary))):
            raise InvalidArgumentError(
                f"boundary needs one pair of kinds for each of {self.grid.dimension} axes, such as ('Dirichlet', "
                f"'Neumann'), got {self.boundary!r}; collect makes them from conditions."
            )
        if self.seed is not None:
            try:
                object.__setattr__(self, "seed", int(operator.index(self.seed)))
            except TypeError:
                raise InvalidArgumentError(f"seed must be an integer or None, got {self.seed!r}.") from None
        names = [name for category in CATEGORIES for name in getattr(self, category)]
        for name in names:
            if not _NAME.fullmatch(name) or names.count(name) > 1:
                raise InvalidArgumentError(f"Names must be distinct identifiers in ASCII letters, got {name!r}.")
        arrays = [(category, name, array) for category in CATEGORIES for name, array in getattr(self, category).items()]
        for category, name, array in arrays:
            if not isinstance(array, Tensor):
                raise InvalidArgumentError(
                    f"{category} {name!r} must be a tensor (b, …), got {type(array).__name__}; see torch.as_tensor."
                )
            if not array.ndim:
                raise InvalidArgumentError(f"{category} {name!r} must start with the samples, (b, …), got shape ().")
        for each in arrays:
            self._check_array(*each)

    @property
    def samples(self) -> int:
        """Number of samples b."""
        return len(next(iter((*self.fields.values(), *self.vectors.values()))))

    def _check_times(self) -> None:
        times = self.times
        if not isinstance(times, Tensor):
            raise InvalidArgumentError(f"times must be a tensor (t,), got {type(times).__name__}; see torch.as_tensor.")
        if times.ndim != 1 or not len(times):
            raise InvalidArgumentError(f"times must be a tensor (t,), got shape {tuple(times.shape)}.")
        if not bool(torch.isfinite(times).all()) or not bool((times.diff() > 0).all()):
            raise InvalidArgumentError(f"times must be finite and increasing, got {times.tolist()[:8]}.")

    def _check_array(self, category: str, name: str, array: Tensor) -> None:
        samples, t, space = self.samples, len(self.times), self.grid.shape
        expected = {
            "fields": (samples, t, *space),
            "vectors": (samples, t, *space, self.grid.dimension),
            "coefficients": (samples, *space),
            "parameters": (samples,),
            "extras": (samples, *array.shape[1:]),
        }[category]
        if tuple(array.shape) != expected:
            raise InvalidArgumentError(f"{category} {name!r} must have shape {expected}, got {tuple(array.shape)}.")
        if array.is_complex():
            raise InvalidArgumentError(
                f"{category} {name!r} must be real; give real and imaginary part as two arrays, by .real and .imag."
            )
        if not bool(torch.isfinite(array).all()):
            raise InvalidArgumentError(f"{category} {name!r} is not finite; drop the samples that failed.")


def collect(
    solution: Solution | SteadySolution | SystemSolution,
    *,
    names: Sequence[str] = ("u",),
    equation: str = "",
    parameters: Mapping[str, Tensor] | None = None,
    coefficients: Mapping[str, Tensor] | None = None,
    boundary: Sequence[Any] | None = None,
    seed: int | None = None,
) -> FieldSet:
    """A solution as a ``FieldSet``; batch axes become one axis of samples.

    A steady solution is at time 0, with its conductivity and source as coefficients.

    Args:
        solution: Of ``solve``, ``solve_steady`` or ``solve_system``.
        names: Names of the unknowns, one each.
        equation: The equation as text.
        parameters: Numbers ``(*batch,)`` by name.
        coefficients: Fields of the equation ``(*batch, *space)`` by name, such as a random conductivity, which a
            solution in time does not keep; those of a steady solution are there without being given.
        boundary: Conditions in the form of ``solve`` or ``solve_system``; a steady solution knows them.
        seed: Seed that the samples were drawn with.

    Raises:
        InvalidArgumentError: If there is not one name per unknown, two are the same, a parameter or coefficient is
            complex or does not have the batch's shape, or ``boundary`` does not have a pair of conditions per axis.
    """
    grid, d = solution.grid, solution.grid.dimension
    steady = isinstance(solution, SteadySolution)
    values = solution.values
    if steady:
        values = values.unsqueeze(values.ndim - d)
    if not isinstance(solution, SystemSolution):
        values = values.unsqueeze(values.ndim - d)
    if len(names) != values.shape[-d - 1]:
        raise InvalidArgumentError(f"names needs one entry per unknown, {values.shape[-d - 1]}, got {tuple(names)}.")
    if len(set(names)) < len(names):
        raise InvalidArgumentError(f"Names must be distinct identifiers in ASCII letters, got {tuple(names)}.")
    batch = tuple(values.shape[: -d - 2])
    values = values.reshape(-1, *values.shape[-d - 2 :])
    of_samples = {"conductivity": solution.conductivity, "source": solution.source} if steady else {}
    for name, array in (coefficients or {}).items():
        if tuple(array.shape) != (*batch, *grid.shape):
            raise InvalidArgumentError(
                f"coefficients {name!r} must have shape {(*batch, *grid.shape)}, got {tuple(array.shape)}."
            )
    of_samples |= coefficients or {}
    conditions = solution.boundary if steady and boundary is None else boundary
    return FieldSet(
        grid=grid,
        times=torch.zeros(1, dtype=torch.float64) if steady else solution.times,
        fields={name: values[:, :, i] for i, name in enumerate(names)},
        coefficients={name: field.reshape(-1, *grid.shape) for name, field in of_samples.items()},
        parameters={name: _flat(name, value, batch) for name, value in (parameters or {}).items()},
        boundary=_kinds(solution, conditions) if conditions else (),
        equation=equation,
        seed=seed,
    )


def _kinds(solution: Solution | SteadySolution | SystemSolution, boundary: Sequence[Any]) -> tuple[_Pair, ...]:
    """Names of the conditions of every axis."""
    d = solution.grid.dimension
    if isinstance(solution, SystemSolution):
        pairs = [(first.condition, last.condition) for first, last in make_sides(boundary, d)]
    else:
        pairs = per_axis(boundary, d)
    return tuple((type(first).__name__, type(last).__name__) for first, last in pairs)


def _is_pair(kinds: Any) -> bool:
    """Whether an entry is a pair of names."""
    return isinstance(kinds, Sequence) and len(kinds) == 2 and all(isinstance(kind, str) for kind in kinds)


def installed_versions() -> dict[str, str]:
    """Versions of this package and of those that its numbers depend on."""
    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed as a package"
    return versions


def _flat(name: str, value: Tensor, batch: tuple[int, ...]) -> Tensor:
    if torch.as_tensor(value).is_complex():
        raise InvalidArgumentError(f"parameter {name!r} must be real; give .real and .imag as two parameters.")
    value = torch.as_tensor(value, dtype=torch.float64)
    if tuple(value.shape) != batch:
        raise InvalidArgumentError(f"parameter {name!r} must have the batch's shape {batch}, got {tuple(value.shape)}.")
    return value.reshape(-1)
