"""Where the steps of runs happen: in the run's own process, or each in a pod of its own."""

from __future__ import annotations

import os

import dagster as dg

from toolemu.errors import FrontierError

STEPS = "FRONTIER_STEPS"
"""Environment variable of code locations: `kubernetes` gives every step the pod that the experiment file asks for."""


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
