"""Methods as data: what each sees, what each meets, and which there are."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch

from boon import (
    BOON,
    ChannelBOON,
    Correction,
    MixedTransform,
    Normalised,
    Prescription,
    SmoothExtension,
    boundary_error,
)
from boon.scores import relative_residual
from boon.slopes import slope_error
from boon.spectral import SpectralConvolution
from experiments.boundary import methods as keys
from experiments.boundary.cases import BoundaryCase
from experiments.boundary.data import Fields, load_fields
from experiments.boundary.methods import Method, methods, untuned
from experiments.boundary.operator import ConditionedOperator, Treatment, build, discretise_case
from experiments.boundary.problems import PROBLEMS
from experiments.boundary.samples import DataStore
from experiments.errors import InvalidArgumentError
from solvers import Neumann
from tests.experiments.boundary.tiny import one, tiny_cases

CASES = [(name, case.key) for name in PROBLEMS for case in tiny_cases(name)]
GENERATOR = torch.Generator().manual_seed(0)


def fields_of(case: BoundaryCase) -> Fields:
    with TemporaryDirectory() as folder:
        return load_fields(case, case.test_data(0), DataStore(folder=Path(folder), version=1))


def untrained(treatment: Treatment, case: BoundaryCase, fields: Fields) -> ConditionedOperator:
    torch.manual_seed(0)
    return build(treatment, case, fields)


def networks(case: BoundaryCase) -> list[Method]:
    """The methods of a case that are built before they are trained, and can be here."""
    return [method for method in methods(case) if method.random and method.available]


def has_gradients(case: BoundaryCase) -> bool:
    sides = (side for each in case.source.conditions for pair in each for side in pair)
    return any(isinstance(side, Neumann) for side in sides)


@pytest.mark.filterwarnings("ignore:A pivot of a layer:RuntimeWarning")  # kernels drawn at random, of either sign
@pytest.mark.parametrize("time_modes", [0, 2])
@pytest.mark.parametrize(("name", "key"), CASES)
def test_untrained_corrections_meet_the_conditions_and_others_do_not(name: str, key: str, time_modes: int) -> None:
    """Float32: exactly for values and periodic ends, ≤ 1e-6 of |g| + Σ|w u| for gradients."""
    case = one(name, key, time_modes)
    fields = fields_of(case)
    bound = 1e-6 if has_gradients(case) else 0.0
    for method in networks(case):
        model = untrained(method.treatment, case, fields)
        for convolution in model.modules():
            if isinstance(convolution, SpectralConvolution):  # fields that are rough enough to miss every condition
                convolution.weight.data = 0.1 * torch.randn_like(convolution.weight)
        u = model(fields.input, fields.values)
        assert u.shape == fields.output.shape
        error = boundary_error(u, model.discretise(u, fields.values)).relative_maximum
        if method.treatment.correction is not None:
            assert error <= bound, method.key
        elif not method.treatment.circle:
            assert error > 1e-4, method.key


@pytest.mark.parametrize("correction", [Prescription(), MixedTransform()])
def test_fields_in_cells_have_their_conditions_at_faces_unless_taken_for_nodes(correction: Correction) -> None:
    """u at the faces of axis 0 is (3 u₀ − u₁)/2 to rounding in float32; at nodes it would be u₀."""
    case = one("darcy", "single-cells")
    case = replace(case, sizes=replace(case.sizes, network=replace(case.sizes.network, order=2)))
    fields = fields_of(case)
    (left, _), _ = fields.values
    for as_nodes in (False, True):
        model = untrained(Treatment(correction=correction, as_nodes=as_nodes), case, fields)
        u = model(fields.input, fields.values)
        faces = u[:, :, 0] if as_nodes else 1.5 * u[:, :, 0] - 0.5 * u[:, :, 1]
        torch.testing.assert_close(faces[..., 1:-1], left[..., 1:-1], rtol=1e-5, atol=1e-5)
        true = boundary_error(u, discretise_case(case, u, fields.values)).relative_maximum
        assert (true < 1e-5) != as_nodes


def test_equal_information_reaches_every_method_but_the_plain_one() -> None:
    """With independent data, other boundary values change the interior of what each method but the FNO gives."""
    case = one("heat_independent", "single-values")
    fields = fields_of(case)
    ((left, right),) = fields.values
    for method in networks(case):
        model = untrained(method.treatment, case, fields)
        outputs = (model(fields.input, values)[..., 3:-3] for values in (fields.values, ((left + 0.5, right - 0.5),)))
        assert torch.equal(*outputs) == (method.key == keys.FNO), method.key
        assert ("boundary" in method.information) == (method.key != keys.FNO)
        assert ("channels" in method.information) == (method.key not in {keys.FNO, keys.WITHOUT_SCHUR})
    seen = {method.key: method.information for method in methods(one("stokes", "single-0.02"))}
    assert seen[keys.PENALTY] == "initial field; boundary in channels, loss"
    assert seen[keys.ELIMINATION] == seen[keys.WITHOUT_SCHUR] == "initial field; boundary in layers, output"


def test_the_penalty_is_the_boundary_error_of_the_scores() -> None:
    case = one("heat_neumann", "multi")
    fields = fields_of(case)
    model, bare = untrained(Treatment(penalty=2.0), case, fields), untrained(Treatment(), case, fields)
    with torch.no_grad():
        u = bare(fields.input, fields.values)
        added = float(model.loss(fields) - bare.loss(fields))
    error = boundary_error(u, bare.discretise(u, fields.values)).relative_l2
    assert added == pytest.approx(2.0 * error, abs=1e-6)  # a few float32 roundings of losses near 1
    for name in ("penalty", "slopes"):
        with pytest.raises(InvalidArgumentError, match=rf"{name} must not be negative, got -1.0"):
            Treatment(**{name: -1.0})


def test_slopes_in_the_loss_are_those_of_the_sides_with_gradients() -> None:
    case = one("heat_neumann", "multi")
    fields = fields_of(case)
    model, usual = (untrained(Treatment(slopes=slopes), case, fields) for slopes in (0.5, 0.0))
    with torch.no_grad():
        added = float(model.loss(fields) - usual.loss(fields))
        error = float(slope_error(usual(fields.input, fields.values), fields.output, case.conditions))
    assert added == pytest.approx(0.5 * error, rel=1e-5)  # a few float32 roundings
    assert error > 0.01


@pytest.mark.parametrize(("name", "key"), [("heat_neumann", "multi"), ("basin", "single")])
def test_under_a_correction_the_penalty_is_that_of_the_field_before_it(name: str, key: str) -> None:
    case = one(name, key)
    fields, correction = fields_of(case), keys.default_of(one(name, key))
    usual = untrained(Treatment(correction=correction), case, fields)
    model, before = untrained(Treatment(correction=correction, penalty=100.0), case, fields), []
    for module in model.modules():
        if isinstance(module, BOON):
            module.step.register_forward_pre_hook(lambda _, given: before.append(given[0]))
    with torch.no_grad():
        added = float(model.loss(fields) - usual.loss(fields))
    u = torch.cat(before, dim=1)
    error = relative_residual(u, model.discretise(u, fields.values)).item()
    assert error > 1e-4
    assert added == pytest.approx(100.0 * error, abs=1e-5)  # a few float32 roundings of losses near 10


@pytest.mark.parametrize(("name", "key"), CASES)
def test_every_case_has_the_methods_that_it_can_have(name: str, key: str) -> None:
    case = one(name, key)
    rows, published = {method.key: method.treatment for method in untuned(case)}, key.endswith(("notebook", "paper"))
    assert (list(rows)[:2], list(rows)[-1]) == (["truth", keys.FNO], keys.DEFAULT)
    assert set(rows) == {"truth", *case.methods}
    of_paper = [keys.FNO, keys.PCA, keys.ELIMINATION, keys.WITHOUT_SCHUR, keys.DEFAULT]
    assert not published or list(rows) == ["truth", *of_paper]
    assert (keys.ELIMINATION in rows) == (published or name in ("stokes", "burgers_dirichlet", "heat_neumann"))
    assert keys.ELIMINATION not in {method.key for method in untuned(one(name, key, 2))} or case.times == 1
    assert case.given == (name not in ("burgers_periodic", "basin"))
    assert (keys.WITHOUT_SCHUR in rows) == (case.shared and not case.cells)
    assert (keys.DEFAULT_AT_NODES in rows) == (keys.PRESCRIPTION_AT_NODES in rows) == case.cells
    assert (keys.WITHOUT_SCHUR_CHANNELS in rows) == (case.given and not published and not case.cells)
    assert (keys.CIRCLE in rows) == (name == "burgers_periodic" and not published)
    gradients = (name in ("heat_neumann", "reaction_diffusion") and not published) or "gradients" in key
    assert {keys.SLOPES, keys.CHANNEL_SLOPES} & set(rows) == (
        {keys.SLOPES, keys.CHANNEL_SLOPES} if gradients else set()
    )
    without = {"truth", keys.FNO, keys.ELIMINATION, keys.WITHOUT_SCHUR}
    assert all(rows[key].channels == (case.given and key not in without) for key in set(rows) - {"truth"})
    assert rows[keys.DEFAULT].correction == (MixedTransform() if case.shared else SmoothExtension(length=0.01))


@pytest.mark.parametrize(("name", "key"), [("heat_independent", "single-values"), ("basin", "single")])
def test_all_methods_of_a_case_have_one_network_apart_from_what_enters(name: str, key: str) -> None:
    case, weights = one(name, key), set()
    fields = fields_of(case)
    others = {keys.UNET, keys.PACKAGE}
    for method in untuned(case):  # tuning may choose a channel MLP
        if not (method.random and method.available):
            continue
        model = build(method.treatment, case, fields)
        assert isinstance(model.operator, ChannelBOON) == (not case.shared and method.treatment.correction is not None)
        if method.key not in others:  # the network is inside a Normalised
            (fno,) = (module.operator for module in model.modules() if isinstance(module, Normalised))
            weights.add(sum(p.numel() for name, p in fno.named_parameters() if not name.startswith("lift")))
    assert len(weights) == 1
