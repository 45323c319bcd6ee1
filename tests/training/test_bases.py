"""Bases and pairs that cannot be trained are refused before a GPU is used, and what can be left out is counted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dagster_project.experiment.agents import Stage, TrainedMetric
from dagster_project.experiment.training import Training
from dagster_project.training.job import TrainingJob
from dagster_project.training.preflight import prepare
from toolemu.errors import FrontierError

from .toy import FAST, Corpus


def copy_of(base: Path, at: Path, **config: Any) -> Path:
    """Copies a base, with more in its config.json."""
    shutil.copytree(base, at)
    path = at / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return at


def refusal(job: TrainingJob) -> str:
    with pytest.raises(FrontierError) as refused:
        prepare(job)
    return refused.value.code


@pytest.mark.parametrize(
    "config",
    [
        *({"quantization_config": {"quant_method": name}} for name in ("awq", "gptq", "fp8", "bitsandbytes", "mxfp4")),
        {"quantization_config": {"load_in_4bit": True}},
        {"compression_config": {"quant_method": "compressed-tensors"}},
        {"text_config": {"quantization_config": {"quant_method": "awq"}}},
    ],
)
def test_a_base_that_says_it_is_quantized_is_refused(
    config: dict[str, Any], corpus: Corpus, base: Path, tmp_path: Path
) -> None:
    assert refusal(corpus.job(copy_of(base, tmp_path / "base", **config), tmp_path / "out")) == "base.quantized"


@pytest.mark.parametrize("name", ["quantize_config.json", "quant_config.json", "hf_quant_config.json"])
def test_a_base_with_a_file_about_its_quantization_is_refused(
    name: str, corpus: Corpus, base: Path, tmp_path: Path
) -> None:
    own = copy_of(base, tmp_path / "base")
    (own / name).write_text("{}")
    assert refusal(corpus.job(own, tmp_path / "out")) == "base.quantized"


def test_quantized_weights_that_no_file_tells_of_are_refused(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    own = copy_of(base, tmp_path / "base")
    weights = load_file(own / "model.safetensors")
    name = next(name for name, weight in weights.items() if name.endswith("q_proj.weight") and weight.dim() == 2)
    weights[name] = weights[name].to(torch.float8_e4m3fn)
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
    assert refusal(corpus.job(own, tmp_path / "out")) == "base.quantized"


def test_a_base_that_is_not_quantized_is_not_refused(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    own = copy_of(base, tmp_path / "base", quantization_config=None)
    assert prepare(corpus.job(own, tmp_path / "out")).pairs


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens", "model.embed_tokens", "wte", "transformer.wpe"])
def test_adapters_on_embeddings_or_the_head_are_no_setting(target: str) -> None:
    with pytest.raises(ValidationError):
        Training(lora_targets=("q_proj", target))


@pytest.mark.parametrize("targets", [(), ("",), (".",)])
def test_no_module_is_no_target(targets: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        Training(lora_targets=targets)


def test_embeddings_are_found_by_their_shape_whatever_their_name(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    own = copy_of(base, tmp_path / "base")
    weights = load_file(own / "model.safetensors")
    weights["model.inlet.weight"] = weights["model.embed_tokens.weight"].clone()
    save_file(weights, own / "model.safetensors", metadata={"format": "pt"})
    training = FAST.model_copy(update={"lora_targets": ("q_proj", "inlet")})
    assert refusal(corpus.job(own, tmp_path / "out", training)) == "training.vocabulary-module"
    assert refusal(corpus.job(own, tmp_path / "out", FAST.model_copy(update={"lora_targets": ("q_prof",)}))) == (
        "training.no-such-module"
    )


@pytest.mark.parametrize("beta", [0, -0.1, float("nan"), float("inf")])
def test_beta_is_a_number_above_zero(beta: float, tmp_path: Path) -> None:
    with pytest.raises(ValidationError):
        TrainingJob(base=tmp_path, pairs=tmp_path, out=tmp_path, beta=beta)
    with pytest.raises(ValidationError):
        Stage(metric=TrainedMetric.safe, judge="j", beta=beta, epochs=1)


@pytest.mark.parametrize("silence", [[], [{"role": "assistant", "content": " \n"}]])
def test_pairs_with_a_silent_side_are_left_out_and_counted(
    silence: list[dict[str, str]], corpus: Corpus, base: Path, tmp_path: Path
) -> None:
    job = corpus.job(base, tmp_path / "out")
    assert job.conversations is not None
    records = [json.loads(line) for line in job.conversations.read_text().splitlines()]
    pairs = [json.loads(line) for line in job.pairs.read_text().splitlines()]
    silent = pairs[0]["chosen"]
    for record in records:
        if record["id"] == silent:
            record["completion"] = silence
    job.conversations.write_text("\n".join(map(json.dumps, records)))
    prepared = prepare(job)
    left = [pair for pair in pairs if silent not in (pair["chosen"], pair["rejected"])]
    assert (len(prepared.pairs), prepared.without_words, prepared.too_long) == (len(left), len(pairs) - len(left), 0)
    job.pairs.write_text("\n".join(json.dumps(pair) for pair in pairs if pair not in left))
    assert refusal(job) == "pairs.without-words"
    job.pairs.write_text("")
    assert refusal(job) == "pairs.none"
