"""The files of deploy/, read."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "kubernetes" / "base"
OVERLAYS = sorted(path.parent.name for path in DEPLOY.glob("kubernetes/overlays/*/kustomization.yaml"))
KUBERNETES = "1.34"
"""The version that manifests are validated for."""


def load(path: Path) -> Any:
    """Returns a file with one YAML document."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def resources_of(path: Path) -> list[dict[str, Any]]:
    """Returns the Kubernetes resources of a file."""
    return [found for found in yaml.safe_load_all(path.read_text(encoding="utf-8")) if found]


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    """Returns the resources of an overlay, as `kubectl kustomize` puts them together."""
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kubectl 1.21 or newer; the files by themselves are validated without")
    command = [kubectl, "kustomize", str(DEPLOY / "kubernetes" / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "unknown field" in done.stderr:
        pytest.skip(f"kubectl is too old: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return [found for found in yaml.safe_load_all(done.stdout) if found]


def by_kind(resources: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """Returns the resources of one kind by name."""
    return {found["metadata"]["name"]: found for found in resources if found["kind"] == kind}


def pod_spec(resource: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the specification of the pods of a workload."""
    spec: dict[str, Any] = resource["spec"]["template"]["spec"]
    return spec


def openings(pod: Mapping[str, Any]) -> list[str]:
    """Returns where a pod's specification is more open than the level `restricted`, or a root file system is writable.

    After https://kubernetes.io/docs/concepts/security/pod-security-standards/ (Restricted).
    """
    found = [name for name in ("hostNetwork", "hostPID", "hostIPC") if pod.get(name)]
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    found += [f"volume {volume['name']}" for volume in pod.get("volumes", []) if volume.keys() - {"name"} - allowed]
    shared = pod.get("securityContext", {})
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        own = container.get("securityContext", {})
        context = {**shared, **own}
        checks = {
            "runAsNonRoot": context.get("runAsNonRoot") is True,
            "runAsUser": context.get("runAsUser", 1) > 0,
            "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
            "privileged": not own.get("privileged"),
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "capabilities.drop": own.get("capabilities", {}).get("drop") == ["ALL"],
            "capabilities.add": set(own.get("capabilities", {}).get("add", [])) <= {"NET_BIND_SERVICE"},
            "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
            "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
        }
        found += [f"{container['name']}: {name}" for name, closed in checks.items() if not closed]
    return found


def unwritable(pod: Mapping[str, Any], paths: Iterable[str]) -> list[str]:
    """Returns those of the paths that the containers of a pod need to write to and have no volume for."""
    return [
        f"{container['name']}: {path}"
        for container in pod["containers"]
        for path in paths
        if path not in {mount["mountPath"] for mount in container.get("volumeMounts", []) if not mount.get("readOnly")}
    ]


def snake_case(value: Any) -> Any:
    """Returns a structure with its keys as Dagster writes them: the chart's `maxRetries` is its `max_retries`."""
    if isinstance(value, dict):
        return {re.sub(r"(?<=[a-z])([A-Z])", r"_\1", key).lower(): snake_case(child) for key, child in value.items()}
    return value
