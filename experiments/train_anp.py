"""Trains one attentive neural process as its config says; ``experiments.networks`` knows which there are."""

from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.checks import require_at_least
from experiments.data import BankConfig, Stream, bank_stream, exact_stream, solution_bank
from experiments.errors import InvalidArgumentError, UnknownNameError
from experiments.experiment import Data
from experiments.processes import first_before_others, launched
from experiments.runs import environment
from experiments.training import Moment, Progression, Task, TrainingConfig, train
from probconserv.baselines import soft_penalty
from probconserv.scores import log_likelihood, mse
from probconserv.surrogates.anp import ANP, ANPConfig
from probconserv.surrogates.surrogate import Context, Query
from solvers import PROBLEMS, Problem
from solvers.problems.sampling import FunctionBatch, Protocol, random_parameters, sample_exact

PENALTY_RISE = 0.2


@dataclass(frozen=True, kw_only=True)
class ANPTraining:
    """Everything that decides a trained neural process.

    Args:
        problem: Name of the problem.
        data: Where training functions come from.
        network: Sizes of the network.
        training: Length, rate, seed and device.
        protocol: Points of a function.
        batch: Functions a step, shared by all processes.
        tempering: β of the loss at the start of the training, see ``TrainingPrediction.loss``; it falls to 0 linearly
            over the first ``tempered`` of the steps.
        tempered: Fraction of the steps with β > 0.
        soft_penalty: λ of the penalty λ·mean((u_t + F(u)_x)²) on the predicted mean (SoftC), added to the loss
            summed over a function's targets as in Hansen et al. 2023, reached linearly over the first fifth of the
            steps, since an untrained mean is far from any equation; 0 for none.
        penalty_functions: Functions of a batch that the penalty looks at.
        penalty_points: Targets of a function that the penalty looks at.
        validation_functions: Functions, at random training parameters, scored at the test time in validation.
        parameters: Range of the training parameters where it is narrower than the problem's.
        end_weighted: Whether closed-form functions have more parameters near the ends of the range.
        start: Identity of the network that this training goes on from; empty for random weights.
        bank: Finite-volume solutions, for ``data = "solver"``.

    Raises:
        InvalidArgumentError: If a number is out of range.
        UnknownNameError: If there is no such problem.
    """

    problem: str
    data: Data
    network: ANPConfig
    training: TrainingConfig
    protocol: Protocol = field(default_factory=lambda: Protocol(target_times=20, target_places=20))
    batch: int = 8
    tempering: float = 0.5
    tempered: float = 0.7
    soft_penalty: float = 0.0
    penalty_functions: int = 4
    penalty_points: int = 100
    validation_functions: int = 100
    parameters: tuple[float, float] | None = None
    end_weighted: bool = False
    start: str = ""
    bank: BankConfig = field(default_factory=BankConfig)

    def __post_init__(self) -> None:
        find_problem(self.problem)
        require_at_least(self, batch=1, penalty_functions=1, penalty_points=1, validation_functions=1)
        if not (0 <= self.tempering <= 1 and 0 < self.tempered <= 1 and self.soft_penalty >= 0):
            raise InvalidArgumentError(
                "tempering must lie in [0, 1], tempered in (0, 1], and soft_penalty must not be negative, "
                f"got {self.tempering}, {self.tempered} and {self.soft_penalty}."
            )


@dataclass(frozen=True)
class TrainedANP:
    """A training's outcome.

    Args:
        network: The network, in evaluation mode.
        progression: Steps, seconds, history.
        weights: File of the weights; None if the training was stopped early.
    """

    network: ANP
    progression: Progression
    weights: Path | None


def find_problem(name: str) -> Problem:
    """The conservation problem of this name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in PROBLEMS:
        raise UnknownNameError(f"There is no conservation problem '{name}'. Known: {', '.join(PROBLEMS)}.")
    return PROBLEMS[name]


def train_anp(
    config: ANPTraining, folder: Path, data: Path, start: ANP | None = None, progress: bool = True
) -> TrainedANP:
    """Trains a network, or goes on from the folder's checkpoint; writes ``weights.safetensors`` at the end.

    Args:
        config: Everything that decides the result.
        folder: Where checkpoint and weights live.
        data: Where finite-volume solutions are kept.
        start: The network to go on from, that of ``config.start``; random weights if left out.
        progress: Whether to show a progress bar on standard error.

    Returns:
        Network, history and file of weights.

    Raises:
        InvalidArgumentError: If a network to go on from is given or missing against the config.
        TrainingDivergedError: If the loss is not finite.
        DataFileError: If the folder's checkpoint is damaged or of another training.
        OutputFolderError: If the folder cannot be written.
    """
    if (start is None) != (not config.start):
        raise InvalidArgumentError(
            f"Give the network to go on from exactly when config.start names one: '{config.start}'."
        )
    network = _initial_network(config, start)
    with first_before_others():
        task = _task(network, config, data)
    training = replace(config.training, processes=launched().count)
    progression = train(task, training, folder, progress)
    network = network.cpu().eval()
    if progression.step < config.training.steps:
        return TrainedANP(network, progression, None)
    path = folder / "weights.safetensors"
    notes = {"training": asdict(config), "seconds": progression.seconds, "last": progression.history[-1]}
    with first_before_others():
        if launched().first:
            network.save(path, **notes, environment=environment())
    return TrainedANP(network, progression, path)


def _initial_network(config: ANPTraining, start: ANP | None) -> ANP:
    """The network before its first step: seeded random weights, or those of the network to go on from."""
    torch.manual_seed(config.training.seed)
    network = ANP(config.network)
    if start is not None:
        network.load_state_dict(start.state_dict())
    return network


def _task(network: ANP, config: ANPTraining, data: Path) -> Task:
    """The network with its loss, its validation and the identity of its training."""
    stream = _stream(config, find_problem(config.problem), data)
    return Task(
        model=network,
        loss=lambda model, moment: evidence_loss(model, moment, config, stream),
        validate=lambda model, generator: _validate(model, generator, config),
        identity={name: value for name, value in asdict(config).items() if name != "training"},
    )


def _stream(config: ANPTraining, problem: Problem, folder: Path) -> Stream:
    if config.data == "exact":
        return exact_stream(_restricted(problem, config), config.protocol, config.end_weighted)
    bank = solution_bank(problem, config.bank, folder)
    return bank_stream(bank.within(*_restricted(problem, config).training_range), config.protocol)


def _restricted(problem: Problem, config: ANPTraining) -> Problem:
    """The problem with the training's range of parameters."""
    return replace(problem, training_range=config.parameters or problem.training_range)


def evidence_loss(model: nn.Module, moment: Moment, config: ANPTraining, stream: Stream) -> Tensor:
    """Tempered evidence bound of a fresh batch, plus the penalty of SoftC.

    Args:
        model: The network, or what wraps it.
        moment: Where the training is, and its randomness.
        config: Batch, tempering and penalty.
        stream: Makes the batch.

    Returns:
        A scalar.
    """
    device = next(model.parameters()).device
    whole = _moved(stream(moment.generator, config.batch), device)
    batch = _rows(whole, moment.share.rows(config.batch))
    prediction = model(batch.context_points, batch.context_values, batch.target_points, batch.target_values)
    tempering = config.tempering * max(0.0, 1.0 - moment.progress / config.tempered)
    loss = prediction.loss(batch.target_values, tempering)
    weight = config.soft_penalty * min(1.0, moment.progress / PENALTY_RISE)
    if weight:
        loss = loss + weight / batch.target_values.shape[-1] * _penalty(model, whole, config, moment)
    return loss


def _penalty(model: nn.Module, whole: FunctionBatch, config: ANPTraining, moment: Moment) -> Tensor:
    """Mean squared residual of the problem's equation at random targets; needs attention that derives twice."""
    some = _rows(whole, moment.share.rows(min(config.penalty_functions, config.batch)))
    chosen = torch.randperm(whole.target_points.shape[-2], generator=moment.generator)[: config.penalty_points]
    points, values = some.target_points[:, chosen], some.target_values[:, chosen]

    def mean(places: Tensor) -> Tensor:
        return model(some.context_points, some.context_values, places, values).mean

    with sdpa_kernel(SDPBackend.MATH):
        return soft_penalty(find_problem(config.problem).law(some.parameter), mean, points)


def _rows(batch: FunctionBatch, rows: slice) -> FunctionBatch:
    """Some functions of a batch."""
    return FunctionBatch(*(getattr(batch, entry.name)[rows] for entry in fields(batch)))


def _moved(batch: FunctionBatch, device: torch.device) -> FunctionBatch:
    """Values in float32 on the device; points stay float64 until the network has scaled them."""
    return FunctionBatch(
        batch.parameter.to(device),
        batch.context_points.to(device),
        batch.context_values.to(device, torch.float32),
        batch.target_points.to(device),
        batch.target_values.to(device, torch.float32),
    )


def _validate(model: nn.Module, generator: Generator, config: ANPTraining) -> dict[str, float]:
    """Scores at the test time over random training parameters: mean squared error and log-likelihood."""
    assert isinstance(model, ANP)
    problem = _restricted(find_problem(config.problem), config)
    parameter = random_parameters(problem, config.validation_functions, generator)
    batch = _moved(sample_exact(problem, parameter, config.protocol, generator), next(model.parameters()).device)
    places = torch.linspace(*problem.domain, 201, dtype=torch.float64, device=batch.parameter.device)
    points = torch.stack((torch.full_like(places, problem.test_time), places), dim=-1).expand(len(parameter), -1, -1)
    truth = problem.solution(problem.test_time, places.cpu(), parameter[:, None]).to(places)
    few = min(10, config.network.latent_samples)
    means, scales = model.components(Context(batch.context_points, batch.context_values), Query(points), few)
    mean = means.double().mean(dim=0)
    variance = scales.double().square().mean(dim=0) + means.double().var(dim=0, correction=0)
    return {
        "MSE": float(mse(truth, mean).mean()),
        "LL": float(log_likelihood(truth, mean, variance).mean()),
    }
