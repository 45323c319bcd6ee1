"""Trainings on random weights of real architectures: ours beside the settings of the paper's released code, in one run.

Usage: python -m benchmarks.training [--model NAME …] [--way NAME …] [--steps N] [--memory GIB] [--work FOLDER]
[--minutes N]

Pairs are those of the released runs (gpt-5-mini, help, seed 0) as far as their lengths and who shares what go
(`published_lengths.json`; `benchmarks.published_lengths` makes it, and prints their histogram), drawn at random; their
words mean nothing. Without a GPU a tiny model is trained on a twentieth of the lengths, which says only that the
benchmark runs.

`released` has what the released code has: one pair at once, eight to a step, activations always recomputed, pairs in
random order, observations counted, the reference computed for either side of every pair. `ours` is the default of an
experiment file, `shared` that with `trainer.shared_text`. All train on the same pairs.

With --work, what was measured is kept there, step by step, and the same command goes on where it was cut off;
--minutes has it stop by itself. The time of a step goes from its predecessor's end to its own; a command's first step
and those after a checkpoint do not count. A hundred steps of an 8B model on an H100 should take `released` 15 minutes,
`ours` 9 and `shared` 5, the reference included; its weights take 16 GB below FOLDER.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import orjson
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from dagster_project.experiment.training import Trainer, Training
from dagster_project.miniature.tokenizer import build_tokenizer
from dagster_project.training import preflight
from dagster_project.training.dpo import Listener, TrainingResult, train_adapter
from dagster_project.training.estimate import Card, find_card
from dagster_project.training.grouping import Group
from dagster_project.training.job import ConversationRecord, NamedPair, TrainingJob
from dagster_project.training.trainer import PreparedDPOTrainer
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
LONGEST = 8192
TEMPLATE = 64
"""Tokens that a conversation's turns may take besides their words."""
TURN_TOKENS = 120
"""Tokens of a turn, and of an observation, of the made-up conversations."""
CHECKPOINT_EVERY = 25
TIMES, RESULT = "times.jsonl", "result.json"


class Way(NamedTuple):
    """A way to train: what is measured against the others."""

    name: str
    training: Training
    trainer: Trainer
    shares_references: bool


class Measured(NamedTuple):
    """What is known of a training by now.

    Attributes:
        seconds: Of each step that was timed.
        steps: How many were taken.
        reference_seconds: A conversation; None: the reference was not come to.
        result: Of the last command, if the training is over.
    """

    seconds: list[float]
    steps: int
    reference_seconds: float | None
    result: TrainingResult | None


class TimeUpError(Exception):
    """The command has run as long as it may."""


def ways(tiny: bool) -> list[Way]:
    """Returns the released code's way and ours."""
    common = {"dtype": "float32" if tiny else "bfloat16", "max_length": LONGEST}
    released = Training.model_validate({"preset": "published", **common})
    ours = Training.model_validate(common)
    return [
        Way("released", released, Trainer(preset="published", checkpoint_every=CHECKPOINT_EVERY), False),
        Way("ours", ours, Trainer(checkpoint_every=CHECKPOINT_EVERY), True),
        Way("shared", ours, Trainer(checkpoint_every=CHECKPOINT_EVERY, shared_text=True), True),
    ]


def save_random_base(name: str, folder: Path) -> Path:
    """Writes a base of an architecture with random weights, if it is not there."""
    if folder.is_dir():
        return folder
    settings = dict(ARCHITECTURES[name])
    config = AutoConfig.for_model(settings.pop("model_type"), max_position_embeddings=CONTEXT, **settings)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.float32 if name == "tiny" else torch.bfloat16, trust_remote_code=False
        )
    partial = folder.with_name(f"{folder.name}.partial")
    model.save_pretrained(partial)
    build_tokenizer().save_pretrained(partial)
    partial.rename(folder)
    return folder


class Words:
    """Text that nobody else has, a token a word."""

    def __init__(self) -> None:
        vocabulary = build_tokenizer().get_vocab()
        self._words = sorted(word for word in vocabulary if word.startswith(" ") and word[1:].isalpha())

    def __call__(self, owner: str, n_tokens: int) -> str:
        """Returns so many words, the same for the same owner."""
        return "".join(random.Random(owner).choices(self._words, k=max(1, n_tokens)))


def completion(words: Words, owner: str, n_tokens: int) -> Iterator[Message]:
    """Yields turns of agent and tool in turn, an agent's first and last, of about so many tokens together."""
    turns = max(1, n_tokens // TURN_TOKENS) | 1
    for turn in range(turns):
        yield Message("user" if turn % 2 else "assistant", words(f"{owner} {turn}", n_tokens // turns))


def pairs_that_fit() -> list[list[int]]:
    """Returns the published pairs that are short enough, as places of their conversations."""
    lengths = json.loads(LENGTHS.read_bytes())
    sizes = [lengths["prompts"][case] + tokens for case, tokens in lengths["conversations"]]
    return [sides for sides in lengths["pairs"] if max(sizes[side] for side in sides) <= LONGEST - TEMPLATE]


def write_pairs(n_pairs: int, way: Way, folder: Path, scale: float) -> tuple[Path, Path]:
    """Writes so many pairs of the published lengths; where a way shares no reference, no two share a conversation."""
    lengths = json.loads(LENGTHS.read_bytes())
    words = Words()
    records: dict[str, ConversationRecord] = {}
    pairs = []
    for number, sides in enumerate(random.Random(0).sample(pairs_that_fit(), n_pairs)):
        prefix = "" if way.shares_references else f"{number}-"
        for side in sides:
            case, tokens = lengths["conversations"][side]
            record = ConversationRecord(
                id=f"{prefix}{side}",
                prompt=(Message("user", words(f"case {case}", int(lengths["prompts"][case] * scale))),),
                completion=tuple(completion(words, str(side), int(tokens * scale))),
            )
            records[record.id] = record
        pairs.append(NamedPair(chosen=f"{prefix}{sides[0]}", rejected=f"{prefix}{sides[1]}"))
    write_jsonl(folder / "conversations.jsonl", records.values())
    write_jsonl(folder / "pairs.jsonl", pairs)
    return folder / "pairs.jsonl", folder / "conversations.jsonl"


class Clock:
    """Writes what steps and references take to a file, as it comes, and stops a training when time is up."""

    def __init__(self, path: Path, deadline: float) -> None:
        self._path, self._deadline, self._last = path, deadline, 0.0

    def _note(self, **what: float | None) -> None:
        with self._path.open("ab") as file:
            file.write(orjson.dumps(what) + b"\n")

    def progress(self, done: int, _: int) -> None:
        """Notes a step's end."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        counts = self._last and (done - 1) % CHECKPOINT_EVERY
        self._note(step=done, seconds=now - self._last if counts else None)
        self._last = now
        if now > self._deadline:
            raise TimeUpError

    def reference(self, trainer: PreparedDPOTrainer, groups: Sequence[Group]) -> dict[str, float]:
        """Computes references and notes what they took; the first group, which may compile something, is not timed."""
        found = COMPUTE_REFERENCE(trainer, groups[:1])
        started = time.perf_counter()
        found |= COMPUTE_REFERENCE(trainer, groups[1:])
        self._note(references=len(found) - len(groups[0]), seconds=time.perf_counter() - started)
        return found


COMPUTE_REFERENCE = PreparedDPOTrainer.reference


def known(folder: Path) -> Measured:
    """Returns what was measured in a folder."""
    path = folder / TIMES
    notes = [orjson.loads(line) for line in path.read_bytes().splitlines()] if path.is_file() else []
    steps = {note["step"]: None for note in notes if "step" in note}
    steps |= {note["step"]: note["seconds"] for note in notes if note.get("step") and note["seconds"]}
    references = [note["seconds"] / note["references"] for note in notes if note.get("references")]
    result = folder / RESULT
    return Measured(
        [seconds for seconds in steps.values() if seconds],
        len(steps),
        references[0] if references else None,
        TrainingResult.model_validate_json(result.read_bytes()) if result.is_file() else None,
    )


def measure(name: str, base: Path, way: Way, steps: int, folder: Path, deadline: float) -> None:
    """Trains so many steps of one way, or what is left of them.

    Raises:
        TimeUpError: It is not over, and goes on when it is called again.
    """
    if (folder / RESULT).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    clock = Clock(folder / TIMES, deadline)
    pairs, conversations = write_pairs(steps * way.training.batch_size, way, folder, 1 / 20 if name == "tiny" else 1)
    job = TrainingJob(
        base=base,
        base_sha256=name,
        pairs=pairs,
        conversations=conversations,
        out=folder / "adapter",
        references=folder / "references",
        training=way.training,
        trainer=way.trainer,
    )
    listener = Listener(lambda line: print(f"  {line}", file=sys.stderr, flush=True), clock.progress)
    with mock.patch.object(PreparedDPOTrainer, "reference", lambda trainer, groups: clock.reference(trainer, groups)):
        result = train_adapter(job, listener)
    (folder / RESULT).write_text(result.model_dump_json())
    gc.collect()
    torch.cuda.empty_cache()


def report(way: Way, steps: int, found: Measured) -> float | None:
    """Prints what a way took, a paper-size training by it included; returns its pairs a second, if that is known."""
    if not found.seconds or found.reference_seconds is None:
        print(f"{way.name}: {found.steps} of {steps} steps, none of them timed", flush=True)
        return None
    pairs = pairs_that_fit()
    per_pair = statistics.fmean(found.seconds) / way.training.batch_size
    references = len({side for sides in pairs for side in sides}) if way.shares_references else 2 * len(pairs)
    hours = (per_pair * len(pairs) + found.reference_seconds * references) / 3600
    rate = len(pairs) / (3600 * hours)
    print(
        f"{way.name}: {found.steps} of {steps} steps, {len(found.seconds)} timed: {1000 * per_pair:.1f} ms a pair, and "
        f"{1000 * found.reference_seconds:.1f} ms a reference; {len(pairs)} pairs and {references} references would "
        f"take {hours:.2f} h, {rate:.2f} pairs/s in all"
    )
    if result := found.result:
        memory = f"{result.peak_memory / 2**30:.1f} GiB" if result.peak_memory else "–"
        shares = ", ".join(f"{name} {value:.1%}" for name, value in (("MFU", result.mfu), ("HFU", result.hfu)) if value)
        loss = statistics.fmean(step.loss for step in result.steps[-10:])
        print(
            f"  since step {result.resumed_at}: {result.tokens_per_second:,.0f} tokens/s, {shares or 'MFU –'}, peak "
            f"{memory}; {result.micro_batch} pairs at once, {result.recomputed:.0%} recomputed, {result.attention}; "
            f"loss of the last steps {loss:.4f}"
        )
        for note in result.notes:
            print(f"  {note}")
    sys.stdout.flush()
    return rate


def compare(name: str, chosen: Sequence[Way], steps: int, base: Path, folder: Path, deadline: float) -> bool:
    """Measures ways to train a model and prints what is known of them; returns whether there was time for all."""
    over = True
    rates: dict[str, float | None] = {}
    for way in chosen:
        place = folder / f"{way.name}-{steps}"
        try:
            if over:
                measure(name, save_random_base(name, base), way, steps, place, deadline)
        except TimeUpError:
            over = False
        rates[way.name] = report(way, steps, known(place))
    if first := rates.get("released"):
        for other, rate in rates.items():
            if rate and other != "released":
                print(f"{name}: {other} has {rate / first:.2f} times the released code's pairs a second")
    return over


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures every model asked for."""
    started = time.perf_counter()
    card = find_card()
    names = [way.name for way in ways(True)]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", choices=list(ARCHITECTURES), default=["llama-3.1-8b" if card else "tiny"])
    parser.add_argument("--way", nargs="+", choices=names, default=names)
    parser.add_argument("--steps", type=int, default=100 if card else 2)
    parser.add_argument("--memory", type=float, help="GiB of the card to use; all of it by default")
    parser.add_argument("--work", type=Path, help="where to keep what was measured, to go on with it")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    options = parser.parse_args(arguments)
    if card and options.memory:
        torch.cuda.set_per_process_memory_fraction(options.memory * 2**30 / card.total)
        card = _within(card, options.memory)
    for name in options.model:
        print(f"{name} on {card.name if card else 'the CPU: this says nothing of speed'}, {options.steps} steps")
        with (
            tempfile.TemporaryDirectory() as scratch,
            mock.patch.object(preflight, "find_card", lambda: card),
        ):
            work = options.work or Path(scratch)
            work.mkdir(parents=True, exist_ok=True)
            folder = work / (f"{name}-{options.memory:g}GiB" if options.memory else name)
            chosen = [way for way in ways(name == "tiny") if way.name in options.way]
            deadline = started + 60 * options.minutes
            if not compare(name, chosen, options.steps, work / f"{name}-base", folder, deadline):
                print("Time is up" + ("; the same command goes on from here." if options.work else "."))
                return


def _within(card: Card, gib: float) -> Card:
    return card._replace(free=min(card.free, int(gib * 2**30)))


if __name__ == "__main__":
    main()
