"""``python -m solvers.warm``: compiles every kind of solve once, so that no later first call waits for it.

Compiled code is kept beside the packages, or in ``NUMBA_CACHE_DIR``; run it once after an installation, as a user who
may write there. Names of kinds after the command compile only these.
"""

import logging
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

import solvers
from solvers._compiled import cache_folder
from solvers.errors import InvalidArgumentError, OutputFolderError
from solvers.problems.reactions import gray_scott


def _line(law: Any, *, batch: int = 1, **options: Any) -> Callable[[], object]:
    """A solve on a line, alone and for a batch: they are compiled apart."""
    ends = (solvers.Dirichlet(1.0), solvers.Dirichlet(0.5))
    initial = 0.5 + 0.1 * torch.rand(batch, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return lambda: [
        solvers.solve(law(), solvers.CellGrid(0.0, 1.0, 16), ends, each, [2.0], **options)
        for each in (initial[0], initial.expand(8, 16))
    ]


def _plane(law: Any, dimension: int = 2, **options: Any) -> Callable[[], object]:
    """A solve on a square or a cube."""
    sides = ((solvers.Dirichlet(1.0), solvers.Neumann(gradient=0.0)),) * dimension
    return lambda: solvers.solve(law(), _cells(dimension), sides, 1.0, [2.0], **options)


def _cells(dimension: int) -> solvers.CellGrid:
    return solvers.CellGrid((0.0,) * dimension, (1.0,) * dimension, (8,) * dimension)


def _system(law: Any, state: Sequence[float], dimension: int = 1) -> Callable[[], object]:
    """A system at rest between walls."""
    initial = torch.tensor(state, dtype=torch.float64).view(-1, *[1] * dimension).expand(-1, *[8] * dimension)
    walls = ((solvers.Reflecting(), solvers.Reflecting()),) * dimension
    return lambda: solvers.solve_system(law(), _cells(dimension), walls, initial, [0.01])


def _mixed() -> Any:
    return solvers.ConvectionDiffusion(solvers.Burgers(), solvers.Diffusion(0.1))


KINDS: dict[str, Callable[[], object]] = {
    "diffusion": _line(lambda: solvers.Diffusion(1.0)),
    "porous medium": _line(lambda: solvers.PorousMedium(2.0)),
    "Stefan": _line(lambda: solvers.Stefan(0.6)),
    "diffusion by explicit steps": _line(lambda: solvers.Diffusion(1.0), stepper=solvers.RKL2()),
    "advection": _line(lambda: solvers.Advection(1.0)),
    "Burgers": _line(solvers.Burgers),
    "convection and diffusion": _line(_mixed),
    "convection, diffusion and a source": _line(_mixed, source=solvers.Logistic(1.0)),
    "diffusion in a plane": _plane(lambda: solvers.Diffusion(1.0)),
    "porous medium in a plane": _plane(lambda: solvers.PorousMedium(2.0)),
    "convection and diffusion in a plane": _plane(_mixed),
    "diffusion in space": _plane(lambda: solvers.Diffusion(1.0), 3),
    "shallow water": _system(solvers.ShallowWater, (1.0, 0.0)),
    "shallow water in a plane": _system(solvers.ShallowWater, (1.0, 0.0, 0.0), 2),
    "Euler": _system(solvers.Euler, (1.0, 0.0, 2.5)),
    "Euler in a plane": _system(solvers.Euler, (1.0, 0.0, 0.0, 2.5), 2),
    "reactions": lambda: solvers.solve_system(
        gray_scott(), _cells(2), ((solvers.Neumann(flux=0.0),) * 2,) * 2, torch.full((2, 8, 8), 0.5), [1.0]
    ),
}
"""Set-ups to compile, by name."""


def warm(kinds: Sequence[str] = ()) -> None:
    """Compiles, and prints a line for each kind with its seconds.

    Args:
        kinds: Names of ``KINDS``; all where none is given.

    Raises:
        InvalidArgumentError: If there is no such kind.
        OutputFolderError: If no folder for compiled code can be written.
    """
    unknown = [name for name in kinds if name not in KINDS]
    if unknown:
        raise InvalidArgumentError(f"kinds must be some of {', '.join(KINDS)}, got {', '.join(unknown)}.")
    folder = cache_folder()
    if folder is None:
        raise OutputFolderError(
            "Compiled code cannot be kept: neither the folder of the packages nor the user's cache can be written. Set "
            "NUMBA_CACHE_DIR to a folder that can, now and in later runs, or run this as the user who installed them."
        )
    print(f"Compiled code is kept in {folder}.")
    for name in kinds or KINDS:
        start = time.perf_counter()
        KINDS[name]()
        print(f"{name:<40}{time.perf_counter() - start:6.1f} s", flush=True)


if __name__ == "__main__":
    logging.getLogger("solvers._compiled").disabled = True  # that it compiles is what this says anyway
    try:
        warm(sys.argv[1:])
    except (InvalidArgumentError, OutputFolderError) as error:
        sys.exit(str(error))
