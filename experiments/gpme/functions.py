"""Functions of many parameters: random profiles in porous media of random conductivity, plumes from random places.

A *member* of the family draws functions, whole in space–time, with the total that is known of each.

insulated   u_t = (k uᵐ u_x)_x on [0, 1] without flux through the sides; the total is that of the start
inflow      the same with a constant inflow at each side, whose integrals are known
shifted     insulated, with more bumps, rougher k and doubled noise: outside what is trained on
plume       u_t = ∇·(k ∇u) + sources at random places of an insulated square, from t = 0; the injected mass is known
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Generator, Tensor

from experiments import media
from experiments.errors import require_at_least
from experiments.records.release import data_version
from experiments.records.storage import cached_arrays, writable_folder
from experiments.records.store import as_json, config_hash
from solvers import CellGrid, Diffusion, Field, GaussianField, LeastCost, Matern, Neumann, Source, solve
from solvers.finite_volume.laws.coefficients import FaceValue, align
from solvers.random_fields import log_normal

TIMES = 20
FINAL_TIME = 0.08
Split = Literal["training", "validation", "test"]
STREAMS: dict[Split, int] = {"training": 1, "validation": 2, "test": 3}


class Functions(NamedTuple):
    """Values ``(functions, t, *space)`` in float64, and the known total ``(functions,)`` at the time wanted."""

    values: Tensor
    total: Tensor


@dataclass(frozen=True)
class Emission(Source):
    """s = rate(x), whatever u is."""

    varying: ClassVar = {"rate": FaceValue.ARITHMETIC}

    rate: Any

    def __call__(self, u: Any, x: Any, t: Any) -> Any:  # noqa: ARG002 - one signature for all sources
        return align(self.rate, u) + 0.0 * u


@dataclass(frozen=True, kw_only=True)
class Member(ABC):
    """One kind of functions.

    Args:
        noise: Standard deviation of an observation's error, in the units of the field.
        trained_on: The member whose functions are trained on, if these are others.
    """

    name: str
    noise: float = 0.02
    trained_on: "Member | None" = None

    @property
    @abstractmethod
    def grid(self) -> CellGrid:
        """Cells of the fields."""

    @abstractmethod
    def draw(self, count: int, generator: Generator) -> Functions:
        """Functions, solved."""

    @property
    def times(self) -> Tensor:
        """Output times ``(t,)``."""
        return FINAL_TIME * torch.arange(1, TIMES + 1, dtype=torch.float64) / TIMES

    @property
    def wanted(self) -> int:
        """Index of the time at which the field is wanted: half the final time."""
        return TIMES // 2 - 1

    def functions(self, split: Split, count: int, seed: int, folder: Path) -> Functions:
        """Functions from their file, or solved and kept there."""
        key = {"member": as_json(self), "split": split, "count": count, "seed": seed}
        name = config_hash({**key, "data_version": data_version("gpme")})
        path = writable_folder(folder) / f"gpme-{self.name}-{split}-{name}.safetensors"

        def build() -> dict[str, Any]:
            generator = Generator().manual_seed(10 * seed + STREAMS[split])
            drawn = self.draw(count, generator)
            return {"values": drawn.values.numpy(), "total": drawn.total.numpy()}

        arrays = cached_arrays(path, build, {"location": "cell", "axes": "function, t, x", "units": "dimensionless"})
        return Functions(torch.from_numpy(arrays["values"]), torch.from_numpy(arrays["total"]))


@dataclass(frozen=True, kw_only=True)
class Medium(Member):
    """Profiles that are sums of parabolas in a porous medium, m ~ U(1, 2), k = exp(σ z), z of Matérn 3/2 covariance.

    Args:
        bumps: Smallest and largest number of parabolas a (1 − ((x − c)/w)²)₊.
        roughness: σ.
        length: Length of the covariance of z.
        inflow: Largest inflow through a side; 0 for insulated sides.
    """

    cells: int = 100
    bumps: tuple[int, int] = (3, 6)
    roughness: float = 0.7
    length: float = 0.15
    inflow: float = 0.0

    def __post_init__(self) -> None:
        require_at_least(self, cells=8)

    @property
    def grid(self) -> CellGrid:
        return CellGrid(0.0, 1.0, self.cells)

    def draw(self, count: int, generator: Generator) -> Functions:
        start, points = self._profiles(count, generator), self.grid.points
        normals = torch.randn(count, self.cells, generator=generator, dtype=points.dtype)
        conductivity = media.conductivities(normals, points, self.roughness, self.length)
        exponent = 1.0 + _uniform((count,), generator)
        flux = self.inflow * _uniform((2, count), generator).square()
        values = media.flows_through(self.grid, self.times, start, exponent, conductivity, flux)
        return Functions(values, start.mean(dim=-1) + flux.sum(dim=0) * self.times[self.wanted])

    def _profiles(self, count: int, generator: Generator) -> Tensor:
        low, high = self.bumps
        number = torch.randint(low, high + 1, (count, 1, 1), generator=generator)
        centre, width, height = (_uniform((count, high, 1), generator) for _ in range(3))
        return media.profiles(self.grid.points, number, centre, width, height)


@dataclass(frozen=True, kw_only=True)
class Plume(Member):
    """Sources of random strength at 1 to 4 random places of a square medium, k = exp(σ z)/10.

    Args:
        sources: Smallest and largest number.
        width: Deviation of a source's Gaussian profile.
        roughness: σ.
    """

    cells: int = 32
    sources: tuple[int, int] = (1, 4)
    width: float = 0.03
    roughness: float = 0.7

    @property
    def grid(self) -> CellGrid:
        return CellGrid((0.0, 0.0), (1.0, 1.0), (self.cells, self.cells))

    def draw(self, count: int, generator: Generator) -> Functions:
        few, many = self.sources
        number = torch.randint(few, many + 1, (count, 1), generator=generator)
        place = 0.1 + 0.8 * _uniform((count, many, 1, 1, 2), generator)
        rate = _uniform((count, many), generator) ** 1.5 * (torch.arange(many) < number)
        apart = (self.grid.points - place).square().sum(dim=-1) / (2 * self.width**2)
        profile = torch.exp(-apart)
        profile = profile / profile.mean(dim=(-2, -1), keepdim=True)
        emitted = (rate[..., None, None] * profile).sum(dim=1)
        walls = ((Neumann(gradient=0.0), Neumann(gradient=0.0)),) * 2
        spectrum = Matern(amplitude=1.0, inverse_length=10.0, smoothness=2.5)
        low, high = (0.0, 0.0), (1.0, 1.0)
        random = GaussianField(low=low, high=high, spectrum=spectrum, boundary=walls, modes=16)
        z = random.values(random.draw(count, generator=generator), self.grid)
        z = z / random.variance(self.grid).mean().sqrt()
        law = Diffusion(Field(log_normal(self.roughness * z, 0.1)))
        source = Emission(Field(emitted))
        solution = solve(law, self.grid, walls, 0.0, times=self.times, source=source, stepper=LeastCost())
        return Functions(solution.values, rate.sum(dim=1) * self.times[self.wanted])


INSULATED = Medium(name="insulated")
MEMBERS = (
    INSULATED,
    Medium(name="inflow", inflow=2.5),
    Plume(name="plume"),
    Medium(name="shifted", trained_on=INSULATED, bumps=(7, 10), roughness=1.0, length=0.08, noise=0.04),
)


def _uniform(shape: tuple[int, ...], generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)
