"""Start runs and steps as forks of a process that has imported the libraries, and notice runs whose process died.

A run launcher is a documented extension point of Dagster's, but the types in its signatures are private.
"""

from dagster._core.execution.retries import RetryMode
from dagster._core.executor.multiprocess import MultiprocessExecutor
from dagster._core.launcher import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.remote_representation.code_location import GrpcServerCodeLocation
from dagster._core.storage.tags import GRPC_INFO_TAG
from dagster._grpc.types import ExecuteRunArgs

__all__ = [
    "GRPC_INFO_TAG",
    "MODULES",
    "CheckRunHealthResult",
    "ExecuteRunArgs",
    "GrpcServerCodeLocation",
    "LaunchRunContext",
    "MultiprocessExecutor",
    "RetryMode",
    "WorkerStatus",
    "execute_run",
]

MODULES = ("dagster._cli.api", "dagster._core.executor.multiprocess", "dagster._daemon.cli")
"""Modules of Dagster that a run imports, and the one that started the process from which runs are forked."""


def execute_run(arguments: str) -> None:
    """Execute a run in this process, as `dagster api execute_run` does.

    Args:
        arguments: `ExecuteRunArgs`, serialized.
    """
    from dagster._cli.api import execute_run_command

    execute_run_command.main([arguments], standalone_mode=False)
