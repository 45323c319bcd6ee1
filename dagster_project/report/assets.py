"""Figures and tables as assets, previews in their metadata.

What draws and writes them is imported where it is used: a code location, and runs of other rooms, start sooner.
"""

from __future__ import annotations

import base64
import io
import os
from typing import TYPE_CHECKING

import dagster as dg

from dagster_project.experiment.assets import AssetFactory, AssetRun
from dagster_project.experiment.graph import RESULTS, TABLES
from dagster_project.report.wording import RESULTS_CSV
from dagster_project.results.files import WAREHOUSE

if TYPE_CHECKING:
    import pandas as pd

UI = "http://localhost:3000"
UI_VARIABLE = "FRONTIER_UI"
"""Where Dagster's UI is, for the links in the figures."""
PREVIEW_DPI = 70  # a preview in Dagster's event log should stay below some tens of kilobytes


def database_name(experiment: str) -> str:
    """Returns the file name of an experiment's published database."""
    return f"{experiment}.duckdb"


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""

    def read_tables(run: AssetRun) -> dict[str, pd.DataFrame]:
        import duckdb
        import pandas as pd

        paths = (path for asset in RESULTS for path in sorted(run.input(asset).glob("*.parquet")))
        found = {path.stem: pd.read_parquet(path) for path in paths}
        with duckdb.connect(str(run.input("warehouse") / WAREHOUSE), read_only=True) as database:
            for name in ("agents", "training_runs", "training_steps"):
                found[name] = database.execute(f"FROM {name}").df()
        return found

    def figures(run: AssetRun) -> None:
        from dagster_project.report.figures import draw_all
        from dagster_project.report.links import annotate_svg, point_links
        from dagster_project.report.style import save

        found = read_tables(run)
        points = found["frontier_points"]
        if points.empty:
            run.log("No trained agent has been tested yet, so there is nothing to draw.")
        drawn = draw_all(found, run.experiment.name, toy=run.experiment.toy)
        links = point_links(run.input("warehouse") / WAREHOUSE, points, os.environ.get(UI_VARIABLE, UI))
        for name, figure in drawn.items():
            save(figure, run.draft.path, name)
            annotate_svg(run.draft.path / f"{name}.svg", links)
            preview = io.BytesIO()
            figure.savefig(preview, format="png", dpi=PREVIEW_DPI, bbox_inches="tight")
            image = base64.b64encode(preview.getvalue()).decode()
            run.metadata[name] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{image})")
        run.draft.counts["figures"] = len(drawn)

    def tables(run: AssetRun) -> None:
        from dagster_project.report.database import publish_database
        from dagster_project.report.hyperparameters import hyperparameters
        from dagster_project.report.latex import latex_tables, to_latex
        from dagster_project.report.tables import result_rows

        found = read_tables(run)
        rows = result_rows(found["frontier_points"])
        markdown = rows.to_markdown(index=False)
        (run.draft.path / "results.md").write_text(markdown + "\n", encoding="utf-8")
        (run.draft.path / "results.tex").write_text(to_latex(rows), encoding="utf-8")
        (run.draft.path / "latex").mkdir()
        for name, text in latex_tables(found, hyperparameters(run.experiment)).items():
            (run.draft.path / "latex" / f"{name}.tex").write_text(text, encoding="utf-8")
        rows.to_csv(run.draft.path / RESULTS_CSV, index=False)
        parquet = [path for asset in TABLES for path in sorted(run.input(asset).glob("*.parquet"))]
        target = run.draft.path / database_name(run.experiment.name)
        publish_database(run.input("warehouse") / WAREHOUSE, parquet, target)
        run.metadata["results"] = dg.MetadataValue.md(markdown)
        run.draft.counts["rows"] = len(rows)

    return [
        factory.asset("figures", figures, kinds={"matplotlib"}),
        factory.asset("tables", tables, kinds={"duckdb"}),
    ]
