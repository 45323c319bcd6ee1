"""Trainings on random weights of real architectures: ours beside the settings of the paper's released code, in one run.

Usage: python -m benchmarks.training [--model NAME …] [--steps N] [--memory GIB]

Pairs are those of the released runs (gpt-5-mini, help, seed 0) as far as their lengths and who shares what go
(`published_lengths.json`; `benchmarks.published_lengths` makes it), drawn at random; their words mean nothing. Without
a GPU a tiny model is trained on a twentieth of the lengths, which says only that the benchmark runs.

The baseline has what the released code has: one pair at once, eight to a step, activations always recomputed, pairs in
random order, observations counted, the reference computed for either side of every pair.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from dagster_project.experiment.training import Trainer, Training
from dagster_project.miniature.tokenizer import build_tokenizer
from dagster_project.training import preflight
from dagster_project.training.dpo import Listener, TrainingResult, train_adapter
from dagster_project.training.estimate import find_card
from dagster_project.training.job import ConversationRecord, NamedPair, TrainingJob
from toolemu.chat import Message
from toolemu.jsonl import write_jsonl

LENGTHS = Path(__file__).with_name("published_lengths.json")
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama-3.1-8b": {
        "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256,
    },
    "qwen2.5-7b": {
        "model_type": "qwen2", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28,
        "num_attention_heads": 28, "num_key_value_heads": 4, "vocab_size": 152064,
    },
    "phi-4": {
        "model_type": "phi3", "hidden_size": 5120, "intermediate_size": 17920, "num_hidden_layers": 40,
        "num_attention_heads": 40, "num_key_value_heads": 10, "vocab_size": 100352, "pad_token_id": 0,
    },
    "tiny": {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 1024,
    },
}  # fmt: skip
CONTEXT = 32768
TURN_TOKENS = 120
"""Tokens of a turn, and of an observation, of the made-up conversations."""


class Way(NamedTuple):
    """A way to train: what is measured against the other."""

    name: str
    training: Training
    trainer: Trainer
    shares_references: bool


def ways(tiny: bool) -> list[Way]:
    """Returns the released code's way and ours."""
    common = {"dtype": "float32" if tiny else "bfloat16", "max_length": 8192}
    published = Training.model_validate({"preset": "published", **common})
    ours = Training.model_validate(common)
    return [
        Way("released code's settings", published, Trainer(preset="published", checkpoint_every=None), False),
        Way("ours", ours, Trainer(checkpoint_every=None), True),
    ]


def save_random_base(name: str, folder: Path) -> Path:
    """Writes a base of an architecture with random weights."""
    settings = dict(ARCHITECTURES[name])
    config = AutoConfig.for_model(settings.pop("model_type"), max_position_embeddings=CONTEXT, **settings)
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32 if name == "tiny" else torch.bfloat16)
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def words(n_tokens: int) -> str:
    """Returns a text of about so many tokens."""
    return " ".join(["the"] * max(1, n_tokens))


def completion(n_tokens: int) -> Iterator[Message]:
    """Yields turns of agent and tool in turn, an agent's first and last, of about so many tokens together."""
    turns = max(1, n_tokens // TURN_TOKENS) | 1
    for turn in range(turns):
        yield Message("user" if turn % 2 else "assistant", words(n_tokens // turns))


def write_pairs(n_pairs: int, way: Way, folder: Path, scale: float) -> tuple[Path, Path]:
    """Writes so many pairs of the published lengths; where a way shares no reference, no two share a conversation."""
    lengths = json.loads(LENGTHS.read_bytes())
    drawn = random.Random(0).sample(lengths["pairs"], n_pairs)
    records: dict[str, ConversationRecord] = {}
    pairs = []
    for number, sides in enumerate(drawn):
        prefix = "" if way.shares_references else f"{number}-"
        for side in sides:
            case, tokens = lengths["conversations"][side]
            record = ConversationRecord(
                id=f"{prefix}{side}",
                prompt=(Message("user", words(int(lengths["prompts"][case] * scale))),),
                completion=tuple(completion(int(tokens * scale))),
            )
            records[record.id] = record
        pairs.append(NamedPair(chosen=f"{prefix}{sides[0]}", rejected=f"{prefix}{sides[1]}"))
    write_jsonl(folder / "conversations.jsonl", records.values())
    write_jsonl(folder / "pairs.jsonl", pairs)
    return folder / "pairs.jsonl", folder / "conversations.jsonl"


def measure(name: str, base: Path, way: Way, steps: int, scratch: Path) -> TrainingResult:
    """Trains so many steps of one way."""
    folder = scratch / way.name.replace(" ", "-").replace("'", "")
    folder.mkdir()
    tiny = name == "tiny"
    pairs, conversations = write_pairs(steps * way.training.batch_size, way, folder, 1 / 20 if tiny else 1)
    job = TrainingJob(
        base=base,
        base_sha256=name,
        pairs=pairs,
        conversations=conversations,
        out=folder / "adapter",
        training=way.training,
        trainer=way.trainer,
    )
    result = train_adapter(job, Listener(lambda line: print(f"  {line}", file=sys.stderr)))
    gc.collect()
    torch.cuda.empty_cache()
    return result


def report(way: Way, result: TrainingResult, paper_pairs: int, paper_conversations: int) -> float:
    """Prints what a way took, a paper-size training by it included; returns its pairs a second."""
    pairs = len(result.steps) * way.training.batch_size
    per_pair = result.seconds / pairs
    references = paper_conversations if way.shares_references else 2 * paper_pairs
    hours = (per_pair * paper_pairs + result.reference_seconds / result.conversations * references) / 3600
    rate = paper_pairs / (3600 * hours)
    memory = f"{result.peak_memory / 2**30:.1f} GiB" if result.peak_memory else "–"
    shares = ", ".join(f"{name} {value:.1%}" for name, value in (("MFU", result.mfu), ("HFU", result.hfu)) if value)
    print(
        f"{way.name}: {pairs} pairs in {result.seconds:.1f} s and {result.conversations} references in "
        f"{result.reference_seconds:.1f} s; {result.tokens_per_second:,.0f} tokens/s; {shares or 'MFU –'}; "
        f"peak {memory}; {result.micro_batch} pairs at once, {result.recomputed:.0%} recomputed, "
        f"{result.attention}; loss {sum(step.loss for step in result.steps[-10:]) / len(result.steps[-10:]):.4f}; "
        f"{paper_pairs} pairs would take {hours:.2f} h, {rate:.2f} pairs/s in all"
    )
    for note in result.notes:
        print(f"  {note}")
    return rate


def main() -> None:
    """Measures every model asked for."""
    card = find_card()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(ARCHITECTURES), default=["llama-3.1-8b" if card else "tiny"])
    parser.add_argument("--steps", type=int, default=100 if card else 2)
    parser.add_argument("--memory", type=float, help="GiB of the card to use; all of it by default")
    options = parser.parse_args()
    if card and options.memory:
        torch.cuda.set_per_process_memory_fraction(options.memory * 2**30 / card.total)
        card = card._replace(free=min(card.free, int(options.memory * 2**30)))
    lengths = json.loads(LENGTHS.read_bytes())
    for name in options.model:
        print(f"{name} on {card.name if card else 'the CPU: this says nothing of speed'}, {options.steps} steps")
        with tempfile.TemporaryDirectory() as scratch, mock.patch.object(preflight, "find_card", lambda: card):
            base = save_random_base(name, Path(scratch) / "base")
            rates = [
                report(
                    way,
                    measure(name, base, way, options.steps, Path(scratch)),
                    len(lengths["pairs"]),
                    len(lengths["conversations"]),
                )
                for way in ways(name == "tiny")
            ]
        print(f"{name}: {rates[1] / rates[0]:.2f} times the pairs a second")


if __name__ == "__main__":
    main()
