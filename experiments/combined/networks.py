"""Operators from a parameter to a Gaussian field at many times, composed from the public wrappers.

BOON(FNO)                    meets the boundary values, with standard deviation 0 there
GaussianOperator(...)        reads its channels as means and standard deviations at every time
Ensemble([...])              joins several operators, heads of one, or passes of one under dropout
ProbConserv(..., law)        conditions the result on the law at every time
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from boon import BOON, FNO, Correction, FNOConfig, Operator
from boon.fno import Layers, fourier_bases
from boon.spectral import Basis, Convolution
from experiments.combined.fields import FieldProblem
from probconserv import Ensemble, GaussianOperator
from solvers import Dirichlet

UNIT = 0.1
"""Standard deviation of an operator whose channel for it is 1; fields are of order 1."""
Inputs = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """What is trained.

    Args:
        correction: Of a BOON around the FNO; None for no BOON.
        heads: Number of last layers over one common network, each a prediction.
        diversity: λ of the loss CRPS + λ · mean over pairs of heads of exp(−d²/d₀²): d² is the mean squared difference
            of their last layers' weights and d₀² its expected value before training. It keeps the heads apart as the
            regularisation of Mouli et al. 2024 does, but is bounded, so that it cannot outweigh the data.
        dropout: Fraction of the hidden features set to 0 between layers, in training and in predictions.
        conserved: Whether the loss is that of the prediction conditioned on the law (end-to-end training).
        padding: Extension of the interval by the FNO, as a fraction of its length.
    """

    name: str
    correction: Correction | None = None
    heads: int = 1
    diversity: float = 0.0
    dropout: float = 0.0
    conserved: bool = False
    width: int = 32
    modes: int = 32
    depth: int = 4
    padding: float = 0.125


class DropoutLayers(Layers):
    """The layers of an FNO with a fraction of the hidden features dropped before every layer but the first."""

    def __init__(self, rate: float) -> None:
        self.rate = rate

    def bases(self, config: FNOConfig, shape: Sequence[int], like: Tensor) -> tuple[Basis, ...]:
        return fourier_bases(config, shape, like)

    def prepare(self, layer: int, v: Tensor) -> Tensor:
        return functional.dropout(v, self.rate, training=True) if layer else v

    def kernel(self, convolution: Convolution, v: Tensor, bases: Sequence[Basis]) -> Tensor:
        return convolution(v, bases)


class FieldMap(nn.Module):
    """An operator as a map from its inputs to channels at the points of a problem, all or those of one head.

    On a circle the last node, which is the first one again, is left out. Under dropout every call takes fresh random
    numbers of the global generator.
    """

    def __init__(self, operator: Operator, network: Network, problem: FieldProblem, head: int | None = None) -> None:
        super().__init__()
        self.operator, self.head, self.heads = operator, head, network.heads
        self.layers = (DropoutLayers(network.dropout),) if network.dropout else ()
        self.points = slice(None, -1) if problem.periodic else slice(None)

    def forward(self, *arguments: Any) -> Float[Tensor, "batch channels n"]:
        channels = self.operator(*arguments, *self.layers)[..., self.points]
        return channels if self.head is None else channels.chunk(self.heads, dim=1)[self.head]


def build(network: Network, problem: FieldProblem) -> FNO | BOON:
    """The untrained operator of a network, its weights drawn from torch's global generator."""
    given, out, periodic = sum(problem.given), 2 * problem.times * network.heads, (True,) if problem.periodic else ()
    sizes = FNOConfig(in_channels=1 + problem.times * given, out_channels=out, width=network.width, depth=network.depth)
    operator = FNO(replace(sizes, modes=(network.modes,), periodic=periodic, padding=network.padding))
    return operator if network.correction is None else bounded(operator, network.correction)


def bounded(operator: FNO, correction: Correction) -> BOON:
    """The operator with values given at both ends."""
    return BOON(operator, [(Dirichlet(), Dirichlet())], correction=correction)


def inputs(
    problem: FieldProblem, network: Network, parameter: Float[Tensor, " batch"], dtype: torch.dtype = torch.float64
) -> Inputs:
    """What an operator is called with.

    The input field has the parameter, shifted and scaled to mean 0 and standard deviation 1 over the training range,
    and the given boundary values at all times, each constant in space. A BOON also takes the boundary values of its
    channels: those of the field, and standard deviation 0.
    """
    low, high = problem.training_range
    scaled = (parameter - 0.5 * (low + high)) / ((high - low) / 12**0.5)
    ends = problem.ends(parameter)
    channels = [scaled[:, None], *(end for end, given in zip(ends, problem.given, strict=True) if given)]
    a = torch.cat(channels, dim=1).to(dtype)[..., None].expand(-1, -1, problem.nodes)
    if network.correction is None:
        return (a,)
    first, last = (torch.cat([end, torch.zeros_like(end)], dim=1).repeat(1, network.heads) for end in ends)
    return a, [(first, last)]


def surrogate(
    operators: Sequence[Operator], network: Network, problem: FieldProblem, passes: int, correlated: bool = False
) -> nn.Module:
    """What trained operators predict together: a module from ``inputs`` to a Gaussian ``(batch, T, n)``.

    An ``Ensemble`` joins all operators, all heads, or all passes under dropout; ``correlated`` keeps the covariance
    among them.
    """
    heads = range(network.heads) if network.heads > 1 else (None,)
    maps = [FieldMap(operator, network, problem, head) for operator in operators for head in heads]
    members = [GaussianOperator(module, UNIT) for module in maps for _ in range(passes if network.dropout else 1)]
    shrinkage = 0.0 if correlated else 1.0
    return members[0] if len(members) == 1 else Ensemble(members, own_variance=True, shrinkage=shrinkage)


def diversity_penalty(operator: Operator, heads: int) -> Tensor:
    """Mean over pairs of heads of exp(−d²/d₀²), see ``Network``; between 0 and 1."""
    fno = operator
    while not isinstance(fno, FNO):
        fno = fno.operator
    weight = fno.read_out.weight
    before = 2 / (3 * weight.shape[1])  # of two independent draws from U(−b, b), b = 1/√(channels in)
    distances = torch.stack([(a - b).square().mean() for a, b in combinations(weight.chunk(heads), 2)])
    return torch.exp(-distances / before).mean()
