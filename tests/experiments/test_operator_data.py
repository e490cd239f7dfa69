"""Samples as tensors: every value in its place, with times as channels and as an axis."""

import pytest
import torch

from experiments.operator_data import as_fields, by_time
from solvers.problems.boundary_samples import BoundarySamples
from tests.experiments.operators import one


def samples(name: str, key: str, time_modes: int) -> tuple[BoundarySamples, object]:
    case = one(name, key, time_modes)
    config = case.test_data(0)
    drawn = case.problem.sample(config.samples, config.nodes, config.output_times(case.problem), torch.Generator())
    return drawn, case


@pytest.mark.parametrize("time_modes", [0, 2])
@pytest.mark.parametrize(("name", "key"), [("cavity", "multi"), ("heat_neumann", "multi")])
def test_times_are_channels_or_the_last_axis(name: str, key: str, time_modes: int) -> None:
    drawn, case = samples(name, key, time_modes)
    fields = as_fields(drawn, case)  # type: ignore[arg-type]
    unit = case.sizes.network.unit  # type: ignore[attr-defined]
    space = drawn.input.shape[1:]
    if time_modes:
        assert fields.input.shape == (3, 1, *space, 3)
        assert torch.equal(fields.output[1, 0, ..., 2], drawn.output[1, 2] / unit)
        assert torch.equal(fields.input[1, 0, ..., 2], drawn.input[1] / unit)
        assert fields.values[-1] is None
    else:
        assert fields.input.shape == (3, 1, *space)
        assert torch.equal(fields.output[1, 2], drawn.output[1, 2] / unit)
    assert len(fields.values) == fields.input.ndim - 2
    for pair, own in zip(drawn.boundary, fields.values, strict=False):
        assert pair is not None
        assert own is not None
        for side, value in zip(pair, own, strict=True):
            last = value[:, 0, ..., 2] if time_modes else value[:, 2]
            assert torch.equal(last, side[:, 2] / unit)


@pytest.mark.parametrize("time_modes", [0, 2])
def test_by_time_undoes_the_layout_without_rounding(time_modes: int) -> None:
    drawn, case = samples("cavity", "multi", time_modes)
    fields = as_fields(drawn, case)  # type: ignore[arg-type]
    assert torch.equal(by_time(fields.output, case), drawn.output)  # type: ignore[arg-type]


def test_taking_samples_takes_all_their_parts() -> None:
    drawn, case = samples("heat_independent", "single-values", 0)
    fields = as_fields(drawn, case)  # type: ignore[arg-type]
    part = fields.take(torch.tensor([2, 0]))
    assert len(part) == 2
    assert torch.equal(part.input, fields.input[[2, 0]])
    assert torch.equal(part.output, fields.output[[2, 0]])
    assert part.values[0] is not None
    assert fields.values[0] is not None
    assert torch.equal(part.values[0][1], fields.values[0][1][[2, 0]])
