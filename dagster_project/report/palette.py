"""Colours that colour-blind readers can tell apart, for figures and page alike."""

from __future__ import annotations

MODEL_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette, without its yellow, which is too light for lines on white."""
METRIC_COLOURS = {"safe": "#0072B2", "help": "#D55E00", "both": "#009E73", "either": "#CC79A7"}
