"""A key that a server sends back everywhere, in every encoding, is nowhere afterwards: neither printed nor stored."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import duckdb
import pandas as pd
import pytest
import yaml
from inspect_ai.log import read_eval_log

from dagster_project.cli import app
from tests.conftest import Lab
from tests.lm_world import experiment, play, write_world
from tests.toolemu.chat.server import Answer, ChatServer, Fault, Refusal, Say
from tests.toolemu.test_redaction import WRITTEN

pytestmark = pytest.mark.slow

KEY = "sk-Planted_7Hq9/Zt+2bW-e8Rt5yU1oP"
FORMS = [write(KEY) for write in WRITTEN.values()]
ECHO = " | ".join(FORMS)
"""What the server adds to all that it says."""
LOWER = bytes(range(256)).lower()
OTHERS = bytes(number for number in range(256) if not re.match(rb"[A-Za-z0-9]", bytes([number])))
REFERENCE = "".join(filter(str.isalnum, KEY)).lower().encode()


def echoing(body: dict[str, Any]) -> Say:
    """Play a role well, and repeat the key wherever text may be."""
    text = play(body)
    if text.startswith("{"):
        text = json.dumps({**json.loads(text), "thought": ECHO, "summary": ECHO})
    elif "Observation: {" in text:
        head, _, said = text.partition("Observation: ")
        text = f"{head.replace('Fine.', ECHO)}Observation: {json.dumps({**json.loads(said), 'note': FORMS[0]})}"
    else:
        text = text.replace("Enough.", ECHO).replace("On with it.", ECHO).replace("lamps are on", f"lamps, {ECHO}")
    return Say(text, reasoning=ECHO if "judge" in body["model"] else None, model=f"{body['model']}-{FORMS[1]}")


def error(status: int, **more: Any) -> Refusal:
    body = {"error": {"message": ECHO, "param": FORMS[0], "code": FORMS[0]}}
    return Refusal(status, body=json.dumps(body).encode(), **more)


FAILURES: dict[str, Answer] = {
    "redirect": Refusal(307, headers=(("location", f"http://evil.example/{KEY}?k={FORMS[3]}"),), body=ECHO.encode()),
    "redirect-encoded": Refusal(302, headers=(("location", f"http://evil.example/?{WRITTEN['percent'](KEY)}"),)),
    "unauthorized": error(401),
    "forbidden": error(403),
    "flagged": Refusal(403, message=f"flagged by moderation: {ECHO}"),
    "not-found": error(404),
    "refused": error(400),
    "context": Refusal(400, message=f"maximum context length is 10 tokens {ECHO}", code="context_length_exceeded"),
    "teapot": Refusal(418, body=ECHO.encode()),
    "text": Refusal(422, body=f"{'x' * 280}{KEY}".encode()),
    "overloaded": error(503, headers=(("retry-after", "0"),)),
    "no-json": Refusal(200, body=f"{'x' * 190}{KEY}".encode()),
    "no-choice": Refusal(200, body=json.dumps({"error": ECHO, "choices": []}).encode()),
    "no-object": Refusal(200, body=json.dumps([ECHO]).encode()),
    "usage": Refusal(
        200,
        body=json.dumps(
            {
                "choices": [{"message": {"content": "Final Answer: x"}, "finish_reason": KEY}],
                "usage": {"prompt_tokens": KEY, "completion_tokens": 2, "completion_tokens_details": KEY},
                "model": {"name": KEY},
            }
        ).encode(),
    ),
    "filtered": Refusal(
        200, body=json.dumps({"choices": [{"message": {"refusal": None}, "finish_reason": "content_filter"}]}).encode()
    ),
    "dropped": Fault.dropped,
}


def failing(body: dict[str, Any]) -> Answer:
    """Answer a simple question, and fail at all others in the way that the model's name says."""
    if body["messages"][-1]["content"] == "Say: ready":
        return Say("ready", model=f"{body['model']}-{KEY}")
    return FAILURES.get(body["model"].removeprefix("agent-"), echoing(body))


def make_lab(folder: Path, url: str, **changes: Any) -> Lab:
    write_world(folder)
    patience = {"timeout_s": 5, "give_up_after_s": 0, "max_attempts": 1}
    settings = {
        "endpoints": {"here": {"url": url, "key": "TEST_KEY", **patience}},
        "models": {"first": {"kind": "openai", "endpoint": "here", "model": "agent-a"}},
        "judges": {"strict": {"kind": "openai", "endpoint": "here", "model": "judge-x"}},
        "source": {"samples": 1},
        "limits": {"processes": 2, "min_in_format": 0, "max_unparsed": 1, "max_emulator_problems": 1},
        **changes,
    }
    written = experiment(url, **settings)
    written["world"] = {**written["world"], "cases": 4}
    (folder / "lm.yaml").write_text(yaml.safe_dump(written))
    return Lab(folder, folder / "lm.yaml", {"TEST_KEY": KEY})


def contents(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of every file below a folder, of packed ones what is in them."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield from unpacked(str(path), path.read_bytes())


def unpacked(name: str, content: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, content
    if name.endswith(".duckdb"):
        with duckdb.connect(name, read_only=True) as database:
            for (table,) in database.execute("SELECT table_name FROM duckdb_tables()").fetchall():
                yield f"{name}: {table}", repr(database.execute(f'FROM "{table}"').fetchall()).encode()
    elif name.endswith(".parquet"):
        yield f"{name}: rows", repr(pd.read_parquet(name).to_dict("records")).encode()
    elif name.endswith(".eval"):
        yield f"{name}: log", read_eval_log(name).model_dump_json().encode()
    elif content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for part in archive.namelist():
                yield from unpacked(f"{name}: {part}", archive.read(part))
    elif content[:2] == b"\x1f\x8b":
        yield f"{name}: unpacked", gzip.decompress(content)


def shows(content: bytes) -> bool:
    """Return whether the key is in a content, in any form; written apart from what removes it."""
    readings = [content, unquote_to_bytes(content), unquote_to_bytes(unquote_to_bytes(content))]
    readings.append(
        re.sub(
            rb"\\+u00([0-9a-fA-F]{2})|\\+x([0-9a-fA-F]{2})", lambda m: bytes.fromhex((m[1] or m[2]).decode()), content
        )
    )
    readings.append(re.sub(rb"(?:\x1b|\\+u001b|\\+x1b|\\+033|\\+e)(?:\[[0-9;]*m|\][^\x07\\]*)", b"", content))
    readings.append(re.sub(rb"\\+n", b"", content))
    readings.append(re.sub(rb"&(?:amp;)?#(\d+);", lambda m: bytes([int(m[1]) % 256]), content))
    for run in re.findall(rb"[A-Za-z0-9+/_-]{24,}", content):
        for start in range(4):
            part = run[start:].translate(bytes.maketrans(b"-_", b"+/"))
            readings.append(base64.b64decode(part[: len(part) // 4 * 4]))
    for run in re.findall(rb"(?:[0-9a-f]{2}:?){16,}", content, re.I):
        readings.append(bytes.fromhex(run.decode().replace(":", "")[: len(run.replace(b":", b"")) // 2 * 2]))
    return any(REFERENCE in reading.translate(LOWER, OTHERS) for reading in readings)


def told_by(lab: Lab, *commands: tuple[str, ...]) -> list[str]:
    """Return what commands print, with what was asked for in front."""
    told = []
    for command in commands:
        done = lab.frontier(*command, check=False)
        told.append(f"{command} {done.returncode}\n{done.stdout}\n{done.stderr}")
    return told


def told_here(lab: Lab, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a command prints that needs no process of its own."""
    monkeypatch.chdir(lab.directory)
    for name in ("FRONTIER_DATA", "DAGSTER_HOME"):
        monkeypatch.setenv(name, lab.environment[name])
    capfd.readouterr()
    app(list(arguments), standalone_mode=False)
    return "".join(capfd.readouterr())


def assert_clean(lab: Lab, told: list[str]) -> None:
    shown = [text[:200] for text in told if shows(text.encode())]
    assert not shown, f"printed by {shown}"
    kept = [name for name, content in contents(lab.directory) if shows(content)]
    assert not kept, f"kept in {kept}"


def test_the_search_would_find_every_form() -> None:
    missed = [name for name, write in WRITTEN.items() if not shows(f"before {write(KEY)} after".encode())]
    # Terminal sequences of other kinds, and forms within forms, are left to the tests of what removes them.
    assert len(missed) <= 8, missed
    assert shows(KEY.encode()) and not shows(b"before " + KEY[:-9].encode())


@pytest.mark.timeout(400)
def test_a_server_that_repeats_the_key_everywhere_leaves_it_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with ChatServer(echoing) as server:
        lab = make_lab(tmp_path / "lab", server.url)
        told = told_by(lab, ("check", "lm.yaml"), ("plan", "lm.yaml"), ("run", "lm.yaml"))
        assert all("sk-" not in text for text in told)
        assert told[-1].startswith("('run', 'lm.yaml') 0"), told[-1]
        assert "***" in told[0], "the model's name was there, without the key"
    for arguments in (
        ("status", "lm.yaml"),
        ("query", "lm.yaml", "FROM model_use", "--format", "json"),
        ("search", "lm.yaml", "lamps"),
        ("transcript", "lm.yaml", "--agent", "first", "--case", "0"),
        ("report", "lm.yaml", "--out", "page"),
        ("bundle", "lm.yaml", "--out", "bundle", "--trajectories"),
        ("export", "lm.yaml", "runs", "--out", "runs"),
        ("export", "lm.yaml", "inspect", "--out", "inspect"),
    ):
        told.append(told_here(lab, monkeypatch, capfd, *arguments))
    replies = [path for path in (lab.directory / "data").rglob("*.jsonl") if "***" in path.read_text()]
    assert replies, "the server's replies are there, without the key"
    assert_clean(lab, told)


@pytest.mark.timeout(400)
def test_failures_of_every_kind_leave_the_key_nowhere(tmp_path: Path) -> None:
    models = {kind: {"kind": "openai", "endpoint": "here", "model": f"agent-{kind}"} for kind in FAILURES}
    with ChatServer(failing) as server:
        lab = make_lab(tmp_path / "lab", server.url, models=models)
        told = told_by(lab, ("run", "lm.yaml", "--select", "source_trajectories"))
    assert told[0].splitlines()[0].endswith(") 1")
    notes = [json.loads(path.read_text()) for path in (lab.directory / "data" / "lm" / "failures").glob("*.json")]
    failed = {note["partition"].get("model") for note in notes}
    assert {"redirect", "unauthorized", "no-json", "overloaded"} <= failed, failed
    assert any("***" in note["message"] for note in notes), "the server's words are there, without the key"
    assert_clean(lab, told)


@pytest.mark.parametrize("kind", ["redirect", "unauthorized", "not-found", "text", "no-json", "dropped"])
def test_a_check_that_fails_prints_no_key(kind: str, tmp_path: Path) -> None:
    with ChatServer(lambda body: FAILURES[kind]) as server:
        lab = make_lab(tmp_path / "lab", server.url)
        told = told_by(lab, ("check", "lm.yaml"))
    assert told[0].startswith("('check', 'lm.yaml') 1") and "here" in told[0]
    assert_clean(lab, told)
