"""Alerts posted to a real HTTP server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dagster_project.artifacts.failures import Failure
from dagster_project.operations import alerts
from dagster_project.operations.alerts import Alert, alert_of, post
from toolemu.errors import FrontierError


@contextmanager
def webhook(*statuses: int) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Serves a webhook that answers with these statuses, and with 200 ever after; gives its URL and what it got."""
    left, got = list(statuses), list[dict[str, Any]]()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(left.pop(0) if left else 200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/services/T0/secret", got
    finally:
        server.shutdown()
        server.server_close()


def failure(cause: str = "check", message: str = "3 pairs; fewer than 20 train nothing.") -> Failure:
    now = datetime.now(UTC)
    return Failure(
        asset="preference_pairs/strict",
        partition={"metric": "safe", "seed": "0"},
        run_id="r1",
        cause=cause,
        message=message,
        started_at=now,
        failed_at=now,
    )


def alert() -> Alert:
    return alert_of("small", "r1", [failure()], "Steps failed", "http://ui:3000")


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "WAITS_S", (0.0, 0.0))


def test_an_alert_says_what_failed_why_and_what_to_do() -> None:
    with webhook() as (url, got):
        post(url, alert())
    (body,) = got
    assert body["cause"] == "check" and body["assets"] == ["preference_pairs/strict [safe, 0]"]
    for part in ("small failed (check)", "3 pairs; fewer than 20", body["remedy"], "http://ui:3000/runs/r1"):
        assert part in body["text"]


def test_a_killed_run_noted_nothing_and_counts_as_lost() -> None:
    found = alert_of("small", "r1", [], "Detected run worker status NOT_FOUND", "http://ui:3000")
    assert found.cause == "lost" and "NOT_FOUND" in found.text


def test_of_many_failures_some_are_quoted_and_the_rest_is_counted() -> None:
    many = [failure(message=f"No. {number}") for number in range(5)]
    text = alert_of("small", "r1", many, "", "http://ui:3000").text
    assert "No. 2" in text and "No. 3" not in text and "and 2 more" in text


def test_what_may_pass_is_posted_again() -> None:
    with webhook(503, 429) as (url, got):
        post(url, alert())
    assert len(got) == 3


@pytest.mark.parametrize(("statuses", "attempts"), [((404,), 1), ((500, 500, 500), 3)])
def test_what_does_not_is_said_without_the_url(statuses: tuple[int, ...], attempts: int) -> None:
    with webhook(*statuses) as (url, got), pytest.raises(FrontierError, match=f"HTTP {statuses[0]}") as caught:
        post(url, alert())
    assert len(got) == attempts
    assert "secret" not in str(caught.value)


def test_a_server_that_is_not_there_is_said() -> None:
    with webhook() as (url, _):
        pass
    with pytest.raises(FrontierError, match="could not be posted"):
        post(url, alert())
