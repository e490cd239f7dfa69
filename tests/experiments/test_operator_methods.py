"""The rows as data: what each sees, what each meets, and which there are."""

import pytest
import torch

from boon import BOON, FNO, FNOConfig, MatchedTransform, boundary_error
from boon.spectral import SpectralConvolution
from experiments.errors import InvalidArgumentError
from experiments.operator_config import OperatorCase
from experiments.operator_data import Fields, as_fields
from experiments.operator_methods import (
    BASELINES,
    CIRCLE,
    DEFAULT_NAME,
    LIFTED,
    PAPER,
    PRESCRIBED,
    SOFT,
    Method,
    build,
    candidates,
    methods,
)
from experiments.operator_problems import CASES
from solvers import Dirichlet
from tests.experiments.operators import one, tiny_cases

KEYS = [(name, case.name) for name in CASES for case in tiny_cases(name)]
EXACT = (PRESCRIBED, PAPER, DEFAULT_NAME)


def fields_of(case: OperatorCase) -> Fields:
    config = case.test_data(0)
    times = config.output_times(case.problem)
    drawn = case.problem.sample(3, config.nodes, times, torch.Generator().manual_seed(1))
    fields = as_fields(drawn, case)
    as_float = tuple(pair and (pair[0].float(), pair[1].float()) for pair in fields.values)
    return Fields(input=fields.input.float(), output=fields.output.float(), values=as_float)


@pytest.mark.parametrize("time_modes", [0, 2])
@pytest.mark.parametrize(("name", "key"), KEYS)
def test_untrained_corrections_meet_the_conditions_and_others_do_not(name: str, key: str, time_modes: int) -> None:
    """Float32: exactly for values and periodic ends, ≤ 1e-6 of |g| + Σ|w u| for gradients; lifting up to rounding."""
    case = one(name, key, time_modes)
    fields = fields_of(case)
    for method in (*methods(case), *candidates(case)):
        torch.manual_seed(0)
        model = build(method, case)
        for convolution in model.modules():
            if isinstance(convolution, SpectralConvolution):  # fields that are rough enough to miss every condition
                convolution.weight.data = 0.1 * torch.randn_like(convolution.weight)
        u = model(fields.input, fields.values)
        assert u.shape == fields.output.shape
        found = boundary_error(u, model.discretise(u, fields.values))
        if method.correction is not None:
            gradients = "neumann" in name or "gradients" in key
            assert found.relative_maximum <= (1e-6 if gradients else 0.0), method.name
        elif method.lifting:
            assert found.relative_maximum < 1e-5
        elif not method.circle:
            assert found.relative_maximum > 1e-3, method.name


def test_equal_information_reaches_every_method_but_the_plain_one() -> None:
    """With independent data, other boundary values change the interior of what each told method gives."""
    case = one("heat_independent", "single-values")
    fields = fields_of(case)
    pair = fields.values[0]
    assert pair is not None
    changed = ((pair[0] + 0.5, pair[1] - 0.5),)
    for method in methods(case):
        torch.manual_seed(0)
        model = build(method, case)
        before, after = (model(fields.input, values)[..., 3:-3] for values in (fields.values, changed))
        assert torch.equal(before, after) == (method.name == "FNO"), method.name
        assert ("boundary" in method.information) == (method.name != "FNO")
        assert ("channels" in method.information) == (method.name not in ("FNO", PAPER))


def test_the_penalty_is_the_boundary_error_of_the_scores() -> None:
    case = one("heat_neumann", "multi")
    fields = fields_of(case)
    torch.manual_seed(0)
    model = build(Method(name="soft", penalty=2.0), case)
    bare = build(Method(name="FNO"), case)
    bare.load_state_dict(model.state_dict())
    with torch.no_grad():
        u = bare(fields.input, fields.values)
        added = float(model.loss(fields) - bare.loss(fields))
    error = boundary_error(u, bare.discretise(u, fields.values)).relative_l2
    assert added == pytest.approx(2.0 * error, abs=1e-6)  # a few float32 roundings of losses near 1


def test_the_default_is_that_of_the_library_but_for_the_length_on_the_cavity() -> None:
    default = BOON(FNO(FNOConfig(width=2, modes=(2,))), [(Dirichlet(), Dirichlet())]).correction
    for name in CASES:
        for case in tiny_cases(name):
            expected = MatchedTransform(length=0.01) if name == "cavity" else default
            assert methods(case)[-1].correction == expected


def test_every_case_has_the_rows_that_it_can_have() -> None:
    for name in CASES:
        for case in tiny_cases(name):
            names = [method.name for method in methods(case)]
            assert names[0] == "FNO"
            assert names[-2:] == [PAPER, DEFAULT_NAME]
            assert len(names) == (4 if name in ("wave_neumann", "cavity") else 6 if name == "burgers_periodic" else 7)
            assert any(name in BASELINES for name in names)
            assert (CIRCLE in names) == (name == "burgers_periodic")
            chosen_from = {method.name for method in candidates(case)}
            assert chosen_from.isdisjoint(names)
            assert any("short extension" in name for name in chosen_from) == (name != "burgers_periodic")


def test_all_rows_of_a_case_have_the_same_network() -> None:
    """Apart from what enters: the same number of weights after the first layer."""
    case = one("heat_independent", "multi-values")

    def weights(method: Method) -> int:
        operator = build(method, case).operator
        fno = operator.operator if isinstance(operator, BOON) else operator
        return sum(p.numel() for name, p in fno.named_parameters() if not name.startswith("lift."))

    assert len({weights(method) for method in methods(case)}) == 1


def test_negative_penalties_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"penalty of method 'x' must not be negative, got -1.0"):
        Method(name="x", penalty=-1.0)


def test_information_says_where_the_boundary_enters() -> None:
    seen = {method.name: method.information for method in methods(one("stokes", "single-0.02"))}
    assert seen["FNO"] == "initial field"
    assert seen[SOFT] == "initial field; boundary in loss"
    assert seen[PAPER] == "initial field; boundary in layers, output"
    assert seen[LIFTED] == "initial field; boundary in output"
