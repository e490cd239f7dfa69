"""Laws on variables of xarray, by the names of dimensions and coordinates."""

import numpy as np
import pytest
import torch
from torch.distributions import Normal

from probconserv import LinearConstraint, condition
from probconserv.errors import InvalidArgumentError

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

TWO = {"t": 1.0, "rain": 1.0}
SMALL = DATA.assign(t=DATA.t.mean("lon"))
POINTS = LinearConstraint(torch.ones(1, 3), torch.ones(1))
WRONG = [
    (Budget("T", 288.0), {}, r"name \['T'\], but data has the variables"),
    (MEAN, {"dims": ("lat", "x")}, r"\['x'\], but data has .*dimensions \['time'"),
    (Budget("t", KELVIN), {}, "must be in 'degC', but its attribute units is 'K'"),
    (Budget("t", 1.0, units={"t": "Pa"}), {}, "must be in 'Pa'"),
    (
        MEAN,
        {"data": missing()},
        r"missing values where weights are not 0: \{'t': \d+\}. Fill them, or .*notnull\(\), 0\)",
    ),
    (MEAN, {"data": DATA.chunk(lat=2)}, r"several chunks along \['lat'\].*chunk"),
    (MEAN, {"data": RADIANS, "dims": "lat"}, "'lat' must be in degrees"),
    (MEAN, {"data": renamed(units="rad")}, "its attribute units is 'rad'"),
    (MEAN, {"data": DATA.isel(lat=[1, 0, 2])}, "must increase or decrease"),
    (MEAN, {"data": DATA.assign_coords(lat=2 * LATITUDES)}, "within ±90 degrees"),
    (MEAN, {"data": DATA.drop_vars("lat")}, "'lat' has no coordinate"),
    (MEAN, {"data": ROUND}, "goes around the globe and further"),
    (Budget("t", 1.0, SHIFTED), {}, "Coordinates .* must be equal"),
    (Budget("t", 1.0, SHIFTED[:4]), {}, "Coordinates .* must be equal"),
    (Budget("t", 1.0, STD / 0 * 0), {"dims": "lat"}, "hold NaN; fill them with 0"),
    (MEAN, {"data": LAYERS, "dims": ("level", *GLOBE)}, r"lack its dimensions \['level'\]"),
    (Budget({"t": 1.0, "count": 1.0}, 1.0), {"data": LAYERS, "std": LAYERS}, "'count' is"),
    (Budget("t", 1.0, np.ones((6, 8))), {}, "lack its dimensions .*dim_0"),
    (Budget("t", np.ones(3)), {}, r"a DataArray over .*\['time'\], got"),
    (Budget("t", STD), {}, r"over dimensions among \['time'\]"),
    (Budget("t", np.nan), {}, "The total of t holds NaN"),
    (Budget("t", TOTALS.assign_coords(time=[1.0, 2.0, 3.0])), {}, "must be equal"),
    (BOTH, {"data": SMALL, "at_most": {"t": "rain"}, "std": TWO}, "same places"),
    (MEAN, {"data": metres(), "at_most": {"snow": "rain"}, "std": TWO | {"snow": 1.0}}, "same .*units"),
    (BOTH, {"at_most": {"t": "mean"}, "std": TWO}, r"name \['mean'\]"),
    (BOTH, {}, "std must say how uncertain"),
    (BOTH, {"std": {"t": 1.0}}, "how uncertain each"),
    (MEAN, {"std": {"t": -1.0}}, "must not be negative"),
    (MEAN, {"std": {"t": 1.0, "rian": 0.1}}, r"std names \['rian'\], but data has the variables"),
    (MEAN, {"std": STD.where(STD.min() < STD)}, r"std of 't' holds 1 missing values; fill them"),
    (MEAN, {"std": {"t": KELVIN}}, "its units 'K'; got"),
    (MEAN, {"std": {"t": np.ones(6)}}, r"a number or a DataArray.* array over .*'lon': 8}, got an array \(6,\)"),
    (MEAN, {"std": np.ones((1, 3, 6, 8))}, r"got an array \(1, 3, 6, 8\)"),
    (BOTH, {"std": 1.0}, r"each of \['t', 'rain'\] is, by a Dataset or {name: deviation}, got float"),
    (BOTH, {"std": TWO}, "adds variables in different units, {'t': 'K', 'rain': 'mm'}"),
    (Budget({"rain": -1, "snow": 1}, 0.0), {"data": metres(), "std": TWO | {"snow": 1.0}}, "adds .* different units"),
    *(
        (Budget({"t": one, "rain": one}, 1.0), {"std": TWO}, "adds variables in different units")
        for one in (1, -1, np.int64(1), np.int8(-1), np.float32(1.0), np.array(1.0), xarray.DataArray(1), True)
    ),
    (MEAN, {"return_std": True}, "return_std needs std"),
    (MEAN, {"bounds": {"t": 0}}, r"bounds of 't' must be a pair .*\(0, None\), got 0\."),
    (Budget("t", 1.0), {"data": DATA.t.rename(lat="a", lon="b"), "dims": ("a", "b")}, "give weights=1 for a plain sum"),
    (MEAN, {"data": DATA.assign(t=DATA.t.astype(int))}, "'t' is int64"),
    (MEAN, {"data": DATA.t.rename(None)}, "a DataArray with a name"),
    ([], {}, "at least one Budget"),
    (POINTS, {}, "at least one Budget"),
]


@pytest.mark.parametrize(("laws", "options", "message"), WRONG)
def test_what_does_not_fit_is_refused(laws, options, message):
    with np.errstate(all="ignore"), pytest.raises(InvalidArgumentError, match=f"(?s){message}"):
        constrain(**{"data": DATA, "laws": laws, "dims": GLOBE} | options)


@pytest.mark.parametrize("data", [DATA, DATA.t])
def test_std_is_a_number_an_array_or_labelled_and_alone_for_one_variable(data):
    rows = np.broadcast_to(STD.values[:, None], (6, 8))
    expected = {
        0.5: constrain(DATA, MEAN, GLOBE, std={"t": 0.5}).t,
        "rows": constrain(DATA, MEAN, GLOBE, std={"t": STD}).t,
    }
    forms = {
        0.5: [0.5, np.float32(0.5), np.full((6, 8), 0.5), np.full(8, 0.5).tolist(), np.full((3, 6, 8), 0.5)],
        "rows": [STD, STD.rename("t"), STD.rename("other"), rows, torch.tensor(rows), xarray.Dataset({"t": STD})],
    }
    for name, stated in forms.items():
        for std in [*stated, *({"t": each} for each in stated if not isinstance(each, xarray.Dataset))]:
            after = constrain(data, MEAN, GLOBE, std=std)
            xarray.testing.assert_identical(after if data is not DATA else after.t, expected[name])


def test_weights_of_one_make_a_plain_sum_over_any_dimensions():
    load = xarray.DataArray(np.ones((3, 4), dtype="float32"), dims=("t", "region"), name="load")
    for weights in (1, 1.0, xarray.DataArray(1), xarray.DataArray(np.ones(4), dims="region")):
        for std in (None, 0.5):
            after = constrain(load, Budget("load", 5.0, weights=weights), "region", std=std)
            np.testing.assert_allclose(after.sum("region"), 5.0, rtol=1e-6)  # float32
    doubled = constrain(load, Budget({"load": 2.0}, 5.0, weights=3), "region")
    np.testing.assert_allclose(6 * doubled.sum("region"), 5.0, rtol=1e-6)
    layers = xarray.DataArray(np.ones((2, 6, 8)), dims=("level", *GLOBE), name="load")
    np.testing.assert_allclose(constrain(layers, Budget("load", 5.0, weights=1), ("level", *GLOBE)).sum(), 5.0)


@pytest.mark.parametrize("chunked", [False, True])
def test_the_deviations_under_the_laws_are_those_of_the_library(chunked):
    laws, std = [Budget("t", TOTALS), Budget({"t": 1.0, "rain": 1 + STD}, 295.0)], {"t": STD, "rain": 0.1}
    given = DATA.chunk(time=1) if chunked else DATA
    after, deviation = constrain(given, laws, GLOBE, std=std, return_std=True)
    xarray.testing.assert_identical(after.compute(), constrain(given, laws, GLOBE, std=std).compute())
    assert list(deviation.data_vars) == ["t", "rain"]
    assert deviation.rain.dims == DATA.rain.dims
    assert deviation.t.attrs["units"] == "K"
    areas = (area_fractions(DATA, GLOBE) + 0 * DATA.t[0]).values
    weights = np.concatenate([areas.ravel(), (areas * (1 + STD.values[:, None])).ravel()])
    G = torch.tensor(np.stack([np.where(np.arange(96) < 48, weights, 0.0), weights]))
    prior = torch.tensor(np.concatenate([np.repeat(STD.values, 8), np.full(48, 0.1)]))
    under = condition(Normal(torch.zeros(96).double(), prior), LinearConstraint(G, torch.zeros(2))).stddev.numpy()
    for name, part in zip(("t", "rain"), np.split(under, 2), strict=True):
        for time in range(3):
            found = deviation[name].isel(time=time).transpose(*GLOBE).values.ravel()
            np.testing.assert_allclose(found, part, rtol=1e-10)


def test_deviations_of_one_array_under_bounds_and_with_missing_values():
    rain, ocean = DATA.rain.astype("float32"), xarray.DataArray(RANDOM.random((6, 8)) > 0.3, dims=GLOBE)
    weights = area_fractions(DATA, GLOBE).where(ocean, 0.0)
    law = Budget("rain", 0.1, weights=weights)
    after, deviation = constrain(rain.where(ocean), law, GLOBE, std=0.3, bounds={"rain": (0.0, None)}, return_std=True)
    assert (deviation.name, deviation.dtype, deviation.dims) == ("rain", np.float32, rain.dims)
    assert (deviation.isnull() == after.isnull()).all()
    assert float(after.min()) >= 0
    assert 0 < float(deviation.max()) < 0.33  # 0.3, known to 3 % by 500 draws


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_orders_say_nothing_about_the_partners_of_missing_values(dtype):
    """Snow may be missing at places that vary in time, rain on land; what is there moves as without an order there."""
    data, holes = globe(dtype), xarray.DataArray(RANDOM.random((3, 6, 8)) > 0.6, dims=("time", *GLOBE))
    ocean = xarray.DataArray(RANDOM.random((6, 8)) > 0.3, dims=GLOBE)
    data = data.assign(snow=(data.snow + 0.3).where(~holes), rain=data.rain.where(ocean), t=data.t - 280)
    law = Budget("rain", 0.45, weights=area_fractions(DATA, GLOBE).where(ocean, 0.0))
    laws, std = [law, Budget("t", 1.0)], {"rain": 0.1, "snow": 0.1, "t": 1.0}
    options = {"std": std, "bounds": {"rain": (0.0, None)}, "at_most": {"snow": "rain"}}
    after, deviation = constrain(data, laws, GLOBE, **options, return_std=True)
    for name in ("rain", "snow"):
        xarray.testing.assert_equal(after[name].isnull(), data[name].isnull())
        xarray.testing.assert_equal(deviation[name].isnull(), data[name].isnull())
    alone = (after.snow == data.snow) | data.snow.isnull()
    assert alone.where(~ocean, True).all(), "snow where rain is missing stays as it is"
    both = ocean & ~holes
    rounding = np.finfo(dtype).eps
    assert float((after.snow - after.rain).where(both).max()) <= rounding
    assert (data.snow > data.rain).where(both, False).any()
    np.testing.assert_allclose((after.rain * law.weights).sum(GLOBE), 0.45, rtol=10 * rounding)
    in_chunks = constrain(data.chunk(time=1), laws, GLOBE, **options)
    # each time alone has other Newton steps, which end at 1e-12 of values of size 1
    tolerance = max(1e-11, 4 * rounding)
    xarray.testing.assert_allclose(in_chunks.compute(), after, rtol=tolerance, atol=tolerance)
