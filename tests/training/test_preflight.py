from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dagster_project.experiment.training import Trainer
from dagster_project.miniature.tokenizer import build_tokenizer
from dagster_project.training import preflight
from dagster_project.training.dpo import Listener, train_adapter
from dagster_project.training.estimate import Card, Shape, flops_per_token, memory_bytes, plan_batches
from dagster_project.training.job import TrainingJob, read_job, read_pairs
from dagster_project.training.preflight import prepare
from toolemu.errors import FrontierError, InputError

from .toy import FAST, Corpus

H100 = Card("NVIDIA H100 80GB HBM3", 80 * 2**30, 79 * 2**30)
LLAMA_8B = Shape(
    parameters=8_030_261_248,
    active=7_504_924_672,
    kept=1_050_673_152,
    layers=32,
    width=4096,
    inner=14336,
    keys=1024,
    adapted=32 * (4 * 4096 * 2 - 2 * 3072 + 3 * (4096 + 14336)),
)


def without(*fields: str) -> Callable[[Path], None]:
    """Returns what takes fields out of the second line of a file."""

    def spoil(path: Path) -> None:
        lines = path.read_text().splitlines()
        record = {name: value for name, value in json.loads(lines[1]).items() if name not in fields}
        path.write_text("\n".join([lines[0], json.dumps(record), *lines[2:]]))

    return spoil


def twice(path: Path) -> None:
    lines = path.read_text().splitlines()
    other = {**json.loads(lines[0]), "completion": []}
    path.write_text("\n".join([*lines, json.dumps(other)]))


def without_first_turn(path: Path) -> None:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    for record in records:
        record["completion"] = record["completion"][1:]
    path.write_text("\n".join(map(json.dumps, records)))


def no_template(base: Path) -> None:
    tokenizer: Any = build_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(base)
    (base / "chat_template.jinja").unlink(missing_ok=True)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def full_disk(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """Has no space left in one place, and plenty elsewhere; a folder that is to be made is looked for by its parent."""

    class Usage(NamedTuple):
        free: int

    def usage(path: Path) -> Usage:
        full = str(path).endswith(end) or (end == "/out" and not path.name.startswith("out"))
        return Usage(2**20 if full else 2**40)

    monkeypatch.setattr(preflight.shutil, "disk_usage", usage)


BAD = {
    "a pair without a side": (
        lambda job, _: without("rejected")(job.pairs),
        r"pairs\.jsonl: line 2 'rejected': Field required",
    ),
    "a conversation without an id": (
        lambda job, _: without("id")(job.conversations),
        r"conversations\.jsonl: line 2 'id': Field required",
    ),
    "two conversations of one id": (
        lambda job, _: twice(job.conversations),
        r"conversations\.jsonl: line \d+: another conversation has the id '",
    ),
    "a response that begins with an observation": (
        lambda job, _: without_first_turn(job.conversations),
        r"conversations\.jsonl: line \d+ 'completion': begins with a turn of the user's, not of the agent's",
    ),
    "a pair of nothing": (
        lambda job, _: job.pairs.write_text('{"chosen": "x", "rejected": "y"}\n'),
        r"pairs\.jsonl: line 1: 'x' is not in .*conversations\.jsonl",
    ),
    "no pair file": (lambda job, _: job.pairs.unlink(), r"pairs\.jsonl: there is no such file"),
    "an empty pair file": (lambda job, _: job.pairs.write_text(""), r"pairs\.jsonl holds no pair"),
    "no base": (lambda job, _: shutil.rmtree(job.base), r"base: is no folder\. .*nothing is fetched from a hub"),
    "a base without configuration": (
        lambda job, _: (job.base / "config.json").unlink(),
        r"is no model: there is no config\.json",
    ),
    "a base that was not copied to its end": (
        lambda job, _: cut(job.base / "model.safetensors"),
        r"model\.safetensors: cannot be read, or not to its end",
    ),
    "a base of which a file is missing": (
        lambda job, _: (job.base / "model.safetensors.index.json").write_text(
            '{"weight_map": {"model.layers.9.mlp.up_proj.weight": "model-2.safetensors"}}'
        ),
        r"lacks weights that model\.safetensors\.index\.json says are in model-2\.safetensors",
    ),
    "a base without weights": (
        lambda job, _: (job.base / "model.safetensors").unlink(),
        r"there is no \*\.safetensors in it",
    ),
    "an adapter as base": (
        lambda job, _: (job.base / "adapter_config.json").write_text("{}"),
        "holds an adapter, not a base",
    ),
    "no chat template": (lambda job, _: no_template(job.base), "has no chat template"),
    "a full disk": (
        lambda _, monkeypatch: full_disk(monkeypatch, "/out"),
        r"0\.0 GiB free, and 1\.\d GiB are needed for the adapter, its checkpoints",
    ),
    "a full disk for checkpoints": (
        lambda _, monkeypatch: full_disk(monkeypatch, "/out-work"),
        r"out-work has 0\.0 GiB free, and 1\.\d GiB are needed for checkpoints",
    ),
}


@pytest.mark.parametrize(("spoil", "message"), BAD.values(), ids=list(BAD))
def test_what_is_wrong_is_said_before_any_work(
    corpus: Corpus, base: Path, spoil: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: Any, **__: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("dagster_project.training.dpo.load_model", loaded)
    own = shutil.copytree(base, tmp_path / "base")
    job = corpus.job(own, tmp_path / "out")
    spoil(job, monkeypatch)
    with pytest.raises(FrontierError, match=message):
        train_adapter(job)
    assert not job.out.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": FAST.model_copy(update={"quantization": "int4"})}, "training.quantization: int4 needs an NVIDIA"),
        ({"trainer": Trainer(liger=True)}, "trainer.liger: true needs an NVIDIA GPU"),
        ({"trainer": Trainer(attention="flash_attention_2")}, "flash_attention_2 needs an NVIDIA GPU"),
        ({"trainer": Trainer(mode="accelerate", sharding="fsdp")}, "trainer.sharding: fsdp needs NVIDIA GPUs"),
        (
            {"training": FAST.model_copy(update={"lora_targets": ("q_proj", "proj")})},
            r"training\.lora_targets: .* has no module 'proj'; it has down_proj, .*q_proj",
        ),
        ({"trainer": Trainer(micro_batch_size=3)}, "micro-batches of 3 cannot share evenly"),
        ({"trainer": Trainer(mode="accelerate", processes=3)}, "3 processes with micro-batches of 1 cannot share"),
    ],
)
def test_settings_that_this_machine_cannot_meet_are_refused(
    corpus: Corpus, base: Path, changes: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(FrontierError, match=message):
        prepare(corpus.job(base, tmp_path / "out").model_copy(update=changes))


def test_a_base_that_cannot_share_text_is_refused_before_it_is_loaded(
    corpus: Corpus, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windowed = shutil.copytree(base, tmp_path / "windowed")
    config = json.loads((base / "config.json").read_text())
    config |= {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 8}
    (windowed / "config.json").write_text(json.dumps(config))
    prepare(corpus.job(windowed, tmp_path / "out"))
    with pytest.raises(
        FrontierError, match=r"MistralForCausalLM: it attends to a window\. Set trainer\.shared_text to"
    ):
        prepare(corpus.job(windowed, tmp_path / "out", trainer=Trainer(shared_text=True)))


def test_a_missing_package_is_named(
    corpus: Corpus, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FrontierError, match=r"trainer\.track: wandb needs the package wandb"):
        prepare(corpus.job(base, tmp_path / "out", trainer=Trainer(track=("wandb",))))
    monkeypatch.setattr(preflight, "find_card", lambda: H100)
    int4 = FAST.model_copy(update={"quantization": "int4"})
    with pytest.raises(FrontierError, match="needs the package bitsandbytes, which is not installed"):
        prepare(corpus.job(base, tmp_path / "out", int4))


def test_what_a_training_takes_is_said_beforehand(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    prepared = prepare(corpus.job(base, tmp_path / "out", FAST.model_copy(update={"max_steps": None}), epochs=3))
    assert prepared.steps == -(-len(corpus.pairs) // FAST.batch_size) * 3
    said = prepared.summary()
    assert f"{len(corpus.pairs)} pairs (left out: 0 too long, 0 without a word" in said
    assert f"{prepared.steps} steps" in said
    assert "at most 2.0 GiB and 0.00 GiB of disk, with 2 pairs at once" in said
    wide = FAST.model_copy(update={"lora_rank": 2048, "max_steps": 101})
    assert " and 0.25 GiB of disk" in prepare(corpus.job(base, tmp_path / "out", wide)).summary()
    # whole batches are assumed, so the last, short one makes the estimate a little too long
    once = sum(2 * len(pair.prompt_ids) + len(pair.chosen_ids) + len(pair.rejected_ids) for pair in corpus.tokens())
    assert 3 * once <= prepared.tokens <= 3.5 * once


def test_shapes_come_from_the_files(base: Path) -> None:
    from dagster_project.training.concatenate import weight_shapes
    from dagster_project.training.dpo import load_model
    from dagster_project.training.estimate import base_shape

    shape = base_shape(base, weight_shapes(base))
    model, _ = load_model(base, "float32")
    assert shape.parameters == sum(weight.numel() for weight in model.parameters())
    linear = {name: module for name, module in model.named_modules() if type(module).__name__ == "Linear"}
    inside = [module for name, module in linear.items() if "head" not in name]
    assert shape.adapted == sum(module.in_features + module.out_features for module in inside)
    assert shape.layers == model.config.num_hidden_layers


def test_activations_are_recomputed_only_where_memory_needs_it() -> None:
    def plan(longest: int, card: Card | None = H100, **trainer: Any) -> Any:
        return plan_batches(
            LLAMA_8B,
            FAST.model_copy(update={"batch_size": 8, "dtype": "bfloat16"}),
            Trainer(**trainer),
            lambda size: [2 * size * longest],
            card,
        )

    short, long = plan(700), plan(8192)
    assert (short.checkpointing, long.checkpointing) == (False, True)
    assert short.micro_batch > long.micro_batch
    for found in (short, long, plan(3000)):
        assert found.micro_batch * found.accumulation == 8
        assert found.memory <= H100.free
    assert plan(700, gradient_checkpointing="always").checkpointing
    assert not plan(8192, gradient_checkpointing="never").checkpointing
    assert plan(700, micro_batch_size=1)[:2] == (1, 8)
    assert plan(8192, None)[:2] == (8, 1)  # without a card, everything at once
    assert not plan(8192, None).checkpointing
    # a few long pairs among short ones are recomputed, and the short ones are not
    lengths = [3000] * 99 + [8192]
    bfloat16 = FAST.model_copy(update={"dtype": "bfloat16"})
    mixed = plan_batches(LLAMA_8B, bfloat16, Trainer(), lambda size: [2 * size * length for length in lengths], H100)
    assert mixed.checkpointing
    assert 2 * mixed.micro_batch * 3000 <= mixed.plain_tokens < 2 * mixed.micro_batch * 8192
    with pytest.raises(FrontierError, match=r"The base takes 15\.0 GiB of a card and NVIDIA L4 has 10\.0 GiB free"):
        plan(700, Card("NVIDIA L4", 24 * 2**30, 10 * 2**30))


@pytest.mark.parametrize("batch_by", ["pair", "case"])
def test_shared_text_is_estimated_as_it_is_computed(corpus: Corpus, base: Path, tmp_path: Path, batch_by: str) -> None:
    training = FAST.model_copy(update={"batch_by": batch_by, "batch_size": 8, "max_steps": None})
    plain = prepare(corpus.job(base, tmp_path / "plain", training))
    shared = prepare(corpus.job(base, tmp_path / "shared", training, trainer=Trainer(shared_text=True)))
    assert shared.tokens == plain.tokens
    assert shared.plan.micro_batch == plain.plan.micro_batch == 8
    assert shared.plan.tokens < plain.plan.tokens
    assert shared.plan.memory < plain.plan.memory
    assert shared.flops < plain.flops
    job = corpus.job(base, tmp_path / "trained", training, trainer=Trainer(shared_text=True))
    result = train_adapter(job, Listener())
    most = shared.plan.tokens * len(result.steps)
    assert 0.3 * most < result.computed_tokens <= most


def test_operations_and_memory_are_those_of_the_books() -> None:
    # Kaplan et al. 2020: 6 N a token for training everything; a frozen base spares a third
    assert flops_per_token(LLAMA_8B, 0) == 4 * LLAMA_8B.active
    assert flops_per_token(LLAMA_8B, 0, recomputed=1) == 6 * LLAMA_8B.active
    int4 = FAST.model_copy(update={"quantization": "int4", "dtype": "bfloat16"})
    bf16 = int4.model_copy(update={"quantization": "none"})
    saved = memory_bytes(LLAMA_8B, bf16, 0, checkpointing=True) - memory_bytes(LLAMA_8B, int4, 0, checkpointing=True)
    assert saved == pytest.approx((LLAMA_8B.parameters - LLAMA_8B.kept) * 1.45, rel=1e-3)
    assert H100.peak == 989e12


def test_pairs_may_be_spelled_out(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    named = corpus.job(base, tmp_path / "out")
    file = read_pairs(named)

    def messages(turns: Any) -> list[dict[str, str]]:
        return [turn._asdict() for turn in turns]

    with (tmp_path / "pairs.jsonl").open("w") as out:
        for pair in file.pairs:
            chosen, rejected = file.conversations[pair.chosen], file.conversations[pair.rejected]
            line = {
                "case_idx": 0,
                "prompt": messages(chosen.prompt),
                "chosen": messages(chosen.completion),
                "rejected": messages(rejected.completion),
            }
            out.write(json.dumps(line) + "\n")
    (tmp_path / "job.yaml").write_text(f"base: {base}\npairs: pairs.jsonl\nout: adapter\n")
    spelled = read_pairs(read_job(tmp_path / "job.yaml"))
    assert len(spelled.pairs) == len(file.pairs)
    for one, other in zip(spelled.pairs, file.pairs, strict=True):
        for side in ("chosen", "rejected"):
            found, expected = (of.conversations[getattr(p, side)] for of, p in ((spelled, one), (file, other)))
            assert (found.prompt, found.completion) == (expected.prompt, expected.completion)


def test_spelled_pairs_begin_with_the_agent(tmp_path: Path) -> None:
    asked, said = {"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": [asked], "chosen": [said], "rejected": [asked]}))
    (tmp_path / "job.yaml").write_text("base: base\npairs: pairs.jsonl\nout: out\n")
    with pytest.raises(InputError, match=r"pairs\.jsonl: line 1 'rejected': begins with a turn of the user's"):
        read_pairs(read_job(tmp_path / "job.yaml"))


def test_a_job_file_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("base: x\nout: y\n")
    with pytest.raises(InputError, match=r"job\.yaml: 'pairs': Field required"):
        read_job(path)
    path.write_text("base: x\npairs: z\nout: y\ntraining: {loss: best}\n")
    with pytest.raises(InputError, match=r"'training\.loss'"):
        read_job(path)
    assert isinstance(TrainingJob(base=path, pairs=path, out=path).workspace, Path)
