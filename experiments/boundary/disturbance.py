"""Disturbances of the input fields of test samples: noise, or fewer digits. Boundary data stay as they are."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from experiments.errors import InvalidArgumentError

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """Noise or rounding of input fields.

    Args:
        noise: Standard deviation of independent normal noise at every node, relative to the root mean square of the
            channel over all samples.
        rounding: Format that the fields are rounded to; None for none.
    """

    noise: float = 0.0
    rounding: Literal["float16", "bfloat16"] | None = None

    def __post_init__(self) -> None:
        if not self.noise >= 0:
            raise InvalidArgumentError(f"noise must not be negative, got {self.noise}.")
        if self.rounding not in (None, *_DTYPES):
            raise InvalidArgumentError(f"rounding must be {', '.join(_DTYPES)} or None, got {self.rounding!r}.")

    @property
    def label(self) -> str:
        """Label for tables."""
        return self.rounding or f"{100 * self.noise:g} % noise"

    def __call__(self, a: Float[Tensor, "batch inputs *space"]) -> Float[Tensor, "batch inputs *space"]:
        """The disturbed fields; fields of one shape get the same noise in units of their size."""
        if self.rounding is not None:
            rounded = a.to(_DTYPES[self.rounding]).to(a.dtype)
            if bool((rounded.isinf() & a.isfinite()).any()):
                raise InvalidArgumentError(
                    f"Fields up to {float(a.abs().max()):g} overflow in {self.rounding}; scale them, or take bfloat16."
                )
            return rounded
        size = a.transpose(0, 1).flatten(1).square().mean(1).sqrt().view(-1, *[1] * (a.ndim - 2))
        drawn = torch.randn(a.shape, generator=Generator().manual_seed(0), dtype=torch.float64)
        return a + self.noise * size * drawn.to(a)


NOISES = (0.0001, 0.001, 0.01, 0.05)
"""Levels of the studies."""
DISTURBANCES = (
    *(Disturbance(noise=level) for level in NOISES),
    Disturbance(rounding="float16"),
    Disturbance(rounding="bfloat16"),
)
