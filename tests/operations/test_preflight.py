"""What the experiment file names and is not there is an error before anything is launched."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.definitions import build_definitions
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.spec import Experiment, load_experiment
from dagster_project.operations import preflight as room
from dagster_project.operations.kubernetes import STEPS
from dagster_project.operations.preflight import preflight, short_keys, webhook_url
from dagster_project.operations.seeds import launch_seed
from dagster_project.operations.ui import serve
from dagster_project.serving.leases import PYTHON
from tests import lm_world
from tests.collect.test_real_models import make_lab
from tests.conftest import SMALL
from tests.lm_world import write_world
from tests.operations.cluster import Cluster, serve_cluster
from toolemu.errors import FrontierError


def small(**operations: Any) -> Experiment:
    return Experiment.model_validate({**SMALL, "operations": operations})


def look(experiment: Experiment, folder: Path, *refs: Ref) -> None:
    for _ in preflight(build_graph(experiment), ArtifactStore(folder, experiment.name), refs or None):
        pass


def test_nothing_is_asked_for_that_is_not_needed(tmp_path: Path) -> None:
    look(small(), tmp_path)
    look(small(gpu=True, gpu_type="H100"), tmp_path, Ref.of("preference_pairs/strict", metric="safe"))


def test_a_wrong_type_of_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "gpu_name", lambda: "NVIDIA A100-SXM4-80GB")
    look(small(gpu=True, gpu_type="a100"), tmp_path)
    with pytest.raises(FrontierError, match=r"operations\.gpu_type: small needs a GPU 'H100'.*A100-SXM4"):
        look(small(gpu=True, gpu_type="H100"), tmp_path)
    monkeypatch.setattr(room, "gpu_name", lambda: "")
    training = Ref.of("stage_1/adapters", agent="a", seed="0")
    with pytest.raises(FrontierError, match="this machine has none"):
        look(small(gpu=True, gpu_type="H100"), tmp_path, training)
    monkeypatch.setenv(STEPS, "kubernetes")  # who looks is no step, and its own pod has no GPU
    (line,) = preflight(build_graph(small(gpu=True, gpu_type="H100")), ArtifactStore(tmp_path, "small"), [training])
    assert "'H100'" in line and "node_selector" in line


def test_a_missing_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FrontierError, match=r"operations\.webhook.*NO_SUCH_HOOK is not set"):
        look(small(webhook="NO_SUCH_HOOK"), tmp_path)
    monkeypatch.setenv("NO_SUCH_HOOK", "hooks.example")
    with pytest.raises(FrontierError, match="holds no URL"):
        look(small(webhook="NO_SUCH_HOOK"), tmp_path)
    lab = make_lab(tmp_path / "lm", "http://127.0.0.1:1/v1")
    monkeypatch.delenv("TEST_KEY", raising=False)
    with pytest.raises(FrontierError, match="TEST_KEY is not set"):
        look(load_experiment(str(lab.experiment)), tmp_path)


def test_vllm_is_looked_for_where_it_would_be_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "http://127.0.0.1:1/v1"
    endpoints = {"here": {"url": url, "key": "TEST_KEY"}, "ours": {"serve": {"source": "lab/model"}}}
    value = lm_world.experiment(url, endpoints=endpoints, judges={"strict": {"endpoint": "ours"}})
    write_world(tmp_path)
    (tmp_path / "lm.yaml").write_text(yaml.safe_dump(value))
    experiment, judged = load_experiment(str(tmp_path / "lm.yaml")), Ref.of("source_evaluations/strict/safe", model="a")
    monkeypatch.setenv(PYTHON, str(tmp_path / "none"))
    with pytest.raises(FrontierError, match=PYTHON):
        look(experiment, tmp_path, judged)
    monkeypatch.setenv(STEPS, "kubernetes")  # the image of what looks needs none
    look(experiment, tmp_path, judged)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    with serve_cluster(tmp_path, {}) as (served, kubeconfig):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        monkeypatch.setenv(STEPS, "kubernetes")
        yield served


TRAINING = Ref.of("stage_1/adapters", agent="eager:safe:strict:0.1", seed="0")
SECRET = [{"cpu": "1"}, {"assets": ["stage_1"], "secrets": ["hub-token"]}]


def told(folder: Path, *refs: Ref) -> list[str]:
    experiment = Experiment.model_validate({**SMALL, "kubernetes": SECRET})
    return list(preflight(build_graph(experiment), ArtifactStore(folder, "small"), refs or None))


def test_a_secret_that_the_cluster_has_not(tmp_path: Path, cluster: Cluster) -> None:
    where = r"kubernetes\.1\.secrets: there is no secret 'hub-token' in the namespace 'frontier'.*kubectl -n frontier"
    with pytest.raises(FrontierError, match=where):
        told(tmp_path)
    with pytest.raises(FrontierError, match=where):
        told(tmp_path, TRAINING)
    assert told(tmp_path, Ref.of("source_models", model="eager")) == [], "its pods do not name it"
    cluster.secrets["hub-token"] = {}
    with pytest.raises(FrontierError, match="has no entries"):
        told(tmp_path)
    cluster.secrets["hub-token"] = {"HF_TOKEN": "aGY="}
    assert told(tmp_path) == []


def test_what_could_not_be_looked_at_is_said(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.secrets["hub-token"] = None
    (line,) = told(tmp_path, TRAINING)
    assert "403" in line and "hub-token" in line
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (line,) = told(tmp_path, TRAINING)
    assert "kubeconfig" in line
    monkeypatch.delenv(STEPS)
    (line,) = told(tmp_path, TRAINING)
    assert STEPS in line


def test_a_cluster_that_does_not_answer_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_cluster(tmp_path, {}) as (_, kubeconfig):
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    monkeypatch.setenv(STEPS, "kubernetes")
    (line,) = told(tmp_path, TRAINING)
    assert "does not answer" in line


def test_an_endpoint_that_nobody_answers_at_stops_the_schedules_tick(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = {"here": {"url": "http://127.0.0.1:1/v1", "key": "TEST_KEY", "timeout_s": 1, "give_up_after_s": 1}}
    models = {"tiny": {"kind": "miniature", "temperament": "eager", "steps": 2}}
    grid = {"models": ["tiny"], "recipes": ["safe"], "pairs_judges": ["strict"], "seeds": [0]}
    lab = make_lab(tmp_path / "lm", "", endpoints=endpoint, models=models, grid=grid)
    monkeypatch.chdir(lab.directory)  # where the key is
    monkeypatch.setenv("FRONTIER_DATA", str(tmp_path / "data"))
    experiment = load_experiment("lm.yaml")
    store = ArtifactStore(tmp_path / "data", "lm")
    assets = build_definitions(experiment).get_repository_def().asset_graph
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(FrontierError, match=r"judges\.strict|world\.emulator"):
            launch_seed(
                instance, assets, build_graph(experiment), store, check=lambda refs: look(experiment, tmp_path, *refs)
            )
        assert instance.get_backfills() == []


def test_a_port_that_somebody_has() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(FrontierError, match=f"--port {taken.getsockname()[1]} is not to be had"):
            serve(taken.getsockname()[1])


def test_a_key_that_is_too_short_to_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_world(tmp_path)
    monkeypatch.setenv("SHORT_KEY", "a-b-1")
    monkeypatch.setenv("LONG_KEY", "planted-0123456789")
    ends = {
        name: {"url": "http://127.0.0.1:9/v1", "key": f"{name}_KEY".upper()} for name in ("short", "long", "absent")
    }
    path = tmp_path / "lm.yaml"
    path.write_text(
        yaml.safe_dump(lm_world.experiment("", endpoints={"here": {"url": "http://127.0.0.1:9/v1"}, **ends}))
    )
    (told,) = short_keys(load_experiment(str(path)))
    assert "SHORT_KEY" in told and "a-b-1" not in told


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:99999/secret", "https://[secret", "secret", "ftp://secret", "http:///x"]
)
def test_a_webhook_that_is_no_address_is_not_repeated(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK", url)
    settings = load_experiment("miniature")
    settings = settings.model_copy(update={"operations": settings.operations.model_copy(update={"webhook": "HOOK"})})
    with pytest.raises(FrontierError) as raised:
        webhook_url(settings)
    assert "secret" not in str(raised.value)
