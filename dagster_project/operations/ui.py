"""Dagster's UI with its daemon and the code locations, as `dagster dev` has them, but started beside each other.

Dagster starts one after the other, and each imports Dagster anew. Here they are forks of one process that has imported
what all of them need; the web page loads its own part while the code locations load theirs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from dagster import serialize_value

from dagster_project.artifacts.processes import die_with_parent
from dagster_project.dagster_internals import setup_interrupt_handlers
from dagster_project.dagster_internals.servers import (
    DagsterGrpcClient,
    DagsterUserCodeUnreachableError,
    ManagedGrpcPythonEnvCodeLocationOrigin,
    WorkspaceFileTarget,
    code_server_cli,
    run_daemon,
)
from dagster_project.operations.instance import dagster_home, instance_reference, open_instance
from dagster_project.shipped import shipped
from toolemu.errors import FrontierError

if TYPE_CHECKING:
    from starlette.applications import Starlette

LOAD_WITHIN_S = 120.0
"""A code location that takes longer is shown as broken, and loaded when it is there."""
END_WITHIN_S = 20.0


def serve(port: int, experiment: Path | None = None, hosts: Sequence[str] = ()) -> None:
    """Serve the UI on the loopback interface until it is interrupted.

    Args:
        port: Of the web page.
        experiment: The file of the one experiment to serve; None: every experiment of workspace.yaml.
        hosts: Further names under which browsers may ask for the page, besides those of the loopback interface.

    Raises:
        FrontierError: workspace.yaml names what cannot be started here, the port is not to be had, or one of the
            processes ended by itself, having printed why.
    """
    _check_port(port)
    reference = serialize_value(instance_reference())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever began this may ignore it, and SIGTERM with it
    setup_interrupt_handlers()
    with tempfile.TemporaryDirectory(prefix="frontier-") as folder:
        entries, servers = _code_servers(_workspace(experiment), Path(folder), reference)
        workspace = Path(folder) / "workspace.yaml"
        workspace.write_text(yaml.safe_dump({"load_from": entries}), encoding="utf-8")
        with _forks() as (begin, processes), _until_interrupted():
            for name, arguments in servers.items():  # what takes longest, and asks for no database
                begin(f"code location {name}", _serve_code, arguments)
            open_instance().dispose()
            begin(
                "web server", _serve_web, workspace, port, hosts, [entry["grpc_server"]["socket"] for entry in entries]
            )
            begin("daemon", _run_daemon, workspace, port)
            ready = wait([process.sentinel for process in processes])
            ended = next(process for process in processes if process.sentinel in ready)
            ended.join()
            raise FrontierError(f"The {ended.name} of Dagster's UI ended (exit code {ended.exitcode}).")


def _check_port(port: int) -> None:
    with socket.socket() as ours:
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed a moment ago can be had
        try:
            ours.bind(("127.0.0.1", port))
        except OSError as problem:
            raise FrontierError(f"--port {port} is not to be had ({problem.strerror}). Name another.") from None


def _workspace(experiment: Path | None) -> Path:
    """Returns the file that says which code locations there are."""
    if experiment is None:
        return shipped("workspace.yaml")
    os.environ["FRONTIER_EXPERIMENT"] = str(experiment.resolve())
    module = {"module_name": "dagster_project.definitions", "attribute": "experiment"}
    path = dagster_home() / "workspace.yaml"
    location = {"python_module": {**module, "location_name": experiment.stem}}
    path.write_text(yaml.safe_dump({"load_from": [location]}), encoding="utf-8")
    return path


def _code_servers(
    workspace: Path, folder: Path, reference: str
) -> tuple[list[dict[str, Mapping[str, Any]]], dict[str, list[str]]]:
    """Returns a workspace of servers with sockets in a folder, and the arguments of each one's server by name."""
    entries: list[dict[str, Mapping[str, Any]]] = []
    servers = {}
    for number, origin in enumerate(WorkspaceFileTarget([str(workspace)]).create_origins()):
        if not isinstance(origin, ManagedGrpcPythonEnvCodeLocationOrigin) or _is_of_another_python(origin):
            raise FrontierError(
                f"{workspace}: {origin.location_name} has a server or a Python of its own; frontier starts neither. "
                f"Serve it by Dagster itself: dagster dev -w {workspace}"
            )
        name, target, at = origin.location_name, origin.loadable_target_origin, str(folder / f"{number}.socket")
        more = {"location_name": name, "additional_metadata": target.as_dict}
        entries.append({"grpc_server": {"host": "localhost", "socket": at, **more}})
        own = ["--socket", at, "--location-name", name, "--instance-ref", reference, "--log-level", "WARNING"]
        servers[name] = ["start", *own, *target.get_cli_args()]
    return entries, servers


def _is_of_another_python(origin: ManagedGrpcPythonEnvCodeLocationOrigin) -> bool:
    return origin.loadable_target_origin.executable_path not in (None, sys.executable)


@contextmanager
def _forks() -> Iterator[tuple[Callable[..., None], Sequence[BaseProcess]]]:
    """Yields what runs a function in a fork of this process, under a name, and all such forks; ends them."""
    context = multiprocessing.get_context("fork")
    processes: list[BaseProcess] = []

    def begin(name: str, target: Callable[..., None], *arguments: Any) -> None:
        process: BaseProcess = context.Process(target=_beside, args=(target, *arguments), name=name)
        process.start()
        processes.append(process)

    try:
        yield begin, processes
    finally:
        for begun in processes:
            begun.terminate()
        deadline = time.monotonic() + END_WITHIN_S
        for begun in processes:
            begun.join(max(0.0, deadline - time.monotonic()))
            begun.kill()


@contextmanager
def _until_interrupted() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("ending Dagster's UI and daemon …")  # noqa: T201 - to the person who pressed Ctrl-C


def _beside(target: Callable[..., None], *arguments: Any) -> None:
    die_with_parent()
    target(*arguments)


def _serve_code(arguments: Sequence[str]) -> None:
    code_server_cli.main(list(arguments), standalone_mode=False)


def _serve_web(workspace: Path, port: int, hosts: Sequence[str], sockets: Sequence[str]) -> None:
    import dagster_webserver.cli as webserver
    from dagster_webserver.app import create_app_from_workspace_process_context

    from dagster_project.operations.browsers import OwnPagesOnly

    deadline = time.monotonic() + LOAD_WITHIN_S
    for place in sockets:
        while not _loaded(place) and time.monotonic() < deadline:
            time.sleep(0.05)

    def make_guarded_app(*args: Any, **kwargs: Any) -> Starlette:
        app = create_app_from_workspace_process_context(*args, **kwargs)
        app.add_middleware(OwnPagesOnly, hosts=hosts)
        return app

    # Dagster's command makes the application and serves it; it has no place for a middleware.
    vars(webserver)[create_app_from_workspace_process_context.__name__] = make_guarded_app
    webserver.cli.main(["--workspace", str(workspace), "--port", str(port)], standalone_mode=False)


def _loaded(place: str) -> bool:
    try:
        DagsterGrpcClient(host="localhost", socket=place).ping("")
    except DagsterUserCodeUnreachableError:
        return False
    return True


def _run_daemon(workspace: Path, port: int) -> None:
    while not _answers(port):  # what a person looks at comes first
        time.sleep(0.2)
    run_daemon(str(workspace))


def _answers(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0
