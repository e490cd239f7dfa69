"""Values and fluxes that users give an emulator at the sides of its grid, checked against conditions and balance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from probconserv._linalg.values import as_tensor
from probconserv.errors import InvalidArgumentError
from probconserv.rollout.sides import FormerWalls, Pairs, PerAxis, is_periodic, pairs_of, side_name
from probconserv.rollout.trajectories import Setting, number_of
from solvers import Dirichlet, Neumann, Robin
from solvers._former import warn_of_former

_UNSEEN = ("trajectories", "values", "fluxes", "media")
Kinds = list[Any]
"""Per axis a pair of "values", "fluxes" or None, or None where it is periodic."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """Data of all sides.

    Args:
        walls: A pair per axis, None where it is periodic.
        kinds: Whether they are values or fluxes; None for walls of 0.4, which did not say.
    """

    walls: Pairs
    kinds: Kinds | None

    @classmethod
    def of(
        cls, values: PerAxis | None, fluxes: PerAxis | FormerWalls | None, conditions: Sequence[Any], dimension: int
    ) -> "Given":
        """Joins both; an axis is periodic where one of them or the conditions say so.

        Raises:
            InvalidArgumentError: If they contradict each other or the conditions.
        """
        if isinstance(fluxes, FormerWalls):
            walls, kinds = fluxes.of(dimension), None
        else:
            both = zip(pairs_of("values", values, dimension), pairs_of("fluxes", fluxes, dimension), strict=True)
            joined = [_joined(axis, *pairs) for axis, pairs in enumerate(both)]
            walls, kinds = [sides for sides, _ in joined], [kinds for _, kinds in joined]
        for axis, (sides, pair) in enumerate(zip(walls, conditions, strict=True)):
            periodic, given = is_periodic(pair), any(side is not None for side in sides or ())
            if (periodic and given) or (sides is None and pair is not None and not periodic):
                raise InvalidArgumentError(
                    f"Axis {axis} is periodic in {'conditions' if periodic else 'the data of its sides'} and has "
                    f"{'data of its sides' if periodic else 'conditions'} too; give one of them."
                )
            if periodic:
                walls[axis] = None
                if kinds is not None:
                    kinds[axis] = None
        return cls(walls=walls, kinds=kinds)

    @property
    def measured(self) -> tuple[bool, ...]:
        """True for each axis with fluxes through both sides."""
        return tuple(each == ("fluxes", "fluxes") for each in self.kinds or ())

    def compare(self, fitted: Sequence[Any] | None) -> None:
        """Refuses values where ``fit`` had fluxes, and fluxes where it had values."""
        for axis, kinds in enumerate(self.kinds or () if fitted is not None else ()):
            for last, kind in enumerate(kinds or ()):
                before = (fitted[axis] or (None, None))[last] if fitted is not None else None
                if kind is not None and before is not None and kind != before:
                    raise InvalidArgumentError(
                        f"{side_name(axis, last).capitalize()} had {before} in fit, got {kind}; give {before} there."
                    )

    def check(self, setting: Setting, steps: int) -> None:
        """Refuses data that conditions and balance cannot take.

        Raises:
            InvalidArgumentError: If values are given where fluxes are due, or fluxes in place of values.
        """
        for axis, pair in enumerate(self.walls):
            for last, side in enumerate(pair or ()):
                if side is None:
                    continue
                kind = None if self.kinds is None else self.kinds[axis][last]
                if kind == "values":
                    _check_values(setting, axis, last, side, steps)
                else:
                    _check_fluxes(setting, axis, last, side, steps, kind)


def _joined(axis: int, values: Any, fluxes: Any) -> tuple[tuple[Any, Any] | None, tuple[Any, Any] | None]:
    """The sides of an axis with their kinds; None if it is periodic."""
    if is_periodic(values) or is_periodic(fluxes):
        if any(side is not None for pair in (values, fluxes) if not is_periodic(pair) for side in pair):
            raise InvalidArgumentError(f"Axis {axis} is periodic, but has data of sides; give one of them.")
        return None, None
    sides, kinds = [], []
    for last, (value, flux) in enumerate(zip(values, fluxes, strict=True)):
        if value is not None and flux is not None:
            raise InvalidArgumentError(
                f"{side_name(axis, last).capitalize()} has values and fluxes; give those that its condition or the "
                "balance takes."
            )
        sides.append(flux if value is None else value)
        kinds.append("values" if value is not None else "fluxes" if flux is not None else None)
    return tuple(sides), tuple(kinds)  # type: ignore[return-value]


def _condition(setting: Setting, axis: int, last: int) -> Any:
    """The condition of a side; None where there is none, or one for each of its parts."""
    condition = (setting.conditions[axis] or (None, None))[last]
    return condition if isinstance(condition, Dirichlet | Neumann | Robin) else None


def _check_values(setting: Setting, axis: int, last: int, side: Any, steps: int) -> None:
    name, where, condition = f"values[{axis}][{last}]", side_name(axis, last), _condition(setting, axis, last)
    computed = setting.computes_flux(axis, last)
    if condition is not None and number_of(condition) is not None:
        raise InvalidArgumentError(
            f"{name} is given, but conditions[{axis}][{last}] is {condition!r:.60}, which has its value; leave out one."
        )
    if setting.law is not None and not computed:
        raise InvalidArgumentError(
            f"{name} says nothing of what passes {where}, which the balance needs: give fluxes[{axis}][{last}], a "
            "condition there, such as Dirichlet(), under which the flux is learnt, or balance a flux that computes it."
        )
    if isinstance(side, int | float) and (condition is not None or not computed):
        raise InvalidArgumentError(
            f"{name} is one number, {side}; state it in conditions[{axis}], such as Dirichlet({side}), or give values "
            "at the times."
        )
    if not isinstance(side, int | float) and _count(side) == steps:
        raise InvalidArgumentError(
            f"{name} must be values at all {steps + 1} times, got {steps}; fluxes over the steps are fluxes."
        )


def _check_fluxes(setting: Setting, axis: int, last: int, side: Any, steps: int, kind: str | None) -> None:
    name, condition = f"{kind or 'walls'}[{axis}][{last}]", _condition(setting, axis, last)
    number = isinstance(side, int | float)
    over_steps = not number and _count(side) == steps
    if condition is not None and number_of(condition) is None and (over_steps or kind is not None):
        raise InvalidArgumentError(
            f"{name} holds fluxes, but conditions[{axis}][{last}] is {condition!r:.60}, which takes a value at every "
            f"time: give values[{axis}][{last}]."
        )
    if kind is not None and setting.computes_flux(axis, last):
        raise InvalidArgumentError(
            f"{name} is given, but the flux through {side_name(axis, last)} is computed, by balance's flux or one that "
            "is learnt where axes have conditions; give fluxes on both sides of the axis, or on none."
        )
    if setting.law is None and number and side != 0:
        raise InvalidArgumentError(
            f"{name} is a constant flux, {side}, which has no effect without a balance; give balance={{}}, or state a "
            "value in the condition."
        )


def _count(side: Any) -> int:
    shape = tuple(getattr(side, "shape", ()))
    return shape[1] if len(shape) > 1 else -1


def unseen_parts(validation: Any, setting: Setting) -> Any:
    """Further trajectories, their walls and media, of the ``validation`` of ``Emulator.fit``; a number is returned.

    Raises:
        InvalidArgumentError: If names are unknown or data do not fit.
    """
    if isinstance(validation, tuple):
        warn_of_former(
            "validation takes further trajectories as a dictionary with the names of fit's arguments, trajectories, "
            "values, fluxes and media, since release 0.5; the tuple goes with 0.6."
        )
        return validation
    if not isinstance(validation, Mapping):
        return validation
    if "trajectories" not in validation or set(validation) - set(_UNSEEN):
        raise InvalidArgumentError(
            f"validation must be a number of functions or a dictionary with {', '.join(_UNSEEN)}, the last three where "
            f"fit has them, got {', '.join(map(str, validation))}."
        )
    fields = as_tensor(validation["trajectories"], dtype=None)
    values, fluxes = validation.get("values"), validation.get("fluxes")
    given = Given.of(values, fluxes, setting.conditions, setting.grid.dimension)
    given.check(setting, fields.shape[1] - 1)
    return fields, given.walls, *([] if validation.get("media") is None else [validation["media"]])
