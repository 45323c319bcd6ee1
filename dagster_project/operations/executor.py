"""How the steps of a run are made, unless each has a pod of its own: as forks of the run's process, if that can be."""

from __future__ import annotations

import dagster as dg

from dagster_project.dagster_internals.runs import MultiprocessExecutor, RetryMode


@dg.executor(name="forked", requirements=dg.multiple_process_executor_requirements())
def forked_executor(context: dg.InitExecutorContext) -> MultiprocessExecutor:
    """Makes every step in a process that has what the run's has imported, and the run's definitions.

    Dagster's own offers two other ways, and both import everything once more, which takes longer than most steps. It
    leaves this one out because of threads; the process of a run has none that hold anything.
    """
    return MultiprocessExecutor(retries=RetryMode.ENABLED, max_concurrent=None, start_method="fork")


separate_executor = dg.multiprocess_executor.configured({"start_method": {"forkserver": {}}}, name="separate")
"""For experiments whose definitions read the store when they are loaded, as an import's do: a client of an object store
that was used before a fork hangs after it."""
