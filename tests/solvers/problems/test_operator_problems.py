"""Problems for operators: errors below their bounds, exact data on the sides, samples that depend on nothing else."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from solvers import CellGrid, Dirichlet, Neumann, NodeGrid, Periodic, Robin
from solvers.data_files.field_set import FieldSet
from solvers.data_files.files import PDEBench, TheWell, export
from solvers.errors import InvalidArgumentError
from solvers.problems.operator_problems import OPERATOR_PROBLEMS, standard
from solvers.problems.operator_problems.problem import Recipe, field_values, restrict
from solvers.problems.operator_problems.samples import join, load_samples, operator_samples

PROBLEMS = list(OPERATOR_PROBLEMS.values())
COMPILED = [pytest.param(p, marks=pytest.mark.long) if p.name == "basin" else p for p in PROBLEMS]
"""The march of the basin takes 16 s to compile."""
SLOW = {"basin": pytest.mark.slow, "advection_diffusion": pytest.mark.slow}
ARRAYS = ("fields", "coefficients", "extras")


def ids(problem):
    return problem.name


def coarse(problem):
    """The same problem with fewer cells and times: fast."""
    return replace(problem, recipe=replace(problem.recipe, refinement=1, times=problem.recipe.times[:1]))


def assert_same(first, second):
    for category in ARRAYS:
        left, right = getattr(first, category), getattr(second, category)
        assert set(left) == set(right)
        assert all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW[n]) if n in SLOW else n for n in OPERATOR_PROBLEMS])
def test_the_error_is_below_the_bound_of_the_recipe(name):
    """Against twice the cells; the last sample of the test set stands for others."""
    problem = OPERATOR_PROBLEMS[name]
    single = {"count": 1, "first": 199, "split": "test"}
    u = operator_samples(problem.sample(**single)).outputs
    finer = operator_samples(problem.sample(**single, refinement=2 * problem.recipe.refinement)).outputs
    axes = (0, 1, *range(3, u.ndim))
    deviation = (finer - finer.mean(axes, keepdim=True)).square().mean(axes).sqrt()
    error = (u - finer).square().mean(axes).sqrt() / deviation
    assert bool((error > 1e-6).all()), "the finer grid is not another one"
    assert bool((error < problem.recipe.error).all()), error


@pytest.mark.parametrize("problem", COMPILED, ids=ids)
def test_a_sample_depends_on_seed_split_and_number_alone(problem):
    problem = coarse(problem)
    whole = problem.sample(5, seed=3)
    assert_same(whole, join([problem.sample(2, seed=3), problem.sample(3, first=2, seed=3)]))
    first = next(iter(whole.fields))
    others = [problem.sample(1, seed=4), problem.sample(1, split="test", seed=3), problem.sample(1, first=1, seed=3)]
    assert not any(torch.equal(other.fields[first][0], whole.fields[first][0]) for other in others)
    assert whole.seed == 3


@pytest.mark.parametrize("problem", COMPILED, ids=ids)
def test_inputs_do_not_depend_on_the_cells_and_sides_hold_their_data(problem):
    problem = coarse(problem)
    sets = [problem.sample(2, refinement=refinement) for refinement in (1, 2)]
    samples, finer = (operator_samples(data, problem.inputs) for data in sets)
    torch.testing.assert_close(samples.inputs, finer.inputs, rtol=0, atol=1e-13)  # the drawn functions are smooth sums
    assert samples.grid == problem.nodes
    assert samples.inputs.shape == (2, len(problem.inputs), *problem.nodes.shape)
    for axis, (pair, kinds) in enumerate(zip(samples.boundary, problem.conditions, strict=True)):
        for place, (data, kind) in enumerate(zip(pair, kinds, strict=True)):
            if kind == "Dirichlet":
                assert torch.equal(samples.outputs.select(3 + axis, -place), data)
            assert (data is None) == (kind == "Reflecting")


@pytest.mark.parametrize("layout", [PDEBench(precision=torch.float64), TheWell(precision=torch.float64)])
@pytest.mark.parametrize("problem", COMPILED, ids=ids)
def test_files_hold_samples(problem, layout, tmp_path):
    data = coarse(problem).sample(2)
    export(data, tmp_path / "a.h5", layout)
    read, made = load_samples(tmp_path / "a.h5"), operator_samples(data)
    for name in ("inputs", "outputs", "times"):
        assert torch.equal(getattr(read, name), getattr(made, name))
    for pair, other in zip(read.boundary, made.boundary, strict=True):
        assert all((a is None and b is None) or torch.equal(a, b) for a, b in zip(pair, other, strict=True))
    assert (read.kinds, read.input_names, read.output_names) == (made.kinds, made.input_names, made.output_names)


def test_walls_of_the_basin_keep_water_and_stop_momentum():
    problem = OPERATOR_PROBLEMS["basin"]
    fields = problem.sample(2, refinement=2).fields
    total = (fields["h"] * problem.nodes.weights).sum((2, 3))
    torch.testing.assert_close(total, total[:, :1].expand_as(total), rtol=1e-4, atol=0)  # O(h²) from cells to nodes
    for name, axis in (("hu", 2), ("hv", 3)):
        assert fields[name].abs().max() > 1e-3
        assert not fields[name].select(axis, 0).any()
        assert not fields[name].select(axis, -1).any()


def test_darcy_has_two_materials_and_data_that_agree_at_the_corners():
    problem = OPERATOR_PROBLEMS["darcy"]
    data = problem.sample(4)
    k = data.coefficients["conductivity"]
    assert set(k.unique().tolist()) == set(problem.conductivities)
    bottom, top = (data.extras[f"side_1_{end}"] for end in ("first", "last"))
    for gradient in (bottom, top):
        assert gradient.abs().max() > 0.1
        torch.testing.assert_close(gradient[:, [0, -1]], torch.zeros(4, 2, dtype=torch.float64), rtol=0, atol=1e-14)


def test_a_side_with_a_gradient_has_it_in_the_output():
    """One-sided differences of second order: u_y at the insulated or heated sides, to their truncation error."""
    problem = OPERATOR_PROBLEMS["darcy"]
    data = problem.sample(8)
    u, h = data.fields["u"][:, 0], problem.nodes.spacing[1]
    slope = (-1.5 * u[:, 1:-1, 0] + 2 * u[:, 1:-1, 1] - 0.5 * u[:, 1:-1, 2]) / h
    given = data.extras["side_1_first"][:, 1:-1]
    assert (slope - given).square().mean().sqrt() < 0.3 * given.square().mean().sqrt()


@pytest.mark.parametrize("sides", ["Dirichlet", "Neumann"])
def test_nodes_from_cells_are_second_order_inside_and_exact_on_dirichlet_sides(sides):
    def errors(n):
        faces = CellGrid(0.0, 1.0, n).faces[0]
        averages = (torch.sin(2 * faces).diff()) * n / 2  # cell averages of cos 2x
        exact = torch.cos(2 * NodeGrid(0.0, 1.0, 9).points)
        slopes = -2 * torch.sin(2 * torch.tensor([0.0, 1.0], dtype=torch.float64))
        pair = tuple(Neumann(gradient=float(slope)) for slope in slopes)
        if sides == "Dirichlet":
            pair = (Dirichlet(exact[0]), Dirichlet(exact[-1]))
        return (restrict(averages[None], (pair,), 8)[0] - exact).abs()

    coarser, finer = errors(32), errors(64)
    rate = torch.log2(coarser[1:-1].max() / finer[1:-1].max())
    assert 1.8 < rate < 2.2
    assert float(finer[[0, -1]].max()) < (1e-15 if sides == "Dirichlet" else 1e-5)


def test_nodes_on_a_longer_axis_and_on_a_circle():
    """Gradients are per length: the cells of cos x on [0, 2], and of sin 2πx on a circle."""
    faces = CellGrid(0.0, 2.0, 64).faces[0]
    averages = torch.sin(faces).diff() * 32
    slope = (torch.zeros(1).double(), torch.full((1,), -math.sin(2.0)).double())
    nodes = restrict(averages[None], [tuple(Neumann(gradient=each) for each in slope)], 8, lengths=[2.0])[0]
    torch.testing.assert_close(nodes, torch.cos(NodeGrid(0.0, 2.0, 9).points), rtol=0.0, atol=2e-4)
    faces = CellGrid(0.0, 1.0, 64).faces[0]
    averages = -torch.cos(2 * math.pi * faces).diff() * 64 / (2 * math.pi)
    nodes = restrict(averages[None], [(Periodic(), Periodic())], 8)[0]
    torch.testing.assert_close(nodes, torch.sin(2 * math.pi * NodeGrid(0.0, 1.0, 9).points), rtol=0.0, atol=2e-3)
    assert nodes[0] == nodes[-1]


def test_nodes_from_cells_refuse_what_they_do_not_know():
    ends = (Neumann(gradient=0.0), Neumann(gradient=0.0))
    for side in (Robin(1.0, 1.0, 0.0), Neumann(flux=0.0), Dirichlet(), Dirichlet(lambda t: t)):
        with pytest.raises(InvalidArgumentError, match=r"restrict takes Neumann\(gradient=…\) and Dirichlet"):
            restrict(torch.zeros(2, 8), [(side, ends[1])], 4)
    for wrong in ({"intervals": 3}, {"intervals": 4, "lengths": [1.0, 1.0]}):
        with pytest.raises(InvalidArgumentError, match="restrict needs one pair of conditions and one length per axis"):
            restrict(torch.zeros(2, 8), [ends], **wrong)


def test_wrong_use_is_refused():
    problem = OPERATOR_PROBLEMS["darcy"]
    for wrong in ({"count": 0}, {"count": 1, "first": -1}, {"count": 1, "seed": -1}, {"count": 1, "split": "all"}):
        with pytest.raises(InvalidArgumentError, match="sample needs count ≥ 1"):
            problem.sample(**wrong)
    with pytest.raises(InvalidArgumentError, match=r"inputs must be some of conductivity, got \('u',\)"):
        operator_samples(problem.sample(1, refinement=1), ["u"])
    with pytest.raises(InvalidArgumentError, match="times must be positive and increasing"):
        Recipe(intervals=4, refinement=1, times=(0.0, 1.0), error=1.0)
    with pytest.raises(InvalidArgumentError, match="refinement must be at least 1, got 0"):
        Recipe(intervals=4, refinement=0, error=1.0)


def moving(names=("u",), times=(0.0, 1.0), high=1.0, **more):
    """Two samples of fields on four cells, all zero."""
    steps = torch.tensor(times, dtype=torch.float64)
    fields = {name: torch.zeros(2, len(times), 4) for name in names}
    return FieldSet(grid=CellGrid(0.0, high, 4), times=steps, fields=fields, **more)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (moving(times=(0.1, 0.2)), r"times must begin at the start, 0, .* got 0.1; have the field at the start"),
        (moving(times=(0.5,)), "There is no input: the set has no coefficients and one time, 0.5; output the start"),
        (moving(vectors={"v": torch.zeros(2, 2, 4, 1)}), "scalar fields, got the vectors v; give their components"),
    ],
)
def test_sets_that_are_no_samples_of_an_operator_are_refused(data, message, tmp_path):
    export(data, tmp_path / "a.h5", TheWell())
    for read in (operator_samples, lambda _: load_samples(tmp_path / "a.h5")):
        with pytest.raises(InvalidArgumentError, match=message):
            read(data)


def test_a_set_at_one_time_has_its_coefficients_as_inputs():
    samples = operator_samples(moving(times=(0.5,), coefficients={"start": torch.ones(2, 4)}))
    assert samples.input_names == ("start",)
    assert samples.outputs.shape == (2, 1, 1, 4)


@pytest.mark.parametrize(
    ("other", "what"),
    [
        (moving(high=2.0), "grid"),
        (moving(times=(0.0, 3.0)), "times"),
        (moving(("u", "w")), "names"),
        (moving(("w",)), "names"),
        (moving(boundary=(("Periodic", "Periodic"),)), "kinds of sides"),
        (moving(("w",), high=2.0), "grid, names"),
    ],
)
def test_sets_of_different_problems_are_not_joined(other, what):
    assert join([moving(), moving()]).samples == 4
    with pytest.raises(InvalidArgumentError, match=f"set 2 and set 0 differ in {what};"):
        join([moving(), moving(), other])
    with pytest.raises(InvalidArgumentError, match="at least one set of samples"):
        join([])


def test_the_random_numbers_of_a_sample_are_its_own():
    """2,000 samples of all splits differ: streams of 128 bits, not of 32."""
    problem = OPERATOR_PROBLEMS["basin"]
    drawn = [
        problem.draw(np.random.default_rng((0, split, number)))["height"].tolist()
        for split in range(3)
        for number in range(700)
    ]
    assert len({json.dumps(numbers) for numbers in drawn}) == len(drawn)


def lsoda(rate, initial, times):
    """An independent solution by LSODA; one node couples with its neighbours."""
    options = {"method": "LSODA", "lband": 1, "uband": 1, "rtol": 1e-7, "atol": 1e-9}
    return solve_ivp(lambda _, u: rate(u), (0.0, times[-1]), initial, t_eval=times, **options).y.T


def assert_close_in_mean(samples, reference, tolerance):
    """Relative L2 over all nodes and times, of one sample."""
    u, reference = samples.outputs[0, :, 0].numpy(), np.asarray(reference)
    assert u.shape == reference.shape
    assert np.linalg.norm(u - reference) < tolerance * np.linalg.norm(reference - reference.mean())


def test_burgers_agrees_with_central_differences_and_lsoda():
    """ν = 0.02, so that 1,025 nodes resolve all layers; the initial jumps at the ends cost an order early on."""
    problem = replace(OPERATOR_PROBLEMS["viscous_burgers"], viscosity=0.02)
    draws = {name: values[None] for name, values in problem.draw(np.random.default_rng(5)).items()}
    samples = operator_samples(problem.evaluate(draws, 4))
    nodes = NodeGrid(0.0, 1.0, 1025)
    h, initial = nodes.spacing[0], field_values(standard._WAVES, draws["initial"], nodes)[0].numpy()
    initial[[0, -1]] = float(draws["left"]), float(draws["right"])

    def rate(u):
        flux = np.diff(0.25 * (u[1:] ** 2 + u[:-1] ** 2) - 0.02 * np.diff(u) / h) / h
        return np.concatenate([[0.0], -flux, [0.0]])

    assert_close_in_mean(samples, lsoda(rate, initial, problem.recipe.times)[:, ::4], 3e-3)


def test_reaction_and_diffusion_agree_with_central_differences_and_lsoda():
    problem = OPERATOR_PROBLEMS["reaction_diffusion"]
    draws = {name: values[None] for name, values in problem.draw(np.random.default_rng(6)).items()}
    samples = operator_samples(problem.evaluate(draws))
    nodes, middles = NodeGrid(0.0, 1.0, 513), CellGrid(0.0, 1.0, 512)
    h = nodes.spacing[0]
    initial = standard._population(draws, nodes)[0].numpy()
    initial[0] = float(draws["left"])
    k = problem._conductivity(draws, middles)[0].numpy()
    inflow = float(problem._conductivity(draws, nodes)[0, -1]) * float(draws["right"])

    def rate(u):
        flux = -k * np.diff(u) / h
        change = np.concatenate([[0.0], -np.diff(flux) / h, [(flux[-1] + inflow) / (h / 2)]])
        change[1:] += problem.rate * u[1:] * (1 - u[1:])
        return change

    assert_close_in_mean(samples, lsoda(rate, initial, problem.recipe.times)[:, ::4], 3e-3)


def test_advection_and_diffusion_agree_with_central_differences_of_the_velocities_in_the_file():
    problem = OPERATOR_PROBLEMS["advection_diffusion"]
    samples = operator_samples(problem.sample(1), problem.inputs)
    fine = replace(problem, recipe=replace(problem.recipe, intervals=64, refinement=1, times=(1e-6,)))
    velocity_x, velocity_y, initial = operator_samples(fine.sample(1), problem.inputs).inputs[0].numpy()
    left, right = (side[0, 0, 0].numpy() for side in operator_samples(fine.sample(1)).boundary[0])
    initial[0], initial[-1] = left, right
    h = 1 / 64

    def rate(_, flat):
        u = np.pad(flat.reshape(65, 65), ((0, 0), (1, 1)), mode="reflect")
        along_x = (u[2:, 1:-1] - u[:-2, 1:-1]) / (2 * h) * velocity_x[1:-1]
        along_y = (u[1:-1, 2:] - u[1:-1, :-2]) / (2 * h) * velocity_y[1:-1]
        laplacian = (u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4 * u[1:-1, 1:-1]) / h**2
        change = np.zeros((65, 65))
        change[1:-1] = problem.diffusivity * laplacian - along_x - along_y
        return change.ravel()

    times = problem.recipe.times
    reference = solve_ivp(rate, (0.0, times[-1]), initial.ravel(), t_eval=times, rtol=1e-5, atol=1e-6).y
    assert_close_in_mean(samples, reference.T.reshape(-1, 65, 65)[:, ::2, ::2], 0.03)


def largest(field, coefficients):
    """The largest size of a field on a line."""
    return float(field_values(field, coefficients[None], NodeGrid(0.0, 1.0, 257)).abs().max())


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        ("viscous_burgers", {"left": 1.0, "right": 1.0}),
        ("reaction_diffusion", {"left": 1.0, "right": 2.0}),
        ("darcy", standard.SIDES),
        ("advection_diffusion", {"left": standard.WALL, "right": standard.WALL}),
    ],
)
def test_data_beyond_the_range_of_training_are_larger_and_the_other_inputs_stay(name, sides):
    """Numbers in units of the largest, fields of three deviations."""
    usual, far = OPERATOR_PROBLEMS[name], replace(OPERATOR_PROBLEMS[name], beyond=(1.5, 2.0))
    for number in range(10):
        before, after = (problem.draw(np.random.default_rng(number)) for problem in (usual, far))
        for side, scale in sides.items():
            if isinstance(scale, float):
                size, within = float(after[side].abs()) / scale, float(before[side].abs()) / scale
                assert within <= 1
            else:
                size = largest(scale, after[side]) / (3 * float(scale.variances.sum().sqrt()))
            assert 1.5 <= size <= 2.0 + 1e-12
            assert bool((before[side] * after[side] >= 0).all()), "the signs stay"
        assert all(torch.equal(before[key], after[key]) for key in before if key not in sides)
    with pytest.raises(InvalidArgumentError, match=r"beyond must be an interval .* got \(0.5, 1.0\)"):
        replace(usual, beyond=(0.5, 1.0))
