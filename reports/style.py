"""The looks that all pictures share."""

import base64
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOUR = "#2c6fbb"


def new_figure(width: float, height: float, dpi: int = 110) -> "Figure":
    """An empty picture of width x height inches. Without pyplot it needs no display, and nobody has to close it."""
    from matplotlib.figure import Figure  # takes a while to import

    return Figure(figsize=(width, height), dpi=dpi, layout="constrained")


def data_uri(content: bytes, kind: str) -> str:
    """A PNG or JPEG (``kind``) as the source of a picture in HTML."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def open_frame(axes: "Axes") -> None:
    """Leave the lines above and on the right of a plot out."""
    axes.spines[["top", "right"]].set_visible(False)


def harmonic_lines(axes: "Axes", levels: object, fmt: str) -> None:
    """Grey lines of equal harmonic mean of x and y over what the axes show, with their values."""
    import numpy as np

    x, y = np.meshgrid(*(np.linspace(max(low, 0.1), high, 200) for low, high in (axes.get_xlim(), axes.get_ylim())))
    lines = axes.contour(x, y, 2 * x * y / (x + y), levels=levels, colors="0.85", linewidths=1, zorder=0)
    axes.clabel(lines, fmt=fmt, fontsize=8, colors="0.6")


@contextmanager
def plain_text() -> Iterator[None]:
    """A block whose pictures show text as it is: dollars open no formula, and other scripts are drawn if a font can."""
    import matplotlib
    from matplotlib import font_manager

    # DejaVu has no Chinese, Japanese or Korean; where a font of the system has, it helps out.
    families = ["DejaVu Sans", *sorted({font.name for font in font_manager.fontManager.ttflist if "CJK" in font.name})]
    with matplotlib.rc_context({"text.parse_math": False, "font.family": families}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a table of names stands beside the picture
        yield
