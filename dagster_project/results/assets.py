"""The warehouse and the result tables."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pandas as pd

from dagster_project.collect.world import open_world
from dagster_project.experiment.assets import AssetFactory, AssetRun
from dagster_project.results.agreement import judge_agreement
from dagster_project.results.audits import audits
from dagster_project.results.frontier import frontier
from dagster_project.results.persistence import persistence
from dagster_project.results.scores import agent_scores, load_agents, load_scores
from dagster_project.results.warehouse import FILE, build_warehouse

ROWS_SHOWN = 40


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""

    def warehouse(run: AssetRun) -> None:
        n_cases = len(open_world(run.experiment).cases)
        path = run.draft.path / FILE
        run.draft.counts.update(build_warehouse(run.experiment, run.store, run.inputs, n_cases, path))

    def tables(compute: Callable[[AssetRun], dict[str, pd.DataFrame]]) -> Callable[[AssetRun], None]:
        def write(run: AssetRun) -> None:
            for name, table in compute(run).items():
                table.to_parquet(run.draft.path / f"{name}.parquet", index=False)
                run.draft.counts[name] = len(table)
                run.metadata[name] = dg.MetadataValue.md(
                    table.head(ROWS_SHOWN).to_markdown(index=False, floatfmt=".2f")
                )

        return write

    def scores(run: AssetRun) -> dict[str, pd.DataFrame]:
        path = run.input("warehouse") / FILE
        return {"agent_scores": agent_scores(load_scores(path), load_agents(path))}

    def frontier_tables(run: AssetRun) -> dict[str, pd.DataFrame]:
        path = run.input("warehouse") / FILE
        found = frontier(load_scores(path), load_agents(path), run.experiment.statistics)
        return {"frontier_points": found.points, "frontier_fits": found.fits}

    def persistence_table(run: AssetRun) -> dict[str, pd.DataFrame]:
        path = run.input("warehouse") / FILE
        return {"persistence": persistence(load_scores(path), load_agents(path), run.experiment.statistics)}

    return [
        factory.asset("warehouse", warehouse, kinds={"duckdb"}),
        factory.asset("scores", tables(scores), kinds={"parquet"}),
        factory.asset("frontier", tables(frontier_tables), kinds={"parquet"}),
        factory.asset("persistence", tables(persistence_table), kinds={"parquet"}),
        factory.asset(
            "judge_agreement",
            tables(lambda run: {"judge_agreement": judge_agreement(run.input("warehouse") / FILE)}),
            kinds={"parquet"},
        ),
        factory.asset(
            "audits", tables(lambda run: {"audits": audits(run.input("warehouse") / FILE)}), kinds={"parquet"}
        ),
    ]
