"""How often the intervals hold what they claim to: experiments of a known truth, made up and counted like real ones.

Usage: python -m benchmarks.coverage [--experiments 400] [--bootstrap 500]
Each made-up experiment has the paper's size (3 models × 5 recipes × 2 betas, 3 seeds, 144 cases of which a seed holds
out half) and spreads near the released runs': of cases, of trainings from seed to seed, and of single scores. The truth
is what an endless number of cases and seeds would give, computed in closed form; scores are whole numbers from 0 to 3.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from dagster_project.experiment.agents import Recipe, agent_key
from dagster_project.experiment.spec import Statistics
from dagster_project.experiment.splits import split_cases
from dagster_project.results.fits import Cloud, fit_line
from dagster_project.results.frontier import frontier
from dagster_project.results.persistence import SEQUENCES, persistence
from dagster_project.results.points import AXES
from dagster_project.results.scores import Array, Column, Scores

MODELS = ("first", "second", "third")
BETAS = (0.05, 0.1)
SEEDS = (0, 1, 2)
N_CASES = 144
JUDGE = "judge"
CASE_SD, CASE_BY_AGENT_SD, SCORE_SD = 0.7, 0.6, 0.5
SEED_SD = 0.15
"""Of an agent's mean from one training to the next; the released runs' means differ by 0.17 to 0.21, cases included."""
RECIPES: dict[Recipe, tuple[float, float]] = {
    Recipe.safe: (-0.7, 1.1),
    Recipe.help: (0.2, 0.0),
    Recipe.both: (-0.4, 0.9),
    Recipe.safe_then_help: (-0.5, 1.0),
    Recipe.help_then_safe: (-0.6, 0.9),
}
"""Change of the latent helpfulness and safety; as in the released runs."""
SOURCE = (1.9, 1.2)
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
    """Returns source models and trained agents whose true means differ at random, from experiment to experiment."""
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


def expected(means: Array, spread: float) -> Array:
    """Returns the mean of a normal number with that spread, rounded to a score."""
    steps: Array = norm.sf([0.5, 1.5, 2.5], loc=means[..., None], scale=spread).sum(axis=-1)
    return steps


def truth(world: World) -> Array:
    """Returns the mean score over all cases and trainings, shape (agents, 2)."""
    shared = CASE_SD**2 + CASE_BY_AGENT_SD**2 + SCORE_SD**2
    trained = world.agents["recipe"].notna().to_numpy()[:, None]
    return np.where(
        trained, expected(world.means, np.sqrt(shared + SEED_SD**2)), expected(world.means, np.sqrt(shared))
    )


def observe(world: World, generator: np.random.Generator) -> Scores:
    """Returns the scores of one experiment; a source model has the same trajectories under every seed."""
    n_agents, n_seeds = len(world.agents), len(SEEDS)
    trained = world.agents["recipe"].notna().to_numpy()[:, None, None, None]

    def noise(spread: float, *shape: int) -> Array:
        return spread * generator.standard_normal(shape)

    latent = world.means[:, :, None, None] + noise(CASE_SD, 1, 2, 1, N_CASES)
    latent = latent + noise(CASE_BY_AGENT_SD, n_agents, 2, 1, N_CASES)
    latent = latent + np.where(trained, noise(SEED_SD, n_agents, 2, n_seeds, 1), 0.0)
    spread = noise(SCORE_SD, n_agents, 2, n_seeds, N_CASES)
    values = np.clip(np.rint(latent + np.where(trained, spread, spread[:, :, :1])), 0, 3)
    for place, seed in enumerate(SEEDS):
        values[:, :, place, list(split_cases(N_CASES, seed + int(generator.integers(10**6))).train)] = np.nan
    index = {
        Column(str(agent), JUDGE, metric): 2 * row + axis
        for row, agent in enumerate(world.agents["agent"])
        for axis, metric in enumerate(AXES)
    }
    return Scores(values.reshape(2 * n_agents, n_seeds, N_CASES), index, SEEDS)


def tallies(world: World, scores: Scores, statistics: Statistics) -> list[Tally]:
    """Returns every kind of interval that the experiment's tables would show, beside its truth."""
    true = pd.DataFrame(truth(world), columns=list(AXES)).assign(agent=world.agents["agent"]).set_index("agent")
    found: list[Tally] = []
    tables = frontier(scores, world.agents, statistics, main_fit_only=True)
    points = tables.points.query("judging == 'match' and judge.isna()")
    deltas = []
    for row in points.to_dict("records"):
        key = agent_key(row["model"], row["recipe"], JUDGE, row["beta"])
        change = true.loc[key] - true.loc[row["model"]]
        deltas.append(change.to_numpy())
        for axis, name in (("help", "helpfulness"), ("safe", "safety")):
            bounds = (row[f"{name}_delta"], row[f"{name}_delta_low"], row[f"{name}_delta_high"])
            found.append(Tally(f"a point's change of {name}", float(change[axis]), *bounds))
    line = fit_line(Cloud(*np.array(deltas).T[:, :, None]))
    (fit,) = tables.fits.query("point_set == 'model_recipe' and judging == 'match' and judge.isna()").to_dict("records")
    for name, value in (("r2", line.r2[0]), ("slope", line.slope[0])):
        for kind, label in (("", "as measured"), ("_disattenuated", "disattenuated")):
            bounds = (fit[f"{name}{kind}"], fit[f"{name}{kind}_low"], fit[f"{name}{kind}_high"])
            found.append(Tally(f"the line's {name}, {label}", float(value), *bounds))
    kept = persistence(scores, world.agents, statistics)
    for row in kept.query("judging == 'match' and judge.isna() and model.isna()").to_dict("records"):
        ratios = []
        for model in MODELS:
            alone, then_other, other = (
                true.loc[agent_key(model, recipe.value, JUDGE, row["beta"]), row["metric"]]
                for recipe in SEQUENCES[row["metric"]]
            )
            ratios.append((then_other - other) / (alone - other))
        name = f"the share of {row['metric']} kept"
        for kind, label in (("", ""), ("cautious_", ", cautious"), ("published_", ", as released")):
            bounds = (row["estimate"], row[f"{kind}low"], row[f"{kind}high"])
            found.append(Tally(name + label, float(np.mean(ratios)), *bounds))
    return found


def main() -> None:
    """Prints, for every kind of interval, how often it held the truth."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=400)
    parser.add_argument("--bootstrap", type=int, default=500)
    options = parser.parse_args()
    found = []
    for number in range(options.experiments):
        generator = np.random.default_rng(number)
        world = make_world(generator)
        scores = observe(world, generator)
        found += tallies(world, scores, Statistics(n_bootstrap=options.bootstrap, seed=number))
    table = pd.DataFrame(found)
    table["held"] = (table["low"] <= table["truth"]) & (table["truth"] <= table["high"])
    table["below"], table["above"] = table["truth"] < table["low"], table["truth"] > table["high"]
    table["width"], table["bias"] = table["high"] - table["low"], table["estimate"] - table["truth"]
    columns = ["truth", "bias", "width", "held", "below", "above"]
    summary = table.groupby("name", sort=False)[columns].agg({name: "mean" for name in columns} | {"width": "median"})
    print(f"{options.experiments} experiments, {options.bootstrap} draws; intervals claim 95%")
    print(summary.round(3).to_markdown())


if __name__ == "__main__":
    main()
