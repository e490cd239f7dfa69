"""The kernels of a law: compiled where it is shallow water or functions of numbers, callbacks where it is tensors."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from solvers.errors import InvalidArgumentError
from solvers.finite_volume._kernels import Callback, call_from_python
from solvers.finite_volume.convection.numerical_fluxes import Rusanov
from solvers.systems import _shallow, _sweep, pointwise
from solvers.systems._kernels import view
from solvers.systems.fluxes import HLLC, SystemFlux, tensor_flux
from solvers.systems.laws import ShallowWater, SystemLaw
from solvers.systems.pointwise import PointwiseLaw

Law = SystemLaw | PointwiseLaw


@dataclass(frozen=True, kw_only=True)
class LawKernels:
    """What the core needs of a law.

    Attributes:
        sweep: Address of the sweep.
        faces: Address of the kernel of the faces of every axis; 0 if the sweep needs none.
        mirrors: Address of the kernel of walls of every axis; 0 if there are none.
        check: Address of the kernel that checks states.
        numbers: Room for a scale of the states and the length of a cell, then the law's parameters.
        whole: Whether kernels take all lines of all entries at once, since a call costs much.
        error: What a kernel in Python has raised.
        kept: Python objects that must live as long as the addresses are used.
    """

    sweep: int
    faces: tuple[int, ...]
    mirrors: tuple[int, ...]
    check: int
    numbers: np.ndarray
    whole: bool = False
    error: list[BaseException] = field(default_factory=list)
    kept: Any = None


def law_kernels(
    law: Law, flux: SystemFlux, components: int, walls: tuple[bool, ...], sample: list[float]
) -> LawKernels:
    """The kernels of a law.

    Args:
        law: The law.
        flux: Numerical flux.
        components: Number of components.
        walls: Whether a side of each axis is a wall.
        sample: An admissible state.

    Returns:
        The kernels.

    Raises:
        InvalidArgumentError: If law and flux do not go together, a wall needs a mirror image that the law does not
            have, or a function cannot be compiled.
    """
    if isinstance(flux, HLLC) and not isinstance(law, ShallowWater):
        raise InvalidArgumentError(f"HLLC() is for ShallowWater only, got {law!r}; use HLL().")
    if isinstance(law, ShallowWater):
        return _of_water(law, flux, components, walls)
    if isinstance(law, PointwiseLaw):
        return _of_points(law, flux, components, walls, sample)
    return _of_tensors(law, flux, components, walls)


def _of_water(law: ShallowWater, flux: SystemFlux, components: int, walls: tuple[bool, ...]) -> LawKernels:
    if isinstance(flux, Rusanov):
        raise InvalidArgumentError("ShallowWater takes HLL() or HLLC(), which keep depths positive, got Rusanov().")
    return LawKernels(
        sweep=_shallow.sweep.address,
        faces=(0,) * len(walls),
        mirrors=tuple(_shallow.mirror(axis).address if wall else 0 for axis, wall in enumerate(walls)),
        check=_shallow.check.address,
        numbers=np.array([0.0, 0.0, law.gravity, float(isinstance(flux, HLLC)), components]),
    )


def _of_points(
    law: PointwiseLaw, flux: SystemFlux, components: int, walls: tuple[bool, ...], sample: list[float]
) -> LawKernels:
    functions = law.functions(len(walls))
    parameters, mirrors = functions.parameters, []
    speeds = len(functions.eigenvalues(tuple(sample), 0, *parameters))
    sizes = components, speeds, len(parameters)
    for axis, wall in enumerate(walls):
        if wall and functions.reflect is None:
            raise InvalidArgumentError(
                f"Reflecting() needs a function reflect(u, axis) among {type(law).__name__}.functions, u as a wall "
                "mirrors it; give it, or take another condition."
            )
        mirrors.append(
            pointwise.reflect_kernel(functions.reflect, components, len(parameters), axis).address if wall else 0
        )
    return LawKernels(
        sweep=_sweep.sweep.address,
        faces=tuple(
            pointwise.faces_kernel(
                (functions.flux, functions.eigenvalues), sizes, axis, isinstance(flux, Rusanov)
            ).address
            for axis in range(len(walls))
        ),
        mirrors=tuple(mirrors),
        check=pointwise.check_kernel(functions.admissible, components, len(parameters)).address,
        numbers=np.array([0.0, 0.0, *parameters]),
    )


def _of_tensors(law: SystemLaw, flux: SystemFlux, components: int, walls: tuple[bool, ...]) -> LawKernels:
    error: list[BaseException] = []

    def states(pointer: Any, count: int, stride: int) -> Tensor:
        return torch.from_numpy(view(pointer, components, count, stride).copy())[None]

    def faces(axis: int) -> Callable[..., None]:
        def kernel(left: Any, right: Any, out: Any, speed: Any, _: Any, count: int, stride: int) -> None:
            through, fastest = tensor_flux(flux, law, states(left, count, stride), states(right, count, stride), axis)
            view(out, components, count, stride)[:] = through[0].numpy()
            view(speed, 1, count, count)[:] = fastest.numpy()

        return kernel

    def mirror(axis: int) -> Callable[..., None]:
        def kernel(u: Any, _b: Any, out: Any, _e: Any, _n: Any, count: int, stride: int) -> None:
            view(out, components, count, stride)[:] = law.reflect(states(u, count, stride), axis)[0].numpy()

        return kernel

    def check(u: Any, _b: Any, _o: Any, good: Any, _n: Any, count: int, stride: int) -> None:
        given = states(u, count, stride)
        view(good, 1, count, count)[:] = (law.admissible(given) & torch.isfinite(given).all(1)).numpy()

    axes = range(len(walls))
    kept = [Callback(faces(axis), error) for axis in axes], [Callback(mirror(axis), error) for axis in axes]
    checked = Callback(check, error)
    return LawKernels(
        sweep=_sweep.sweep.address,
        faces=tuple(each.address for each in kept[0]),
        mirrors=tuple(each.address for each in kept[1]),
        check=checked.address,
        numbers=np.zeros(2),
        whole=True,
        error=error,
        kept=(*kept, checked),
    )


def admissible(law: Law, u: Tensor, dimension: int) -> Tensor:
    """Whether states ``(entries, c, *points)`` are admissible ``(entries, *points)``."""
    if isinstance(law, SystemLaw):
        return law.admissible(u)
    functions = law.functions(dimension)
    check = pointwise.check_kernel(functions.admissible, u.shape[1], len(functions.parameters))
    states = u.movedim(1, 0).reshape(u.shape[1], -1).contiguous().numpy()
    good = np.zeros(states.shape[1])
    numbers = np.array([0.0, 0.0, *functions.parameters])
    call_from_python(check, (states, states, states, good, numbers), states.shape[1])
    return torch.from_numpy(good == 1.0).reshape(u.shape[0], *u.shape[2:])
