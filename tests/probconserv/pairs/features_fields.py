"""Laws by the names of variables, atmospheres, and estimators of scikit-learn."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal

from probconserv import Bounded, LinearConstraint, LinearInequality, condition, integral
from probconserv.fields import AtmosphereFixer
from probconserv.surrogates.gp import GPConfig, GPSurrogate
from tests.probconserv.pairs.changes import Answer, Given, Quantity
from tests.probconserv.pairs.features_models import asked, fitted_process
from tests.probconserv.pairs.kinds import Feature

xarray = pytest.importorskip("xarray", reason="needs xarray: pip install 'probconserv-boon[tools]'")
tools = pytest.importorskip("probconserv.tools")

CELLS = 6


def array(values: Tensor) -> Any:
    """Over times, if there is a batch, and places."""
    return xarray.DataArray(values.numpy(), dims=("time", "x")[2 - values.ndim :])


def dataset(given: Given) -> Any:
    rain, snow = given.uniform("rain", CELLS, says="rain"), given.uniform("snow", CELLS, says="snow", low=0.9, high=1.5)
    shape = torch.broadcast_shapes(rain.shape, snow.shape)
    return xarray.Dataset({"rain": array(rain.expand(shape)), "snow": array(snow.expand(shape))})


def constrained(**options: Any) -> Any:
    def ask(data: Any, given: Given) -> Answer:
        total = 0.75 * CELLS * given.uniform("total", low=0.8, high=0.9, says="total")
        weights = array(given.uniform("weights", CELLS, unit=0, batch=False, says="weights"))
        laws = tools.Budget("rain", xarray.DataArray(total.numpy(), dims=("time",)[1 - total.ndim :]), weights=weights)
        std = {"rain": array(given.uniform("std", CELLS, says="std", batch=False)), "snow": 0.1 * given.scale()}
        std = std if options else std["rain"]
        bounds = {"rain": (given.number("lowest", 0.6, unit=1), None)} if options.get("bounds") else None
        at_most = {"rain": "snow"} if options.get("at_most") else None
        found, spread = tools.constrain(data, laws, "x", std=std, bounds=bounds, at_most=at_most, return_std=True)
        answer = {name: Quantity(torch.tensor(found[name].values)) for name in ("rain", "snow")}
        return answer | {"std": Quantity(torch.tensor(spread["rain"].values), random=bool(options))}

    return ask


def without_missing_pairs(given: Given, lowest: float | None = None) -> Answer:
    """Rain and the snow that is there, each pair that is complete in its order, as one vector."""
    data = dataset(given)
    rain, snow = (torch.tensor(data[name].values)[0] for name in ("rain", "snow"))
    there = snow.isfinite()
    weights, total = (
        given.uniform("weights", CELLS, unit=0, batch=False),
        0.75 * CELLS * given.uniform("total", low=0.8, high=0.9),
    )
    mean = torch.cat([rain, snow[there]])
    deviation = torch.cat([given.uniform("std", CELLS, batch=False), torch.full_like(snow[there], 0.1)])
    eye = torch.eye(CELLS, dtype=torch.float64)[there]
    law = LinearConstraint(torch.cat([weights, 0 * snow[there]])[None], total[:1])
    order = LinearInequality(torch.cat([eye, -torch.eye(len(eye), dtype=torch.float64)], dim=1), torch.zeros(len(eye)))
    if lowest is not None:
        order = order & Bounded(
            torch.cat([torch.full((CELLS,), lowest, dtype=torch.float64), torch.full_like(snow[there], -math.inf)])
        )
    found = condition(Normal(mean, deviation), law & order).mode
    snow[there] = found[CELLS:]
    return {"rain": Quantity(found[:CELLS]), "snow": Quantity(snow)}


LEVELS, ROWS, COLUMNS = 2, 2, 3


def state(given: Given, when: str) -> dict[str, Tensor]:
    """Humidities in kg per kg, of the unit of the field; pressures, temperatures and fluxes in fixed units."""
    of_layers, of_surface = (LEVELS, ROWS, COLUMNS), (ROWS, COLUMNS)
    return {
        "q": given.uniform("q", *of_layers, low=2e-3, high=6e-3, unit=0, group=when, says="q"),
        "T": given.uniform("T", *of_layers, low=240.0, high=290.0, unit=0, group=when, says="T"),
        "ps": given.uniform("ps", *of_surface, low=9.8e4, high=1.02e5, unit=0, group=when, says="ps"),
        "rain": given.uniform("rain", *of_surface, low=1e-5, high=4e-5, unit=0, group=when, says="rain"),
    }


def fixer(given: Given) -> AtmosphereFixer:
    area = torch.full((ROWS, COLUMNS), 1 / (ROWS * COLUMNS), dtype=torch.float64)
    return AtmosphereFixer(
        a=given.uniform("a", LEVELS, low=2e4, high=4e4, unit=0, batch=False, says="of the AtmosphereFixer"),
        b=given.uniform("b", LEVELS, low=0.1, high=0.3, unit=0, batch=False, says="of the AtmosphereFixer"),
        area=area,
        seconds=given.option("seconds", 3600.0, 1800.0),
        moisture_fluxes={"rain": -1.0},
        energy_fluxes={},
    )


def corrected(made: AtmosphereFixer, given: Given) -> Answer:
    before = state(given, "state")
    after = {name: 1.005 * part for name, part in before.items()}
    std = {"q": 1e-4, "T": given.option("std of T", 0.5, 1.0), "ps": 30.0, "rain": 1e-6}
    return {name: Quantity(part, 0) for name, part in made.correct(before, after, std).items()}


def fitted(law: bool) -> Any:
    def make(given: Given) -> Any:
        points = given.points("X", 8, batch=False, says="X")[:, None]
        values = given.normal("y", 8, batch=False, says="y")
        variance = given.number("noise_variance", 0.04, unit=2)
        total = 0.1 * given.scale(1, 1)
        rule = (lambda x: integral(x[:, 0], total)) if law else None
        made = tools.SurrogateRegressor(GPSurrogate(GPConfig(smoothness=1.5)), rule, variance)
        return made.fit(points.numpy(), values.numpy())

    return make


def predicted(made: Any, given: Given) -> Answer:
    places = given.points("query points", 6, batch=False, says="X")[:, None].numpy()
    mean, std = made.predict(places, return_std=True)
    draws = torch.tensor(made.sample_y(places, 3))
    return {
        "mean": Quantity(torch.tensor(mean), lead=None),
        "std": Quantity(torch.tensor(std), lead=None),
        "draws": Quantity(draws, lead=None),
    }


FEATURES = {
    "constrain": Feature(make=dataset, ask=constrained(), unused=("snow",), lengths=False),
    "constrain, bounds": Feature(make=dataset, ask=constrained(bounds=True), unused=("snow",), lengths=False),
    "constrain, at_most": Feature(
        make=dataset, ask=constrained(at_most=True), dropped=without_missing_pairs, lengths=False
    ),
    "constrain, both": Feature(
        make=dataset,
        ask=constrained(bounds=True, at_most=True),
        dropped=lambda given: without_missing_pairs(given, given.number("lowest", 0.6, unit=1)),
        lengths=False,
        long=True,
    ),
    "atmosphere": Feature(make=fixer, ask=corrected, lengths=False),
    "regressor": Feature(make=fitted(law=False), ask=predicted, errors=(ValueError,)),  # as scikit-learn demands
    "regressor, law": Feature(make=fitted(law=True), ask=predicted, errors=(ValueError,), long=True),
    "hub": Feature(
        make=fitted_process,
        ask=asked,
        save=lambda made, path: tools.SurrogateOnHub(made).save_pretrained(path.with_suffix("")),
        load=lambda path, _: tools.SurrogateOnHub.from_pretrained(path.with_suffix("")).model,
        alike=False,
        long=True,
    ),
}
