"""Formulas of the site as MathML: no script and no network to draw them.

Numbers in tables stay on one line.
"""

import re
from html import unescape

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', flags=re.DOTALL
)
_CELL = re.compile(r"<td[ >].*?</td>", flags=re.DOTALL)
_POWER = re.compile(r"\(?[\d.]+e[-+]\d+\*?\)?")


def on_page_content(html: str, **_: object) -> str:
    r"""Turns the formulas that ``pymdownx.arithmatex`` marked into MathML.

    In tables it keeps 1e-05 from being broken at its sign.

    Args:
        html: The page.

    Returns:
        The page with drawn formulas.

    Raises:
        PluginError: If a formula has an environment that MathML lacks.
    """
    drawn = _FORMULA.sub(_as_mathml, html)
    if "<mi>&</mi>" in drawn:
        raise PluginError(
            "A formula holds a bare &: align equations with \\begin{split}."
        )
    return _CELL.sub(_in_one_piece, drawn)


def _in_one_piece(cell: re.Match[str]) -> str:
    return _POWER.sub(r'<span class="number">\g<0></span>', cell[0])


def _as_mathml(formula: re.Match[str]) -> str:
    block = formula[1] == "div"
    drawn = convert(
        unescape(formula[2]).strip(), display="block" if block else "inline"
    )
    return f'<div class="formula">{drawn}</div>' if block else drawn
