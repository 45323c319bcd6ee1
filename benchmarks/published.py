"""The paper's released runs: tables, figures and pairs, against the way the released code takes.

Usage: PUBLISHED_RUNS=FOLDER python -m benchmarks.published
where FOLDER holds `match_eval_results` and `raw_data_by_eval`, as folders or as archives (`.tar.xz`).

Every command runs on fresh data and a fresh Dagster home, so that Dagster's start is in each figure. The baseline is
plain Python, measured in the same run on the same files: every line read by `json`, in one process; then a bootstrap of
persistence that draws cases for one source model, judge and seed at a time and averages with `statistics.mean`, in as
many passes as there are entries. Few draws of it are timed and the time is scaled to all of them. For the pairs, each
of six datasets reads its judge's files, compares every two trajectories of a case, and writes pairs with their texts.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from itertools import combinations, product
from pathlib import Path

import duckdb

from benchmarks.miniature import Cost, frontier

DRAWS = 10_000
TIMED_DRAWS = 20
RATIO_SQL = """
    SELECT a.model, a.beta, a.recipe, e.judge, e.metric, t.seed, t.case_idx, avg(e.score) AS score
    FROM evaluations e JOIN trajectories t ON t.trajectory_id = e.trajectory_id
    JOIN (SELECT DISTINCT agent, model, recipe, beta, pairs_judge FROM agents) a ON a.agent = t.agent
    JOIN splits s ON s.case_idx = t.case_idx AND s.split = 'test' AND s.seed = t.seed
    WHERE a.pairs_judge = e.judge AND e.score IS NOT NULL GROUP BY ALL
"""
PARTS = {"safe": ("safe", "safe_then_help", "help"), "help": ("help", "help_then_safe", "safe")}
"""Of each metric's ratio: the first stage, both stages, the second stage alone."""


def seconds(call: Callable[[], object]) -> float:
    """Returns how long a call took."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def read_all(tree: Path) -> None:
    """Reads every line of every file, and keeps none."""
    for path in sorted(tree.rglob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            for line in file:
                json.loads(line)


def bootstrap_by_hand(database: Path, draws: int) -> None:
    """Draws persistence's intervals one source model, judge, beta and seed at a time."""
    cells: dict[tuple[str, float, str], dict[tuple[str, str], dict[int, dict[int, float]]]] = {}
    with duckdb.connect(str(database), read_only=True) as opened:
        for model, beta, recipe, judge, metric, seed, case, score in opened.execute(RATIO_SQL).fetchall():
            place = cells.setdefault((model, beta, judge), {}).setdefault((recipe, metric), {})
            place.setdefault(seed, {})[case] = score
    models, betas, judges = (sorted({key[place] for key in cells}) for place in range(3))
    generator = random.Random(42)
    for beta in betas:
        # By model and judge, by model, by judge, and over all: each entry draws its own.
        entries = [[pair] for pair in product(models, judges)]
        entries += [[(model, judge) for judge in judges] for model in models]
        entries += [[(model, judge) for model in models] for judge in judges]
        entries.append(list(product(models, judges)))
        for entry in entries:
            for _ in range(draws):
                for model, judge in entry:
                    scores = cells[model, beta, judge]
                    drawn = {
                        seed: generator.choices(list(cases), k=len(cases))
                        for seed, cases in scores["safe", "safe"].items()
                    }
                    for metric, parts in PARTS.items():
                        first, then, other = (
                            statistics.mean(
                                scores[recipe, metric][seed][case] for seed, cases in drawn.items() for case in cases
                            )
                            for recipe in parts
                        )
                        if first > other:
                            (then - other) / (first - other)


def pairs_by_hand(tree: Path, metrics: tuple[str, ...], out: Path) -> int:
    """Writes the pairs of one judge's files with their texts, and returns how many there are."""
    cases: dict[int, list[tuple[list[int], dict[str, object]]]] = {}
    for path in sorted(tree.rglob("*.jsonl")):
        if "_eval_agent_" in path.name:
            continue
        verdicts = [
            path.with_name(f"{path.stem}_eval_{metric}.jsonl").read_text(encoding="utf-8") for metric in metrics
        ]
        for line, *judged in zip(
            path.read_text(encoding="utf-8").splitlines(), *(text.splitlines() for text in verdicts), strict=True
        ):
            record = json.loads(line)
            scores = [next(iter(json.loads(verdict)["eval_scores"].values())) for verdict in judged]
            cases.setdefault(record["case_idx"], []).append((scores, record))
    written = 0
    with out.open("w", encoding="utf-8") as file:
        for items in cases.values():
            for one, other in combinations(items, 2):
                chosen, rejected = (one, other) if one[0][0] > other[0][0] else (other, one)
                if all(a - b >= 2 and a >= 2 for a, b in zip(chosen[0], rejected[0], strict=True)):
                    pair = {"chosen": chosen[1]["intermediate_steps"], "rejected": rejected[1]["intermediate_steps"]}
                    file.write(json.dumps(pair) + "\n")
                    written += 1
    return written


def all_pairs_by_hand(tree: Path, scratch: Path) -> None:
    """Writes six datasets one after another."""
    safe, helpful = "agent_safe", "agent_help_ignore_safety"
    for judge in ("q32", "gpt5m"):
        for metrics in ((safe,), (helpful,), (helpful, safe)):
            written = pairs_by_hand(tree / judge, metrics, scratch / "pairs.jsonl")
            print(f"  {judge}, {' and '.join(metrics)}: {written:,} pairs", flush=True)


def unpacked(folder: Path, name: str, scratch: Path) -> Path:
    """Returns the folder of that name, unpacked from its archive if need be."""
    if (folder / name).is_dir():
        return folder / name
    archive = folder / f"{name}.tar.xz"
    if not archive.exists():
        sys.exit(f"{folder} holds neither {name} nor {archive.name}: set PUBLISHED_RUNS to where they are.")
    with tarfile.open(archive) as opened:
        opened.extractall(scratch, filter="data")
    return scratch / name


def measured(*arguments: str, home: Path) -> Cost:
    """Returns what `frontier run published` took."""
    return frontier(home, "run", "published", *arguments)


def main() -> None:
    """Prints the figures."""
    if "PUBLISHED_RUNS" not in os.environ:
        sys.exit("Set PUBLISHED_RUNS to the folder with the released runs (match_eval_results, raw_data_by_eval).")
    folder = Path(os.environ["PUBLISHED_RUNS"])
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        match, raw = (unpacked(folder, part, scratch) for part in ("match_eval_results", "raw_data_by_eval"))

        def told(label: str, home: str, *arguments: str) -> Cost:
            cost = measured(*arguments, home=scratch / home)
            print(f"{label}: {cost.seconds:.1f} s, {cost.mebibytes:.0f} MiB", flush=True)
            return cost

        tables = told("tables of match_eval_results", "tables", "--source", str(match), "--select", "tables")
        told("tables, figures and LaTeX", "all", "--source", str(match))
        archive = folder / "match_eval_results.tar.xz"
        if archive.exists():
            told("the same from the archive", "archive", "--source", str(archive))
        pairs = told(
            "pairs, 2 judges x 3 metrics x 3 seeds", "pairs", "--source", str(raw), "--select", "preference_pairs"
        )
        again = frontier(scratch / "tables", "run", "published", "--select", "tables")
        print(f"tables again, nothing to do: {again.seconds:.1f} s", flush=True)

        reading = seconds(lambda: read_all(match))
        database = next((scratch / "tables").rglob("published.duckdb"))
        drawing = seconds(lambda: bootstrap_by_hand(database, TIMED_DRAWS)) * DRAWS / TIMED_DRAWS
        print(f"baseline, reading every line once: {reading:.1f} s")
        print(f"baseline, {DRAWS:,} draws (scaled from {TIMED_DRAWS}): {drawing:.0f} s")
        print(f"ratio of the baseline to the tables: {(reading + drawing) / tables.seconds:.1f}")
        writing = seconds(lambda: all_pairs_by_hand(raw, scratch))
        print(f"baseline, pairs with texts, one dataset after another: {writing:.1f} s")
        print(f"ratio of the baseline to the pairs: {writing / pairs.seconds:.1f}")


if __name__ == "__main__":
    main()
