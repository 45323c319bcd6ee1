"""What the pods that make an experiment's assets ask of Kubernetes; where there is none, it says nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from dagster_project.experiment.nodes import Node
from toolemu.errors import FrontierError, HiddenValueError, validation_problem
from toolemu.secret_names import is_secret_variable, looks_like_a_key

TAG = "dagster-k8s/config"
"""The tag of an asset's op that Dagster's Kubernetes executor takes a step's pod from."""
ASSET_LABEL = "safety-frontier/asset"
"""The pods' label with the beginning of the asset's name; network policies select by it (deploy/kubernetes)."""
SHARED_MEMORY = "/dev/shm"

Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?|Ki)?$", description="As in 500m, 16Gi.")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
MountPath = Annotated[str, Field(pattern=r"^/[^:]+$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Toleration(_Section):
    """A taint of nodes that the pod puts up with."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class PodRule(_Section):
    """What the pods of some assets get. Of several rules for one asset, a later one replaces the fields it gives."""

    assets: tuple[str, ...] = Field((), description="Names, or their beginnings up to a slash; left out: all assets.")
    image: str | None = Field(None, min_length=1, description="Null: the code location's own.")
    gpus: int = Field(0, ge=0)
    gpu_resource: str = Field("nvidia.com/gpu", min_length=1, description="As the nodes' device plugin names it.")
    cpu: Quantity | None = Field(None, description="Requested.")
    memory: Quantity | None = Field(None, description="Requested, and the limit.")
    scratch: Quantity | None = Field(None, description="Disk requested for copies of artifacts and unfinished work.")
    shared_memory: Quantity | None = Field(None, description="Size of /dev/shm; part of the memory.")
    node_selector: dict[str, str] = Field({}, description="Labels of the nodes, the GPU's type for instance.")
    tolerations: tuple[Toleration, ...] = ()
    env: dict[Variable, str] = {}
    secrets: tuple[Name, ...] = Field((), description="Secrets whose entries become variables.")
    claims: dict[MountPath, Name] = Field({}, description="Persistent volume claims by the path they are mounted at.")
    service_account: Name | None = Field(None, description="Null: that of all runs.")

    @field_validator("env")
    @classmethod
    def _env_is_for_files(cls, env: dict[str, str]) -> dict[str, str]:
        for name, value in env.items():
            if is_secret_variable(name) or looks_like_a_key(value):
                raise HiddenValueError(
                    f"env holds {name}, which is a secret by its name or its form; values of env are in manifests and "
                    "in Dagster's records; put it into a secret of the cluster, and name that in `secrets`",
                    code="experiment.secret-in-file",
                )
        return env

    @model_validator(mode="after")
    def _mounts_once(self) -> PodRule:
        if self.shared_memory and SHARED_MEMORY in self.claims:
            raise ValueError(f"claims has a volume at {SHARED_MEMORY}, where shared_memory is; leave one of them out")
        return self


def check_rules(rules: Sequence[PodRule], assets: Iterable[Node]) -> None:
    """Makes sure that every rule names assets that there are, and that those that mean the same one go together.

    Raises:
        FrontierError: One does not, or some do not.
    """
    known = list(assets)
    for place, rule in enumerate(rules):
        for name in rule.assets:
            if not any(asset.is_meant_by(name) for asset in known):
                raise FrontierError(
                    f"kubernetes.{place}.assets names {name!r}, and there is no such asset. "
                    f"Assets: {', '.join(asset.name for asset in known)}."
                )
    for asset in known:
        try:
            _pod(rules, asset)
        except ValidationError as error:
            raise FrontierError(f"kubernetes: for {asset.name}: {validation_problem(error)[1]}") from None


def pod_config(rules: Sequence[PodRule], asset: Node) -> dict[str, Any]:
    """Returns what the rules say of an asset's pods in the form of `TAG`; nothing if there are no rules."""
    if not rules:
        return {}
    pod = _pod(rules, asset)
    labels = {ASSET_LABEL: asset.path[0]}
    return {
        "container_config": _without_empty(_container(pod)),
        "pod_spec_config": _without_empty(_spec(pod)),
        "pod_template_spec_metadata": {"labels": labels},
    }


def secrets_of(rules: Sequence[PodRule], assets: Iterable[Node]) -> dict[str, str]:
    """Returns the secrets that the pods of assets take variables from, each with its place in the experiment file."""
    found: dict[str, str] = {}
    for asset in assets:
        meant = [
            place for place, rule in enumerate(rules) if _applies(rule, asset) and "secrets" in rule.model_fields_set
        ]
        if meant:
            found |= dict.fromkeys(rules[meant[-1]].secrets, f"kubernetes.{meant[-1]}.secrets")
    return found


def asking_config(rules: Sequence[PodRule], assets: Iterable[Node]) -> dict[str, Any]:
    """Return the pod, in the form of `TAG`, of a run that asks every model's server before anything is launched.

    It has all secrets that the pods of `assets` have, and nothing else of theirs.
    """
    names = secrets_of(rules, assets)
    sources = [{"secret_ref": {"name": name}} for name in names]
    return {"container_config": {"env_from": sources}} if sources else {}


def _pod(rules: Iterable[PodRule], asset: Node) -> PodRule:
    """Returns the rules that mean an asset as one, later ones over earlier ones."""
    given: dict[str, Any] = {}
    for rule in rules:
        if _applies(rule, asset):
            given |= {field: getattr(rule, field) for field in rule.model_fields_set}
    return PodRule(**given)


def _applies(rule: PodRule, asset: Node) -> bool:
    return not rule.assets or any(asset.is_meant_by(name) for name in rule.assets)


def _container(pod: PodRule) -> dict[str, Any]:
    requests = {"cpu": pod.cpu, "memory": pod.memory, "ephemeral-storage": pod.scratch}
    limits = {"memory": pod.memory, pod.gpu_resource: str(pod.gpus) if pod.gpus else None}
    mounts = [{"name": f"claim-{place}", "mount_path": path} for place, path in enumerate(pod.claims)]
    if pod.shared_memory:
        mounts.append({"name": "shared-memory", "mount_path": SHARED_MEMORY})
    return {
        "image": pod.image,
        "resources": _without_empty({"requests": _without_empty(requests), "limits": _without_empty(limits)}),
        "env": [{"name": name, "value": value} for name, value in pod.env.items()],
        "env_from": [{"secret_ref": {"name": name}} for name in pod.secrets],
        "volume_mounts": mounts,
    }


def _spec(pod: PodRule) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [
        {"name": f"claim-{place}", "persistent_volume_claim": {"claim_name": name}}
        for place, name in enumerate(pod.claims.values())
    ]
    if pod.shared_memory:
        volumes.append({"name": "shared-memory", "empty_dir": {"medium": "Memory", "size_limit": pod.shared_memory}})
    return {
        "node_selector": pod.node_selector,
        "tolerations": [toleration.model_dump(exclude_none=True) for toleration in pod.tolerations],
        "service_account_name": pod.service_account,
        "volumes": volumes,
        "automount_service_account_token": False,  # a step asks nothing of the cluster
    }


def _without_empty(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value or value is False}
