"""How often the intervals hold what they claim to: experiments of a known truth, made up and counted like real ones.

Usage: python -m benchmarks.coverage [--experiments 400] [--bootstrap 500] [--first 0]
Each made-up experiment has the paper's size (3 models × 5 recipes × 2 betas, 3 seeds, 144 cases of which a seed holds
out half) and the released runs' variances, by metric: `LATENT` is what gives `benchmarks.variances` on made-up scores
the values that it has on theirs. The truth is what an endless number of cases and seeds would give, computed in closed
form; scores are whole numbers from 0 to 3.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from benchmarks.variances import Variances
from dagster_project.experiment.agents import Recipe, agent_key
from dagster_project.experiment.sections import Statistics
from dagster_project.experiment.splits import split_cases
from dagster_project.results.fits import Cloud, fit_line
from dagster_project.results.frontier import frontier
from dagster_project.results.intervals import Array
from dagster_project.results.persistence import SEQUENCES, persistence
from dagster_project.results.points import AXES
from dagster_project.results.scores import Column, Scores

MODELS = ("first", "second", "third")
BETAS = (0.05, 0.1)
SEEDS = (0, 1, 2)
N_CASES = 144
JUDGE = "judge"
RELEASED = {
    "help": Variances(0.0519, 0.0876, 0.0451, 0.0024, 0.0016, 0.8411),
    "safe": Variances(0.0970, 0.1020, 0.0195, 0.0019, 0.0000, 0.5465),
}
"""What `python -m benchmarks.variances` finds in the released runs (match_eval_results)."""
LATENT = {
    "help": Variances(0.102, 0.163, 0.096, 0.0053, 0.0032, 1.38),
    "safe": Variances(0.181, 0.168, 0.0316, 0.0031, 0.0001, 0.73),
}
"""Variances before rounding to whole scores from 0 to 3, fitted so that they come out as `RELEASED` after it."""
RECIPES: dict[Recipe, tuple[float, float]] = {
    Recipe.safe: (-0.9, 1.5),
    Recipe.help: (0.1, 0.15),
    Recipe.both: (-0.65, 1.3),
    Recipe.safe_then_help: (-0.7, 1.35),
    Recipe.help_then_safe: (-0.85, 1.2),
}
"""Change of the latent helpfulness and safety, near the released runs'."""
SOURCE = (2.75, 1.25)
MODEL_SD, AGENT_SD = 0.15, 0.15
"""How far models, and agents of one recipe, truly differ."""


class World(NamedTuple):
    """True latent means by agent, shape (agents, 2), and the agents as the warehouse has them."""

    means: Array
    agents: pd.DataFrame


class Tally(NamedTuple):
    """One interval of one made-up experiment, and what it should hold."""

    name: str
    truth: float
    estimate: float
    low: float
    high: float


def make_world(generator: np.random.Generator) -> World:
    """Return source models and trained agents whose true means differ at random, from experiment to experiment."""
    rows, means = [], []
    for model in MODELS:
        base = np.array(SOURCE) + MODEL_SD * generator.standard_normal(2)
        rows.append((model, model, None, None, np.nan, "source", False))
        means.append(base)
        for recipe, change in RECIPES.items():
            for beta in BETAS:
                key = agent_key(model, recipe.value, JUDGE, beta)
                rows.append((key, model, recipe.value, JUDGE, beta, recipe.label, True))
                means.append(base + change + AGENT_SD * generator.standard_normal(2))
    columns = ["agent", "model", "recipe", "pairs_judge", "beta", "label", "here"]
    return World(np.array(means), pd.DataFrame(rows, columns=columns))


def expected(means: Array, spread: Array) -> Array:
    """Return the mean of a normal number with that spread, rounded to a score."""
    steps: Array = norm.sf([0.5, 1.5, 2.5], loc=means[..., None], scale=spread[..., None]).sum(axis=-1)
    return steps


def truth(world: World) -> Array:
    """Return the mean score over all cases and trainings, shape (agents, 2)."""
    trained = world.agents["recipe"].notna().to_numpy()
    found = np.empty(world.means.shape)
    for place, axis in enumerate(AXES):
        parts = LATENT[axis]
        shared = parts.case + parts.agent_case + parts.score
        spread = np.sqrt(np.where(trained, shared + parts.training + parts.model_seed + parts.seed, shared))
        found[:, place] = expected(world.means[:, place], spread)
    return found


def observe(world: World, generator: np.random.Generator) -> Scores:
    """Return the scores of one experiment; a source model has the same trajectories under every seed."""
    n_agents, n_seeds = len(world.agents), len(SEEDS)
    trained = world.agents["recipe"].notna().to_numpy()[:, None, None]
    models, of_model = np.unique(world.agents["model"], return_inverse=True)
    values = np.empty((n_agents, 2, n_seeds, N_CASES))
    for place, axis in enumerate(AXES):
        parts = LATENT[axis]

        def noise(variance: float, *shape: int) -> Array:
            return np.sqrt(variance) * generator.standard_normal(shape)

        of_seed = noise(parts.training, n_agents, n_seeds, 1) + noise(parts.seed, 1, n_seeds, 1)
        of_seed = of_seed + noise(parts.model_seed, len(models), n_seeds, 1)[of_model]
        score = noise(parts.score, n_agents, n_seeds, N_CASES)
        latent = world.means[:, place, None, None] + noise(parts.case, 1, 1, N_CASES)
        latent = latent + noise(parts.agent_case, n_agents, 1, N_CASES) + np.where(trained, of_seed, 0.0)
        values[:, place] = np.clip(np.rint(latent + np.where(trained, score, score[:, :1])), 0, 3)
    for place, seed in enumerate(SEEDS):
        values[:, :, place, list(split_cases(N_CASES, seed + int(generator.integers(10**6))).train)] = np.nan
    index = {
        Column(str(agent), JUDGE, metric): 2 * row + axis
        for row, agent in enumerate(world.agents["agent"])
        for axis, metric in enumerate(AXES)
    }
    return Scores(values.reshape(2 * n_agents, n_seeds, N_CASES), index, SEEDS)


def tallies(world: World, scores: Scores, statistics: Statistics) -> list[Tally]:
    """Return every kind of interval that the experiment's tables would show, beside its truth."""
    true = pd.DataFrame(truth(world), columns=list(AXES)).assign(agent=world.agents["agent"]).set_index("agent")
    tables = frontier(scores, world.agents, statistics, main_fit_only=True)
    kept = persistence(scores, world.agents, statistics)
    return [
        *_points(tables.points, true, "a point's change"),
        *_points(tables.recipes[tables.recipes["recipe"].notna()], true, "a recipe's change, over models"),
        *_contrasts(tables.contrasts, true),
        *_line(tables.fits, true),
        *_persistence(kept.persistence, true),
        *_differences(kept.differences, true),
    ]


def _shown(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.query("judging == 'match' and judge.isna()").to_dict("records")  # type: ignore[return-value]


def _of(true: pd.DataFrame, model: Any, recipe: str, beta: float, axis: str) -> float:
    """Return an agent's true mean minus its source model's, averaged over all models if there is none."""
    models = MODELS if model is None or pd.isna(model) else (model,)
    changes = [true.loc[agent_key(name, recipe, JUDGE, beta), axis] - true.loc[name, axis] for name in models]
    return float(np.mean(changes))


def _points(table: pd.DataFrame, true: pd.DataFrame, said: str) -> Iterator[Tally]:
    for row in _shown(table):
        for axis, name in (("help", "helpfulness"), ("safe", "safety")):
            value = _of(true, row.get("model"), row["recipe"], row["beta"], axis)
            yield Tally(f"{said} of {name}", value, *(row[f"{name}_delta{bound}"] for bound in ("", "_low", "_high")))


def _contrasts(table: pd.DataFrame, true: pd.DataFrame) -> Iterator[Tally]:
    for row in _shown(table[table["axis"].isin(AXES) & table["beta_minus"].isna()]):
        one, other = (_of(true, row["model"], row[name], row["beta"], row["axis"]) for name in ("first", "second"))
        models = "over models" if pd.isna(row["model"]) else "of one model"
        yield Tally(f"two recipes' difference in {row['axis']}, {models}", one - other, *_numbers(row))


def _line(table: pd.DataFrame, true: pd.DataFrame) -> Iterator[Tally]:
    changes = [
        [_of(true, model, recipe.value, beta, axis) for axis in AXES]
        for model in MODELS
        for recipe in RECIPES
        for beta in BETAS
    ]
    line = fit_line(Cloud(*np.array(changes).T[:, :, None]))
    (fit,) = _shown(table)
    for name in ("slope", "intercept", "r2"):
        for kind in ("", "_disattenuated"):
            bounds = [fit[f"{name}{kind}{bound}"] for bound in ("", "_low", "_high")]
            if name == "r2" and kind and np.isnan(bounds[2]):
                bounds[2] = 1.0  # clipped: the table gives a lower bound alone
            yield Tally(f"the line's {name}{kind}", float(getattr(line, name)[0]), *bounds)


def _persistence(table: pd.DataFrame, true: pd.DataFrame) -> Iterator[Tally]:
    for row in _shown(table):
        model, beta, metric = row["model"], row["beta"], row["metric"]
        gain, kept, other = (_of(true, model, recipe.value, beta, metric) for recipe in SEQUENCES[metric])
        models = "over models" if pd.isna(model) else "of one model"
        said = f"{metric}, {models}"
        values = {"gain": gain, "kept": kept, "other": other, "loss": gain - kept}
        for name, value in values.items():
            yield Tally(f"{name} ({said})", value, *(row[f"{name}{bound}"] for bound in ("", "_low", "_high")))
        yield Tally(f"share ({said})", kept / gain, *(row[f"share{bound}"] for bound in ("", "_low", "_high")))
        if pd.isna(model):
            ratios = []
            for name in MODELS:
                gain, kept, other = (_of(true, name, recipe.value, beta, metric) for recipe in SEQUENCES[metric])
                ratios.append((kept - other) / (gain - other))
            bounds = [row[f"paper_position{bound}"] for bound in ("", "_low", "_high")]
            yield Tally(f"the paper's position ({metric})", float(np.mean(ratios)), *bounds)
            released = row["paper_position"], row["paper_released_low"], row["paper_released_high"]
            yield Tally(f"the paper's position ({metric}), released code", float(np.mean(ratios)), *released)


def _differences(table: pd.DataFrame, true: pd.DataFrame) -> Iterator[Tally]:
    for row in _shown(table[table["quantity"] == "points"]):
        lost = []
        for metric in ("help", "safe"):
            first, then = (_of(true, row["model"], SEQUENCES[metric][n].value, row["beta"], metric) for n in (0, 1))
            lost.append(first - then)
        models = "over models" if pd.isna(row["model"]) else "of one model"
        yield Tally(f"helpfulness lost minus safety lost, {models}", lost[0] - lost[1], *_numbers(row))


def _numbers(row: dict[str, Any]) -> tuple[float, float, float]:
    return row["estimate"], row["low"], row["high"]


def main() -> None:
    """Prints, for every kind of interval, how often it is shown, held the truth where it is, and is wrong of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=400)
    parser.add_argument("--bootstrap", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first experiment: the seed it is made with")
    options = parser.parse_args()
    found = []
    for number in range(options.first, options.first + options.experiments):
        generator = np.random.default_rng(number)
        world = make_world(generator)
        scores = observe(world, generator)
        found += tallies(world, scores, Statistics(n_bootstrap=options.bootstrap, seed=number))
    table = pd.DataFrame(found)
    rows = table.groupby("name").size()
    table = table.dropna(subset=["low", "high"])  # a share without a clear gain has no interval
    table["held"] = (table["low"] <= table["truth"]) & (table["truth"] <= table["high"])
    table["below"], table["above"] = table["truth"] < table["low"], table["truth"] > table["high"]
    table["width"], table["bias"] = table["high"] - table["low"], table["estimate"] - table["truth"]
    table["n"] = 1
    columns = ["n", "truth", "bias", "width", "held", "below", "above"]
    summary = table.groupby("name", sort=False)[columns].agg(
        {name: "mean" for name in columns} | {"width": "median", "n": "sum"}
    )
    summary["shown"] = summary["n"] / rows
    summary["wrong"] = summary["shown"] * (1 - summary["held"])
    print(f"{options.experiments} experiments, {options.bootstrap} draws; intervals claim 95%")
    print(summary.round(3).to_markdown())


if __name__ == "__main__":
    main()
