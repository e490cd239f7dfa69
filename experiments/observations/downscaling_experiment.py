"""Downscaling of real temperatures with exact block means, as an experiment."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from experiments.experiment import Preset, RunContext, Stored, Table
from experiments.observations.downscaling import (
    BARE_KEY,
    BEST,
    FIXER,
    METHODS,
    Fields,
    Forecast,
    Method,
    Sizes,
    check_series,
    forecast,
    means_of,
    spread,
)
from experiments.observations.parts import over_blocks
from experiments.observations.regression import Ridge
from experiments.observations.temperature import TOGETHER, temperature
from experiments.records.record import Arrays
from experiments.records.release import data_version
from experiments.records.scores import VARIANCE_FLOOR
from probconserv import scores

FEW = Sizes(shrinkages=(0.5, 0.7, 0.9), ranks=(10, 20), ridges=(Ridge(1, 1.0), Ridge(2, 1.0)))
SIZES: Mapping[Preset, Sizes] = {"smoke": FEW, "laptop": Sizes(), "paper": Sizes()}


@dataclass(frozen=True, kw_only=True)
class Case:
    """Fields whose means over blocks of ``factor`` × ``factor`` points are given."""

    factor: int
    sizes: Sizes

    @property
    def key(self) -> str:
        return f"factor-{self.factor}"

    @property
    def label(self) -> str:
        return f"means over {self.factor} × {self.factor} points"

    @property
    def config(self) -> dict[str, Any]:
        return {"factor": self.factor, "sizes": self.sizes, "data_version": data_version("downscaling")}


@dataclass(frozen=True, kw_only=True)
class DownscalingExperiment:
    """Annual mean temperatures from their block means: constraint layers, the update, and a regression.

    Args:
        series: Gives the fine fields of all years, in kelvins; more years than those of training and validation.
        factors: Points of a block along each axis, a case each; at least 2, and divisors of both axes of the fields.
    """

    name: str = "downscaling"

    series: Callable[[], Fields] = temperature
    factors: tuple[int, ...] = (4,)
    sizes: Mapping[Preset, Sizes] = field(default_factory=lambda: SIZES)

    @property
    def table(self) -> Table:
        """The declaration of its table."""
        return Table(
            name=self.name,
            title=self.title,
            data_version=data_version(self.name),
            cases=self.cases,
            methods=lambda _: METHODS,
            score=self.score,
            seeds=self.seeds,
            figures=self.figures,
            overview_leads=False,
            shown=("RMSE", "CRPS", "LL", "coverage90", "block_error"),
        )

    def title(self, _cases: Sequence[Case]) -> str:
        return "Downscaling of annual mean temperature over North America, test years 2040–2099, in kelvins"

    def cases(self, context: RunContext) -> list[Case]:
        return [Case(factor=factor, sizes=self.sizes[context.options.preset]) for factor in self.factors]

    def seeds(self, _case: Case, context: RunContext) -> tuple[int, ...]:
        """That of the test fields: what is fitted is fitted when it is scored, by ``reproduce`` too."""
        return (context.options.seed,)

    def score(self, case: Case, method: Method, _seed: int, _weights: Sequence[Path], _context: RunContext) -> Arrays:
        series, sizes = self.series(), case.sizes
        check_series(series, case.factor, sizes)
        truth = series[sizes.training + sizes.validation :]
        if not method.black_box:
            means = spread(means_of(truth[-1:], case.factor), case.factor)[0]
            return {"block_error": np.zeros(1), "mean": truth[-1].numpy(), "means": means.numpy()}
        prediction, _ = forecast(series, case.factor, sizes, method)
        block = torch.arange(len(series))[-len(truth) :] // TOGETHER
        scored = score_forecast(truth, prediction, case.factor)
        last = {"mean": prediction.mean[-1], "standard_deviation": prediction.variance[-1].sqrt()}
        arrays = {name: over_blocks(values, block) for name, values in scored.items()} | last
        arrays["block_error"] = over_blocks(scored["block_error"], block, "amax")
        return {name: values.numpy() for name, values in arrays.items()}

    def figures(self, case: Case, stored: Stored, _context: RunContext) -> dict[str, Figure]:
        """Truth, block means, black box and update in the last year, and what the fixer and the update miss."""
        shown = {key: arrays for (key, _), arrays in stored.items()}
        return {"maps": draw_maps(case.label, shown)} if {"truth", BARE_KEY, FIXER, BEST} <= shown.keys() else {}


def score_forecast(truth: Fields, prediction: Forecast, factor: int) -> dict[str, Tensor]:
    """Scores per year, in kelvins; ``block_error`` is the largest |mean of a block − given| over the given mean."""
    u, mean, variance = (values.flatten(1) for values in (truth, prediction.mean, prediction.variance))
    mse = scores.mse(u, mean)
    given = means_of(truth, factor)
    return {
        "RMSE": mse.sqrt(),
        "MSE": mse,
        "CRPS": scores.crps(u, mean, variance),
        "LL": scores.log_likelihood(u, mean, variance, VARIANCE_FLOOR),
        "coverage50": scores.coverage(u, mean, variance, 0.5),
        "coverage90": scores.coverage(u, mean, variance, 0.9),
        "block_error": (means_of(prediction.mean, factor) / given - 1).abs().amax(dim=(-2, -1)),
    }


def draw_maps(label: str, shown: Mapping[str, Arrays]) -> Figure:
    """Fields above, errors below; every row has one colour bar.

    ``label`` says what is known of the field; ``shown`` has the arrays by key of the method, see ``score``.
    """
    truth, update = shown["truth"]["mean"], shown[BEST]
    fields = {"truth": truth, "given: block means": shown["truth"]["means"], "update, shrunk": update["mean"]}
    errors = {
        "error: bilinear + mean error": shown[BARE_KEY]["mean"] - truth,
        "error: additive layer": shown[FIXER]["mean"] - truth,
        "error: update, shrunk": update["mean"] - truth,
    }
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    figure.suptitle(f"Mean temperature of 2099 from {label}", fontsize=11)
    axes = figure.subplots(2, 3)
    bound = float(np.quantile(np.abs(errors["error: bilinear + mean error"]), 0.995))
    _draw_row(figure, list(axes[0]), fields, ("viridis", float(truth.min()), float(truth.max()), "K"))
    sizes = {f"{name} ({np.sqrt(np.mean(error**2)):.2f} K)": error for name, error in errors.items()}
    _draw_row(figure, list(axes[1]), sizes, ("RdBu_r", -bound, bound, "error, K"))
    return figure


def _draw_row(
    figure: Figure, axes: Sequence[Axes], maps: Mapping[str, np.ndarray], colours: tuple[str, float, float, str]
) -> None:
    """Maps by their titles with one colour bar; colours are a map, its ends and the label of the bar."""
    name, low, high, label = colours
    for panel, (title, values) in zip(axes, maps.items(), strict=True):
        panel.imshow(values, origin="lower", cmap=name, vmin=low, vmax=high, aspect="auto")
        panel.set_title(title, fontsize=9)
        panel.set_xticks([])
        panel.set_yticks([])
    figure.colorbar(axes[0].images[0], ax=list(axes), label=label, pad=0.01)
