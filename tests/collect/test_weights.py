"""Weights that lie elsewhere: found, pinned, and refused when they are not what they were."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from dagster_project.collect.weights import (
    PINNED,
    PinnedWeights,
    find_weights,
    is_pinned,
    model_folder,
    pin_weights,
    weights_name,
)
from dagster_project.experiment.spec import load_experiment
from dagster_project.models.openai import OpenAIModel
from dagster_project.models.weights import WeightsModel
from tests.conftest import SMALL
from tests.training.toy import save_base
from toolemu.errors import FrontierError, InputError


def model(folder: Path) -> WeightsModel:
    return WeightsModel(kind="weights", source=folder.name, folder=folder)


def test_pinned_weights_are_found_again_and_nothing_is_copied(tmp_path: Path) -> None:
    base, artifact = save_base(tmp_path / "base"), tmp_path / "artifact"
    artifact.mkdir()
    size = pin_weights(model(base), artifact)
    assert [path.name for path in artifact.iterdir()] == [PINNED]
    pinned = PinnedWeights.model_validate_json((artifact / PINNED).read_bytes())
    assert {"config.json", "model.safetensors"} <= {file.path for file in pinned.files}
    assert size == sum(file.bytes for file in pinned.files)
    assert model_folder(model(base), artifact) == base
    assert model_folder(OpenAIModel(endpoint="here"), base) == base, "an artifact with weights stands for itself"


def test_equal_weights_pin_to_equal_files_wherever_they_lie(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base")
    shutil.copytree(base, tmp_path / "there" / "base")
    for name, folder in (("a", base), ("b", tmp_path / "there" / "base")):
        (tmp_path / name).mkdir()
        pin_weights(model(folder), tmp_path / name)
    assert (tmp_path / "a" / PINNED).read_bytes() == (tmp_path / "b" / PINNED).read_bytes()
    assert weights_name(model(base), base) == weights_name(model(base), tmp_path / "there" / "base")


@pytest.mark.parametrize("change", ["weights", "template", "gone"])
def test_weights_that_changed_are_an_error(tmp_path: Path, change: str) -> None:
    base, artifact = save_base(tmp_path / "base"), tmp_path / "artifact"
    artifact.mkdir()
    pin_weights(model(base), artifact)
    path = base / ("model.safetensors" if change == "weights" else "chat_template.jinja")
    if change == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(InputError, match="not what it was when its model was pinned"):
        model_folder(model(base), artifact)


def test_weights_of_the_hub_are_pinned_to_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--lab--tiny"
    save_base(cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    tiny = WeightsModel(kind="weights", source="lab/tiny")
    (tmp_path / "artifact").mkdir()
    pin_weights(tiny, tmp_path / "artifact")
    pinned = PinnedWeights.model_validate_json((tmp_path / "artifact" / PINNED).read_bytes())
    assert pinned.commit == commit
    assert model_folder(tiny, tmp_path / "artifact") == cached / "snapshots" / commit
    assert weights_name(tiny, cached / "snapshots" / commit) == f"lab/tiny@{commit[:12]}"
    assert [is_pinned(tiny.model_copy(update={"revision": given})) for given in (None, "main", commit)] == [
        False,
        False,
        True,
    ]
    with pytest.raises(FrontierError, match=r"lab/none.*could not be had from the hub"):
        find_weights(WeightsModel(kind="weights", source="lab/none"))


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no model"):
        find_weights(model(tmp_path))


def test_folders_are_taken_from_the_experiment_files_own(tmp_path: Path) -> None:
    save_base(tmp_path / "weights" / "own")
    section = {"kind": "weights", "source": "weights/own", "backend": "local"}
    judge = {"kind": "openai", "endpoint": "judge"}
    served = {"serve": {"source": "weights/own"}, "server": {"gpu_memory": 0.4}}
    (tmp_path / "e.yaml").write_text(
        yaml.safe_dump(
            {
                **SMALL,
                "models": {**SMALL["models"], "own": section, "also": {**section, "backend": "vllm"}},
                "judges": {**SMALL["judges"], "lm": judge, "same": {**judge, "endpoint": "models.also"}},
                "endpoints": {"judge": served},
            }
        )
    )
    experiment = load_experiment(str(tmp_path / "e.yaml"))
    own = experiment.models["own"]
    assert isinstance(own, WeightsModel)
    assert own.folder == tmp_path / "weights" / "own"
    assert experiment.identity_of("own") == {"kind": "weights", "source": "weights/own", "revision": None}
    assert list(experiment.roles()) == ["models.also", "judges.lm", "judges.same"]
    assert str(tmp_path) not in experiment.model_dump_json(), "paths of a machine are in no record"
