"""A servers' folder that others could write: what they plant starts nothing, and gets no request."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import orjson
import pytest

from dagster_project.serving.keeper import environment
from dagster_project.serving.leases import leased
from dagster_project.serving.settings import ServerSettings, server_of
from dagster_project.serving.state import Servers, ServingError
from tests.serving.test_leases import ask, running, server, servers  # noqa: F401 - a fixture
from toolemu.errors import FrontierError, InputError, validate_record
from toolemu.redaction import redact


def test_the_folder_is_for_its_user_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        made = Servers(tmp_path / "new" / "servers").folder
    finally:
        os.umask(old)
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    (tmp_path / "readable").mkdir(mode=0o755)
    assert stat.S_IMODE(Servers(tmp_path / "readable").folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["group", "everyone", "sticky", "link", "another user's"])
def test_a_folder_that_others_can_write_is_refused(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "servers"
    folder.mkdir()
    if kind == "link":
        folder.rename(tmp_path / "elsewhere")
        folder.symlink_to(tmp_path / "elsewhere")
    elif kind == "another user's":
        if os.geteuid():
            pytest.skip("only root gives folders away")
        os.chown(folder, 12345, -1)
    else:
        folder.chmod({"group": 0o770, "everyone": 0o777, "sticky": 0o1777}[kind])
    with pytest.raises(FrontierError) as raised:
        Servers(folder)
    assert raised.value.code == "files.not-private"


def test_a_planted_description_decides_no_command(servers: Servers) -> None:  # noqa: F811
    wanted = server(servers)
    servers.describe(wanted)
    planted = ["/evil", "", "evil", {"arguments": ["--trust-remote-code", "--host", "0.0.0.0"]}]
    (servers.place(wanted.key) / "server.json").write_bytes(orjson.dumps(planted))
    with leased(servers, [wanted]) as found:
        arguments = ask(found[wanted.key])["arguments"]
    assert wanted.weights in arguments and "--trust-remote-code" not in arguments and "/evil" not in arguments
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"


@pytest.mark.parametrize("content", [b"[1]", b"{}", b"no JSON", orjson.dumps(["/evil", "", "evil", {}])])
def test_a_planted_description_is_not_believed(tmp_path: Path, content: bytes) -> None:
    folder = Servers(tmp_path / "servers")
    wanted = server_of(tmp_path, "m", ServerSettings())
    folder.describe(wanted)
    assert folder.described(wanted.key) == wanted
    (folder.place(wanted.key) / "server.json").write_bytes(content)
    with pytest.raises(ServingError) as raised:
        folder.described(wanted.key)
    assert raised.value.code == "serving.planted"


@pytest.mark.parametrize("signature", ["0" * 64, "", None])
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9/v1", "http://evil.example/v1", "http://127.0.0.1:9@evil.example/v1"]
)
def test_a_planted_address_is_not_believed(tmp_path: Path, url: str, signature: str | None) -> None:
    folder = Servers(tmp_path / "servers")
    wanted = server_of(tmp_path, "m", ServerSettings())
    folder.describe(wanted)
    secret = folder.new_key(wanted.key)
    ready = folder.place(wanted.key) / "ready.json"
    ready.write_text(json.dumps({"url": url} if signature is None else {"url": url, "signature": signature}))
    assert folder.address(wanted.key) is None
    ready.write_text(url)
    assert folder.address(wanted.key) is None
    folder.announce(wanted.key, secret, url)
    assert (folder.address(wanted.key) is not None) == (url == "http://127.0.0.1:9/v1")
    ready.chmod(0o666)
    with pytest.raises(FrontierError):
        folder.address(wanted.key)


def test_a_leased_server_has_a_key_that_nobody_else_sees(servers: Servers, capfd: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    wanted = server(servers, idle_after_s=0)
    keys = []
    for _ in range(2):
        with leased(servers, [wanted]) as found:
            address = found[wanted.key]
            secret = address.key.get_secret_value()
            keys.append(secret)
            ready = servers.place(wanted.key) / "ready.json"
            assert stat.S_IMODE(ready.stat().st_mode) == 0o600
            assert secret not in str(ask(address)["arguments"]), "every user can read a process's arguments"
        deadline = time.monotonic() + 30
        while running(servers):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert keys[0] != keys[1]
    assert stat.S_IMODE((servers.place(wanted.key) / "key").stat().st_mode) == 0o600
    seen = (servers.place(wanted.key) / "log.txt").read_text() + repr(address) + str(capfd.readouterr())
    assert not any(key in seen for key in keys)
    assert keys[1] not in redact(f"the server says {keys[1]}")
    ours = environment({"VLLM_API_KEY": "of the user's shell"}, wanted, address.key)
    assert ours["VLLM_API_KEY"] == keys[1]


@pytest.mark.parametrize(
    "argument",
    [
        "--trust-remote-code",
        "--trust_remote_code",
        "--trust-rem",
        "--Trust-Remote-Code",
        "--host=0.0.0.0",
        "--host",
        "--api-key=sk-secret",
        "--middleware",
        "--tool-parser-plugin=/tmp/x.py",
        "--config",
        "--uds",
    ],
)
def test_an_experiment_file_opens_no_server_and_runs_no_code(argument: str) -> None:
    with pytest.raises(InputError) as raised:
        validate_record(ServerSettings, {"arguments": ["--enforce-eager", argument, "0.0.0.0"]}, "my.yaml", "")
    assert raised.value.code == "serving.argument"
    assert "sk-secret" not in str(raised.value)
    assert ServerSettings(arguments=("--enforce-eager", "--max-num-batched-tokens", "512", "--seed", "1"))
