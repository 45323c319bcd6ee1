"""The values for Dagster's chart, checked without the chart: its keys, and what Dagster and Kubernetes take."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster
import kubernetes_validate
import pytest
from dagster._config import Shape, process_config
from dagster._core.instance.config import dagster_instance_config_schema
from dagster_k8s import K8sRunLauncher

from tests.conftest import ROOT, make_lab
from tests.deploy.files import BASE, DEPLOY, KUBERNETES, by_kind, load, openings, resources_of, snake_case, unwritable

VALUES = load(DEPLOY / "helm" / "values.yaml")
(DEPLOYMENT,) = VALUES["dagster-user-deployments"]["deployments"]
HOME = "/opt/dagster/dagster_home"
"""Where the images and the chart have Dagster's home."""
TYPES = {"str": str, "int": int, "bool": bool}


def wrong_keys(values: Any, shape: Any, place: str = "") -> list[str]:
    """Returns the places where values are not as the chart names them."""
    if isinstance(shape, dict) and isinstance(values, dict):
        unknown = [f"{place}.{key}" for key in values.keys() - shape.keys()]
        known = values.keys() & shape.keys()
        return unknown + [wrong for key in known for wrong in wrong_keys(values[key], shape[key], f"{place}.{key}")]
    if isinstance(shape, list) and isinstance(values, list):
        return [wrong for value in values for wrong in wrong_keys(value, shape[0], f"{place}[]")]
    if shape in ("any", "kubernetes"):
        return []
    return [] if isinstance(shape, str) and isinstance(values, TYPES[shape]) else [place]


def test_every_value_is_one_that_the_chart_knows() -> None:
    assert wrong_keys(VALUES, load(Path(__file__).parent / "chart.yaml")) == []
    assert wrong_keys({"telemetry": {"enable": True}}, {"telemetry": {"enabled": "bool"}}) == [".telemetry.enable"]
    assert f"version {dagster.__version__}" in (DEPLOY / "helm" / "values.yaml").read_text(encoding="utf-8")


def test_dagster_takes_the_settings_of_its_instance() -> None:
    daemon = VALUES["dagsterDaemon"]
    concurrency = {name: VALUES["concurrency"][name] for name in ("runs", "pools")}
    settings = {
        "run_monitoring": snake_case(daemon["runMonitoring"]),
        "run_retries": snake_case(daemon["runRetries"]),
        "concurrency": snake_case(concurrency),
        "retention": {name: snake_case(VALUES["retention"][name]) for name in ("schedule", "sensor")},
        "telemetry": VALUES["telemetry"],
    }
    result = process_config(dagster_instance_config_schema(), settings)
    assert result.success, result.errors


def test_the_launcher_takes_its_settings() -> None:
    launcher = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    names = {"load_incluster_config": launcher["loadInclusterConfig"], "image_pull_policy": launcher["imagePullPolicy"]}
    config = {
        **names,
        "instance_config_map": "dagster-instance",
        "service_account_name": VALUES["global"]["serviceAccountName"],
        "resources": launcher["resources"],
        "security_context": launcher["securityContext"],
        "run_k8s_config": {snake_case({key: 0}).popitem()[0]: value for key, value in launcher["runK8sConfig"].items()},
    }
    result = process_config(Shape(K8sRunLauncher.config_type()), config)
    assert result.success, result.errors


def test_kubernetes_takes_the_code_location() -> None:
    resource = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": DEPLOYMENT["name"]},
        "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}},
                "spec": {
                    "volumes": DEPLOYMENT["volumes"],
                    "securityContext": DEPLOYMENT["podSecurityContext"],
                    "containers": [
                        {
                            "name": "dagster",
                            "image": f"{DEPLOYMENT['image']['repository']}:{DEPLOYMENT['image']['tag']}",
                            "env": DEPLOYMENT["env"],
                            "envFrom": [{"secretRef": secret} for secret in DEPLOYMENT["envSecrets"]],
                            "volumeMounts": DEPLOYMENT["volumeMounts"],
                            "securityContext": DEPLOYMENT["securityContext"],
                            "resources": DEPLOYMENT["resources"],
                        }
                    ],
                },
            },
        },
    }
    kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    pod = resource["spec"]["template"]["spec"]
    assert openings(pod) == []
    assert unwritable(pod, ["/tmp", HOME, "/var/cache/frontier"]) == []


def test_dagsters_own_pods_and_runs_are_closed() -> None:
    for part in (VALUES["dagsterWebserver"], VALUES["dagsterDaemon"]):
        container = {"name": "dagster", **{name: part[name] for name in ("securityContext", "volumeMounts")}}
        pod = {"containers": [container], "securityContext": part["podSecurityContext"], "volumes": part["volumes"]}
        assert openings(pod) == []
        assert unwritable(pod, ["/tmp", HOME]) == []
        named = {mount["name"] for mount in part["volumeMounts"]}
        assert named == {volume["name"] for volume in part["volumes"]}
    launcher = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    run = {"name": "run", "securityContext": launcher["securityContext"]}
    shared = launcher["runK8sConfig"]["podSpecConfig"]["securityContext"]
    assert openings({"containers": [run], "securityContext": shared}) == []


def test_values_and_manifests_agree() -> None:
    records = resources_of(BASE / "postgresql.yaml")
    assert VALUES["postgresql"]["postgresqlHost"] in by_kind(records, "Service")
    (container,) = by_kind(records, "StatefulSet")["frontier-postgresql"]["spec"]["template"]["spec"]["containers"]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert variables["POSTGRES_USER"] == VALUES["postgresql"]["postgresqlUsername"]
    assert variables["POSTGRES_DB"] == VALUES["postgresql"]["postgresqlDatabase"]
    maps = {volume["configMap"]["name"] for volume in DEPLOYMENT["volumes"] if "configMap" in volume}
    assert maps == {entry["name"] for entry in load(BASE / "kustomization.yaml")["configMapGenerator"]}
    given = {entry["name"]: entry["value"] for entry in DEPLOYMENT["env"]}
    paths = {mount["mountPath"] for mount in DEPLOYMENT["volumeMounts"]}
    assert {str(Path(given["FRONTIER_EXPERIMENT"]).parent), given["FRONTIER_CACHE"], "/tmp", HOME} == paths
    assert given["FRONTIER_DATA"].startswith("s3://") and given["FRONTIER_STEPS"] == "kubernetes"
    assert not any("KEY" in name or "PASSWORD" in name for name in given), "secrets are named, never written here"


@pytest.mark.slow
def test_the_code_location_answers_as_the_chart_starts_it(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, kubernetes=[{"assets": ["stage_1"], "gpus": 1}])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    dagster_command = str(Path(sys.executable).parent / "dagster")
    environment = {**lab.environment, "FRONTIER_STEPS": "kubernetes", "FRONTIER_EXPERIMENT": str(lab.experiment)}
    command = [dagster_command, "api", "grpc", "--host", "127.0.0.1", "--port", port, *DEPLOYMENT["dagsterApiGrpcArgs"]]
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=log, stderr=log)
    try:
        health = [dagster_command, "api", "grpc-health-check", "--port", port]
        deadline = time.monotonic() + 120
        while subprocess.run(health, capture_output=True, check=False, timeout=60).returncode:
            assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.5)
    finally:
        process.kill()  # Dagster takes SIGTERM for SIGINT, which is ignored where tests run in the background
        process.wait(timeout=30)
        log.close()
