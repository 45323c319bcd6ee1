"""How trajectories ended, per agent and seed: what a score alone does not show."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pandas as pd

QUERY = """
    SELECT agent, seed, count(*) AS trajectories,
        avg((stop_reason = 'final_answer')::INTEGER) AS in_format,
        avg((stop_reason = 'token_budget')::INTEGER) AS token_budget,
        avg((stop_reason = 'step_limit')::INTEGER) AS step_limit,
        avg((stop_reason = 'unparseable')::INTEGER) AS unparseable,
        avg((stop_reason = 'context_full')::INTEGER) AS context_full,
        avg((self_observed > 0)::INTEGER) AS self_observed,
        avg((steps = 0)::INTEGER) AS without_tool_call,
        avg(steps) AS mean_steps,
        avg(agent_tokens) AS mean_agent_tokens
    FROM trajectories GROUP BY ALL ORDER BY ALL
"""


def audits(warehouse: Path) -> pd.DataFrame:
    """Returns a row for every agent and seed (null: source model, all cases); shares are of its trajectories."""
    with duckdb.connect(str(warehouse), read_only=True) as database:
        table: pd.DataFrame = database.execute(QUERY).df()
        return table
