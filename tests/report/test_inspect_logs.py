"""Exported logs, read and served by the real Inspect."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from benchmarks.browser import CHROMIUM, browser_page
from dagster_project.report.inspect_logs import log_name, write_logs
from dagster_project.report.transcript_files import Source
from tests.report.page.world import EVIL, trajectory, verdict
from toolemu.jsonl import write_jsonl

pytest.importorskip("inspect_ai", reason="needs Inspect: pip install 'safety-frontier[view]'")
AGENT = f"m:{EVIL}/../x"
CREATED = "2026-01-02T03:04:05+00:00"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    write_jsonl(folder / "trajectories.jsonl", [trajectory(AGENT, 0, case) for case in (0, 1)])
    verdicts = [verdict(AGENT, 0, case, judge) for case in (0, 1) for judge in "ab"]
    scored = [item.model_copy(update={"score": 2.0 + item.case_idx}) for item in verdicts[:-1]]
    unscored = verdicts[-1].model_copy(update={"score": None, "error": "no JSON"})
    write_jsonl(folder / "evaluations.jsonl", [*scored, unscored])
    source = Source(AGENT, 0, folder / "trajectories.jsonl", (folder / "evaluations.jsonl",))
    assert write_logs("world", [source], folder / "logs", CREATED) == {"logs": 1, "samples": 2}
    return folder / "logs"


def test_inspect_reads_samples_messages_and_scores(logs: Path) -> None:
    from inspect_ai.log import list_eval_logs, read_eval_log

    (info,) = list_eval_logs(str(logs))
    log = read_eval_log(info)
    assert (log.status, log.eval.task, log.eval.model, log.eval.created) == ("success", "world", AGENT, CREATED)
    assert log.samples is not None and log.results is not None
    first, second = log.samples
    assert [message.role for message in first.messages] == ["user", "assistant", "tool", "assistant"]
    assert first.messages[2].text == EVIL
    assert first.scores is not None and second.scores is not None
    assert {name: score.value for name, score in first.scores.items()} == {"a safe": 2.0, "b safe": 2.0}
    assert list(second.scores) == ["a safe"]
    assert {score.name: score.metrics["mean"].value for score in log.results.scores} == {"a safe": 2.5, "b safe": 2.0}
    assert first.metadata["invented_observations"] is True


def test_several_logs_are_written_beside_one_another_in_order(tmp_path: Path) -> None:
    from inspect_ai.log import list_eval_logs, read_eval_log

    found = []
    for seed in range(3):
        path = tmp_path / f"{seed}.jsonl"
        write_jsonl(path, [trajectory("m", seed, case) for case in range(seed + 1)])
        found.append(Source("m", seed, path, ()))
    told: list[tuple[int, int]] = []
    written = write_logs("world", found, tmp_path / "logs", CREATED, lambda done, total: told.append((done, total)))
    assert written == {"logs": 3, "samples": 6}
    assert told == [(1, 3), (2, 3), (3, 3)]
    logs = [read_eval_log(info) for info in list_eval_logs(str(tmp_path / "logs"))]
    assert sorted((log.eval.metadata or {})["seed"] for log in logs) == [0, 1, 2]
    assert sorted(len(log.samples or ()) for log in logs) == [1, 2, 3]


def test_a_file_name_holds_nothing_but_letters_digits_and_signs() -> None:
    names = [log_name(Source(name, seed, Path(), ())) for name in (AGENT, "a/b", "a_b", "...") for seed in (None, 1)]
    assert len(set(names)) == len(names)
    assert all(name == Path(name).name and name.isascii() and ".." not in name and name[0] != "." for name in names)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium")
def test_inspect_view_lists_and_opens_the_log(logs: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).parent / "inspect", "view", "start", "--log-dir", logs, "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for_answer(f"http://127.0.0.1:{port}/api/logs")
        with browser_page() as page:
            page.goto(f"http://127.0.0.1:{port}")
            page.get_by_text("2 samples").first.wait_for()  # a single log is opened at once
            assert "a safe\t2.5" in page.inner_text("body")
            page.get_by_text("case 0").first.click()
            page.get_by_text("Thought:").first.wait_for()
            assert page.evaluate("window.hacked") is None
    finally:
        server.terminate()
        server.wait(timeout=20)


def wait_for_answer(url: str) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert time.monotonic() < end, "inspect view did not answer"
            time.sleep(0.5)
