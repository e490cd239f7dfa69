"""One HTML file with all results: tables ours beside the paper's, figures, costs, and how to make each of them.

Tables are those of the results that ship; of experiments without them, those of a stored run. Figures are those of
stored runs. The page needs no network.
"""

import time
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from experiments.operator_methods import DEFAULT_NAME
from experiments.registry import BENCHMARKS, EXPERIMENTS
from experiments.report_costs import BENCHMARKS_PAGE, measured_costs, training_times
from experiments.report_figures import Fineness, Picture, pictures
from experiments.report_sections import Kind, Section, page_sections
from experiments.report_tables import Cell, Heading, PageTable, glance
from experiments.runs import PACKAGES
from experiments.shipping import ROOT
from experiments.storage import writable_folder, write_bytes
from experiments.tables import format_score

LARGEST_PAGE = 15_000_000  # bytes
FINENESS = (Fineness(width=1800, quality=85), Fineness(width=1200, quality=70), Fineness(width=800, quality=40))
"""Tried in turn until the page is small enough."""
SURROGATES = ("ANP", "ProbConserv-ANP")
OPERATORS = ("FNO", DEFAULT_NAME)
BOTH = ("FNO", "ProbConserv-BOON")


def write_report(
    out: Path, file: Path, shipped: Path = ROOT / "results", costs: Path = BENCHMARKS_PAGE
) -> list[Section]:
    """Writes the page.

    Args:
        out: Folder of all stored runs; it need not exist.
        file: Where the page goes.
        shipped: Folder of the results that ship.
        costs: Markdown with the measured costs; the page says how to measure them if it is not there.

    Returns:
        What the page shows of every experiment.

    Raises:
        OutputFolderError: If the file cannot be written.
        DataFileError: If stored results or a figure are damaged.
    """
    writable_folder(file.parent)
    sections = page_sections(out, shipped)
    content = b""
    for fineness in FINENESS:
        content = render(sections, _drawn(sections, fineness), measured_costs(costs), out).encode()
        if len(content) < LARGEST_PAGE:
            break
    write_bytes(file, content)
    return sections


def render(sections: Sequence[Section], drawn: Mapping[str, Sequence[Picture]], costs: str, out: Path) -> str:
    """The page as HTML.

    Args:
        sections: What it shows of every experiment.
        drawn: Figures by the section's name.
        costs: Measured costs as HTML; may be empty.
        out: Folder of all stored runs, for what the page says about them.
    """
    environment = Environment(
        loader=PackageLoader("experiments", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters["score"] = lambda size: format_score((size, None))
    compared = [table for section in sections for table in section.tables]
    return environment.get_template("report.html").render(
        sections=sections,
        drawn=drawn,
        glances=_glances(sections),
        better=sum(table.better for table in compared),
        compared=sum(table.compared for table in compared),
        conservation=_largest(sections, SURROGATES[1], "CE"),
        boundary=_largest(sections, DEFAULT_NAME, "boundary_relative_max"),
        costs=costs,
        trainings=training_times((section.title, section.content) for section in sections if section.shipped),
        durations=_durations(),
        benchmarks=BENCHMARKS,
        out=out,
        version=metadata.version(PACKAGES[0]),
        date=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def _drawn(sections: Sequence[Section], fineness: Fineness) -> dict[str, list[Picture]]:
    found = [(section.title, figure) for section in sections for figure in section.figures]
    encoded = iter(pictures(found, fineness))
    return {section.name: [next(encoded) for _ in section.figures] for section in sections}


def _glances(sections: Sequence[Section]) -> list[PageTable]:
    """What the constraints do, for conservation laws, boundary conditions and both; without empty tables."""

    def lines(kind: Kind) -> list[tuple[str, str, str, list]]:
        return [
            (section.title, section.labels.get(parameter, parameter), section.name, own)
            for section in sections
            if section.kind == kind and section.name in EXPERIMENTS
            for parameter in dict.fromkeys(row.parameter for row in section.rows)
            for own in [[row for row in section.rows if row.parameter == parameter]]
        ]

    tables = (
        glance(
            "Conservation laws: a neural process without and with its law",
            lines("law"),
            SURROGATES,
            ("CE", "MSE", "LL"),
        ),
        glance(
            "Boundary conditions: a neural operator without and with them",
            lines("boundary"),
            OPERATORS,
            ("boundary_relative", "relative_l2"),
        ),
        glance(
            "Both constraints: an ensemble of operators without and with them",
            lines("both"),
            BOTH,
            ("boundary", "conservation", "CRPS"),
        ),
    )
    return [table for table in tables if table.rows]


def _largest(sections: Sequence[Section], method: str, score: str) -> float | None:
    """Largest size of a score of a method over all experiments; None if there is none."""
    sizes = [
        abs(row.scores[score][0])
        for section in sections
        for row in section.rows
        if row.method == method and score in row.scores
    ]
    return max(sizes, default=None)


def _durations() -> PageTable:
    """How long every preset takes."""
    presets = ("reproduce", "smoke", "laptop", "paper")
    headings = (Heading(text="experiment", numeric=False), *(Heading(text=preset) for preset in presets))
    rows = []
    for name, entry in EXPERIMENTS.items():
        times = entry.readable_durations
        cells = (Cell(text=times[preset]) for preset in presets)
        rows.append((Cell(text=name, note=entry.summary, link=name), *cells))
    return PageTable(caption="Time of every preset on two cores", headings=headings, rows=tuple(rows))
