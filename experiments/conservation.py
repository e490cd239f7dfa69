"""Conservation experiments: context of test functions → black box → constraint → scores, as in Hansen et al. 2023."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import to_linear_operator
from torch import Generator, Tensor

from experiments.config import ConservationConfig
from experiments.runs import digest
from experiments.storage import Arrays, cached_arrays, writable_folder
from probconserv import GPSurrogate, LinearConstraint, condition, integral, scores
from probconserv.balance import local_conservation as local_law
from probconserv.baselines import project_uniformly
from probconserv.sampling import draw
from probconserv.surrogate import Context, Query
from solvers import CellGrid, NodeGrid, solve
from solvers.problems import Problem
from solvers.sampling import Protocol, SolutionBank, sample_bank, sample_exact

PointSet = TypeVar("PointSet", Context, Query)
Variant = Callable[[MultivariateNormal, LinearConstraint], MultivariateNormal]
VARIANTS: dict[str, Variant] = {
    "GP": lambda prior, law: prior,  # noqa: ARG005 - one signature for all variants
    "HardC-GP": project_uniformly,
    "ProbConserv-GP": condition,
}


@dataclass(frozen=True)
class Case:
    """One test parameter of a problem under a config: context, truth and law.

    Args:
        problem: The problem.
        parameter: The test parameter.
        config: Everything that decides the result.
        data_folder: Where finite-volume solutions are kept.
        device: Torch device of the surrogate.
    """

    problem: Problem
    parameter: float
    config: ConservationConfig
    data_folder: Path
    device: str = "cpu"

    @property
    def label(self) -> str:
        """The parameter as in tables, for instance ``u*=0.6``."""
        return f"{self.problem.symbol}={self.parameter:g}"

    @property
    def grid(self) -> NodeGrid:
        """The places at which predictions are scored."""
        return NodeGrid(*self.problem.domain, self.config.places)

    def truth(self, times: Tensor) -> Tensor:
        """True field at times ``(*batch,)``: ``(*batch, places)``."""
        return self.problem.solution(times[..., None], self.grid.points, self.parameter)

    def law(self, times: Tensor) -> LinearConstraint:
        """The conservation law at times ``(*batch,)``: the trapezoid total equals the closed-form total."""
        return integral(self.grid, self.problem.total(times, self.parameter))

    def context(self) -> Context:
        """Context points of the test functions ``(functions, n, 2)``, drawn anew for each."""
        generator = Generator().manual_seed(1000 * self.config.seed + round(100 * self.parameter))
        if self.config.data == "exact":
            parameters = torch.full((self.config.functions,), self.parameter, dtype=torch.float64)
            batch = sample_exact(self.problem, parameters, Protocol(), generator)
        else:
            batch = sample_bank(self.solution_bank(), self.config.functions, Protocol(), generator)
        return Context(batch.context_points, batch.context_values, self.problem.name)

    def first_functions(self) -> Context:
        """The context of the few functions of which curves are drawn."""
        context, count = self.context(), self.config.curve_functions
        return Context(context.points[:count], context.values[:count], context.problem)

    def solution_bank(self) -> SolutionBank:
        """The finite-volume solution at this parameter.

        All test parameters are solved in one batch, once, and kept in the data folder.
        """
        cells, steps = self.config.cells, self.config.output_times
        parameters = torch.tensor(self.problem.test_parameters, dtype=torch.float64)
        times = torch.linspace(0.0, self.problem.final_time, steps + 1, dtype=torch.float64)[1:]
        grid = CellGrid(*self.problem.domain, cells)
        key = digest([cells, steps, self.problem.test_parameters])

        def build() -> Arrays:
            result = solve(
                self.problem.law(parameters),
                grid,
                boundary=self.problem.boundary(parameters),
                initial=self.problem.initial(grid, parameters),
                times=times,
            )
            return {"values": result.values.numpy()}

        path = writable_folder(self.data_folder) / f"{self.problem.name}-{key}.h5"
        attributes = {"location": grid.location, "axes": "parameter, t, x", "units": "dimensionless"}
        values = torch.from_numpy(cached_arrays(path, build, attributes)["values"])
        mine = parameters == self.parameter
        return SolutionBank(parameters[mine], times, grid.points, values[mine])


def predict_at(case: Case, context: Context, times: Tensor) -> MultivariateNormal:
    """The Gaussian process at the test places, one joint distribution per function and time.

    Args:
        case: The test case.
        context: Context of the functions ``(functions, n, 2)``.
        times: Times ``(t,)``.

    Returns:
        Predictions ``(t, functions, places)``: time is a batch axis, so that each time has its own law.
    """
    shape = (len(times), context.points.shape[0])
    places = case.grid.points.expand(*shape, -1)
    query = Query(torch.stack((times[:, None, None].expand_as(places), places), dim=-1), case.problem.name)
    repeated = Context(
        context.points.expand(*shape[:1], *context.points.shape),
        context.values.expand(*shape[:1], *context.values.shape),
        context.problem,
    )
    prediction = GPSurrogate(case.config.gp).predict(_moved(repeated, case.device), _moved(query, case.device))
    return MultivariateNormal(prediction.mean.cpu(), to_linear_operator(prediction.covariance_matrix.cpu()))


def evaluate(case: Case) -> Arrays:
    """Predicts at the test time for all functions and scores every variant.

    Args:
        case: The test case.

    Returns:
        Per-function scores ``<variant>|<score>`` (functions,); sampled front positions ``<variant>|fronts``
        (samples, functions) where the field has a front; mean and deviation of a typical function's prediction
        ``<variant>|mean``, ``<variant>|deviation`` (places,); the truth's own conservation error ``truth|CE`` (1,).
    """
    time = torch.tensor([case.problem.test_time], dtype=torch.float64)
    context, truth, law = case.context(), case.truth(time), case.law(time)
    prior = predict_at(case, context, time)
    shown = typical(prior, truth)
    arrays: Arrays = {
        "places": case.grid.points.numpy(),
        "truth": truth[0].numpy(),
        "truth|CE": scores.conservation_error(truth, law).numpy(),
        "context": torch.cat((context.points[shown], context.values[shown, :, None]), dim=-1).numpy(),
    }
    for name, variant in VARIANTS.items():
        prediction = variant(prior, law)
        for key, values in _scores(case, prediction, truth, law).items():
            arrays[f"{name}|{key}"] = values
        arrays |= _profile(name, prediction, shown)
    return arrays


def mass_curves(case: Case) -> Arrays:
    """Total mass over time of the first functions, for every variant.

    Args:
        case: The test case.

    Returns:
        ``times`` (t,), the law's total ``law`` (t,), and the mean's total by variant (functions, t).
    """
    config = case.config
    times = torch.linspace(0.0, case.problem.final_time, config.curve_times + 1, dtype=torch.float64)[1:]
    context = case.context()
    first = Context(context.points[: config.curve_functions], context.values[: config.curve_functions], context.problem)
    prior = predict_at(case, first, times)
    law = case.law(times[:, None])
    arrays: Arrays = {"times": times.numpy(), "law": law.b[:, 0, 0].numpy()}
    for name, variant in VARIANTS.items():
        arrays[name] = (law.residual(variant(prior, law).mean) + law.b)[..., 0].mT.numpy()
    return arrays


def local_conservation(case: Case, volumes: int = 20) -> Arrays:
    """A typical function's prediction under the global law, and under the law of every control volume.

    The local laws need the flux through every inner face as well: a volume holds what entered it through its faces.
    The face fluxes are those of the closed form.

    Args:
        case: The test case; its places must divide into the volumes.
        volumes: Number of control volumes.

    Returns:
        ``places``, ``truth``, and ``<name>|mean``, ``<name>|deviation`` (places,) of each prediction.
    """
    problem, time = case.problem, torch.tensor([case.problem.test_time], dtype=torch.float64)
    prior = predict_at(case, case.first_functions(), time)
    truth = case.truth(time)
    shown = typical(prior, truth)
    faces = torch.linspace(*problem.domain, volumes + 1, dtype=torch.float64)
    held = problem.antiderivative(torch.tensor([[0.0], [problem.test_time]]), faces, case.parameter)
    passed = held[0] - held[1]  # through every face, up to one constant that cancels between neighbours
    predictions = {
        "GP": prior,
        "ProbConserv-GP, global law": condition(prior, case.law(time)),
        f"local law, {volumes} volumes": condition(prior, local_law(case.grid, faces, held[0].diff(), passed)),
    }
    arrays: Arrays = {"places": case.grid.points.numpy(), "truth": truth[0].numpy()}
    for name, prediction in predictions.items():
        arrays |= _profile(name, prediction, shown)
    return arrays


def _moved(points: PointSet, device: str) -> PointSet:
    """Context or query with its tensors on a device."""
    tensors = {name: value.to(device) for name, value in vars(points).items() if isinstance(value, Tensor)}
    return replace(points, **tensors)


def typical(prediction: MultivariateNormal, truth: Tensor) -> int:
    """The function whose squared error is the median of all, for predictions ``(1, functions, places)``."""
    errors = scores.mse(truth, prediction.mean[0])
    return int(errors.argsort()[len(errors) // 2])


def _profile(name: str, prediction: MultivariateNormal, function: int) -> Arrays:
    mean, variance = prediction.mean[0, function], prediction.variance[0, function]
    return {f"{name}|mean": mean.numpy(), f"{name}|deviation": variance.sqrt().numpy()}


def _scores(case: Case, prediction: MultivariateNormal, truth: Tensor, law: LinearConstraint) -> Arrays:
    """Per-function scores ``(functions,)`` and sampled fronts of predictions ``(1, functions, places)``."""
    mean, variance = prediction.mean[0], prediction.variance[0]
    generator = Generator().manual_seed(case.config.seed)
    samples = draw(prediction, (case.config.samples,), generator)[:, 0]
    values = {
        "CE": scores.conservation_error(mean, law),
        "LL": scores.log_likelihood(truth, mean, variance),
        "MSE": scores.mse(truth, mean),
        "CRPS": scores.crps(truth, mean, variance),
        "coverage50": scores.coverage(truth, mean, variance, 0.5),
        "coverage90": scores.coverage(truth, mean, variance, 0.9),
        "energy": scores.energy_score(truth.expand_as(mean), samples),
    }
    if case.problem.front is not None and case.problem.front_level is not None:
        level = float(case.problem.front_level(case.parameter))
        values["fronts"] = scores.shock_position(samples, case.grid.points, level)
        true_front = case.problem.front(case.problem.test_time, case.parameter)
        values["shock"] = (values["fronts"] - true_front).abs().mean(dim=0)
    return {name: value.numpy() for name, value in values.items()}
