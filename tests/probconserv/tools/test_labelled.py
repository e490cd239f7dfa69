"""Laws on variables of xarray, by the names of dimensions and coordinates."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from probconserv import InvalidArgumentError, LinearConstraint, condition

xarray = pytest.importorskip("xarray", reason="needs xarray: pip install 'probconserv-boon[tools]'")
pytest.importorskip("dask", reason="needs dask: pip install 'probconserv-boon[tools]'")
tools = pytest.importorskip("probconserv.tools")
Budget, area_fractions, constrain = tools.Budget, tools.area_fractions, tools.constrain

GLOBE = ("lat", "lon")
LATITUDES, LONGITUDES = np.linspace(75.0, -75.0, 6), np.arange(0.0, 360.0, 45.0)
RANDOM = np.random.default_rng(0)


def globe(dtype: str = "float64"):
    """Temperature and rain at three times, with their axes in different orders, and a variable without places."""
    t = 280 + 10 * RANDOM.standard_normal((3, 6, 8))
    rain, snow = RANDOM.random((2, 8, 3, 6))
    return xarray.Dataset(
        {
            "t": (("time", "lat", "lon"), t.astype(dtype), {"units": "K", "long_name": "temperature"}),
            "rain": (("lon", "time", "lat"), rain.astype(dtype), {"units": "mm"}),
            "snow": (("lat", "lon", "time"), 0.8 * snow.transpose(2, 0, 1).astype(dtype), {"units": "mm"}),
            "count": ("time", [1, 2, 3]),
        },
        coords={
            "lat": ("lat", LATITUDES, {"units": "degrees_north"}),
            "lon": ("lon", LONGITUDES, {"units": "degrees_east"}),
            "time": [0.0, 6.0, 12.0],
        },
        attrs={"source": "a model"},
    )


DATA = globe()
MEAN = Budget("t", 288.0)
TOTALS = xarray.DataArray([287.0, 288.0, 289.0], dims="time")
STD = xarray.DataArray(np.linspace(1.0, 2.0, 6), dims="lat")


def area_mean(values):
    return (values.astype("float64") * area_fractions(DATA, GLOBE)).sum(GLOBE)


def test_the_area_mean_is_met_and_labels_stay():
    data = globe("float32")
    after = constrain(data, Budget("t", TOTALS), GLOBE)
    np.testing.assert_allclose(area_mean(after.t), TOTALS, rtol=1e-7)  # float32
    assert after.t.dtype == np.float32
    assert after.t.dims == data.t.dims
    assert after.t.attrs == data.t.attrs
    assert after.attrs == data.attrs
    assert list(after.data_vars) == list(data.data_vars)
    xarray.testing.assert_identical(after.drop_vars("t"), data.drop_vars("t"))
    shift = (after.t - data.t).astype("float64")
    assert float(shift.std(GLOBE).max()) < 1e-4, "without std all values move alike"
    xarray.testing.assert_identical(constrain(data.t, Budget("t", TOTALS), GLOBE), after.t)


def test_it_is_the_update_of_the_library_whatever_the_order_of_the_axes():
    laws = [Budget("t", TOTALS), Budget({"t": 1.0, "rain": 1 + STD}, 295.0)]
    after = constrain(DATA, laws, GLOBE, std={"t": STD, "rain": 0.1})
    areas = np.broadcast_to(np.cos(np.deg2rad(LATITUDES))[:, None], (6, 8))
    areas = areas / areas.sum()
    weights = np.concatenate([areas.ravel(), (areas * (1 + STD.values[:, None])).ravel()])
    G = torch.tensor(np.stack([np.where(np.arange(96) < 48, weights, 0.0), weights]))
    deviation = torch.tensor(np.concatenate([np.repeat(STD.values, 8), np.full(48, 0.1)]))
    for time in range(3):
        fields = [DATA[name].isel(time=time).transpose(*GLOBE).values.ravel() for name in ("t", "rain")]
        law = LinearConstraint(G, torch.tensor([float(TOTALS[time]), 295.0]))
        expected = condition(Normal(torch.tensor(np.concatenate(fields)), deviation), law).mean.numpy()
        for name, part in zip(("t", "rain"), np.split(expected, 2), strict=True):
            found = after[name].isel(time=time).transpose(*GLOBE).values.ravel()
            np.testing.assert_allclose(found, part, rtol=1e-12)


def test_chunks_along_time_give_the_same_and_are_not_computed_before():
    laws, options = (
        Budget({"t": 1.0, "rain": 2.0}, TOTALS),
        {"std": {"t": 1.0, "rain": STD}, "bounds": {"rain": (0, 1)}},
    )
    after = constrain(DATA.chunk(time=1), laws, GLOBE, **options)
    assert after.t.chunks == DATA.chunk(time=1).t.chunks
    xarray.testing.assert_allclose(after.compute(), constrain(DATA, laws, GLOBE, **options), rtol=1e-12)


def test_inequalities_hold_beside_the_laws():
    laws = [Budget("rain", 0.45), Budget("snow", 0.4)]
    after = constrain(
        DATA, laws, GLOBE, std={"rain": 0.1, "snow": 0.1}, bounds={"rain": (0.0, None)}, at_most={"snow": "rain"}
    )
    assert float(after.rain.min()) >= 0
    assert float((after.snow - after.rain).max()) <= 1e-12
    assert (DATA.snow > DATA.rain).any()
    np.testing.assert_allclose(area_mean(after.rain), 0.45, rtol=1e-9)
    np.testing.assert_allclose(area_mean(after.snow), 0.4, rtol=1e-9)


def test_places_without_weight_may_be_missing_and_stay_so():
    ocean = xarray.DataArray(RANDOM.random((6, 8)) > 0.3, dims=GLOBE)
    data = DATA.assign(t=DATA.t.where(ocean))
    weights = area_fractions(DATA, GLOBE).where(ocean, 0.0)
    after = constrain(data, Budget("t", 100.0, weights=weights), GLOBE)
    assert (after.t.isnull() == data.t.isnull()).all()
    np.testing.assert_allclose((after.t * weights).sum(GLOBE), 100.0, rtol=1e-12)


def test_areas_come_from_latitudes_or_from_their_bounds():
    fractions = area_fractions(DATA, GLOBE)
    cosines = np.cos(np.deg2rad(DATA.lat))
    xarray.testing.assert_allclose(
        fractions.sum("lon"), cosines / cosines.sum(), rtol=1e-12
    )  # equal steps to the poles
    with_poles = xarray.Dataset(coords={"latitude": [-90.0, 0.0, 90.0]})
    np.testing.assert_allclose(area_fractions(with_poles, ["latitude"]), [0.146447, 0.707107, 0.146447], atol=1e-6)
    bounds = xarray.DataArray([[90.0, 0.0], [0.0, -30.0], [-30.0, -90.0]], dims=("y", "side"))
    named = {"standard_name": "latitude", "bounds": "faces"}
    data = xarray.Dataset({"faces": bounds}, coords={"y": ("y", [40.0, -15.0, -60.0], named)})
    np.testing.assert_allclose(area_fractions(data, ["y"]), [0.5, 0.25, 0.25], rtol=1e-12)
    xarray.testing.assert_allclose(
        constrain(DATA, Budget("t", TOTALS), "lat").t.sel(lat=75.0),
        DATA.t.sel(lat=75.0) + (TOTALS - (DATA.t * fractions.sum("lon")).sum("lat")),
        rtol=1e-12,
    )


def renamed(**attributes):
    return DATA.assign_coords(lat=DATA.lat.assign_attrs(**attributes))


def missing():
    return DATA.assign(t=DATA.t.where(DATA.t > 280))


def metres():
    return DATA.assign(rain=DATA.rain.assign_attrs(units="m"))


ROUND = DATA.pad(lon=(0, 1), mode="wrap").assign_coords(lon=np.append(LONGITUDES, 360.0))
RADIANS = xarray.Dataset({"t": ("lat", [1.0, 2.0, 3.0])}, coords={"lat": [0.1, 0.2, 0.3]})
KELVIN = xarray.DataArray(15.0, attrs={"units": "degC"})
SHIFTED = area_fractions(DATA, GLOBE).assign_coords(lon=LONGITUDES + 1)
LAYERS = DATA.expand_dims(level=3)
BOTH = Budget({"t": 1.0, "rain": 1.0}, 288.0)

WRONG = {
    "a variable that is not there": (DATA, Budget("T", 288.0), GLOBE, {}, r"name \['T'\], but data has the variables"),
    "a dimension that is not there": (DATA, MEAN, ("lat", "x"), {}, r"\['x'\], but data has .*dimensions \['time'"),
    "a unit that differs": (DATA, Budget("t", KELVIN), GLOBE, {}, "must be in 'degC', but its attribute units is 'K'"),
    "a stated unit that differs": (DATA, Budget("t", 1.0, units={"t": "Pa"}), GLOBE, {}, "must be in 'Pa'"),
    "missing values": (missing(), MEAN, GLOBE, {}, "missing values where weights are not 0; fill them"),
    "chunks across the law's axis": (DATA.chunk(lat=2), MEAN, GLOBE, {}, r"several chunks along \['lat'\].*chunk"),
    "latitudes in radians": (RADIANS, MEAN, "lat", {}, "'lat' must be in degrees"),
    "latitudes of other units": (renamed(units="rad"), MEAN, GLOBE, {}, "its attribute units is 'rad'"),
    "latitudes out of order": (DATA.isel(lat=[1, 0, 2]), MEAN, GLOBE, {}, "must increase or decrease"),
    "latitudes beyond the pole": (DATA.assign_coords(lat=2 * LATITUDES), MEAN, GLOBE, {}, "within ±90 degrees"),
    "no coordinate": (DATA.drop_vars("lat"), MEAN, GLOBE, {}, "'lat' has no coordinate"),
    "weights of another grid": (DATA, Budget("t", 1.0, SHIFTED), GLOBE, {}, "Coordinates .* must be equal"),
    "weights that are cut off": (DATA, Budget("t", 1.0, SHIFTED[:4]), GLOBE, {}, "Coordinates .* must be equal"),
    "weights with NaN": (DATA, Budget("t", 1.0, STD / 0 * 0), "lat", {}, "hold NaN; fill them with 0"),
    "levels without weights": (LAYERS, MEAN, ("level", *GLOBE), {}, r"lack its dimensions \['level'\]"),
    "weights that another axis has": (
        LAYERS,
        Budget({"t": 1.0, "count": 1.0}, 1.0),
        GLOBE,
        {"std": LAYERS},
        "'count' is",
    ),
    "an array without names as a total": (
        DATA,
        Budget("t", np.ones(3)),
        GLOBE,
        {},
        r"a DataArray over .*\['time'\], got",
    ),
    "weights without names": (DATA, Budget("t", 1.0, np.ones((6, 8))), GLOBE, {}, "lack its dimensions .*dim_0"),
    "a meridian that comes twice": (ROUND, MEAN, GLOBE, {}, "goes around the globe and further"),
    "at most a variable of other places": (
        DATA.assign(t=DATA.t.mean("lon")),
        BOTH,
        GLOBE,
        {"at_most": {"t": "rain"}, "std": {"t": 1.0, "rain": 1.0}},
        "same places",
    ),
    "at most a variable of other units": (
        metres(),
        Budget("snow", 0.4),
        GLOBE,
        {"at_most": {"snow": "rain"}, "std": {"snow": 1.0, "rain": 1.0}},
        "same .*units",
    ),
    "a total over the places": (DATA, Budget("t", STD), GLOBE, {}, r"over dimensions among \['time'\]"),
    "a total that is NaN": (DATA, Budget("t", np.nan), GLOBE, {}, "b of the constraint holds"),
    "totals of other times": (
        DATA,
        Budget("t", TOTALS.assign_coords(time=[1.0, 2.0, 3.0])),
        GLOBE,
        {},
        "must be equal",
    ),
    "two variables without std": (DATA, BOTH, GLOBE, {}, "std must say how uncertain"),
    "std of one of them": (DATA, BOTH, GLOBE, {"std": {"t": 1.0}}, "how uncertain each"),
    "a std that is negative": (DATA, MEAN, GLOBE, {"std": {"t": -1.0}}, "must not be negative"),
    "a std of other units": (DATA, MEAN, GLOBE, {"std": {"t": KELVIN}}, "its units 'K'; got"),
    "a std without names": (DATA, MEAN, GLOBE, {"std": {"t": np.ones(6)}}, "a number or a DataArray"),
    "whole numbers": (DATA.assign(t=DATA.t.astype(int)), MEAN, GLOBE, {}, "'t' is int64"),
    "no law": (DATA, [], GLOBE, {}, "at least one Budget"),
    "a law of points": (DATA, LinearConstraint(torch.ones(1, 3), torch.ones(1)), GLOBE, {}, "at least one Budget"),
    "an array without a name": (DATA.t.rename(None), MEAN, GLOBE, {}, "a DataArray with a name"),
    "at most another grid": (DATA, BOTH, GLOBE, {"at_most": {"t": "mean"}, "std": {"t": 1.0}}, r"name \['mean'\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case):
    data, laws, dims, options, message = WRONG[case]
    with np.errstate(all="ignore"), pytest.raises(InvalidArgumentError, match=f"(?s){message}"):
        constrain(data, laws, dims, **options)
