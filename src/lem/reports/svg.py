"""A figure as a piece of HTML: an inline SVG in the page's own colours, with nothing that points outside.

Matplotlib's SVG is cut down to what draws: no metadata, style sheets, clip paths or names; text stays text in the
page's font; the figure's colours become the page's variables, so that one drawing is legible in light and in dark.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

from markupsafe import Markup

from lem.reports.drawing import BLUE, GREEN, GROUND, INK, QUIET, RULE, VERMILION

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_VARIABLES = {
    INK: "--ink", QUIET: "--quiet", RULE: "--rule", BLUE: "--blue", VERMILION: "--vermilion", GREEN: "--green",
    GROUND: "--ground",
}  # fmt: skip
_DROPPED = {"metadata", "style", "clipPath"}
_HREF = "{http://www.w3.org/1999/xlink}href"
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_FONT_FAMILY = re.compile(r"font-family:[^;]*;?\s*")


def inline_svg(figure: Figure, label: str) -> Markup:
    """The figure as an inline `<svg>` element, `label` its name for those who cannot see it."""
    from matplotlib import rc_context

    drawing = io.StringIO()
    # The salt makes the names inside the drawing depend on its content alone: the same run gives the same page.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label, "path.simplify": False}):
        figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(drawing.getvalue())
    used = {element.get(_HREF, "").removeprefix("#") for element in root.iter()}
    _tidy(root, used)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label, "class": "curve"}
    return Markup(ET.tostring(root, encoding="unicode", short_empty_elements=True))


def _tidy(element: ET.Element, used: set[str]) -> None:
    """Strip an element and everything below it, in place."""
    element.tag = element.tag.partition("}")[2]
    for child in list(element):
        if child.tag.partition("}")[2] not in _DROPPED:
            _tidy(child, used)
        if child.tag.partition("}")[2] in _DROPPED or (child.tag in ("g", "defs") and not len(child)):
            element.remove(child)
    if element.tag != "text":
        element.text = None
    element.tail = None
    element.attrib = {
        ("href" if name == _HREF else name): _shortened(value)
        for name, value in element.attrib.items()
        if name != "clip-path" and (name != "id" or value in used)
    }


def _shortened(value: str) -> str:
    value = _LONG_NUMBER.sub(lambda match: f"{float(match.group()):.2f}".rstrip("0").rstrip("."), value)
    value = _FONT_FAMILY.sub("", value)
    for colour, variable in _VARIABLES.items():
        value = value.replace(colour, f"var({variable})")
    return " ".join(value.split())
