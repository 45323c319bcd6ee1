"""One look for every figure: fonts, colours that colour-blind readers can tell apart, and how figures are saved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, without its yellow, which is too light for lines on white."""
RECIPE_MARKERS = {"safe": "s", "help": "^", "both": "o", "safe_then_help": "D", "help_then_safe": "v"}
GREY = "#6b6b6b"
FORMATS = ("svg", "pdf", "png")

RC: Any = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.linewidth": 0.6,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "safety-frontier",
    "savefig.bbox": "tight",
    "figure.dpi": 100,
}


def model_colours(models: Sequence[str]) -> dict[str, str]:
    """Returns a colour for each model, the same for the same set of models."""
    return {model: MODEL_COLOURS[index % len(MODEL_COLOURS)] for index, model in enumerate(sorted(models))}


def save(figure: Figure, directory: Path, name: str) -> list[Path]:
    """Saves a figure as vector graphics and as a preview, without dates, so that equal figures are equal files."""
    paths = []
    for kind in FORMATS:
        path = directory / f"{name}.{kind}"
        metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
        with mpl.rc_context(RC):
            figure.savefig(path, dpi=250, metadata=metadata)
        paths.append(path)
    return paths
