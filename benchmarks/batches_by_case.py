"""What shared text and batches by case do to the miniature's results: its whole graph, trained in several ways.

Usage: python -m benchmarks.batches_by_case [SEED …] [--home FOLDER]; by default the shipped seeds, in a scratch folder.
What is in FOLDER already is not made again.

`plain` is TRL's pass; `by case` trains on other batches; `shared text` computes what plain does and must give the same
points up to rounding, which training and sampling carry on; `another order` is plain with another shuffle and another
fresh adapter, so it says how much chance alone does; `by case, 16 pairs` has twice as many pairs in a step, which costs
less than half of plain's 8. Source models, their trajectories, evaluations and pairs are the same for all. Every way's
changes from its source model stand beside plain's, with intervals; their difference has one of its own, from the same
resampled seeds and cases, which is narrower than either.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from safetensors.numpy import load_file

from benchmarks.miniature import frontier
from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.database import open_database
from dagster_project.experiment.sections import Statistics
from dagster_project.experiment.spec import experiment_path
from dagster_project.results.files import WAREHOUSE
from dagster_project.results.intervals import Array, percentiles
from dagster_project.results.points import AXES, Points, make_points
from dagster_project.results.scores import load_agents, load_scores

PLAIN = "plain"
WAYS: dict[str, dict[str, dict[str, Any]]] = {
    PLAIN: {},
    "by case": {"trainer": {"shared_text": True}, "training": {"batch_by": "case"}},
    "shared text": {"trainer": {"shared_text": True}},
    "another order": {"training": {"seed": 1000}},
    "by case, 16 pairs": {"trainer": {"shared_text": True}, "training": {"batch_by": "case", "batch_size": 16}},
}
TRAINING = """
    SELECT sum(seconds + reference_seconds) AS seconds, sum(computed_tokens) AS computed_tokens,
        avg(reward_margin) AS reward_margin, avg(reward_accuracy) AS reward_accuracy, avg(kl) AS kl
    FROM training_runs
"""
SCORED = ("match", None)
"""Which points are compared: those scored by the judge of their pairs."""


class Change(NamedTuple):
    """A point's change from its source model on one axis in every draw, the estimate first; shape (1 + draws,)."""

    name: str
    axis: str
    drawn: Array


class Compared(NamedTuple):
    """One change in two ways; pairs are bounds of 95% intervals.

    Attributes:
        within: Whether either estimate lies in the other's interval.
        difference: Of the other way's change from plain's, which seeds and cases that both share cannot move.
    """

    name: str
    axis: str
    plain: float
    plain_bounds: tuple[float, float]
    other: float
    other_bounds: tuple[float, float]
    within: bool
    difference: float
    difference_bounds: tuple[float, float]


def changes_of(points: Points, by: Sequence[str]) -> list[Change]:
    """Returns the changes of all points, averaged over all that is not in `by`."""
    return [
        Change(" ".join(map(str, values)), axis, points.delta[positions].mean(axis=0)[place])
        for values, positions in points.groups(SCORED, by)
        for place, axis in enumerate(AXES)
    ]


def compare(plain: Sequence[Change], other: Sequence[Change], confidence: float = 0.95) -> list[Compared]:
    """Returns the same points' changes in two ways, side by side; both come from the same draws of seeds and cases."""
    rows = []
    for one, two in zip(plain, other, strict=True):
        bounds, others = (percentiles(change.drawn[1:], confidence) for change in (one, two))
        difference = two.drawn - one.drawn
        estimate, its = float(one.drawn[0]), float(two.drawn[0])
        within = bounds[0] <= its <= bounds[1] and others[0] <= estimate <= others[1]
        between = percentiles(difference[1:], confidence)
        rows.append(Compared(*one[:2], estimate, bounds, its, others, within, float(difference[0]), between))
    return rows


def relative_size(plain: Sequence[Change], other: Sequence[Change]) -> Array:
    """Returns how large the other way's changes are by plain's, in every draw: the slope of a line through 0."""
    one, two = (np.array([change.drawn for change in changes]) for changes in (plain, other))
    slope: Array = (one * two).sum(axis=0) / (one * one).sum(axis=0)
    return slope


def adapter_distances(plain: ArtifactStore, other: ArtifactStore) -> Array:
    """Returns how far each agent's adapter lies from plain's by the size of plain's, in what training moves from 0."""
    distances = []
    for ref in [manifest.ref for manifest in plain.manifests() if manifest.asset.endswith("/adapters")]:
        ours, theirs = (load_file(store.get(ref).path / "adapter_model.safetensors") for store in (plain, other))
        moved = [name for name in ours if "lora_B" in name]
        squares = np.sum(
            [[((theirs[name] - ours[name]) ** 2).sum(), (ours[name] ** 2).sum()] for name in moved], axis=0
        )
        distances.append(np.sqrt(squares[0] / squares[1]))
    return np.array(distances)


def run_way(home: Path, way: str, shipped: dict[str, Any]) -> ArtifactStore:
    """Runs the miniature in one way, from the sources in `home`; returns what it made."""
    there = home / re.sub(r"\W+", "_", way)
    if not there.exists():
        shutil.copytree(home / "sources", there)
    changed = {section: {**shipped.get(section, {}), **fields} for section, fields in WAYS[way].items()}
    path = there / "miniature.yaml"
    path.write_text(yaml.safe_dump({**shipped, **changed}), encoding="utf-8")
    frontier(there, "run", str(path))
    return ArtifactStore(there / "data", str(shipped["name"]))


def report(way: str, plain: Points, other: Points, confidence: float) -> None:
    """Prints a way's points beside plain's, as a table, and what they come to."""
    for by in (("model", "recipe"), ("recipe",)):
        ours, theirs = changes_of(plain, by), changes_of(other, by)
        rows = compare(ours, theirs, confidence)
        print(f"| {' '.join(by)} | plain | {way} | agree | difference |\n|---|---|---|---|---|")
        for row in rows:
            sides = (row.plain, row.plain_bounds), (row.other, row.other_bounds)
            before, after = (f"{value:+.2f} [{low:+.2f}, {high:+.2f}]" for value, (low, high) in sides)
            low, high = row.difference_bounds
            between = f"{row.difference:+.2f} [{low:+.2f}, {high:+.2f}]{'' if low <= 0 <= high else ' *'}"
            print(f"| {row.name}: {row.axis} | {before} | {after} | {'yes' if row.within else 'NO'} | {between} |")
        size = relative_size(ours, theirs)
        low, high = percentiles(size[1:], confidence)
        print(
            f"{way}, by {' and '.join(by)}: {sum(row.within for row in rows)} of {len(rows)} within each other's "
            f"intervals; {sum(row.difference_bounds[0] <= 0 <= row.difference_bounds[1] for row in rows)} differences' "
            f"intervals hold 0; difference {np.mean([row.difference for row in rows]):+.3f} on average, "
            f"{np.mean([abs(row.difference) for row in rows]):.3f} in size; changes are {size[0]:.2f} "
            f"[{low:.2f}, {high:.2f}] of plain's\n",
            flush=True,
        )


def main() -> None:
    """Prints what every way comes to."""
    parser = argparse.ArgumentParser()
    parser.add_argument("seeds", type=int, nargs="*")
    parser.add_argument("--home", type=Path)
    asked = parser.parse_args()
    shipped = yaml.safe_load(experiment_path("miniature").read_text(encoding="utf-8"))
    shipped["grid"]["seeds"] = asked.seeds or shipped["grid"]["seeds"]
    statistics = Statistics(**shipped["statistics"])
    with folder(asked.home) as home:
        sources = home / "sources"
        sources.mkdir(parents=True, exist_ok=True)
        path = sources / "miniature.yaml"
        path.write_text(yaml.safe_dump(shipped), encoding="utf-8")
        frontier(sources, "run", str(path), "--select", "preference_pairs")
        made: dict[str, tuple[ArtifactStore, Points]] = {}
        for way in WAYS:
            store = run_way(home, way, shipped)
            warehouse = store.get(Ref("warehouse")).path / WAREHOUSE
            with open_database(warehouse) as database:
                (training,) = database.execute(TRAINING).df().to_dict("records")
            print(
                f"{way}: trainings {', '.join(f'{name} {value:.4g}' for name, value in training.items())}", flush=True
            )
            points = make_points(load_scores(warehouse), load_agents(warehouse), statistics)
            made[way] = store, points
            if way != PLAIN:
                distances = adapter_distances(made[PLAIN][0], store)
                print(f"adapters differ by {np.median(distances):.2g} of their size, at most by {distances.max():.2g}")
                report(way, made[PLAIN][1], points, statistics.confidence)


@contextlib.contextmanager
def folder(home: Path | None) -> Iterator[Path]:
    """Yields `home`, or a folder that goes afterwards."""
    if home is not None:
        yield home.resolve()
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)


if __name__ == "__main__":
    main()
