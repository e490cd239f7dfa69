"""Cases, a problem under one law, and their sizes by preset."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from experiments.errors import require_at_least
from experiments.experiment import Preset
from experiments.generation.problem import Fixed, GenerationProblem
from probconserv import Bounded, LinearConstraint, NonlinearLaw
from probconserv.nonlinear.law import AnyLaw
from probconserv.training import TrainingConfig


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The comparison of the ECI notebook: ``drawn`` fields against ``references`` true ones, over ``trials``."""

    drawn: int = 256
    references: int = 512
    trials: int = 100


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes of a run.

    Training fields on nodes², Karhunen–Loève modes, width and blocks of the network, its training (the seed is set for
    each) with ``batch`` fields a step; draws that are scored, steps of the samplers, the published protocol, and
    independent trainings, over which standard errors of the tables are.
    """

    samples: int = 8192
    nodes: int = 100
    modes: int = 24
    width: int = 256
    blocks: int = 4
    training: TrainingConfig
    batch: int = 256
    draws: int = 4096
    steps: int = 50
    protocol: Protocol = Protocol()
    groups: int = 3

    def __post_init__(self) -> None:
        require_at_least(self, samples=10, nodes=4, modes=1, width=1, blocks=1, batch=1, draws=2, steps=5, groups=1)


@dataclass(frozen=True, kw_only=True)
class Published:
    """Errors of mean and standard deviation that a paper prints for its protocol."""

    mean: float
    deviation: float


@dataclass(frozen=True, kw_only=True)
class Condition:
    """The law that is imposed on the draws.

    Args:
        fixed: The parameters that it fixes; the reference is the distribution of the others.
        law: From a true field with these parameters, times and points to the law; None for none.
        mixing: Evaluations per step of ECI, as published.
        resample: Evaluations after which ECI draws its noise anew: the best of 1, 5 (as published) and never.
        published: Errors of ECI in its notebook, if the condition is there.
        most: Draws at most, where each of them costs much.
    """

    key: str
    label: str
    fixed: Fixed = ()
    law: Callable[[Tensor, Tensor, Tensor], LinearConstraint | NonlinearLaw] | None = None
    mixing: int = 1
    resample: int | None = None
    published: Published | None = None
    most: int | None = None
    former: ClassVar[Mapping[str, Any]] = {"seen": None}

    @property
    def conditional(self) -> bool:
        """Whether anything is imposed."""
        return self.law is not None


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem under a condition; rivals without a flow take the training fields of the group."""

    problem: GenerationProblem
    condition: Condition
    sizes: Sizes
    group: int = 0

    @property
    def key(self) -> str:
        return self.condition.key

    @property
    def label(self) -> str:
        return self.condition.label

    @property
    def config(self) -> dict[str, Any]:
        """All settings that change the scores, except the weights."""
        sizes, fixed = self.sizes, self.condition.fixed
        scored = {"draws": self.draws, "steps": sizes.steps, "protocol": sizes.protocol, "nodes": sizes.nodes}
        return {**self.problem.description, "condition": self.key, "fixed": fixed, **scored}

    @property
    def draws(self) -> int:
        """Number of fields that are drawn."""
        most = self.condition.most
        return self.sizes.draws if most is None else min(most, self.sizes.draws)

    @property
    def law(self) -> LinearConstraint | NonlinearLaw | None:
        """The law of all draws."""
        return _law(self)

    @property
    def law_and_bounds(self) -> AnyLaw | None:
        """The law, and the bounds of the problem where it has any."""
        law, bounds = self.law, self.problem.bounds
        return law if law is None or bounds is None else law & Bounded(*bounds)

    def truths(self, count: int, seed: int) -> Float[Tensor, "count t x"]:
        """Draws of the exact conditional distribution."""
        return self.problem.draws(count, self.sizes.nodes, seed, self.condition.fixed)

    def moments(self) -> tuple[Float[Tensor, "t x"], Float[Tensor, "t x"]]:
        """Exact mean and standard deviation."""
        return self.problem.moments(self.sizes.nodes, self.condition.fixed)


@lru_cache(maxsize=8)
def _law(case: Case) -> LinearConstraint | NonlinearLaw | None:
    """From a true field, which costs a solution where there is no closed form."""
    if case.condition.law is None:
        return None
    return case.condition.law(case.truths(1, seed=0)[0], *case.problem.axes(case.sizes.nodes))


def _training(steps: int) -> TrainingConfig:
    store = max(1, min(1000, steps // 2))
    return TrainingConfig(
        steps=steps, peak_rate=2e-3, validate_every=max(1, steps // 2), checkpoint_every=store, precision="32-true"
    )


_SMALL = Sizes(
    samples=400,
    nodes=24,
    modes=12,
    width=64,
    blocks=2,
    training=_training(300),
    batch=128,
    draws=256,
    steps=20,
    protocol=Protocol(drawn=64, references=128, trials=20),
    groups=1,
)
_LAPTOP = Sizes(training=_training(16_000))
_PAPER = replace(Sizes(training=_training(60_000)), width=512, batch=512, steps=200, groups=5)
SIZES: dict[Preset, Sizes] = {"smoke": _SMALL, "laptop": _LAPTOP, "paper": _PAPER}
SMALL_SIZES: dict[Preset, Sizes] = {
    "smoke": replace(_SMALL, draws=32),
    "laptop": replace(_LAPTOP, nodes=50, width=128, blocks=3, training=_training(12_000)),
    "paper": replace(_PAPER, nodes=50),
}
"""Problems of which few modes say all, and whose draws have bounds, which cost a projection each."""
SCHEME_SIZES: dict[Preset, Sizes] = {
    "smoke": replace(_SMALL, draws=12, nodes=16, steps=10),
    "laptop": replace(SMALL_SIZES["laptop"], samples=4096),
    "paper": SMALL_SIZES["paper"],
}
"""Problems whose laws are nonlinear."""
RANDOM_SIZES: dict[Preset, Sizes] = {
    "smoke": replace(_SMALL, draws=32),
    "laptop": Sizes(samples=32_768, nodes=48, modes=48, batch=512, draws=100, training=_training(30_000)),
    "paper": Sizes(samples=100_000, nodes=48, modes=48, width=512, batch=512, draws=200, training=_training(100_000)),
}
"""Fields of many parameters."""
