from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from dagster_project.training import preflight
from dagster_project.training.concatenate import Adapter
from dagster_project.training.dpo import load_model, train_adapter
from dagster_project.training.merge import TOLERANCE, merge_adapter
from toolemu.errors import FrontierError

from .toy import Corpus, files_of, paths_in

PROBES = [list(range(3, 35))]


@pytest.fixture(scope="module")
def adapter(corpus: Corpus, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("adapter")
    train_adapter(corpus.job(base, out))
    return out


def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=ids).logits


def test_a_merged_model_is_its_base_with_the_adapter(base: Path, adapter: Path, corpus: Corpus, tmp_path: Path) -> None:
    report = merge_adapter(base, adapter, tmp_path / "merged", PROBES)
    assert 0 <= report.max_logit_difference <= TOLERANCE
    assert report.max_logit_difference < 0.01 * report.effect
    assert report.delta_lost == 0
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
        merge_adapter(base, adapter, tmp_path / name, PROBES)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    assert not paths_in(tmp_path / "one", [str(base), str(adapter), str(tmp_path), str(Path.home()) + "/"])


def test_a_merge_that_loses_the_adapter_is_refused(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adapter, "scale", 0.0)
    with pytest.raises(FrontierError, match="changed logits by"):
        merge_adapter(base, adapter, tmp_path / "merged", PROBES)
    assert not (tmp_path / "merged").exists()


def test_a_merge_that_the_disk_has_no_room_for_is_not_begun(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage(NamedTuple):
        free: int

    size = (base / "model.safetensors").stat().st_size
    for free, fits in ((2**30 + size - 1, False), (2**30 + size, True)):
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _, free=free: Usage(free))
        with nullcontext() if fits else pytest.raises(FrontierError, match=r"GiB are needed for the merged model"):
            merge_adapter(base, adapter, tmp_path / "merged", PROBES)
        assert (tmp_path / "merged").exists() is fits


def in_bfloat16(base: Path, out: Path, shards: str = "5GB") -> Path:
    """Writes a base in bfloat16, in as many files as it takes."""
    model, tokenizer = load_model(base, "bfloat16")
    model.save_pretrained(out, max_shard_size=shards)
    tokenizer.save_pretrained(out)
    return out


def test_a_base_in_shards_and_fewer_bits_keeps_both_and_says_what_rounding_took(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    low = in_bfloat16(base, tmp_path / "low", shards="100KB")
    shards = sorted(path.name for path in low.glob("*.safetensors"))
    assert len(shards) > 1
    report = merge_adapter(low, adapter, tmp_path / "merged", PROBES)
    assert sorted(path.name for path in (tmp_path / "merged").glob("*.safetensors")) == shards
    merged, _ = load_model(tmp_path / "merged", "auto")
    assert merged.dtype == torch.bfloat16
    assert 0 < report.delta_lost < 0.2
    assert report.max_logit_difference > TOLERANCE / 10  # rounding shows, and is told apart from a fault


def test_a_change_that_rounding_would_swallow_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    low = in_bfloat16(base, tmp_path / "low")
    faint = tmp_path / "faint"
    faint.mkdir()
    (faint / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: weight * 0.02 for name, weight in weights.items()}, faint / "adapter_model.safetensors")
    with pytest.raises(FrontierError, match=r"rounding, which took \d+% of the change of weights"):
        merge_adapter(low, faint, tmp_path / "merged", PROBES)


def test_a_merge_into_not_a_number_is_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    weights = load_file(adapter / "adapter_model.safetensors")
    save_file({name: weight * float("nan") for name, weight in weights.items()}, broken / "adapter_model.safetensors")
    with pytest.raises(FrontierError, match="changed logits by nan"):
        merge_adapter(base, broken, tmp_path / "merged", PROBES)


def test_a_merge_that_memory_cannot_hold_is_refused_before_anything_is_written(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = sum(weight.numel() for path in base.glob("*.safetensors") for weight in load_file(path).values())
    memory = psutil.virtual_memory()

    def have(available: int) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=available))

    have(4 * parameters - 1)
    with pytest.raises(FrontierError) as refused:
        merge_adapter(base, adapter, tmp_path / "refused", PROBES)
    assert refused.value.code == "merge.memory" and not (tmp_path / "refused").exists()
    have(4 * parameters)
    merge_adapter(base, adapter, tmp_path / "merged", PROBES)
