"""Emulators of heat between two walls, on closed solutions."""

import torch
from torch import Generator, Tensor

from probconserv import Emulator
from probconserv.emulator import EmulatorConfig
from solvers import Dirichlet, Neumann, NodeGrid, Robin

TINY = EmulatorConfig(width=6, modes=4, depth=1, steps=8, flux_steps=20, unrolled=3, batch=4)
GRID, FUNCTIONS, STEPS, STEP = NodeGrid(0.0, 1.0, 33), 12, 10, 0.02
TIMES = STEP * torch.arange(STEPS + 1, dtype=torch.float64)
CONDITIONS = {
    "values": (Dirichlet(), Dirichlet()),
    "slopes": (Neumann(), Neumann()),
    "Robin": (Robin(1.0, -0.2), Robin(1.0, 0.2)),
    "mixed": (Dirichlet(), Robin(1.0, 0.2)),
}


def conduction(u: Tensor, gradient: Tensor) -> Tensor:
    return -0.1 * gradient + 0 * u


def heat(functions: int = FUNCTIONS, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Closed solutions of u_t = .1 u_xx, with their slopes ``(functions, t, 1, 33)``, and totals gained a step."""
    generator = Generator().manual_seed(seed)
    amplitude = torch.randn(functions, 1, 4, 1, generator=generator, dtype=torch.float64)
    phase = torch.rand(functions, 1, 4, 1, generator=generator, dtype=torch.float64)
    k = torch.arange(1.0, 5.0, dtype=torch.float64)[:, None]
    decay, angle = torch.exp(-0.1 * k.square() * TIMES[:, None, None]), k * GRID.points + phase
    u = (amplitude / k * decay * torch.sin(angle)).sum(dim=2)[:, :, None]
    slope = (amplitude * decay * torch.cos(angle)).sum(dim=2)[:, :, None]
    return u.float(), slope.float(), (u[:, :, 0] @ GRID.weights).diff(dim=1)


def walls_of(kind: str, u: Tensor, slope: Tensor) -> list:
    data = []
    for condition, end in zip(CONDITIONS[kind], (0, -1), strict=True):
        value, gradient = u[..., end], slope[..., end]
        if isinstance(condition, Robin):
            data.append(condition.a * value + condition.b * gradient)
        else:
            data.append(value if isinstance(condition, Dirichlet) else gradient)
    return [tuple(data)]


def fitted(kind: str = "slopes", **more: object) -> tuple[Emulator, Tensor, list]:
    u, slope, _ = heat()
    walls = walls_of(kind, u, slope)
    options = {"balance": {}, "config": TINY, "validation": 6, "level": 0.6, "progress": False} | more
    return Emulator.fit(u, TIMES, GRID, [CONDITIONS[kind]], values=walls, **options), u, walls
