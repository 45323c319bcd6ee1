"""What a score alone does not show: how trajectories ended, what was invented, and what is left without those."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from dagster_project.artifacts.database import open_database
from dagster_project.experiment.spec import Experiment
from dagster_project.results.frontier import frontier
from dagster_project.results.pair_options import pair_options
from dagster_project.results.persistence import persistence
from dagster_project.results.scores import load_scores
from toolemu.trajectory import RUNAWAYS

AGENTS = """
    WITH scored AS (
        SELECT trajectory_id, min(score) AS least, count(DISTINCT metric) AS metrics
        FROM (SELECT trajectory_id, judge, metric, avg(score) AS score FROM evaluations
              WHERE metric IN ('safe', 'help') GROUP BY ALL)
        GROUP BY ALL
    ), names AS (SELECT DISTINCT agent, model, recipe, beta FROM agents), tested AS (
        SELECT t.* EXCLUDE (seed), s.seed FROM trajectories t
        JOIN splits s ON s.case_idx = t.case_idx AND s.split = 'test' AND coalesce(t.seed, s.seed) = s.seed
    )
    SELECT t.agent, t.seed, count(*) AS trajectories, count(DISTINCT t.case_idx) AS cases,
        avg((stop_reason = 'final_answer')::INTEGER) AS in_format,
        avg((stop_reason = 'token_budget')::INTEGER) AS token_budget,
        avg((stop_reason = 'step_limit')::INTEGER) AS step_limit,
        avg((stop_reason = 'unparseable')::INTEGER) AS unparseable,
        avg((stop_reason = 'context_full')::INTEGER) AS context_full,
        avg((self_observed > 0)::INTEGER) AS self_observed,
        avg((emulator_calls = 0)::INTEGER) AS without_tool_call,
        avg(steps) AS mean_steps,
        avg(agent_tokens) AS mean_agent_tokens,
        n.model, n.recipe, n.beta,
        avg((stop_reason = 'limit')::INTEGER) AS "limit",
        avg((stop_reason = 'out_of_memory')::INTEGER) AS out_of_memory,
        avg((stop_reason IN ('limit', 'token_budget', 'step_limit', 'repetition'))::INTEGER) AS runaway,
        avg((self_observed > 0 AND emulator_calls = 0)::INTEGER) AS invented_only,
        sum(empty_observations) / nullif(sum(emulator_calls), 0) AS emulator_unparsed,
        avg((least >= 2)::INTEGER) FILTER (metrics = 2) AS best_of_both,
        count(*) FILTER (metrics = 2) AS scored,
        avg(agent_characters) AS mean_agent_characters
    FROM tested t LEFT JOIN names n USING (agent) LEFT JOIN scored USING (trajectory_id)
    GROUP BY t.agent, t.seed, n.model, n.recipe, n.beta ORDER BY t.agent, t.seed
"""
TOKEN_LIMIT = """
    WITH tested AS (
        SELECT t.*, s.seed AS split_seed FROM trajectories t
        JOIN splits s ON s.case_idx = t.case_idx AND s.split = 'test' AND coalesce(t.seed, s.seed) = s.seed
    ), verdicts AS (
        SELECT trajectory_id, judge, avg(score) FILTER (metric = 'safe') AS safe,
            avg(score) FILTER (metric = 'help') AS help
        FROM evaluations GROUP BY ALL
    ), names AS (SELECT DISTINCT agent, model, recipe, beta FROM agents)
    SELECT model, recipe, beta, count(*) AS n,
        avg((stop_reason IN ('limit', 'token_budget'))::INTEGER) AS token_limit_rate,
        sum((stop_reason = 'out_of_memory')::INTEGER)::INTEGER AS out_of_memory,
        avg(safe) FILTER (stop_reason IN ('limit', 'token_budget')) AS safe_limited,
        avg(help) FILTER (stop_reason IN ('limit', 'token_budget')) AS help_limited,
        avg(safe) FILTER (stop_reason NOT IN ('limit', 'token_budget')) AS safe_other,
        avg(help) FILTER (stop_reason NOT IN ('limit', 'token_budget')) AS help_other
    FROM tested JOIN verdicts USING (trajectory_id) JOIN names USING (agent)
    GROUP BY ALL ORDER BY model, recipe NULLS FIRST, beta
"""
PAIRS = """
    WITH scored AS (
        SELECT trajectory_id, judge, avg(score) FILTER (metric = 'safe') AS safe,
            avg(score) FILTER (metric = 'help') AS help
        FROM evaluations GROUP BY ALL
    )
    SELECT p.judge, p.metric, p.seed, count(*) AS pairs, count(DISTINCT p.case_idx) AS cases,
        avg((c.safe >= 2 AND c.help >= 2)::INTEGER) AS chosen_best_of_both,
        avg((r.safe >= 2 AND r.help >= 2)::INTEGER) AS rejected_best_of_both,
        avg((ct.self_observed > 0)::INTEGER) AS chosen_self_observed,
        avg((rt.self_observed > 0)::INTEGER) AS rejected_self_observed,
        avg((ct.emulator_calls = 0)::INTEGER) AS chosen_without_tool_call,
        avg((rt.emulator_calls = 0)::INTEGER) AS rejected_without_tool_call,
        avg((ct.agent = rt.agent)::INTEGER) AS same_model
    FROM preference_pairs p
    JOIN scored c ON c.trajectory_id = p.chosen_trajectory_id AND c.judge = p.judge
    JOIN scored r ON r.trajectory_id = p.rejected_trajectory_id AND r.judge = p.judge
    JOIN trajectories ct ON ct.trajectory_id = p.chosen_trajectory_id
    JOIN trajectories rt ON rt.trajectory_id = p.rejected_trajectory_id
    GROUP BY ALL ORDER BY ALL
"""
NO_RUNAWAY = f"t.stop_reason NOT IN ({', '.join(repr(reason.value) for reason in RUNAWAYS)})"
WITHOUT = {
    "self_observed": "t.self_observed = 0",
    "runaways": NO_RUNAWAY,
    "self_observed_or_runaways": f"t.self_observed = 0 AND {NO_RUNAWAY}",
}
"""What is left out, and the condition on trajectories that leaves it out."""
AUDITED = (
    "audited_points",
    "audited_fits",
    "audited_persistence",
    "audited_persistence_differences",
    "audited_contrasts",
)
"""The tables of what is left."""


def audit_tables(warehouse: Path, agents: pd.DataFrame, experiment: Experiment) -> dict[str, pd.DataFrame]:
    """Return the audits by their names in the database.

    `audits`: a row for every agent and seed, on that seed's held-out cases, for source models as for trained agents;
    shares are of its trajectories, except `emulator_unparsed` (of its emulator's answers) and `best_of_both` (of the
    `scored` ones). `audited_*`: points, fits, persistence and contrasts over the trajectories that are left when some
    are left out (`without`); deltas then compare the cases that both still have. How a trajectory ended, and what the
    agent invented, is an outcome of training: what is left is a selection, and no sample of the same cases.
    """
    statistics = experiment.statistics
    with open_database(warehouse) as database:
        tables = {
            "audits": database.execute(AGENTS).df(),
            "token_limits": database.execute(TOKEN_LIMIT).df(),
            "pair_audits": database.execute(PAIRS).df(),
            "pair_options": pair_options(database, experiment),
        }
    audited: dict[str, list[pd.DataFrame]] = {name: [] for name in AUDITED}
    for name, where in WITHOUT.items():
        scores = load_scores(warehouse, where)
        if not scores.index:
            continue
        found = frontier(scores, agents, statistics, main_fit_only=True)
        kept = persistence(scores, agents, statistics, as_published=False)
        parts = found.points, found.fits, kept.persistence, kept.differences, found.contrasts
        for frames, part in zip(audited.values(), parts, strict=True):
            frames.append(part.assign(without=name))
    return {**tables, **{name: _joined(frames) for name, frames in audited.items()}}


def _joined(frames: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame({"without": []})
