"""The manifests: valid for Kubernetes, consistent with each other, and as closed as they say."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from dagster_project.artifacts import ArtifactStore
from dagster_project.collect.endpoints import roles_of
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.pods import TAG, secrets_of
from dagster_project.experiment.spec import load_experiment
from dagster_project.operations.schedules import build as build_schedule
from tests.deploy.files import (
    BASE,
    DEPLOY,
    KUBERNETES,
    OVERLAYS,
    by_kind,
    load,
    openings,
    pod_spec,
    rendered,
    resources_of,
    unwritable,
)

WORKLOADS = ("Deployment", "StatefulSet", "Job")
SERVERS = ("emulator", "judge")


def base() -> list[dict[str, Any]]:
    return [found for name in load(BASE / "kustomization.yaml")["resources"] for found in resources_of(BASE / name)]


def workloads() -> list[dict[str, Any]]:
    return [found for found in base() if found["kind"] in WORKLOADS]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_is_what_kubernetes_takes(overlay: str) -> None:
    resources = rendered(overlay)
    for resource in resources:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
        assert resource["metadata"].get("namespace", "frontier") == "frontier"
    assert {found["metadata"]["name"] for found in base()} <= {found["metadata"]["name"] for found in resources}
    experiment = by_kind(resources, "ConfigMap")["frontier-experiment"]["data"]["experiment.yaml"]
    assert experiment == (BASE / "experiment.yaml").read_text(encoding="utf-8")
    images = {
        container["image"] for found in resources if found["kind"] in WORKLOADS for container in containers(found)
    }
    assert all(":" in image.rpartition("/")[2] and not image.endswith(":latest") for image in images), images
    assert {found["spec"]["storageClassName"] for found in by_kind(resources, "PersistentVolumeClaim").values()}


@pytest.mark.parametrize("path", sorted((DEPLOY / "kubernetes").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_file_by_itself_is_what_kubernetes_takes(path: Path) -> None:
    if path.name in ("kustomization.yaml", "experiment.yaml") or isinstance(load_all(path)[0], list):
        return  # of other kinds: kustomize's, ours, and patches
    for resource in resources_of(path):
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)


def load_all(path: Path) -> list[Any]:
    return resources_of(path)


def containers(resource: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pod_spec(resource)["containers"]
    return found


def test_what_a_resource_names_is_there() -> None:
    resources = base()
    accounts, claims = by_kind(resources, "ServiceAccount"), by_kind(resources, "PersistentVolumeClaim")
    named = {"frontier-keys", "frontier-postgresql", "frontier-hub"}
    documented = (DEPLOY.parent / "docs" / "deploy.md").read_text(encoding="utf-8")
    assert all(f"secret generic {secret}" in documented for secret in named)
    for resource in workloads():
        spec = pod_spec(resource)
        assert spec["serviceAccountName"] in accounts
        labels = resource["spec"]["template"]["metadata"]["labels"]
        if "selector" in resource["spec"]:
            assert resource["spec"]["selector"]["matchLabels"].items() <= labels.items()
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        volumes |= {claim["metadata"]["name"]: {} for claim in resource["spec"].get("volumeClaimTemplates", [])}
        for volume in volumes.values():
            assert volume.get("persistentVolumeClaim", {"claimName": "models"})["claimName"] in claims
        for container in spec["containers"]:
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= volumes.keys()
            sources = [entry["valueFrom"]["secretKeyRef"] for entry in container.get("env", []) if "valueFrom" in entry]
            sources += [entry["secretRef"] for entry in container.get("envFrom", [])]
            assert {source["name"] for source in sources} <= named
    for service in by_kind(resources, "Service").values():
        (target,) = [
            found
            for found in workloads()
            if service["spec"]["selector"].items() <= found["spec"]["template"]["metadata"]["labels"].items()
        ]
        ports = {port["name"] for container in containers(target) for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_no_pod_is_root_or_may_ask_the_cluster() -> None:
    for resource in workloads():
        spec = pod_spec(resource)
        assert spec["automountServiceAccountToken"] is False
        assert openings(spec) == []
        assert unwritable(spec, ["/tmp"]) == []
        assert all("memory" in container["resources"]["limits"] for container in spec["containers"])
    labels = by_kind(base(), "Namespace")["frontier"]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_an_open_pod_is_found_out() -> None:
    closed = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert openings({"containers": [{"name": "c", "securityContext": closed}]}) == []
    for name in closed:
        less = {key: value for key, value in closed.items() if key != name}
        assert len(openings({"containers": [{"name": "c", "securityContext": less}]})) == 1, name
    host = {"containers": [], "volumes": [{"name": "v", "hostPath": {"path": "/"}}], "hostNetwork": True}
    assert openings(host) == ["hostNetwork", "volume v"]


def test_weights_are_fetched_at_a_commit_or_not_at_all(tmp_path: Path) -> None:
    (container,) = containers(by_kind(base(), "Job")["fetch-models-1"])
    (script,) = container["args"]
    commits = [entry["name"] for entry in container["env"] if entry["name"].endswith("_COMMIT")]
    assert len(commits) == script.count("fetch Qwen/") and all(f'"${name}"' in script for name in commits)
    (tmp_path / "hf").write_text('#!/bin/sh\necho "$@" >> "$LOG"\n')
    (tmp_path / "hf").chmod(0o755)
    log = tmp_path / "log"
    for given, fetched in (("", 0), ("main", 0), ("a" * 39, 0), ("A" * 40, 0), ("0123456789" * 4, len(commits))):
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LOG": str(log), **dict.fromkeys(commits, given)}
        done = subprocess.run([*container["command"], script], env=environment, capture_output=True, check=False)
        asked = log.read_text().splitlines() if log.exists() else []
        assert (done.returncode == 0, len(asked)) == (bool(fetched), fetched), given
    assert all(f"--revision {'0123456789' * 4}" in line for line in asked)


def test_a_step_has_the_secrets_that_it_needs_and_no_others() -> None:
    experiment = load_experiment(str(BASE / "experiment.yaml"))
    graph = build_graph(experiment)
    secrets = {name: set(secrets_of(experiment.kubernetes, [node])) for name, node in graph.nodes.items()}
    asks = {name for name in graph.nodes if roles_of(graph, graph.nodes[name].refs()[0])}
    assert asks and {name for name, given in secrets.items() if given} == asks
    values = load(DEPLOY / "helm" / "values.yaml")
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert deployment["envSecrets"] == [], "every run and step would have them"
    scheduled = build_schedule(graph, ArtifactStore(Path("/nowhere"), experiment.name))
    pod = scheduled.job.tags[TAG]  # asks every server before it launches anything
    assert "frontier-keys" in str(pod) and set(json.loads(pod)) == {"container_config"}


def test_who_launches_runs_may_read_the_secrets_that_are_named_and_no_others() -> None:
    (rule,) = by_kind(base(), "Role")["frontier-named-secrets"]["rules"]
    assert (rule["resources"], rule["verbs"]) == (["secrets"], ["get"])
    rules = load_experiment(str(BASE / "experiment.yaml")).kubernetes
    assert {secret for given in rules for secret in given.secrets} <= set(rule["resourceNames"])
    binding = by_kind(base(), "RoleBinding")["frontier-named-secrets"]
    values = load(DEPLOY / "helm" / "values.yaml")
    assert [subject["name"] for subject in binding["subjects"]] == [values["serviceAccount"]["name"]]
    assert binding["roleRef"]["name"] == "frontier-named-secrets"


def test_servers_are_probed_share_memory_and_take_adapters() -> None:
    for name in SERVERS:
        deployment = by_kind(base(), "Deployment")[name]
        (container,) = containers(deployment)
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert container[probe]["httpGet"] == {"path": "/health", "port": "http"}
        assert container["startupProbe"]["periodSeconds"] * container["startupProbe"]["failureThreshold"] >= 900
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert mounts["/adapters"]["readOnly"] and mounts["/models"]["readOnly"] and "/dev/shm" in mounts
        arguments = dict(argument.removeprefix("--").partition("=")[::2] for argument in container["args"])
        cards = container["resources"]["limits"]["nvidia.com/gpu"]
        assert arguments["tensor-parallel-size"] == cards == container["resources"]["requests"]["nvidia.com/gpu"]
        assert "enable-lora" in arguments
        model = arguments["served-model-name"]
        assert arguments["model"] == f"/models/{model.partition('/')[2]}"
        assert f"fetch {model} " in containers(by_kind(base(), "Job")["fetch-models-1"])[0]["args"][0]


def test_the_experiment_names_the_servers_beside_it() -> None:
    experiment = load_experiment(str(BASE / "experiment.yaml"))
    build_graph(experiment)  # the rules for pods name assets that there are
    services = by_kind(base(), "Service")
    served = {}
    for name in SERVERS:
        port = services[name]["spec"]["ports"][0]["port"]
        (container,) = containers(by_kind(base(), "Deployment")[name])
        arguments = dict(argument.removeprefix("--").partition("=")[::2] for argument in container["args"])
        served[f"http://{name}:{port}/v1"] = arguments["served-model-name"]
        (key,) = [entry["valueFrom"]["secretKeyRef"]["key"] for entry in container["env"] if "valueFrom" in entry]
        assert {endpoint.key for endpoint in experiment.endpoints.values()} == {key}
    assert {endpoint.url for endpoint in experiment.endpoints.values()} == set(served)
    for role in experiment.roles().values():
        assert served[experiment.endpoints[role.endpoint].url] == role.model


AGENT_STEP = {
    "app.kubernetes.io/name": "dagster",
    "app.kubernetes.io/component": "step_worker",
    "safety-frontier/asset": "agent_trajectories",
}
RUN = {"app.kubernetes.io/name": "dagster", "app.kubernetes.io/component": "run_worker", "dagster/job": "__ASSET_JOB"}
SEEDS_RUN = {**RUN, "dagster/job": "seeds"}
DAEMON = {"app.kubernetes.io/name": "dagster", "app.kubernetes.io/component": "dagster-daemon"}
LOCATION = {"app.kubernetes.io/name": "dagster-user-deployments", "component": "user-deployments"}
EMULATOR = {"app.kubernetes.io/name": "emulator", "app.kubernetes.io/component": "model-server"}
RECORDS = {"app.kubernetes.io/name": "frontier-postgresql"}


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Says whether a label selector means pods with these labels, as Kubernetes defines it."""
    for expression in selector.get("matchExpressions", []):
        value, values = labels.get(expression["key"]), expression["values"]
        if (value in values) != (expression["operator"] == "In"):
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def reachable(policies: list[dict[str, Any]], source: dict[str, str]) -> list[tuple[Any, Any]]:
    """Returns where pods with these labels may connect to: destinations, and ports (None: all)."""
    return [
        (rule.get("to"), [port["port"] for port in rule.get("ports", [])] or None)
        for policy in policies
        if "Egress" in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], source)
        for rule in policy["spec"].get("egress", [])
    ]


def admits(policies: list[dict[str, Any]], target: dict[str, str], source: dict[str, str], port: int) -> bool:
    """Says whether pods with these labels take connections from others of the namespace at a port."""
    return any(
        selects(peer["podSelector"], source) and port in [given["port"] for given in rule["ports"]]
        for policy in policies
        if "Ingress" in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], target)
        for rule in policy["spec"].get("ingress", [])
        for peer in rule["from"]
        if "ports" in rule
    )


def policies(*more: Path) -> list[dict[str, Any]]:
    return [found for path in (BASE / "network.yaml", *more) for found in resources_of(path)]


def test_agents_reach_their_servers_the_records_and_the_artifacts_and_nothing_else() -> None:
    store = DEPLOY / "kubernetes/overlays/on-premises/object-store.yaml"
    found = reachable(policies(store, DEPLOY / "kubernetes/judges-outside.yaml"), AGENT_STEP)
    named = [(to, ports) for to, ports in found if ports != [53, 53]]
    assert len(named) == 3
    (servers, records, artifacts) = named
    assert servers[1] == [8000] and selects(servers[0][0]["podSelector"], EMULATOR)
    assert records[1] == [5432] and selects(records[0][0]["podSelector"], RECORDS)
    assert artifacts == ([{"ipBlock": {"cidr": "192.0.2.10/32"}}], [9000])
    every = policies()[0]
    assert every["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, "all else is denied"


def test_others_reach_what_they_need() -> None:
    outside = DEPLOY / "kubernetes/judges-outside.yaml"
    judging = {**AGENT_STEP, "safety-frontier/asset": "agent_evaluations"}
    calibrating = {**AGENT_STEP, "safety-frontier/asset": "judge_calibration"}
    for asking in (judging, calibrating, SEEDS_RUN):
        assert any(ports == [443] for _, ports in reachable(policies(outside), asking))
        assert not any(ports == [443] for _, ports in reachable(policies(), asking))
    assert not any(ports == [443] for _, ports in reachable(policies(outside), RUN))
    alerts = DEPLOY / "kubernetes/alerts-outside.yaml"
    assert any(ports == [443] for _, ports in reachable(policies(alerts), LOCATION))
    assert not any(ports == [443] for _, ports in reachable(policies(alerts), AGENT_STEP))
    for asking in (RUN, DAEMON):
        assert any(ports == [443, 6443] for _, ports in reachable(policies(), asking)), "they create pods"
    for part in (DAEMON, LOCATION):
        targets = [to[0]["podSelector"] for to, _ in reachable(policies(), part) if to and "podSelector" in to[0]]
        assert any(selects(target, RECORDS) for target in targets)
    assert not any(ports == [443, 6443] for _, ports in reachable(policies(), LOCATION))
    assert [ports for _, ports in reachable(policies(), EMULATOR)] == [[53, 53]], "a server of models only answers"


def test_whoever_asks_a_server_of_models_is_let_out_and_in() -> None:
    for asking in (AGENT_STEP, SEEDS_RUN):
        assert any(
            ports == [8000] and selects(to[0]["podSelector"], EMULATOR) for to, ports in reachable(policies(), asking)
        )
        assert admits(policies(), EMULATOR, asking, 8000)
    for other in (DAEMON, LOCATION, RECORDS):
        assert not admits(policies(), EMULATOR, other, 8000)
