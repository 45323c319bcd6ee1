"""What shared text and batches by case do to the miniature's results: the whole graph in each of three ways.

Usage: python -m benchmarks.batches_by_case [SEED …], by default the shipped seeds.

`plain` is TRL's pass; `shared` computes the same and must give the same points up to rounding, which training and
sampling carry on; `by case` trains on other batches. Each way is an experiment of its own, and all points are printed
with their intervals, which come from resampling seeds and cases.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from benchmarks.miniature import frontier
from dagster_project.experiment.spec import experiment_path

WAYS: dict[str, dict[str, dict[str, Any]]] = {
    "plain": {},
    "shared": {"trainer": {"shared_text": True}},
    "by case": {"trainer": {"shared_text": True}, "training": {"batch_by": "case"}},
}
POINTS = """
    SELECT model, recipe, safety_delta, safety_delta_low, safety_delta_high,
        helpfulness_delta, helpfulness_delta_low, helpfulness_delta_high
    FROM frontier_points WHERE judging = 'match' AND judge IS NULL ORDER BY ALL
"""
TRAINING = """
    SELECT sum(seconds + reference_seconds) AS seconds, avg(reward_margin) AS margin, avg(reward_accuracy) AS accuracy,
        avg(kl) AS kl, sum(computed_tokens) AS computed
    FROM training_runs
"""


def asked(home: Path, experiment: Path, sql: str) -> list[dict[str, Any]]:
    """Returns the rows of a query on an experiment's database."""
    command = [sys.executable, "-m", "dagster_project.cli", "query", str(experiment), sql, "--format", "json"]
    environment = {**os.environ, "FRONTIER_DATA": str(home / "data"), "DAGSTER_HOME": str(home / "dagster")}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def main() -> None:
    """Prints the points of every way, and which are outside the others' intervals."""
    shipped = yaml.safe_load(experiment_path("miniature").read_text(encoding="utf-8"))
    if sys.argv[1:]:
        shipped["grid"]["seeds"] = [int(seed) for seed in sys.argv[1:]]
    plain: list[dict[str, Any]] = []
    for way, changes in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            home = Path(folder)
            path = home / "miniature.yaml"
            changed = {section: {**shipped.get(section, {}), **fields} for section, fields in changes.items()}
            path.write_text(yaml.safe_dump({**shipped, **changed}), encoding="utf-8")
            cost = frontier(home, "run", str(path))
            points = asked(home, path, POINTS)
            (training,) = asked(home, path, TRAINING)
        plain = plain or points
        print(f"{way}: {cost.seconds:.0f} s; trainings {', '.join(f'{k} {v:.4g}' for k, v in training.items())}")
        for point, before in zip(points, plain, strict=True):
            texts = []
            for axis in ("safety_delta", "helpfulness_delta"):
                value, low, high = (point[f"{axis}{end}"] for end in ("", "_low", "_high"))
                agrees = before[f"{axis}_low"] <= value <= before[f"{axis}_high"] and low <= before[axis] <= high
                texts.append(f"{axis} {value:+.2f} [{low:+.2f}, {high:+.2f}]{'' if agrees else ' DIFFERS from plain'}")
            print(f"  {point['model']} {point['recipe']}: {'; '.join(texts)}", flush=True)


if __name__ == "__main__":
    main()
