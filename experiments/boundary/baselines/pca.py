"""Regression between the principal components of input and output: no network, no gradient steps.

Inputs and boundary data, each block divided by the size of its deviations, and outputs are reduced to principal
components; a ridge regression maps one to the other. Settings are chosen on the validation set. The predictor knows
the training grid only; fields on other grids are interpolated linearly to it and back.

Source: Bhattacharya et al. 2021, who put a network between the components.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon import relative_l2
from experiments.boundary.baselines.layout import Sensors, on_grid
from experiments.boundary.baselines.regressions import (
    COUNTS,
    RIDGES,
    Components,
    Features,
    Kernel,
    Linear,
    Polynomial,
    Regression,
    Solutions,
    candidates,
)
from experiments.errors import InvalidArgumentError

LARGEST = 256  # components of the output that are fitted
_AS_GOOD = 1.01  # fewer components of the output are taken if the error grows by less

_REGRESSIONS = {cls.__name__: cls for cls in (Linear, Polynomial, Kernel)}

Finish = Callable[[Tensor], Tensor]
"""Prescribes the boundary of predicted fields of the validation set."""


class Samples(NamedTuple):
    """Input fields, channels with boundary data among them, and output fields on one grid."""

    inputs: Float[Tensor, "samples in_channels *space"]
    outputs: Float[Tensor, "samples out_channels *space"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A fitted regression: its settings, its penalty per training sample, whether the boundary of its fields is
    prescribed, and its relative L2 on the validation set."""

    regression: Regression
    ridge: float
    finished: bool
    error: float


class PCARegression(nn.Module):
    """Field to field, ``(batch, in_channels, *space)`` → ``(batch, out_channels, *space)``, in float64 inside."""

    def __init__(self, sensors: Sensors, regression: Regression, arrays: dict[str, Tensor]) -> None:
        super().__init__()
        self.sensors, self.regression = sensors, regression
        for name, array in arrays.items():
            self.register_buffer(name, array)

    @classmethod
    def of(cls, problem: "_Problem", regression: Regression, coefficients: Features) -> Self:
        """A fitted regression; ``coefficients`` ``(features, outputs)`` are those of the leading outputs."""
        outputs, leading = coefficients.shape[1], problem.inputs.leading(regression.inputs)
        expanded = problem.outputs.directions[:outputs] * problem.outputs.scale
        shape = problem.training.outputs.shape[1:]
        arrays = {
            "input_mean": leading.mean,
            "input_scale": leading.scale * problem.unit,
            "input_directions": leading.directions,
            "deviation": leading.deviation / problem.unit,
            "centres": regression.centres(problem.z[:, : regression.inputs]),
            "coefficients": coefficients,
            "output_mean": problem.outputs.mean.reshape(shape),
            "output_directions": expanded.reshape(outputs, *shape),
        }
        tensors = {name: torch.from_numpy(np.array(array, order="C")) for name, array in arrays.items()}
        return cls(problem.sensors, regression, tensors)

    @torch.no_grad()
    def forward(self, a: Float[Tensor, "batch in_channels *space"]) -> Float[Tensor, "batch out_channels *space"]:
        """Maps input fields to output fields on the same nodes."""
        known = dict(self.named_buffers())
        x = (self.sensors.read(a.double()) - known["input_mean"]) / known["input_scale"]
        z = (x @ known["input_directions"].T).cpu().numpy()
        fitted = (known[name].cpu().numpy() for name in ("deviation", "centres"))
        coefficients = torch.from_numpy(self.regression.features(z, *fitted)).to(x) @ known["coefficients"]
        u = known["output_mean"] + torch.tensordot(coefficients, known["output_directions"], dims=1)
        return on_grid(u, tuple(a.shape[2:])).to(a.dtype)


def fit(
    sensors: Sensors, training: Samples, validation: Samples, finish: Finish | None = None
) -> tuple[PCARegression, list[Trial]]:
    """The regression with the least relative L2 on the validation set, its boundary prescribed or not.

    Args:
        sensors: Where inputs are read.
        training: What regressions are fitted to, at least two samples.
        validation: What they are compared on.
        finish: Prescribes the boundary of fields of the validation set; every regression is tried with and without.

    Returns:
        The regression without ``finish``, and the best trial of every kind of regression, the best first.
    """
    for name, samples in (("training", training), ("validation", validation)):
        for fields in samples:
            if len(fields) < 2 - (name == "validation") or tuple(fields.shape[2:]) != sensors.space:
                raise InvalidArgumentError(
                    f"PCA regression needs two or more training samples and a validation set on {sensors.space} nodes, "
                    f"got {name} fields {tuple(fields.shape)}."
                )
    problem, best = _Problem(sensors, training, validation, finish), dict[type, Trial]()
    for trial in problem.trials():
        kind = type(trial.regression)
        if kind not in best or trial.error < best[kind].error:
            best[kind] = trial
    ranked = sorted(best.values(), key=lambda trial: trial.error)
    model, error = problem.shortest(ranked[0])
    return model, [replace(ranked[0], error=error), *ranked[1:]]


class _Problem:
    """Training and validation samples in components; the squares of ``z`` sum to 1 in the mean."""

    def __init__(self, sensors: Sensors, training: Samples, validation: Samples, finish: Finish | None) -> None:
        self.sensors, self.training, self.validation, self.finish = sensors, training, validation, finish
        rows = sensors.read(training.inputs.double()).cpu().numpy()
        fields = training.outputs.double().flatten(1).cpu().numpy()
        channels = training.outputs.shape[1]
        self.inputs = Components.fit(rows, sensors.blocks)
        self.outputs = Components.fit(fields, (fields.shape[1] // channels,) * channels).leading(LARGEST)
        self.unit = float(np.sqrt(np.square(self.inputs.deviation).sum())) or 1.0
        self.z, self.targets = self.inputs.compress(rows) / self.unit, self.outputs.compress(fields)

    def trials(self) -> Iterator[Trial]:
        """Every regression with every ridge."""
        rows = self.sensors.read(self.validation.inputs.double()).cpu().numpy()
        unseen = self.inputs.compress(rows) / self.unit
        for regression in candidates(len(self.inputs)):
            known, solutions = self.fitted(regression)
            projected = regression.features(unseen[:, : regression.inputs], *known) @ solutions.vectors
            for ridge in RIDGES:
                u = self.outputs.expand(projected @ solutions.weighted(ridge * len(self.z)))
                for finished in (False, True)[: 1 if self.finish is None else 2]:
                    error = self.error(torch.from_numpy(u), finished)
                    yield Trial(regression=regression, ridge=ridge, finished=finished, error=error)

    def fitted(self, regression: Regression) -> tuple[tuple[np.ndarray, Features], Solutions]:
        """Features of a regression, and its solutions."""
        z = self.z[:, : regression.inputs]
        known = self.inputs.deviation[: regression.inputs] / self.unit, regression.centres(z)
        return known, regression.solve(regression.features(z, *known), self.targets)

    def error(self, u: Tensor, finished: bool) -> float:
        """Relative L2 of predicted fields on the validation set."""
        truth = self.validation.outputs.double()
        u = u.view_as(truth)
        return float(relative_l2(self.finish(u) if finished and self.finish else u, truth))

    def shortest(self, trial: Trial) -> tuple[PCARegression, float]:
        """The regression with as few components of the output as do not make it worse, and its error."""
        solutions = self.fitted(trial.regression)[1]
        coefficients = solutions.vectors @ solutions.weighted(trial.ridge * len(self.z))
        for outputs in (count for count in COUNTS if count < coefficients.shape[1]):
            shorter = PCARegression.of(self, trial.regression, coefficients[:, :outputs])
            error = self.error(shorter(self.validation.inputs.double()), trial.finished)
            if error <= _AS_GOOD * trial.error:
                return shorter, error
        return PCARegression.of(self, trial.regression, coefficients), trial.error


def describe(model: PCARegression, trials: list[Trial]) -> dict[str, Any]:
    """Metadata from which a regression is built again, and the candidates, the best first."""
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


def blank(sensors: Sensors, description: dict[str, Any]) -> PCARegression:
    """The regression of a description, its numbers still to be read."""
    chosen, shapes = description["trials"][0], description["shapes"]
    arrays = {name: torch.empty(shape, dtype=torch.float64) for name, shape in shapes.items()}
    return PCARegression(sensors, _REGRESSIONS[chosen["kind"]](**chosen["settings"]), arrays)
