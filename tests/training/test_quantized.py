"""Quantised bases, computed for real: bitsandbytes has a CPU build, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from dagster_project.experiment.training import Trainer
from dagster_project.miniature.tokenizer import build_tokenizer
from dagster_project.training import dpo, preflight
from dagster_project.training.dpo import train_adapter

from .toy import FAST, Corpus, files_of

pytest.importorskip("bitsandbytes", reason="needs the extra gpu or dev: pip install 'safety-frontier[dev]'")


@pytest.fixture(scope="module")
def wide_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose matrices are multiples of bitsandbytes' blocks of 64."""
    path = tmp_path_factory.mktemp("base")
    tokenizer = build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.mark.parametrize(
    ("quantization", "kind", "compute"), [("int8", "Linear8bitLt", None), ("int4", "Linear4bit", torch.bfloat16)]
)
@pytest.mark.parametrize("settings", [{}, {"gradient_checkpointing": "always"}, {"shared_text": True}], ids=str)
def test_an_adapter_is_trained_on_a_quantised_base(
    corpus: Corpus, wide_base: Path, quantization: str, kind: str, compute: Any, settings: dict[str, Any],
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(preflight, "_check_settings", lambda *_: None)  # it wants a card
    models: list[Any] = []
    quantized = dpo._Attempt._model

    def keep(self: Any) -> Any:
        models.append(quantized(self))
        return models[-1]

    monkeypatch.setattr(dpo._Attempt, "_model", keep)
    training = FAST.model_copy(update={"quantization": quantization, "dtype": "bfloat16", "learning_rate": 1e-3})
    result = train_adapter(corpus.job(wide_base, tmp_path / "out", training, trainer=Trainer.model_validate(settings)))
    (model,) = models
    kinds = {
        name: type(module.get_base_layer() if hasattr(module, "get_base_layer") else module).__name__
        for name, module in model.named_modules()
    }
    inside = {found for name, found in kinds.items() if name.endswith("_proj")}
    assert inside == {kind}
    assert (kinds["lm_head"], kinds["model.embed_tokens"]) == ("Linear", "Embedding")
    layer = model.model.layers[0].mlp.up_proj.get_base_layer()
    if compute is not None:
        assert (layer.weight.quant_type, layer.compute_dtype) == ("nf4", compute)
        assert layer.weight.quant_state.nested  # double quantisation
    assert not layer.weight.requires_grad
    assert result.steps[0].loss == pytest.approx(0.6931, abs=2e-3)
    assert result.kl > 0
    adapter = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all("lora_" in name for name in adapter)
    assert any(weight.abs().max() > 0 for name, weight in adapter.items() if "lora_B" in name)
    assert all(torch.isfinite(weight).all() for weight in adapter.values())
    plain = train_adapter(
        corpus.job(wide_base, tmp_path / "plain", training.model_copy(update={"quantization": "none"}))
    )
    assert result.steps[-1].loss == pytest.approx(plain.steps[-1].loss, abs=0.05)
    assert files_of(tmp_path / "out") != files_of(tmp_path / "plain")
