"""The released flow of Stokes' problem against exact conditional distributions."""

import pytest
import torch

from experiments.experiment import RunContext, RunOptions
from experiments.generation import EXPERIMENTS
from experiments.generation.problem import GenerationProblem, weighted_moments
from experiments.generation.scoring import scores_of
from experiments.records.release import released_weights
from probconserv import FlowMatching, LinearConstraint

pytestmark = pytest.mark.long

GRID, DRAWS, TRUE = 400, 1024, (6.0, 5.0)
"""Parameters along every axis, fields that are drawn, and parameters of the field whose values are given."""


def flow() -> FlowMatching:
    return FlowMatching.load(released_weights("generation/stokes-flow-0.safetensors"))


def few_values(
    problem: GenerationProblem, nodes: int, places: list[tuple[float, float]], deviation: float
) -> tuple[LinearConstraint, torch.Tensor, torch.Tensor]:
    """Values at fractions of the time and the length as a law, and the moments of the posterior.

    These are sums over parameters in the middle of the cells of a grid, in proportion to their likelihood.
    """
    at = [(round(t * (nodes - 1)), round(x * (nodes - 1))) for t, x in places]
    truth = problem.fields(torch.tensor([TRUE], dtype=torch.float64), nodes)[0]
    rows = torch.zeros(len(at), truth.numel(), dtype=torch.float64)
    rows[range(len(at)), [t * nodes + x for t, x in at]] = 1.0
    law = LinearConstraint(rows, rows @ truth.flatten(), noise_variance=deviation**2)
    middles = (torch.arange(GRID, dtype=torch.float64) + 0.5) / GRID
    parameters = torch.cartesian_prod(*(low + (high - low) * middles for low, high in problem.ranges))
    (times, points), columns = problem.axes(nodes), [column[:, None, None] for column in parameters.T]
    seen = [problem.solution(times[t : t + 1, None], points[x : x + 1], *columns)[:, 0, 0] for t, x in at]
    weights = (-0.5 * ((torch.stack(seen, dim=-1) - law.b) / deviation).square()).sum(dim=-1).softmax(dim=0)
    likely = weights > 1e-9 * weights.max()
    return law, *weighted_moments(problem, nodes, parameters[likely], weights[likely] / weights[likely].sum())


@pytest.mark.parametrize(
    ("places", "deviation", "most"),
    [
        ([(0.2, 0.05), (0.6, 0.1), (0.9, 0.2)], 0.05, (2e-5, 2e-5)),
        ([(0.4, 0.2)], 0.02, (5e-4, 3e-4)),
    ],
    ids=["three values", "a value far from the wall"],
)
def test_particles_draw_from_the_posterior_of_a_few_values_with_noise(places, deviation, most) -> None:
    """Mean squared errors of mean and standard deviation, over two seeds."""
    problem = EXPERIMENTS["generate_stokes"].problem
    law, mean, spread = few_values(problem, 100, places, deviation)
    errors = []
    for seed in (0, 1):
        drawn = flow().draw(DRAWS, law=law, seed=seed)
        assert drawn.sampler == "twisted"
        fields = drawn.fields
        errors.append(
            [
                float((found - exact).square().mean())
                for found, exact in ((fields.mean(dim=0), mean), (fields.std(dim=0), spread))
            ]
        )
    assert bool((torch.tensor(errors).mean(dim=0) <= torch.tensor(most)).all()), errors


def test_the_default_draws_fields_with_a_given_boundary_value() -> None:
    """Errors of mean and standard deviation, and the Fréchet distance to true fields."""
    cases = EXPERIMENTS["generate_stokes"].cases(RunContext(options=RunOptions(preset="laptop")))
    (case,) = (case for case in cases if case.key == "boundary")
    drawn = flow().draw(DRAWS, law=case.law, seed=0)
    assert drawn.sampler == "conditioned"
    scores = scores_of(drawn.fields, case, seed=0)
    for name, most in {"mean_error": 1e-4, "deviation_error": 1e-4, "frechet": 0.15}.items():
        assert scores[name] <= most, name
