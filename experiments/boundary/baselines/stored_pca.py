"""Regressions on principal components as methods of an experiment: fitted once, stored, read."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from experiments.boundary.baselines.architectures import Architecture, Layout
from experiments.boundary.baselines.pca import PCARegression, Trial
from experiments.boundary.baselines.regressions import Kernel, Linear, Polynomial
from experiments.errors import InvalidArgumentError

_REGRESSIONS = {cls.__name__: cls for cls in (Linear, Polynomial, Kernel)}


@dataclass(frozen=True, kw_only=True)
class PrincipalComponents(Architecture):
    """Regression on principal components, which is fitted, not trained; its settings are all tried when it is."""

    @override
    def build(self, layout: Layout, targets: Tensor | None = None) -> nn.Module:
        raise InvalidArgumentError("A regression on principal components has no untrained form; fit it.")


def describe(model: PCARegression, trials: list[Trial]) -> dict[str, Any]:
    """What a file needs to say of a regression to build it again, and what was tried, the best first."""
    return {
        "shapes": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
        "trials": [
            {
                "kind": type(trial.regression).__name__,
                "settings": asdict(trial.regression),
                "ridge": trial.ridge,
                "prescribed": trial.finished,
                "relative_l2": trial.error,
            }
            for trial in trials
        ],
    }


def blank(layout: Layout, description: dict[str, Any]) -> PCARegression:
    """The regression of a description, its numbers still to be read."""
    chosen = description["trials"][0]
    shapes = description["shapes"]
    arrays = {name: torch.empty(shape, dtype=torch.float64) for name, shape in shapes.items()}
    return PCARegression(layout.sensors, _REGRESSIONS[chosen["kind"]](**chosen["settings"]), arrays)
