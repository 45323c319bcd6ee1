"""Every run (an agent of one seed by one judge): its difference to the source model, and its scores counted."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

AXES = {"helpfulness": "help", "safety": "safe"}
METRICS = {"safe": "safety", "help": "helpfulness"}
SCORES = tuple(f"score_{score}" for score in range(4))


def run_scores(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns a row for every trained agent, seed and judge, with the scores and what they are above the source's."""
    scores, agents = tables["agent_scores"], tables["agents"]
    wide = scores.pivot_table(index=["agent", "seed", "judge"], columns="metric", values="mean", dropna=False)
    if not {"safe", "help"} <= set(wide.columns):
        return pd.DataFrame()
    wide = wide.reset_index().rename(columns={metric: axis for axis, metric in AXES.items()})
    names = agents[["agent", "model", "recipe", "beta", "pairs_judge"]].drop_duplicates("agent")
    rows = wide.merge(names, on="agent").dropna(subset=list(AXES))
    source = rows[rows["recipe"].isna()][["model", "seed", "judge", *AXES]]
    trained = rows[rows["recipe"].notna()].merge(source, on=["model", "seed", "judge"], suffixes=("", "_source"))
    for axis in AXES:
        trained[f"{axis}_delta"] = trained[axis] - trained[f"{axis}_source"]
    trained["judging"] = ["match" if own else "cross" for own in trained["pairs_judge"] == trained["judge"]]
    return trained.sort_values(["model", "recipe", "pairs_judge", "seed", "judge"])


def distributions(scores: pd.DataFrame, agents: pd.DataFrame) -> pd.DataFrame:
    """Return how many cases got which score, by way of judging, judge, metric and recipe.

    Args:
        scores: `agent_scores`; source models have rows without a way of judging, and are counted in each in which
            their judge scored.
        agents: The warehouse's `agents`.
    """
    names = agents[["agent", "recipe"]].drop_duplicates("agent")
    rows = scores.merge(names, on="agent")
    rows = rows[rows["metric"].isin(METRICS)]
    trained = rows[rows["judging"].notna()]
    ways = trained[["judging", "judge"]].drop_duplicates()
    source = rows[rows["judging"].isna()].drop(columns="judging").merge(ways, on="judge")
    table = pd.concat([source, trained])
    keys = ["judging", "judge", "metric", "recipe"]
    return table.groupby(keys, dropna=False)[list(SCORES)].sum().reset_index()
