"""Words that figures, tables and the terminal share."""

from __future__ import annotations

import os

JUDGING_TITLES = {
    "match": "scored by the judge of the training pairs",
    "cross": "scored by another judge",
    "all": "scored by all judges",
}

RESULTS_CSV = "results.csv"
"""The result table, in the artifact of `tables`."""
PAGE = "index.html"
"""The report's page, in the artifact of `report`."""
UI = "http://localhost:3000"
UI_VARIABLE = "FRONTIER_UI"
"""Environment variable: where Dagster's UI is, for links in figures, report and alerts."""


def ui_url() -> str:
    """Returns where Dagster's UI is."""
    return os.environ.get(UI_VARIABLE, UI)
