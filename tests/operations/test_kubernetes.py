"""Runs on Kubernetes: Dagster's launcher and executor against an API of this test's, and the pods they create."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path

import dagster as dg
import kubernetes_validate
import pytest
import yaml
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import DEFAULT_DAGSTER_ENTRY_POINT

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.spec import Experiment, load_experiment
from dagster_project.operations.kubernetes import STEPS, step_executor
from tests.conftest import ROOT, SMALL, make_lab
from tests.operations.cluster import serve_cluster
from toolemu.errors import FrontierError

AGENT = "eager:safe:strict:0.1"
RULES = [
    {"cpu": "500m", "memory": "2Gi", "env": {"LAB": "here"}},
    {
        "assets": ["agent_specs", "stage_1"],
        "image": "registry.example/safety-frontier-gpu:0.1.0",
        "gpus": 2,
        "memory": "64Gi",
        "scratch": "200Gi",
        "shared_memory": "16Gi",
        "node_selector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
        "tolerations": [{"key": "nvidia.com/gpu", "effect": "NoSchedule"}],
        "secrets": ["hub-token"],
        "claims": {"/models": "models"},
    },
]
CODE_IMAGE = "registry.example/safety-frontier:0.1.0"
LAUNCHER = {
    "module": "dagster_k8s",
    "class": "K8sRunLauncher",
    "config": {
        "service_account_name": "frontier-runs",
        "instance_config_map": "dagster-instance",
        "job_namespace": "frontier",
        "load_incluster_config": False,
        "env_secrets": ["frontier-secrets"],
        "security_context": {"allowPrivilegeEscalation": False},
        "run_k8s_config": {"pod_spec_config": {"securityContext": {"runAsNonRoot": True}}},
    },
}


@pytest.mark.slow
def test_the_pods_of_a_real_run_are_as_the_experiment_file_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab = make_lab(tmp_path, kubernetes=RULES)
    own = {**lab.environment, STEPS: "kubernetes", "FRONTIER_EXPERIMENT": str(lab.experiment)}
    for name in ("DAGSTER_HOME", "FRONTIER_DATA", "FRONTIER_EXPERIMENT", STEPS):
        monkeypatch.setenv(name, own[name])
    (lab.directory / "home").mkdir()
    with serve_cluster(tmp_path, own) as (cluster, kubeconfig):
        here = {"kubeconfig_file": str(kubeconfig), "dagster_home": own["DAGSTER_HOME"]}
        launcher = {**LAUNCHER, "config": {**LAUNCHER["config"], **here}}  # type: ignore[dict-item]
        settings = {"telemetry": {"enabled": False}, "run_launcher": launcher}
        (lab.directory / "home" / "dagster.yaml").write_text(yaml.safe_dump(settings))
        with dg.DagsterInstance.from_config(str(lab.directory / "home")) as instance:
            run = launch(instance, lab.experiment, f"{AGENT}|0")
            wait_for_end(instance, run.run_id, tmp_path / "pods.log")
    assert list(cluster.jobs) == [f"dagster-run-{run.run_id}", *(name for name in cluster.jobs if "step" in name)]
    worker, step = (job["spec"]["template"] for job in cluster.jobs.values())
    for job in cluster.jobs.values():
        kubernetes_validate.validate(job, "1.32", strict=True)
        assert job["metadata"]["namespace"] == "frontier"
        assert job["spec"]["template"]["spec"]["serviceAccountName"] == "frontier-runs"
        assert job["spec"]["template"]["spec"]["securityContext"] == {"runAsNonRoot": True}
        (container,) = job["spec"]["template"]["spec"]["containers"]
        assert container["securityContext"] == {"allowPrivilegeEscalation": False}

    (container,) = worker["spec"]["containers"]
    assert container["image"] == CODE_IMAGE
    assert "nvidia.com/gpu" not in str(worker), "the run's own pod only looks after its steps"

    (container,) = step["spec"]["containers"]
    assert container["image"] == "registry.example/safety-frontier-gpu:0.1.0"
    assert container["resources"] == {
        "requests": {"cpu": "500m", "memory": "64Gi", "ephemeral-storage": "200Gi"},
        "limits": {"memory": "64Gi", "nvidia.com/gpu": "2"},
    }
    assert {"name": "LAB", "value": "here"} in container["env"]
    secrets = {source["secretRef"]["name"] for source in container["envFrom"] if "secretRef" in source}
    assert secrets == {"frontier-secrets", "hub-token"}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in step["spec"]["volumes"]}
    assert volumes[mounts["/models"]]["persistentVolumeClaim"] == {"claimName": "models"}
    assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Gi"}
    assert step["spec"]["automountServiceAccountToken"] is False
    assert step["spec"]["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert step["spec"]["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert step["metadata"]["labels"]["safety-frontier/asset"] == "agent_specs"
    assert step["metadata"]["labels"]["app.kubernetes.io/component"] == "step_worker"

    made = ArtifactStore(lab.location, "small").get(Ref.of("agent_specs", agent=AGENT, seed="0"))
    assert made.manifest.run_id == run.run_id
    assert made.altered_files() == []


def launch(instance: dg.DagsterInstance, experiment: Path, partition: str) -> dg.DagsterRun:
    """Launches the run of a partition of `agent_specs`, as the daemon does."""
    pointer = ModuleCodePointer("dagster_project.definitions", "experiment", str(ROOT))
    repository = ReconstructableRepository(pointer, CODE_IMAGE, entry_point=DEFAULT_DAGSTER_ENTRY_POINT)
    selection = frozenset({dg.AssetKey(["small", "agent_specs"])})
    job = ReconstructableJob(repository, "__ASSET_JOB").get_subset(asset_selection=selection)
    run = instance.create_run_for_job(
        job.get_definition(),
        asset_selection=selection,
        tags={"dagster/partition": partition, "dagster/partition/agent": AGENT, "dagster/partition/seed": "0"},
        job_code_origin=job.get_python_origin(),
    )
    instance.run_launcher.launch_run(LaunchRunContext(run, workspace=None))
    return run


def wait_for_end(instance: dg.DagsterInstance, run_id: str, log: Path) -> None:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        run = instance.get_run_by_id(run_id)
        assert run is not None
        if run.is_finished:
            assert run.is_success, log.read_text()[-4000:]
            return
        time.sleep(0.5)
    raise AssertionError(f"the run did not end:\n{log.read_text()[-4000:]}")


def test_rules_are_laid_over_each_other_in_order() -> None:
    from dagster_project.experiment.graph import build_graph
    from dagster_project.experiment.pods import PodRule, pod_config

    nodes = build_graph(Experiment.model_validate(SMALL)).nodes
    tenth = dataclasses.replace(nodes["stage_1/adapters"], path=("stage_10", "adapters"), stage=10)
    rules = [PodRule.model_validate(rule) for rule in RULES]
    plain = pod_config(rules, nodes["warehouse"])
    assert plain["container_config"]["resources"] == {
        "requests": {"cpu": "500m", "memory": "2Gi"},
        "limits": {"memory": "2Gi"},
    }
    assert "image" not in plain["container_config"] and plain["pod_spec_config"] == {
        "automount_service_account_token": False
    }
    assert pod_config(rules, nodes["stage_1/merged_models"])["container_config"]["image"].endswith("gpu:0.1.0")
    assert pod_config(rules, tenth)["container_config"] == plain["container_config"]
    assert pod_config([], nodes["warehouse"]) == {}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([{"assets": ["stage_9"]}], "kubernetes.0.assets names 'stage_9'.*Assets: source_models"),
        ([{"memory": "64 GB"}], "kubernetes.0.memory"),
        ([{"gpu": 1}], "kubernetes.0.gpu"),
        ([{"secrets": ["Hub_Token"]}], r"kubernetes.0.secrets.0"),
        ([{"claims": {"models": "models"}}], "kubernetes.0.claims.models"),
        ([{"claims": {"/dev/shm": "models"}, "shared_memory": "1Gi"}], "kubernetes.0.*a volume at /dev/shm"),
        (
            [{"claims": {"/dev/shm": "models"}}, {"assets": ["stage_1"], "shared_memory": "1Gi"}],
            "kubernetes.*stage_1/adapters.*a volume at /dev/shm",
        ),
    ],
)
def test_a_wrong_rule_is_told_before_anything_is_launched(
    tmp_path: Path, rules: list[dict[str, object]], message: str
) -> None:
    from dagster_project.experiment.graph import build_graph

    lab = make_lab(tmp_path, kubernetes=rules)
    with pytest.raises(FrontierError, match=message):
        build_graph(load_experiment(str(lab.experiment)))


def test_steps_have_pods_only_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STEPS, raising=False)
    assert step_executor() is None
    monkeypatch.setenv(STEPS, "kubernetes")
    executor = step_executor()
    assert executor is not None and executor.name == "k8s"
    monkeypatch.setitem(sys.modules, "dagster_k8s", None)
    with pytest.raises(FrontierError, match=r"pip install 'safety-frontier\[k8s\]'"):
        step_executor()
    monkeypatch.setenv(STEPS, "slurm")
    with pytest.raises(FrontierError, match="expected kubernetes, or nothing"):
        step_executor()
