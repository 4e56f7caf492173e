"""What all drawings share: colours, plain axes, and a picture that appears whole or not at all.

Colours are those of Okabe and Ito, told apart with any colour vision. Matplotlib is imported when something is drawn,
and its global state (pyplot) is never used.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from lem.records import write_atomic

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, RULE, GROUND = "#23262b", "#646a73", "#e3e0d8", "#fbfaf7"
BLUE, VERMILION, GREEN = "#0072b2", "#d55e00", "#009e73"


def tidy(axes: Axes) -> None:
    """Leave two quiet spines and horizontal rules."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.grid(axis="y", color=RULE, lw=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=QUIET)
    axes.yaxis.label.set_fontsize(8.5)


def tidy_rows(axes: Axes) -> None:
    """Leave the lower spine and vertical rules: for rows that carry their own labels."""
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(length=0, labelsize=8.5, labelcolor=QUIET)
    axes.grid(axis="x", color=RULE, lw=0.7)
    axes.set_axisbelow(True)
    axes.set_yticks([])


def row_text(axes: Axes, at: float, text: str, colour: str, *, right: bool = False) -> None:
    """Write at the left or right end of a row, on the page's ground, so that no rule runs through a word."""
    axes.text(
        float(right), at, text, color=colour, ha="right" if right else "left", va="bottom", fontsize=8.5,
        parse_math=False, transform=axes.get_yaxis_transform(),
        bbox={"facecolor": GROUND, "edgecolor": "none", "pad": 1.2},
    )  # fmt: skip


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG in one step and return where it is.   Raises: UserError if it cannot be written."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(path, picture.getvalue())
    return path
