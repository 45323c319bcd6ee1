"""One look for every figure: fonts, colours that colour-blind readers can tell apart, and how figures are saved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure

from dagster_project.experiment.agents import Recipe
from dagster_project.report.palette import INK, MODEL_COLOURS

__all__ = ["INK", "MODEL_COLOURS"]  # of palette.py, for those who draw
PAPER_MARKERS = {"safe": "s", "help": "^", "both": "o", "safe_then_help": "D", "help_then_safe": "v"}
OTHER_MARKERS = ("P", "X", "<", ">", "p", "h", "8", "d")
"""Of recipes that are not the paper's: they repeat after so many."""
MIXTURE_MARKER = "."
SOURCE_MARKER = "*"
GREY = "#6b6b6b"
FORMATS = ("svg", "pdf", "png")
PNG_DPI = 220
TEXT_WIDTH = 6.75
"""Inches, of a page's text and of one of its two columns: figures are made to be used unscaled."""
COLUMN_WIDTH = 3.35

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
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "safety-frontier",
    "figure.dpi": 100,
}


class ModelStyle(NamedTuple):
    """How a model looks: colours repeat after six models, edge and hatch then differ.

    Attributes:
        colour: The colour of its markers, lines and bars.
        edge: The colour of its markers' edges; None for the usual one.
        hatch: The hatch of its bars.
    """

    colour: str
    edge: str | None
    hatch: str


ROUNDS = ((None, ""), ("black", "/////"), ("#999999", "....."), ("#E8C400", "xxxxx"))


def recipe_markers(recipes: Iterable[str]) -> dict[str, str]:
    """Returns a marker for each recipe, those of the paper always with their own, in the order that is given."""
    known = dict.fromkeys(recipes)
    others = [recipe for recipe in known if recipe not in PAPER_MARKERS and not Recipe(recipe).mixture]
    dealt = {recipe: OTHER_MARKERS[place % len(OTHER_MARKERS)] for place, recipe in enumerate(others)}
    return {recipe: PAPER_MARKERS.get(recipe) or dealt.get(recipe, MIXTURE_MARKER) for recipe in known}


def model_styles(trained: Iterable[str], others: Iterable[str] = ()) -> dict[str, ModelStyle]:
    """Returns a style for each model, the same for the same set of models; 24 models can be told apart.

    Args:
        trained: Models with trained agents. They come first, so that they look the same in every figure.
        others: More models; those of `trained` may be among them.
    """
    first = sorted(set(trained))
    styles = {}
    for index, model in enumerate([*first, *sorted(set(others) - set(first))]):
        edge, hatch = ROUNDS[index // len(MODEL_COLOURS) % len(ROUNDS)]
        styles[model] = ModelStyle(MODEL_COLOURS[index % len(MODEL_COLOURS)], edge, hatch)
    return styles


def marker_style(style: ModelStyle, level: int = 0, levels: int = 1, size: float = 5.5) -> dict[str, Any]:
    """Returns a marker's properties; of several levels (betas) the first is filled, the last hollow."""
    share = level / (levels - 1) if levels > 1 else 0.0
    # A hollow marker with a foreign edge would not show its model's colour at all.
    face = tint(style.colour, share if style.edge is None else 0.7 * share)
    edge = style.edge or ("white" if level == 0 else style.colour)
    width = 0.5 if edge == "white" else 1.0
    return {"markersize": size, "markerfacecolor": face, "markeredgecolor": edge, "markeredgewidth": width}


def tint(colour: str, share: float) -> str:
    """Returns the colour mixed with white, `share` of it white."""
    red, green, blue = (part + (1 - part) * share for part in to_rgb(colour))
    return to_hex((red, green, blue))


def darker(colour: str) -> str:
    """Returns the colour for small text, which needs more contrast than a marker."""
    red, green, blue = (0.7 * part for part in to_rgb(colour))
    return to_hex((red, green, blue))


def look() -> AbstractContextManager[None]:
    """Returns the context in which figures are drawn and saved."""
    return mpl.rc_context(RC)


def freeze(figure: Figure, *, square: Sequence[Axes] = ()) -> None:
    """Lays the figure out, once and for all: otherwise every saving and every label placed would do it again.

    Args:
        figure: The figure, complete but for labels that look for room.
        square: Panels to make square afterwards; constrained layout would misjudge the room below squares.
    """
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    for axes in square:
        axes.set_box_aspect(1)
        axes.apply_aspect()  # labels and arrows are placed in the panel's final size


def save(figure: Figure, directory: Path, name: str) -> list[Path]:
    """Saves a figure as vector graphics and as a preview, without dates, so that equal figures are equal files."""
    paths = {kind: directory / f"{name}.{kind}" for kind in FORMATS}
    with look():
        freeze(figure)
        # `Figure.savefig` draws everything a second time to find a layout, which is fixed here.
        FigureCanvasSVG(figure).print_svg(paths["svg"], metadata={"Date": None})  # type: ignore[no-untyped-call]
        FigureCanvasPdf(figure).print_pdf(paths["pdf"], metadata={"CreationDate": None})  # type: ignore[no-untyped-call]
        dpi = figure.dpi
        figure.dpi = PNG_DPI
        FigureCanvasAgg(figure).print_png(paths["png"])  # type: ignore[no-untyped-call]
        figure.dpi = dpi
    return list(paths.values())
