"""Trajectories with the data of their walls, as operators and laws take them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from probconserv._linalg.values import Array, as_tensor
from probconserv.calibration.conformal import conformal_rank
from probconserv.errors import ConvergenceError, InfeasibleConstraintError, InvalidArgumentError
from probconserv.rollout.flux_model import FluxModel
from probconserv.rollout.learned_response import LearnedResponse
from probconserv.rollout.regression import Steps
from probconserv.rollout.rollout import Rollout
from probconserv.rollout.sides import side_name
from probconserv.rollout.walls import exchange_of, integrated
from solvers import Dirichlet, Neumann, Periodic, Robin
from solvers.grids import Grid

Side = Tensor | float | None
Walls = Sequence[tuple[Side, Side] | None]
LAW = ("flux", "source", "bounds", "conserved", "tolerance")
"""Arguments of ``Rollout`` that a law has."""
_SAME_STEP = 1e-3  # relative difference of equal steps


@dataclass(frozen=True, kw_only=True, eq=False)
class Setting:
    """Grid, conditions and law of an emulator."""

    grid: Grid
    conditions: Sequence[Any]
    law: Mapping[str, Any] | None
    interval: float
    measured: tuple[bool, ...] = ()  # axes through both of whose sides fluxes are given; none by default

    def data_of(self, walls: Walls, steps: int, media: Tensor | None = None) -> tuple[Tensor, ...]:
        """Inputs of operators in every step ``(functions, steps, …)``: of sides data at both ends, or mean fluxes."""
        parts = []
        for side in _sides(walls):
            at_times = side.shape[1] == steps + 1
            parts.append(torch.cat([side[:, :-1], side[:, 1:]], dim=2) if at_times else side / self.interval)
        return tuple(parts) if media is None else (*parts, media[:, None].expand(-1, steps, *media.shape[1:]))

    @property
    def periodic(self) -> tuple[bool, ...]:
        """True for each periodic axis."""
        return tuple(pair is not None and isinstance(pair[0], Periodic) for pair in self.conditions)

    @property
    def walled(self) -> tuple[bool, ...]:
        """True for each axis with conditions at its walls."""
        return tuple(pair is not None and not isinstance(pair[0], Periodic) for pair in self.conditions)

    @property
    def modelled(self) -> tuple[bool, ...]:
        """Whether each axis has walls whose fluxes a ``FluxModel`` gives."""
        if self.law is None or self.law.get("flux") is not None:
            return (False,) * self.grid.dimension
        measured = self.measured or (False,) * self.grid.dimension
        conditions = zip(self.conditions, measured, strict=True)
        return tuple(not given and any(map(is_condition, pair or ())) for pair, given in conditions)

    def computes_flux(self, axis: int, last: int) -> bool:
        """Whether the flux through a side follows from values that are given there."""
        flux = (self.law or {}).get("flux")
        pair = (flux, flux) if flux is None or callable(flux) else flux[axis] or (None, None)
        return self.modelled[axis] or pair[last] is not None

    def rollout(
        self, operator: Callable[..., Tensor], flux: FluxModel | None, response: LearnedResponse | None = None
    ) -> Rollout:
        """The operator under the law."""
        law = dict(self.law or {})
        if flux is not None:
            law["flux"] = [(flux, flux) if modelled else None for modelled in self.modelled]
        return Rollout(operator, self.grid, response=response, **law)

    @classmethod
    def of(
        cls,
        grid: Grid,
        conditions: Sequence[Any] | None,
        law: Mapping[str, Any] | None,
        interval: float,
        walls: Sequence[Any] = (),
        measured: Sequence[bool] = (),
    ) -> "Setting":
        """Checks conditions and law; an axis that has no condition, and None in ``walls``, is periodic."""
        conditions = conditions_of(grid, conditions)
        if law is not None and (unknown := set(law) - set(LAW)):
            raise InvalidArgumentError(f"balance takes {', '.join(LAW)}, got {', '.join(sorted(unknown))}.")
        if isinstance(walls, Sequence) and len(walls) == grid.dimension:
            circle = (Periodic(), Periodic())
            axes = zip(conditions, walls, strict=True)
            conditions = tuple(circle if pair is None and sides is None else pair for pair, sides in axes)
        return cls(grid=grid, conditions=conditions, law=law, interval=interval, measured=tuple(measured))

    def check_times(self, times: Tensor) -> None:
        """Refuses times in other steps."""
        lengths = times.diff()
        if len(lengths) < 1 or bool(((lengths - self.interval).abs() > _SAME_STEP * self.interval).any()):
            raise InvalidArgumentError(
                f"times must be at least two, in equal steps of {self.interval:.6g}, got {len(times)} with the steps "
                f"{[float(f'{length:.6g}') for length in lengths[:3]]} first."
            )


def conditions_of(grid: Grid, conditions: Sequence[Any] | None) -> tuple[Any, ...]:
    """One pair of conditions or None per axis; ``Periodic()`` stands for both of its sides."""
    conditions = (None,) * grid.dimension if conditions is None else tuple(conditions)
    if len(conditions) != grid.dimension:
        raise InvalidArgumentError(
            f"conditions needs one pair (first, last), Periodic() or None per axis, {grid.dimension} in all, got "
            f"{len(conditions)}."
        )
    return tuple((pair, pair) if isinstance(pair, Periodic) else pair for pair in conditions)


@dataclass(frozen=True, kw_only=True, eq=False)
class Functions:
    """Trajectories with the data of their walls, checked; arrays become tensors, and derivatives end here."""

    fields: Tensor
    walls: Walls
    media: Tensor | None
    setting: Setting
    first: float = 0.0  # time of the first field

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", as_tensor(self.fields, dtype=None).detach())
        grid, fields = self.setting.grid, self.fields
        if fields.ndim != grid.dimension + 3 or tuple(fields.shape[3:]) != grid.shape or fields.shape[1] < 2:
            raise InvalidArgumentError(
                f"Trajectories must be (functions, times, channels, {', '.join(map(str, grid.shape))}) on this grid, "
                f"at two times or more, got {tuple(fields.shape)}."
            )
        if not fields.is_floating_point() or not bool(fields.isfinite().all()):
            raise InvalidArgumentError(
                "Trajectories must be finite floating-point numbers; leave out functions that are not."
            )
        if not isinstance(self.walls, Sequence) or len(self.walls) != grid.dimension:
            raise InvalidArgumentError(
                f"Sides need one pair (first, last) per axis, None for a periodic one, {grid.dimension} in all, got "
                f"{len(self.walls) if isinstance(self.walls, Sequence) else type(self.walls).__name__}."
            )
        for axis, pair in enumerate(self.walls):
            if pair is not None and (not isinstance(pair, Sequence) or len(pair) != 2):
                raise InvalidArgumentError(f"Sides of axis {axis} must be a pair or None, got {pair!r:.60}.")
        object.__setattr__(self, "walls", _each(self.walls, lambda side: as_tensor(side, dtype=None).detach()))
        for axis, pair in enumerate(self.walls):
            face = tuple(n for other, n in enumerate(grid.shape) if other != axis)
            for side in pair or ():
                self._check_side(side, axis, face)
        if self.media is not None:
            object.__setattr__(self, "media", as_tensor(self.media, dtype=None).detach())
            self._check_media(self.media)

    @classmethod
    def from_start(
        cls, start: Array, walls: Walls, times: Tensor, media: Array | None, setting: Setting
    ) -> "Functions":
        """Functions of which the first fields are known ``(functions, c, *space)``, which stand for all times."""
        start, grid = as_tensor(start, dtype=None), setting.grid
        shape, missing = tuple(start.shape), int((~start.isfinite()).sum())
        if len(shape) != grid.dimension + 2 or shape[2:] != grid.shape or not start.is_floating_point() or missing:
            raise InvalidArgumentError(
                f"start must be finite floating-point fields (functions, channels, {', '.join(map(str, grid.shape))}), "
                f"got {shape} of {start.dtype} with {missing} values that are NaN or infinite."
            )
        setting.check_times(times)
        fields = start[:, None].expand(-1, len(times), *shape[1:])
        given = None if media is None else as_tensor(media, dtype=None)
        return cls(fields=fields, walls=walls, media=given, setting=setting, first=float(times[0]))

    def _check_media(self, media: Tensor) -> None:
        grid, shape = self.setting.grid, tuple(media.shape)
        wanted = ", ".join(map(str, [len(self.fields), "m", *grid.shape]))
        if len(shape) != grid.dimension + 2 or (shape[0], *shape[2:]) != (len(self.fields), *grid.shape):
            raise InvalidArgumentError(f"media must be ({wanted}), of every function, got {shape}.")
        if missing := int((~media.isfinite()).sum()):
            raise InvalidArgumentError(
                f"media must be finite, got {missing} values that are NaN or infinite; fill them, or leave out their "
                "functions."
            )

    def _check_side(self, side: Side, axis: int, face: tuple[int, ...]) -> None:
        count, times = self.fields.shape[:2]
        if side is None or isinstance(side, int | float):
            return
        shape = tuple(int(n) for n in getattr(side, "shape", ()))
        if len(shape) != 3 + len(face) or shape[0] != count or shape[1] not in (times, times - 1) or shape[3:] != face:
            wanted = ", ".join(map(str, (count, f"{times} or {times - 1}", "channels", *face)))
            raise InvalidArgumentError(
                f"A side of axis {axis} must be a tensor ({wanted}), values at the times or fluxes integrated over "
                f"the steps, or a number, or None if its condition has one, got {shape or type(side).__name__}."
            )

    @property
    def channels(self) -> dict[str, str]:
        """Numbers of channels of fields, of sides with data and of media, by name."""
        counts = {"fields": f"{self.fields.shape[2]} channels"}
        for axis, pair in enumerate(self.walls):
            for end, side in enumerate(pair or ()):
                if isinstance(side, Tensor):
                    kind = "values at the times" if side.shape[1] > self.steps else "fluxes over the steps"
                    counts[side_name(axis, end)] = f"{side.shape[2]} channels of {kind}"
        return counts if self.media is None else counts | {"media": f"{self.media.shape[1]} channels"}

    def check_channels(self, wanted: Mapping[str, str], name: str) -> None:
        """Refuses functions that have other channels than those of a training."""
        got = self.channels
        for part in {**wanted, **got}:
            if wanted.get(part) != got.get(part):
                raise InvalidArgumentError(
                    f"{name} must have the channels that the trajectories of fit have, {part} "
                    f"{wanted.get(part, 'none')}, got {got.get(part, 'none')}."
                )

    def check_fluxes(self) -> None:
        """Refuses walls of which nothing says, under a law, what passes them."""
        if self.setting.law is None:
            return
        for axis, pair in enumerate(self.of_law()):
            for name, side in zip(("first", "last"), pair or (), strict=False):
                if side is None:
                    raise InvalidArgumentError(
                        f"balance needs what passes the {name} side of axis {axis}, where nothing is given and "
                        "conditions have no value. Give the flux there in fluxes, integrated over every step or as a "
                        "number, 0.0 for a closed wall; or a condition with a value, such as Neumann(0.0) at an "
                        "outflow, whose flux is learnt; or balance=None."
                    )

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.fields.shape[1] - 1

    @property
    def times(self) -> Tensor:
        """The times of the fields."""
        return self.first + self.setting.interval * torch.arange(self.steps + 1, dtype=torch.float64)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """Inputs of operators in every step ``(functions, steps, …)``."""
        return self.setting.data_of(self.walls, self.steps, self.media)

    @property
    def single(self) -> Steps:
        """All single steps."""
        data = tuple(part.flatten(0, 1) for part in self.inputs)
        return Steps(self.fields[:, :-1].flatten(0, 1), self.fields[:, 1:].flatten(0, 1), data)

    def take(self, rows: slice) -> "Functions":
        """Some of the functions."""
        media = None if self.media is None else self.media[rows]
        return replace(self, fields=self.fields[rows], walls=_each(self.walls, lambda side: side[rows]), media=media)

    def of_law(self) -> list[Any]:
        """The walls as ``Rollout`` takes them: a side without data has the number of its condition.

        Where fluxes are modelled it has as many values at a point as the sides with data.
        """
        modelled = [pair for pair, of_model in zip(self.walls, self.setting.modelled, strict=True) if of_model]
        count = next((side.shape[2] for side in _sides(modelled)), 1)
        full: list[Any] = []
        for axis, (pair, conditions) in enumerate(zip(self.walls, self.setting.conditions, strict=True)):
            of_axis = [number_of(condition) for condition in conditions or (None, None)]
            if self.setting.modelled[axis] and pair:
                face = self.setting.grid.shape[:axis] + self.setting.grid.shape[axis + 1 :]
                constant = self.fields.new_ones(len(self.fields), len(self.times), count, *face)
                of_axis = [None if number is None else number * constant for number in of_axis]
            full.append(pair and tuple(n if s is None else s for s, n in zip(pair, of_axis, strict=True)))
        return full

    def gained(self, modelled: Sequence[bool]) -> Tensor:
        """Contribution of the modelled sides to the totals in every step ``(functions, steps, k)``."""
        setting, law = self.setting, self.setting.law or {}
        rollout, times = Rollout(nn.Identity(), setting.grid, conserved=law.get("conserved")), self.times
        totals = torch.stack([rollout.totals_of(field) for field in self.fields.unbind(dim=1)], dim=1)
        known = [None if of_model else pair for pair, of_model in zip(self.of_law(), modelled, strict=True)]
        gained = totals.diff(dim=1) - exchange_of(setting.grid, totals[:, 0], known, times, None, ()).gained
        if (source := law.get("source")) is not None:
            fields = self.fields.double().unbind(dim=1)
            rates = [integrated(source(u, t), setting.grid.weights) for u, t in zip(fields, times, strict=True)]
            both = torch.stack(rates, dim=1)
            gained = gained - 0.5 * setting.interval * (both[:, 1:] + both[:, :-1])
        return gained

    def repeated(self, members: int) -> "Functions":
        """The functions ``members`` times, all after each other."""

        def repeat(part: Tensor) -> Tensor:
            return part.repeat(members, *[1] * (part.ndim - 1))

        media = None if self.media is None else repeat(self.media)
        return replace(self, fields=repeat(self.fields), walls=_each(self.walls, repeat), media=media)


def given_sides(walls: Walls) -> list[tuple[bool, bool] | None]:
    """True for each side that has data of every function."""
    sides: list[tuple[bool, bool] | None] = []
    for pair in walls:
        first, last = pair or (None, None)
        sides.append(None if pair is None else (isinstance(first, Tensor), isinstance(last, Tensor)))
    return sides


def is_condition(side: Any) -> bool:
    """Whether a side has a condition, or several on its parts."""
    return isinstance(side, Dirichlet | Neumann | Robin | Sequence) or hasattr(side, "condition")


def number_of(condition: Any) -> Any:
    """The value of a condition; None where it has none."""
    return condition.gradient if isinstance(condition, Neumann) else getattr(condition, "value", None)


def _sides(walls: Walls) -> list[Tensor]:
    return [side for pair in walls if pair is not None for side in pair if isinstance(side, Tensor)]


def _each(walls: Walls, change: Callable[[Any], Tensor]) -> Walls:
    changed: list[Any] = []
    for pair in walls:
        changed.append(pair and tuple(change(side) if hasattr(side, "shape") else side for side in pair))
    return changed


Candidate = tuple[Callable[..., Tensor], Rollout | None]
"""An operator of one step, and itself under the law; None for the operator alone."""


@torch.no_grad()
def predict(operator: Callable[..., Tensor], rollout: Rollout | None, part: Functions) -> tuple[Tensor, Tensor]:
    """Fields and totals ``(functions, t, …)`` from the starts of functions."""
    inputs, start = part.inputs, part.fields[:, 0]
    if rollout is not None:
        made = rollout.between(start, part.times, part.of_law(), inputs)
        return made.fields, made.totals
    fields = [start]
    for step in range(part.steps):
        fields.append(operator(fields[-1], *(each[:, step] for each in inputs)))
    law = part.setting.law or {}
    counted = Rollout(nn.Identity(), part.setting.grid, conserved=law.get("conserved"))
    return torch.stack(fields, dim=1), torch.stack([counted.totals_of(field) for field in fields], dim=1)


def errors_of(candidate: Candidate, part: Functions) -> Tensor:
    """Error of every function relative to its size, root mean square, mean over steps; infinite where it diverges."""
    try:
        fields = predict(*candidate, part)[0]
    except (ConvergenceError, InfeasibleConstraintError):
        return torch.full((len(part.fields),), torch.inf, dtype=torch.float64)
    error = (fields - part.fields).double().flatten(2).square().mean(dim=-1).sqrt()[:, 1:].mean(dim=1)
    size = part.fields.double().flatten(1).square().mean(dim=1).sqrt()
    return torch.where(error.isfinite(), error / size, torch.inf)


def parts_of(
    known: Functions, validation: int | tuple[Any, ...] | None, level: float | None
) -> tuple[Functions, Functions, Functions]:
    """Functions to train on, to choose by, and to calibrate on."""
    if isinstance(validation, tuple):
        if len(validation) not in (2, 3):
            raise InvalidArgumentError(
                "validation must be a number of functions, or further trajectories, their walls and, if there are any, "
                f"media, got {len(validation)} parts."
            )
        fields, walls, *media = validation
        training, unseen = known, replace(known, fields=fields, walls=walls, media=media[0] if media else None)
        unseen.check_channels(known.channels, "validation")
    else:
        count = max(2, 2 * len(known.fields) // 5) if validation is None else validation
        if not 2 <= count < len(known.fields):
            raise InvalidArgumentError(
                f"validation must leave functions to train on, of {len(known.fields)}, got {count}."
            )
        training, unseen = known.take(slice(-count)), known.take(slice(-count, None))
    training.check_fluxes()
    unseen.check_fluxes()
    choice, calibration = unseen.take(slice(0, None, 2)), unseen.take(slice(1, None, 2))
    if level is not None:
        try:
            conformal_rank(len(calibration.fields), 1, level)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                f"{error} Half of the validation functions are for it: give twice as many, or level=None for no band."
            ) from error
    return training, choice, calibration
