"""What the search for the most probable field on a nonlinear law found."""

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor

from probconserv.nonlinear.law import NonlinearLaw


@dataclass(frozen=True, kw_only=True, eq=False)
class NonlinearMode:
    """The best of the modes that the starts reached: local, unless g has only one.

    Args:
        law: All statements that it meets; None in a copy by pickle or deepcopy, which functions may not have, and of a
            prediction in another batch or scale, where the rest is that of the first one.
        field: u ``(*batch, n)``, float64, without derivatives.
        objective: (u − μ)ᵀ Σ⁻¹ (u − μ) ``(*batch,)``.
        converged: How many starts met the tolerance ``(*batch,)``.
        agreeing: How many of them reached this objective ``(*batch,)``; few of many mean that a still better mode may
            have been missed.
    """

    law: NonlinearLaw | None
    field: Float[Tensor, "*batch n"]
    objective: Float[Tensor, " *batch"]
    converged: Int[Tensor, " *batch"]
    agreeing: Int[Tensor, " *batch"]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"law": None}
