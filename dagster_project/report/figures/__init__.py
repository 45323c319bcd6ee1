"""Figures, sized for a column or the width of a page's text, to be used unscaled."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from dagster_project.report.figures.agreement import agreement_figure
from dagster_project.report.figures.audits import audits_figure
from dagster_project.report.figures.fits import fits_figure
from dagster_project.report.figures.frame import TOY
from dagster_project.report.figures.frontier import delta_by_model_figure, frontier_figure
from dagster_project.report.figures.overall import overall_figure
from dagster_project.report.figures.persistence import persistence_figure
from dagster_project.report.figures.recipes import delta_all_figure, intermediates_figure
from dagster_project.report.figures.training import training_figure
from dagster_project.report.style import look
from dagster_project.report.values import point_id, training_starts
from dagster_project.report.wording import JUDGING_TITLES

__all__ = [
    "JUDGING_TITLES",
    "TOY",
    "agreement_figure",
    "audits_figure",
    "delta_all_figure",
    "delta_by_model_figure",
    "draw_all",
    "fits_figure",
    "frontier_figure",
    "intermediates_figure",
    "overall_figure",
    "persistence_figure",
    "point_id",
    "training_figure",
    "training_starts",
]


def draw_all(tables: Mapping[str, pd.DataFrame], title: str, *, toy: bool) -> dict[str, Figure]:
    """Returns every figure for which there is data, by the stem of its file.

    Args:
        tables: The result tables and `agents`, `training_steps` of the warehouse, by name; any may be missing.
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
            figures["delta_by_model"] = delta_by_model_figure(
                points, fits, f"Deltas by source model: {title}", toy=toy, bands=bands
            )
            figures["overall"] = overall_figure(points, table("source_points"), f"All agents: {title}", toy=toy)
        if len(recipes):
            name = f"Trained last on helpfulness: {title}"
            figures["help_with_intermediates"] = intermediates_figure(recipes, "help", name, toy=toy)
            name = f"Trained last on safety: {title}"
            figures["safe_with_intermediates"] = intermediates_figure(recipes, "safe", name, toy=toy)
            figures["delta_all"] = delta_all_figure(recipes, f"Deltas of all recipes: {title}", toy=toy)
        if len(table("persistence")):
            figures["persistence"] = persistence_figure(table("persistence"), f"Persistence: {title}", toy=toy)
        if len(fits):
            figures["fits"] = fits_figure(fits, f"The line through other points: {title}", toy=toy)
        if len(table("judge_confusion")):
            name = f"Agreement of judges: {title}"
            figures["agreement"] = agreement_figure(table("judge_confusion"), table("judge_agreement"), name, toy=toy)
        if len(table("audits")):
            figures["audits"] = audits_figure(table("audits"), table("agents"), f"Audits: {title}", toy=toy)
        if len(table("training_steps")):
            starts = training_starts(table("training_steps"), table("agents"))
            if len(starts):
                figures["training"] = training_figure(starts, f"Start of training: {title}", toy=toy)
    return figures
