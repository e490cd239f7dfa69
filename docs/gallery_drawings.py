"""The drawings of the gallery that no experiment and no tutorial makes.

``python -m docs.gallery_drawings`` writes them into ``docs/figures``.
"""

from tempfile import TemporaryDirectory

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.distributions import Normal

from boon import BOON, Part, SmoothExtension
from docs.drawings import (
    EXTENDED,
    FIGURES,
    PROBCONSERV,
    RESOLUTION,
    STYLE,
    TRUTH,
    legend_below,
    two_panels,
)
from probconserv import (
    Bounded,
    FlowMatching,
    LinearConstraint,
    Mixture,
    NonNegative,
    condition,
    integral,
    truncate,
)
from probconserv.surrogates.flow import KarhunenLoeve, ResidualVelocity
from probconserv.training import TrainingConfig
from solvers import (
    CellGrid,
    Diffusion,
    Dirichlet,
    Field,
    GaussianField,
    Logistic,
    Matern,
    Neumann,
    NodeGrid,
    Periodic,
    Reflecting,
    ShallowWater,
    solve,
    solve_steady,
    solve_system,
)
from solvers.problems.reactions import gray_scott
from solvers.random_fields import two_phase

WALL = Neumann(0.0)
FAINTEST = 0.15  # a weight below this is drawn as one of it


def draw_evidence() -> Figure:
    """A mixture of five fronts before and after a law on their total."""
    grid = NodeGrid(0.0, 1.0, 201)
    x = grid.points
    fronts = torch.linspace(0.3, 0.7, 5, dtype=torch.float64)[:, None]
    means = torch.sigmoid((fronts - x) / 0.02)
    prior = Mixture(Normal(means, 0.05 * torch.ones_like(means)))
    law = integral(grid, 0.62, noise_variance=0.06**2)
    figure, panels = two_panels()
    for axes, shown, title in (
        (panels[0], prior, "five guesses of a front"),
        (panels[1], condition(prior, law), "weights, given a total of 0.62"),
    ):
        for mean, weight in zip(
            shown.components.mean, shown.weights, strict=True
        ):
            label = f"{float(weight):.2f}"
            alpha = max(float(weight), FAINTEST)
            axes.plot(x, mean, color=PROBCONSERV, alpha=alpha, label=label)
        axes.set(title=title, xlabel="x")
        axes.legend(frameon=False, title="weight", loc="upper right")
    return figure


def draw_truncation() -> Figure:
    """Draws of two values with sum 1, none negative, in two ways."""
    prior = Normal(torch.zeros(2).double(), torch.ones(2).double())
    law = LinearConstraint(torch.ones(1, 2), torch.tensor([1.0]))
    known = law & NonNegative()
    torch.manual_seed(0)
    count = torch.Size([1500])
    u = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
    density = torch.exp(-((u - 0.5) ** 2))
    density /= torch.trapezoid(density, u)
    figure, panels = two_panels()
    for axes, shown, title in (
        (panels[0], condition(prior, known), "condition: projected draws"),
        (panels[1], truncate(prior, known), "truncate: conditioned draws"),
    ):
        draws = shown.rsample(count)[:, 0].detach()
        axes.hist(draws, bins=20, density=True, color=EXTENDED)
        axes.plot(u, density, color=TRUTH, ls="--", label="exact density")
        axes.set(title=title, xlabel="u₁, where u₁ + u₂ = 1 and both ≥ 0")
        legend_below(axes)
    return figure


def draw_generation() -> Figure:
    """Draws of one flow without a law, and under a total and bounds."""
    torch.manual_seed(0)
    grid = NodeGrid(0.0, 1.0, 64)
    position, width = torch.rand(2, 2000, 1, dtype=torch.float64)
    width = 0.03 + 0.07 * width
    fields = torch.sigmoid((0.2 + 0.6 * position - grid.points) / width)
    coefficients = KarhunenLoeve.of(fields, size=12)
    flow = FlowMatching(coefficients, ResidualVelocity(12, width=128, blocks=2))
    with TemporaryDirectory() as folder:
        steps = TrainingConfig(steps=600)
        flow.fit(fields, config=steps, folder=folder, batch=128, progress=False)
    law = integral(grid, 0.45) & Bounded(0.0, 1.0)
    figure, panels = two_panels()
    for axes, draws, title in (
        (panels[0], flow.sample(12), "draws of a flow"),
        (panels[1], flow.sample(12, law=law), "under total 0.45 and [0, 1]"),
    ):
        axes.plot(grid.points, draws.T, color=PROBCONSERV, alpha=0.5)
        axes.set(title=title, xlabel="x", ylim=(-0.2, 1.2))
    return figure


class Stripes(nn.Module):
    """An operator that gives the same field of two axes for every input."""

    def forward(self, a: Tensor) -> Tensor:
        """The field on the nodes of the input."""
        x, y = (torch.linspace(0.0, 1.0, n, dtype=a.dtype) for n in a.shape[2:])
        return (0.3 * torch.sin(4.0 * x[:, None] + 3.0 * y)).expand_as(a)


def draw_parts() -> Figure:
    """An operator before and after values on a part of either end."""
    inlet = Part(Dirichlet(1.0), where=lambda y: y < 0.3)
    outlet = Part(Dirichlet(-1.0), where=lambda y: y > 0.5)
    channel = BOON(
        Stripes(),
        [(inlet, outlet), None],
        correction=SmoothExtension(length=0.1),
    )
    a = torch.zeros(1, 1, 65, 65, dtype=torch.float64)
    figure, panels = two_panels()
    for axes, operator, title in (
        (panels[0], channel.operator, "operator"),
        (panels[1], channel.double(), "BOON, a value on parts of two sides"),
    ):
        image = draw_field(axes, operator(a)[0, 0].detach(), title, "RdBu_r")
        image.set_clim(-1.0, 1.0)
    figure.colorbar(image, ax=panels, label="u")
    for x, (low, high) in ((0.0, (0.0, 0.3)), (1.0, (0.5, 1.0))):
        panels[1].plot([x, x], [low, high], color=TRUTH, lw=5)
    return figure


def draw_balance() -> Figure:
    """A population that grows and spreads through a medium of two phases."""
    grid = CellGrid(0.0, 1.0, 400)
    medium = torch.where((grid.points * 6).long() % 2 == 0, 2e-3, 2e-4)
    result = solve(
        Diffusion(Field(medium)),
        grid,
        (Dirichlet(1.0), Neumann(flux=0.0)),
        initial=0.0,
        times=[1.0, 2.0, 3.0, 4.0],
        source=Logistic(10.0),
    )
    figure = Figure(figsize=(6.4, 3.0), layout="constrained")
    axes = figure.subplots()
    shades = torch.linspace(0.3, 1.0, 4).tolist()
    for u, time, shade in zip(result.values, result.times, shades, strict=True):
        label = f"t = {float(time):g}"
        axes.plot(grid.points, u, color=PROBCONSERV, alpha=shade, label=label)
    slow = (medium < 1e-3).numpy()
    axes.fill_between(
        grid.points, 0.0, 1.0, where=slow, color="0.9", label="slow medium"
    )
    axes.set(xlabel="x", ylabel="u")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw_system() -> Figure:
    """A dam break in a closed basin, depth at three times."""
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (80, 80))
    x, y = grid.points.unbind(-1)
    depth = 1.0 + ((x < 0.35) & (y < 0.35)).double()
    still = torch.zeros_like(depth)
    walls = [(Reflecting(), Reflecting())] * 2
    times = [0.02, 0.08, 0.2]
    initial = torch.stack([depth, still, still])
    result = solve_system(ShallowWater(), grid, walls, initial, times)
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, values, time in zip(panels, result.values, times, strict=True):
        image = draw_field(axes, values[0], f"t = {time:g}", "viridis")
        image.set_clim(0.8, 2.0)
    figure.colorbar(image, ax=panels, label="depth")
    return figure


def draw_patterns() -> Figure:
    """Patterns of Gray and Scott's reaction from twelve seeds."""
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (128, 128))
    generator = torch.Generator().manual_seed(0)
    seeds = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    near = (grid.points[..., None, :] - seeds).square().sum(-1) < 0.03**2
    started = 0.25 * near.any(-1).double()
    initial = torch.stack([1.0 - 2.0 * started, started])
    law = gray_scott(diffusivities=(1e-5, 5e-6))
    circles = [(Periodic(), Periodic())] * 2
    times = [200.0, 1000.0, 5000.0]
    result = solve_system(law, grid, circles, initial, times)
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, values, time in zip(panels, result.values, times, strict=True):
        image = draw_field(axes, values[1], f"t = {time:g}", "viridis")
        image.set_clim(0.0, 0.4)
    figure.colorbar(image, ax=panels, label="v")
    return figure


def draw_steady() -> Figure:
    """Pressure in a random medium of two phases."""
    grid = CellGrid((0.0, 0.0), (1.0, 1.0), (96, 96))
    texture = GaussianField(
        low=(0.0, 0.0),
        high=(1.0, 1.0),
        spectrum=Matern(amplitude=50.0, inverse_length=8.0, smoothness=2.0),
        boundary=[(WALL, WALL)] * 2,
        modes=32,
    )
    draws = texture.draw(1, generator=torch.Generator().manual_seed(1))
    medium = two_phase(texture.values(draws, grid), below=1.0, above=12.0)
    ends = (Dirichlet(1.0), Dirichlet(0.0))
    pressure = solve_steady(medium, grid, [ends, (WALL, WALL)]).values
    figure, panels = two_panels()
    draw_field(panels[0], medium[0], "permeability, 1 or 12", "Greys")
    image = draw_field(panels[1], pressure[0], "pressure", "viridis")
    figure.colorbar(image, ax=panels)
    return figure


def draw_field(axes: Axes, field: Tensor, title: str, colours: str) -> object:
    """Draws a field ``(x, y)`` on the unit square, x to the right."""
    axes.set(title=title, xlabel="x", xticks=[0, 1], yticks=[0, 1])
    return axes.imshow(
        field.T, origin="lower", extent=(0, 1, 0, 1), cmap=colours
    )


DRAWINGS = {
    "evidence": draw_evidence,
    "truncation": draw_truncation,
    "generation": draw_generation,
    "parts": draw_parts,
    "balance": draw_balance,
    "system": draw_system,
    "patterns": draw_patterns,
    "steady": draw_steady,
}


def main() -> None:
    """Writes all drawings."""
    with mpl.rc_context(STYLE):
        for name, draw in DRAWINGS.items():
            draw().savefig(FIGURES / f"gallery-{name}.png", dpi=RESOLUTION)


if __name__ == "__main__":
    main()
