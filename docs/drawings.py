"""The drawings of the page Concepts.

``python -m docs.drawings`` writes them into ``docs/figures``: a front under its
conservation law, and an operator whose output misses its boundary conditions
until it is corrected.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.distributions import Normal

from boon import BOON, Prescription, SmoothExtension
from probconserv import condition, integral
from solvers import Dirichlet, Neumann, NodeGrid

FIGURES = Path(__file__).parent / "figures"
TRUTH, BARE, PROBCONSERV = "black", "#D55E00", "#0072B2"
PRESCRIBED, EXTENDED = "#CC79A7", "#56B4E9"
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
RESOLUTION = 200  # twice the 640 px at which the drawings are shown


def draw_probconserv() -> Figure:
    """A front predicted too far to the left, before and after the law."""
    grid = NodeGrid(0.0, 1.0, 201)
    x = grid.points
    truth, mean = (torch.sigmoid((front - x) / 0.02) for front in (0.56, 0.5))
    std = 0.015 + 0.25 * torch.exp(-(((x - 0.54) / 0.07) ** 2))
    law = integral(grid, torch.trapezoid(truth, x))
    posterior = condition(Normal(mean, std), law)

    figure, (left, right) = two_panels()
    left.plot(x, truth, color=TRUTH, ls="--", label="truth")
    for name, colour, shown, width in (
        ("prediction", BARE, mean, std),
        ("ProbConserv", PROBCONSERV, posterior.mean, posterior.variance.sqrt()),
    ):
        total = float(torch.trapezoid(shown, x))
        low, high = shown - 1.64 * width, shown + 1.64 * width
        left.fill_between(x, low, high, color=colour, alpha=0.2, lw=0)
        inside = ((truth - shown).abs() <= 1.64 * width).double().mean()
        label = f"{name}, total {total:.2f}; 90 % band holds {inside:.0%}"
        left.plot(x, shown, color=colour, label=label)
    left.set(title=f"law: total {float(law.b):.2f}", ylabel="u")

    change = posterior.mean - mean
    right.fill_between(x, change, color=PROBCONSERV, alpha=0.2, lw=0)
    right.plot(x, change, color=PROBCONSERV, label="change of the mean")
    right.plot(
        x,
        std,
        color=BARE,
        ls="-.",
        label="standard deviation of the prediction",
    )
    right.set(title="where it moved")
    for axes in (left, right):
        axes.set(xlabel="x", xlim=(0.3, 0.8))
        legend_below(axes)
    return figure


class Constant(nn.Module):
    """An operator that gives the same field whatever the input."""

    def forward(self, a: Tensor) -> Tensor:
        """The field on the nodes of the input."""
        x = torch.linspace(0.0, 1.0, a.shape[-1], dtype=a.dtype)
        return (0.4 + 0.6 * torch.sin(2.2 * x + 0.6)).expand_as(a)


def draw_boon() -> Figure:
    """One output before and after two corrections, near both walls."""
    a = torch.zeros(1, 1, 33, dtype=torch.float64)
    x = torch.linspace(0.0, 1.0, 33, dtype=torch.float64)
    walls = [(Dirichlet(0.5), Neumann(0.0))]
    fields = {"operator": (Constant()(a), BARE, "o-", 7.0)}
    for correction, colour, line in (
        (Prescription(), PRESCRIBED, "s--"),
        (SmoothExtension(length=0.12), EXTENDED, "^-"),
    ):
        operator = BOON(Constant(), walls, correction=correction).double()
        name = f"BOON(…, {type(correction).__name__}())"
        fields[name] = operator(a).detach(), colour, line, 4.0
    figure, panels = two_panels()
    for axes, part in zip(panels, (slice(0, 9), slice(-9, None)), strict=True):
        for name, (u, colour, line, size) in fields.items():
            shown = u[0, 0, part]
            axes.plot(x[part], shown, line, color=colour, ms=size, label=name)
        axes.set(xlabel="x")
        legend_below(axes)
    _, *corrected = fields.values()
    mark_walls(*panels, [float(u[0, 0, -1]) for u, *_ in corrected])
    return figure


def mark_walls(left: Axes, right: Axes, walls: list[float]) -> None:
    """Draws the two conditions: a value, and a derivative at both ends."""
    left.plot(0.0, 0.5, "*", color=TRUTH, ms=14, zorder=5)
    for wall in walls:
        right.plot([0.985, 1.015], [wall, wall], color=TRUTH, lw=3, zorder=5)
    left.set(title="first node: u = 0.5 (star)", ylabel="u")
    right.set(title="last node: ∂u/∂x = 0 (bars)")


def two_panels() -> tuple[Figure, tuple[Axes, Axes]]:
    """A figure 640 px wide with two axes side by side."""
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    return figure, (left, right)


def legend_below(axes: Axes) -> None:
    """Puts the legend under the axes, where no line runs through it."""
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.18))


def main() -> None:
    """Writes both drawings."""
    with mpl.rc_context(STYLE):
        for name, draw in (
            ("probconserv", draw_probconserv),
            ("boon", draw_boon),
        ):
            draw().savefig(FIGURES / f"concept-{name}.png", dpi=RESOLUTION)


if __name__ == "__main__":
    main()
