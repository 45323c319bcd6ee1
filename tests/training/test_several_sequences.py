"""Training on conversations of several sequences, since a chat template rewrites earlier turns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from dagster_project.experiment.training import Trainer
from dagster_project.miniature.tokenizer import END, build_tokenizer
from dagster_project.training.card import model_card
from dagster_project.training.chat_template import Tokens
from dagster_project.training.conversations import TokenPair, conversation_records, tokenize_pairs
from dagster_project.training.dpo import divergence, train_adapter
from dagster_project.training.grouping import group_by_prompt
from dagster_project.training.job import ConversationRecord, NamedPair, PairFile
from dagster_project.training.preflight import prepare
from dagster_project.training.shared_text import share_text, tree_of
from toolemu.chat import Message
from toolemu.jsonl import iter_jsonl, write_jsonl

from .templates import PLAIN, byte_tokenizer, turns_of
from .test_trainer import BETA, gradients, make_trainer
from .toy import CASES, FAST, PROMPT, TOOLKITS, Corpus, save_base

# Earlier turns lose their end, so that no request begins with the one before it and its reply.
REWRITES = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<assistant>{{ m['content'] }}"
    "{% else %}<user>{{ m['content'] }}{% endif %}{% if loop.last %}<end>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def rewriting_tokenizer() -> Any:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = REWRITES
    return tokenizer


def file_of(corpus: Corpus, count: int) -> PairFile:
    """Return the corpus's longest pairs, and its shortest."""
    records = {
        record.id: record for record in conversation_records(corpus.trajectories.values(), CASES, TOOLKITS, PROMPT)
    }
    named = [NamedPair(chosen=pair.chosen_trajectory_id, rejected=pair.rejected_trajectory_id) for pair in corpus.pairs]
    named.sort(key=lambda pair: len(records[pair.chosen].completion) + len(records[pair.rejected].completion))
    return PairFile(records, named[-count + 1 :] + named[:1])


def tokenized(file: PairFile) -> tuple[dict[str, Tokens], list[TokenPair]]:
    return tokenize_pairs(rewriting_tokenizer(), file, mask_observations=True)


def log_probability(model: Any, record: ConversationRecord) -> torch.Tensor:
    """Return the sum over turns of a reply's log-probability after its own request, each turn computed by itself."""
    tokenizer, total = rewriting_tokenizer(), torch.zeros((), dtype=torch.float64)
    for place, message in enumerate(record.completion):
        if message.role == "assistant":
            chat = [one._asdict() for one in (*record.prompt, *record.completion[:place])]
            request = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
            reply = tokenizer.encode(message.content + END, add_special_tokens=False)
            log_probabilities = model(input_ids=torch.tensor([request + reply])).logits[0, :-1].log_softmax(-1)
            total = total + log_probabilities[len(request) - 1 :][torch.arange(len(reply)), reply].sum()
    return total


def own_loss(model: Any, file: PairFile) -> torch.Tensor:
    """Return DPO's loss (Rafailov et al. 2023, equation 7)."""

    def margin(pair: NamedPair) -> torch.Tensor:
        return log_probability(model, file.conversations[pair.chosen]) - log_probability(
            model, file.conversations[pair.rejected]
        )

    losses = []
    for pair in file.pairs:
        with torch.no_grad(), model.disable_adapter():
            reference = margin(pair)
        losses.append(-torch.nn.functional.logsigmoid(BETA * (margin(pair) - reference)))
    return torch.stack(losses).mean()


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=1e-4)


def columns(trainer: Any, numbers: Sequence[int]) -> dict[str, Any]:
    batch: dict[str, Any] = trainer.data_collator([trainer.train_dataset[number] for number in numbers])
    return batch


@pytest.mark.parametrize("beforehand", [False, True])
def test_loss_and_gradients_are_those_of_the_turns_computed_by_themselves(
    corpus: Corpus, beforehand: bool, tmp_path: Path
) -> None:
    file = file_of(corpus, 4)
    conversations, pairs = tokenized(file)
    assert max(pair.sequences for pair in pairs) > 4 > min(pair.sequences for pair in pairs)
    trainer = make_trainer(pairs, tmp_path)
    ours = own_loss(trainer.model, file)
    expected = gradients(trainer.model, ours)
    assert abs(ours.item() - 0.6931) > 1e-3  # not the loss of an adapter that does nothing
    for shared in (False, True):
        if shared:
            share_text(trainer.model.get_base_model())
            trainer.shared_text = True
        if beforehand:
            trainer.train_dataset = make_trainer(pairs, tmp_path).train_dataset
            trainer.use_reference(trainer.reference(group_by_prompt(conversations, 2000 if shared else 0)))
        trainer.tokens = 0
        loss = trainer.compute_loss(trainer.model, columns(trainer, range(len(pairs))))
        assert loss.item() == pytest.approx(ours.item(), abs=1e-5)
        assert_close(gradients(trainer.model, loss), expected)
        sequences = [tokens.ids[one] for tokens in conversations.values() for one in tokens.stretches()]
        once = len({tuple(sequence[:stop]) for sequence in sequences for stop in range(2, len(sequence) + 1)})
        assert trainer.tokens == once if shared else trainer.tokens > 2 * once
        assert trainer.precompute_ref_logps is beforehand


def test_what_is_logged_counts_every_token_of_the_agents_once(corpus: Corpus, tmp_path: Path) -> None:
    file = file_of(corpus, 3)
    conversations, pairs = tokenized(file)
    trainer = make_trainer(pairs, tmp_path)
    batch = columns(trainer, range(len(pairs)))
    written = sum(
        len(build_tokenizer().encode(message.content + END, add_special_tokens=False))
        for pair in file.pairs
        for side in (pair.chosen, pair.rejected)
        for message in file.conversations[side].completion
        if message.role == "assistant"
    )
    assert int(batch["completion_mask"].sum()) == written
    assert int(batch["attention_mask"].sum()) == sum(pair.tokens for pair in pairs)
    assert len(batch["input_ids"]) == 2 * len(pairs)
    tree = tree_of(batch["input_ids"], batch["attention_mask"], batch["sequences"])
    assert tree.paths.shape == (2 * len(pairs), batch["input_ids"].shape[1] - 1)
    assert divergence(trainer, list(conversations.values())) > 0


@pytest.fixture(scope="module")
def rewriting_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = save_base(tmp_path_factory.mktemp("base") / "weights")
    rewriting_tokenizer().save_pretrained(path)
    return path


@pytest.mark.parametrize("batch_by", ["pair", "case"])
def test_the_estimate_counts_what_is_computed(
    corpus: Corpus, rewriting_base: Path, batch_by: str, tmp_path: Path
) -> None:
    training = FAST.model_copy(update={"batch_by": batch_by})
    plain = prepare(corpus.job(rewriting_base, tmp_path / "plain", training))
    shared = prepare(corpus.job(rewriting_base, tmp_path / "shared", training, trainer=Trainer(shared_text=True)))
    assert plain.tokens == shared.tokens == int(sum(pair.tokens for pair in plain.pairs) / len(plain.pairs) * 6)
    assert plain.plan.tokens == max(2 * pair.sequences * pair.length for pair in plain.pairs)
    assert shared.plan.tokens < plain.plan.tokens / 2
    assert shared.flops < 0.75 * plain.flops
    assert f"as {plain.sequences} sequences" in plain.summary()
    assert plain.sequences == sum(len(tokens.stretches()) for tokens in plain.conversations.values())
    longest = max(len(tokens.ids[one]) for tokens in plain.conversations.values() for one in tokens.stretches())
    assert (
        max(pair.length for pair in plain.pairs) == longest < max(len(one.ids) for one in plain.conversations.values())
    )


def test_a_training_with_shared_text_comes_out_as_without(corpus: Corpus, rewriting_base: Path, tmp_path: Path) -> None:
    plain = train_adapter(corpus.job(rewriting_base, tmp_path / "plain"))
    shared = train_adapter(corpus.job(rewriting_base, tmp_path / "shared", trainer=Trainer(shared_text=True)))
    for one, other in zip(shared.steps, plain.steps, strict=True):
        found, expected = (step.model_dump(exclude={"reward_accuracy"}) for step in (one, other))
        assert found == pytest.approx(expected, rel=2e-3, abs=1e-5)
    assert shared.steps[0].loss == pytest.approx(plain.steps[0].loss, rel=1e-5)
    assert shared.sequences == plain.sequences > plain.conversations
    card = model_card(corpus.job(rewriting_base, tmp_path / "plain"), plain)
    assert f"{plain.sequences} sequences" in card
    assert shared.computed_tokens < 0.7 * plain.computed_tokens
    weights, others = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("shared", "plain"))
    for name, other in others.items():
        assert (weights[name] - other).abs().mean() <= 0.02 * other.abs().mean() + 1e-4


def test_a_setting_decides_whether_reasoning_counts(corpus: Corpus, tmp_path: Path) -> None:
    base, tokenizer, found = save_base(tmp_path / "base"), byte_tokenizer(PLAIN), {}
    tokenizer.save_pretrained(base)
    for counts in (True, False):
        training = FAST.model_copy(update={"train_on_reasoning": counts, "max_length": 4096})
        job = corpus.job(base, tmp_path / str(counts), training)
        assert job.conversations is not None
        thinking = [
            record.model_copy(update={"completion": tuple(map(with_thought, record.completion))})
            for record in iter_jsonl(job.conversations, ConversationRecord)
        ]
        write_jsonl(job.conversations, thinking)
        found[counts] = prepare(job).conversations
    for record in thinking:
        if record.id not in found[True]:
            continue
        replies = [f"{message.content}[/end]" for message in record.completion if message.role == "assistant"]
        covered, masked = found[True][record.id], found[False][record.id]
        assert (masked.ids, masked.starts) == (covered.ids, covered.starts)
        assert len(covered.stretches()) == len(replies), "no later request has the thought"
        assert [tokenizer.decode(reply) for _, reply in turns_of(covered)] == replies
        words = [reply.partition("</think>")[2].strip() for reply in replies]
        assert [tokenizer.decode(reply) for _, reply in turns_of(masked)] == words


def with_thought(message: Message) -> Message:
    thinks = message.role == "assistant"
    return message._replace(content=f"<think>\nlamp\n</think>\n{message.content}") if thinks else message
