"""The warehouse and the result tables."""

from __future__ import annotations

from collections.abc import Callable

import dagster as dg
import pandas as pd

from dagster_project.experiment.assets import AssetFactory, AssetRun
from dagster_project.results.agreement import agreement_tables
from dagster_project.results.audits import audit_tables
from dagster_project.results.comparisons import comparisons
from dagster_project.results.frontier import frontier
from dagster_project.results.mixed import mixed_effects
from dagster_project.results.persistence import persistence
from dagster_project.results.scores import agent_scores, load_agents, load_scores
from dagster_project.results.warehouse import FILE, build_warehouse

ROWS_SHOWN = 40


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""

    def warehouse(run: AssetRun) -> None:
        n_cases = run.experiment.world.cases
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
        found, agents = load_scores(path), load_agents(path)
        compared = comparisons(found, agents, run.experiment.statistics)
        return {"agent_scores": agent_scores(found, agents), "comparisons": compared}

    def frontier_tables(run: AssetRun) -> dict[str, pd.DataFrame]:
        path = run.input("warehouse") / FILE
        return frontier(load_scores(path), load_agents(path), run.experiment.statistics).tables()

    def persistence_table(run: AssetRun) -> dict[str, pd.DataFrame]:
        path = run.input("warehouse") / FILE
        return {"persistence": persistence(load_scores(path), load_agents(path), run.experiment.statistics)}

    def audits(run: AssetRun) -> dict[str, pd.DataFrame]:
        path = run.input("warehouse") / FILE
        return audit_tables(path, load_agents(path), run.experiment.statistics)

    computed: dict[str, Callable[[AssetRun], dict[str, pd.DataFrame]]] = {
        "scores": scores,
        "frontier": frontier_tables,
        "persistence": persistence_table,
        "judge_agreement": lambda run: agreement_tables(run.input("warehouse") / FILE),
        "audits": audits,
        "mixed_effects": lambda run: {"mixed_effects": mixed_effects(run.input("warehouse") / FILE)},
    }
    return [
        factory.asset("warehouse", warehouse, kinds={"duckdb"}),
        *(factory.asset(name, tables(compute), kinds={"parquet"}) for name, compute in computed.items()),
    ]
