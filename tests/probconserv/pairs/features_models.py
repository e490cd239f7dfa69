"""Surrogates: Gaussian processes, empirical ones, neural processes, flows, operators, and their wrappers."""

from typing import Any

import torch
from torch import Tensor, nn

from probconserv import (
    ANP,
    Context,
    EmpiricalGP,
    FlowMatching,
    GPSurrogate,
    LinearConstraint,
    NonNegative,
    ProbConserv,
    Query,
    integral,
)
from probconserv.calibration.variance import ContextCalibrated, NoisyContext, Tempered
from probconserv.surrogates.anp import ANPConfig
from probconserv.surrogates.fitting import FitOptions, FunctionSet
from probconserv.surrogates.flow import (
    KarhunenLoeve,
    ResidualVelocity,
    SamplingOptions,
    conditioned,
    eci,
    pcfm,
    twisted,
    unconstrained,
)
from probconserv.surrogates.gp import GPConfig
from probconserv.surrogates.operator import GaussianOperator
from probconserv.training import TrainingConfig
from tests.probconserv.pairs.changes import Answer, Given, Quantity
from tests.probconserv.pairs.features_update import moments
from tests.probconserv.pairs.kinds import Feature

SEEN, ASKED = 8, 6


def context(given: Given, noise: bool = True) -> Context:
    points = given.points("context points", SEEN, group="function")[..., None]
    values = given.normal("context values", SEEN, group="function")
    variance = given.uniform("noise variances", SEEN, group="function", low=0.01, high=0.04, unit=2) if noise else None
    return Context(points, values, noise_variance=variance)


def query(given: Given) -> Query:
    return Query(given.points("query points", ASKED, group="function")[..., None])


def asked(made: Any, given: Given) -> Answer:
    return moments(made.predict(context(given), query(given)))


def asked_without_noise(made: Any, given: Given) -> Answer:
    return moments(made.predict(context(given, noise=False), query(given)))


def process(given: Given) -> GPSurrogate:
    return GPSurrogate(GPConfig(smoothness=given.option("smoothness", 1.5, 0.5), shared=False))


def fitted_process(given: Given) -> GPSurrogate:
    points = given.points("training points", SEEN, batch=False, says="context points")[:, None]
    return process(given).fit(
        Context(points, given.normal("training values", SEEN, batch=False, says="context values"))
    )


def of_functions(given: Given) -> EmpiricalGP:
    functions = given.normal("functions", given.cases, 9, batch=False)
    axis = given.points("axes", 9, batch=False)
    axis[0], axis[-1] = 0.0, given.scale(0, 1)
    return EmpiricalGP(functions, [axis], given.option("bandwidth", 0.6, 0.4), rank=given.option("rank", None, 2))


def chosen(given: Given) -> EmpiricalGP:
    """Bandwidth and number of functions by cross-validation."""
    made = of_functions(given)
    points = given.points("validation points", SEEN, batch=False, says="points")[:, None]
    values = given.normal("validation values", SEEN, batch=False, says="values")
    noise = given.uniform("validation noise", SEEN, batch=False, unit=2, low=0.01, high=0.04, says="noise")
    seen = Context(points[:4], values[:4], noise_variance=noise[:4])
    return made.fit(validation=(seen, Query(points[4:]), values[4:]))


def network(given: Given) -> ANP:
    """A tiny neural process, trained for three steps in a folder."""
    torch.manual_seed(0)
    width = given.option("width", 8, 16)
    length = given.scale(0, 1)
    config = ANPConfig(
        problem="",
        low=(0.0,),
        high=(length,),
        value_scale=given.scale(),
        scale_floor=1e-3 * given.scale(),
        width=width,
        heads=2,
        self_layers=1,
        cross_layers=1,
        decoder_layers=1,
        latent_width=4,
        frequencies=2,
        latent_samples=3,
    )
    made = ANP(config)
    training = FunctionSet(
        points=given.points("training points", 9, batch=False, says="points")[:, None],
        values=given.normal("training values", given.cases, 9, batch=False, says="values"),
        context=given.option("context", 4, 5),
    )
    unseen = FunctionSet(
        points=given.points("validation points", 9, batch=False, says="points")[:, None],
        values=given.normal("validation values", 4, 9, batch=False, says="values"),
        context=4,
    )
    options = FitOptions(
        batch=given.option("batch", 4, 6), patience=given.option("patience", None, 1) if given.folder else None
    )
    steps = TrainingConfig(
        steps=given.option("steps", 3, 4),
        peak_rate=given.option("peak_rate", 1e-2, 3e-2),
        seed=given.option("seed", 0, 1),
        precision="32-true",
        validate_every=1,
    )
    made.fit(training, unseen, config=steps, options=options, folder=given.folder, progress=False)
    return made


def flow(given: Given) -> FlowMatching:
    """A small flow, trained for three steps in a folder."""
    torch.manual_seed(0)
    fields = given.normal("training", given.cases, 9, batch=False, says="fields")
    latent = KarhunenLoeve.of(fields, given.option("size", 3, 4), whitened=given.option("whitened", True, False))
    axis = torch.linspace(0, 1, 9, dtype=torch.float64) * given.scale(0, 1)
    made = FlowMatching(
        latent,
        ResidualVelocity(latent.state_shape[0], width=given.option("width", 8, 16), blocks=1),
        axes=[axis],
        draws=8,
        options=SamplingOptions(steps=given.option("sampling steps", 4, 6)),
        seed=given.option("seed of draws", 0, 1),
    )
    steps = TrainingConfig(
        steps=given.option("steps", 3, 4),
        peak_rate=given.option("peak_rate", 1e-2, 3e-2),
        seed=given.option("seed", 0, 1),
        precision="32-true",
        validate_every=1,
    )
    unseen = given.normal("validation", 5, 9, batch=False, says="validation")
    made.fit(fields, unseen, config=steps, folder=given.folder, batch=given.option("batch", 8, 6), progress=False)
    return made


def law_of_draws(given: Given, noisy: bool = True) -> LinearConstraint:
    axis = torch.linspace(0, 1, 9, dtype=torch.float64) * given.scale(0, 1)
    variance: Any = 0.0
    if noisy:
        variance = given.uniform("noise_variance", 1, unit=2, length=2, low=0.01, high=0.04, batch=False)
    total = 0.1 * given.normal("total", length=1, says="b of the constraint")
    return integral(axis, total, variance)


def drawn_by(sampler: Any, bounds: bool, noisy: bool) -> Any:
    def ask(made: FlowMatching, given: Given) -> Answer:
        law = None if sampler is unconstrained else law_of_draws(given, noisy)
        count = 3 if given.change.shape == (3,) else 6  # a law for each draw
        draws = made.sample(count, law=law & NonNegative() if bounds else law, sampler=sampler)
        return {"draws": Quantity(draws, random=True)}

    return ask


def asked_evidence(made: FlowMatching, given: Given) -> Answer:
    found = made.evidence(law_of_draws(given))
    return {"evidence": Quantity(torch.as_tensor(found.log_evidence), 0, log=-1, log_length=-1, lead=None)}


class Doubling(nn.Module):
    """Two channels from one."""

    def forward(self, a: Tensor) -> Tensor:
        return torch.cat([2 * a, a], dim=1)


def asked_operator(made: GaussianOperator, given: Given) -> Answer:
    a = given.normal("field", 1, 9, batch=False)[None]
    found = made(a)
    # σ is a quadratic function of the second channel
    return {"mean": Quantity(found.mean, lead=None), "deviation": Quantity(found.stddev, 2, lead=None)}


def under_law(given: Given) -> ProbConserv:
    return ProbConserv(
        process(given), lambda _, query: integral(query.points[..., 0], 0.3 * given.scale(1, 1)) & NonNegative()
    )


def drawn(sampler: Any, *, bounds: bool = False, noisy: bool = True) -> Feature:
    ask, unused = drawn_by(sampler, bounds, noisy), (*UNSEEN, "seed of draws")
    return Feature(make=flow, ask=ask, rounding=SINGLE, unused=unused, long=True)


SINGLE = 2e-4
"""Networks in single precision: 2e3 machine epsilons."""
UNSEEN = "validation", "validation points", "validation values"
"""They enter the history of a training, not its weights."""
STORED: dict[str, Any] = {"save": lambda made, path: made.save(path)}
FEATURES = {
    "GPSurrogate": Feature(make=process, ask=asked, alike=False),
    "GPSurrogate, exact": Feature(make=process, ask=asked_without_noise, alike=False, long=True),
    "GPSurrogate, fitted": Feature(
        make=fitted_process, ask=asked, **STORED, load=lambda path, _: GPSurrogate.load(path)
    ),
    "EmpiricalGP": Feature(
        make=of_functions, ask=asked, **STORED, load=lambda path, _: EmpiricalGP.load(path), alike=False
    ),
    "EmpiricalGP, fitted": Feature(
        make=chosen,
        ask=asked,
        **STORED,
        load=lambda path, _: EmpiricalGP.load(path),
        unused=("bandwidth",),  # the fit chooses it
        long=True,
        alike=False,
    ),
    "ContextCalibrated": Feature(make=lambda given: ContextCalibrated(of_functions(given)), ask=asked, alike=False),
    "NoisyContext": Feature(
        make=lambda given: NoisyContext(of_functions(given), given.number("standard_deviation", 0.1, unit=1), draws=3),
        ask=asked,
        alike=False,
    ),
    "Tempered": Feature(
        make=lambda given: Tempered(process(given), given.number("factor", 2.0)), ask=asked, alike=False, long=True
    ),
    "layer over a process": Feature(
        make=under_law, ask=lambda made, given: moments(made(context(given), query(given))), alike=False, long=True
    ),
    "ANP": Feature(
        make=network,
        ask=asked_without_noise,
        **STORED,
        load=lambda path, _: ANP.load(path),
        rounding=SINGLE,
        unused=UNSEEN,
        alike=False,
    ),
    "flow": Feature(
        make=flow,
        ask=asked,
        **STORED,
        load=lambda path, _: FlowMatching.load(path),
        rounding=SINGLE,
        unused=UNSEEN,
        alike=False,
        long=True,
    ),
    **{
        f"flow, {sampler.__name__}, {'noisy' if noisy else 'exact'} law": drawn(sampler, noisy=noisy)
        for sampler in (conditioned, twisted, eci, pcfm)
        for noisy in (True, False)
    },
    "flow, unconstrained": drawn(unconstrained),
    "flow, chosen sampler": drawn(None),
    "flow, bounds": drawn(None, bounds=True),
    "flow, evidence": Feature(
        make=flow, ask=asked_evidence, rounding=SINGLE, unused=(*UNSEEN, "seed of draws"), long=True
    ),
    "GaussianOperator": Feature(
        make=lambda given: GaussianOperator(Doubling(), given.number("unit", 0.1)), ask=asked_operator, lengths=False
    ),
}
