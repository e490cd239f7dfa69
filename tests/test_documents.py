"""The documents show what their code prints, fit the page, and what the tutorials say of their results is so."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from itertools import pairwise
from math import pi
from pathlib import Path

import pytest
import torch

from boon import boundary_error
from docs.gallery_drawings import DRAWINGS
from experiments.cli import main
from experiments.registry import register
from probconserv import Monotone, NonNegative, condition, integral
from solvers import CellGrid, ConvectiveLaw, Dirichlet, Outflow, solve
from tests.documents import (
    DOCS,
    ROOT,
    TUTORIALS,
    agree,
    missing_packages,
    pages_with_output,
    run_blocks,
    shown_output,
    with_output,
)
from tests.experiments.stub import forget

pytestmark = pytest.mark.long

PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "CONTRIBUTING.md"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], dict]]:
    """Runs a page once in an empty folder, on one thread; gives its names, ``folder`` and ``printed``."""
    threads = torch.get_num_threads()

    @cache
    def run_page(page: Path) -> dict:
        defined: dict = {}
        with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
            patch.chdir(tmp_path_factory.mktemp(page.stem))
            printed = list(run_blocks(page, defined, missing_packages()))
            return defined | {"printed": printed, "folder": Path.cwd()}

    torch.set_num_threads(1)
    yield run_page
    torch.set_num_threads(threads)


@pytest.mark.parametrize("page", pages_with_output(), ids=lambda page: page.stem)
def test_a_page_shows_what_its_blocks_print(page: Path, run: Callable[[Path], dict]) -> None:
    for shown, printed in zip(shown_output(page), run(page)["printed"], strict=True):
        assert printed is None or agree(shown, printed), (
            f"{page.name} is stale; python -m tests.documents {page.relative_to(ROOT)} renews it. It shows\n{shown}\n"
            f"where the code prints\n{printed}"
        )


def test_output_is_compared_up_to_what_processors_change() -> None:
    assert agree("off by 3e-17, MSE 0.0089, 66% of 8\n", "off by -2e-16, MSE 0.0100, 65% of 8\n")
    for other in ("off by 3e-5, MSE 0.0089, 66% of 8", "off by 3e-17, MSE 0.0189, 66% of 8", "by 3e-17, MSE 0.0089"):
        assert not agree("off by 3e-17, MSE 0.0089, 66% of 8", other)
    assert not agree("(8, 1, 33)", "(8, 1, 34)")


def test_output_is_put_below_its_block() -> None:
    page = "```python\nprint(1)\n```\n\nText.\n\n```python\nx = 1\n```\n"
    renewed = with_output(page, ["1\n", ""])
    assert '```python\nprint(1)\n```\n\n```text title="Output"\n1\n```\n\nText.' in renewed
    assert with_output(renewed, ["", None]) == page


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_code_fits_eighty_columns(page: Path) -> None:
    blocks = re.findall(r"^```\w.*?\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    assert not [line for block in blocks for line in block.splitlines() if len(line) > 80]


def test_names_that_moved_are_where_the_page_sends_them() -> None:
    text = (DOCS / "from_0_1_to_0_2.md").read_text(encoding="utf-8")
    moved = text.partition("| import it from |")[2].partition("\n\n")[0]
    rows = [re.findall(r"`([\w.]+)`", row) for row in moved.splitlines() if "`" in row]
    assert len(rows) > 5
    for *names, module in rows:
        assert all(hasattr(import_module(module), name) for name in names)


def test_pictures_of_the_gallery_are_described_and_lead_to_code() -> None:
    entries = (DOCS / "gallery.md").read_text(encoding="utf-8").split("\n### ")[1:]
    shown = set()
    for entry in entries:
        (picture,) = re.findall(r"^!\[(.+)\]\((.+)\)$", entry, flags=re.MULTILINE)
        assert len(picture[0]) > 40
        assert re.search(r"(Code|Commands|Results): \[", entry), entry
        shown.add(picture[1])
    assert {f"figures/gallery-{name}.png" for name in DRAWINGS} == {name for name in shown if "gallery-" in name}


def test_the_navigation_has_every_page_once() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    pages = re.findall(r"[\w./]+\.md", navigation)
    assert len(pages) == len(set(pages))
    assert {page.relative_to(ROOT).as_posix() for page in DOCS.rglob("*.md")} <= set(pages)


@pytest.fixture(scope="module")
def own_model(run: Callable[[Path], dict]) -> dict:
    """What the tutorial on the reader's model defines."""
    return run(TUTORIALS / "own_model.md")


@pytest.fixture(scope="module")
def boundary(run: Callable[[Path], dict]) -> dict:
    """What the tutorial on boundary conditions defines."""
    return run(TUTORIALS / "boundary_conditions.md")


@pytest.fixture(scope="module")
def new_law(run: Callable[[Path], dict]) -> dict:
    """What the tutorial on a new law defines."""
    return run(TUTORIALS / "new_law.md")


def test_the_law_holds_after_the_update_and_moves_by_the_variance(own_model: dict) -> None:
    law, prediction, posterior, change = (own_model[name] for name in ("law", "prediction", "posterior", "change"))
    assert posterior.mean.shape == (200, 101)
    assert law.residual(posterior.mean).abs().max() < 1e-6  # rounding of a float32 field
    assert law.residual(posterior.rsample(torch.Size([2]))).abs().max() < 1e-6
    factor = own_model["ratio"].median(dim=-1, keepdim=True).values
    assert torch.allclose(change[:, 1:-1], factor * prediction.variance[:, 1:-1], atol=1e-5)
    assert torch.allclose(integral(own_model["x"], own_model["total"]).b, law.b)
    assert law.residual(own_model["truth"]).abs().max() < 1e-4


def test_bounds_hold_with_the_law(own_model: dict) -> None:
    law, bounded = own_model["law"], own_model["bounded"]
    for field in (bounded.mean, bounded.rsample(torch.Size([2]))):
        assert law.residual(field).abs().max() < 1e-6
        assert field.min() >= 0
        assert field.max() <= 1
    assert not hasattr(bounded, "log_prob")
    falling = condition(own_model["prediction"], law & NonNegative() & Monotone(decreasing=True))
    assert falling.mean.diff().max() <= 0 <= falling.mean.min()


def test_training_through_the_law_pays_and_displacement_is_best(own_model: dict) -> None:
    reading, total, errors = own_model["reading"], own_model["total"], own_model["errors"]
    assert torch.allclose(own_model["model"](reading, total).mean, own_model["posterior"].mean, atol=1e-5)
    assert own_model["through_law"] < own_model["without_law"]
    assert min(errors, key=errors.get) == "displaced"
    for answer in own_model["answers"].values():
        assert own_model["law"].residual(answer.mean).abs().max() < 1e-6


def test_every_figure_of_a_tutorial_is_drawn_by_it(run: Callable[[Path], dict]) -> None:
    for page in sorted(TUTORIALS.glob("*.md")):
        shown = set(re.findall(r"\(\.\./figures/(tutorial-[\w-]+\.png)\)", page.read_text(encoding="utf-8")))
        if shown:
            assert shown == {path.name for path in run(page)["folder"].glob("*.png")}
            assert all((DOCS / "figures" / name).is_file() for name in shown)


def test_the_wrapped_operator_meets_its_conditions_and_the_plain_one_does_not(boundary: dict) -> None:
    a, truth, plain, exact = (boundary[name] for name in ("a", "truth", "plain", "exact"))
    assert boundary_error(plain(a), exact.discretise(a)).relative_l2 > 1e-3
    assert boundary_error(exact(a), exact.discretise(a)).relative_l2 < 1e-6
    for operator in (plain, exact):
        assert boundary["relative_l2"](operator(a), truth) < 0.1


def test_conditions_hold_on_every_grid_in_both_precisions(boundary: dict) -> None:
    assert len(boundary["errors"]) == 4
    for value, single, double in boundary["errors"].values():
        assert value == 0
        assert single <= 1e-6
        assert double <= 1e-12


def test_the_discrete_gradient_differs_by_the_square_of_the_spacing(boundary: dict) -> None:
    coarse_to_fine = list(boundary["truncation"].values())
    assert all(fine < coarse / 3.5 for coarse, fine in pairwise(coarse_to_fine))


def test_values_may_change_from_sample_to_sample_and_in_time(boundary: dict) -> None:
    assert torch.equal(boundary["u_per_sample"][:, :, 0], boundary["left"])
    u, times = boundary["u_history"], torch.linspace(0.0, 2.0, 41, dtype=torch.float64)
    assert torch.equal(u[1, 0, 0], torch.sin(2 * pi * times).float())
    gradient = (3 * u[:, :, -1] - 4 * u[:, :, -2] + u[:, :, -3]) / (2 / 32)
    # The last node is changed where it meets no other side: rounding of u over the spacing.
    assert torch.allclose(gradient, boundary["heating"], atol=1e-6 * 4 * 32)


def test_prescription_leaves_a_trained_module_alone_inside(boundary: dict) -> None:
    bare, wrapped = boundary["u_bare"], boundary["u_wrapped"]
    assert torch.equal(bare[..., 1:-1], wrapped[..., 1:-1])
    assert boundary_error(wrapped, boundary["wrapped"].discretise(wrapped)).relative_maximum <= 1e-6


def test_the_neuraloperator_fno_meets_its_conditions(boundary: dict) -> None:
    pytest.importorskip("neuralop")
    for name in ("output", "inside"):
        u = boundary[f"u_{name}"]
        operator = boundary["at_output" if name == "output" else name]
        assert boundary_error(u, operator.discretise(u)).relative_maximum <= 1e-6


def test_corrections_differ_beside_the_wall(boundary: dict) -> None:
    kinks, moved = boundary["kinks"], boundary["moved"]
    assert kinks["Prescription"] > 5 * kinks["SmoothExtension"]
    assert moved["Prescription"] == 2
    assert moved["SmoothExtension"] > 10


def test_cars_are_kept_and_the_scheme_converges(new_law: dict) -> None:
    result, errors = new_law["result"], list(new_law["errors"].values())
    assert torch.allclose(result.total, new_law["lengths"][:, None].expand(3, 3), atol=1e-12)
    assert result.imbalance.abs().max() < 1e-12
    assert all(fine < coarse / 1.7 for coarse, fine in pairwise(errors))
    smeared = (new_law["smeared"].values - new_law["averages"](new_law["road"])).abs().mean()
    assert smeared > 1.5 * new_law["errors"][200]


def test_the_closed_form_is_a_weak_solution(new_law: dict) -> None:
    density, cars_before, rear = new_law["density"], new_law["cars_before"], new_law["rear"]
    x = torch.linspace(0.0, 1.0, 2001, dtype=torch.float64)
    inner = 0.5 * (x[1:] + x[:-1])
    for time in (0.1, 0.3, 0.5):
        contents = cars_before(time, x, 0.2).diff() * 2000
        # Equal in every interval but that of the last car, since the density is linear in between.
        assert ((contents - density(time, inner, 0.2)).abs() > 1e-9).sum() <= 2
        assert float(cars_before(time, x, 0.2)[-1] - cars_before(time, x, 0.2)[0]) == pytest.approx(0.2, abs=1e-12)
    t = torch.tensor(0.4, dtype=torch.float64, requires_grad=True)
    position = rear(t, torch.tensor(0.2, dtype=torch.float64))
    (speed,) = torch.autograd.grad(position, t)
    behind_the_shock = float(density(0.4, position.detach() + 0.5 + 1e-9, 0.2))
    assert float(speed) == pytest.approx(1 - behind_the_shock, abs=1e-6)  # Rankine–Hugoniot, nothing behind


@dataclass(frozen=True)
class SShaped(ConvectiveLaw):
    """Buckley–Leverett flux u²/(u² + (1 − u)²): f′ is zero at 0 and at 1 and 2 between."""

    def convective_flux(self, u):
        return u * u / (u * u + (1 - u) ** 2)

    def characteristic_speed(self, u):
        return 2 * u * (1 - u) / (u * u + (1 - u) ** 2) ** 2

    def stationary_points(self):
        return (0.0, 1.0)


def test_an_s_shaped_flux_is_right_as_the_page_says() -> None:
    """f(1) = 1 enters per time, and nothing leaves before the front arrives."""
    result = solve(SShaped(), CellGrid(0.0, 1.0, 400), (Dirichlet(1.0), Outflow()), initial=0.0, times=[0.4])
    assert result.imbalance.abs().max() < 1e-12
    assert float(result.total[0]) == pytest.approx(0.4, abs=1e-4)
    assert float(result.values.min()) >= -1e-12
    assert float(result.values.max()) <= 1.0 + 1e-12


def test_the_process_breaks_the_law_and_its_wrapper_does_not(new_law: dict) -> None:
    law = new_law["law"]
    assert law.residual(new_law["bare"].mean).abs().max() > 1e-4
    assert law.residual(new_law["posterior"].mean).abs().max() < 1e-12


def test_the_new_law_ends_in_a_table_and_figures(new_law: dict, capsys: pytest.CaptureFixture[str]) -> None:
    report, experiment = new_law["report"], new_law["experiment"]
    scores = new_law["scores"]
    assert list(scores.index) == ["truth", "gp", "hardc-gp", "probconserv-gp"]
    assert abs(scores["CE"]["probconserv-gp"]) < 1e-12 < 1e-4 < min(abs(scores["CE"][["gp", "truth"]]))
    assert scores["MSE"]["probconserv-gp"] < scores["MSE"]["gp"]
    assert {path.suffix for path in report.files} >= {".md", ".csv", ".png"}
    register(experiment)
    try:
        assert main(["list"]) == 0
    finally:
        forget(experiment.name)
    assert "green_light" in capsys.readouterr().out
