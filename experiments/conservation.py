"""A conservation experiment's test case: context of its functions, truth, laws, and what the black boxes predict.

Source of the protocol: Hansen et al. 2023, sec. 4.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from gpytorch.distributions import MultivariateNormal
from torch import Generator, Tensor

from experiments.config import ConservationConfig
from experiments.methods import Distribution, Laws, Method, methods, with_variance
from experiments.runs import digest
from experiments.storage import Arrays, cached_arrays, writable_folder
from probconserv import Mixture, integral
from probconserv.prediction import Prediction
from probconserv.surrogates.surrogate import Context, Query, Surrogate
from solvers import CellGrid, NodeGrid
from solvers.problems import Problem
from solvers.problems.sampling import Protocol, SolutionBank, sample_bank, sample_exact, solve_problem

PointSet = TypeVar("PointSet", Context, Query)


@dataclass(frozen=True)
class Case:
    """One test parameter of a problem under a config: context, truth and law.

    Args:
        problem: The problem.
        parameter: The test parameter.
        config: Everything that decides the result.
        data_folder: Where finite-volume solutions are kept.
        surrogates: Black boxes by the names that ``experiments.methods`` knows.
        device: Torch device of the surrogates.
        displacement: See ``experiments.methods.Laws``.
        on_cells: Whether the field is predicted at cell centres and compared with cell averages, whose sum meets the
            law exactly, instead of at nodes under the trapezoid rule.
    """

    problem: Problem
    parameter: float
    config: ConservationConfig
    data_folder: Path
    surrogates: Mapping[str, Surrogate]
    device: str = "cpu"
    displacement: float = 0.0
    on_cells: bool = False

    @property
    def methods(self) -> dict[str, Method]:
        """The rows of this case, as far as there are black boxes for them."""
        return methods(self.problem, set(self.surrogates))

    @property
    def label(self) -> str:
        """The parameter as in tables, for instance ``u*=0.6``."""
        return f"{self.problem.symbol}={self.parameter:g}"

    @property
    def grid(self) -> NodeGrid | CellGrid:
        """The places at which predictions are scored."""
        if self.on_cells:
            return CellGrid(*self.problem.domain, self.config.places - 1)
        return NodeGrid(*self.problem.domain, self.config.places)

    def truth(self, times: Tensor) -> Tensor:
        """True field at times ``(*batch,)``: ``(*batch, places)``."""
        return self._field(times, torch.tensor(self.parameter, dtype=torch.float64))

    def laws(self, times: Tensor) -> Laws:
        """The conservation law at times ``(*batch,)``: the grid's total is the closed form's.

        Its loose form has the mean square of the truth's own quadrature error over 101 training parameters.
        """
        exact = integral(self.grid, self.problem.total(times, self.parameter))
        training = torch.linspace(*self.problem.training_range, 101, dtype=torch.float64)
        spread = training.reshape(-1, *[1] * times.ndim)
        error = integral(self.grid, self.problem.total(times, spread)).residual(self._field(times, spread))
        loose = with_variance(exact, error.square().mean(dim=0))
        return Laws(exact, loose, self.problem, self.grid.points, self.displacement)

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

    def _field(self, times: Tensor, parameter: Tensor) -> Tensor:
        """Node values, or averages over the cells: times and parameters ``(*batch,)`` → ``(*batch, places)``."""
        grid = self.grid
        if isinstance(grid, CellGrid):
            return self.problem.averages(times, grid, parameter)
        return self.problem.solution(times[..., None], grid.points, parameter[..., None])

    def solution_bank(self) -> SolutionBank:
        """The finite-volume solution at this parameter.

        All test parameters are solved in one batch, once, and kept in the data folder.
        """
        cells, steps = self.config.cells, self.config.output_times
        parameters = torch.tensor(self.problem.test_parameters, dtype=torch.float64)
        times = torch.linspace(0.0, self.problem.final_time, steps + 1, dtype=torch.float64)[1:]
        grid = CellGrid(*self.problem.domain, cells)
        key = digest([cells, steps, self.problem.test_parameters, self.config.source])

        def build() -> Arrays:
            return {"values": solve_problem(self.problem, grid, parameters, times).numpy()}

        path = writable_folder(self.data_folder) / f"{self.problem.name}-{key}.h5"
        attributes = {"location": grid.location, "axes": "parameter, t, x", "units": "dimensionless"}
        values = torch.from_numpy(cached_arrays(path, build, attributes)["values"])
        mine = parameters == self.parameter
        return SolutionBank(parameters[mine], times, grid.points, values[mine])


def predict_at(case: Case, surrogate: str, context: Context, times: Tensor) -> Distribution:
    """A black box at the test places, one distribution per function and time, in float64.

    Args:
        case: The test case.
        surrogate: Name of the black box.
        context: Context of the functions ``(functions, n, 2)``.
        times: Times ``(t,)``.

    Returns:
        Distribution ``(t, functions, places)``: time is a batch axis, so that each time has its own law.
    """
    shape = (len(times), context.points.shape[0])
    places = case.grid.points.expand(*shape, -1)
    query = Query(torch.stack((times[:, None, None].expand_as(places), places), dim=-1), case.problem.name)
    repeated = Context(
        context.points.expand(*shape[:1], *context.points.shape),
        context.values.expand(*shape[:1], *context.values.shape),
        context.problem,
    )
    with torch.no_grad():
        model = case.surrogates[surrogate].to(case.device)
        return of_functions(model.predict(_moved(repeated, case.device), _moved(query, case.device)), slice(None))


def of_functions(prediction: Prediction, part: slice) -> Distribution:
    """A prediction ``(t, functions, places)`` of some of its functions, on the CPU in float64."""
    if isinstance(prediction, Mixture):
        components = prediction.components
        assert isinstance(components, MultivariateNormal)
        return Mixture(_gaussian_of_functions(components, part), prediction.weights.cpu().double())
    assert isinstance(prediction, MultivariateNormal)
    return _gaussian_of_functions(prediction, part)


def _gaussian_of_functions(gaussian: MultivariateNormal, part: slice) -> MultivariateNormal:
    covariance = gaussian.lazy_covariance_matrix[..., part, :, :].cpu().double()
    return MultivariateNormal(gaussian.mean[..., part, :].cpu().double(), covariance)


def _moved(points: PointSet, device: str) -> PointSet:
    """Context or query with its tensors on a device."""
    tensors = {name: value.to(device) for name, value in vars(points).items() if isinstance(value, Tensor)}
    return replace(points, **tensors)
