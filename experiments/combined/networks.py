"""Operators from a parameter to a Gaussian field at many times, composed from the public wrappers.

BOON(FNO)                    meets the boundary values, with standard deviation 0 there
GaussianOperator(...)        reads its channels as means and standard deviations at every time
Ensemble([...])              joins several operators
ProbConserv(..., law)        conditions the result on the law at every time
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon import BOON, FNO, Correction, FNOConfig
from boon.storage import Operator
from experiments.combined.fields import FieldProblem
from probconserv import Ensemble
from probconserv.surrogates.operator import GaussianOperator
from solvers import Dirichlet

UNIT = 0.1
"""Standard deviation of an operator whose channel for it is 1; fields are of order 1."""
Inputs = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Network:
    """Config of a training.

    Args:
        correction: Of a BOON around the FNO; None for no BOON.
        conserved: Whether the loss is that of the prediction conditioned on the law (end-to-end training).
        padding: Extension of the interval by the FNO, as a fraction of its length.
    """

    name: str
    correction: Correction | None = None
    conserved: bool = False
    width: int = 32
    modes: int = 32
    depth: int = 4
    padding: float = 0.125


class FieldMap(nn.Module):
    """An operator as a map from its inputs to channels at the points of a problem.

    On a circle the last node, which is the first one again, is left out.
    """

    def __init__(self, operator: Operator, problem: FieldProblem) -> None:
        super().__init__()
        self.operator = operator
        self.points = slice(None, -1) if problem.periodic else slice(None)

    def forward(self, *arguments: Any) -> Float[Tensor, "batch channels n"]:
        return self.operator(*arguments)[..., self.points]


def build(network: Network, problem: FieldProblem) -> FNO | BOON:
    """The untrained operator of a network, its weights drawn from torch's global generator."""
    config = FNOConfig(
        in_channels=1 + problem.times * sum(problem.given),
        out_channels=2 * problem.times,
        width=network.width,
        modes=(network.modes,),
        depth=network.depth,
        padding=network.padding,
        periodic=(True,) if problem.periodic else (),
    )
    operator = FNO(config)
    return operator if network.correction is None else bounded(operator, network.correction)


def bounded(operator: FNO, correction: Correction) -> BOON:
    """The operator with values given at both ends."""
    return BOON(operator, [(Dirichlet(), Dirichlet())], correction=correction)


def inputs(
    problem: FieldProblem, network: Network, parameter: Float[Tensor, " batch"], dtype: torch.dtype = torch.float64
) -> Inputs:
    """Arguments of an operator.

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
    first, last = (torch.cat([end, torch.zeros_like(end)], dim=1) for end in ends)
    return a, [(first, last)]


def surrogate(operators: Sequence[Operator], problem: FieldProblem, correlated: bool = False) -> nn.Module:
    """The joint prediction of trained operators: a module from ``inputs`` to a Gaussian ``(batch, T, n)``.

    An ``Ensemble`` joins several; ``correlated`` keeps the covariance among them.
    """
    members = [GaussianOperator(FieldMap(operator, problem), UNIT) for operator in operators]
    shrinkage = 0.0 if correlated else 1.0
    return members[0] if len(members) == 1 else Ensemble(members, own_variance=True, shrinkage=shrinkage)
