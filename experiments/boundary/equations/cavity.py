"""Lid-driven cavity: incompressible Navier–Stokes on [0, 1]² by vorticity and stream function.

ω_t + u ω_x + v ω_y = ν∇²ω, ∇²ψ = −ω, u = ψ_y, v = −ψ_x, ω = v_x − u_y; no slip on four walls, the top one (y = 1)
moving along +x at the lid speed from t = 0 on, the fluid at rest before. Units: the side of the cavity and a lid speed
of one, so ν = 1/Re for lid speed 1 and Re = U/ν in general. Axes of every field: ``(*batch, t, x, y)``.

Central differences of second order on a node grid; wall vorticity by Wilkes' formula
ω = (ψ₂ − 8ψ₁)/2h² − 3U/h (ψ₁, ψ₂ one and two nodes inside), which is second order too; the Poisson equation by sine
transforms; the classical Runge–Kutta method in time, stable with this formula (E & Liu, J. Comput. Phys. 126, 1996).
At the two upper corners the vorticity is infinite: these nodes are set to the mean of the two neighbouring wall nodes,
and the interior does not depend on them.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil, pi
from numbers import Integral

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from solvers._arguments import check_positive_number, checked_values, output_times
from solvers._compiled import compiled
from solvers.errors import InvalidArgumentError, SolverDivergedError
from solvers.grids import NodeGrid

_NODES_TOGETHER = 40_000  # nodes of a group of flows, so that its five arrays fit the processor's cache
_USUAL = 0.3, 0.7  # steps in units of h²/ν and h/U
_STABLE = 2.78 / 8, 2.8  # beyond one of them the Runge–Kutta method is unstable


@dataclass(frozen=True, kw_only=True)
class CavityFlow:
    """Flows in a lid-driven cavity at the output times; float64.

    Attributes:
        grid: The nodes, walls included.
        times: Output times ``(t,)``.
        lid_speed: U ``(*batch,)``.
        vorticity: ω ``(*batch, t, x, y)``.
        stream: Stream function ψ ``(*batch, t, x, y)``, zero at the walls.
    """

    grid: NodeGrid
    times: Float[Tensor, " t"]
    lid_speed: Float[Tensor, "*batch"]
    vorticity: Float[Tensor, "*batch t x y"]
    stream: Float[Tensor, "*batch t x y"]

    @property
    def velocity(self) -> tuple[Tensor, Tensor]:
        """u = ψ_y and v = −ψ_x ``(*batch, t, x, y)``: central differences inside, no slip at the walls."""
        h = self.grid.spacing[0]
        u, v = torch.zeros_like(self.stream), torch.zeros_like(self.stream)
        u[..., 1:-1, 1:-1] = (self.stream[..., 1:-1, 2:] - self.stream[..., 1:-1, :-2]) / (2 * h)
        v[..., 1:-1, 1:-1] = (self.stream[..., :-2, 1:-1] - self.stream[..., 2:, 1:-1]) / (2 * h)
        u[..., -1] = self.lid_speed[..., None, None]
        return u, v


def solve_cavity(
    lid_speed: float | Float[Tensor, "*batch"],
    nodes: int,
    times: Sequence[float] | np.ndarray | Tensor,
    viscosity: float = 0.01,
    step: float | None = None,
) -> CavityFlow:
    """Flows after an impulsive start of the lid, for a batch of lid speeds.

    Flows are integrated in groups on as many threads as torch may use.

    Args:
        lid_speed: U, a number or ``(*batch,)``, positive.
        nodes: Nodes along each side, walls included, at least 5.
        times: Increasing output times after the start at t = 0.
        viscosity: ν = 1/Re for lid speed 1, one number.
        step: Largest time step; by default 0.3 h²/ν or 0.7 h/U for the fastest lid, whichever is smaller. At most
            0.347 h²/ν and 2.8 h/U, where the time stepping is stable.

    Returns:
        The flows.

    Raises:
        InvalidArgumentError: If an argument has the wrong type or is out of range, or the step is not stable.
        SolverDivergedError: If a flow has blown up; a smaller step or more nodes are needed.
    """
    lid, outputs = checked_values(lid_speed, "lid_speed"), output_times(times, 0.0, after=True)
    _check(lid, nodes, viscosity, step)
    grid = NodeGrid((0.0, 0.0), (1.0, 1.0), (nodes, nodes))
    largest = step or _step(_USUAL, lid, nodes, viscosity)
    groups = lid.reshape(-1).split(max(1, _NODES_TOGETHER // nodes**2))
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        parts = list(pool.map(lambda group: _integrate(group.numpy(), nodes, outputs, viscosity, largest), groups))
    shape = (*lid.shape, len(outputs), nodes, nodes)
    vorticity, stream = (torch.from_numpy(np.concatenate(part)).reshape(shape) for part in zip(*parts, strict=True))
    return CavityFlow(grid=grid, times=outputs, lid_speed=lid, vorticity=vorticity, stream=stream)


def _integrate(
    lid: np.ndarray, nodes: int, times: Tensor, viscosity: float, largest_step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Vorticity and stream function ``(flows, t, x, y)``: equal steps from one output time to the next."""
    h = 1 / (nodes - 1)
    poisson = _Poisson(nodes)
    omega, psi = np.zeros((2, len(lid), nodes, nodes))
    slopes = [np.zeros_like(omega) for _ in range(4)]
    vorticity, stream = np.empty((2, len(lid), len(times), nodes, nodes))

    def fill(slope: np.ndarray, state: np.ndarray) -> None:
        poisson.solve(state, psi)
        _set_walls(state, psi, lid, h)
        _transport(state, psi, slope, h, viscosity)

    def advance(step: float) -> None:
        fill(slopes[0], omega)
        for stage, weight in ((1, 0.5), (2, 0.5), (3, 1.0)):
            fill(slopes[stage], omega + weight * step * slopes[stage - 1])
        omega[:] += step / 6 * (slopes[0] + 2 * (slopes[1] + slopes[2]) + slopes[3])

    now = 0.0
    for index, time in enumerate(times.tolist()):
        steps = ceil((time - now) / largest_step * (1 - 1e-12))
        step = (time - now) / steps
        with np.errstate(over="ignore", invalid="ignore"):  # NaN is above the bound below
            for _ in range(steps):
                advance(step)
            fill(slopes[0], omega)
        now = time
        # ψ is the integral of a velocity over at most ½ to the nearest wall, and fluid is slower than the lid.
        if not (np.abs(psi) <= 0.5 * lid[:, None, None]).all():
            raise SolverDivergedError(
                f"A cavity flow has blown up at time {time:g} with step {step:.3g} on {nodes}×{nodes} nodes, lid "
                f"speed up to {lid.max():g} and viscosity {viscosity:g}; take a smaller step or more nodes."
            )
        vorticity[:, index], stream[:, index] = omega, psi
    return vorticity, stream


class _Poisson:
    """∇²ψ = −ω inside, ψ = 0 at the walls, by the eigenvectors of the five-point Laplacian: sines along each axis."""

    def __init__(self, nodes: int) -> None:
        k, h = np.arange(1, nodes - 1), 1 / (nodes - 1)
        self._sines = np.sqrt(2 * h) * np.sin(pi * h * np.outer(k, k))  # orthogonal and symmetric
        along = (2 / h * np.sin(0.5 * pi * h * k)) ** 2
        self._inverse = 1 / (along[:, None] + along)

    def solve(self, omega: np.ndarray, psi: np.ndarray) -> None:
        """Fills the inside of ``psi`` ``(flows, x, y)``."""
        modes = self._sines @ omega[:, 1:-1, 1:-1] @ self._sines
        psi[:, 1:-1, 1:-1] = self._sines @ (modes * self._inverse) @ self._sines


@compiled
def _set_walls(omega: np.ndarray, psi: np.ndarray, lid: np.ndarray, h: float) -> None:
    """Overwrites the wall vorticity by Wilkes' formula, the upper corners by the mean of their neighbours."""
    flows, n, _ = omega.shape
    scale = 0.5 / (h * h)
    for b in range(flows):
        for i in range(n):
            omega[b, i, 0] = scale * (psi[b, i, 2] - 8.0 * psi[b, i, 1])
            omega[b, i, n - 1] = scale * (psi[b, i, n - 3] - 8.0 * psi[b, i, n - 2]) - 3.0 * lid[b] / h
        for j in range(1, n - 1):
            omega[b, 0, j] = scale * (psi[b, 2, j] - 8.0 * psi[b, 1, j])
            omega[b, n - 1, j] = scale * (psi[b, n - 3, j] - 8.0 * psi[b, n - 2, j])
        omega[b, 0, n - 1] = 0.5 * (omega[b, 1, n - 1] + omega[b, 0, n - 2])
        omega[b, n - 1, n - 1] = 0.5 * (omega[b, n - 2, n - 1] + omega[b, n - 1, n - 2])


@compiled
def _transport(omega: np.ndarray, psi: np.ndarray, slope: np.ndarray, h: float, viscosity: float) -> None:
    """Fills the inside of ``slope`` with ν∇²ω − u ω_x − v ω_y by central differences."""
    flows, n, _ = omega.shape
    convective, diffusive = 0.25 / (h * h), viscosity / (h * h)
    for b in range(flows):
        for i in range(1, n - 1):
            for j in range(1, n - 1):
                along_x = omega[b, i + 1, j] - omega[b, i - 1, j]
                along_y = omega[b, i, j + 1] - omega[b, i, j - 1]
                u = psi[b, i, j + 1] - psi[b, i, j - 1]
                v = psi[b, i - 1, j] - psi[b, i + 1, j]
                around = omega[b, i + 1, j] + omega[b, i - 1, j] + omega[b, i, j + 1] + omega[b, i, j - 1]
                slope[b, i, j] = diffusive * (around - 4.0 * omega[b, i, j]) - convective * (u * along_x + v * along_y)


def _step(limits: tuple[float, float], lid: Tensor, nodes: int, viscosity: float) -> float:
    """The smaller one of two steps, which are given in units of h²/ν and h/U."""
    h = 1 / (nodes - 1)
    return min(limits[0] * h * h / viscosity, limits[1] * h / lid.max().item())


def _check(lid: Tensor, nodes: int, viscosity: float, step: float | None) -> None:
    if not lid.numel() or not bool((lid > 0).all()):
        raise InvalidArgumentError(f"lid_speed must be one or more positive numbers, got {lid.tolist()}.")
    if not isinstance(nodes, Integral) or nodes < 5:
        raise InvalidArgumentError(f"nodes must be an integer of at least 5 along each side, got {nodes!r}.")
    check_positive_number(viscosity, "viscosity")
    if step is None:
        return
    check_positive_number(step, "step")
    largest = _step(_STABLE, lid, nodes, viscosity)
    if step > largest:
        raise InvalidArgumentError(
            f"step must be at most {largest:.3g}, beyond which the time stepping is unstable with {nodes} nodes, lid "
            f"speed up to {lid.max():g} and viscosity {viscosity:g}, got {step:g}; take a smaller step."
        )
