"""Budgets of dry air, moisture and energy of a weather model's steps."""

import numpy as np
import pytest

from probconserv.errors import InvalidArgumentError

xarray = pytest.importorskip("xarray", reason="needs xarray: pip install 'probconserv-boon[tools]'")
tools = pytest.importorskip("probconserv.tools")

LEVELS, ROWS, COLUMNS, SECONDS = 3, 4, 6, 21600.0
COORDS = {"level": [1, 2, 3], "lat": np.linspace(-67.5, 67.5, ROWS), "lon": np.arange(0.0, 360.0, 360 / COLUMNS)}
COORDS["lat"] = ("lat", COORDS["lat"], {"units": "degrees_north"})
UNITS = {"T": "K", "q": "kg kg**-1", "ps": "Pa", "E": "kg m-2 s-1", "P": "kg m**-2 s**-1", "net": "W m^-2"}
UNITS |= {"snow": UNITS["P"], "wind": "J kg-1"}
LAYERED = ("T", "q", "wind")
PRESSURE = xarray.DataArray([2e4, 3e4, 4.9e4], dims="level", coords={"level": COORDS["level"]})
HYBRID = {"a": PRESSURE - [0, 2e4, 4.4e4], "b": PRESSURE * 0 + [0.0, 0.2, 0.6]}
STD = {"T": 0.5, "q": PRESSURE * 0 + [1e-5, 3e-4, 1e-3], "ps": 30.0, "E": 1e-6, "P": 2e-6, "net": 1.0, "snow": 1e-6}
OPTIONS = {
    "seconds": SECONDS,
    "moisture_fluxes": {"E": 1.0, "P": -1.0},
    "energy_fluxes": {"net": 1.0},
    "extra": "wind",
    "non_negative": ("q", "P", "snow"),
    "at_most": {"snow": "P"},
}
CENTRES = {"T": (260.0, 15.0), "q": (6e-3, 1e-3), "ps": (1e5, 500.0), "E": (3e-5, 1e-6), "P": (3e-5, 5e-6)}
CENTRES |= {"net": (0.0, 10.0), "snow": (2e-5, 5e-6), "wind": (200.0, 50.0)}


def state(seed: int, dtype: str = "float32"):
    """An atmosphere without any order."""
    random, variables = np.random.default_rng(seed), {}
    for name, (centre, spread) in CENTRES.items():
        dims = ("level", "lat", "lon") if name in LAYERED else ("lat", "lon")
        values = centre + spread * random.standard_normal(
            [len(np.atleast_1d(COORDS[dim][1] if dim == "lat" else COORDS[dim])) for dim in dims]
        )
        variables[name] = (dims, values.astype(dtype), {"units": UNITS[name]})
    return xarray.Dataset(variables, coords=COORDS)


def missed(atmosphere, before, after) -> dict[str, float]:
    """Residuals of the budgets relative to the contents."""
    contents = atmosphere.contents(before)
    return {name: float(part / contents[name]) for name, part in atmosphere.missed(before, after).items()}


def test_contents_and_gains_are_those_of_the_definition():
    atmosphere = tools.Atmosphere(**HYBRID, **OPTIONS)
    before, after = state(0, "float64"), state(1, "float64")
    edges = np.sin(np.deg2rad([-90, -45, 0, 45, 90]))
    areas = np.diff(edges)[:, None] / (edges[-1] - edges[0]) / COLUMNS

    def contents(data):
        layers = HYBRID["a"].values[:, None, None] + HYBRID["b"].values[:, None, None] * data.ps.values
        water = (layers * data.q.values).sum(0)
        heat = (layers * (1004.7 * data.T.values + 2.501e6 * data.q.values + data.wind.values)).sum(0)
        return [float((areas * part).sum() / 9.80665) for part in (data.ps.values - water, water, heat)]

    found = atmosphere.contents(before)
    np.testing.assert_allclose([float(found[name]) for name in ("dry air", "moisture", "energy")], contents(before))
    gained = [0.0, *(SECONDS * (areas * flux.values).sum() for flux in (after.E - after.P, after.net))]
    expected = np.array(contents(after)) - contents(before) - gained
    np.testing.assert_allclose([float(part) for part in atmosphere.missed(before, after).values()], expected, rtol=1e-9)


@pytest.mark.parametrize("layers", [{"a": PRESSURE}, HYBRID], ids=["pressure levels", "hybrid levels"])
def test_a_step_keeps_its_budgets_in_the_precision_of_the_fields(layers):
    atmosphere = tools.Atmosphere(**layers, **OPTIONS)
    for dtype, tolerance in (("float64", 1e-11), ("float32", 2e-7)):
        before, after = state(0, dtype), state(1, dtype)
        corrected, delta = atmosphere.correct(before, after, STD)
        assert max(map(abs, missed(atmosphere, before, after).values())) > 1e-4
        assert max(map(abs, missed(atmosphere, before, corrected).values())) < tolerance
        assert float((corrected.snow - corrected.P).max()) <= 1e-12
        assert (after.snow > after.P).any()
        assert set(delta.data_vars) == {"T", "q", "ps", "E", "P", "net", "snow"}
        xarray.testing.assert_allclose(after[["T", "ps"]] + delta, corrected[["T", "ps"]])
        assert delta.T.attrs["units"] == "K"
        assert corrected.T.dtype == dtype


@pytest.mark.parametrize("layers", [{"a": PRESSURE}, HYBRID], ids=["pressure levels", "hybrid levels"])
def test_several_steps_at_once_are_corrected_one_by_one_also_in_chunks(layers):
    pytest.importorskip("dask", reason="needs dask: pip install 'probconserv-boon[tools]'")
    atmosphere = tools.Atmosphere(**layers, **OPTIONS)
    before, after = (xarray.concat([state(seed, "float64") for seed in seeds], "time") for seeds in ((0, 1), (2, 3)))
    corrected, _ = atmosphere.correct(before, after, STD)
    chunked, _ = atmosphere.correct(before.chunk(time=1), after.chunk(time=1), STD)
    assert chunked.T.chunksizes["time"] == (1, 1)
    single, _ = atmosphere.correct(before.isel(time=1), after.isel(time=1), STD)
    xarray.testing.assert_allclose(chunked.compute(), corrected, rtol=1e-11)
    xarray.testing.assert_allclose(single, corrected.isel(time=1), rtol=1e-11)
    times = before.assign_coords(time=[0, 6]), after.assign_coords(time=[6, 12])
    with pytest.raises(InvalidArgumentError, match="must be equal"):
        atmosphere.correct(*times, STD)
    with pytest.raises(InvalidArgumentError, match="must be equal"):  # not the one time that both have
        atmosphere.missed(*times)


def test_chunks_have_the_precision_of_the_fields_before_and_after_they_are_computed():
    pytest.importorskip("dask", reason="needs dask: pip install 'probconserv-boon[tools]'")
    atmosphere, before = tools.Atmosphere(**HYBRID, **OPTIONS), state(0).chunk()
    corrected, _ = atmosphere.correct(before, state(1).chunk(), STD)
    assert corrected.T.dtype == corrected.T.compute().dtype == "float32"
    assert atmosphere.missed(before, corrected)["energy"].dtype == "float64"


def test_places_move_with_their_variance_and_not_with_the_size_of_their_cell():
    atmosphere = tools.Atmosphere(a=PRESSURE, seconds=SECONDS, energy_fluxes={}, non_negative=())
    std = {"T": PRESSURE * 0 + [1.0, 0.0, 2.0], "q": 0.0, "ps": 30.0}
    before, after = state(0, "float64"), state(1, "float64")
    after["q"] = after.q * float(atmosphere.contents(before)["moisture"] / atmosphere.contents(after)["moisture"])
    _, delta = atmosphere.correct(before, after, std)
    shift = delta.T.isel(lat=0, lon=0)
    xarray.testing.assert_allclose(
        delta.T, shift.broadcast_like(delta.T).drop_vars(("lat", "lon"), errors="ignore").assign_coords(delta.T.coords)
    )
    np.testing.assert_allclose(shift / shift[0], [1.0, 0.0, 4.0 * 4.9 / 2.0], rtol=1e-6)


def drifted(steps: int) -> dict[str, float]:
    """The largest residual of a step, and the drift of dry air, over many steps of a random model in float32."""
    atmosphere = tools.Atmosphere(a=PRESSURE, **OPTIONS | {"at_most": {}, "non_negative": ("q",), "extra": None})
    random, before = np.random.default_rng(5), state(0)
    first, worst = float(atmosphere.contents(before)["dry air"]), 0.0
    for _ in range(steps):
        after = before.copy()
        for name, spread in (("T", 0.2), ("q", 2e-5), ("ps", 20.0)):
            noise = spread * random.standard_normal(after[name].shape)
            after[name] = after[name].copy(data=(after[name] + noise).values.astype("float32"))
        after, _ = atmosphere.correct(before, after, STD)
        worst = max(worst, *map(abs, missed(atmosphere, before, after).values()))
        before = after
    return {"worst step": worst, "drift": abs(float(atmosphere.contents(before)["dry air"]) / first - 1)}


@pytest.mark.parametrize("steps", [8, pytest.param(1000, marks=pytest.mark.slow)])
def test_budgets_hold_to_rounding_over_many_steps(steps):
    found = drifted(steps)
    assert found["worst step"] < 2e-7  # 3 units of float32
    assert found["drift"] < 1e-7 * steps**0.5


def changed(name, **attributes):
    data = state(1)
    data[name] = data[name].assign_attrs(**attributes)
    return data


def no_units():
    data = state(1)
    del data.q.attrs["units"]
    return data


def dry():
    data = state(1)
    return data.assign(q=data.q.where(data.q > 6e-3))


UPSIDE_DOWN = {"a": PRESSURE.assign_coords(level=[3, 2, 1])}
WRONG = {
    "temperature in °C": (changed("T", units="degC"), {}, STD, "'T' must be in 'K'"),
    "pressure in hPa": (changed("ps", units="hPa"), {}, STD, "'ps' must be in 'Pa'"),
    "rain in mm a day": (changed("P", units="mm/day"), {}, STD, "'P' must be in 'kg m-2 s-1'"),
    "no units": (no_units(), {}, STD, "'q' must be in 'kg kg-1', but its attribute units is None"),
    "a variable that is not there": (state(1).drop_vars("net"), {}, STD, r"name \['net'\]"),
    "missing values": (dry(), {}, STD, "missing values"),
    "layers the other way around": (state(1), UPSIDE_DOWN, STD, "must be equal"),
    "too few layers": (state(1), {"a": PRESSURE[:2]}, STD, "must be equal"),
    "layers without names": (state(1), {"a": PRESSURE.values}, STD, "a, a DataArray over the levels"),
    "no time": (state(1), {"seconds": 0.0}, STD, "length of a step, above 0, got 0.0"),
    "no std of a flux": (state(1), {}, {k: v for k, v in STD.items() if k != "E"}, "how uncertain each of"),
    "chunks across the globe": (state(1).chunk(lat=2), {}, STD, r"several chunks along \['lat'\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case):
    after, options, std, message = WRONG[case]
    if "chunks" in case:
        pytest.importorskip("dask", reason="needs dask: pip install 'probconserv-boon[tools]'")
    with pytest.raises(InvalidArgumentError, match=f"(?s){message}"):
        tools.Atmosphere(**{"a": PRESSURE} | OPTIONS | options).correct(state(0), after, std)


def test_missed_reads_fluxes_in_their_units_only():
    with pytest.raises(InvalidArgumentError, match="'P' must be in 'kg m-2 s-1'"):
        tools.Atmosphere(a=PRESSURE, **OPTIONS).missed(state(0), changed("P", units="mm/day"))
