"""Leases: who starts a server, who shares it, when it ends, and what is said when it cannot be had."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr

from dagster_project.serving.adapters import ServedAdapter, load_adapter
from dagster_project.serving.leases import ServingError, cards_alone, leased, stop_servers, vllm_python
from dagster_project.serving.settings import Server, ServerSettings, server_of
from dagster_project.serving.state import Address, Servers

HERE = Path(__file__).parent


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """Servers of a machine whose vLLM is the stand-in; all end with the test."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} {HERE / "stand_in.py"} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("FRONTIER_VLLM_PYTHON", str(python))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    found = Servers(tmp_path / "servers")
    yield found
    stop_servers(found)
    until(lambda: not running(found))


def running(servers: Servers) -> list[str]:
    with servers.changing():
        return [found.server.model for found in servers.running()]


def until(what: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def weights(servers: Servers, name: str) -> Path:
    folder = servers.folder.parent / name
    folder.mkdir(exist_ok=True)
    return folder


def server(servers: Servers, name: str = "plain", **settings: Any) -> Server:
    return server_of(weights(servers, name), name, ServerSettings(**{"idle_after_s": 60, **settings}))


def ask(at: Address) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {at.key.get_secret_value()}"}
    with urllib.request.urlopen(urllib.request.Request(at.url, headers=headers)) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def starts(servers: Servers, which: Server) -> int:
    return (servers.place(which.key) / "log.txt").read_text().count("== ")


class Holder:
    """A process that holds a server."""

    def __init__(self, servers: Servers, idle_after_s: float) -> None:
        command = [sys.executable, str(HERE / "holder.py"), str(servers.folder), str(weights(servers, "plain"))]
        self.process = subprocess.Popen(
            [*command, str(idle_after_s)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def address(self) -> Address:
        assert self.process.stdout is not None
        url, key = self.process.stdout.readline().split()
        return Address(url, SecretStr(key))

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def test_processes_share_one_server_and_it_ends_when_the_last_is_killed(servers: Servers) -> None:
    first, second = Holder(servers, 0.5), Holder(servers, 0.5)
    url = first.address()
    assert second.address() == url
    first.kill()
    time.sleep(1.5)  # longer than it would idle
    assert ask(url)["pid"], "the second still holds it"
    second.kill()
    until(lambda: not running(servers))
    with pytest.raises(OSError):
        ask(url)


def test_a_server_that_idled_out_starts_again_and_its_log_is_kept(servers: Servers) -> None:
    wanted = server(servers, idle_after_s=0)
    for _ in range(2):
        with leased(servers, [wanted]) as urls:
            assert ask(urls[wanted.key])["cards"] == "0"
        until(lambda: not running(servers))
    assert starts(servers, wanted) == 2


def test_a_server_outlives_its_lease_for_the_next(servers: Servers) -> None:
    wanted = server(servers)
    with leased(servers, [wanted]) as urls:
        first = ask(urls[wanted.key])["pid"]
    with leased(servers, [wanted]) as urls:
        assert ask(urls[wanted.key])["pid"] == first


def test_vllm_ends_with_its_keeper_however_that_ends(servers: Servers) -> None:
    wanted = server(servers)
    with leased(servers, [wanted]) as urls:
        process = psutil.Process(ask(urls[wanted.key])["pid"])
        keeper = process.parent()
        assert keeper is not None
        keeper.kill()
        until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
    with leased(servers, [wanted]) as urls:
        assert ask(urls[wanted.key])["pid"] != process.pid


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("broken", {}, "ended before it was ready(.|\n)*weights are of no model"),
        ("slow", {"start_timeout_s": 1}, "not ready within 1 s"),
    ],
)
def test_a_server_that_does_not_start_is_an_error_with_its_last_words(
    servers: Servers, name: str, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(ServingError, match=said), leased(servers, [server(servers, name, **settings)]):
        pass
    with servers.changing():
        assert not any(found.leases for found in servers.running())


def test_servers_that_do_not_fit_together_are_an_error_before_any_starts(servers: Servers) -> None:
    both = [server(servers, "plain", gpu_memory=0.6), server(servers, "other", gpu_memory=0.6)]
    with pytest.raises(ServingError, match=r"1\.2 of card 0"), leased(servers, both):
        pass
    assert not running(servers)


def test_two_servers_share_a_card_and_an_idle_one_makes_room(servers: Servers) -> None:
    agent, emulator = server(servers, "agent", gpu_memory=0.5), server(servers, "emulator", gpu_memory=0.5)
    with leased(servers, [agent, emulator]) as urls:
        assert len({ask(url)["pid"] for url in urls.values()}) == 2
    with leased(servers, [server(servers, "judge", gpu_memory=0.5)]):
        assert sorted(running(servers)) in (["agent", "judge"], ["emulator", "judge"], ["judge"])
        with leased(servers, [server(servers, "elsewhere", cards=(1,))]) as found:
            assert ask(*found.values())["cards"] == "1"


def test_a_claim_waits_for_leases_and_servers_give_way_to_it(servers: Servers) -> None:
    wanted, events = server(servers), list[str]()

    def train() -> None:
        with cards_alone(servers):
            assert not running(servers)
            events.append("trained")

    def act() -> None:
        with leased(servers, [wanted]):
            events.append("acted")

    with leased(servers, [wanted]) as urls:
        training = threading.Thread(target=train)
        training.start()
        with servers.changing():
            pass
        until(lambda: _claims(servers))
        acting = threading.Thread(target=act)
        acting.start()
        time.sleep(1)
        assert not events, "one waits for the lease, the other for the claim"
        assert ask(urls[wanted.key])["pid"], "who has it may go on"
    training.join(30)
    acting.join(30)
    assert events == ["trained", "acted"]


def _claims(servers: Servers) -> int:
    with servers.changing():
        return servers.claims((0,))


def test_adapters_are_loaded_by_name_once(servers: Servers) -> None:
    wanted, written = server(servers), list[Path]()

    def write(out: Path) -> None:
        (out / "adapter_config.json").write_text("{}")
        written.append(out)

    with leased(servers, [wanted]) as urls:
        place, url = servers.place(wanted.key), urls[wanted.key]
        for name in ("one", "two", "one"):
            load_adapter(place, url, ServedAdapter(name, write))
        assert sorted(ask(url)["adapters"]) == ["one", "two"]
        assert len(written) == 2
        with pytest.raises(ServingError, match="does not take the adapter three"):
            load_adapter(place, url, ServedAdapter("three", lambda out: None))


def test_without_vllm_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRONTIER_VLLM_PYTHON", str(tmp_path / "none"))
    with pytest.raises(ServingError, match="FRONTIER_VLLM_PYTHON names"):
        vllm_python()
    monkeypatch.delenv("FRONTIER_VLLM_PYTHON")
    monkeypatch.setattr("dagster_project.serving.leases.BESIDE", tmp_path / "none")
    with suppress(ServingError):
        assert vllm_python() == sys.executable
        pytest.skip("vLLM is installed here")
    with pytest.raises(ServingError, match="make vllm"):
        vllm_python()


def test_equal_servers_are_shared_and_others_are_not(tmp_path: Path) -> None:
    def key(**settings: Any) -> str:
        return server_of(tmp_path, "m", ServerSettings(**settings)).key

    assert key() == key(idle_after_s=1, start_timeout_s=1)
    assert len({key(), key(context=100), key(gpu_memory=0.5), key(arguments=("--seed", "1"))}) == 4
    arguments = server_of(tmp_path, "m", ServerSettings(adapter_rank=20, cards=(1, 2), context=64)).arguments(80)
    assert arguments[arguments.index("--max-lora-rank") + 1] == "32", "vLLM knows only some ranks"
    assert arguments[arguments.index("--tensor-parallel-size") + 1] == "2"
    assert {"--enable-lora", "--enable-prefix-caching"} <= {*arguments}
    assert arguments[arguments.index("--gpu-memory-utilization") + 1] == "0.9"
    assert arguments[arguments.index("--generation-config") + 1] == "vllm", "a model's folder decides no sampling"
    assert arguments[arguments.index("--host") + 1] == "127.0.0.1"
    assert "--enable-lora" not in server_of(tmp_path, "m", ServerSettings(adapters=0)).arguments(80)
