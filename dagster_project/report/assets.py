"""Figures and tables as assets, previews in their metadata."""

from __future__ import annotations

import base64
import io

import dagster as dg
import pandas as pd

from dagster_project.experiment.assets import AssetFactory, AssetRun
from dagster_project.experiment.graph import RESULTS
from dagster_project.report.database import publish_database
from dagster_project.report.figures import frontier_figure, persistence_figure
from dagster_project.report.style import save
from dagster_project.report.tables import result_rows, to_latex
from dagster_project.results.warehouse import FILE

PREVIEW_DPI = 70  # a preview in Dagster's event log should stay below some tens of kilobytes


def database_name(experiment: str) -> str:
    """Returns the file name of an experiment's published database."""
    return f"{experiment}.duckdb"


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""

    def figures(run: AssetRun) -> None:
        frontier, toy = run.input("frontier"), run.experiment.toy
        points = pd.read_parquet(frontier / "frontier_points.parquet")
        if points.empty:
            run.log("No trained agent has been tested yet, so there is nothing to draw.")
            return
        drawn = {
            "frontier": frontier_figure(
                points, pd.read_parquet(frontier / "frontier_fits.parquet"), f"Frontier: {run.experiment.name}", toy=toy
            )
        }
        persistence = pd.read_parquet(run.input("persistence") / "persistence.parquet")
        if len(persistence):
            drawn["persistence"] = persistence_figure(persistence, f"Persistence: {run.experiment.name}", toy=toy)
        for name, figure in drawn.items():
            save(figure, run.draft.path, name)
            preview = io.BytesIO()
            figure.savefig(preview, format="png", dpi=PREVIEW_DPI, bbox_inches="tight")
            image = base64.b64encode(preview.getvalue()).decode()
            run.metadata[name] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{image})")
        run.draft.counts["figures"] = len(drawn)

    def tables(run: AssetRun) -> None:
        rows = result_rows(pd.read_parquet(run.input("frontier") / "frontier_points.parquet"))
        markdown = rows.to_markdown(index=False)
        (run.draft.path / "results.md").write_text(markdown + "\n", encoding="utf-8")
        (run.draft.path / "results.tex").write_text(to_latex(rows), encoding="utf-8")
        rows.to_csv(run.draft.path / "results.csv", index=False)
        parquet = [
            path
            for asset in RESULTS
            for path in sorted(run.input(asset).glob("*.parquet"))
        ]
        target = run.draft.path / database_name(run.experiment.name)
        publish_database(run.input("warehouse") / FILE, parquet, target)
        run.metadata["results"] = dg.MetadataValue.md(markdown)
        run.draft.counts["rows"] = len(rows)

    return [
        factory.asset("figures", figures, kinds={"matplotlib"}),
        factory.asset("tables", tables, kinds={"duckdb"}),
    ]
