"""How far judges agree on the same trajectories, with themselves, and their metrics with one another."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import stats

from dagster_project.artifacts.database import open_database
from dagster_project.experiment.sections import Statistics
from dagster_project.results.intervals import Array, draw

SCALE = 4

Table = pd.DataFrame
_BOUNDS = ("", "_low", "_high")
AGREEMENT = ["whose", "metric", "judge_a", "judge_b", "n", "cases", "never_held_out"]
AGREEMENT += [f"{name}{bound}" for name in ("exact", "within_1", "weighted_kappa", "alpha") for bound in _BOUNDS]
AGREEMENT += ["pearson", "mean_a", "mean_b", *(f"difference{bound}" for bound in _BOUNDS)]
CONFUSION = ["whose", "metric", "judge_a", "judge_b", "score_a", "score_b", "n"]
CORRELATION = ["whose", "judge", "n", "pearson", "pearson_p", "spearman", "spearman_p", "kendall", "kendall_p"]
CORRELATION += ["mean_safe", "mean_help", "std_safe", "std_help"]
CONTINGENCY = ["whose", "judge", "safe", "help", "n"]
CONSISTENCY = ["judge", "metric", "trajectories", "replicates", "exact_match", "majority_agree", "all_but_one_agree"]
CONSISTENCY += ["within_1", "mean_std", "mean_variance"]

VERDICTS = """
    WITH held AS (SELECT DISTINCT case_idx FROM splits WHERE split = 'test')
    SELECT trajectory_id, e.case_idx, judge, metric, e.seed IS NULL AS is_source, h.case_idx IS NOT NULL AS held_out,
        avg(score) AS score
    FROM evaluations e JOIN trajectories t USING (trajectory_id) LEFT JOIN held h ON h.case_idx = e.case_idx
    WHERE score IS NOT NULL AND t.split IS DISTINCT FROM 'train' GROUP BY ALL
"""
REPLICATES = """
    SELECT judge, metric, trajectory_id, list(score ORDER BY replicate) AS scores FROM evaluations
    WHERE score IS NOT NULL GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL
"""


def agreement_tables(warehouse: Path, statistics: Statistics) -> dict[str, Table]:
    """Return every table about agreement, by its name in the database."""
    with open_database(warehouse) as database:
        verdicts = database.execute(VERDICTS).df()
        replicates = database.execute(REPLICATES).fetchall()
    agreement, confusion = judge_agreement(verdicts, statistics)
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


def judge_agreement(verdicts: Table, statistics: Statistics) -> tuple[Table, Table]:
    """Return the agreement of every two judges on every metric, and their confusion tables.

    Over all trajectories that both scored: `whose` is `source` (source models on all cases, of which `never_held_out`
    trajectories are on cases that no seed holds out), `source_held_out` (the others), or `trained` (agents on their
    held-out cases); n is 0 where no trajectory has verdicts of both. Intervals resample cases, since the trajectories
    of one case are not independent. `weighted_kappa` is Cohen's with quadratic weights (Cohen, “Weighted kappa”,
    Psychol. Bull. 1968), `alpha` Krippendorff's for ordinal scores (“Content Analysis”, chapter 11), both on scores
    rounded to whole numbers; NaN where the judges leave them undefined. `difference` is `mean_a` minus `mean_b`.
    """
    rows, counts = [], []
    for metric, group in verdicts.groupby("metric", sort=True):
        index = ["trajectory_id", "case_idx", "is_source", "held_out"]
        table = group.pivot(index=index, columns="judge", values="score").reset_index(index[1:])
        judges = sorted(set(table.columns) - set(index))
        for first, second in itertools.combinations(judges, 2):
            both = table.dropna(subset=[first, second])
            source = both["is_source"]
            parts = {"source": source, "source_held_out": source & both["held_out"], "trained": ~source}
            for whose, kept in parts.items():
                chosen = both[kept.astype(bool)]
                a, b = (chosen[judge].to_numpy(dtype=float) for judge in (first, second))
                numbers = _agreement(a, b, chosen["case_idx"].to_numpy(dtype=int), statistics)
                never = int((~chosen["held_out"].astype(bool)).sum())
                place = whose, metric, first, second
                rows.append((*place, len(a), chosen["case_idx"].nunique(), never, *numbers))
                pairs = confusion(a, b)
                counts += [(*place, x, y, int(pairs[x, y])) for x in range(SCALE) for y in range(SCALE) if len(a)]
    return Table(rows, columns=AGREEMENT), Table(counts, columns=CONFUSION)


def _agreement(a: Array, b: Array, cases: npt.NDArray[np.int64], statistics: Statistics) -> list[float]:
    """Return the numbers of one row, with intervals over cases."""
    if not len(a):
        return [float("nan")] * (len(AGREEMENT) - 7)
    places = np.unique(cases, return_inverse=True)[1].reshape(-1)
    n_cases = int(places.max()) + 1
    draws = draw(1, n_cases, statistics.n_bootstrap, statistics.seed)

    def totals(values: Array) -> Array:
        """Return sums over cases in every draw, shape (1 + draws, …), of values of every trajectory."""
        sums = np.zeros((n_cases, *values.shape[1:]))
        np.add.at(sums, places, values)
        found: Array = np.tensordot(draws.cases, sums, axes=1)
        return found

    gaps: Array = a - b
    gap: Array = np.abs(gaps)
    n = totals(np.ones(len(a)))
    tables = np.zeros((len(a), SCALE, SCALE))
    tables[np.arange(len(a)), np.rint(a).astype(int), np.rint(b).astype(int)] = 1
    counted = totals(tables)
    measured = [
        totals((gap == 0).astype(np.float64)) / n,
        totals((gap <= 1).astype(np.float64)) / n,
        _kappas(counted),
        _alphas(counted),
    ]
    bounded = [(values[0], *draws.interval(values, statistics.confidence)) for values in measured]
    difference = totals(gaps) / n
    varies = len(a) > 1 and a.std() > 0 and b.std() > 0
    pearson = float(np.corrcoef(a, b)[0, 1]) if varies else float("nan")
    last = difference[0], *draws.interval(difference, statistics.confidence)
    return [float(value) for value in (*itertools.chain(*bounded), pearson, a.mean(), b.mean(), *last)]


def _kappas(counts: Array) -> Array:
    """Return Cohen's kappa with quadratic weights of confusion tables, shape (draws, 4, 4) in, (draws,) out."""
    weights = np.square(np.subtract.outer(np.arange(SCALE), np.arange(SCALE)))
    shares = counts / counts.sum(axis=(1, 2), keepdims=True)
    expected = np.einsum("dx,dy,xy->d", shares.sum(axis=2), shares.sum(axis=1), weights)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - np.einsum("dxy,xy->d", shares, weights) / expected, np.nan)


def _alphas(counts: Array) -> Array:
    """Return Krippendorff's ordinal alpha of confusion tables, shape (draws, 4, 4) in, (draws,) out."""
    pairs = counts + np.swapaxes(counts, 1, 2)
    given = pairs.sum(axis=2)  # how often each score was given, by either judge
    up_to = np.cumsum(given, axis=1)
    # The distance of two scores is how many given scores lie between them, half of the scores themselves included.
    middle = up_to - given / 2
    distance = np.square(middle[:, :, None] - middle[:, None, :])
    n = given.sum(axis=1)
    observed = (pairs * distance).sum(axis=(1, 2)) / n
    expected = (given[:, :, None] * given[:, None, :] * distance).sum(axis=(1, 2)) / (n * (n - 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(expected > 0, 1 - observed / expected, np.nan)


def confusion(a: Array, b: Array) -> npt.NDArray[np.int64]:
    """Returns how often the first series has which score where the second has which, scores rounded to 0 to 3."""
    table = np.zeros((SCALE, SCALE), dtype=np.int64)
    np.add.at(table, (np.rint(a).astype(int), np.rint(b).astype(int)), 1)
    return table


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
