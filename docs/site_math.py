"""Formulas of the site as MathML: no script and no network to draw them."""

import re
from html import unescape

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

_FORMULA = re.compile(
    r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', flags=re.DOTALL
)


def on_page_content(html: str, **_: object) -> str:
    r"""Turns the formulas that ``pymdownx.arithmatex`` marked into MathML.

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
    return drawn


def _as_mathml(formula: re.Match[str]) -> str:
    block = formula[1] == "div"
    drawn = convert(
        unescape(formula[2]).strip(), display="block" if block else "inline"
    )
    return f'<div class="formula">{drawn}</div>' if block else drawn
