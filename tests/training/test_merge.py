from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from dagster_project.training.dpo import load_model, train_adapter
from dagster_project.training.merge import TOLERANCE, merge_adapter
from toolemu.errors import FrontierError

from .toy import Corpus, files_of, paths_in

PROBE = range(3, 35)


@pytest.fixture(scope="module")
def adapter(corpus: Corpus, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapter")
    train_adapter(corpus.job(base, out))
    return out


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def test_a_merged_model_is_its_base_with_the_adapter(base: Path, adapter: Path, corpus: Corpus, tmp_path: Path) -> None:
    difference = merge_adapter(base, adapter, tmp_path / "merged", PROBE)
    assert 0 <= difference <= TOLERANCE
    pair = corpus.tokens()[0]
    ids = torch.tensor([pair.prompt_ids + pair.chosen_ids])  # not what the merge was checked on
    merged, tokenizer = load_model(tmp_path / "merged", "float32")
    source, own = load_model(base, "float32")
    plain = logits(source, ids)
    adapted = logits(PeftModel.from_pretrained(source, adapter), ids)
    assert (adapted - plain).abs().max() > 0.01
    torch.testing.assert_close(logits(merged, ids), adapted, atol=1e-4, rtol=1e-4)
    assert tokenizer.get_vocab() == own.get_vocab()
    assert tokenizer.chat_template == own.chat_template


def test_merging_twice_gives_the_same_files_without_paths_of_this_machine(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        merge_adapter(base, adapter, tmp_path / name, PROBE)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert not paths_in(tmp_path / "one", [str(base), str(adapter), str(tmp_path), str(Path.home()) + "/"])


def test_a_merge_that_loses_the_adapter_is_refused(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self: self.unload(), raising=False)
    with pytest.raises(FrontierError, match="changed logits by"):
        merge_adapter(base, adapter, tmp_path / "merged", PROBE)
    assert not (tmp_path / "merged").exists()


def test_a_merge_into_not_a_number_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: weight * float("nan") for name, weight in weights.items()}, broken / "adapter_model.safetensors")
    with pytest.raises(FrontierError, match="changed logits by nan"):
        merge_adapter(base, broken, tmp_path / "merged", PROBE)
