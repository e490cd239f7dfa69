"""Cases and sizes of the experiments on operators under both constraints, by preset."""

from dataclasses import dataclass, field, replace

from experiments.checks import require_at_least
from experiments.errors import InvalidArgumentError
from experiments.experiment import Preset
from experiments.field_cases import FieldCase
from experiments.field_models import Network
from experiments.operator_config import NetworkSizes
from experiments.train_field import FieldTraining
from probconserv.training import TrainingConfig
from solvers.problems import ADVECTION, DIFFUSION, POROUS_MEDIUM, STEFAN

HEAT_CASE = FieldCase(
    problem=DIFFUSION, training_range=(1.0, 5.0), shifts=((5.0, 6.0), (6.0, 7.0), (7.0, 8.0)), final_time=1.0
)
POROUS_MEDIUM_CASE = FieldCase(
    problem=POROUS_MEDIUM, training_range=(2.0, 3.0), shifts=((3.0, 4.0), (4.0, 5.0), (5.0, 6.0)), final_time=1.0
)
STEFAN_CASE = FieldCase(
    problem=STEFAN, training_range=(0.6, 0.65), shifts=((0.55, 0.6), (0.5, 0.55), (0.45, 0.5)), final_time=0.1
)
ADVECTION_CASE = FieldCase(
    problem=ADVECTION, training_range=(1.0, 3.0), shifts=((3.0, 3.5), (3.5, 4.0), (4.0, 4.5)), final_time=0.1
)
"""Heat as in Mouli et al. 2024; the others adjoin a part of the range of Hansen et al. 2023 in the same way, towards
steeper fields. Advection ends before its front leaves the domain."""


@dataclass(frozen=True, kw_only=True)
class FieldSizes:
    """Sizes of a run.

    Args:
        samples: Training parameters.
        held_out: Parameters held out for validation.
        test: Random test parameters of every interval.
        nodes: Nodes of the domain.
        times: Output times.
        refinement: Finite-volume cells per interval between nodes.
        network: Width, modes and depth of the operators.
        training: Steps, rate, decay; its seed is set for each training.
        batch: Fields a step.
        members: Trainings that an ensemble joins; an operator with heads has as many.
        passes: Passes of an operator under dropout that are joined.
        groups: Independent repetitions, each with trainings of its own; errors of the tables are over them.

    Raises:
        InvalidArgumentError: If a number is out of range.
    """

    samples: int = 256
    held_out: int = 32
    test: int = 100
    nodes: int = 101
    times: int = 25
    refinement: int = 4
    network: NetworkSizes = field(default_factory=NetworkSizes)
    training: TrainingConfig
    batch: int = 20
    members: int = 4
    passes: int = 10
    groups: int = 3

    def __post_init__(self) -> None:
        require_at_least(self, samples=1, held_out=1, test=2, batch=1, members=2, passes=2, groups=1)
        if self.batch > self.samples:
            raise InvalidArgumentError(f"batch must not exceed the {self.samples} samples, got {self.batch}.")

    def sized(self, case: FieldCase) -> FieldCase:
        """A case on the grid of these sizes."""
        return replace(case, nodes=self.nodes, times=self.times, refinement=self.refinement)

    def field_training(self, case: FieldCase, network: Network, seed: int) -> FieldTraining:
        """The training of a network.

        Args:
            case: The case, in these sizes.
            network: What is trained.
            seed: Seed of weights and batches.
        """
        return FieldTraining(
            data=case.description,
            samples=self.samples,
            held_out=self.held_out,
            sizes=self.network,
            network=network,
            training=replace(self.training, seed=seed),
            batch=self.batch,
        )


def _training(steps: int, peak_rate: float) -> TrainingConfig:
    return TrainingConfig(
        steps=steps,
        peak_rate=peak_rate,
        weight_decay=1e-4,
        validate_every=max(1, steps // 10),
        checkpoint_every=max(1, steps // 4),
        precision="32-true",
    )


SIZES: dict[Preset, FieldSizes] = {
    "smoke": FieldSizes(
        samples=32,
        held_out=8,
        test=8,
        nodes=33,
        times=5,
        refinement=2,
        network=NetworkSizes(width=12, modes=6, depth=2),
        training=_training(150, 4e-3),
        batch=8,
        members=2,
        passes=3,
        groups=1,
    ),
    "laptop": FieldSizes(network=NetworkSizes(width=32, modes=32), training=_training(3000, 4e-3)),
    "paper": FieldSizes(
        samples=512,
        held_out=64,
        test=200,
        nodes=201,
        network=NetworkSizes(width=64, modes=64),
        training=_training(20_000, 2e-3),
        members=10,
        groups=5,
    ),
}
