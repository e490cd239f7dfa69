"""How well a flow predicts a field from scattered observations, in its training range and outside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor
from typing_extensions import override

from experiments.conservation.cases import Sizes, laws_of
from experiments.conservation.experiment import EXPERIMENTS as CONSERVATION
from experiments.conservation.experiment import ConservationExperiment
from experiments.errors import InvalidArgumentError
from experiments.experiment import Experiment, Preset, RunContext, Training
from experiments.generation import EXPERIMENTS as GENERATION
from experiments.generation import GenerationExperiment
from experiments.generation.training import FlowTraining
from experiments.prediction.rows import METHODS, Method, PredictionCase
from experiments.records.record import Arrays
from experiments.stages import take_released
from probconserv import evidence, from_samples, scores

SIZES: Mapping[Preset, Sizes] = {
    "smoke": Sizes(functions=5, samples=20),
    "laptop": Sizes(functions=10, samples=100),
    "paper": Sizes(functions=50, samples=500),
}
"""Functions, and draws of each prediction."""
HEADINGS = {"CRPS": "CRPS", "energy": "energy score", "coverage50": "covered by 50 %", "coverage90": "covered by 90 %"}
"""Scores that the figure shows."""


@dataclass(frozen=True, kw_only=True)
class PredictionStudy(Experiment):
    """Posterior draws of a flow against the Gaussian process and the neural process, all given the same observations.

    Args:
        base: The experiment whose neural process and Gaussian process are used, at the parameters of the study.
        flows: The experiment whose first flow is used.
    """

    name: str
    overview_leads = True
    base: ConservationExperiment
    flows: GenerationExperiment
    sizes: Mapping[Preset, Sizes] = field(default_factory=lambda: SIZES)

    shown = ("CRPS", "energy", "coverage50", "coverage90", "MSE")

    @property
    def data_version(self) -> int:
        return self.flows.data_version

    def title(self, cases: Sequence[PredictionCase]) -> str:
        case = cases[0].base
        problem, (low, high) = case.problem, case.problem.training_range
        text = f"{problem.name.replace('_', ' ').capitalize()}, t = {problem.test_time:.3g}, {cases[0].nodes} nodes"
        trained = f"all trained on {problem.symbol} in [{low:g}, {high:g}]"
        return f"{text}, {trained}; {case.sizes.functions} functions, {case.sizes.samples} draws each"

    def cases(self, context: RunContext) -> list[PredictionCase]:
        """Every parameter, at the time of the flow's grid that is closest to the test time of the problem."""
        problem, family = self.base.problem, self.flows.problem
        if (problem.training_range,) != family.ranges:
            raise InvalidArgumentError(
                f"The flow of {self.flows.name} was trained on {family.ranges} and the networks of {self.base.name} on "
                f"{problem.training_range}; compare them where both ranges are the same."
            )
        sizes = self.flows.sizes[context.options.preset]
        times, _ = family.axes(sizes.nodes)
        time = float(times[(times - problem.test_time).abs().argmin()])
        base = replace(self.base, problem=replace(problem, test_time=time), sizes=self.sizes)
        shared = {"family": family, "nodes": sizes.nodes, "steps": sizes.steps, "fields": sizes.samples}
        return [PredictionCase(base=replace(case, data="exact"), **shared) for case in base.cases(context)]

    @override
    def methods(self, case: PredictionCase) -> tuple[Method, ...]:
        return METHODS

    @override
    def reference(self, case: PredictionCase) -> str:
        return "flow"

    @override
    def trainings(self, case: PredictionCase, method: Method, seed: int, context: RunContext) -> list[Training]:
        """The neural process of the conservation experiment, and the first flow."""
        made = {
            "anp": lambda: self.base.training("anp", seed, self.base.data, context),
            "flow": lambda: self.flows.training(0, context),
        }
        return [made[name]() for name in method.networks]

    def train(self, training: Training, context: RunContext) -> None:
        """Takes the released weights of the laptop's network or flow, or trains one."""
        if not take_released(training, context):
            (self.flows if isinstance(training.config, FlowTraining) else self.base).train(training, context)

    @override
    def score(
        self, case: PredictionCase, method: Method, seed: int, weights: Sequence[Path], context: RunContext
    ) -> Arrays:
        return score_draws(method.draws(case, weights), case, method)


def score_draws(draws: Float[Tensor, "s functions x"], case: PredictionCase, method: Method) -> Arrays:
    """Scores per function, of the draws alone for all rows; what the law says of those that were not told it."""
    laws, mean = laws_of(case.target), draws.mean(dim=0)
    truth = case.target.truth()[0].expand(mean.shape)
    residual = laws.exact.residual(draws[:, None])[:, 0, :, 0]
    arrays = {
        "CE": residual.mean(dim=0).abs(),
        "MSE": scores.mse(truth, mean),
        "CRPS": scores.crps_of_samples(truth, draws),
        **{f"coverage{level}": scores.coverage_of_samples(truth, draws, level / 100) for level in (50, 90)},
        "energy": scores.energy_score(truth, draws),
        "law_residual": residual.abs().amax(dim=0),
        "mean": mean,
        "standard_deviation": draws.std(dim=0),
    }
    if not method.information:
        told = evidence(from_samples(draws[:, None]), laws.loose)
        arrays["squared_residual"] = told.standardised_residual.square()[0, :, 0]
    return {name: values.numpy() for name, values in arrays.items()}


def _prediction(name: str, parameters: tuple[float, ...]) -> PredictionStudy:
    base = CONSERVATION[name]
    problem = replace(base.problem, test_parameters=parameters)
    return PredictionStudy(
        name=f"generate_{name}-prediction", base=replace(base, problem=problem), flows=GENERATION[f"generate_{name}"]
    )


STUDIES: Mapping[str, PredictionStudy] = {
    entry.name: entry
    for entry in (
        _prediction("stefan", (0.6, 0.65, 0.52, 0.5, 0.73, 0.75)),
        _prediction("porous_medium", (1.0, 3.0, 6.0, 0.7, 8.0)),
    )
}
"""Prediction from scattered observations, with parameters in the training range of the flow, below it and above it."""
