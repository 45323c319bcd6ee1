"""Colours of figures and page, where each has one meaning.

A colour is a source model; black or grey is an average over source models. A marker's shape is what an agent was
trained on, and its filling is β: full for the smallest, empty for the largest. Purple shades are scores.
"""

from __future__ import annotations

MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, without its yellow, which is too light for lines on white."""
INK = "#333333"
"""Of averages over source models, on white."""
SCORE_COLOURS = ("#dadaeb", "#9e9ac8", "#756bb1", "#3f007d")
"""Of the scores 0 to 3."""
