"""Whole-number observations are read as float64 by every surrogate."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from probconserv import ANP, Context, EmpiricalGP, Ensemble, FlowMatching, GPSurrogate, Query
from probconserv.surrogates.anp import ANPConfig
from probconserv.surrogates.fitting import FunctionSet
from probconserv.surrogates.flow import KarhunenLoeve, SamplingOptions
from probconserv.surrogates.gp import GPConfig
from probconserv.training import TrainingConfig
from tests.probconserv.surrogates.exact_flows import of_gaussian

double = torch.float64
TIMES, PLACES = torch.linspace(0, 2, 3, dtype=double), torch.linspace(0, 11, 12, dtype=double)
COUNTS = torch.randint(0, 9, (30, 3, 12), generator=torch.Generator().manual_seed(0))  # fields of whole numbers
GRID = torch.cartesian_prod(TIMES, PLACES)


def empirical() -> EmpiricalGP:
    return EmpiricalGP(COUNTS, (TIMES, PLACES), mixture=False)


def process(steps: int = 3) -> GPSurrogate:
    return GPSurrogate(GPConfig(steps=steps))


def network() -> ANP:
    config = ANPConfig(problem="", low=(0.0, 0.0), high=(2.0, 11.0), value_scale=9.0, width=16, heads=2)
    torch.manual_seed(0)
    model = ANP(config).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    return model


def flow() -> FlowMatching:
    torch.manual_seed(0)
    latent = KarhunenLoeve.of(COUNTS, 8)
    return of_gaussian(latent, axes=(TIMES, PLACES), draws=8, options=SamplingOptions(steps=4))


@pytest.mark.parametrize("build", [process, empirical, network, flow, lambda: Ensemble([process(3), process(5)])])
def test_observations_of_whole_numbers_predict_what_the_same_floats_do(build: Callable[[], nn.Module]) -> None:
    places = torch.tensor([14, 17, 21, 27])
    noise = None if build is network else 64
    whole = Context(GRID[places].long(), COUNTS[0].flatten()[places], noise_variance=noise)
    floats = Context(GRID[places], COUNTS[0].flatten()[places].double(), noise_variance=noise and 64.0)
    query = GRID[12:24]
    found, expected = (
        build().predict(context, Query(points))  # pyright: ignore[reportCallIssue] - a surrogate
        for context, points in ((whole, query.long()), (floats, query))
    )
    assert found.mean.dtype == double
    assert torch.equal(found.mean, expected.mean)
    assert torch.equal(found.variance, expected.variance)


def test_training_functions_may_be_whole_numbers(tmp_path) -> None:
    functions = FunctionSet(points=GRID.long(), values=COUNTS.flatten(1), context=5)
    assert functions.values.dtype == double
    training = TrainingConfig(steps=2, precision="32-true")
    network().float().fit(functions, config=training, folder=tmp_path / "anp", progress=False)
    flow().fit(COUNTS, config=training, folder=tmp_path / "flow", progress=False)


def test_contexts_and_queries_compare_without_comparing_their_values() -> None:
    one, other = (Context(GRID, COUNTS[0].flatten()) for _ in range(2))
    assert one != other
    assert one == one
    assert Query(GRID) != Query(GRID)
    assert len({one, other}) == 2
