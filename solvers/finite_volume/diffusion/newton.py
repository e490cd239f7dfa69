"""The stopping criterion of Newton's method for implicit stages."""

from dataclasses import dataclass

from solvers.errors import InvalidArgumentError


@dataclass(frozen=True)
class Newton:
    """Stopping criterion of Newton's iteration.

    Args:
        tolerance: Allowed mean |error| of a stage, as a fraction of the allowed error of the step. The error is
            estimated from the last two changes; a linear law needs one iteration.
        iterations: Largest number of iterations; then the step is rejected and repeated with a shorter one.

    Raises:
        InvalidArgumentError: If one of them is not positive.
    """

    tolerance: float = 1e-2
    iterations: int = 20

    def __post_init__(self) -> None:
        if not (self.tolerance > 0 and self.iterations > 0):
            raise InvalidArgumentError(
                f"Newton needs tolerance > 0 and iterations > 0, got {self.tolerance} and {self.iterations}."
            )
