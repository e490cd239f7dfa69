"""Operators from a parameter to a Gaussian field at many times, composed from the public wrappers.

    BOON(FNO)                    meets the boundary values, with deviation 0 there
    GaussianOperator(...)        reads its channels as means and deviations at every time
    Ensemble([...])              joins several operators, heads of one, or passes of one under dropout
    ProbConserv(..., law)        conditions the result on the law at every time

``Network`` says what is trained, ``surrogate`` composes what is trained; training itself needs neither ensemble nor
``ProbConserv``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from boon import BOON, FNO, Correction, FNOConfig
from boon.fno import Layers, fourier_bases
from boon.spectral import Basis, Convolution
from experiments.errors import InvalidArgumentError
from experiments.field_cases import FieldCase
from experiments.operator_config import NetworkSizes
from probconserv import Ensemble, GaussianOperator
from solvers import Dirichlet

UNIT = 0.1
"""Deviation of an operator whose channel for it is 1; fields are of order 1."""
Inputs = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is trained.

    Args:
        name: Name in files.
        correction: The correction of a BOON around the FNO; None for no BOON.
        heads: Number of last layers over one common network, each a prediction of its own.
        diversity: λ of the loss CRPS + λ · mean over pairs of heads of exp(−d²/d₀²): d² is the mean squared difference
            of their last layers' weights and d₀² its expected value before training. It keeps the heads apart as the
            regularisation of Mouli et al. 2024 does, but is bounded, so that it cannot outweigh the data.
        dropout: Share of the hidden features set to 0 between layers, in training and in predictions.
        conserved: Whether the loss is that of the prediction conditioned on the law (end-to-end training).

    Raises:
        InvalidArgumentError: If a number is out of range.
    """

    name: str
    correction: Correction | None = None
    heads: int = 1
    diversity: float = 0.0
    dropout: float = 0.0
    conserved: bool = False

    def __post_init__(self) -> None:
        if self.heads < 1 or not self.diversity >= 0 or not 0 <= self.dropout < 1:
            raise InvalidArgumentError(
                f"Network '{self.name}' needs heads ≥ 1, diversity ≥ 0 and dropout in [0, 1), got {self.heads}, "
                f"{self.diversity} and {self.dropout}."
            )
        if self.dropout and self.correction:
            raise InvalidArgumentError(f"Network '{self.name}' has dropout, which acts inside a plain FNO only.")


class DropoutLayers(Layers):
    """The layers of an FNO with hidden features dropped at random before every layer but the first.

    Args:
        rate: Share of the features.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def bases(self, config: FNOConfig, shape: Sequence[int], like: Tensor) -> tuple[Basis, ...]:
        return fourier_bases(config, shape, like)

    def prepare(self, layer: int, v: Tensor) -> Tensor:
        return functional.dropout(v, self.rate, training=True) if layer else v

    def kernel(self, convolution: Convolution, v: Tensor, bases: Sequence[Basis]) -> Tensor:
        return convolution(v, bases)


class RandomOperator(nn.Module):
    """An FNO under dropout: every call is another one.

    Args:
        operator: The FNO.
        rate: Share of the hidden features that are dropped.
    """

    def __init__(self, operator: FNO, rate: float) -> None:
        super().__init__()
        self.operator, self.layers = operator, DropoutLayers(rate)

    def forward(self, a: Float[Tensor, "batch channels nodes"]) -> Float[Tensor, "batch channels nodes"]:
        """The output for fresh random numbers of the global generator."""
        return self.operator(a, self.layers)


class OnCircle(nn.Module):
    """An operator on a circle without the last node, which is the first one again.

    Args:
        operator: The operator.
    """

    def __init__(self, operator: nn.Module) -> None:
        super().__init__()
        self.operator = operator

    def forward(self, *arguments: Any) -> Float[Tensor, "batch channels n"]:
        """The output at the distinct nodes."""
        return self.operator(*arguments)[..., :-1]


class Head(nn.Module):
    """One head of an operator: its part of the channels.

    Args:
        operator: The operator, whose channels are those of head after head.
        index: Number of the head.
        heads: Number of heads.
    """

    def __init__(self, operator: nn.Module, index: int, heads: int) -> None:
        super().__init__()
        self.operator, self.index, self.heads = operator, index, heads

    def forward(self, *arguments: Any) -> Float[Tensor, "batch channels n"]:
        """The output of the head."""
        return self.operator(*arguments).chunk(self.heads, dim=1)[self.index]


def build(network: Network, case: FieldCase, sizes: NetworkSizes) -> FNO | BOON:
    """The untrained operator of a network, its weights drawn from torch's global generator.

    Args:
        network: What is trained.
        case: The case.
        sizes: Width, modes and depth.
    """
    operator = FNO(
        FNOConfig(
            in_channels=1 + case.times * sum(case.known),
            out_channels=2 * case.times * network.heads,
            width=sizes.width,
            modes=(sizes.modes,),
            depth=sizes.depth,
            periodic=(True,) if case.closed else (),
        )
    )
    return operator if network.correction is None else bounded(operator, network.correction)


def bounded(operator: FNO, correction: Correction) -> BOON:
    """The operator with values given at both ends."""
    return BOON(operator, [(Dirichlet(), Dirichlet())], correction=correction)


def as_map(operator: FNO | BOON, network: Network, case: FieldCase) -> nn.Module:
    """The operator as a map from its inputs to channels at the places of the case."""
    module: nn.Module = operator
    if network.dropout and isinstance(operator, FNO):
        module = RandomOperator(operator, network.dropout)
    return OnCircle(module) if case.closed else module


def inputs(
    case: FieldCase, network: Network, parameter: Float[Tensor, " batch"], dtype: torch.dtype = torch.float64
) -> Inputs:
    """What an operator is called with.

    The input field has the parameter, shifted and scaled to mean 0 and deviation 1 over the training range, and the
    given boundary values at all times, each constant in space. A BOON is given the boundary values of its channels as
    well: those of the field, and deviation 0.

    Args:
        case: The case.
        network: What was trained.
        parameter: The parameters.
        dtype: Precision of the operator.
    """
    low, high = case.training_range
    scaled = (parameter - 0.5 * (low + high)) / ((high - low) / 12**0.5)
    ends = case.ends(parameter)
    channels = [scaled[:, None], *(end for end, known in zip(ends, case.known, strict=True) if known)]
    a = torch.cat(channels, dim=1).to(dtype)[..., None].expand(-1, -1, case.nodes)
    if network.correction is None:
        return (a,)
    first, last = (torch.cat([end, torch.zeros_like(end)], dim=1).repeat(1, network.heads) for end in ends)
    return a, [(first, last)]


def surrogate(
    operators: Sequence[FNO | BOON], network: Network, case: FieldCase, passes: int, correlated: bool = False
) -> nn.Module:
    """What trained operators predict together.

    Args:
        operators: One or more trainings of the network, in any precision.
        network: What was trained.
        case: The case.
        passes: How often an operator under dropout is asked.
        correlated: Whether places are correlated as they are among the members.

    Returns:
        Module from ``inputs`` to a Gaussian ``(batch, T, n)``: of a single operator, or of an ``Ensemble`` of all
        operators, all heads, or all passes.
    """
    maps = [as_map(operator, network, case) for operator in operators]
    if network.heads > 1:
        maps = [Head(module, index, network.heads) for module in maps for index in range(network.heads)]
    members = [GaussianOperator(module, UNIT) for module in maps for _ in range(passes if network.dropout else 1)]
    return members[0] if len(members) == 1 else Ensemble(members, own_variance=True, correlated=correlated)


def diversity_penalty(operator: FNO | BOON, heads: int) -> Tensor:
    """Mean over pairs of heads of exp(−d²/d₀²), see ``Network``; between 0 and 1.

    Args:
        operator: The operator.
        heads: Number of its heads, at least 2.
    """
    fno = operator.operator if isinstance(operator, BOON) else operator
    assert isinstance(fno, FNO)
    weight = fno.read_out.weight
    before = 2 / (3 * weight.shape[1])  # of two independent draws from U(−b, b), b = 1/√(channels in)
    parts = weight.chunk(heads)
    distances = torch.stack([(a - b).square().mean() for a, b in combinations(parts, 2)])
    return torch.exp(-distances / before).mean()
