"""Points of the safety-helpfulness plane: their limits, markers, uncertainty, and legends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.colors import to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dagster_project.experiment.agents import Recipe
from dagster_project.report.figures.frame import Group
from dagster_project.report.style import (
    GREY,
    INK,
    MIXTURE_MARKER,
    SOURCE_MARKER,
    ModelStyle,
    marker_style,
    recipe_markers,
)
from dagster_project.report.values import column, recipe_order

Array = npt.NDArray[np.float64]
ELLIPSE = ("helpfulness_delta_se", "safety_delta_se", "delta_corr")
PLAIN = ModelStyle(GREY, None, "")
RING: dict[str, Any] = {
    "markersize": 9.0,
    "markerfacecolor": "none",
    "markeredgecolor": GREY,
    "markeredgewidth": 0.6,
}
"""Around points that no other beats in both axes."""


def has_regions(points: pd.DataFrame) -> bool:
    """Whether the draws' spread and correlation are known for any of the points."""
    return all(name in points.columns for name in ELLIPSE) and bool(points[list(ELLIPSE)].notna().all(axis=1).any())


def extents(points: pd.DataFrame, kind: str = "_delta") -> tuple[Array, Array]:
    """Returns all x and all y at which something of the points is drawn, intervals and regions included."""
    found = []
    for axis in ("helpfulness", "safety"):
        values = [points[f"{axis}{kind}"], *(column(points, f"{axis}{kind}{bound}") for bound in ("_low", "_high"))]
        if kind == "_delta" and has_regions(points):
            reach = points[f"{axis}_delta_se"]
            values = [values[0], *(bound.where(reach.isna()) for bound in values[1:])]  # others have an ellipse
            values += [values[0] - reach, values[0] + reach]
        flat = np.concatenate([value.to_numpy(dtype=float) for value in values])
        found.append(flat[np.isfinite(flat)])
    return found[0], found[1]


def square(x: Array, y: Array) -> tuple[tuple[float, float], tuple[float, float]]:
    """Returns limits of both axes that hold all values with a margin and span the same, for one scale on both."""
    spans = [(float(values.min()), float(values.max())) if len(values) else (0.0, 0.0) for values in (x, y)]
    half = 0.54 * max(high - low for low, high in spans) or 0.1
    limits = [((low + high) / 2 - half, (low + high) / 2 + half) for low, high in spans]
    return limits[0], limits[1]


def draw_regions(axes: Axes, points: pd.DataFrame, colours: Sequence[str]) -> None:
    """Draw one standard error around each point, as an ellipse with the draws' correlation, or else a cross.

    It is no 95% region: with few seeds that is not an ellipse of a normal distribution, and thirty of them hide the
    points. Tables and the report's page have 95% intervals.
    """
    if not has_regions(points):
        draw_crosses(axes, points, colours, "_delta")
        return
    known = points[list(ELLIPSE)].notna().all(axis=1).to_numpy()
    shown = points[known]
    sd_x, sd_y, corr = (shown[name].to_numpy(dtype=float) for name in ELLIPSE)
    covariance = np.empty((len(shown), 2, 2))
    covariance[:, 0, 0], covariance[:, 1, 1] = sd_x**2, sd_y**2
    covariance[:, 0, 1] = covariance[:, 1, 0] = sd_x * sd_y * corr
    variances, vectors = np.linalg.eigh(covariance)
    sizes = 2 * np.sqrt(np.clip(variances, 0, None))
    angles = np.degrees(np.arctan2(vectors[:, 1, 1], vectors[:, 0, 1]))
    chosen = [colour for colour, keep in zip(colours, known, strict=True) if keep]
    axes.add_collection(
        EllipseCollection(
            sizes[:, 1],
            sizes[:, 0],
            angles,
            units="xy",
            offsets=shown[["helpfulness_delta", "safety_delta"]].to_numpy(dtype=float),
            offset_transform=axes.transData,
            facecolors="none",
            edgecolors=[to_rgba(colour, 0.45) for colour in chosen],
            linewidths=0.4,
            zorder=1,
        ),
        autolim=False,
    )
    if not known.all():
        draw_crosses(axes, points[~known], [c for c, keep in zip(colours, known, strict=True) if not keep], "_delta")


def draw_crosses(axes: Axes, points: pd.DataFrame, colours: Sequence[str], kind: str) -> None:
    """Draws the intervals of both axes through each point."""
    segments, chosen = [], []
    bounds = {axis: [column(points, f"{axis}{kind}{end}") for end in ("_low", "_high")] for axis in AXES}
    for place, (x, y) in enumerate(points[[f"{axis}{kind}" for axis in AXES]].to_numpy(dtype=float)):
        across, up = ([float(bound.iloc[place]) for bound in bounds[axis]] for axis in AXES)
        for segment in ([(end, y) for end in across], [(x, end) for end in up]):
            if np.isfinite(segment).all():
                segments.append(segment)
                chosen.append(to_rgba(colours[place], 0.35))
    axes.add_collection(LineCollection(segments, colors=chosen, linewidths=0.6, zorder=1), autolim=False)


AXES = ("helpfulness", "safety")


def entry(label: str, marker: str, style: ModelStyle = PLAIN, level: int = 0, n_levels: int = 1) -> Line2D:
    """Returns a legend's marker."""
    size = 7.5 if marker == SOURCE_MARKER else 5.5
    return Line2D([], [], linestyle="", label=label, marker=marker, **marker_style(style, level, n_levels, size))


def recipe_group(used: Sequence[str], title: str = "trained on safety (S), helpfulness (H)") -> Group:
    """Returns the legend of the recipes' markers."""
    markers = recipe_markers(recipe_order(used))
    trained = {recipe: marker for recipe, marker in markers.items() if not Recipe(recipe).mixture}
    handles = [entry(Recipe(recipe).label, marker) for recipe, marker in trained.items()]
    return Group(title, [*handles, *[entry("mixed, not trained", MIXTURE_MARKER)] * (len(trained) < len(markers))], 2)


def model_group(styles: Mapping[str, ModelStyle], *, source: bool = False) -> Group:
    """Returns the legend of the models' colours, and on request of the marker of a model before training."""
    handles = [entry(model, "o", style) for model, style in styles.items()]
    return Group("source model", handles + [entry("before training", SOURCE_MARKER)] * source)


def beta_group(names: Mapping[str, int]) -> Group:
    """Returns the legend of the betas; empty if there is but one."""
    handles = [
        entry("stages differ" if name == "mixed" else name, "o", PLAIN, level, len(names))
        for name, level in names.items()
    ]
    return Group("β of DPO", handles if len(names) > 1 else [])


def uncertainty(points: pd.DataFrame) -> list[Patch | Line2D]:
    """Returns the legend of what `draw_regions` draws; empty where the points have neither regions nor intervals."""
    if has_regions(points):
        return [Patch(facecolor="none", edgecolor=to_rgba(GREY, 0.6), linewidth=0.5, label="one standard error")]
    if column(points, "safety_delta_low").notna().any():
        return [Line2D([], [], color=GREY, alpha=0.6, linewidth=0.8, label="interval")]
    return []


OVER_MODELS = ModelStyle(INK, None, "")
"""The style of what is averaged over source models: colours are for those."""


def identified(axes: Axes, x: float, y: float, gid: str, marker: str, **style: Any) -> Line2D:
    """Draws a point that is an SVG element with an id."""
    (line,) = axes.plot(x, y, marker, gid=gid, zorder=3, **style)
    return line
