"""What a time stepper is.

A step changes cells and account by the same combination of rates, so the total balances to round-off with every
stepper, whatever the tolerance of its Newton iteration. Every row has a separate time and step.
"""

from abc import ABC, abstractmethod
from numbers import Real
from typing import ClassVar, Protocol

from solvers.errors import InvalidArgumentError
from solvers.finite_volume.diffusion.newton import Newton


class Control(Protocol):
    """Error control of a stepper."""

    @property
    def tolerance(self) -> float: ...
    @property
    def atol(self) -> float: ...
    @property
    def largest_step(self) -> float: ...


class Stepper(ABC):
    """A time-stepping method.

    Attributes:
        order: Order of the error of one step, for the choice of the next.
        first_fraction: First proposed step over the span.
        largest_step: Upper bound of the step.
    """

    order: ClassVar[int]
    first_fraction: ClassVar[float]
    largest_step: float

    @abstractmethod
    def suits(self, convects: bool, diffuses: bool) -> bool:
        """Whether it can integrate laws with these parts."""


def check_control(control: Control) -> None:
    """Raises an error if a tolerance or the largest step is out of range, or ``newton`` is something else."""
    numbers = all(isinstance(each, Real) for each in (control.tolerance, control.largest_step, control.atol))
    newton = getattr(control, "newton", None)
    if not isinstance(newton, Newton | None):
        raise InvalidArgumentError(f"{type(control).__name__}: newton must be a Newton, got {newton!r}.")
    if not (numbers and control.tolerance > 0 and control.largest_step > 0 and control.atol >= 0):
        raise InvalidArgumentError(
            f"{type(control).__name__} needs numbers tolerance > 0, largest_step > 0 and atol ≥ 0, got "
            f"{control.tolerance!r}, {control.largest_step!r} and {control.atol!r}."
        )
