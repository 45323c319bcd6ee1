from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dagster_project.artifacts import Artifact, ArtifactStore, Ref
from dagster_project.measure.adapters import own_adapter
from dagster_project.models.weights import AdapterModel
from toolemu.errors import InputError

Others = Sequence[tuple[str, tuple[int, ...]]]
MODULE = "base_model.model.layers.0.q_proj"
OWN = AdapterModel(kind="adapter", source="mine")


def adapter(store: ArtifactStore, width: int, others: Others = (), **config: object) -> Artifact:
    """Makes an adapter of a layer of so many inputs, with other tensors and settings beside the two matrices."""
    matrices = {f"{MODULE}.lora_A.weight": (2, width), f"{MODULE}.lora_B.weight": (6, 2), **dict(others)}
    run_id = f"{width} wide, {len(others)} others, {len(config)} settings"
    with store.write(Ref("own"), run_id=run_id, code_version="1", config={}, inputs={}) as draft:
        (draft.path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, **config}))
        path = draft.path / "adapter_model.safetensors"
        save_file({name: np.ones(shape, np.float32) for name, shape in matrices.items()}, path)
    return store.get(Ref("own"))


def test_an_adapter_of_another_base_is_refused_before_any_model_is_loaded(tmp_path: Path) -> None:
    base, store = tmp_path / "base", ArtifactStore(tmp_path / "data", "trial")
    base.mkdir()
    save_file({"layers.0.q_proj.weight": np.ones((6, 4), np.float32)}, base / "model.safetensors")
    own_adapter(base, OWN, adapter(store, 4)).write(tmp_path / "out")
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    with pytest.raises(InputError, match="is an adapter of another base than"):
        own_adapter(base, OWN, adapter(store, 5))


@pytest.mark.parametrize(
    ("others", "config", "code"),
    [
        ([(f"{MODULE}.other", (3,))], {}, "adapter.not-servable"),
        ([("base_model.model.lm_head.lora_A.weight", (2, 4))], {}, "adapter.not-servable"),
        ([("base_model.model.embed_tokens.lora_embedding_A", (2, 4))], {}, "adapter.not-servable"),
        ([("base_model.model.lm_head.weight", (9, 4))], {"modules_to_save": ["lm_head"]}, "adapter.not-plain"),
        ([], {"trainable_token_indices": [1, 2]}, "adapter.not-plain"),
        ([], {"use_dora": True}, "adapter.not-plain"),
    ],
)
def test_an_adapter_that_changes_more_than_linear_layers_is_refused(
    tmp_path: Path, others: Others, config: dict[str, object], code: str
) -> None:
    base, store = tmp_path / "base", ArtifactStore(tmp_path / "data", "trial")
    base.mkdir()
    save_file({"layers.0.q_proj.weight": np.ones((6, 4), np.float32)}, base / "model.safetensors")
    with pytest.raises(InputError) as refused:
        own_adapter(base, OWN, adapter(store, 4, others, **config))
    assert refused.value.code == code
