"""A campaign: random set-ups with events in time, reactions, and inputs of every kind, against independent references.

A seed draws one set-up. The reference is the method of lines in NumPy, integrated by SciPy from event to event, or the
Cole–Hopf transform; it shares no line with the library. Errors are relative to the spread of the reference.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

import solvers
from tests.solvers.campaign.lines import PERIODIC, Array, Lines, Pair, Wall, integrate
from tests.solvers.campaign.test_campaign import Outcome, require

SPAN = 1.0


def compared(solution: Any, expected: Array, accepted: float, label: str) -> Outcome:
    """The outcome of a solution, one row, against states at its times; the spread is that over all of them."""
    found = solution.values.reshape(expected.shape).numpy()
    spread = max(float(np.ptp(expected)), 1e-9)
    size = max(float(solution.values.abs().max()), float(solution.boundary_flux.abs().max()), 1e-9)
    error = float(np.abs(found - expected).max()) / spread
    return Outcome(error, accepted, float(solution.imbalance.abs().max()) / size, label)


def steps_in_time(random: np.random.Generator, count: int, size: float) -> tuple[Array, Array]:
    """Times of jumps and the values from each on, the first from the start."""
    jumps = np.sort(random.uniform(0.05, 0.95, count)) * SPAN
    return jumps, size * random.random(count + 1)


def stepwise(jumps: Array, values: Array) -> Callable[[Any], Any]:
    """A function of a time or of many, as NumPy and the library call it."""

    def function(time: Any) -> Any:
        if isinstance(time, torch.Tensor):
            return torch.from_numpy(values)[torch.bucketize(time, torch.from_numpy(jumps), right=True)]
        return values[np.searchsorted(jumps, time, side="right")]

    return function


def line_or_square(random: np.random.Generator, longest: int, wide: int) -> tuple[int, ...]:
    """Numbers of cells of one axis, or of two."""
    d = int(random.integers(2))
    return tuple(int(n) for n in random.integers(4, (longest, wide)[d], d + 1))


def closed() -> tuple[Wall, Wall]:
    wall = Wall(solvers.Neumann(flux=0.0), lambda _time: 0.0, 0.0)
    return wall, wall


def nonlinear(random: np.random.Generator) -> tuple[Any, Callable[[Array], Array]]:
    """A law and its potential."""
    kind = random.integers(3)
    if kind == 0:
        k = float(10 ** random.uniform(-2, 1))
        return solvers.Diffusion(k), lambda u: k * u
    if kind == 1:
        m = float(random.integers(1, 4))
        return solvers.PorousMedium(m), lambda u: np.maximum(u, 0) ** (m + 1) / (m + 1)
    return solvers.Stefan(0.3, 0.5), lambda u: 0.5 * np.maximum(u - 0.3, 0)


def switched_source(random: np.random.Generator) -> Outcome:
    """A source that sets in while the field is at rest, and ends."""
    law, potential = nonlinear(random)
    n, level = int(random.integers(5, 50)), float(random.choice([0.0, 0.0, 0.5]))
    begin = random.uniform(0.05, 0.7)
    end = begin + 10 ** random.uniform(-1.7, -0.5)
    cold = Wall(solvers.Dirichlet(level), lambda _time: level)
    pair = closed() if random.random() < 0.5 else (cold, cold)
    strength, centre = 10 ** random.uniform(-1, 1), random.random()

    def heat(time: Any, x: Any, exp: Any) -> Any:
        return strength * exp(-(((x - centre) / 0.2) ** 2)) * ((time >= begin) & (time < end))

    lines = Lines((n,), (pair,), potential=potential)
    x = lines.points()[0]
    lines = Lines((n,), (pair,), potential=potential, source=lambda time, _u: heat(time, x, np.exp))
    given = {"breakpoints": (begin, end)} if random.random() < 0.5 else {}
    stepper = random.choice([None, solvers.TRBDF2(), solvers.RKL2()])
    times = [0.5 * (begin + end), min(end + 0.05, SPAN), SPAN]
    times = sorted(set(times))
    solution = solvers.solve(
        law, lines.grid, lines.boundary, level, times, source=lambda u, x, t: 0 * u + heat(t, x, torch.exp),
        stepper=stepper, **given,
    )  # fmt: skip
    expected = integrate(lines.rates, np.full(n, level), times, (begin, end), lband=1, uband=1)
    return compared(solution, expected, 5e-3, f"{law} n={n} {pair[0].condition} [{begin}, {end}] {given} {stepper}")


def jumping_walls(random: np.random.Generator) -> Outcome:
    """Values, fluxes and Robin data that jump several times, on a line or a square."""
    law, potential = nonlinear(random)
    shape = line_or_square(random, 40, 10)
    breaks: list[float] = []

    def wall(last: int) -> Wall:
        jumps, values = steps_in_time(random, int(random.integers(1, 4)), 1.0)
        breaks.extend(jumps)
        data = stepwise(jumps, values)
        kind = random.integers(3)
        if kind == 0:
            return Wall(solvers.Dirichlet(data), data)
        if kind == 1:
            data = stepwise(jumps, 0.3 * (1 - 2 * last) * values)
            return Wall(solvers.Neumann(flux=data), data, 0.0)
        b = (2 * last - 1) * random.uniform(0.1, 2.0)
        return Wall(solvers.Robin(1.0, b, data), data, 1.0, b)

    pairs = tuple((wall(0), wall(1)) for _ in shape)
    lines = Lines(shape, pairs, potential=potential)
    initial = random.random(shape)
    given = {"breakpoints": breaks} if random.random() < 0.5 else {}
    times = [0.4, SPAN]
    solution = solvers.solve(law, lines.grid, lines.boundary, torch.tensor(initial), times, **given)
    expected = integrate(lines.rates, initial, times, breaks)
    return compared(solution, expected, 5e-3, f"{law} {shape} {lines.boundary} {given.keys()}")


def varying_medium(random: np.random.Generator) -> Outcome:
    """k(x, t) in one to three axes that may jump in time, with Robin data in time."""
    d = int(random.integers(1, 4))
    shape = tuple(int(n) for n in random.integers(3, {1: 40, 2: 10, 3: 6}[d], d))
    size, waves, rate = 10 ** random.uniform(-2, 0.5), random.uniform(-3, 3, d), random.uniform(1, 15)
    jump, ratio = random.uniform(0.1, 0.9), float(random.choice([1.0, 1.0, 5.0]))

    def medium(where: Sequence[Any], time: Any, sin: Any) -> Any:
        phase = sum(wave * x for wave, x in zip(waves, where, strict=True))
        return size * (1.2 + sin(phase + rate * time)) * (1.0 + (ratio - 1.0) * (time >= jump))

    def given(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return medium([x] if d == 1 else list(x.unbind(-1)), time, torch.sin)

    def wall(last: int) -> Wall:
        b, frequency = (2 * last - 1) * random.uniform(0.1, 2.0), random.uniform(1, 20)
        data = lambda time: 0.5 + 0.5 * np.sin(frequency * np.asarray(time))  # noqa: E731
        return Wall(solvers.Robin(1.0, b, data), data, 1.0, b)

    pairs = tuple(None if random.random() < 0.2 else (wall(0), wall(1)) for _ in shape)
    if any(pair is None for pair in pairs):
        waves = np.where([pair is None for pair in pairs], 0.0, waves)
    lines = Lines(shape, pairs, conductivity=lambda *x: medium(x[:-1], x[-1], np.sin))
    initial = random.random(shape)
    stepper = random.choice([None, solvers.TRBDF2(), solvers.RKL2()])
    solution = solvers.solve(
        solvers.Diffusion(given), lines.grid, lines.boundary, torch.tensor(initial), [0.3, SPAN], stepper=stepper
    )
    expected = integrate(lines.rates, initial, [0.3, SPAN], [jump])
    return compared(solution, expected, 5e-3, f"{shape} size {size:.3g} ratio {ratio} {stepper} {lines.boundary}")


def schnakenberg(u: Any, a: float, b: float) -> Any:
    made = u[0] * u[0] * u[1]
    return a - u[0] + made, b - made


def predators(u: Any, a: float, b: float) -> Any:
    return u[0] * (a - u[1]), u[1] * (u[0] - b)


def chain(u: Any, a: float, b: float) -> Any:
    return -a * u[0], a * u[0] - b * u[1], b * u[1]


def oregonator(u: Any, a: float, b: float) -> Any:
    return (u[0] * (1 - u[0]) - b * u[2] * (u[0] - 0.01) / (u[0] + 0.01)) / a, u[0] - u[1], u[0] - u[2]


KINETICS = {
    schnakenberg: (2, lambda random: (0.1, float(random.uniform(0.5, 1.2))), 8.0),
    predators: (2, lambda random: tuple(random.uniform(0.5, 2.0, 2).tolist()), 6.0),
    chain: (3, lambda random: tuple((10 ** random.uniform(0, 4, 2)).tolist()), 1.0),
    oregonator: (3, lambda random: (float(10 ** random.uniform(-2, -1)), 0.8), 4.0),
}


def reacting(random: np.random.Generator) -> Outcome:
    """Two or three unknowns that react, stiff ones too, and diffuse on a line or square between walls of every kind."""
    kinetics = list(KINETICS)[int(random.integers(len(KINETICS)))]
    c, draw, span = KINETICS[kinetics]
    parameters = draw(random)
    shape = line_or_square(random, 30, 8)
    sizes = tuple(float(each) for each in np.where(random.random(c) < 0.2, 0.0, 10 ** random.uniform(-4, -1, c)))
    if not any(sizes):
        sizes = (0.01, *sizes[1:])
    level, swing = random.random((c, 1)), random.uniform(0, 0.3)
    kinds = [int(random.integers(3)) for _ in shape]

    def pair(kind: int, unknown: int) -> Pair:
        face = (1,) * (len(shape) - 1)
        if kind == 0:
            return None
        if kind == 1:
            return closed()
        data = lambda time: level[unknown, 0] * (1 + swing * np.sin(3 * time))  # noqa: E731

        def every(time: Any) -> torch.Tensor:
            return torch.from_numpy(level * (1 + swing * np.sin(3 * float(time)))).reshape(c, *face)

        return (Wall(solvers.Dirichlet(every), data),) * 2

    each = [
        Lines(shape, tuple(pair(kind, k) for kind in kinds), conductivity=constant(sizes[k] or 1e-99)) for k in range(c)
    ]

    def rates(time: float, flat: Array) -> Array:
        u = flat.reshape(c, -1)
        made = np.stack(np.broadcast_arrays(*kinetics(tuple(u), *parameters)))
        return (made + np.stack([lines.rates(time, v) for lines, v in zip(each, u, strict=True)])).ravel()

    initial = 0.2 + random.random((c, *shape))
    law = solvers.ReactionDiffusion(reaction=kinetics, diffusivities=sizes, parameters=parameters)
    times = [0.3 * span, span]
    solution = solvers.solve_system(law, each[0].grid, each[0].boundary, torch.tensor(initial), times)
    expected = integrate(rates, initial, times).reshape(2, c, -1)
    spread = np.maximum(np.ptp(expected, axis=(0, 2)), np.ptp(initial.reshape(c, -1), axis=1))[:, None]
    error = np.abs(solution.values.reshape(expected.shape).numpy() - expected) / spread
    imbalance = float(solution.imbalance.abs().max() / solution.values.abs().max())
    return Outcome(float(error.max()), 1e-2, imbalance, f"{kinetics.__name__} {parameters} {shape} {sizes} {kinds}")


def constant(size: float) -> Callable[..., Array]:
    return lambda *x: size + 0 * x[0]


def viscous_shocks(random: np.random.Generator) -> Outcome:
    """Viscous Burgers on a circle against the Cole–Hopf transform, exact cell averages.

    u = c + v(x − c t, t), v = −2 ν φ_x/φ, φ_t = ν φ_xx by Fourier series. The error is that of 200 cells, too: at most
    about 1 % where a layer has the width of five cells.
    """
    viscosity, mean = 10 ** random.uniform(-1.2, 0), random.uniform(-1, 1)
    waves = [(k, *random.normal(0, 0.6 / k, 2)) for k in range(1, 4)]
    cells, fine, length, time = 200, 6400, 2 * np.pi, random.uniform(0.3, 3.0)
    x = length * np.arange(fine) / fine
    series = np.fft.rfft(np.exp(-potential_of(waves, x) / (2 * viscosity))) / fine
    numbers = np.arange(len(series))
    decay = np.exp(-viscosity * numbers**2 * time)

    def averages(turned: Array, shift: float) -> Array:
        faces = length * np.arange(cells + 1) / cells - shift
        phi = (turned * np.where(numbers, 2, 1) * np.exp(1j * numbers * faces[:, None])).real.sum(-1)
        return mean - 2 * viscosity * np.diff(np.log(phi)) / (length / cells)

    initial = averages(series, 0.0)
    law = solvers.ConvectionDiffusion(solvers.Burgers(), solvers.Diffusion(viscosity))
    grid = solvers.CellGrid(0.0, length, cells)
    stepper = random.choice([None, solvers.TRBDF2(), solvers.SSPRK3()])
    solution = solvers.solve(law, grid, PERIODIC, torch.tensor(initial), [time], stepper=stepper)
    expected = averages(series * decay, mean * time)[None]
    return compared(solution, expected, 1e-2, f"ν={viscosity:.3g} c={mean:.3g} t={time:.3g} {stepper}")


def potential_of(waves: Any, x: Array) -> Array:
    """∫ v dx of v = Σ a cos kx + b sin kx."""
    return sum((a * np.sin(k * x) - b * np.cos(k * x)) / k for k, a, b in waves)


def rows_of_different_stiffness(random: np.random.Generator) -> Outcome:
    """A batch whose conductivities differ by up to eight decades, each row beside walls of its own."""
    n, rows = int(random.integers(5, 40)), 5
    k = 10 ** random.uniform(-4, 4, rows)
    values, a = random.random(rows), random.uniform(0.2, 2.0, rows)
    b, initial = -random.uniform(0.1, 1.0, rows), random.random((rows, n))
    frequency = random.uniform(1, 20)
    data = lambda time, rows=slice(None): values[rows] * np.cos(frequency * np.asarray(time))  # noqa: E731

    def given(time: Any) -> torch.Tensor:
        return torch.from_numpy(data(float(time)))

    boundary = (solvers.Robin(torch.tensor(a), torch.tensor(b), given), solvers.Dirichlet(torch.tensor(values)))
    grid = solvers.CellGrid(0.0, 1.0, n)
    solution = solvers.solve(solvers.Diffusion(torch.tensor(k)), grid, boundary, torch.tensor(initial), [0.2, SPAN])
    expected = []
    for row in range(rows):
        first = Wall(None, lambda time, row=row: data(time, row), a[row], b[row])
        last = Wall(None, lambda _time, row=row: values[row])
        lines = Lines((n,), ((first, last),), conductivity=constant(k[row]))
        expected.append(integrate(lines.rates, initial[row], [0.2, SPAN], method="Radau"))
    row = int(random.integers(rows))
    one = (solvers.Robin(a[row], b[row], lambda time: data(float(time), row)), solvers.Dirichlet(values[row]))
    alone = solvers.solve(solvers.Diffusion(k[row]), grid, one, torch.tensor(initial[row]), [0.2, SPAN])
    assert torch.equal(alone.values, solution.values[row])
    spread = np.maximum(np.ptp(expected, axis=(1, 2)), np.ptp(initial, axis=1))[:, None, None]
    error = (np.abs(solution.values.numpy() - expected) / spread).max()
    imbalance = float(solution.imbalance.abs().max() / max(1.0, float(solution.boundary_flux.abs().max())))
    return Outcome(float(error), 5e-3, imbalance, f"k={k} n={n}")


def estimated(random: np.random.Generator) -> Outcome:
    """``error_estimate`` beside the true error on the same cells: the one is at least 40 % of the other.

    From a tenth of the tolerance a method of order p differs by 1 − 10^(−p/(p + 1)) of its error, 78 % for p = 2.
    """
    law, potential = nonlinear(random)
    n, kind = int(random.integers(20, 60)), int(random.integers(3))
    rate, front = 10 ** random.uniform(0, 2), random.uniform(0.1, 0.4)
    frequency = random.uniform(2, 30)
    swing = lambda time: 0.5 + 0.5 * np.sin(frequency * np.asarray(time))  # noqa: E731
    given = None if kind == 0 else lambda u, *_: rate * u * (1 - u) * (u - 0.3 * (kind == 1))
    source = (lambda _time, _u: 0.0) if given is None else lambda _time, u: given(u)
    first = Wall(solvers.Dirichlet(swing), swing) if random.random() < 0.5 else closed()[0]
    lines = Lines((n,), ((first, closed()[1]),), potential=potential, source=source)
    initial = 1.0 * (lines.points()[0] < front)
    tolerance = float(10 ** random.uniform(-6, -3))
    steppers = [solvers.TRBDF2(tolerance), solvers.ESDIRK4(tolerance), solvers.RKL2(tolerance)]
    stepper = steppers[int(random.integers(3))]
    solution = solvers.solve(
        law, lines.grid, lines.boundary, torch.tensor(initial), [0.3], source=given, stepper=stepper,
        estimate_error=True,
    )  # fmt: skip
    expected = integrate(lines.rates, initial, [0.3], rtol=1e-11, atol=1e-13)
    error = float(np.abs(solution.values[0].numpy() - expected[0]).max())
    assert solution.error_estimate is not None
    estimate = float(solution.error_estimate)
    label = f"{law} n={n} rate {rate * (kind > 0):.3g} {first.condition} {stepper} error {error:.2g}"
    return Outcome(error / (estimate + 1e-9), 2.5, float(solution.imbalance.abs().max()), label)


def inputs(random: np.random.Generator) -> Outcome:
    """Single precision, whole numbers, lists and arrays of NumPy give the bits of the same numbers in float64."""
    n = int(random.integers(4, 20))
    grid, whole = solvers.CellGrid(0, 1, n), random.integers(0, 4, (2, n))
    kind = random.choice(["int64", "int32", "float32", "float16", "list", "numpy"])
    level, k, times = int(random.integers(1, 4)), int(random.integers(1, 3)), [1, 2]
    convert = {
        "list": lambda values: values.tolist(),
        "numpy": lambda values: values.astype(np.float32),
    }.get(str(kind), lambda values: torch.tensor(values).to(getattr(torch, str(kind))))
    law = solvers.PorousMedium if random.random() < 0.5 else solvers.Diffusion
    expected = solvers.solve(
        law(float(k)), grid, (solvers.Dirichlet(float(level)), solvers.Robin(2.0, 3.0, 1.0)),
        torch.tensor(whole).double(), [1.0, 2.0],
    )  # fmt: skip
    value = convert(np.array([level, level]))
    solution = solvers.solve(
        law(convert(np.array([k, k]))), grid, (solvers.Dirichlet(value), solvers.Robin(2, 3, 1)), convert(whole),
        random.choice([np.array(times), np.array(times, dtype=np.float32)]),
    )  # fmt: skip
    assert solution.values.dtype == torch.float64
    return Outcome(float(not torch.equal(solution.values, expected.values)), 0.0, 0.0, f"{kind} {law} {n}")


FAMILIES: dict[str, tuple[int, Callable[[np.random.Generator], Outcome]]] = {
    "switched sources": (25, switched_source),
    "walls that jump": (25, jumping_walls),
    "varying media": (25, varying_medium),
    "reactions": (30, reacting),
    "viscous shocks": (15, viscous_shocks),
    "rows of different stiffness": (15, rows_of_different_stiffness),
    "estimates of the error": (20, estimated),
    "inputs": (15, inputs),
}
"""How many of 170 set-ups are of a family, and how one is drawn and solved."""
CASES = [(family, seed) for family, (count, _) in FAMILIES.items() for seed in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "seed"), CASES)
def test_a_random_set_up_agrees_with_its_reference_and_balances(family: str, seed: int) -> None:
    require(FAMILIES, family, seed)
