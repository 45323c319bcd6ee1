"""Figures and tables as assets, previews in their metadata.

What draws and writes them is imported where it is used: a code location, and runs of other rooms, start sooner.
"""

from __future__ import annotations

import io
import os
import shutil
from typing import TYPE_CHECKING

import dagster as dg

from dagster_project.artifacts.database import open_database
from dagster_project.experiment.assets import AssetFactory, AssetRun
from dagster_project.experiment.metadata import as_picture, as_table, as_text
from dagster_project.experiment.nodes import Input
from dagster_project.report.wording import RESULTS_CSV, ui_url
from dagster_project.results.files import WAREHOUSE
from toolemu.tables import plain_cell

if TYPE_CHECKING:
    import pandas as pd

PREVIEW_DPI = 70  # a preview in Dagster's event log should stay below some tens of kilobytes


def database_name(experiment: str) -> str:
    """Returns the file name of an experiment's published database."""
    return f"{experiment}.duckdb"


def link_or_copy(source: str, target: str) -> None:
    """Makes `target` the same file as `source`, which will never change; a copy of it where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""

    def read_tables(run: AssetRun) -> dict[str, pd.DataFrame]:
        import pandas as pd

        paths = (path for made in run.all(Input.tables) for path in sorted(made.path.glob("*.parquet")))
        found = {path.stem: pd.read_parquet(path) for path in paths}
        with open_database(run.one(Input.warehouse).path / WAREHOUSE) as database:
            for name in ("agents", "training_runs", "training_steps"):
                found[name] = database.execute(f"FROM {name}").df()
        return found

    def figures(run: AssetRun) -> None:
        from dagster_project.report.cases import case_scores, load_changes
        from dagster_project.report.figures import draw_all
        from dagster_project.report.links import annotate_svg, point_links
        from dagster_project.report.style import save

        found = read_tables(run)
        warehouse = run.one(Input.warehouse).path / WAREHOUSE
        found["case_scores"] = case_scores(warehouse)
        found["changes"] = load_changes(warehouse, run.experiment.statistics)
        points = found["frontier_points"]
        if points.empty:
            run.log("No trained agent has been tested yet, so there is nothing to draw.")
        drawn = draw_all(found, run.experiment.name, toy=run.experiment.toy)
        links = point_links(warehouse, points, ui_url())
        for name, figure in drawn.items():
            save(figure, run.draft.path, name)
            annotate_svg(run.draft.path / f"{name}.svg", links)
            preview = io.BytesIO()
            figure.savefig(preview, format="png", dpi=PREVIEW_DPI, bbox_inches="tight")
            run.metadata[name] = as_picture(name, preview.getvalue())
        run.draft.counts["figures"] = len(drawn)

    def tables(run: AssetRun) -> None:
        from dagster_project.report.database import publish_database
        from dagster_project.report.hyperparameters import hyperparameters
        from dagster_project.report.latex import latex_tables, to_latex
        from dagster_project.report.tables import result_rows

        found = read_tables(run)
        rows = result_rows(found["frontier_points"])
        markdown = rows.assign(model=[as_text(model) for model in rows["model"]]).to_markdown(index=False)
        (run.draft.path / "results.md").write_text(markdown + "\n", encoding="utf-8")
        (run.draft.path / "results.tex").write_text(to_latex(rows), encoding="utf-8")
        (run.draft.path / "latex").mkdir()
        for name, text in latex_tables(found, hyperparameters(run.experiment)).items():
            (run.draft.path / "latex" / f"{name}.tex").write_text(text, encoding="utf-8")
        rows.map(plain_cell).to_csv(run.draft.path / RESULTS_CSV, index=False)
        parquet = [path for made in run.all(Input.tables) for path in sorted(made.path.glob("*.parquet"))]
        target = run.draft.path / database_name(run.experiment.name)
        publish_database(run.one(Input.warehouse).path / WAREHOUSE, parquet, target)
        run.metadata["results"] = as_table(rows.to_dict("records"))
        run.draft.counts["rows"] = len(rows)

    def transcripts(run: AssetRun) -> None:
        from dagster_project.report.transcript_files import sources, write_transcripts

        found = sources(run.graph, {ref: artifact.path for ref, artifact in run.inputs.items()})
        run.draft.counts["files"] = len(found)
        run.draft.counts["transcripts"] = write_transcripts(found, run.draft.path, run.progress)

    def report(run: AssetRun) -> None:
        from dagster_project.collect.world import open_cases
        from dagster_project.report.page import PAGE, write_page
        from dagster_project.report.page.data import load_tables
        from dagster_project.report.transcript_files import FOLDER

        parquet = [path for made in run.all(Input.tables) for path in sorted(made.path.glob("*.parquet"))]
        found = load_tables(run.one(Input.warehouse).path / WAREHOUSE, parquet, run.experiment.statistics)
        page = run.draft.path / PAGE
        cases = open_cases(run.experiment, run.store)
        write_page(page, run.experiment, found, cases, ui_url())
        shutil.copytree(run.one(Input.transcripts).path, run.draft.path / FOLDER, copy_function=link_or_copy)
        run.metadata["page"] = dg.MetadataValue.path(run.place(page))
        run.draft.counts["bytes"] = page.stat().st_size

    return [
        factory.asset("transcripts", transcripts, kinds={"javascript"}),
        factory.asset("report", report, kinds={"html"}),
        factory.asset("figures", figures, kinds={"matplotlib"}),
        factory.asset("tables", tables, kinds={"duckdb"}),
    ]
