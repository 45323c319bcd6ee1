"""Real servers on loopback for tests: an S3-compatible one, and PostgreSQL."""

from __future__ import annotations

import logging
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from moto.server import ThreadedMotoServer

BUCKET = "lab"
KEYS = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}


@contextmanager
def s3_server() -> Iterator[dict[str, str]]:
    """Serves S3 with an empty bucket, and gives the environment of its clients."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        environment = {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}"}
        s3_client(environment).create_bucket(Bucket=BUCKET)
        yield environment
    finally:
        server.stop()


def s3_client(environment: dict[str, str]) -> Any:
    """Returns another client than the project's own, of the same server."""
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_REGION"],
        config=Config(retries={"max_attempts": 1}),
    )


def postgresql_programs() -> Path | None:
    """Returns the folder with PostgreSQL's programs, the newest version's; None if it is not installed."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = versions[-1] if versions else shutil.which("initdb")
    return Path(found).parent if found else None


@contextmanager
def postgresql_server(programs: Path) -> Iterator[dict[str, str]]:
    """Serves a new cluster with an empty database, and gives the environment that names it.

    The server refuses to run as root; as root, it is run as the user `nobody`.
    """
    folder = Path(tempfile.mkdtemp(prefix="frontier-postgresql-"))
    user = pwd.getpwnam("nobody").pw_uid if os.geteuid() == 0 else None
    if user is not None:
        os.chown(folder, user, -1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "password").write_text("a secret")
    (folder / "password").chmod(0o644)

    def run(*command: str) -> None:
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL, timeout=120)

    data = str(folder / "data")
    who = ["--username", "dagster", "--auth", "scram-sha-256", "--pwfile", str(folder / "password")]
    run(str(programs / "initdb"), "--pgdata", data, "--no-sync", "--encoding", "UTF8", "--locale", "C", *who)
    options = f"-h 127.0.0.1 -p {port} -k {folder} -c fsync=off"
    run(str(programs / "pg_ctl"), "--pgdata", data, "--wait", "--log", str(folder / "log"), "-o", options, "start")
    try:
        yield {
            "FRONTIER_POSTGRES_HOST": "127.0.0.1",
            "FRONTIER_POSTGRES_PORT": str(port),
            "FRONTIER_POSTGRES_USER": "dagster",
            "FRONTIER_POSTGRES_PASSWORD": "a secret",
            "FRONTIER_POSTGRES_DATABASE": "postgres",
        }
    finally:
        run(str(programs / "pg_ctl"), "--pgdata", data, "--mode", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)
