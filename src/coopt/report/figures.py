"""What all figures share: how they look, and how they are written. No window, and no state of pyplot."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from coopt.files import write_bytes

LOOK: Any = {
    "font.family": "sans-serif",
    "font.size": 8.5,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
    "svg.fonttype": "path",  # looks the same where the font is missing
    "svg.hashsalt": "coopt",  # the same figure gives the same file
}


def save_figure(figure: Figure, stem: Path, formats: tuple[str, ...] = ("png", "svg"), dpi: int = 160) -> list[Path]:
    """Writes a figure as `stem`.png and `stem`.svg, or in the formats asked for; the same figure gives the same bytes.

    Raises:
        SavedFileError: a file cannot be written.
    """
    paths = [stem.with_name(f"{stem.name}.{ending}") for ending in formats]
    with rc_context(LOOK):
        for path, ending in zip(paths, formats, strict=True):
            data = io.BytesIO()
            undated: Any = {"metadata": {"Date": None}} if ending == "svg" else {"dpi": dpi}
            figure.savefig(data, format=ending, facecolor="white", **undated)
            write_bytes(path, data.getvalue())
    return paths
