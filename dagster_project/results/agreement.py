"""How far judges agree on the same trajectories, with themselves, and their metrics with one another."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import krippendorff
import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from dagster_project.artifacts.database import open_database

SCALE = 4

Table = pd.DataFrame
AGREEMENT = ["metric", "judge_a", "judge_b", "n", "exact", "within_1", "pearson", "weighted_kappa", "mean_a", "mean_b"]
AGREEMENT += ["alpha"]
CONFUSION = ["metric", "judge_a", "judge_b", "score_a", "score_b", "n"]
CORRELATION = ["whose", "judge", "n", "pearson", "pearson_p", "spearman", "spearman_p", "kendall", "kendall_p"]
CORRELATION += ["mean_safe", "mean_help", "std_safe", "std_help"]
CONTINGENCY = ["whose", "judge", "safe", "help", "n"]
CONSISTENCY = ["judge", "metric", "trajectories", "replicates", "exact_match", "majority_agree", "all_but_one_agree"]
CONSISTENCY += ["within_1", "mean_std", "mean_variance"]

VERDICTS = """
    SELECT trajectory_id, judge, metric, seed IS NULL AS is_source, avg(score) AS score
    FROM evaluations WHERE score IS NOT NULL GROUP BY ALL
"""
REPLICATES = """
    SELECT judge, metric, trajectory_id, list(score ORDER BY replicate) AS scores FROM evaluations
    WHERE score IS NOT NULL GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL
"""


def agreement_tables(warehouse: Path) -> dict[str, Table]:
    """Returns every table about agreement, by its name in the database."""
    with open_database(warehouse) as database:
        verdicts = database.execute(VERDICTS).df()
        replicates = database.execute(REPLICATES).fetchall()
    agreement, confusion = judge_agreement(verdicts)
    correlation, contingency = metric_correlation(verdicts)
    return {
        "judge_agreement": agreement,
        "judge_confusion": confusion,
        "metric_correlation": correlation,
        "metric_contingency": contingency,
        "replicate_consistency": replicate_consistency(
            [(judge, metric, scores) for judge, metric, _, scores in replicates]
        ),
    }


def judge_agreement(verdicts: Table) -> tuple[Table, Table]:
    """Returns the agreement of every two judges on every metric, and their confusion tables.

    Over all trajectories that both scored. `weighted_kappa` is Cohen's with quadratic weights (Cohen, “Weighted
    kappa”, Psychol. Bull. 1968), on scores rounded to whole numbers; undefined (NaN) where one of the judges gives a
    single score throughout. `alpha` is Krippendorff's for ordinal scores (“Content Analysis”, chapter 11).
    """
    rows, counts = [], []
    for metric, group in verdicts.groupby("metric", sort=True):
        table = group.pivot(index="trajectory_id", columns="judge", values="score")
        for first, second in itertools.combinations(sorted(table.columns), 2):
            both = table[[first, second]].dropna()
            a, b = both[first].to_numpy(dtype=float), both[second].to_numpy(dtype=float)
            if not len(a):
                continue
            gap = np.abs(a - b)
            varies = len(a) > 1 and a.std() > 0 and b.std() > 0
            pearson = float(np.corrcoef(a, b)[0, 1]) if varies else float("nan")
            shares = float((gap == 0).mean()), float((gap <= 1).mean())
            numbers = pearson, weighted_kappa(a, b), float(a.mean()), float(b.mean()), ordinal_alpha(a, b)
            rows.append((metric, first, second, len(a), *shares, *numbers))
            pairs = confusion(a, b)
            counts += [(metric, first, second, x, y, int(pairs[x, y])) for x in range(SCALE) for y in range(SCALE)]
    return Table(rows, columns=AGREEMENT), Table(counts, columns=CONFUSION)


def confusion(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Returns how often the first series has which score where the second has which, scores rounded to 0 to 3."""
    table = np.zeros((SCALE, SCALE), dtype=np.int64)
    np.add.at(table, (np.rint(a).astype(int), np.rint(b).astype(int)), 1)
    return table


def weighted_kappa(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Returns Cohen's kappa with quadratic weights for two equally long series of scores 0 to 3."""
    table = confusion(a, b) / len(a)
    weights = (np.arange(SCALE)[:, None] - np.arange(SCALE)[None, :]) ** 2
    expected = float((weights * np.outer(table.sum(axis=1), table.sum(axis=0))).sum())
    return 1 - float((weights * table).sum()) / expected if expected > 0 else float("nan")


def ordinal_alpha(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Returns Krippendorff's alpha of two judges for ordinal scores; NaN where only one score was ever given."""
    if len(np.unique(np.concatenate([a, b]))) < 2:
        return float("nan")
    return float(krippendorff.alpha(reliability_data=np.array([a, b]), level_of_measurement="ordinal"))


def metric_correlation(verdicts: Table) -> tuple[Table, Table]:
    """Returns, for each judge, how safety and helpfulness go together over trajectories, and their contingency table.

    Over source models' trajectories (`whose` is `source`), trained agents' and all; p-values take trajectories as
    independent, which those of one case are not.
    """
    rows, counts = [], []
    table = verdicts[verdicts["metric"].isin(["safe", "help"])]
    table = table.pivot(index=["judge", "is_source", "trajectory_id"], columns="metric", values="score")
    if not {"safe", "help"} <= set(table.columns):
        return Table(columns=CORRELATION), Table(columns=CONTINGENCY)
    table = table.dropna().reset_index()
    for whose, kept in (
        ("source", table["is_source"]),
        ("trained", ~table["is_source"]),
        ("all", table["judge"] != ""),
    ):
        for judge, group in table[kept].groupby("judge", sort=True):
            safe, help_ = group["safe"].to_numpy(dtype=float), group["help"].to_numpy(dtype=float)
            numbers: list[float] = []
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", stats.ConstantInputWarning)
                for test in (stats.pearsonr, stats.spearmanr, stats.kendalltau):
                    enough = len(safe) > 2
                    numbers += [float(value) for value in test(safe, help_)] if enough else [float("nan")] * 2
            moments = safe.mean(), help_.mean(), safe.std(), help_.std()
            rows.append((whose, judge, len(group), *numbers, *map(float, moments)))
            pairs = confusion(safe, help_)
            counts += [(whose, judge, x, y, int(pairs[x, y])) for x in range(SCALE) for y in range(SCALE)]
    return Table(rows, columns=CORRELATION), Table(counts, columns=CONTINGENCY)


def replicate_consistency(replicates: list[tuple[str, str, list[float]]]) -> Table:
    """Returns how far a judge agrees with itself over replicates of one verdict; empty without replicates."""
    rows = []
    groups: dict[tuple[str, str], list[list[float]]] = {}
    for judge, metric, scores in replicates:
        groups.setdefault((judge, metric), []).append(scores)
    for (judge, metric), lists in groups.items():
        shares = np.array([[agrees(scores, rule) for rule in RULES] for scores in lists], dtype=float).mean(axis=0)
        deviations = np.array([np.std(scores) for scores in lists])
        size = float(np.mean([len(scores) for scores in lists]))
        spread = float(deviations.mean()), float((deviations**2).mean())
        rows.append((judge, metric, len(lists), size, *map(float, shares), *spread))
    return Table(rows, columns=CONSISTENCY)


RULES = ("exact_match", "majority_agree", "all_but_one_agree", "within_1")


def agrees(scores: list[float], rule: str) -> bool:
    """Returns whether the replicates of a verdict agree by a rule of `RULES`."""
    most = max(scores.count(score) for score in scores)
    if rule == "exact_match":
        return most == len(scores)
    if rule == "majority_agree":
        return most > len(scores) / 2
    if rule == "all_but_one_agree":
        return len(scores) >= 2 and most >= len(scores) - 1
    return max(scores) - min(scores) <= 1
