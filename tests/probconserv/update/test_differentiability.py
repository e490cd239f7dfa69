"""What the update gives, and its derivatives, for every prior, law, output and precision: as dense float64 rows do.

A cell of the matrix compares an output and its gradients to mean, scale, total and noise with formulas of dense
matrices in float64, written here for themselves. It agrees within its precision, or raises what ``RAISING`` lists.
Default tests cover all triples of values, slow ones all cells.
"""

import itertools
import random
from collections import namedtuple
from dataclasses import replace

import pytest
import torch
from gpytorch.distributions import MultivariateNormal
from linear_operator import operators as lazy
from torch.distributions import MultivariateNormal as Density
from torch.distributions import Normal

from probconserv import LinearConstraint, Mixture, NonNegative, condition, from_samples
from probconserv._linalg.rows import BlockRows, as_sparse_rows
from probconserv.errors import InvalidArgumentError
from probconserv.law_evidence import evidence
from tests.probconserv.update.structured_rows import take_large_paths

double = torch.float64
N, DRAWS = 12, 5
Cell = namedtuple("Cell", "prior rows noisy bounds output dtype certain")
COVARIANCES, DENSITIES = ("covariance", "slice", "product"), ("log_prob", "evidence")
VALUES = Cell(
    prior=("normal", "dense", "kronecker", "low rank", "samples", "mixture"),
    rows=("one", "several", "blocks", "sparse", "overlapping"),
    noisy=(False, True),
    bounds=(False, True),
    output=("mean", "variance", "deviation", *COVARIANCES, "draws", *DENSITIES),
    dtype=(torch.float64, torch.float32, torch.bfloat16),
    certain=(False, True),
)


def overlaps(cell):
    """Whether rows that overlap stay sparse."""
    return cell.rows == "overlapping" and cell.prior in ("normal", "low rank", "mixture")


RAISING = (  # reason, what the error says, and the cells; the first that fits
    (
        "inequalities do not enter the evidence, which belongs to the linear rows alone",
        "evidence takes a LinearConstraint",
        lambda cell: cell.bounds and cell.output == "evidence",
    ),
    (
        "log det S of a sparse factor is not differentiated; it is the density, and weighs the components of a mixture",
        "The log-density under sparse rows that overlap has no derivatives",
        lambda cell: overlaps(cell) and (cell.prior == "mixture" or (not cell.bounds and cell.output in DENSITIES)),
    ),
    (
        "values lie on the bounds with positive probability, so there is neither a density nor a Gaussian's covariance",
        "no attribute|not subscriptable|no density that is computed",
        lambda cell: cell.bounds and cell.output in (*COVARIANCES, "log_prob"),
    ),
    (
        "eight members leave most of twelve points without a density",
        "The covariance is singular",
        lambda cell: cell.prior == "samples" and cell.output == "log_prob",
    ),
    (
        "of the inverse of a sparse factor only some entries are known, too few for the derivatives of a variance",
        "The variance under sparse rows that overlap has no derivatives",
        lambda cell: overlaps(cell) and not cell.bounds and cell.output in ("variance", "deviation", *COVARIANCES),
    ),
)
EVERY = [Cell(*values) for values in itertools.product(*VALUES)]


def covering(cells, seed=0):
    """Cells in which every triple of values occurs that occurs in all cells: the best of twenty again and again."""
    generator, left, chosen = random.Random(seed), set(), []
    columns = list(itertools.combinations(range(len(Cell._fields)), 3))

    def triples(cell):
        return {(at, tuple(cell[i] for i in at)) for at in columns}

    left.update(*map(triples, cells))
    while left:
        best = max(generator.sample(cells, 20), key=lambda cell: len(triples(cell) & left))
        chosen += [best] if triples(best) & left else []
        left -= triples(best)
    return chosen


def normals(*shape, seed=0):
    return torch.randn(shape, dtype=double, generator=torch.Generator().manual_seed(seed))


def uniform(*shape, seed=0):
    return torch.rand(shape, dtype=double, generator=torch.Generator().manual_seed(seed)) + 0.2


MOVES = torch.tensor([0.0, 1.0, 1.0, 1.0] * 3, dtype=double)
KERNEL = torch.exp(-(torch.arange(N)[:, None] - torch.arange(N)).abs().to(double) / 3)


def rows_of(kind, factor):
    """Rows as given to a law, and the same as a matrix, times a factor."""
    if kind in ("one", "several"):
        matrix = uniform(1 if kind == "one" else 3, N, seed=1) * factor
        return matrix, matrix
    weights = uniform(N, seed=2)
    matrix = torch.repeat_interleave(torch.eye(3, dtype=double), 4, dim=1) * weights
    if kind == "blocks":
        return BlockRows(counts=(3,), sizes=(4,), entries=weights * factor), matrix * factor
    if kind == "overlapping":
        matrix = torch.cat([matrix, matrix[:1].roll(2, dims=1)])
    rows = as_sparse_rows(matrix)
    return replace(rows, entries=rows.entries * factor), matrix * factor


VECTORS = normals(N, 3, seed=10)


def root_of_variance(variance):
    """Its square root, without a derivative at 0."""
    return torch.where(variance > 0, variance, 1.0).sqrt() * (variance > 0)


def root_of(matrix):
    certain = matrix.diagonal() == 0
    return torch.linalg.cholesky(matrix + torch.diag(certain.to(double))) * ~certain[:, None]


def prior_of(kind, mean, scale, moves):
    """The prior, and its mean and a root of its covariance as matrices in float64."""
    dtype, exact = mean.dtype, scale.double() * moves
    if kind in ("normal", "mixture"):
        deviation = scale * moves.to(dtype)
        prior = Normal(mean, deviation, validate_args=False)
        return Mixture(prior) if kind == "mixture" else prior, mean.double(), torch.diag_embed(deviation.double())
    if kind == "dense":
        covariance = (exact[:, None] * KERNEL * exact).to(dtype)
        return (
            MultivariateNormal(mean, lazy.DenseLinearOperator(covariance)),
            mean.double(),
            root_of(covariance.double()),
        )
    if kind == "kronecker":
        parts = exact[1:4], exact[4:8]
        factors = [(part[:, None] * KERNEL[: len(part), : len(part)] * part).to(dtype) for part in parts]
        operator = lazy.KroneckerProductLinearOperator(*(lazy.DenseLinearOperator(factor) for factor in factors))
        return MultivariateNormal(mean, operator), mean.double(), torch.kron(*(root_of(f.double()) for f in factors))
    if kind == "low rank":
        root, variance = (exact[:, None] * normals(N, 2, seed=3)).to(dtype), exact.square().to(dtype)
        parts = lazy.RootLinearOperator(root), lazy.DiagLinearOperator(variance)
        root = torch.cat([root, torch.diag(root_of_variance(variance.double()))], dim=1)
        return MultivariateNormal(mean, lazy.PsdSumLinearOperator(*parts)), mean.double(), root
    members = (mean.double() + exact * normals(8, N, seed=4)).to(dtype)
    centre = members.double().mean(dim=0)
    return from_samples(members, shrinkage=0.0), centre, (members.double() - centre).mT / 7**0.5


class Dense:
    """N(μ, R Rᵀ) given G u = b + ε and u ≥ 0, by matrices in float64; batch axes first."""

    def __init__(self, mean, root, law, bounds, dtype):
        self.mean, self.root, (self.G, self.b, self.noise), self.bounds = mean, root, law, bounds
        self.dtype, self.noisy, self.components = dtype, bool(self.noise.any()), mean.ndim > 1
        self.covariance = root @ root.mT
        self.cross = self.G @ self.covariance
        self.innovation = self.cross @ self.G.mT + torch.diag(self.noise)
        self.gain = torch.linalg.solve(self.innovation, self.cross).mT

    def correct(self, u, target):
        return u - ((u @ self.G.mT - target)[..., None, :] @ self.gain.mT)[..., 0, :]

    def log_evidence(self):
        return Density(self.mean @ self.G.mT, self.innovation).log_prob(self.b)

    def draws(self, count):
        """From the numbers that the library draws; with bounds it draws, and rounds, fields of the prior first."""
        generator, batch, k = torch.Generator().manual_seed(0), self.mean.shape[:-1], len(self.b)
        r, noise = self.root.shape[-1], root_of_variance(self.noise)

        def drawn(*shape):
            return torch.randn(*shape, dtype=double, generator=generator)

        if not self.bounds:
            z = drawn(count, *batch, r + k * self.noisy)
            fields = self.mean + (self.root @ z[..., :r, None])[..., 0]
            return self.correct(fields, self.b - z[..., -k:] * noise)
        fields = self.mean + (self.root @ drawn(*batch, count, r).movedim(-2, 0)[..., None])[..., 0]
        missed = drawn(count, *batch, k) * noise if self.noisy else noise
        return self.nearest(self.correct(fields.to(self.dtype).double(), self.b - missed))

    def nearest(self, y):
        """The least Σ (u − y)²/v + |G (u − y)|²/σ² with exact rows and u ≥ 0, by its active set."""
        metric = torch.diag_embed(self.covariance.diagonal(dim1=-2, dim2=-1))
        cross = self.G @ metric
        exact = self.G
        if self.noisy:
            metric = metric - cross.mT @ torch.linalg.solve(cross @ self.G.mT + torch.diag(self.noise), cross)
            exact = self.G[:0]
        k, held = len(exact), torch.zeros_like(y, dtype=torch.bool)
        statements = torch.cat([exact, torch.eye(N, dtype=double)])
        for attempt in range(200):
            on = torch.cat([held.new_ones(*held.shape[:-1], k), held], dim=-1)
            E = statements * on[..., None]
            S = E @ metric @ E.mT + torch.diag_embed(torch.where(on, 1e-14, 1.0))
            missed = (E @ y[..., None])[..., 0] - torch.cat([(exact @ y[..., None])[..., 0], torch.zeros_like(y)], -1)
            force = torch.linalg.solve(S, missed)
            u = y - (metric @ E.mT @ force[..., None])[..., 0]
            new = torch.where(held, force[..., k:] < 0, u < -1e-12)
            if torch.equal(new, held):
                return torch.where(held, 0.0, u)
            changed = new != held  # of each field all, or the first alone, which ends cycles (Murty 1974)
            held = held ^ (changed & ((changed.cumsum(dim=-1) == 1) | (attempt < 20)))
        raise AssertionError("the active set did not settle")

    def moments(self):
        if self.bounds:
            draws = self.draws(DRAWS)
            variance = draws.var(dim=0)
            return draws.mean(dim=0), variance * (variance > 1e-26)  # all draws have one value
        return self.correct(self.mean, self.b), (self.covariance - self.gain @ self.cross).diagonal(dim1=-2, dim2=-1)

    def output(self, name, u):
        if name in ("mean", "variance", "deviation"):
            mean, variance = self.moments()
            if self.components:
                weights = self.log_evidence().softmax(0)[:, None]
                centre = (weights * mean).sum(dim=0)
                variance = variance * (1 - self.bounds / DRAWS) + (mean - centre).square()
                mean, variance = centre, (weights * variance).sum(dim=0)
            return {"mean": mean, "variance": variance, "deviation": root_of_variance(variance)}[name]
        if name in COVARIANCES:
            return self.part(name, self.covariance - self.gain @ self.cross)
        if name in ("draws", "log_prob"):
            return self.draws(DRAWS) if name == "draws" else self.log_prob(u)
        missed, deviation = self.mean @ self.G.mT - self.b, self.innovation.diagonal(dim1=-2, dim2=-1).sqrt()
        value = self.log_evidence()
        if not self.components:
            return torch.cat([missed / deviation, value[None]])
        centre = missed.mean(dim=0)
        spread = (deviation.square() + (missed - centre).square()).mean(dim=0).sqrt()
        return torch.cat([centre / spread, (value.logsumexp(0) - torch.tensor(2.0).log())[None]])

    @staticmethod
    def part(name, covariance):
        """What an output has of a covariance."""
        return {"slice": covariance[..., 2:7, 2:7], "product": covariance @ VECTORS}.get(name, covariance)

    def log_prob(self, u):
        """By the co-area formula, over the points that have a variance."""
        moves = self.covariance.reshape(-1, N, N)[0].diagonal() != 0
        covariance, zero = self.covariance[..., moves, :][..., moves], torch.zeros(N, dtype=double)
        difference = u - self.correct(self.mean, self.b)
        density = Density(zero[moves], covariance).log_prob(difference[..., moves])
        zero = zero[: len(self.b)]
        if self.noisy:
            density = density + Normal(zero, self.noise.sqrt()).log_prob(difference @ self.G.mT).sum(dim=-1)
        else:
            density = density - 0.5 * torch.logdet(self.G[:, moves] @ self.G[:, moves].mT)
        density = density - Density(zero, self.innovation).log_prob(zero)
        return (density + self.log_evidence().log_softmax(0)).logsumexp(0) if self.components else density


def output_of(name, prior, law, u):
    """The library's result."""
    if name == "evidence":
        found = evidence(prior, law)
        return torch.cat([found.standardised_residual, found.log_evidence[None]])
    prediction = condition(prior, law)
    mixed = isinstance(prediction, Mixture)
    parts = prediction.components if mixed else prediction
    if not isinstance(law, LinearConstraint):
        parts = parts.with_draws(DRAWS)
        prediction = Mixture(parts, prediction.weights) if mixed else parts
    return {
        "mean": lambda: prediction.mean,
        "variance": lambda: prediction.variance,
        "deviation": lambda: prediction.stddev,
        "covariance": lambda: parts.covariance_matrix,
        "slice": lambda: parts[..., 2:7].covariance_matrix,
        "product": lambda: parts.lazy_covariance_matrix @ VECTORS.to(parts.mean.dtype),
        "draws": lambda: parts.rsample((DRAWS,), generator=torch.Generator().manual_seed(0)),
        "log_prob": lambda: prediction.log_prob(u),
    }[name]()


def results(cell, recorded):
    """Output, and gradients if they are recorded, by the library, which may raise, and by matrices.

    The latter contain those of the prior's own covariance, from which an output subtracts what the law explains.
    """
    moves = MOVES if cell.certain else torch.ones_like(MOVES)
    batch = (2,) if cell.prior == "mixture" else ()
    factor = torch.tensor(1.3, dtype=double, requires_grad=recorded)
    given, matrix = rows_of(cell.rows, factor)
    leaves = {
        "mean": torch.where(MOVES == 0, 0.5, 0.5 * normals(*batch, N, seed=5)).to(cell.dtype),
        "scale": uniform(*batch, N, seed=6).to(cell.dtype),
        "total": matrix.detach() @ torch.where(MOVES == 0, 0.5, uniform(N, seed=7) / 2),  # the bounds can be met
        "rows": factor,
        "noise": uniform(len(matrix), seed=8) * cell.noisy,
    }
    names = [name for name in leaves if recorded and (name != "noise" or cell.noisy or not cell.bounds)]
    varied = [leaves[name].requires_grad_() for name in names]
    prior, centre, root = prior_of(cell.prior, leaves["mean"], leaves["scale"], moves)
    dense = Dense(centre, root, (matrix, leaves["total"], leaves["noise"]), cell.bounds, cell.dtype)
    law = LinearConstraint(given, leaves["total"], noise_variance=leaves["noise"])
    field = dense.correct(dense.mean, dense.b).detach().reshape(-1, N)[0] + 0.1 * cell.noisy * moves
    both = []
    for output in (
        lambda: output_of(cell.output, prior, law & NonNegative() if cell.bounds else law, field),
        lambda: dense.output(cell.output, field),
    ):
        values, gradients = output(), ()
        if recorded:
            number = (values.double() * normals(*values.shape, seed=9)).sum()
            gradients = torch.autograd.grad(number, varied, materialize_grads=True, retain_graph=True)
        both.append(dict(zip(("output", *names), (values.detach(), *gradients), strict=True)))
    if recorded and cell.output in COVARIANCES:
        values = dense.part(cell.output, dense.covariance)
        number = (values * normals(*values.shape, seed=9)).sum()
        both[1]["prior"] = torch.autograd.grad(number, leaves["scale"])[0]
    return both


GROUPS = (("output",), ("mean", "scale", "prior"), ("total", "rows", "noise"))
TOLERANCE = {torch.float64: 1e-9, torch.float32: 32 * 2.0**-23, torch.bfloat16: 16 * 2.0**-7}


def failures(cell, recorded=True):
    """Error of a cell, in words; nothing if it agrees, or raises as listed."""
    texts = [text for _, text, where in RAISING if where(cell) and (recorded or "derivatives" not in text)]
    if texts:
        with pytest.raises((InvalidArgumentError, AttributeError, TypeError), match=texts[0]):
            results(cell, recorded)
        return []
    ours, expected = results(cell, recorded)
    wrong = []
    for name, value in ours.items():
        # Where a sum cancels, its rounding is that of the terms: others have these as well, or the prior does, whose
        # covariance the law may explain nearly all of.
        group = next(group for group in GROUPS if name in group)
        size = max(1e-4, *(float(expected[part].abs().max()) for part in group if part in expected))
        missed = float((value.double() - expected[name].double()).abs().max())
        if not missed <= TOLERANCE[cell.dtype] * size:
            wrong.append(f"{name} off by {missed:.1e} of {size:.1e}")
    return wrong


@pytest.fixture(autouse=True)
def _large_paths(monkeypatch):
    take_large_paths(monkeypatch)


@pytest.mark.parametrize("cell", covering(EVERY), ids=lambda cell: "-".join(map(str, cell)).replace("torch.", ""))
def test_cells_that_cover_all_triples(cell):
    assert failures(cell) + failures(cell, recorded=False) == []


@pytest.mark.slow
@pytest.mark.parametrize("prior", VALUES.prior)
@pytest.mark.parametrize("output", VALUES.output)
def test_every_cell(prior, output):
    cells = [cell for cell in EVERY if cell.prior == prior and cell.output == output]
    found = [(cell, failures(cell) + failures(cell, recorded=False)) for cell in cells]
    assert [(cell, wrong) for cell, wrong in found if wrong] == []
