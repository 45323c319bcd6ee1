"""Where the steps of runs happen: in the run's own process, or each in a pod of its own, whose secrets are there."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from toolemu.errors import FrontierError

if TYPE_CHECKING:
    import dagster as dg
    from kubernetes.client import CoreV1Api

STEPS = "FRONTIER_STEPS"
"""Environment variable of code locations: `kubernetes` gives every step the pod that the experiment file asks for."""
OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""In a pod, the file that says which namespace it is in."""
TIMEOUT_S = 10


def step_executor() -> dg.ExecutorDefinition | None:
    """Returns the executor that `$FRONTIER_STEPS` asks for; None for Dagster's own.

    Raises:
        FrontierError: It asks for something else, or the package for Kubernetes is not installed.
    """
    asked = os.environ.get(STEPS)
    if not asked:
        return None
    if asked != "kubernetes":
        raise FrontierError(f"{STEPS}={asked}: expected kubernetes, or nothing.")
    try:
        from dagster_k8s import k8s_job_executor
    except ImportError:
        raise FrontierError(
            f"{STEPS}={asked}: its package is not installed. Install it: pip install 'safety-frontier[k8s]'."
        ) from None
    return k8s_job_executor


def check_secrets(secrets: Mapping[str, str]) -> Iterator[str]:
    """Makes sure that secrets are in the cluster, and have entries; yields what could not be looked at, and why.

    Args:
        secrets: Their names, and where the experiment file names them.

    Raises:
        FrontierError: One is not there, or is empty; or what asks the cluster is not installed.
    """
    if not secrets:
        return
    names = ", ".join(secrets)
    if step_executor() is None:
        yield f"not looked for, since steps have no pods here ({STEPS}): secrets {names}"
        return
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    opened = _open_cluster()
    if opened is None:
        yield f"not looked for, since neither a pod's own account nor a kubeconfig says where the cluster is: {names}"
        return
    api, namespace = opened
    for name, place in secrets.items():
        make = f"kubectl -n {namespace} create secret generic {name} --from-literal=VARIABLE=…"
        try:
            found = api.read_namespaced_secret(name, namespace, _request_timeout=TIMEOUT_S)
        except ApiException as problem:
            if problem.status == 404:
                raise FrontierError(
                    f"{place}: there is no secret {name!r} in the namespace {namespace!r}. Make it: {make}"
                ) from None
            yield f"not looked for, since the cluster answers {problem.status} {problem.reason}: secret {name}"
        except HTTPError as problem:
            yield f"not looked for, since the cluster does not answer ({type(problem).__name__}): secret {name}"
        else:
            if not found.data:
                raise FrontierError(
                    f"{place}: the secret {name!r} in the namespace {namespace!r} has no entries, and its entries "
                    f"become variables. Make it anew: {make}"
                )


def _open_cluster() -> tuple[CoreV1Api, str] | None:
    """Returns the cluster's API and our namespace in it: a pod's own, else a kubeconfig's; None without either."""
    from kubernetes import client, config

    file = os.environ.get("KUBECONFIG")
    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
        namespace = OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    except (config.ConfigException, OSError):
        try:
            config.load_kube_config(config_file=file, client_configuration=settings)
            _, context = config.list_kube_config_contexts(config_file=file)
        except (config.ConfigException, OSError):
            return None
        namespace = context["context"].get("namespace", "default")
    settings.retries = 1
    return client.CoreV1Api(client.ApiClient(settings)), namespace
