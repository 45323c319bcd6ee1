"""The main numbers once more, from a warehouse's records alone, in plain pandas and numpy.

Nothing of `dagster_project.results` is used. Intervals are recomputed in closed form (variances between cases and
between seeds, Satterthwaite, Student, Fieller) where the statistic is an average or a ratio of two, and by resampling
in loops of its own, with random numbers of its own, for lines and for agreement.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import duckdb
import krippendorff
import numpy as np
import pandas as pd
import pytest
from scipy import stats

CLOSE = 1e-9
LOOPS, DRAWS = 250, 3000


class Records(NamedTuple):
    """Held-out scores by (agent, judge, metric), shape (seeds, cases) each; who the agents are; how many seeds."""

    grids: dict[tuple[str, str, str], np.ndarray]
    agents: pd.DataFrame
    shape: tuple[int, int]


def read(path: Path) -> Records:
    with duckdb.connect(str(path), read_only=True) as database:
        trajectories, evaluations, splits, agents = (
            database.execute(f"SELECT * FROM {name}").df()
            for name in ("trajectories", "evaluations", "splits", "agents")
        )
    test = splits[splits["split"] == "test"]
    verdicts = evaluations.groupby(["trajectory_id", "judge", "metric"], as_index=False)["score"].mean()
    rows = []
    for seed, held in test.groupby("seed")["case_idx"]:
        there = trajectories[trajectories["case_idx"].isin(held)]
        there = there[there["seed"].isna() | (there["seed"] == seed)]
        rows.append(there[["trajectory_id", "agent", "case_idx"]].assign(seed=seed))
    scored = pd.concat(rows).merge(verdicts, on="trajectory_id").dropna(subset=["score"])
    seeds, cases = sorted(test["seed"].unique()), sorted(scored["case_idx"].unique())
    grids = {
        (str(agent), str(judge), str(metric)): own.pivot_table(index="seed", columns="case_idx", values="score")
        .reindex(index=seeds, columns=cases)
        .to_numpy()
        for (agent, judge, metric), own in scored.groupby(["agent", "judge", "metric"])
    }
    return Records(grids, agents.drop_duplicates("agent").set_index("agent"), (len(seeds), len(cases)))


def grid(records: Records, agent: str, judge: str, metric: str) -> np.ndarray:
    """Returns scores, NaN where there is none."""
    return records.grids.get((agent, judge, metric), np.full(records.shape, np.nan))


def parts(own: list[np.ndarray]) -> tuple[float, np.ndarray]:
    """Returns the average of the grids' means, and every cell's share in its error, shape (seeds, cases)."""
    means = [np.nanmean(cells) for cells in own]
    shares = [np.nan_to_num(cells - mean) / (~np.isnan(cells)).sum() for cells, mean in zip(own, means, strict=True)]
    return float(np.mean(means)), np.mean(shares, axis=0)


def covariance(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Returns the covariance of two averages between seeds, and in all."""
    n_seeds = len(one)
    between = 0.0
    if n_seeds > 1:
        first, second = (share.sum(axis=1) - share.sum() / n_seeds for share in (one, other))
        between = n_seeds / (n_seeds - 1) * float(first @ second)
    return between, between + float(one.sum(axis=0) @ other.sum(axis=0))


def student(share: np.ndarray) -> tuple[float, float]:
    """Returns the standard error of an average, and Student's quantile with Satterthwaite's degrees of freedom."""
    seeds, total = covariance(share, share)
    return float(np.sqrt(total)), float(stats.t.ppf(0.975, freedom(seeds, total - seeds, share.shape)))


def freedom(seeds: float, cases: float, shape: tuple[int, ...]) -> float:
    """Returns Satterthwaite's degrees of freedom with the seeds' part of the variance raised by (ν + 2) / ν."""
    n_seeds, n_cases = shape
    if n_seeds == 1:
        return n_cases - 1
    seeds *= (n_seeds + 1) / (n_seeds - 1)
    return (seeds + cases) ** 2 / (seeds**2 / (n_seeds - 1) + cases**2 / (n_cases - 1))


def same_interval(found: tuple[float, float], low: float, high: float, tolerance: float = 0.12) -> None:
    """Draws are finite: a bound may be off by so much of the interval's width."""
    assert found == pytest.approx((low, high), abs=tolerance * (high - low) + 1e-12)


def drawn_weights(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the seeds' deviations, shape (draws, seeds), and cells' weights, shape (draws, seeds, cases)."""
    generator = np.random.default_rng(99)
    n_seeds, n_cases = shape
    normal = generator.standard_normal((DRAWS, n_seeds))
    seeds = (normal - normal.mean(axis=1, keepdims=True)) * np.sqrt(n_seeds / max(n_seeds - 1, 1))
    cases = generator.multinomial(n_cases, np.full(n_cases, 1 / n_cases), DRAWS)
    return seeds, seeds[:, :, None] + cases[:, None, :]


def widened(estimate: float, values: np.ndarray, seeds: np.ndarray, shape: tuple[int, int]) -> tuple[float, float]:
    """Returns the percentiles of drawn values, stretched around the estimate from normal to Student's quantile."""
    fitted = seeds @ np.linalg.lstsq(seeds, values - values.mean(), rcond=None)[0]
    df = freedom(float(fitted.var()), float(values.var() - fitted.var()), shape)
    wider = stats.t.ppf(0.975, df) / stats.norm.ppf(0.975)
    low, high = np.quantile(values, [0.025, 0.975])
    return estimate - wider * (estimate - low), estimate + wider * (high - estimate)


def drawn_means(cells: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Returns the mean of the cells in every draw."""
    found: np.ndarray = np.einsum("dsc,sc->d", weights, np.nan_to_num(cells)) / np.einsum(
        "dsc,sc->d", weights, ~np.isnan(cells)
    )
    return found


def ways(records: Records) -> dict[str | None, list[str]]:
    """Returns, for every judge and (None) their average, the pairs' judges that match."""
    judges = sorted({judge for _, judge, _ in records.grids} & set(records.agents["pairs_judge"].dropna()))
    return {None: judges, **{judge: [judge] for judge in judges}}


def trained(records: Records, model: str, recipe: str, beta: float, judge: str) -> str | None:
    a = records.agents
    found = a[(a["model"] == model) & (a["recipe"] == recipe) & (a["beta"] == beta) & (a["pairs_judge"] == judge)]
    return str(found.index[0]) if len(found) else None


def deltas(records: Records, row: Mapping[str, object], metric: str, judges: list[str]) -> list[np.ndarray]:
    found = []
    for judge in judges:
        agent = trained(records, str(row["model"]), str(row["recipe"]), float(str(row["beta"])), judge)
        assert agent is not None
        found.append(grid(records, agent, judge, metric) - grid(records, str(row["model"]), judge, metric))
    return found


def check_points(records: Records, points: pd.DataFrame) -> int:
    """Deltas with their intervals, of every point."""
    shown = points[points["judging"] == "match"].to_dict("records")
    for row in shown:
        judges = ways(records)[None if pd.isna(row["judge"]) else row["judge"]]
        for metric, name in (("help", "helpfulness_delta"), ("safe", "safety_delta")):
            mean, share = parts(deltas(records, row, metric, judges))  # type: ignore[arg-type]
            assert row[name] == pytest.approx(mean, abs=CLOSE)
            error, quantile = student(share)
            assert row[f"{name}_se"] == pytest.approx(error, rel=0.05)
            same_interval((row[f"{name}_low"], row[f"{name}_high"]), mean - quantile * error, mean + quantile * error)
    return len(shown)


def check_lines(records: Records, points: pd.DataFrame, fits: pd.DataFrame) -> int:
    """Slope, intercept and scatter of the line through all points, with intervals."""
    lines = fits[(fits["judging"] == "match") & (fits["point_set"] == "model_recipe")].to_dict("records")
    for line in lines:
        judge = None if pd.isna(line["judge"]) else line["judge"]
        own = points[(points["judging"] == "match")]
        own = own[own["judge"].isna() if judge is None else own["judge"] == judge]
        cells = [
            [np.stack(deltas(records, row, metric, ways(records)[judge])) for metric in ("help", "safe")]  # type: ignore[arg-type]
            for row in own.to_dict("records")
        ]
        x, y = (np.array([np.mean(np.nanmean(pair[axis], axis=(1, 2))) for pair in cells]) for axis in (0, 1))
        slope, intercept = np.polyfit(x, y, 1)
        assert (line["slope"], line["intercept"]) == pytest.approx((slope, intercept), abs=CLOSE)
        residual = y - intercept - slope * x
        assert line["scatter"] == pytest.approx(np.sqrt((residual**2).sum() / (len(x) - 2)), abs=CLOSE)
        seeds, weights = drawn_weights(records.shape)
        moved = np.empty((2, len(cells), DRAWS))
        for point, axis in itertools.product(range(len(cells)), range(2)):
            own = cells[point][axis]
            totals = np.einsum("dsc,ksc->kd", weights, np.nan_to_num(own))
            moved[axis, point] = (totals / np.einsum("dsc,ksc->kd", weights, ~np.isnan(own))).mean(axis=0)
        centred = moved - moved.mean(axis=1, keepdims=True)
        slopes = (centred[0] * centred[1]).sum(axis=0) / (centred[0] ** 2).sum(axis=0)
        drawn = np.stack([slopes, moved[1].mean(axis=0) - slopes * moved[0].mean(axis=0)], axis=1)
        for place, name, estimate in ((0, "slope", slope), (1, "intercept", intercept)):
            values = drawn[:, place]
            bounds = widened(estimate, values, seeds, records.shape)
            same_interval((line[f"{name}_low"], line[f"{name}_high"]), *bounds, tolerance=0.2)
    return len(lines)


SEQUENCES = {"safe": ("safe", "safe_then_help", "help"), "help": ("help", "help_then_safe", "safe")}


def check_persistence(records: Records, persistence: pd.DataFrame, differences: pd.DataFrame) -> int:
    """Gain, what is kept, the share, the paper's position, and the difference of what the two metrics lose."""
    shown = persistence[persistence["judging"] == "match"].to_dict("records")
    models = sorted(records.agents.loc[records.agents["recipe"].notna(), "model"].unique())
    lost: dict[tuple[object, ...], np.ndarray] = {}
    for row in shown:
        judges = ways(records)[None if pd.isna(row["judge"]) else row["judge"]]
        chosen = models if pd.isna(row["model"]) else [row["model"]]
        grids = []
        for model, judge in itertools.product(chosen, judges):
            names = [trained(records, model, recipe, row["beta"], judge) for recipe in SEQUENCES[row["metric"]]]
            own = np.stack([grid(records, str(name), judge, row["metric"]) for name in (*names, model)])
            grids.append(np.where(np.isnan(own).any(axis=0), np.nan, own))
        first, then, other, source = (list(column) for column in zip(*grids, strict=True))
        assert row["agents"] == len(grids)
        wanted = {"gain": (first, source), "kept": (then, source), "other": (other, source), "loss": (first, then)}
        shares = {}
        for name, (one, minus) in wanted.items():
            mean, shares[name] = parts([a - b for a, b in zip(one, minus, strict=True)])
            error, quantile = student(shares[name])
            assert row[name] == pytest.approx(mean, abs=CLOSE)
            same_interval((row[f"{name}_low"], row[f"{name}_high"]), mean - quantile * error, mean + quantile * error)
            between, total = covariance(shares[name], shares[name])
            p = 2 * stats.t.sf(abs(mean) / error, freedom(between, total - between, records.shape))
            assert row[f"{name}_p"] == pytest.approx(p, rel=0.25, abs=0.01)
        gain, kept = row["gain"], row["kept"]
        assert row["gain_verdict"] == ("gain" if row["gain_low"] > 0 and row["gain_p"] < 0.05 else "no gain")
        if row["gain_verdict"] == "gain":
            assert row["share"] == pytest.approx(kept / gain, abs=CLOSE)
            for bound in (row["share_low"], row["share_high"]):
                # At a bound, what is kept minus that share of the gain is as far from 0 as may be.
                error, quantile = student(shares["kept"] - bound * shares["gain"])
                assert abs(kept - bound * gain) == pytest.approx(quantile * error, rel=0.15), bound
        ratios = []
        for one, two, three in zip(first, then, other, strict=True):
            gap = np.nanmean(one) - np.nanmean(three)
            ratios.append((np.nanmean(two) - np.nanmean(three)) / gap if gap > 1e-9 else np.nan)
        assert row["paper_position"] == pytest.approx(np.nanmean(ratios), abs=CLOSE)
        check_position(row, [first, then, other], records.shape)
        lost[row["judge"], row["model"], row["beta"], row["metric"]] = np.append(shares["loss"], row["loss"])
    of_points = differences[(differences["judging"] == "match") & (differences["quantity"] == "points")]
    for row in of_points.to_dict("records"):
        place = row["judge"], row["model"], row["beta"]
        (safe,), (help_,) = (
            [
                v
                for k, v in lost.items()
                if all(a == b or (pd.isna(a) and pd.isna(b)) for a, b in zip(k, (*place, m), strict=True))
            ]
            for m in ("safe", "help")
        )
        assert row["estimate"] == pytest.approx(help_[-1] - safe[-1], abs=CLOSE)
        error, quantile = student((help_ - safe)[:-1].reshape(records.shape))
        assert row["stderr"] == pytest.approx(error, rel=0.05)
        assert row["high"] - row["low"] == pytest.approx(2 * quantile * error, rel=0.12)
    return len(shown)


def check_position(row: Mapping[str, object], grids: list[list[np.ndarray]], shape: tuple[int, int]) -> None:
    """The interval of the paper's position, and how often its denominator is not positive, from draws of one's own."""
    seeds, weights = drawn_weights(shape)
    first, then, other = (np.array([drawn_means(cells, weights) for cells in own]) for own in grids)
    invalid = (first - other <= CLOSE).any(axis=0)
    assert row["paper_invalid_share"] == pytest.approx(invalid.mean(), abs=0.03)
    if not invalid.any():  # otherwise a few draws near 0 decide the bounds
        drawn = ((then - other) / (first - other)).mean(axis=0)
        bounds = widened(float(str(row["paper_position"])), drawn, seeds, shape)
        same_interval((row["paper_position_low"], row["paper_position_high"]), *bounds, tolerance=0.2)  # type: ignore[arg-type]


def check_differences(persistence: pd.DataFrame, differences: pd.DataFrame) -> int:
    """Safety's share and position minus helpfulness's, where both have one."""
    keys = ["judging", "judge", "model", "beta"]
    wide = persistence.set_index([*keys, "metric"])[["share", "paper_position"]].unstack("metric")
    compared = 0
    for row in differences[differences["quantity"] != "points"].to_dict("records"):
        own = wide
        for level in keys:
            values = own.index.get_level_values(level)
            own = own[pd.isna(values) if pd.isna(row[level]) else values == row[level]]
        (found,) = (own[row["quantity"]]["safe"] - own[row["quantity"]]["help"]).tolist()
        assert row["estimate"] == pytest.approx(found, abs=CLOSE, nan_ok=True)
        compared += not np.isnan(found)
    return compared


def check_agreement(path: Path, agreement: pd.DataFrame) -> int:
    """Shares of equal verdicts, kappa and alpha, with intervals over cases, for each group of trajectories."""
    with duckdb.connect(str(path), read_only=True) as database:
        evaluations, splits, trajectories = (
            database.execute(f"SELECT * FROM {name}").df() for name in ("evaluations", "splits", "trajectories")
        )
    held = set(splits.loc[splits["split"] == "test", "case_idx"])
    left = trajectories.loc[trajectories["split"] != "train", "trajectory_id"]
    evaluations = evaluations[evaluations["trajectory_id"].isin(left)]
    mean = evaluations.groupby(["metric", "trajectory_id", "judge"])["score"].mean().unstack("judge")
    about = evaluations.drop_duplicates("trajectory_id").set_index("trajectory_id")[["case_idx", "seed"]]
    for row in agreement.to_dict("records"):
        both = mean.loc[row["metric"]][[row["judge_a"], row["judge_b"]]].dropna().join(about)
        source = both["seed"].isna()
        kept = {"source": source, "source_held_out": source & both["case_idx"].isin(held), "trained": ~source}
        both = both[kept[row["whose"]]]
        assert (row["n"], row["cases"]) == (len(both), both["case_idx"].nunique())
        assert row["never_held_out"] == (~both["case_idx"].isin(held)).sum()
        if not len(both):
            assert pd.isna(row["exact"]) and pd.isna(row["weighted_kappa"])
            continue
        generator = np.random.default_rng(5)
        of_case = list(both.groupby("case_idx").indices.values())
        drawn = [
            agreement_of(
                both.iloc[
                    np.concatenate([of_case[place] for place in generator.integers(len(of_case), size=len(of_case))])
                ]
            )
            for _ in range(LOOPS)
        ]
        found = agreement_of(both)
        for place, name in enumerate(("exact", "weighted_kappa", "alpha")):
            assert row[name] == pytest.approx(found[place], abs=CLOSE, nan_ok=True)
            quantile = stats.t.ppf(0.975, len(of_case) - 1) / stats.norm.ppf(0.975)
            low, high = np.nanquantile(np.array(drawn)[:, place], [0.025, 0.975])
            bounds = found[place] - quantile * (found[place] - low), found[place] + quantile * (high - found[place])
            same_interval((row[f"{name}_low"], row[f"{name}_high"]), *bounds, tolerance=0.25)
    return len(agreement)


def agreement_of(both: pd.DataFrame) -> tuple[float, float, float]:
    a, b = both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy()
    whole = np.rint(a), np.rint(b)
    by_chance = np.mean([(x - y) ** 2 for x, y in itertools.product(*whole)]) if len(a) < 60 else np.mean(
        np.subtract.outer(*whole) ** 2
    )  # fmt: skip
    kappa = 1 - np.mean((whole[0] - whole[1]) ** 2) / by_chance if by_chance else np.nan
    alpha = np.nan
    if len(np.unique(np.concatenate(whole))) > 1:
        alpha = krippendorff.alpha(reliability_data=np.array(whole), level_of_measurement="ordinal")
    return float(np.mean(a == b)), float(kappa), float(alpha)


def check_audits(path: Path, audits: pd.DataFrame) -> int:
    """Shares of trajectories on the held-out cases of each seed."""
    with duckdb.connect(str(path), read_only=True) as database:
        trajectories = database.execute("SELECT * FROM trajectories").df()
        splits = database.execute("SELECT * FROM splits WHERE split = 'test'").df()
    for row in audits.to_dict("records"):
        held = set(splits.loc[splits["seed"] == row["seed"], "case_idx"])
        own = trajectories[(trajectories["agent"] == row["agent"]) & trajectories["case_idx"].isin(held)]
        own = own[own["seed"].isna() | (own["seed"] == row["seed"])]
        assert (row["trajectories"], row["cases"]) == (len(own), own["case_idx"].nunique())
        assert row["self_observed"] == pytest.approx((own["self_observed"] > 0).mean())
        assert row["without_tool_call"] == pytest.approx((own["emulator_calls"] == 0).mean())
        limits = ["limit", "token_budget", "step_limit", "repetition"]
        assert row["runaway"] == pytest.approx(own["stop_reason"].isin(limits).mean())
    return len(audits)
