"""Words that figures, tables and the terminal share."""

from __future__ import annotations

import os

JUDGING_TITLES = {
    "match": "scored by the judge of the training pairs",
    "cross": "scored by another judge",
    "all": "scored by all judges",
}

SCORING_TITLES = {
    "match": "{judge}, on agents trained on its own verdicts",
    "cross": "{judge}, on agents trained on another judge's verdicts",
    "all": "{judge}, on all agents",
}
AVERAGE_TITLES = {
    "match": "average of judges, each on agents trained on its own verdicts",
    "cross": "average of judges, each on agents trained on another judge's verdicts",
    "all": "average of all judges on all agents",
}


def scoring_title(judging: str, judge: str | None) -> str:
    """Return who scored whom: one judge, or (None) the average of judges, in a way of judging."""
    return AVERAGE_TITLES[judging] if judge is None else SCORING_TITLES[judging].format(judge=judge)


METRIC_TITLES = {"safe": "safety", "help": "helpfulness", "help_safe": "helpfulness that minds safety"}
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
