"""A results page with few results and small figures."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from experiments import report
from experiments.operator_methods import DEFAULT_NAME
from experiments.sweep_table import seed_table
from experiments.tables import Row, paper_rows

PAPER = paper_rows("stefan", "u*=0.6")
OURS = [
    Row("u*=0.6", "truth", {"CE": (1.4e-3, 0.0)}),
    Row("u*=0.6", "ANP", {"CE": (-1e-3, 1e-4), "LL": (9.0, 0.1), "MSE": (9.0, 0.1), "CRPS": (0.2, 0.1)}),
    Row("u*=0.6", "ProbConserv-ANP", {"CE": (1e-17, 1e-17), "LL": (-9.0, 0.1), "MSE": (1e-9, 1e-10)}),
    Row("u*=0.6", "Ensemble", {"CE": (-0.5, 0.1), "LL": (10.0, 0.1), "MSE": (0.1, 0.01), "CRPS": (0.1, 0.1)}),
]
AGAIN = [Row("u*=0.6", "ProbConserv-ANP", {"CE": (1e-17, 1e-17), "LL": (-7.0, 0.1), "MSE": (3e-9, 1e-10)})]
OPERATORS = [
    Row(
        "ν=0.02, 25 times to t = 2",
        "FNO",
        {
            "relative_l2": (0.3, 0.01),
            "boundary": (0.2, 0.01),
            "boundary_relative": (0.1, 0.01),
            "boundary_relative_max": (1.0, 0.0),
        },
        "",
        "initial field",
    ),
    Row(
        "ν=0.02, 25 times to t = 2",
        DEFAULT_NAME,
        {
            "relative_l2": (0.1, 0.01),
            "boundary": (0.0, 0.0),
            "boundary_relative": (0.0, 0.0),
            "boundary_relative_max": (0.0, 0.0),
        },
        "",
        "all",
    ),
    Row("ν=0.1, 500 nodes", "BOON", {"relative_l2": (0.0123, None)}, "Saad et al., notebook", "test target"),
]
ENVIRONMENT = {"date": "2026-01-02T03:04:05Z", "revision": "abc", "machine": {"processor": "a machine"}}


def write_run(folder: Path, rows: list[Row], files: dict[str, Image.Image | list[Image.Image]]) -> Path:
    """A finished run with figures: one picture, or the frames of an animation, by file name."""
    folder.mkdir(parents=True)
    metrics = {"rows": [row.as_json() for row in rows], "environment": ENVIRONMENT}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    for name, content in files.items():
        first, *rest = content if isinstance(content, list) else [content]
        first.save(folder / name, **({"save_all": True, "append_images": rest, "duration": 100} if rest else {}))
    return folder


def picture(width: int = 300, height: int = 100, seed: int = 0) -> Image.Image:
    """Coarse coloured blocks."""
    blocks = np.random.default_rng(seed).integers(0, 255, (4, 8, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


@dataclass(frozen=True)
class Written:
    """A page with results that ship, results of a run, figures, and experiments without either."""

    file: Path
    out: Path
    shipped: Path


def write_example(root: Path) -> Written:
    """Results, runs and figures below a folder, and the page with them."""
    out, shipped, file = root / "out", root / "shipped", root / "page" / "report.html"
    shipped.mkdir()
    networks = {
        "anp": {"steps": 8000, "seconds": 1200.0, "seed": 0},
        "softc": {"steps": 800, "seconds": 61.0, "seed": 0},
    }
    content = {"rows": [row.as_json() for row in [*OURS, *PAPER]], "networks": networks, "environment": ENVIRONMENT}
    (shipped / "stefan.json").write_text(json.dumps(content))
    (shipped / "seeds").mkdir()
    table = seed_table("stefan", "laptop", {0: OURS, 1: AGAIN})
    (shipped / "seeds" / "stefan.json").write_text(
        json.dumps(table.as_json() | {"rows": [row.as_json() for row in table.rows]})
    )
    figures = {"profile-0.6.png": picture(1000), "context-0.6.png": picture(200, seed=1), "face-means.png": picture()}
    write_run(out / "stefan" / "aaa", [*OURS, *PAPER], figures)
    frames = [picture(seed=seed) for seed in range(3)]
    write_run(
        out / "stokes" / "bbb", OPERATORS, {"fields-multi-0.02.png": picture(400), "animation-multi-0.02.gif": frames}
    )
    report.write_report(out, file, shipped)
    return Written(file, out, shipped)
