"""Dagster's code server, web server and daemon, to start them beside each other as forks of one process.

Dagster's commands `dagster code-server`, `dagster-webserver` and `dagster-daemon` do the same one after the other, and
each imports Dagster anew.
"""

from dagster._cli.code_server import code_server_cli
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.remote_origin import ManagedGrpcPythonEnvCodeLocationOrigin
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster._grpc.client import DagsterGrpcClient

__all__ = [
    "DagsterGrpcClient",
    "DagsterUserCodeUnreachableError",
    "ManagedGrpcPythonEnvCodeLocationOrigin",
    "WorkspaceFileTarget",
    "code_server_cli",
    "run_daemon",
]


def run_daemon(workspace: str) -> None:
    """Run Dagster's daemon in this process until it is interrupted.

    Args:
        workspace: Path of its workspace.yaml.
    """
    from dagster._daemon.cli import cli

    cli.main(["run", "--workspace", workspace], standalone_mode=False, obj={})
