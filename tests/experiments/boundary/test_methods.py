"""Methods as data: what each sees, what each meets, and which there are."""

import pytest
import torch

from boon import BOON, FNO, FNOConfig, MatchedTransform, boundary_error
from boon.spectral import SpectralConvolution
from experiments.boundary import methods as keys
from experiments.boundary.cases import BoundaryCase
from experiments.boundary.data import Fields, as_fields
from experiments.boundary.methods import Method, candidates, methods
from experiments.boundary.operator import Treatment, build
from experiments.boundary.versions import VERSIONS
from experiments.errors import InvalidArgumentError
from solvers import Dirichlet
from tests.experiments.boundary.tiny import one, tiny_cases

CASES = [(name, case.key) for name in VERSIONS for case in tiny_cases(name)]


def fields_of(case: BoundaryCase) -> Fields:
    config = case.test_data(0)
    times = config.output_times(case.problem)
    drawn = case.problem.sample(3, config.nodes, times, torch.Generator().manual_seed(1))
    fields = as_fields(drawn, case)
    as_float = tuple(pair and (pair[0].float(), pair[1].float()) for pair in fields.values)
    return Fields(input=fields.input.float(), output=fields.output.float(), values=as_float)


@pytest.mark.parametrize("time_modes", [0, 2])
@pytest.mark.parametrize(("name", "key"), CASES)
def test_untrained_corrections_meet_the_conditions_and_others_do_not(name: str, key: str, time_modes: int) -> None:
    """Float32: exactly for values and periodic ends, ≤ 1e-6 of |g| + Σ|w u| for gradients; lifting up to rounding."""
    case = one(name, key, time_modes)
    fields = fields_of(case)
    for method in (*methods(case)[1:], *candidates(case)):
        assert method.treatment is not None
        torch.manual_seed(0)
        model = build(method.treatment, case)
        for convolution in model.modules():
            if isinstance(convolution, SpectralConvolution):  # fields that are rough enough to miss every condition
                convolution.weight.data = 0.1 * torch.randn_like(convolution.weight)
        u = model(fields.input, fields.values)
        assert u.shape == fields.output.shape
        error = boundary_error(u, model.discretise(u, fields.values)).relative_maximum
        if method.treatment.correction is not None:
            gradients = "neumann" in name or "gradients" in key
            assert error <= (1e-6 if gradients else 0.0), method.key
        elif method.treatment.lifting:
            assert error < 1e-5
        elif not method.treatment.circle:
            assert error > 1e-3, method.key


def test_equal_information_reaches_every_method_but_the_plain_one() -> None:
    """With independent data, other boundary values change the interior of what each method but the FNO gives."""
    case = one("heat_independent", "single-values")
    fields = fields_of(case)
    pair = fields.values[0]
    assert pair is not None
    changed = ((pair[0] + 0.5, pair[1] - 0.5),)
    for method in methods(case)[1:]:
        assert method.treatment is not None
        torch.manual_seed(0)
        model = build(method.treatment, case)
        before, after = (model(fields.input, values)[..., 3:-3] for values in (fields.values, changed))
        assert torch.equal(before, after) == (method.key == keys.FNO), method.key
        assert ("boundary" in method.information) == (method.key != keys.FNO)
        assert ("channels" in method.information) == (method.key not in (keys.FNO, keys.PAPER))
    seen = {method.key: method.information for method in methods(one("stokes", "single-0.02"))}
    assert seen[keys.PENALTY] == "initial field; boundary in loss"
    assert seen[keys.PAPER] == "initial field; boundary in layers, output"


def test_the_penalty_is_the_boundary_error_of_the_scores() -> None:
    case = one("heat_neumann", "multi")
    fields = fields_of(case)
    torch.manual_seed(0)
    model, bare = build(Treatment(penalty=2.0), case), build(Treatment(), case)
    bare.load_state_dict(model.state_dict())
    with torch.no_grad():
        u = bare(fields.input, fields.values)
        added = float(model.loss(fields) - bare.loss(fields))
    error = boundary_error(u, bare.discretise(u, fields.values)).relative_l2
    assert added == pytest.approx(2.0 * error, abs=1e-6)  # a few float32 roundings of losses near 1
    with pytest.raises(InvalidArgumentError, match=r"penalty must not be negative, got -1.0"):
        Treatment(penalty=-1.0)


@pytest.mark.parametrize(("name", "key"), CASES)
def test_every_case_has_the_methods_that_it_can_have(name: str, key: str) -> None:
    case = one(name, key)
    rows = {method.key: method for method in methods(case)}
    assert list(rows)[:2] == ["truth", keys.FNO]
    assert list(rows)[-2:] == [keys.PAPER, keys.DEFAULT]
    assert len(rows) == {"wave_neumann": 5, "cavity": 5, "burgers_periodic": 7}.get(name, 8)
    assert any(row in keys.BASELINES for row in rows)
    assert (keys.CIRCLE in rows) == (name == "burgers_periodic")
    chosen_from = {method.key for method in candidates(case)}
    assert chosen_from.isdisjoint(rows)
    assert any("short-extension" in candidate for candidate in chosen_from) == (name != "burgers_periodic")
    treatment = rows[keys.DEFAULT].treatment
    assert treatment is not None
    default = BOON(FNO(FNOConfig(width=2, modes=(2,))), [(Dirichlet(), Dirichlet())]).correction
    assert treatment.correction == (MatchedTransform(length=0.01) if name == "cavity" else default)


def test_all_methods_of_a_case_have_the_same_network() -> None:
    """Apart from what enters: the same number of weights after the first layer."""
    case = one("heat_independent", "multi-values")

    def weights(method: Method) -> int:
        assert method.treatment is not None
        operator = build(method.treatment, case).operator
        fno = operator.operator if isinstance(operator, BOON) else operator
        return sum(p.numel() for name, p in fno.named_parameters() if not name.startswith("lift."))

    assert len({weights(method) for method in methods(case)[1:]}) == 1
