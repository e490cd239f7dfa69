"""Codes of the laws that have compiled kernels, and their parameters on rows."""

from dataclasses import dataclass
from typing import Final

import numpy as np

DIFFUSION: Final = 0
POROUS: Final = 1
STEFAN: Final = 2
ADVECTION: Final = 10
BURGERS: Final = 11
TRANSPORT: Final = 12


@dataclass(frozen=True)
class Kernel:
    """A law that kernels know, on the rows of a flattened batch.

    Attributes:
        kind: DIFFUSION (Φ = u), POROUS (Φ = u₊^(m+1)/(m+1)) or STEFAN (Φ = (u − u*)₊), each times the coefficient;
            ADVECTION (f = a u), BURGERS (f = u²/2) or TRANSPORT (f = v u, v varies from face to face).
        parameters: m, u* or a, ``(rows, p)`` with p = 1; p = 0 for DIFFUSION and BURGERS; for TRANSPORT the normal
            velocities on the faces of all axes, one axis after the other.
        coefficient: Diffusivity per row ``(rows,)`` or on the cells ``(rows, cells)``; ones for convective laws.
    """

    kind: int
    parameters: np.ndarray
    coefficient: np.ndarray
