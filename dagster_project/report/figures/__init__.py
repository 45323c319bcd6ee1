"""Figures, sized for a column or the width of a page's text, to be used unscaled."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from dagster_project.report.cases import SECOND_TRAININGS, paired_cases
from dagster_project.report.figures.agreement import agreement_figure
from dagster_project.report.figures.audits import audits_figure, shown_measures
from dagster_project.report.figures.cases import cases_figure
from dagster_project.report.figures.fits import fits_figure
from dagster_project.report.figures.frame import TOY
from dagster_project.report.figures.frontier import averaged_frontier_figure, frontier_figure
from dagster_project.report.figures.overall import overall_figure
from dagster_project.report.figures.paper_persistence import paper_persistence_figure
from dagster_project.report.figures.persistence import persistence_figure
from dagster_project.report.figures.recipes import delta_all_figure, intermediates_figure
from dagster_project.report.figures.scores import distributions_figure, seeds_figure
from dagster_project.report.figures.training import training_figure
from dagster_project.report.runs import distributions, run_scores
from dagster_project.report.style import look
from dagster_project.report.values import point_id, training_starts
from dagster_project.report.wording import JUDGING_TITLES

__all__ = [
    "JUDGING_TITLES",
    "TOY",
    "agreement_figure",
    "audits_figure",
    "averaged_frontier_figure",
    "cases_figure",
    "delta_all_figure",
    "distributions_figure",
    "draw_all",
    "fits_figure",
    "frontier_figure",
    "intermediates_figure",
    "overall_figure",
    "paper_persistence_figure",
    "persistence_figure",
    "point_id",
    "seeds_figure",
    "training_figure",
    "training_starts",
]


def draw_all(tables: Mapping[str, pd.DataFrame], title: str, *, toy: bool) -> dict[str, Figure]:
    """Returns every figure for which there is data, by the stem of its file.

    Args:
        tables: The result tables, `agents` and `training_steps` of the warehouse, `case_scores` and `changes` of
            `report.cases`, by name; any may be missing.
        title: What the figures are of: each puts its own name before it.
        toy: Says on every figure that this is a toy world.
    """

    def table(name: str) -> pd.DataFrame:
        return tables.get(name, pd.DataFrame())

    points, fits, recipes = table("frontier_points"), table("frontier_fits"), table("recipe_points")
    figures: dict[str, Figure] = {}
    with look():
        if len(points):
            bands = tables.get("frontier_bands")
            figures["frontier"] = frontier_figure(points, fits, f"Frontier: {title}", toy=toy, bands=bands)
            if points.loc[points["judge"].notna()].groupby("judging")["judge"].nunique().gt(1).any():
                name = f"Frontier, judges averaged: {title}"
                figures["frontier_averaged"] = averaged_frontier_figure(points, fits, name, toy=toy, bands=bands)
            figures["overall"] = overall_figure(points, table("source_points"), f"All agents: {title}", toy=toy)
        if len(recipes):
            name = f"Trained last on helpfulness: {title}"
            figures["help_with_intermediates"] = intermediates_figure(recipes, "help", name, toy=toy)
            name = f"Trained last on safety: {title}"
            figures["safe_with_intermediates"] = intermediates_figure(recipes, "safe", name, toy=toy)
            figures["delta_all"] = delta_all_figure(recipes, f"Deltas of all recipes: {title}", toy=toy)
        figures |= _by_case(tables, title, toy=toy)
        if len(table("persistence")):
            figures["persistence"] = persistence_figure(table("persistence"), f"Persistence: {title}", toy=toy)
            name = f"The paper's persistence, judges averaged: {title}"
            figures["persistence_paper"] = paper_persistence_figure(table("persistence"), name, toy=toy)
        if len(fits):
            figures["fits"] = fits_figure(fits, f"The line through other points: {title}", toy=toy)
        if len(table("judge_confusion")):
            name = f"Agreement of judges: {title}"
            figures["agreement"] = agreement_figure(table("judge_confusion"), table("judge_agreement"), name, toy=toy)
        if shown_measures(table("audits")):
            figures["audits"] = audits_figure(table("audits"), table("agents"), f"Audits: {title}", toy=toy)
        if len(table("training_steps")):
            starts = training_starts(table("training_steps"), table("agents"))
            if len(starts):
                figures["training"] = training_figure(starts, f"Start of training: {title}", toy=toy)
    return figures


def _by_case(tables: Mapping[str, pd.DataFrame], title: str, *, toy: bool) -> dict[str, Figure]:
    """Return the figures of single cases and seeds."""
    figures: dict[str, Figure] = {}
    agents = tables.get("agents", pd.DataFrame())
    if "agent_scores" in tables:
        counts = distributions(tables["agent_scores"], agents)
        if len(counts):
            figures["scores"] = distributions_figure(counts, f"Scores by recipe: {title}", toy=toy)
        runs = run_scores(tables)
        if len(runs) and runs["seed"].nunique() > 1:
            figures["seeds"] = seeds_figure(runs, f"Seed by seed: {title}", toy=toy)
    if "case_scores" in tables:
        for transition in SECOND_TRAININGS:
            pairs = paired_cases(tables["case_scores"], agents, transition.first, transition.second)
            pairs = pairs[pairs["metric"] == transition.metric]
            if len(pairs):
                name = f"{transition.first.label} against {transition.second.label}, case by case: {title}"
                drawn = cases_figure(pairs, tables["changes"], transition, name, toy=toy)
                figures[f"cases_{transition.metric}"] = drawn
    return figures
