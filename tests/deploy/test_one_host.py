"""The compose file and the Slurm script: consistent, and the script really goes back into the queue."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from dagster_project.operations.storage import POSTGRESQL
from tests.deploy.files import DEPLOY, load

COMPOSE: dict[str, Any] = load(DEPLOY / "compose" / "compose.yaml")
SERVICES: dict[str, Any] = COMPOSE["services"]
SCRIPT = DEPLOY / "slurm" / "frontier.sbatch"


def test_services_are_pinned_probed_and_closed() -> None:
    for name, service in SERVICES.items():
        assert ":" in service["image"] and not service["image"].endswith("latest"), name
        assert service["networks"] == (["inside", "outside"] if name == "webserver" else ["inside"]), name
        assert set(service.get("depends_on", {})) <= SERVICES.keys()
        for other in service.get("depends_on", {}):
            assert "healthcheck" in SERVICES[other]
        assert service["read_only"] and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["user"].partition(":")[0]) > 0, name
        assert any(mount.startswith("/tmp") for mount in service["tmpfs"]), name
    holders = {name for name, service in SERVICES.items() if "FRONTIER_SERVERS_KEY" in str(service["environment"])}
    assert holders == {"code", "emulator", "judge"}
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert SERVICES["webserver"]["ports"] == ["127.0.0.1:3000:3000"]
    reserved = {name: service["deploy"]["resources"] for name, service in SERVICES.items() if "deploy" in service}
    cards = {name: found["reservations"]["devices"][0]["device_ids"] for name, found in reserved.items()}
    assert cards == {"code": ["0"], "emulator": ["1"], "judge": ["1"]}


def test_files_and_variables_are_there() -> None:
    example = (DEPLOY / "compose" / ".env.example").read_text(encoding="utf-8")
    text = (DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8")
    for variable in ("POSTGRES_PASSWORD", "FRONTIER_SERVERS_KEY", "MODELS"):
        assert f"${{{variable}:?" in text and f"{variable}=" in example
    for service in SERVICES.values():
        for volume in service["volumes"]:
            source = volume.split(":-")[-1].partition("}")[0] if volume.startswith("${FRONTIER_E") else volume
            source = source.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / "compose" / source).resolve().is_file(), source
            elif not source.startswith("$"):
                assert source in COMPOSE["volumes"], source
    (server,) = load(DEPLOY / "compose" / "workspace.yaml")["load_from"]
    assert server["grpc_server"]["host"] in SERVICES
    assert str(server["grpc_server"]["port"]) in SERVICES["code"]["command"]


def test_dagster_starts_with_the_settings(
    tmp_path: Path, postgresql: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (DEPLOY / "compose" / "dagster.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text)["storage"] == load(POSTGRESQL)["storage"]
    (tmp_path / "dagster.yaml").write_text(text)
    for name, value in postgresql.items():
        monkeypatch.setenv(name, value)
    variables = SERVICES["code"]["environment"]
    assert postgresql.keys() <= variables.keys()
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert isinstance(instance.get_runs_count(), int), "the database answers"
        assert "postgres" in type(instance.run_storage).__module__
        assert instance.run_monitoring_enabled and instance.run_retries_enabled


def run_script(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Starts the script with Slurm's commands and `frontier` played by others, which tell what they were asked."""
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    for name, body in (
        ("srun", 'shift; exec "$@"'),
        ("scontrol", f'echo "scontrol $*" >> {folder}/told'),
        (
            "frontier",
            f'env | grep -E "^(DAGSTER|FRONTIER)_" > {folder}/env; echo "$*" >> {folder}/told; exec sleep $NAP',
        ),
    ):
        (commands / name).write_text(f"#!/bin/sh\n{body}\n")
        (commands / name).chmod(0o755)
    own = {"PATH": f"{commands}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_TMPDIR": str(folder / "node")}
    return subprocess.Popen(
        ["bash", SCRIPT, *arguments],
        env={"HOME": str(folder), **own, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_slurm_script_goes_back_into_the_queue_when_its_time_is_up(tmp_path: Path) -> None:
    process = run_script(tmp_path, "my.yaml", "--seed", "1", FRONTIER_DATA="s3://lab/x", NAP="60")
    deadline = time.monotonic() + 30
    while not (tmp_path / "told").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    told, _ = process.communicate(timeout=30)
    assert (process.returncode, "back into the queue" in told) == (0, True)
    assert (tmp_path / "told").read_text().splitlines() == ["run my.yaml --seed 1", "scontrol requeue 7"]
    environment = (tmp_path / "env").read_text()
    assert "FRONTIER_DATA=s3://lab/x" in environment
    home = next(line for line in environment.splitlines() if line.startswith("DAGSTER_HOME="))
    assert re.fullmatch(rf"DAGSTER_HOME={tmp_path}/node/safety-frontier-7\.\w{{10}}/dagster", home)
    assert not list((tmp_path / "node").iterdir()), "the folder, which only its user could enter, is gone"


def test_the_slurm_script_ends_as_the_run_does_and_says_what_is_missing(tmp_path: Path) -> None:
    process = run_script(tmp_path, "my.yaml", FRONTIER_DATA="/data", NAP="nonsense")
    process.communicate(timeout=30)
    assert process.returncode != 0 and "scontrol" not in (tmp_path / "told").read_text()
    for arguments, environment, message in (
        ((), {"FRONTIER_DATA": "/data"}, "usage: sbatch"),
        (("my.yaml",), {}, "set FRONTIER_DATA"),
    ):
        process = run_script(tmp_path, *arguments, NAP="0", **environment)
        told, _ = process.communicate(timeout=30)
        assert process.returncode != 0 and message in told
    text = SCRIPT.read_text(encoding="utf-8")
    assert "#SBATCH --requeue" in text and "#SBATCH --signal=B:TERM@300" in text
