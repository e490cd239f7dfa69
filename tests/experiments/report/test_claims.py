"""Sentences of the results hold in the released records: those with numbers of these, and all that say "n times",
"closest", "never", "always" or "best".
"""

import re
from collections.abc import Callable, Iterable, Sequence

import pandas as pd
import pytest

from experiments.records.paired import EQUAL, LOSES, WINS, Difference, against, paired_difference, verdicts
from experiments.records.record import published
from experiments.records.release import released_results
from experiments.report.tables import results_of
from solvers.problems import PROBLEMS
from tests.documents import DOCS
from tests.experiments.report.statements import STATEMENTS

NUMBER = r"(?:\d[\d.,]*|one|two|three|four|five|six|seven|eight|nine|ten)"
CLAIM = re.compile(rf"\b{NUMBER}(?: to {NUMBER})? times\b|\b(?:closest|never|always|best)\b", re.IGNORECASE)
L2, VALUE, SLOPE, FINER = "relative_l2", "wall_error", "slope_error", "slope_error_finer"
GRADIENTS = {"heat_neumann": "", "heat_independent": "gradients", "wave_neumann": ""}
"""Problems with given gradients, and a part of the names of these cases."""
CELLS = "single-cells"
"""The case of averages over cells, with smaller networks than the others."""
HARD = ("viscous_burgers", "reaction_diffusion", "darcy", "advection_diffusion", "basin")


def of(name: str, case: str, method: str, score: str = L2) -> float:
    """A released score, mean over seeds and functions."""
    return float(results_of(name).numbers[score][case, method])


def over(name: str, cases: Iterable[str], pair: tuple[str, str], score: str = L2) -> list[float]:
    """A score of the first method over that of the second, by case."""
    return [of(name, case, pair[0], score) / of(name, case, pair[1], score) for case in cases]


def to(values: Iterable[float], digits: int = 0) -> str:
    """The smallest and the largest value."""
    found = sorted(values)
    return f"{found[0]:.{digits}f} to {found[-1]:.{digits}f}"


def first_seed(name: str, score: str, pair: tuple[str, str], part: str = "") -> list[float]:
    """The first method's score over the second's by case, as the table at the sides has it; the FNO if none is."""
    stored = released_results(name).records
    means = stored[stored["seed"] == stored["seed"].min()].pivot_table("mean", ["case", "method"], "score")
    cases = [case for case in means.index.levels[0] if part in case and case != CELLS] if score in means else []
    found = [means[score][case].dropna() for case in cases]
    pairs = [(each.get(pair[0], each.get("fno")), each.get(pair[1])) for each in found]
    return [first / second for first, second in pairs if first and second]


def at_walls(score: str, names: Iterable[str]) -> list[float]:
    pair = ("boundary-channels", "boon-default")
    return [x for name in names for x in first_seed(name, score, pair, GRADIENTS.get(name, ""))]


def slopes(score: str, before: str, after: str) -> list[float]:
    return [x for name in ("heat_neumann", "heat_independent") for x in first_seed(name, score, (before, after))]


def beyond_training() -> list[str]:
    """Errors of operators of heat over those on their training samples' range, number and grid."""
    errors = results_of("beyond_training").numbers[L2].unstack().dropna()
    grown = errors / errors.loc["samples-500"]
    finest = grown[grown.index.str.startswith("nodes-")].max()
    noisy, few, worse = errors.loc["noise-0.05"], errors.loc["samples-50"], finest["boon-without-schur-channels"]
    assert noisy.max() < 1.25 * noisy.min()
    assert few["boon-default"] / few["boundary-channels"] == pytest.approx(0.5, abs=0.05)
    assert finest["boundary-channels"] < 1.1
    return [
        f"errors are {to(grown.loc['samples-50'])} times as large",
        f"errors are {to(grown.loc['outside-1'])} times as large: no",
        f"with up to {finest['boon-default']:.1f} times its error",
        f"it gets up to {float(f'{worse:.2g}'):.0f} times worse",
    ]


def boundary() -> list[str]:
    regression = ("pca", "boon-default")
    squares = [x for name in HARD[2:] for x in over(name, ["single"], regression) if x > 1]
    loss, channels = ("boon-default", "boon-slopes"), ("boundary-channels", "boundary-channels-slopes")
    changed, paid = ([100 / x - 100 for x in slopes(L2, *pair)] for pair in (loss, channels))
    return [
        f"it has {to(squares, 1).removesuffix('.0')} times the error of the default, "
        f"on intervals {to(x for name in HARD[:2] for x in over(name, ['single'], regression))} times",
        f"the slope is {to(at_walls(SLOPE, GRADIENTS))} times better**, on four times as many nodes "
        f"{to(at_walls(FINER, GRADIENTS))} times, and the wall's value {to(at_walls(VALUE, GRADIENTS), 1)} times",
        f"the wall's value is {to(at_walls(VALUE, HARD), 1)} times better",
        f"on Burgers up to {1 / min(at_walls(FINER, ['burgers_dirichlet'])):.1f} times, on Stokes' problem "
        f"{to((1 / x for x in at_walls(FINER, ['stokes'])), 1)} times on finer nodes",
        f"gets {to(slopes(SLOPE, *loss))} times better where all walls have gradients, on four times as many nodes "
        f"{to(slopes(FINER, *loss))} times",
        f"for a relative L2 that changes by −{-min(changed):.0f} to +{max(changed):.0f} %",
        f"correction pays {to(paid)} % of its L2",
        *in_cells(),
        *beyond_training(),
    ]


def in_cells() -> list[str]:
    """Darcy's flow as averages over cells, with conditions at the faces and at nodes; verdicts are paired."""
    channels, prescription, default = "boundary-channels", "output-prescription", "boon-default"
    scores = released_results("darcy").scores
    said = against(channels, scores, CELLS, L2)
    assert (said[f"{prescription}-nodes"], said[prescription], said[default]) == (LOSES, EQUAL, WINS)
    assert set(against(default, scores, CELLS, L2).values()) == {LOSES}
    found = {key: of("darcy", CELLS, key) for key in (channels, prescription, default)}
    taken = [of("darcy", CELLS, f"{key}-nodes") for key in (prescription, default)]
    worse = [x for key in (prescription, default) for x in over("darcy", [CELLS], (f"{key}-nodes", key), SLOPE)]
    return [
        "has a relative L2 of {:.3f}, output prescription {:.3f} and the default {:.3f}".format(*found.values()),
        "prescription does harm, {:.3f}, and the default has {:.3f}".format(*taken),
        "wall slopes are {:.1f} and {:.1f} times worse".format(*worse),
    ]


def _short(error: float) -> str:
    return f"{error:.1e}".replace("e-0", "e-")


def papers() -> list[str]:
    waves = results_of("wave_neumann").numbers[L2]["multi-16-modes"].drop("pca")
    independent = results_of("heat_independent").numbers[L2].unstack().drop(columns="pca")
    told = independent["fno"] / independent.min(axis=1)
    assert 0.3 < waves["boon-default"] / waves[[not key.startswith("boon") for key in waves.index]].min() < 0.36
    stokes = results_of("stokes").numbers.loc["single-0.02"]
    error, slope = stokes[L2], stokes[FINER]
    porous, stefan = (results_of(name).numbers["CRPS"].unstack() for name in ("porous_medium", "stefan"))
    soft, exact = (f"probconserv-anp{end}" for end in ("-quadrature-variance", ""))
    assert porous.loc["m=1", soft] > porous.loc["m=1", exact]
    assert abs(stefan.loc["u=0.6", soft] / stefan.loc["u=0.6", exact] - 1) < 0.02
    assert PROBLEMS["diffusion"].total(0.5, 3.0) == 0
    mse, theirs = (
        results_of("porous_medium").numbers["MSE"].unstack(),
        published("probconserv")["recomputed_as_released"],
    )
    return [
        *(
            f"| {m} | "
            + " | ".join(
                f"{_short(without)} → {_short(with_law)}"
                for without, with_law in (
                    [theirs["porous_medium"][case][key]["MSE"][0] for key in ("anp", "probconserv-anp")],
                    mse.loc[case, ["anp-authors", "probconserv-anp-authors"]],
                    mse.loc[case, ["anp", "probconserv-anp"]],
                )
            )
            for m, case in ((1, "m=1"), (3, "m=3"), (6, "m=6"))
        ),
        f"is {min(told):.0f} to {float(f'{max(told):.2g}'):.0f} times worse than the operator with the smallest error",
        "a third of the error of the best other operator",
        f"their form has {error['boon-paper'] / error['fno']:.2f} times the error of the FNO, and the default "
        f"{error['boon-default'] / error['boon-paper']:.2f} times that of their form",
        f"off by {slope['boon-paper']:.0f} times its size (the FNO's by {slope['fno']:.2f} times)",
        "whose total is always zero",
        "at m = 1 the exact law is best",
        "changes the CRPS by less than a new training does",
    ]


def media() -> list[str]:
    def kind(name: str, score: str, pair: tuple[str, str], counts: Iterable[int] = (5, 10, 20, 40)) -> list[float]:
        return over("gpme", [f"{name}-{count}" for count in counts], pair, score)

    boxes = [
        (f"law-{box}", f"bounded-{box}") for box in ("matern", "smoother", "anp", "gaussian", "empirical", "local")
    ]
    gains = [100 - 100 / x for box in boxes for x in kind("plume", "CRPS", box)]
    law = {m: [kind(k, "MSE", ("local", "law-local"), [m])[0] for k in ("inflow", "shifted")] for m in (5, 10)}
    ahead = [100 - 100 / x for x in kind("insulated", "CRPS", ("bounded-anp", "bounded-local"))]
    return [
        f"of the neural process by {to(ahead)} %",
        f"is {to(kind('insulated', 'CRPS', ('bounded-search', 'bounded-local')), 1)} times worse",
        "falls by {:.1f} times with inflow and by {:.1f} times on other functions".format(*law[5]),
        "at M = 10 by {:.1f} and {:.1f} times".format(*law[10]),
        f"lowers CRPS by {to(gains)} % but for the search, and that of the plume's area (where u > 0.2) "
        f"up to {max(x for box in boxes for x in kind('plume', 'area_CRPS', box)):.0f} times",
    ]


def open_systems() -> list[str]:
    numbers = results_of("open_rollouts").numbers
    errors = numbers["open_error"].unstack()
    bases = "regression", "fno", "increments"

    def gains(way: str, base: str = "fno", cases: Iterable[str] = ("heat", "robin")) -> list[float]:
        return [errors[base][case] / errors[f"{base}{way}"][case] for case in cases]

    walls = [x for base in bases for x in gains("-walls", base, ("heat", "robin", "burgers"))]
    modelled = [gains("-uniform", base, ("burgers",))[0] for base in ("fno", "increments")]

    def long_gain(score: str, way: str, base: str = "fno") -> float:
        return numbers[score]["heat-long", base] / numbers[score]["heat-long", f"{base}{way}"]

    slopes = [numbers[SLOPE]["heat", key] for key in ("fno", "fno-walls")]
    best = errors.drop(columns="emulator").min(axis=1)
    ratio, long = errors["emulator"] / best, errors.loc["heat-long"]
    assert ratio["channel"] < 1.005
    assert 0.9 < modelled[1] < 1.1
    assert numbers["wall_flux_error"]["heat-long", "fno-uniform"] > numbers["wall_flux_error"]["heat-long", "fno"]
    met = numbers["boundary"].unstack().loc["robin"]
    assert met[[key for key in met.index if key.endswith("-walls-uniform")]].between(5e-4, 7e-3).all()
    assert met["fno-walls-response"] < 3e-6
    assert numbers["boundary"].unstack().loc["heat", [f"{base}-walls-response" for base in bases]].max() < 2e-5
    return [
        f"it is {to(walls, 2)} times that with them",
        f"{modelled[0]:.1f} times for the FNO, while increments gain nothing",
        "off by {:.1f} times their size, with the walls prescribed by {:.2f}".format(*slopes),
        "of an FNO {:.1f} times on heat and {:.1f} times on the rod".format(*gains("-uniform")),
        "of a regression {:.1f} and {:.1f} times".format(*gains("-uniform", "regression")),
        f"gains less, {errors['fno']['channel'] / errors['fno-uniform']['channel']:.2f} times for the FNO",
        "from {:.3f} to {:.3f}".format(*errors.loc["channel-long", ["regression", "regression-uniform"]]),
        "of increments {:.1f} times on heat".format(*gains("-uniform", "increments")),
        f"it *raises* that of increments, {1 / gains('-uniform', 'increments')[1]:.1f} times",
        "{:.1f} and {:.1f} times for an FNO".format(*gains("-walls-response")),
        "{:.1f} times on heat, {:.1f} times on the rod".format(*gains("-default-response")),
        "the balance lowers the error of an FNO {:.0f} times".format(long["fno"] / long["fno-uniform"]),
        f"how often it is wrong about the budget {long_gain('budget_error', '-uniform'):.1f} times",
        f"the error of the heat that passes the walls {long_gain('wall_flux_error', '-walls'):.1f} times",
        f"of a regression it is {long_gain('wall_flux_error', '-walls', 'regression'):.1f} times",
        f"gets worse, {long['regression-walls-response'] / long['regression']:.1f} times",
        f"has {ratio['heat']:.2f} times the least error of all rows on heat and {ratio['robin']:.2f} times on the rod "
        "and in the channel",
        f"On Burgers it has {ratio['burgers']:.2f} times the least",
        "{:.3f} and {:.3f}".format(errors["regression"]["robin"], errors["increments-walls"]["robin"]),
        "it has {:.1f} and {:.1f} times the least".format(*ratio[["heat-long", "channel-long"]]),
    ]


def query_laws() -> list[str]:
    """What an update by covariance is ahead of, in paired standard errors and verdicts over all rows of the table."""
    name, ours = "query_laws", "law-weighted"
    stored = released_results(name).scores.set_index(["case", "method", "seed", "function"]).sort_index()

    def apart(case: str, rival: str, score: str = "CRPS") -> Difference:
        return paired_difference(stored[score][case, ours], stored[score][case, rival])

    def errors(rivals: Sequence[str], counts: Sequence[int]) -> list[float]:
        found = [apart(f"windows-{count}", rival) for count in counts for rival in rivals]
        return [-each.mean / each.error for each in found]

    alike, told = ("identity", "hardc"), ("search", "identity-search")
    smoothers = ("esmda", "law-gaussian")
    assert min(errors((*alike, *told), (4, 8, 16))) > 3, "the acceptance of the experiment"
    network = errors(("network",), (2, 4, 8, 16))
    assert min(network) > 3
    meeting = ("law-local", "law-anp", "law-network", "identity-search", "identity-network", *alike, *smoothers)
    decisions = [(rival, count) for rival in meeting for count in (2, 4, 8, 16)]
    found = verdicts([apart(f"windows-{count}", rival, "Brier") for rival, count in decisions])
    assert {pair: said for pair, said in zip(decisions, found, strict=True) if said != EQUAL} == {("hardc", 16): WINS}
    mean = stored.groupby(level=["case", "method"]).mean()
    brier = {method: 100 * mean["Brier"]["windows-8", method] for method in ("none", "identity", ours)}
    crps = mean["CRPS"]
    bounded = [
        100 - 100 * crps[case, f"bounded-{ours}"] / crps[case, ours] for case in ("windows-4-empty", "windows-4")
    ]
    noisy = [crps["windows-4-noisy", method] / crps["windows-4-noisy", "none"] for method in ("identity", ours)]
    late = over(name, [f"windows-{count}" for count in (2, 4, 8, 16)], ("law-local", ours), "CRPS")
    return [
        f"by {to(errors((*alike, *told), (4, 8, 16)))} paired standard errors",
        f"by {to(errors(smoothers, (4, 8, 16)), 1)} of them",
        f"gives it the windows as inputs, by {to(network)}",
        f"from {brier['none']:.1f} to {brier['identity']:.1f} hundredths, the update to {brier[ours]:.2f}",
        f"and of its draws under the update by {to(errors(('law-network',), (2, 4, 8, 16)), 1)}",
        f"costs {to(100 * x - 100 for x in late)} % of CRPS",
        f"has a CRPS {noisy[0]:.1f} times that of no law",
        f"The update has {noisy[1]:.2f} times that",
        "lowers the CRPS of the update by {:.0f} %, with four ordinary windows by {:.0f} %".format(*bounded),
        *rays(mean, {count: apart(f"rays-{count}", "search") for count in (4, 16)}),
    ]


def rays(mean: pd.DataFrame, search: dict[int, Difference]) -> list[str]:
    """Laws on the square, where the search comes first with few of them."""
    few, many = mean.loc["rays-4"], mean.loc["rays-16"]
    ahead = {count: -each.mean / each.error for count, each in search.items()}
    methods = ("law-weighted", "none", "identity", "esmda", "search")
    ours, none, projected, smoother, found = (many["CRPS"][method] for method in methods)
    covered = {method: [100 * part["coverage90"][method] for part in (few, many)] for method in ("search", methods[0])}
    return [
        f"With 16 rays the update has a CRPS of {ours:.3f}, no law {none:.3f}, projection {projected:.3f}, "
        f"ES-MDA {smoother:.3f} and the search {found:.3f}, {ahead[16]:.1f} paired standard errors behind",
        f"the search is ahead, {few['CRPS']['search']:.3f} to {few['CRPS'][methods[0]]:.3f}, by {-ahead[4]:.1f} of",
        "intervals of 90 % hold {:.0f} and {:.0f} %".format(*covered["search"]),
        "the update's {:.0f} and {:.0f} % of the values".format(*covered[methods[0]]),
    ]


def predictions() -> list[str]:
    downscaled = results_of("downscaling").numbers["CRPS"].unstack()
    assert downscaled.idxmin(axis=1).item() == "ridge-update"
    ratio = results_of("end_to_end").numbers["ratio"].unstack()["in-training"]
    seen = results_of("observations").numbers["CRPS"].unstack()
    *_, second, worst = sorted(100 * (seen["calibrated"] / seen["none"] - 1))
    return [
        *media(),
        f"is {to(ratio[[f'porous_medium-{n}' for n in (1, 2, 3)]], 2)} times that of the operator updated after",
        f"{ratio['advection-0']:.2f} times on advection in range",
        f"{to(ratio[[f'{n}-0' for n in ('diffusion', 'porous_medium', 'stefan')]], 1)} times in range on the other",
        f"is never more than {second:.1f} % above that of no law ({worst:.1f} % where the rollout",
        "The two together are best",
        *query_laws(),
    ]


def out_of_range() -> list[str]:
    exact = "probconserv-anp"
    ratio = of("stefan", "u=0.5", exact, "MSE_paper") / of("stefan", "u=0.5", exact, "MSE")
    likelihood = results_of("stefan").numbers["LL"]["u=0.5"][exact]
    return [f"errs {ratio:.1f} times as much", f"log-likelihood is −{-likelihood:.0f}"]


def samplers() -> list[str]:
    """Errors of the mean under laws of one field of Stokes' second problem."""
    errors = results_of("generate_stokes-study").numbers["mean_error"].drop("truth", level="method")
    at_50 = errors[errors.index.get_level_values("method").str.endswith("-50")]
    for case, best in {"three": "twisted", "deep": "twisted", "near": "conditioned", "initial": "conditioned"}.items():
        assert at_50[case].idxmin() == f"{best}-50", case
    three, near, initial = at_50["three"], at_50["near"], at_50["initial"]
    return [
        "under three values ± 0.05 particles are closest to the exact posterior",
        f"is {three['twisted-50']:.0e}, of *ours* {three['conditioned-50']:.0e}, of ECI {three['eci-50']:.2f}",
        f"the local covariance is closest, with {near['conditioned-50']:.0e} and {initial['conditioned-50']:.0e}",
    ]


def undecided() -> str:
    """Where no rival with the same training fields is two paired standard errors apart from ours."""
    scores = released_results("generate_gpme").scores.groupby(["case", "method", "function"])["energy"].mean()
    for case in ("values-2", "values-total-2", "total", "totals", "bounds"):
        found = scores[case].unstack("method")
        apart = found[["training-fields", "gaussian", "smoother"]].sub(found["ours"], axis="index").dropna()
        assert (apart.mean() / apart.sem()).abs().max() < 2, case
    return "At M = 2, and under totals or bounds alone, the best cannot be told apart"


CLAIMS: dict[str, Callable[[], list[str]]] = {
    "results/predictions": predictions,
    "results/rollouts": open_systems,
    "results/boundary": boundary,
    "results/out_of_range": out_of_range,
    "reproduction": papers,
    "guides/generated_fields": lambda: [*samplers(), undecided()],
}
SET_UP = {
    "reproduction": [
        *("the best of each case in bold", "published for BOON", "those of the authors' notebooks"),
        *("9e-4 is published for 25 times of other fields", "25 times has training seeds 1, 2 and 3"),
    ],
}
"""What sentences say that tell how something was done."""


def claims_of(page: str) -> list[str]:
    """Sentences of a page outside its tables and code that make such a claim."""
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8")
    text = re.sub(r"```.*?```|^\|.*?$|^!\[.*?$|^<!--.*?$", "", text, flags=re.DOTALL | re.MULTILINE)
    parts = [" ".join(part.split()) for part in re.split(r"\n\s*\n|\n(?=[*#] )", text)]
    return [each for part in parts for each in re.split(r"(?<=[.:?!])\*{0,2} (?=[A-Z*])", part) if CLAIM.search(each)]


@pytest.mark.parametrize("page", CLAIMS)
def test_claims_hold_in_the_released_records(page: str) -> None:
    known = [*CLAIMS[page](), *SET_UP.get(page, ())]
    known += [sentence for make in STATEMENTS.get(page, ()) for sentence in make()]
    claims, text = claims_of(page), " ".join((DOCS / f"{page}.md").read_text(encoding="utf-8").split())
    assert not [part for part in known if part not in text], f"docs/{page}.md should say so"
    assert not [each for each in claims if not any(part in each or each in part for part in known)], "no record says so"
