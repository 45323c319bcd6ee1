"""Labels next to points, moved until none overlaps another, a point, or a line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

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


def place_labels(
    axes: Axes,
    labels: Sequence[str],
    x: Sequence[float],
    y: Sequence[float],
    avoid: Array,
    *,
    colours: Sequence[str],
) -> list[Text]:
    """Writes a label next to every point and returns them. Limits must be set before.

    adjustText finds places; a label that it could not free goes to the nearest place that is.

    Args:
        axes: The panel.
        labels: One a point.
        x: The points, in data coordinates.
        y: As `x`.
        avoid: Further places to keep free if possible, shape (n, 2).
        colours: Of the labels.
    """
    from adjustText import adjust_text  # it imports pyplot, which nothing else needs

    figure = axes.get_figure(root=True)
    assert figure is not None
    freeze(figure)
    axes.autoscale(False)
    texts = [
        axes.text(across, up, label, fontsize=SIZE, ha="center", va="center", zorder=2.5, bbox=BACKGROUND, color=colour)
        for label, across, up, colour in zip(labels, x, y, colours, strict=True)
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
    lines = np.asarray(axes.transData.transform(avoid), dtype=np.float64).reshape(-1, 2)
    for place, text in enumerate(texts):
        room = _Room(np.delete(boxes, place, axis=0), points, radius, inside, np.empty((0, 2)))
        for spared in (room._replace(lines=lines), room):  # a label that has to be on something is rather on a line
            if (box := _nearest(boxes[place], points[place], spared)) is not None:
                boxes[place] = box
                break
        text.set_position(tuple(axes.transData.inverted().transform(boxes[place].reshape(2, 2).mean(axis=0))))
        edge = np.clip(points[place], boxes[place, :2], boxes[place, 2:])
        if np.hypot(*(edge - points[place])) > 2 * radius:
            ends = axes.transData.inverted().transform([edge, points[place]])
            axes.plot(ends[:, 0], ends[:, 1], color=GREY, linewidth=0.4, zorder=1.9)
    return texts


class _Room(NamedTuple):
    """What a label must keep clear of, in pixels: other labels' boxes, markers, the panel's edge, places on lines."""

    others: Array
    points: Array
    radius: float
    inside: Array
    lines: Array

    def free(self, box: Array) -> bool:
        """Whether a label's box overlaps no other, covers no marker and no line, and lies in the panel."""
        if (box[:2] < self.inside[:2]).any() or (box[2:] > self.inside[2:]).any():
            return False
        if ((box[:2] < self.others[:, 2:]).all(axis=1) & (self.others[:, :2] < box[2:]).all(axis=1)).any():
            return False
        if _gap(box, self.points) < 0.8 * self.radius:
            return False
        return not ((self.lines > box[:2]) & (self.lines < box[2:])).all(axis=1).any()


def _around(points: Array, radius: float) -> Array:
    """Returns places on and around each marker: adjustText knows of points, not of their size."""
    angles = ANGLES[::4]
    ring = np.concatenate([[[0.0, 0.0]], radius * np.column_stack([np.cos(angles), np.sin(angles)])])
    return np.asarray((points[:, None, :] + ring[None, :, :]).reshape(-1, 2), dtype=np.float64)


def _nearest(box: Array, point: Array, room: _Room) -> Array | None:
    """Returns the box if it is free, or else a free one close to the point; None if there is none."""
    if room.free(box):
        return box
    half = (box[2:] - box[:2]) / 2
    for reach in room.radius * np.arange(1.5, 15, 0.75):
        # At a distance from the box's edge, not from its middle: labels are wide.
        centres = point + (half + reach) * np.column_stack([np.cos(ANGLES), np.sin(ANGLES)])
        found = [moved for moved in np.hstack([centres - half, centres + half]) if room.free(moved)]
        if found:
            others = room.points[(room.points != point).any(axis=1)]
            best: Array = max(found, key=lambda moved: _gap(moved, others))  # nearer to its own marker than to others
            return best
    return None


def _gap(box: Array, points: Array) -> float:
    """Returns the distance from a box to the nearest point, infinite without points."""
    gaps = points - np.clip(points, box[:2], box[2:])
    return float(np.hypot(gaps[:, 0], gaps[:, 1]).min(initial=np.inf))
