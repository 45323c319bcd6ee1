"""Labels next to points, moved until none overlaps another, a point, or a line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.text import Text

from dagster_project.report.style import GREY, freeze

SIZE = 6.5
STEPS = 300
"""Adjustments at most: a limit on time would make a figure depend on the machine."""


def place_labels(
    axes: Axes, labels: Sequence[str], x: Sequence[float], y: Sequence[float], avoid: npt.NDArray[np.float64]
) -> list[Text]:
    """Writes a label next to every point and returns them. Limits must be set before.

    Args:
        axes: The panel.
        labels: One a point.
        x: The points, in data coordinates.
        y: As `x`.
        avoid: Further places to keep free, shape (n, 2).
    """
    from adjustText import adjust_text  # it imports pyplot, which is slow and which nothing else here needs

    figure = axes.get_figure(root=True)
    assert figure is not None
    freeze(figure)
    texts = [
        axes.text(across, up, label, fontsize=SIZE, ha="center", va="center", zorder=5)
        for label, across, up in zip(labels, x, y, strict=True)
    ]
    around = _around(axes, np.column_stack([x, y]))
    static = np.concatenate([around, avoid])
    adjust_text(
        texts,
        x=static[:, 0],
        y=static[:, 1],
        target_x=list(x),
        target_y=list(y),
        ax=axes,
        expand=(1.1, 1.25),
        iter_lim=STEPS,
        min_arrow_len=6,
        arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkA": 0, "shrinkB": 3},
    )
    return texts


def _around(axes: Axes, points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns places around each marker, in data coordinates: adjustText knows of points, not of their size."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    radius = 3.5 / 72 * figure.dpi
    angles = np.arange(0, 2 * np.pi, np.pi / 3)
    ring = np.concatenate([[[0.0, 0.0]], radius * np.column_stack([np.cos(angles), np.sin(angles)])])
    shown = axes.transData.transform(points)[:, None, :] + ring[None, :, :]
    return np.asarray(axes.transData.inverted().transform(shown.reshape(-1, 2)), dtype=np.float64)
