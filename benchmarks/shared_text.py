"""Computing what a batch's conversations share once, against TRL's pass, in one run and one process.

Usage: python -m benchmarks.shared_text [PART …], by default all but `card`; PART is one of

- `exact`: training steps on pairs with a prompt three times the response;
- `published`: the reference pass, and training steps, on pairs as long and as many a case as in the paper's released
  runs, scaled down;
- `miniature`: epochs over the miniature's pairs (it is run first, up to its pairs);
- `bfloat16`: how far log-probabilities are off in bfloat16, with and without sharing;
- `card`: the paper's training of an 8B model, with random weights, on a GPU: the reference implementation's settings
  beside ours. What was predicted, before any card was at hand, is in docs/log.md.

The plain pass is the trainer's own, padding and all; both take steps of the same trainer, with the same optimiser and
the same statistics. Without a GPU, times are processor time of one thread, which other work on the machine changes less
than the clock, and of every step the least of several rounds.
"""

from __future__ import annotations

import gc
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import torch
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from trl import DPOConfig

from benchmarks.miniature import frontier
from dagster_project.collect.files import EVALUATIONS, TRAJECTORIES
from dagster_project.collect.world import open_world
from dagster_project.experiment.agents import TrainedMetric
from dagster_project.experiment.spec import Experiment, load_experiment
from dagster_project.experiment.splits import split_cases
from dagster_project.miniature.models import HIDDEN, LAYERS
from dagster_project.miniature.tokenizer import build_tokenizer
from dagster_project.preferences.pairs import build_pairs
from dagster_project.training.chat_template import Tokens
from dagster_project.training.conversations import TokenPair, conversation_records, tokenize_pairs
from dagster_project.training.grouping import group_by_prompt
from dagster_project.training.job import NamedPair, PairFile
from dagster_project.training.shared_text import share_text
from dagster_project.training.token_tree import build_tree
from dagster_project.training.trainer import MaskedPreferenceCollator, PreparedDPOTrainer, pair_dataset
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import read_jsonl
from toolemu.prompts.render import AgentPrompt
from toolemu.trajectory import Trajectory

LENGTHS = Path(__file__).with_name("published_lengths.json")
"""Of the paper's released pairs (gpt-5-mini, help, seed 0), in tokens: see `benchmarks.published_lengths`."""
SMALL = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4, "vocab_size": 512}
LLAMA_8B = {
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "vocab_size": 128256,
    "num_attention_heads": 32, "num_key_value_heads": 8, "rope_theta": 500000.0, "tie_word_embeddings": False,
}  # fmt: skip


class Way(NamedTuple):
    """How a training is computed.

    Attributes:
        pairs_at_once: None: all of a step's.
        plain_tokens: More tokens at once than that recompute their activations; None: none do.
    """

    name: str
    shared: bool = False
    by_case: bool = False
    pairs_at_once: int | None = None
    plain_tokens: int | None = None


def published_pairs(cases: int, scale: int, vocabulary: int, longest: int = 8192) -> list[TokenPair]:
    """Returns the first cases' pairs as random tokens, as long as published by `scale`; all of a response counts."""
    lengths = orjson.loads(LENGTHS.read_bytes())
    rng = random.Random(0)

    def tokens(length: int) -> list[int]:
        return rng.choices(range(vocabulary), k=max(1, length // scale))

    prompts = {case: tokens(length) for case, length in list(lengths["prompts"].items())[:cases]}
    pairs, sides = [], {}
    for named in lengths["pairs"]:
        case = lengths["conversations"][named[0]][0]
        total = [lengths["prompts"][case] + lengths["conversations"][side][1] for side in named]
        if case not in prompts or max(total) > longest:
            continue
        one, other = (sides.setdefault(side, tokens(lengths["conversations"][side][1])) for side in named)
        masks = [1] * len(one), [1] * len(other)
        pairs.append(TokenPair(prompts[case], one, other, *masks, *map(str, named)))
    return pairs


def even_pairs(count: int, prompt: int, response: int, vocabulary: int) -> list[TokenPair]:
    """Returns pairs with nothing in common but each pair's prompt; responses differ in length by up to a third."""
    rng = random.Random(0)
    pairs = []
    for number in range(count):
        first, *sides = (
            rng.choices(range(vocabulary), k=length)
            for length in (prompt, *(int(response * rng.uniform(2 / 3, 4 / 3)) for _ in range(2)))
        )
        masks = [[1] * len(side) for side in sides]
        pairs.append(TokenPair(first, *sides, *masks, f"{number} chosen", f"{number} rejected"))
    return pairs


def conversations_of(pairs: Sequence[TokenPair]) -> dict[str, Tokens]:
    """Returns the pairs' distinct conversations by id."""
    found: dict[str, Tokens] = {}
    for pair in pairs:
        found[pair.chosen_id], found[pair.rejected_id] = pair.sides
    return found


def tokens_of(pairs: Sequence[TokenPair]) -> int:
    """Returns the tokens of both sides of pairs."""
    return sum(pair.tokens for pair in pairs)


class Clock(TrainerCallback):  # type: ignore[misc]
    """Notes when every step ends."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Notes the start."""
        self.times.append(now())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Notes a step's end."""
        self.times.append(now())


def now() -> float:
    """Returns seconds: by the clock with all work on the card done, or without a card this process's."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def llama_config(shape: dict[str, Any]) -> LlamaConfig:
    """Returns the configuration of a model of a shape, small where the shape says nothing."""
    return LlamaConfig(
        **{"num_attention_heads": 4, "max_position_embeddings": 16384, "tie_word_embeddings": True, **shape}
    )


def make_trainer(
    shape: dict[str, Any], pairs: Sequence[TokenPair], way: Way, steps: int, batch: int, scratch: Path
) -> tuple[Any, Clock]:
    """Returns a trainer on a Llama with random weights, and the clock of its steps."""
    card = torch.cuda.is_available()
    torch.manual_seed(0)
    config = llama_config(shape)
    with torch.device("cuda" if card else "cpu"):
        torch.set_default_dtype(torch.bfloat16 if card else torch.float32)
        model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    clock = Clock()
    at_once = way.pairs_at_once or batch
    trainer = PreparedDPOTrainer(
        model=model,
        args=DPOConfig(
            output_dir=str(scratch),
            max_steps=steps,
            per_device_train_batch_size=at_once,
            gradient_accumulation_steps=batch // at_once,
            max_length=None,
            bf16=card,
            gradient_checkpointing=way.plain_tokens is not None,
            gradient_checkpointing_kwargs={"use_reentrant": False},
            remove_unused_columns=False,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            use_cpu=not card,
            dataloader_pin_memory=card,
        ),
        train_dataset=pair_dataset(pairs),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=build_tokenizer().backend_tokenizer, pad_token="<pad>"
        ),
        data_collator=MaskedPreferenceCollator(pad_token_id=0),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[clock],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.batch_by_case = way.by_case
    trainer.plain_tokens = way.plain_tokens or 0
    if way.shared:
        share_text(trainer.model.get_base_model())
        trainer.shared_text = True
    return trainer, clock


class Steps(NamedTuple):
    """What steps of a training took.

    Attributes:
        seconds: Of each.
        tokens: Computed a pair on average, padding included.
        recomputed: Share of them whose activations were computed again.
    """

    seconds: list[float]
    tokens: float
    recomputed: float


def measure(
    shape: dict[str, Any], pairs: Sequence[TokenPair], way: Way, steps: int, batch: int = 8, warm_up: int = 1
) -> Steps:
    """Returns what training steps take, the reference given; the first steps' time does not count."""
    with tempfile.TemporaryDirectory() as scratch:
        trainer, clock = make_trainer(shape, pairs, way, steps + warm_up, batch, Path(scratch))
        trainer.use_reference(dict.fromkeys(conversations_of(pairs), -1.0))
        trainer.train()
    seconds = [after - before for before, after in itertools.pairwise(clock.times[warm_up:])]
    return Steps(seconds, trainer.tokens / (batch * (steps + warm_up)), trainer.recomputed_tokens / trainer.tokens)


def quietest(rounds: Sequence[Steps]) -> Steps:
    """Returns the same steps, each as fast as it was in its fastest round: what other work on the machine adds goes."""
    fastest = [min(times) for times in zip(*(one.seconds for one in rounds), strict=True)]
    return rounds[0]._replace(seconds=fastest)


def compared(
    title: str,
    shape: dict[str, Any],
    pairs: Sequence[TokenPair],
    ways: Sequence[Way],
    steps: int,
    batch: int = 8,
    rounds: int = 3,
) -> None:
    """Prints how long a pair takes in each way, and ratios of the first to each: of times, and of tokens computed.

    Ways take turns, and every round repeats the same steps. What a step takes without any text to speak of bounds what
    computing less of it can bring.
    """
    print(title, flush=True)
    bare = even_pairs(steps * batch, 1, 1, shape["vocab_size"])
    taken: list[list[Steps]] = [[] for _ in range(len(ways) + 1)]
    for _ in range(rounds):
        for place, way in enumerate(ways):
            taken[place].append(measure(shape, pairs, way, steps, batch))
        taken[-1].append(measure(shape, bare, ways[0], steps, batch))
    *measured, empty = (quietest(turns) for turns in taken)
    means = [statistics.fmean(one.seconds) for one in measured]
    for way, one, mean in zip(ways, measured, means, strict=True):
        print(
            f"  {way.name}: {1000 * mean / batch:.2f} ms a pair, ratio {means[0] / mean:.2f}; {one.tokens:.0f} tokens "
            f"a pair, ratio {measured[0].tokens / one.tokens:.2f}"
        )
    bare_mean = statistics.fmean(empty.seconds)
    print(
        f"  a step without text {1000 * bare_mean:.1f} ms: at most {means[0] / bare_mean:.1f} times as fast", flush=True
    )


TRL, EXACT, CASE = (
    Way("TRL's pass"),
    Way("shared text", shared=True),
    Way("shared text, by case", shared=True, by_case=True),
)


def exact() -> None:
    """Compares steps at a prompt three times the response."""
    for prompt, response, batch in ((96, 32, 8), (384, 128, 2), (384, 128, 8)):
        pairs = even_pairs(24, prompt, response, SMALL["vocab_size"])
        title = f"prompt {prompt}, response {response} on average, 4 layers of 256, batches of {batch} pairs"
        compared(title, SMALL, pairs, (TRL, EXACT), steps=5, batch=batch)


def published() -> None:
    """Compares the reference pass, and steps, at published lengths."""
    scale, cases = 16, 6
    pairs = published_pairs(cases, scale, SMALL["vocab_size"])
    conversations = conversations_of(pairs)
    groups = group_by_prompt(conversations, budget=2 * 8 * max(pair.length for pair in pairs))
    tree = sum(
        len(build_tree([[*tokens.prompt_ids, *tokens.completion_ids] for tokens in group.values()]).tokens)
        for group in groups
    )
    plain = tokens_of(pairs)
    print(f"published lengths by {scale}: {cases} cases, {len(pairs)} pairs, {len(conversations)} conversations")
    with tempfile.TemporaryDirectory() as scratch:
        trainer, _ = make_trainer(SMALL, pairs, EXACT, 1, 8, Path(scratch))
        started = now()
        trainer.reference(groups)
        shared = now() - started
        started = now()
        alone = trainer.reference(group_by_prompt(conversations, 0))
        once = now() - started
    with tempfile.TemporaryDirectory() as scratch:
        trainer, _ = make_trainer(SMALL, pairs, TRL, 1, 8, Path(scratch))
        started = now()
        for start in range(0, len(pairs), 8):
            batch = [pair._asdict() for pair in pairs[start : start + 8]]
            trainer.compute_ref_log_probs(trainer.model, _on(trainer, trainer.data_collator(batch)))
        every = now() - started
    print(f"  reference, tokens: every pair {plain:,}, as trees {tree:,}, ratio {plain / tree:.1f}")
    print(f"  reference, time: every pair {every:.2f} s, each conversation once {once:.2f} s, as trees {shared:.2f} s")
    print(f"  reference, ratio of times: {every / shared:.1f} to every pair, {once / shared:.1f} to each conversation")
    assert len(alone) == len(conversations)
    compared("  training steps of 8 pairs", SMALL, pairs, (TRL, EXACT, CASE), steps=6)
    compared("  training steps of 32 pairs", SMALL, pairs, (TRL, EXACT, CASE), steps=2, batch=32, rounds=2)


def miniature_pairs(data: Path, experiment: Experiment, cap: int | None) -> list[TokenPair]:
    """Returns the pairs on helpfulness that the miniature's sources give, at most `cap` a case.

    Args:
        data: The miniature's data, made at least as far as its pairs.
        experiment: The miniature.
        cap: None: as many as its rules allow.
    """
    world = open_world(experiment)
    trajectories = {
        trajectory.trajectory_id: trajectory
        for path in data.glob(f"source_trajectories/**/{TRAJECTORIES}")
        for trajectory in read_jsonl(path, Trajectory)
    }
    verdicts = {
        metric: [
            verdict
            for path in data.glob(f"source_evaluations/strict/{metric.value}/**/{EVALUATIONS}")
            for verdict in read_jsonl(path, Evaluation)
        ]
        for metric in (Metric.safe, Metric.help)
    }
    found = build_pairs(
        verdicts, judge="strict", metric=TrainedMetric.help, seed=0,
        train_cases=split_cases(experiment.world.cases, 0).train,
        pairing=experiment.pairs.model_copy(update={"per_case": cap}),
        excluded={identity for identity, trajectory in trajectories.items() if trajectory.self_observed},
    ).pairs  # fmt: skip
    prompt = AgentPrompt(experiment.agent.prompt_style)
    records = {
        record.id: record for record in conversation_records(trajectories.values(), world.cases, world.toolkits, prompt)
    }
    named = [NamedPair(chosen=pair.chosen_trajectory_id, rejected=pair.rejected_trajectory_id) for pair in found]
    return tokenize_pairs(build_tokenizer(), PairFile(records, named), mask_observations=True)[1]


def miniature() -> None:
    """Compares epochs over the miniature's pairs: those that it trains on, and all that its rules allow."""
    experiment = load_experiment("miniature")
    shape = {
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": LAYERS,
        "vocab_size": len(build_tokenizer()),
    }
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        frontier(home, "run", "miniature", "--select", "preference_pairs")
        data = home / "data" / "miniature"
        found = {cap: miniature_pairs(data, experiment, cap) for cap in (experiment.pairs.per_case, None)}
    for cap, pairs in found.items():
        most = f"at most {cap}" if cap else "as many as there are"
        n = len(conversations_of(pairs))
        title = f"miniature's pairs on help, {most} a case: {len(pairs)} pairs, {n} conversations"
        for batch in (8, 16, 32):
            steps = min(len(pairs), 320) // batch - 1
            compared(f"{title}, batches of {batch}", shape, pairs, (TRL, EXACT, CASE), steps, batch)


def bfloat16() -> None:
    """Prints how far sums of log-probabilities are from float32's, for the same weights in bfloat16."""
    pairs = published_pairs(2, 8, SMALL["vocab_size"])[:24]
    conversations = conversations_of(pairs)
    sums: dict[str, list[float]] = {}
    for dtype, name in ((torch.float32, "float32"), (torch.bfloat16, "bfloat16")):
        for way in (TRL, EXACT):
            with tempfile.TemporaryDirectory() as scratch:
                trainer, _ = make_trainer(SMALL, pairs, way, 1, 8, Path(scratch))
                trainer.model.to(torch.bfloat16).to(dtype)
                groups = group_by_prompt(conversations, 10**6 if way.shared else 0)
                found = trainer.reference(groups)
            sums[f"{name}, {way.name}"] = [found[identity] for identity in conversations]
    truth = sums["float32, TRL's pass"]
    size = statistics.fmean(map(abs, truth))
    print(f"bfloat16: {len(truth)} conversations, sums of {size:.0f} nats on average")
    for name, values in sums.items():
        errors = [value - true for value, true in zip(values, truth, strict=True)]
        spread = statistics.pstdev(errors)
        print(f"  {name}: off by {statistics.fmean(errors):+.4f} on average, standard deviation {spread:.4f} nats")


REFERENCE = Way("reference implementation's settings", pairs_at_once=1, plain_tokens=0)
TOKEN_BYTES = 7.3e6
"""What a token of the 8B model keeps for going back; docs/log.md."""


def card_ways() -> tuple[Way, ...]:
    """Returns the ways to train on the card that is there: activations are kept where there is room for them."""
    memory = torch.cuda.get_device_properties().total_memory if torch.cuda.is_available() else 80e9
    room = int((0.92 * memory - 19e9) / TOKEN_BYTES)
    return (
        REFERENCE,
        Way("TRL's pass", pairs_at_once=1, plain_tokens=room),
        Way("shared text", shared=True, pairs_at_once=2, plain_tokens=room),
        Way("shared text, by case", shared=True, by_case=True, plain_tokens=room),
    )


def card() -> None:
    """Compares trainings of an 8B model on a GPU: pairs a second with the reference pass in it, and peak memory.

    Without a GPU it goes through the same motions on a small model, which says nothing of speed.
    """
    there = torch.cuda.is_available()
    shape, scale, cases, steps = (LLAMA_8B, 1, 10, 12) if there else (SMALL, 64, 1, 2)
    pairs = published_pairs(cases, scale, shape["vocab_size"])
    conversations = conversations_of(pairs)
    where = torch.cuda.get_device_name() if there else "no GPU: a rehearsal on a small model"
    print(f"card: {where}; {len(pairs)} pairs, {len(conversations)} conversations, {tokens_of(pairs):,} tokens")
    first = 0.0
    for way in card_ways():
        _let_go(there)
        # FlexAttention is compiled for one length, then for several blocks, then for any.
        took = measure(shape, pairs, way, steps, warm_up=4)
        stepping = statistics.fmean(took.seconds) / 8
        memory = f", {torch.cuda.max_memory_allocated() / 2**30:.0f} GiB at most" if there else ""
        _let_go(there)
        reference = seconds_of_reference(shape, pairs, way, whole=not there)
        taken = stepping + reference
        first = first or taken
        print(
            f"  {way.name}: {1 / taken:.2f} pairs a second ({1000 * stepping:.0f} ms a pair in steps of "
            f"{took.tokens:.0f} tokens a pair, {100 * took.recomputed:.0f}% recomputed; {1000 * reference:.0f} ms of "
            f"reference), ratio {first / taken:.2f}{memory}",
            flush=True,
        )


def seconds_of_reference(shape: dict[str, Any], pairs: Sequence[TokenPair], way: Way, *, whole: bool) -> float:
    """Returns what the reference takes by pair; of a large model, from some of it."""
    conversations = conversations_of(pairs)
    with tempfile.TemporaryDirectory() as scratch:
        trainer, _ = make_trainer(shape, pairs, way, 1, 8, Path(scratch))
        if way is REFERENCE:
            some = pairs if whole else pairs[:16]
            started = now()
            for pair in some:
                trainer.compute_ref_log_probs(trainer.model, _on(trainer, trainer.data_collator([pair._asdict()])))
            return (now() - started) / len(some)
        groups = group_by_prompt(conversations, 8 * max(pair.length for pair in pairs) if way.shared else 0)
        few = groups if whole else groups[: 3 if way.shared else 40]
        trainer.reference(few[:1])  # compiles
        started = now()
        trainer.reference(few)
        return (now() - started) / sum(map(len, few)) * len(conversations) / len(pairs)


def _let_go(there: bool) -> None:
    """Frees what earlier models took; trainers lie in circles until they are looked for."""
    gc.collect()
    if there:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _on(trainer: Any, batch: dict[str, Any]) -> dict[str, Any]:
    return {name: value.to(trainer.accelerator.device) for name, value in batch.items() if name != "pair"}


PARTS: dict[str, Callable[[], None]] = {part.__name__: part for part in (exact, published, miniature, bfloat16, card)}


def main() -> None:
    """Prints the figures of the parts that the command line names."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    asked = sys.argv[1:] or [name for name in PARTS if name != "card"]
    if unknown := set(asked) - set(PARTS):
        sys.exit(f"There is no part {sorted(unknown)[0]}; there are {', '.join(PARTS)}.")
    for name in asked:
        PARTS[name]()


if __name__ == "__main__":
    main()
