"""Labels next to points, moved until none overlaps another, a point, or a line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.text import Text

from dagster_project.report.style import GREY, freeze

Array = npt.NDArray[np.float64]
SIZE = 6.5
BACKGROUND = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.5}
STEPS = 200
"""Adjustments at most: a limit on time would make a figure depend on the machine."""
MARKER = 3.5
"""Radius of a marker, in points (1/72 inch); a label that is further away than twice this has a line to its marker."""
ANGLES = np.linspace(0, 2 * np.pi, 24, endpoint=False)


def place_labels(axes: Axes, labels: Sequence[str], x: Sequence[float], y: Sequence[float], avoid: Array) -> list[Text]:
    """Writes a label next to every point and returns them. Limits must be set before.

    adjustText finds places; a label that it could not free goes to the nearest place that is.

    Args:
        axes: The panel.
        labels: One a point.
        x: The points, in data coordinates.
        y: As `x`.
        avoid: Further places to keep free if possible, shape (n, 2).
    """
    from adjustText import adjust_text  # type: ignore[import-untyped] # it imports pyplot, which nothing else needs

    figure = axes.get_figure(root=True)
    assert figure is not None
    freeze(figure)
    texts = [
        axes.text(across, up, label, fontsize=SIZE, ha="center", va="center", zorder=2.5, bbox=BACKGROUND)
        for label, across, up in zip(labels, x, y, strict=True)
    ]
    if not texts:
        return texts
    radius = MARKER / 72 * figure.dpi
    points = np.asarray(axes.transData.transform(np.column_stack([x, y])), dtype=np.float64)
    static = np.concatenate([axes.transData.inverted().transform(_around(points, radius)), avoid])
    adjust_text(
        texts,
        x=static[:, 0],
        y=static[:, 1],
        target_x=list(x),
        target_y=list(y),
        ax=axes,
        expand=(1.15, 1.4),
        iter_lim=STEPS,
    )
    boxes = np.array([text.get_window_extent().extents for text in texts])  # left, lower, right, upper
    inside = np.asarray(axes.bbox.extents)
    for place, text in enumerate(texts):
        others = np.delete(boxes, place, axis=0)
        if not _free(boxes[place], others, points, radius, inside):
            boxes[place] = _nearest(boxes[place], points[place], others, points, radius, inside)
            text.set_position(tuple(axes.transData.inverted().transform(boxes[place].reshape(2, 2).mean(axis=0))))
        edge = np.clip(points[place], boxes[place, :2], boxes[place, 2:])
        if np.hypot(*(edge - points[place])) > 2 * radius:
            ends = axes.transData.inverted().transform([edge, points[place]])
            axes.plot(ends[:, 0], ends[:, 1], color=GREY, linewidth=0.4, zorder=1.9)
    return texts


def _around(points: Array, radius: float) -> Array:
    """Returns places on and around each marker: adjustText knows of points, not of their size."""
    angles = ANGLES[::4]
    ring = np.concatenate([[[0.0, 0.0]], radius * np.column_stack([np.cos(angles), np.sin(angles)])])
    return np.asarray((points[:, None, :] + ring[None, :, :]).reshape(-1, 2), dtype=np.float64)


def _free(box: Array, others: Array, points: Array, radius: float, inside: Array) -> bool:
    """Whether a label's box overlaps no other, covers no marker, and lies in the panel."""
    overlapping = (box[:2] < others[:, 2:]).all(axis=1) & (others[:, :2] < box[2:]).all(axis=1)
    gaps = points - np.clip(points, box[:2], box[2:])
    covered = np.hypot(gaps[:, 0], gaps[:, 1]) < 0.8 * radius
    within = (box[:2] >= inside[:2]).all() and (box[2:] <= inside[2:]).all()
    return bool(within and not overlapping.any() and not covered.any())


def _nearest(box: Array, point: Array, others: Array, points: Array, radius: float, inside: Array) -> Array:
    """Returns the free box closest to the point, or the box itself if the panel is full."""
    half = (box[2:] - box[:2]) / 2
    for reach in radius * np.arange(1.5, 40, 0.75):
        for angle in ANGLES:
            # Around the point at a distance from the box's edge, not from its middle: labels are wide.
            centre = point + (half + reach) * np.array([np.cos(angle), np.sin(angle)])
            moved = np.concatenate([centre - half, centre + half])
            if _free(moved, others, points, radius, inside):
                return moved
    return box
