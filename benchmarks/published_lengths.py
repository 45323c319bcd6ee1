"""Lengths of the released runs' pairs, for `benchmarks.training`; prints a histogram of them.

Usage: python -m benchmarks.published_lengths prints that of `published_lengths.json`; with DATA OUT it makes OUT anew,
where DATA holds the experiment `published` with the pairs of
gpt-5-mini made (`frontier run published --source raw_data_by_eval --select preference_pairs/gpt-5-mini`) and
$PUBLISHED_RUNS all_cases.json and all_toolkits.json.

Tokens are characters by `CHARACTERS_PER_TOKEN`: the models' own tokenizers come with their weights only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import orjson

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.collect.files import TRAJECTORIES
from dagster_project.experiment.casefiles import read_case_files
from dagster_project.preferences.assets import PAIRS
from dagster_project.preferences.pairs import PreferencePair
from toolemu.jsonl import read_jsonl
from toolemu.prompts import AgentPrompt
from toolemu.trajectory import Trajectory

LENGTHS = Path(__file__).with_name("published_lengths.json")
CHARACTERS_PER_TOKEN = 4.0
BINS = (0, 1000, 1500, 2000, 2500, 3000, 4000, 5000, 6000, 8192, 100_000)


def main() -> None:
    """Writes the lengths if asked, and prints their histogram."""
    if len(sys.argv) == 1:
        print(histogram(LENGTHS))
        return
    data, out = (Path(argument) for argument in sys.argv[1:3])
    runs = Path(os.environ["PUBLISHED_RUNS"])
    files = read_case_files(runs / "all_cases.json", runs / "all_toolkits.json")
    store = ArtifactStore(data, "published")
    made = store.get(Ref.of("preference_pairs/gpt-5-mini", metric="help", seed="0"))
    pairs = read_jsonl(made.path / PAIRS, PreferencePair)
    wanted = {side for pair in pairs for side in (pair.chosen_trajectory_id, pair.rejected_trajectory_id)}
    prompt = AgentPrompt("naive", layout="published")
    prompts: dict[int, int] = {}
    conversations: dict[str, tuple[int, int]] = {}
    for manifest in store.manifests():
        if manifest.asset != "source_trajectories":
            continue
        for trajectory in read_jsonl(store.get(manifest.ref).path / TRAJECTORIES, Trajectory):
            if trajectory.trajectory_id not in wanted:
                continue
            case = files.cases[trajectory.case_idx]
            turns = prompt.conversation(case, [files.toolkits[name] for name in case.toolkits], trajectory)
            asked, said = (sum(len(turn.content) for turn in part) for part in turns)
            prompts[trajectory.case_idx] = round(asked / CHARACTERS_PER_TOKEN)
            conversations[trajectory.trajectory_id] = (trajectory.case_idx, round(said / CHARACTERS_PER_TOKEN))
    order = {name: place for place, name in enumerate(conversations)}
    named = [(order[pair.chosen_trajectory_id], order[pair.rejected_trajectory_id]) for pair in pairs]
    out.write_bytes(
        orjson.dumps(
            {
                "what": "pairs of the released runs: gpt-5-mini, help, seed 0",
                "characters_per_token": CHARACTERS_PER_TOKEN,
                "prompts": {str(case): length for case, length in sorted(prompts.items())},
                "conversations": [[str(case), length] for case, length in conversations.values()],
                "pairs": named,
            }
        )
    )
    print(histogram(out))


def histogram(path: Path) -> str:
    """Returns how many pairs of a file have a longer side of how many tokens, as text."""
    found = orjson.loads(path.read_bytes())
    sizes = [found["prompts"][case] + length for case, length in found["conversations"]]
    sides = np.array([[sizes[side] for side in pair] for pair in found["pairs"]])
    counts, _ = np.histogram(sides.max(axis=1), BINS)
    lines = [
        f"{len(sides)} pairs of {len(sizes)} conversations; tokens of both sides: mean {sides.sum(axis=1).mean():.0f}"
    ]
    for low, high, count in zip(BINS, BINS[1:], counts, strict=False):
        lines.append(f"longer side {low:>5}–{high:<6} {count:>5}  {'#' * round(60 * count / len(sides))}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
