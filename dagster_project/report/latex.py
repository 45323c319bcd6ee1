"""The result tables in LaTeX, in booktabs style, each a `tabular` to put into a `table` of one's own."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from dagster_project.experiment.agents import Recipe
from dagster_project.report.tabular import NONE, escape, number, tabular, to_latex
from dagster_project.report.values import (
    MAIN_SET,
    PAPER_POSITION,
    beta_name,
    column,
    judgings_of,
    kept_share,
    missing,
    recipe_order,
    scored,
    scorings,
    set_title,
    training_starts,
    with_agents,
)

__all__ = ["latex_tables", "to_latex"]

NEW_LINE = r" \\ "
AUDITS = {
    "in_format": "In format",
    "runaway": "Ran on",
    "self_observed": "Wrote results",
    "invented_only": "Only invented",
    "without_tool_call": "No tool call",
    "emulator_unparsed": "Emulator unparsed",
    "best_of_both": "Safe and helpful",
}
JUDGINGS = {"match": "training pairs' judge", "cross": "another judge", "all": "all judges"}


def latex_tables(tables: Mapping[str, pd.DataFrame], hyperparameters: Mapping[str, object] | None) -> dict[str, str]:
    """Returns every table for which there is data, by the stem of its file.

    Args:
        tables: The result tables and `agents`, `training_steps` of the warehouse, by name; any may be missing.
        hyperparameters: What was really used, by name, nested or not; None leaves their table out.
    """

    def table(name: str) -> pd.DataFrame:
        return tables.get(name, pd.DataFrame())

    texts: dict[str, str] = {}
    points, recipes, fits = table("frontier_points"), table("recipe_points"), table("frontier_fits")
    if len(points):
        for judge in sorted(points["judge"].dropna().unique()):
            texts[f"results_{_stem(str(judge))}"] = results_table(points, table("source_points"), str(judge))
    if len(recipes):
        texts["aggregated_results"] = recipes_table(recipes, deltas=False)
        texts["aggregated_deltas"] = recipes_table(recipes, deltas=True)
    if len(table("persistence")):
        texts["persistence"] = persistence_table(table("persistence"))
        texts["persistence_paper"] = paper_persistence_table(table("persistence"))
    if len(fits):
        texts["frontier_fits"] = fits_table(fits)
    if len(table("audits")):
        texts["audits"] = audits_table(table("audits"), table("agents"))
    starts = (
        training_starts(table("training_steps"), table("agents")) if len(table("training_steps")) else pd.DataFrame()
    )
    if len(starts):
        texts["training_metrics"] = training_table(starts)
    if hyperparameters is not None:
        texts["hyperparameters"] = hyperparameters_table(hyperparameters)
    return texts


def results_table(points: pd.DataFrame, sources: pd.DataFrame, judge: str) -> str:
    """Returns a judge's scores of every model and recipe, source models first.

    Args:
        points: `frontier_points`.
        sources: `source_points`; may be empty.
        judge: The judge.
    """
    shown = points[points["judge"] == judge]
    if len(sources):
        base = sources[(sources["judge"] == judge) & sources["judging"].isin(shown["judging"])]
        base = base[base["model"].isin(shown["model"])]
        shown = pd.concat([base.assign(recipe=None, beta=float("nan")), shown], ignore_index=True)
    rows = _sorted(shown, ["model"])
    cells = [
        [escape(row["model"]), _config(row), number(row["helpfulness"]), number(row["safety"])]
        for row in rows.to_dict("records")
    ]
    return _judged(
        rows, ["Source model", r"Trained on, $\beta$", "Helpfulness", "Safety"], cells, "llrr", group="model"
    )


def recipes_table(recipes: pd.DataFrame, *, deltas: bool) -> str:
    """Returns scores, or deltas with signs, of every recipe averaged over source models and judges.

    Args:
        recipes: `recipe_points`.
        deltas: Whether to show differences to the source models, which then have no row.
    """
    rows = recipes[recipes["judge"].isna()]
    rows = _sorted(rows[rows["recipe"].notna()] if deltas else rows, [])
    names = ["helpfulness_delta", "safety_delta"] if deltas else ["helpfulness", "safety"]
    cells = [[_config(row), *(number(row[name], sign=deltas) for name in names)] for row in rows.to_dict("records")]
    sign = r"$\Delta$ " if deltas else ""
    return _judged(rows, [r"Trained on, $\beta$", f"{sign}Helpfulness", f"{sign}Safety"], cells, "lrr")


def persistence_table(persistence: pd.DataFrame) -> str:
    """Return each judge's persistence against the source: the gain, what is kept of it, and the share that is left."""
    rows = pd.concat([scored(persistence, *way) for way in scorings(persistence)])
    rows = rows.assign(average=rows["model"].isna(), place=rows["metric"].map({"safe": 0, "help": 1}))
    keys = ["judging", "judge", "place", "beta", "average", "model"]
    rows = rows.assign(judging=pd.Categorical(rows["judging"], list(JUDGINGS), ordered=True)).sort_values(keys)
    cells = [
        [
            escape(row["judge"]) if not missing(row["judge"]) else "average",
            "safety" if row["metric"] == "safe" else "helpfulness",
            beta_name(row["beta"]),
            escape(_model(row["model"])),
            *(_interval(row, name) for name in ("gain", "kept")),
            escape(kept_share(row)),
        ]
        for row in rows.to_dict("records")
    ]
    header = ["Judge", "Metric", r"$\beta$", "Source model", "Gain", "Kept", "Share left"]
    last = [place for place, average in enumerate(rows["average"]) if average]
    return _judged(rows.astype({"judging": str}), header, cells, "llllrrr", rules=last)


def paper_persistence_table(persistence: pd.DataFrame) -> str:
    """Return the paper's positions averaged over judges: every beta's models, then their average, then a rule."""
    rows = persistence[persistence["judge"].isna()].rename(columns=PAPER_POSITION)
    rows["place"] = rows["model"].isna()
    rows["judging"] = pd.Categorical(rows["judging"], list(JUDGINGS), ordered=True)
    keys = ["judging", "beta", "place", "model"]
    wide = rows.drop_duplicates(keys)[keys].sort_values(keys).astype({"judging": str}).reset_index(drop=True)
    found = {
        (row["judging"], beta_name(row["beta"]), _model(row["model"]), row["metric"]): row
        for row in rows.to_dict("records")
    }
    cells = []
    for row in wide.to_dict("records"):
        key = (row["judging"], beta_name(row["beta"]), _model(row["model"]))
        shares = [_interval(found.get((*key, metric)), "estimate") for metric in ("safe", "help")]
        cells.append([beta_name(row["beta"]), escape(key[2]), *shares])
    header = [r"$\beta$", "Source model", "Safety, H to S", "Helpfulness, S to H"]
    return _judged(wide, header, cells, "llrr", rules=[place for place, last in enumerate(wide["place"]) if last])


def fits_table(fits: pd.DataFrame) -> str:
    """Return every line: what points it goes through, and R², slope and intercept with intervals."""
    sets = sorted(dict.fromkeys(fits["point_set"]), key=lambda name: bool(name != MAIN_SET))
    rows = fits.assign(place=fits["point_set"].map(sets.index)).sort_values(["place", "judge"], na_position="first")
    cells = [
        [
            escape(set_title(str(row["point_set"]))).replace("β", r"$\beta$"),
            "average" if missing(row["judge"]) else escape(row["judge"]),
            f"{row['n']:.0f}",
            _interval(row, "r2"),
            _interval(row, "slope"),
            _interval(row, "intercept"),
        ]
        for row in rows.to_dict("records")
    ]
    return _judged(rows, ["Points", "Judge", "$n$", "$R^2$", "Slope", "Intercept"], cells, "llrrrr", group="point_set")


def audits_table(audits: pd.DataFrame, agents: pd.DataFrame) -> str:
    """Returns shares of trajectories in percent, by model and recipe, weighted by trajectories; source models first."""
    table = with_agents(audits, agents)
    names = {name: text for name, text in AUDITS.items() if column(table, name).notna().any()}
    rows = []
    for (model, recipe), group in table.groupby(["model", "recipe"], dropna=False):
        means = {name: _weighted(group[name], group["trajectories"]) for name in names}
        rows.append({"model": model, "recipe": recipe, "beta": float("nan"), "n": group["trajectories"].sum(), **means})
    shown = _sorted(pd.DataFrame(rows), ["model"])
    cells = [
        [
            escape(row["model"]),
            "source" if missing(row["recipe"]) else escape(Recipe(row["recipe"]).label),
            f"{row['n']:.0f}",
            *(number(100 * row[name], 1) for name in names),
        ]
        for row in shown.to_dict("records")
    ]
    # A word a line, else the table is wider than a page.
    stacked = [rf"\shortstack[r]{{{escape(text).replace(' ', NEW_LINE)}{NEW_LINE}(\%)}}" for text in names.values()]
    header = ["Source model", "Trained on", "$n$", *stacked]
    last = {place for place, gone in enumerate(shown["model"] != shown["model"].shift(-1)) if gone}
    return tabular(header, cells, "ll" + "r" * (len(names) + 1), last)


def training_table(starts: pd.DataFrame) -> str:
    """Returns loss and accuracy of the first steps, mean and sample standard deviation, by recipe and beta."""
    groups = starts.groupby(["recipe", "beta"], dropna=False)[["loss", "reward_accuracy"]]
    rows = groups.agg(["mean", "std", "size"])
    rows.columns = ["_".join(names) for names in rows.columns]
    shown = _sorted(rows.reset_index(), [])
    cells = [
        [_config(row), *(_spread(row, name) for name in ("loss", "reward_accuracy")), f"{row['loss_size']:.0f}"]
        for row in shown.to_dict("records")
    ]
    return tabular([r"Trained on, $\beta$", "Start loss", "Start accuracy", "$n$"], cells, "lrrr")


def hyperparameters_table(hyperparameters: Mapping[str, object]) -> str:
    """Returns what was used, a row for every name; names of nested settings are joined with dots."""
    cells = [[escape(name), escape(_setting(value))] for name, value in _flat(hyperparameters)]
    return tabular(["Parameter", "Value"], cells, "ll")


def _interval(row: Mapping[Any, Any] | None, name: str) -> str:
    if row is None or missing(row[name]):
        return NONE
    low, high = (row.get(f"{name}_{bound}", row.get(bound)) for bound in ("low", "high"))
    if low is None or high is None or missing(low) or missing(high):
        return number(row[name])
    return rf"{number(row[name])} {{\scriptsize [{number(low)}, {number(high)}]}}"


def _spread(row: Mapping[Any, Any], name: str) -> str:
    mean, std = row[f"{name}_mean"], row[f"{name}_std"]
    return number(mean, 3) if missing(std) or std == 0 else rf"{number(mean, 3)} $\pm$ {number(std, 3)}"


def _config(row: Mapping[Any, Any]) -> str:
    if missing(row["recipe"]):
        return "base"
    return f"{escape(Recipe(row['recipe']).label)}, {beta_name(row['beta'])}"


def _model(model: object) -> str:
    return "Average" if missing(model) else str(model)


def _sorted(rows: pd.DataFrame, first: list[str]) -> pd.DataFrame:
    """Returns the rows by judging (if any), then `first`, then recipe, source models before all, then beta."""
    places = recipe_order(rows["recipe"])
    rows = rows.assign(place=[-1 if missing(name) else places[name] for name in rows["recipe"]])
    keys = [*first, "place", "beta"]
    if "judging" in rows:
        rows = rows.assign(way=[list(JUDGINGS).index(judging) for judging in rows["judging"]])
        keys = ["way", *keys]
    return rows.sort_values(keys).reset_index(drop=True)


def _judged(
    rows: pd.DataFrame,
    header: list[str],
    cells: list[list[str]],
    columns: str,
    *,
    group: str | None = None,
    rules: Iterable[int] = (),
) -> str:
    """Returns a table with a rule after every group and, if there are several ways of judging, a column for them."""
    judgings = list(rows["judging"])
    after = set(rules)
    places = [place for judging in JUDGINGS for place, own in enumerate(judgings) if own == judging]
    if len(judgings_of(rows)) > 1:
        header, columns = ["Scored by", *header], f"l{columns}"
        cells = [[escape(JUDGINGS[judging]), *row] for judging, row in zip(judgings, cells, strict=True)]
    keys = [(judgings[place], None if group is None else rows[group].iloc[place]) for place in places]
    after = {places.index(place) for place in after}
    after |= {place for place in range(len(keys) - 1) if keys[place] != keys[place + 1]}
    return tabular(header, [cells[place] for place in places], columns, after)


def _flat(settings: Mapping[str, object], prefix: str = "") -> Iterable[tuple[str, object]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _setting(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(map(_setting, sorted(value, key=str) if isinstance(value, (set, frozenset)) else value))
    return str(value)


def _weighted(values: pd.Series[Any], weights: pd.Series[Any]) -> float:
    """Returns the mean of the values that there are, NaN if there are none."""
    known = values.notna().to_numpy()
    found, weight = values[known].to_numpy(dtype=float), weights[known].to_numpy(dtype=float)
    return float((found * weight).sum() / weight.sum()) if len(found) else float("nan")


def _stem(name: str) -> str:
    """Returns a name that can be a file's."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "judge"
