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


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure as a PNG in one step and return where it is.   Raises: UserError if it cannot be written."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    write_atomic(path, picture.getvalue())
    return path
