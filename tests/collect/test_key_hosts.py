"""A key goes only where a person allowed it to go."""

from __future__ import annotations

import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dagster_project.collect.key_hosts import KeyUse, allow, allowed, check_key_hosts, new_uses, origin_of, parse_use
from tests.conftest import Lab
from tests.lm_world import experiment, write_world
from toolemu.chat.settings import EndpointSettings
from toolemu.errors import FrontierError

KEY = "sk-planted-0123456789abcdef"
EVIL = "http://evil.invalid"  # a name that never resolves (RFC 6761)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("FRONTIER_KEY_HOSTS", raising=False)
    return tmp_path / "config" / "safety-frontier" / "key-hosts"


def at(url: str, key: str | None = "OPENAI_API_KEY") -> EndpointSettings:
    return EndpointSettings(url=url, key=key)


@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [
        (at("http://127.0.0.1:8000/v1"), False),
        (at("http://localhost:8000/v1"), False),
        (at("http://[::1]:8000/v1"), False),
        (at("https://api.openai.com/v1"), False),
        (at("https://API.OpenAI.com:443/v1"), False),
        (at("https://evil.example/v1", None), False),
        (at("https://evil.example/v1"), True),
        (at("http://api.openai.com/v1"), True),
        (at("https://api.openai.com:8443/v1"), True),
        (at("https://api.openai.com.evil.example/v1"), True),
        (at("https://api.openai.com/v1", "OTHER_KEY"), True),
        (at("http://127.0.0.1.evil.example/v1"), True),
        (at("http://localhost.evil.example/v1"), True),
    ],
)
def test_only_what_is_known_or_here_needs_no_permission(endpoint: EndpointSettings, asked: bool) -> None:
    assert bool(new_uses([endpoint])) == asked
    if asked:
        with pytest.raises(FrontierError) as raised:
            check_key_hosts({"there": endpoint}, "my.yaml")
        assert raised.value.code == "keys.new-host"
        allow(new_uses([endpoint]))
    check_key_hosts({"there": endpoint}, "my.yaml")


def test_permissions_are_kept_for_their_user_alone(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uses = [KeyUse("A_KEY", "https://one.example"), KeyUse("B_KEY", "http://two.example:8000")]
    for use in uses:
        allow([use, use])
    assert set(uses) < allowed()
    assert [line for line in home.read_text().splitlines() if "=" in line and line[0] != "#"] == list(map(str, uses))
    assert stat.S_IMODE(home.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.parent.stat().st_mode) == 0o700
    monkeypatch.setenv("FRONTIER_KEY_HOSTS", "C_KEY=https://three.example, D_KEY=https://four.example")
    assert KeyUse("D_KEY", "https://four.example") in allowed()
    home.chmod(0o666)
    with pytest.raises(FrontierError) as raised:
        allowed()
    assert raised.value.code == "files.not-private"


@pytest.mark.parametrize("text", ["", "A_KEY", KEY, f"{KEY}=https://x.example", "A_KEY=x.example", "A_KEY=file:///x"])
def test_what_is_no_permission_is_not_repeated(text: str) -> None:
    with pytest.raises(FrontierError) as raised:
        parse_use(text)
    assert raised.value.code == "keys.form"
    assert KEY not in str(raised.value)


def test_an_origin_has_one_spelling() -> None:
    assert (
        origin_of("HTTPS://Api.Example.com:443/v1/")
        == origin_of("https://api.example.com.")
        == "https://api.example.com"
    )
    assert origin_of("http://[::1]:80/v1") == "http://[::1]"


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    write_world(tmp_path)
    changes = {"endpoints": {"here": {"url": f"{EVIL}/v1", "key": "TEST_KEY", "give_up_after_s": 0, "timeout_s": 2}}}
    (tmp_path / "lm.yaml").write_text(yaml.safe_dump(experiment("", **changes)))
    return Lab(tmp_path, tmp_path / "lm.yaml", {"TEST_KEY": KEY})


def test_without_a_terminal_a_new_server_is_refused_until_it_is_allowed(lab: Lab, home: Path) -> None:
    for command in ("check", "run"):
        done = lab.frontier(command, "lm.yaml", check=False)
        assert done.returncode == 1 and "[keys.new-host]" in done.stderr
        assert f"--allow-key TEST_KEY={EVIL}" in done.stderr and KEY not in done.stderr + done.stdout
    done = lab.frontier("check", "lm.yaml", "--allow-key", f"TEST_KEY={EVIL}", check=False)
    assert "keys.new-host" not in done.stderr, "it is asked now, and has no address"
    assert f"TEST_KEY={EVIL}" in home.read_text()
    assert "keys.new-host" not in lab.frontier("check", "lm.yaml", check=False).stderr


@pytest.mark.parametrize(("answer", "kept"), [("y\n", True), ("n\n", False), ("\n", False)])
def test_on_a_terminal_a_person_is_asked(lab: Lab, home: Path, answer: str, kept: bool) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "dagster_project.cli", "check", "lm.yaml"],
        cwd=lab.directory, env=lab.environment, stdin=theirs, stdout=subprocess.PIPE, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    told = b""
    while b"[y/N]" not in told:
        told += os.read(ours, 1000)
    os.write(ours, answer.encode())
    assert EVIL.encode() in told and b"TEST_KEY" in told
    while True:
        try:
            told += os.read(ours, 1000)
        except OSError:  # the other end is closed
            break
    process.communicate(timeout=60)
    os.close(ours)
    assert home.exists() == kept
    assert (b"keys.new-host" in told) != kept and KEY.encode() not in told


def test_a_run_by_dagster_is_refused_with_the_same_code(lab: Lab) -> None:
    """As the daemon makes it: nobody is asked, and the failure's note says how to allow it."""
    script = (
        "import dagster as dg, sys\n"
        "from dagster_project.definitions import build_definitions\n"
        "from dagster_project.experiment.spec import load_experiment\n"
        "definitions = build_definitions(load_experiment('lm.yaml'))\n"
        "job = definitions.resolve_implicit_global_asset_job_def()\n"
        "key = dg.AssetKey(['lm', 'source_models'])\n"
        "job.execute_in_process(partition_key='first', asset_selection=[key], raise_on_error=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=lab.directory,
        env=lab.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    notes = [path.read_text() for path in (lab.directory / "data" / "lm" / "failures").glob("*.json")]
    assert len(notes) == 1 and "[keys.new-host]" in notes[0]
    assert KEY not in done.stdout + done.stderr + notes[0]
