from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from dagster_project.training.concatenate import concatenate_adapters
from dagster_project.training.dpo import load_model
from dagster_project.training.merge import merge_adapter
from toolemu.errors import InputError

from .toy import Corpus

AGREE = 5e-5  # of logits of a few units; measured: at most 7e-6


def random_adapter(base: Path, out: Path, seed: int, **config: Any) -> Path:
    """Writes an adapter that does something."""
    model, _ = load_model(base, "float32")
    settings: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", **config}
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data.copy_(0.1 * torch.randn(weight.shape, generator=generator))
    adapted.save_pretrained(out)
    return out


def logits(model: Any, corpus: Corpus) -> torch.Tensor:
    pair = corpus.tokens()[0]
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([pair.prompt_ids + pair.chosen_ids])).logits


@pytest.mark.parametrize(
    "second",
    [{}, {"r": 8, "lora_alpha": 5}, {"use_rslora": True}, {"target_modules": ["q_proj", "down_proj"]}],
    ids=["equal", "another rank and alpha", "rsLoRA", "fewer modules"],
)
def test_the_stages_as_one_adapter_are_the_merged_chain(
    base: Path, corpus: Corpus, second: dict[str, Any], tmp_path: Path
) -> None:
    first = random_adapter(base, tmp_path / "first", 1)
    merge_adapter(base, first, tmp_path / "middle", [range(3, 35)])
    later = random_adapter(tmp_path / "middle", tmp_path / "later", 2, **second)
    merge_adapter(tmp_path / "middle", later, tmp_path / "end", [range(3, 35)])
    concatenate_adapters(base, [first, later], tmp_path / "both")
    source, _ = load_model(base, "float32")
    expected = logits(load_model(tmp_path / "end", "float32")[0], corpus)
    found = logits(PeftModel.from_pretrained(source, tmp_path / "both"), corpus)
    assert (logits(load_model(tmp_path / "middle", "float32")[0], corpus) - expected).abs().max() > 0.1
    torch.testing.assert_close(found, expected, atol=AGREE, rtol=0)
    config = json.loads((tmp_path / "both" / "adapter_config.json").read_text())
    assert config["r"] == 4 + second.get("r", 4)


def test_three_stages_as_one_adapter_are_the_merged_chain(base: Path, corpus: Corpus, tmp_path: Path) -> None:
    bottom, adapters = base, []
    for stage in (1, 2, 3):
        adapters.append(random_adapter(bottom, tmp_path / f"adapter {stage}", stage))
        merge_adapter(bottom, adapters[-1], tmp_path / f"merged {stage}", [range(3, 35)])
        bottom = tmp_path / f"merged {stage}"
    concatenate_adapters(base, adapters, tmp_path / "all")
    source, _ = load_model(base, "float32")
    found = logits(PeftModel.from_pretrained(source, tmp_path / "all"), corpus)
    torch.testing.assert_close(found, logits(load_model(bottom, "float32")[0], corpus), atol=AGREE, rtol=0)


def test_mixtures_begin_and_end_with_what_they_are_mixed_from_and_are_those_of_peft(
    base: Path, corpus: Corpus, tmp_path: Path
) -> None:
    adapters = [random_adapter(base, tmp_path / str(seed), seed) for seed in (1, 2)]

    def adapted(adapter: Path) -> torch.Tensor:
        return logits(PeftModel.from_pretrained(load_model(base, "float32")[0], adapter), corpus)

    for weight in (1.0, 0.25, 0.0):
        concatenate_adapters(base, adapters, tmp_path / "mixed", [weight, 1 - weight])
        theirs = PeftModel.from_pretrained(load_model(base, "float32")[0], adapters[0], adapter_name="one")
        theirs.load_adapter(adapters[1], adapter_name="other")
        theirs.add_weighted_adapter(["one", "other"], [weight, 1 - weight], "mixed", combination_type="cat")
        theirs.set_adapter("mixed")
        found = adapted(tmp_path / "mixed")
        torch.testing.assert_close(found, logits(theirs, corpus), atol=AGREE, rtol=0)
        if weight in (0.0, 1.0):
            torch.testing.assert_close(found, adapted(adapters[0 if weight else 1]), atol=AGREE, rtol=0)


def test_weights_mix_what_adapters_add(base: Path, tmp_path: Path) -> None:
    adapters = [random_adapter(base, tmp_path / str(seed), seed) for seed in (1, 2)]
    concatenate_adapters(base, adapters, tmp_path / "mixed", weights=[0.25, 0.75])

    def added(adapter: Path) -> torch.Tensor:
        model, _ = load_model(base, "float32")
        weight = model.model.layers[0].mlp.down_proj.weight.clone()
        merged = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        return merged.model.layers[0].mlp.down_proj.weight - weight

    expected = 0.25 * added(adapters[0]) + 0.75 * added(adapters[1])
    torch.testing.assert_close(added(tmp_path / "mixed"), expected, atol=1e-6, rtol=1e-4)


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    config = LlamaConfig(
        vocab_size=50, hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
    )
    LlamaForCausalLM(config).save_pretrained(other)
    adapter = random_adapter(base, tmp_path / "adapter", 1)
    with pytest.raises(InputError, match=r"layers\.\d\..*an adapter of another base than .*other"):
        concatenate_adapters(other, [adapter], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_plain_adapter_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no adapter: it holds no adapter_config\.json"):
        concatenate_adapters(base, [base], tmp_path / "out")
    dora = random_adapter(base, tmp_path / "dora", 1, use_dora=True)
    with pytest.raises(InputError, match=r"'use_dora'.*more than plain LoRA"):
        concatenate_adapters(base, [dora], tmp_path / "out")
    adapter = random_adapter(base, tmp_path / "adapter", 1)
    with pytest.raises(InputError, match=r"there is no .*safetensors in it"):
        concatenate_adapters(tmp_path, [adapter], tmp_path / "out")
