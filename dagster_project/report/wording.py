"""Words that figures, tables and the terminal share."""

from __future__ import annotations

JUDGING_TITLES = {
    "match": "scored by the judge of the training pairs",
    "cross": "scored by another judge",
    "all": "scored by all judges",
}

RESULTS_CSV = "results.csv"
"""The result table, in the artifact of `tables`."""
PAGE = "index.html"
"""The report's page, in the artifact of `report`."""
