"""A Kubernetes API on loopback that knows jobs, which it runs as processes of this machine, and secrets."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

JOBS = re.compile(r"^/apis/batch/v1/namespaces/(?P<namespace>[^/]+)/jobs(/(?P<name>[^/?]+)(/status)?)?(\?.*)?$")


SECRETS = re.compile(r"^/api/v1/namespaces/frontier/secrets/(?P<name>[^/?]+)$")


class Cluster:
    """What was asked of the API: jobs by name, as they were sent, and their processes.

    `secrets` are the entries of its secrets by name, in the namespace frontier; None: nobody may read that one.

    Args:
        environment: Variables of every container besides its own: what secrets and the image would give.
        log: Where containers print to.
        kubeconfig: What tells clients where the cluster is.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, kubeconfig: Path) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, str] | None] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = environment
        self._log, self._kubeconfig = log, kubeconfig

    def create(self, namespace: str, job: dict[str, Any]) -> None:
        """Takes a job and starts its only container."""
        name = job["metadata"]["name"]
        (container,) = job["spec"]["template"]["spec"]["containers"]
        own = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
        self.jobs[name] = {**job, "metadata": {**job["metadata"], "namespace": namespace}}
        if job["metadata"]["labels"]["app.kubernetes.io/component"] == "step_worker":
            self._kubeconfig.unlink(missing_ok=True)  # a step has no token, and must get on without
        program, *arguments = container["args"]
        with self._log.open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(Path(sys.executable).parent / program), *arguments],
                env={**os.environ, **self._environment, **own},
                stdout=log,
                stderr=log,
            )

    def job(self, name: str) -> dict[str, Any]:
        """Returns a job with its status."""
        code = self._processes[name].poll()
        counts = {"active": 1} if code is None else {"succeeded": 1} if code == 0 else {"failed": 1}
        return {**self.jobs[name], "status": counts}

    def end(self) -> None:
        """Ends what still runs."""
        for process in self._processes.values():
            process.kill()
            process.wait()


@contextmanager
def serve_cluster(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[Cluster, Path]]:
    """Serves a cluster, and gives it with the file that tells clients where it is."""
    kubeconfig = folder / "kubeconfig"
    cluster = Cluster(environment, folder / "pods.log", kubeconfig)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found = JOBS.match(self.path)
            assert found, self.path
            job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if job["metadata"]["name"] in cluster.jobs:
                self._answer(409, {"kind": "Status", "reason": "AlreadyExists", "code": 409})
                return
            cluster.create(found["namespace"], job)
            self._answer(201, cluster.job(job["metadata"]["name"]))

        def do_GET(self) -> None:
            job, secret = JOBS.match(self.path), SECRETS.match(self.path)
            if job and job["name"] in cluster.jobs:
                self._answer(200, cluster.job(job["name"]))
            elif secret and secret["name"] in cluster.secrets:
                data = cluster.secrets[secret["name"]]
                self._answer(200 if data is not None else 403, {"kind": "Secret", "data": data})
            else:
                self._answer(404, {"kind": "Status", "reason": "NotFound", "code": 404})

        def _answer(self, code: int, content: Mapping[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    kubeconfig.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "frontier"}}],
                "current-context": "x",
            }
        )
    )
    try:
        yield cluster, kubeconfig
    finally:
        server.shutdown()
        server.server_close()
        cluster.end()
