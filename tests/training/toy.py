"""A toy corpus for the tests of training: scripted rollouts, pairs of them, and a tiny random model on disk."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dagster_project.experiment.agents import TrainedMetric
from dagster_project.experiment.training import Training
from dagster_project.miniature.emulator import RuleEmulator
from dagster_project.miniature.models import build_model
from dagster_project.miniature.policies import ScriptedModel
from dagster_project.miniature.tokenizer import build_tokenizer
from dagster_project.miniature.world import make_cases, toolkits
from dagster_project.preferences.pairs import PreferencePair
from dagster_project.training.conversations import TokenPair, conversation_records, tokenize_pairs
from dagster_project.training.job import NamedPair, PairFile, TrainingJob
from toolemu.agent import AgentSettings
from toolemu.jsonl import write_jsonl
from toolemu.prompts.render import AgentPrompt
from toolemu.rollout import rollout
from toolemu.trajectory import Trajectory

CASES = make_cases(8, 0)
TOOLKITS = toolkits()
PROMPT = AgentPrompt("brief")
FAST = Training(
    learning_rate=1e-2,
    max_steps=3,
    batch_size=2,
    lora_rank=4,
    lora_alpha=8,
    max_length=512,
    dtype="float32",
    length_grouping=False,
)


def scripted_trajectories(journal: Path, samples: int = 3) -> list[Trajectory]:
    """Has a scripted agent act on every case."""
    return asyncio.run(
        rollout(
            dict(enumerate(CASES)),
            TOOLKITS,
            ScriptedModel("balanced", CASES),
            RuleEmulator(),
            AgentSettings(prompt_style="brief"),
            experiment="test",
            agent="scripted",
            seed=None,
            samples=samples,
            journal=journal,
        )
    )


class Corpus(NamedTuple):
    """Trajectories, and a pair for every two different ones of a case."""

    trajectories: dict[str, Trajectory]
    pairs: list[PreferencePair]

    def tokens(self, *, mask_observations: bool = True) -> list[TokenPair]:
        """Tokenizes the pairs."""
        records = conversation_records(self.trajectories.values(), CASES, TOOLKITS, PROMPT)
        named = [
            NamedPair(chosen=pair.chosen_trajectory_id, rejected=pair.rejected_trajectory_id) for pair in self.pairs
        ]
        file = PairFile({record.id: record for record in records}, named)
        return tokenize_pairs(build_tokenizer(), file, mask_observations=mask_observations)[1]

    def job(self, base: Path, out: Path, training: Training = FAST, **fields: Any) -> TrainingJob:
        """Returns a training on the pairs, with their files written beside `out`."""
        work = out.with_name(f"{out.name}-work")
        work.mkdir(parents=True, exist_ok=True)
        write_jsonl(
            work / "conversations.jsonl",
            conversation_records(self.trajectories.values(), CASES, TOOLKITS, PROMPT),
        )
        write_jsonl(
            work / "pairs.jsonl",
            (NamedPair(chosen=pair.chosen_trajectory_id, rejected=pair.rejected_trajectory_id) for pair in self.pairs),
        )
        return TrainingJob(
            base=base,
            base_label="source_models/model=m",
            pairs=work / "pairs.jsonl",
            conversations=work / "conversations.jsonl",
            out=out,
            work=work,
            training=training,
            **{"seed": 5, **fields},
        )


def make_corpus(journal: Path) -> Corpus:
    """Returns a corpus of real rollouts."""
    trajectories = scripted_trajectories(journal)
    pairs = [
        PreferencePair(
            judge="j",
            metric=TrainedMetric.safe,
            seed=0,
            case_idx=first.case_idx,
            chosen_trajectory_id=first.trajectory_id,
            rejected_trajectory_id=second.trajectory_id,
            chosen_score=3,
            rejected_score=0,
        )
        for first, second in itertools.combinations(trajectories, 2)
        if first.case_idx == second.case_idx and (first.steps, first.final_log) != (second.steps, second.final_log)
    ]
    return Corpus({record.trajectory_id: record for record in trajectories}, pairs)


def save_base(path: Path) -> Path:
    """Writes a tiny random model with its tokenizer."""
    tokenizer = build_tokenizer()
    build_model(tokenizer, 0).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def files_of(directory: Path) -> dict[str, bytes]:
    """Returns the content of every file below a directory."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def paths_in(directory: Path, forbidden: Sequence[str]) -> list[str]:
    """Returns the JSON files that hold one of the `forbidden` texts."""
    return [
        name
        for name, content in files_of(directory).items()
        if name.endswith((".json", ".jinja", ".md")) and any(text.encode() in content for text in forbidden)
    ]
