from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from dagster_project.artifacts import Artifact, ArtifactStore, Ref
from dagster_project.experiment.agents import Recipe
from dagster_project.experiment.models import OwnAdapter
from dagster_project.measure.adapters import own_adapter
from toolemu.errors import InputError

MODULE = "base_model.model.layers.0.q_proj"
OWN = OwnAdapter(kind="adapter", source="mine", of="m", recipe=Recipe.safe, judge="j")


def adapter(store: ArtifactStore, width: int) -> Artifact:
    """Makes an adapter of a layer of so many inputs, with something of other kinds in it."""
    matrices = {f"{MODULE}.lora_A.weight": (2, width), f"{MODULE}.lora_B.weight": (6, 2), f"{MODULE}.other": (3,)}
    with store.write(Ref("own"), run_id=f"{width} wide", code_version="1", config={}, inputs={}) as draft:
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
