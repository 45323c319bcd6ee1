from __future__ import annotations

import functools
import shutil
import struct
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub.utils import validate_repo_id

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.assets import AssetFactory
from dagster_project.experiment.graph import INTERPOLATED, build_graph
from dagster_project.experiment.spec import Experiment
from dagster_project.training.assets import build
from dagster_project.training.card import model_card, push_adapter, repository_name, training_curve
from dagster_project.training.dpo import TrainingResult, train_adapter
from tests.conftest import SMALL
from toolemu.errors import FrontierError

from .test_concatenate import random_adapter
from .toy import Corpus


@pytest.fixture(scope="module")
def result(corpus: Corpus, base: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return train_adapter(corpus.job(base, tmp_path_factory.mktemp("card") / "out"))


def test_a_model_card_says_what_an_adapter_is_and_nothing_of_this_machine(
    corpus: Corpus, base: Path, result: TrainingResult, tmp_path: Path
) -> None:
    job = corpus.job(base, tmp_path / "out", lineage={"pairs": "safe by strict, 12"}, name="small: an adapter")
    card = model_card(job, result)
    front = yaml.safe_load(card.split("---")[1])
    assert front == {"library_name": "peft", "tags": ["dpo", "lora", "safety-frontier"]}
    for told in (
        "# small: an adapter",
        "source_models/model=m",
        "safe by strict, 12",
        "lora_rank: 4",
        f"{result.steps[-1].loss:.3f}",
    ):
        assert told in card
    assert str(tmp_path) not in card
    assert str(base) not in card


def test_the_curve_is_a_small_picture(result: TrainingResult) -> None:
    picture = training_curve(result.steps)
    assert picture.startswith(b"\x89PNG")
    assert struct.unpack(">II", picture[16:24]) == (360, 108)
    assert len(picture) < 20_000  # it goes into Dagster's event log


def test_an_agent_is_measured_against_its_base(result: TrainingResult) -> None:
    assert result.kl > 0
    assert result.mfu is result.peak_memory is None  # no card here


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """Takes the hub's place; a list of what it was told."""
    seen: list[tuple[str, Any]] = []

    class Hub:
        def __init__(self, token: str) -> None:
            seen.append(("token", token))

        def create_repo(self, name: str, **options: Any) -> str:
            validate_repo_id(name)
            seen.append((name, options["private"]))
            return f"https://hub/{name}"

        def upload_folder(self, *, repo_id: str, folder_path: Path, **_: Any) -> None:
            seen.append((repo_id, sorted(path.name for path in folder_path.iterdir())))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    monkeypatch.setenv("HF_TOKEN", "secret")
    return seen


def test_the_hub_gets_the_folder_under_a_name_it_takes(
    tmp_path: Path, hub: list[tuple[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "README.md").write_text("card")
    name = repository_name("lab/frontier-", "paper", "stage_1-llama:safe:gpt-5:0.1-0")
    assert name == "lab/frontier-paper-stage_1-llama-safe-gpt-5-0.1-0"
    assert push_adapter(tmp_path, name) == f"https://hub/{name}"
    assert hub == [("token", "secret"), (name, True), (name, ["README.md"])]
    with pytest.raises(FrontierError, match="The hub did not take lab/a--b"):
        push_adapter(tmp_path, "lab/a--b")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(FrontierError, match="HF_TOKEN"):
        push_adapter(tmp_path, "lab/x")


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    labels = [f"interpolated_adapters-{'llama' * 20}:0.25_safe_and_0.75_help:-strict:0.1-{seed}" for seed in (0, 1)]
    names = [repository_name("lab/", "paper", label) for label in labels]
    assert len(set(names)) == 2
    for name in [*names, repository_name("lab/", "paper", "a:-b")]:
        validate_repo_id(name)


def test_a_hub_that_cannot_be_reached_is_one_that_did_not_take_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    nobody = functools.partial(HfApi, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.HfApi", nobody)
    with pytest.raises(FrontierError, match="The hub did not take lab/x: "):
        push_adapter(tmp_path, "lab/x")


def test_a_card_names_a_base_of_the_hub_as_the_hub_does(corpus: Corpus, result: TrainingResult, tmp_path: Path) -> None:
    job = corpus.job(tmp_path, tmp_path / "out", base_hub="lab/agent", base_commit="abc")
    card = model_card(job, result)
    assert yaml.safe_load(card.split("---")[1])["base_model"] == "lab/agent"
    assert 'from_pretrained("lab/agent", revision="abc")' in card


MIXTURE = "eager:0.25_safe_and_0.75_safe_then_help:strict:0.1"
ENDS = ("eager:safe:strict:0.1", "eager:safe_then_help:strict:0.1")


@pytest.fixture
def mixed(base: Path, tmp_path: Path, hub: list[tuple[str, Any]]) -> tuple[ArtifactStore, dg.ExecuteInProcessResult]:
    """A mixture of an agent and of what it became, made by the asset, with stand-ins for what it reads."""
    grid = {**SMALL["grid"], "interpolate": [{"between": ["safe", "safe_then_help"], "weights": [0.25]}]}  # type: ignore[dict-item]
    value = {**SMALL, "grid": grid, "trainer": {"push_to_hub": "lab/"}}
    graph, store = build_graph(Experiment.model_validate(value)), ArtifactStore(tmp_path, "small")
    factory = AssetFactory(graph, store)
    mixture = Ref.of(INTERPOLATED, agent=MIXTURE, seed="0")
    for number, ref in enumerate(graph.nodes[INTERPOLATED].sources(mixture)):
        with store.write(ref, run_id="r", code_version="1", config={}, inputs={}) as draft:
            if ref.asset == "source_models":
                shutil.copytree(base, draft.path, dirs_exist_ok=True)
            elif ref.asset != "agent_specs":
                random_adapter(base, draft.path, number)
    (asset,) = (asset for asset in build(factory) if factory.key(INTERPOLATED) in asset.keys)
    with dg.DagsterInstance.ephemeral() as instance:
        key = dg.MultiPartitionKey({"agent": MIXTURE, "seed": "0"})
        return store, dg.materialize([asset], instance=instance, partition_key=key)


def test_a_mixture_says_what_it_is_mixed_from(mixed: tuple[ArtifactStore, dg.ExecuteInProcessResult]) -> None:
    store, _ = mixed
    made = store.get(Ref.of(INTERPOLATED, agent=MIXTURE, seed="0"))
    card = (made.path / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---")[1])
    assert front == {"library_name": "peft", "tags": ["lora", "mixture", "safety-frontier"]}
    assert "nobody trained" in card
    for weight, end in zip((0.25, 0.75), ENDS, strict=True):
        assert f"{weight:g} of what all stages of `{end}` add" in card
    stages = [Ref.of(f"stage_{stage}/adapters", agent=end, seed="0") for stage, end in enumerate(ENDS, 1)]
    for weight, ref, metric in zip(("1", "0.75"), stages, ("safe", "help"), strict=True):
        sha256 = store.get(ref).manifest.sha256
        assert f"| {weight} | {ref.label} | {metric} by strict, β = 0.1 | {sha256} |" in card
    source = store.get(Ref.of("source_models", model="eager"))
    assert f"- base: source_models [eager], sha256 {source.manifest.sha256}" in card
    assert "Its rank is 8;" in card
    assert made.manifest.counts["rank"] == 8
    assert str(store.root) not in card


def test_a_mixture_loads_as_its_card_says(mixed: tuple[ArtifactStore, dg.ExecuteInProcessResult], base: Path) -> None:
    store, _ = mixed
    made = store.get(Ref.of(INTERPOLATED, agent=MIXTURE, seed="0"))
    code = (made.path / "README.md").read_text(encoding="utf-8").split("```")[1].removeprefix("python")
    places = {"path/of/source_models [eager]": str(base), "path/of/this/adapter": str(made.path)}
    for place, path in places.items():
        assert place in code
        code = code.replace(place, path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["model"].peft_config["default"].r == 8


def test_a_mixture_goes_to_the_hub_as_trained_adapters_do(
    mixed: tuple[ArtifactStore, dg.ExecuteInProcessResult], hub: list[tuple[str, Any]]
) -> None:
    name = f"lab/small-interpolated_adapters-{MIXTURE.replace(':', '-')}-0"
    assert hub[-1] == (name, ["README.md", "adapter_config.json", "adapter_model.safetensors"])
    (told,) = mixed[1].get_asset_materialization_events()
    assert told.materialization.metadata["hub"].value == f"https://hub/{name}"
