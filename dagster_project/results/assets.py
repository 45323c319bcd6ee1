"""The warehouse and the result tables.

Modules that compute them are imported inside functions: a code location, and a run that only imports, start sooner.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import dagster as dg

from dagster_project.experiment.assets import AssetFactory, AssetRun, Check
from dagster_project.experiment.graph import CLAIMS
from dagster_project.experiment.metadata import as_table
from dagster_project.experiment.nodes import Input
from dagster_project.results.files import WAREHOUSE
from dagster_project.results.statements import STATEMENTS

if TYPE_CHECKING:
    import pandas as pd

ROWS_SHOWN = 40


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""

    def warehouse(run: AssetRun) -> None:
        n_cases = run.experiment.world.cases
        from dagster_project.results.warehouse import build_warehouse

        path = run.draft.path / WAREHOUSE
        run.draft.counts.update(build_warehouse(run.graph, run.store, run.inputs, n_cases, path))

    def tables(compute: Callable[[AssetRun], dict[str, pd.DataFrame]]) -> Callable[[AssetRun], None]:
        @functools.wraps(compute)
        def write(run: AssetRun) -> None:
            from dagster_project.results.schema import column_schema

            found = compute(run)
            main = next(iter(found))
            run.rows, run.columns = len(found[main]), column_schema(main, found[main])
            for name, table in found.items():
                table.to_parquet(run.draft.path / f"{name}.parquet", index=False)
                run.draft.counts[name] = len(table)
                run.metadata[name] = as_table(table.head(ROWS_SHOWN).to_dict("records"))

        return write

    def scores(run: AssetRun) -> dict[str, pd.DataFrame]:
        from dagster_project.results.comparisons import comparisons
        from dagster_project.results.scores import agent_scores, load_agents, load_scores

        path = run.one(Input.warehouse).path / WAREHOUSE
        found, agents = load_scores(path), load_agents(path)
        compared = comparisons(found, agents, run.experiment.statistics)
        return {"agent_scores": agent_scores(found, agents), "comparisons": compared}

    def frontier_tables(run: AssetRun) -> dict[str, pd.DataFrame]:
        from dagster_project.results.frontier import frontier
        from dagster_project.results.scores import load_agents, load_scores

        path = run.one(Input.warehouse).path / WAREHOUSE
        return frontier(load_scores(path), load_agents(path), run.experiment.statistics).tables()

    def persistence_table(run: AssetRun) -> dict[str, pd.DataFrame]:
        from dagster_project.results.persistence import persistence
        from dagster_project.results.scores import load_agents, load_scores

        path = run.one(Input.warehouse).path / WAREHOUSE
        return persistence(load_scores(path), load_agents(path), run.experiment.statistics).tables()

    def agreement(run: AssetRun) -> dict[str, pd.DataFrame]:
        from dagster_project.results.agreement import agreement_tables

        return agreement_tables(run.one(Input.warehouse).path / WAREHOUSE, run.experiment.statistics)

    def audits(run: AssetRun) -> dict[str, pd.DataFrame]:
        from dagster_project.results.audits import audit_tables
        from dagster_project.results.scores import load_agents

        path = run.one(Input.warehouse).path / WAREHOUSE
        return audit_tables(path, load_agents(path), run.experiment)

    def claims_tables(run: AssetRun) -> dict[str, pd.DataFrame]:
        import pandas as pd

        from dagster_project.results.claims import answers, claims

        paths = (path for found in run.all(Input.tables) for path in sorted(found.path.glob("*.parquet")))
        found = claims({path.stem: pd.read_parquet(path) for path in paths}, toy=run.experiment.toy)
        world = "In a toy world: " if run.experiment.toy else ""
        for row in answers(found["claims"]):
            left_out = {f"without {what.replace('_', ' ')}": verdict for what, verdict in row["left_out"].items()}
            description = f"{world}{row['statement']} {row['verdict'].capitalize()}. {row['rule']}"
            run.checks.append(Check(row["claim"], row["verdict"] == "holds", description, metadata=left_out))
        return found

    computed: dict[str, Callable[[AssetRun], dict[str, pd.DataFrame]]] = {
        "scores": scores,
        "frontier": frontier_tables,
        "persistence": persistence_table,
        "judge_agreement": agreement,
        "audits": audits,
    }
    described = {name: statement.claim for name, statement in STATEMENTS.items()}
    return [
        factory.asset("warehouse", warehouse, kinds={"duckdb"}),
        *(factory.asset(name, tables(compute), kinds={"parquet"}) for name, compute in computed.items()),
        factory.asset(CLAIMS, tables(claims_tables), checks=described, blocking=False, kinds={"parquet"}),
    ]
