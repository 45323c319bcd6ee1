"""The page's charts, in Vega-Lite: what is drawn is here, how it looks in light and dark is the page's."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from dagster_project.report.cases import SECOND_TRAININGS, paired_cases
from dagster_project.report.page.charts.common import ALL, EACH, Records, Spec, printable_spec
from dagster_project.report.page.charts.details import agreement_chart, audits_chart, fits_chart, training_chart
from dagster_project.report.page.charts.frontier import FILTERS, frontier_chart
from dagster_project.report.page.charts.persistence import persistence_chart
from dagster_project.report.page.charts.scores import cases_chart, distributions_chart, seeds_chart
from dagster_project.report.runs import distributions, run_scores

__all__ = ["FILTERS", "FIRST_CHOICE", "Spec", "charts"]

FIRST_CHOICE = {**dict.fromkeys(FILTERS, ALL), "scoring": EACH}
"""The filters' first values: every judge side by side."""


def charts(tables: Mapping[str, pd.DataFrame], points: Records) -> dict[str, Spec]:
    """Return the Vega-Lite specifications of every chart for which there is data, by name."""

    def table(name: str) -> pd.DataFrame:
        return tables.get(name, pd.DataFrame())

    agents = table("agents")
    found = {
        "frontier": frontier_chart(points, table("frontier_bands")),
        "persistence": persistence_chart(table("persistence")),
        "fits": fits_chart(table("frontier_fits")),
        "agreement": agreement_chart(table("judge_confusion")),
        "audits": audits_chart(table("audits"), agents),
        "training": training_chart(table("training_steps"), agents),
    }
    if len(table("agent_scores")):
        found["scores"] = distributions_chart(distributions(tables["agent_scores"], agents))
        found["seeds"] = seeds_chart(run_scores(tables))
    if len(table("case_scores")):
        for transition in SECOND_TRAININGS:
            pairs = paired_cases(tables["case_scores"], agents, transition.first, transition.second)
            chart = cases_chart(pairs[pairs["metric"] == transition.metric], transition)
            found[f"cases_{transition.metric}"] = chart
    return {name: printable_spec(chart.to_dict()) for name, chart in found.items() if chart is not None}
