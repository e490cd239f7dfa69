"""A PyTorch that is too old to compile or export a constraint is named; without these it will do."""

import pytest
import torch
from torch.distributions import Normal

from boon import BOON, FNO, FNOConfig
from probconserv import ProbConserv, condition, integral
from solvers import Dirichlet, NodeGrid, recording
from solvers.errors import MissingPackageError

GRID = NodeGrid(0.0, 1.0, 16)
LAW = integral(GRID, 0.3)
SENTENCE = r"need torch 2\.11 or newer, got .*; call the model without them"


class Unsure(torch.nn.Module):
    def forward(self, mean: torch.Tensor) -> Normal:
        return Normal(mean, torch.ones_like(mean), validate_args=False)


def predict(mean: torch.Tensor) -> torch.Tensor:
    return condition(Unsure()(mean), LAW).mean


CONSTRAINED = {
    "condition": predict,
    "ProbConserv": lambda mean: ProbConserv(Unsure(), LAW)(mean).mean,
    "BOON": BOON(FNO(FNOConfig(width=4, modes=(3,), depth=1)), [(Dirichlet(0.3), None)]),
}
FIELD = torch.randn(2, 1, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", CONSTRAINED)
def test_an_old_torch_is_named_where_a_constraint_is_recorded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "TOO_OLD", True)
    assert CONSTRAINED[name](FIELD).shape == FIELD.shape
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with pytest.raises(MissingPackageError, match=SENTENCE):
        CONSTRAINED[name](FIELD)


@pytest.mark.skipif(not recording.TOO_OLD, reason="this torch records constraints")
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("name", ["condition", "BOON"])
def test_the_old_torch_here_quotes_that_sentence(name: str, whole: bool) -> None:
    torch.compiler.reset()
    with pytest.raises(Exception, match=SENTENCE):
        torch.compile(CONSTRAINED[name], backend="eager", fullgraph=whole)(FIELD)
