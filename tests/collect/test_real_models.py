"""`frontier run` on models behind a real server: every role, faults, a dead server, kills."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from dagster_project.artifacts import ArtifactStore, Ref
from tests.conftest import SMALL, Lab
from tests.conftest import make_lab as make_small_lab
from tests.lm_world import N_CASES, Faulty, experiment, play, write_world
from tests.toolemu.chat.batch_server import BatchServer
from tests.toolemu.chat.server import ChatServer, Fault

pytestmark = pytest.mark.slow

KEY = "sk-nobody-may-read-this"


def make_lab(folder: Path, url: str, **changes: Any) -> Lab:
    write_world(folder)
    path = folder / "lm.yaml"
    path.write_text(yaml.safe_dump(experiment(url, **changes), sort_keys=False))
    (folder / ".env").write_text(f"TEST_KEY={KEY}\n")
    return Lab(folder, path)


def rows(lab: Lab, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab.frontier("query", "lm.yaml", sql, "--format", "json").stdout)
    return found


def records(lab: Lab) -> dict[str, str]:
    """Returns every trajectory and verdict, as the file has it."""
    found = {}
    for path in sorted((lab.directory / "data" / "lm").rglob("*.jsonl")):
        if path.name in ("trajectories.jsonl", "evaluations.jsonl"):
            place = str(path.parent.parent.relative_to(lab.directory))
            for line in path.read_text().splitlines():
                value = json.loads(line)
                names = ("trajectory_id", "judge", "metric", "replicate")
                found[f"{place} {[value.get(name) for name in names]}"] = line
    return found


class Ran:
    """A finished run, the server it was on, and what it asked there; other tests ask that server more."""

    def __init__(self, lab: Lab, server: ChatServer) -> None:
        self.lab, self.server = lab, server
        self.output = lab.frontier("run", "lm.yaml").stdout
        self.requests = list(server.requests)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    with ChatServer(play) as server:
        lab = make_lab(tmp_path_factory.mktemp("lm"), server.url)
        yield Ran(lab, server)


def test_every_role_is_played_by_the_server(ran: Ran) -> None:
    assert {body["model"] for body in ran.requests} == {"agent-a", "agent-b", "emulator-1", "judge-x", "judge-y"}
    found = rows(ran.lab, "SELECT agent, count(*) AS n, sum(steps) AS steps FROM trajectories GROUP BY ALL ORDER BY 1")
    assert [(row["agent"], row["n"]) for row in found] == [("first", 2 * N_CASES), ("second", 2 * N_CASES)]
    assert all(row["steps"] > 0 for row in found)
    verdicts = rows(ran.lab, "SELECT judge, parsed_by, count(*) AS n FROM evaluations GROUP BY ALL ORDER BY 1")
    # Two metrics; the wordy judge gives two verdicts each.
    assert [tuple(row.values()) for row in verdicts] == [
        ("strict", "json", 2 * 2 * 2 * N_CASES),
        ("wordy", "text", 2 * 2 * 2 * 2 * N_CASES),
    ]
    assert not rows(ran.lab, "SELECT * FROM evaluations WHERE score IS NULL")
    scores = rows(ran.lab, "SELECT agent, n FROM agent_scores WHERE metric = 'safe' AND judge = 'strict' ORDER BY 1")
    assert scores == [{"agent": "first", "n": N_CASES}, {"agent": "second", "n": N_CASES}]


def test_requests_are_as_the_roles_say(ran: Ran) -> None:
    by_model = {body["model"]: body for body in ran.requests}
    assert by_model["agent-b"]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in by_model["agent-a"]
    assert by_model["agent-a"]["temperature"] == 1.0
    assert by_model["judge-y"]["temperature"] == 0.5
    assert "response_format" in by_model["judge-x"] and "response_format" not in by_model["judge-y"]
    assert "A difficult day" in by_model["emulator-1"]["messages"][-1]["content"]


def test_the_key_is_sent_and_kept_nowhere(ran: Ran) -> None:
    assert {headers["authorization"] for headers in ran.server.headers} == {f"Bearer {KEY}"}
    assert KEY not in ran.output
    for path in ran.lab.directory.rglob("*"):
        if path.is_file() and path.name != ".env":
            assert KEY.encode() not in path.read_bytes(), path


def test_tokens_and_costs_are_accounted_for(ran: Ran) -> None:
    used = {(row["asset"], row["role"], row["partition"]): row for row in rows(ran.lab, "SELECT * FROM model_use")}
    first = used["source_trajectories", "agent", "model=first"]
    sent = [body for body in ran.requests if body["model"] == "agent-a"]
    assert first["calls"] == len(sent) - 2, "all but the two that only ask whether it is there"
    assert first["model"] == "agent-a"
    assert first["cost"] == pytest.approx((first["prompt_tokens"] + 10 * first["completion_tokens"]) / 1e6)
    second = used["source_trajectories", "agent", "model=second"]
    assert second["calls"] > 0 and second["cost"] is None
    assert used["source_trajectories", "emulator", "model=first"]["calls"] > 0
    judged = used["source_evaluations/strict/safe", "judge", "model=first"]
    assert judged["calls"] == 2 * N_CASES and judged["cost"] > 0


def test_a_second_run_has_nothing_to_do_and_asks_nobody(ran: Ran) -> None:
    before = len(ran.server.requests)
    said = ran.lab.frontier("run", "lm.yaml").stdout
    assert "nothing to do" in said
    for what in ("report", "database"):  # though nothing was trained, and there is no frontier
        (path,) = (line.split()[1] for line in said.splitlines() if line.startswith(what))
        assert (ran.lab.directory / path).is_file()
    assert len(ran.server.requests) == before


def test_a_pilot_is_on_its_own(ran: Ran, tmp_path: Path) -> None:
    lab = make_lab(tmp_path / "pilot", ran.server.url)
    lab.frontier("run", "lm.yaml", "--limit", "4", "--select", "source_evaluations/strict")
    (folder,) = (lab.directory / "data").glob("lm*/")
    assert folder.name == "lm-pilot"
    (path, *_) = folder.glob("source_trajectories/model=first/*/trajectories.jsonl")
    cases = [json.loads(line)["case_idx"] for line in path.read_text().splitlines()]
    assert cases == [0, 0, 1, 1, 2, 2, 3, 3]


def test_check_asks_every_model_and_says_what_it_found(ran: Ran) -> None:
    found = ran.lab.frontier("check", "lm.yaml").stdout
    for name in ("models.first", "world.emulator", "judges.wordy"):
        assert name in found


def test_another_judge_or_replicate_asks_only_what_is_new(ran: Ran, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "copy", tmp_path / "copy" / "lm.yaml")
    shutil.copytree(ran.lab.directory, lab.directory)
    changed = experiment(ran.server.url)
    changed["judges"]["wordy"]["replicates"] = 3
    changed["judges"]["new"] = {"kind": "openai", "endpoint": "here", "model": "judge-z"}
    lab.experiment.write_text(yaml.safe_dump(changed))
    before = len(ran.server.requests)
    lab.frontier("run", "lm.yaml", "--update")
    asked = Counter(body["model"] for body in ran.server.requests[before:])
    verdicts = 2 * 2 * 2 * N_CASES  # agents, metrics, samples
    assert asked == {"judge-z": verdicts + 1, "judge-y": verdicts + 1}, "and one each, whether it is there"
    (found,) = rows(lab, "SELECT count(*) AS n FROM evaluations WHERE judge = 'wordy'")
    assert found["n"] == 3 * verdicts
    kept = {place: line for place, line in records(lab).items() if place in records(ran.lab)}
    assert kept == records(ran.lab)


def test_another_prompt_of_a_judge_or_another_metric_asks_only_that_judge_about_that(ran: Ran, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "copy", tmp_path / "copy" / "lm.yaml")
    shutil.copytree(ran.lab.directory, lab.directory)
    own = lab.directory / "prompts" / "judge" / "safe.jinja"
    own.parent.mkdir(parents=True)
    own.write_text("Was it safe?\n{{ record }}\nWhat you grade\nHow risky")
    lab.experiment.write_text(yaml.safe_dump(experiment(ran.server.url, prompts_dir="prompts")))
    before = len(ran.server.requests)
    lab.frontier("run", "lm.yaml", "--update", "--select", "source_evaluations")
    asked = [body for body in ran.server.requests[before:] if body["messages"][-1]["content"] != "Say: ready"]
    assert Counter(body["model"] for body in asked) == {"judge-x": 4 * N_CASES, "judge-y": 2 * 4 * N_CASES}
    assert all("Was it safe?" in body["messages"][-1]["content"] for body in asked)
    assert trajectories(lab) == trajectories(ran.lab)
    changed = experiment(ran.server.url, prompts_dir="prompts", metrics=["safe", "help", "help_safe"])
    lab.experiment.write_text(yaml.safe_dump(changed))
    before = len(ran.server.requests)
    lab.frontier("run", "lm.yaml", "--select", "source_evaluations")
    asked = [body for body in ran.server.requests[before:] if body["messages"][-1]["content"] != "Say: ready"]
    assert Counter(body["model"] for body in asked) == {"judge-x": 4 * N_CASES, "judge-y": 2 * 4 * N_CASES}
    assert not any("Was it safe?" in body["messages"][-1]["content"] for body in asked)


def test_what_was_asked_for_is_recorded_beside_what_was_done(ran: Ran) -> None:
    store = ArtifactStore(ran.lab.directory / "data", "lm")

    def config(asset: str, **partition: str) -> dict[str, Any]:
        return store.get(Ref.of(asset, **partition)).manifest.config

    first, second = (config("source_models", model=model) for model in ("first", "second"))
    assert (first["quantisation"], first["thinking"]) == ("int4", None)
    assert (second["quantisation"], second["thinking"]) == ("none", False)
    acting = config("source_trajectories", model="first")
    assert (acting["temperature"], acting["world"]["emulator"]["style"]) == (1.0, "adversarial")
    judge = config("source_evaluations/wordy/safe", model="first")
    assert (judge["temperature"], judge["structured"], judge["replicates"]) == (0.5, False, 2)
    done = {json.loads(line)["agent_use"]["served_as"][0] for line in trajectories(ran.lab).values()}
    assert done == {"agent-a", "agent-b"}


def test_the_plan_says_what_it_will_take(ran: Ran, tmp_path: Path) -> None:
    """Before anything ran from the prompts, afterwards from what there is."""
    fresh = make_lab(tmp_path / "fresh", ran.server.url)
    before = len(ran.server.requests)
    planned = fresh.frontier("plan", "lm.yaml").stdout
    assert "USD, without those that have no price" in planned
    assert planned.count("assumption") == 5
    lab = Lab(tmp_path / "copy", tmp_path / "copy" / "lm.yaml")
    shutil.copytree(ran.lab.directory, lab.directory)
    changed = experiment(ran.server.url, source={"samples": 4, "temperature": 1.0})
    lab.experiment.write_text(yaml.safe_dump(changed))
    planned = lab.frontier("plan", "lm.yaml", "--update").stdout
    assert planned.count("records so far") == 5
    (used,) = rows(ran.lab, "SELECT calls, cost FROM model_use WHERE role = 'agent' AND \"partition\" = 'model=first'")
    (row,) = [line for line in planned.splitlines() if "models.first" in line]
    assert f"{2 * used['calls']:,}" in row
    assert len(ran.server.requests) == before


def test_people_are_one_more_judge(ran: Ran, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "copy", tmp_path / "copy" / "lm.yaml")
    shutil.copytree(ran.lab.directory, lab.directory)
    agents = "agent = 'first' AND sample = 0 AND case_idx < 3"
    sheet = lab.frontier(
        "query", "lm.yaml", f"SELECT trajectory_id, 'safe' AS metric, 2 AS score FROM trajectories WHERE {agents}",
        "--format", "csv",
    )  # fmt: skip
    (lab.directory / "people.csv").write_text(sheet.stdout)
    judges = {**experiment("")["judges"], "people": {"kind": "labels", "file": "people.csv"}}
    lab.experiment.write_text(yaml.safe_dump(experiment(ran.server.url, judges=judges)))
    before = len(ran.server.requests)
    lab.frontier("run", "lm.yaml")
    assert len(ran.server.requests) == before, "nobody else is asked anything"
    found = rows(lab, "SELECT agent, metric, mean, n FROM agent_scores WHERE judge = 'people'")
    assert found == [{"agent": "first", "metric": "safe", "mean": 2.0, "n": 3}]
    (lab.directory / "people.csv").write_text(sheet.stdout.replace(",2", ",3") + "nobody,safe,0\n")
    said = " ".join(lab.frontier("run", "lm.yaml").stdout.split())
    assert "judges.people: 1 of the 4 labels" in said and "such as nobody" in said
    assert rows(lab, "SELECT mean FROM agent_scores WHERE judge = 'people'") == [{"mean": 3.0}], "labels are read anew"


def test_a_judge_in_batches_says_what_it_says_at_once(ran: Ran, tmp_path: Path) -> None:
    lab = Lab(tmp_path / "copy", tmp_path / "copy" / "lm.yaml")
    shutil.copytree(ran.lab.directory, lab.directory)
    with BatchServer(play) as server:
        endpoints = {**experiment(ran.server.url)["endpoints"], "batches": {"url": server.url}}
        strict = {**experiment("")["judges"]["strict"], "endpoint": "batches", "batch": True, "batch_poll_s": 0.1}
        judges = {**experiment("")["judges"], "patient": strict}
        lab.experiment.write_text(yaml.safe_dump(experiment(ran.server.url, judges=judges, endpoints=endpoints)))
        lab.frontier("run", "lm.yaml", "--select", "source_evaluations/patient/safe")
        assert len(server.batches) == 2, "one a partition"
        assert len(server.looks) == 3 and not server.direct, "one before the run, and one before each batch"
    found = records(lab)
    for place, line in found.items():
        if "/patient/" in place:
            same = found[place.replace("/patient/", "/strict/").replace("'patient'", "'strict'")]
            assert json.loads(line)["score"] == json.loads(same)["score"]
    assert sum("/patient/" in place for place in found) == 2 * 2 * N_CASES


def test_with_one_call_in_ten_failing_every_case_ends_the_same(ran: Ran, tmp_path: Path) -> None:
    faulty = Faulty(0.1)
    with ChatServer(faulty) as server:
        changed = {"here": {"url": server.url, "key": "TEST_KEY", "timeout_s": 1, "give_up_after_s": 30}}
        lab = make_lab(tmp_path / "faulty", server.url, endpoints=changed)
        lab.frontier("run", "lm.yaml")
    assert len(faulty.faults) >= 6 and faulty.faults.total() > 30
    assert records(lab) == records(ran.lab)


def test_a_missing_key_is_an_error_before_anything_starts(tmp_path: Path) -> None:
    with ChatServer(play) as server:
        lab = make_lab(tmp_path, server.url)
        (tmp_path / ".env").unlink()
        for command in ("check", "run"):
            done = lab.frontier(command, "lm.yaml", check=False)
            assert done.returncode == 1
            assert "TEST_KEY is not set" in done.stderr
    assert not server.requests


def doubled(bodies: list[dict[str, Any]]) -> int:
    """Returns how many requests were made again; two agents that make the same call ask the emulator the same."""
    texts = [json.dumps(body) for body in bodies if body["messages"][0]["content"] != "Say: ready"]
    return len(texts) - len(set(texts))


TRAJECTORIES = ("--select", "source_trajectories")


def trajectories(lab: Lab) -> dict[str, str]:
    return {place: line for place, line in records(lab).items() if "source_trajectories" in place}


def test_a_server_that_dies_is_a_clear_error_and_nothing_is_done_twice(ran: Ran, tmp_path: Path) -> None:
    answered: list[dict[str, Any]] = []

    def until_dead(body: dict[str, Any]) -> Any:
        answered.append(body)
        return play(body)

    limits = {"processes": 1, "concurrency": 4}
    with ChatServer(until_dead, latency=0.01) as server:
        port = server.port
        endpoints = {"here": {"url": server.url, "key": "TEST_KEY", "timeout_s": 2, "give_up_after_s": 1}}
        lab = make_lab(tmp_path / "dying", server.url, endpoints=endpoints, limits=limits)
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster_project.cli", "run", "lm.yaml", *TRAJECTORIES],
            cwd=lab.directory, env=lab.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        while len(answered) < 60:
            assert process.poll() is None
            time.sleep(0.01)
    died = time.monotonic()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert time.monotonic() - died < 30
    assert "has answered nothing usable for" in output and "run again" in output
    assert lab.frontier("run", "lm.yaml", *TRAJECTORIES, check=False).returncode == 1, "it is still dead"
    before = len(answered)
    with ChatServer(until_dead, port=port):
        lab.frontier("run", "lm.yaml", *TRAJECTORIES)
    assert trajectories(lab) == trajectories(ran.lab)
    # What was on its way when the server died may have been answered without anyone there to hear it.
    assert doubled(answered) <= doubled(ran.requests) + 4
    assert before < len(answered)


def test_an_interrupted_run_says_so_leaves_nobody_behind_and_goes_on(ran: Ran, tmp_path: Path) -> None:
    with ChatServer(play, latency=0.02) as server:
        lab = make_lab(tmp_path / "interrupted", server.url, limits={"processes": 2, "concurrency": 4})
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster_project.cli", "run", "lm.yaml", *TRAJECTORIES],
            cwd=lab.directory, env=lab.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            # Where the tests run in the background, SIGINT is ignored, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
        while len(server.requests) < 40:
            assert process.poll() is None
            time.sleep(0.01)
        workers = psutil.Process(process.pid).children(recursive=True)
        for one in (*workers, process):  # as a terminal does
            one.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "Interrupted." in output and "Traceback" not in output
        assert psutil.wait_procs(workers, timeout=30)[1] == []
        lab.frontier("run", "lm.yaml", *TRAJECTORIES)
        asked = server.requests
    assert trajectories(lab) == trajectories(ran.lab)
    assert doubled(asked) <= doubled(ran.requests) + 2 * 4, "more was asked again than what was under way"


class Gate:
    """Plays every model, but answers only as many requests as it was opened for: a run cannot outrun its killer.

    Requests that are alike count once, and the question whether a model is there not at all.
    """

    def __init__(self) -> None:
        self.answered: list[dict[str, Any]] = []
        self.different: set[str] = set()
        self.most = sys.maxsize

    def play(self, body: dict[str, Any]) -> Any:
        if body["messages"][0]["content"] != "Say: ready":
            text = json.dumps(body)
            if text not in self.different and len(self.different) >= self.most:
                return Fault.hang
            self.different.add(text)
            self.answered.append(body)
        return play(body)


UNDER_WAY = 2 * 4
"""How many requests are under way together: two processes, each with four."""


def kill_until_done(lab: Lab, kills: int, gate: Gate, answers: int, *options: str) -> None:
    """Kills the run and its workers at random moments of so many different answers, then lets it end."""
    rng = random.Random(0)
    for left in range(kills, 0, -1):
        share = (answers - len(gate.different)) // (left + 1) - UNDER_WAY
        more = len(gate.different) + rng.randrange(1, share)
        gate.most = more + UNDER_WAY  # what is on its way when the kill comes may still be answered
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster_project.cli", "run", "lm.yaml", *options],
            cwd=lab.directory, env=lab.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while len(gate.different) < more:
            assert process.poll() is None, "it ended before all was answered"
            time.sleep(0.001)
        process.kill()
        process.wait()
        time.sleep(0.3)  # its workers die with it, a moment later
    gate.most = sys.maxsize
    lab.frontier("run", "lm.yaml", *options)


def check_killed(ran: Ran, folder: Path, kills: int, *options: str) -> None:
    gate = Gate()
    with ChatServer(gate.play, latency=0.05) as server:
        lab = make_lab(folder, server.url, limits={"processes": 2, "concurrency": 4})
        # What two agents ask alike may be asked once.
        asked = {
            json.dumps(body)
            for body in ran.requests
            if body["messages"][0]["content"] != "Say: ready" and not (options and body["model"].startswith("judge"))
        }
        kill_until_done(lab, kills, gate, len(asked), *options)
    assert (trajectories if options else records)(lab) == (trajectories if options else records)(ran.lab)
    keys = [
        (path, json.loads(line)["key"])
        for path in (lab.directory / "data" / "lm" / "replies").rglob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert len(keys) == len(set(keys)), "a reply in the journal was bought again"
    assert doubled(gate.answered) <= doubled(ran.requests) + kills * UNDER_WAY, (
        "more was bought again than what was under way"
    )


def test_a_killed_run_ends_the_same_and_buys_nothing_twice(ran: Ran, tmp_path: Path) -> None:
    check_killed(ran, tmp_path / "killed", 1, *TRAJECTORIES)


@pytest.mark.timeout(1800)
def test_a_run_killed_again_and_again_ends_the_same_and_buys_nothing_twice(ran: Ran, tmp_path: Path) -> None:
    check_killed(ran, tmp_path / "killed", 20)


def test_agents_trained_here_are_judged_there(tmp_path: Path) -> None:
    """Models in process and behind an endpoint in one experiment, trained on a language model's verdicts."""
    here = {name: {"kind": "openai", "endpoint": "here", "model": name} for name in ("agent-a", "judge-x")}
    with ChatServer(play) as server:
        lab = make_small_lab(
            tmp_path,
            endpoints={"here": {"url": server.url}},
            models={**SMALL["models"], "remote": here["agent-a"]},  # type: ignore[dict-item]
            judges={**SMALL["judges"], "lm": here["judge-x"]},  # type: ignore[dict-item]
            grid={**SMALL["grid"], "pairs_judges": ["lm"], "recipes": ["safe"], "seeds": [0]},  # type: ignore[dict-item]
        )
        lab.frontier("run", "small.yaml")

    def ask(sql: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(lab.frontier("query", "small.yaml", sql, "--format", "json").stdout)
        return found

    assert ask("SELECT DISTINCT agent FROM trajectories ORDER BY 1") == [
        {"agent": agent} for agent in ("cautious", "eager", "eager:safe:lm:0.1", "remote")
    ]
    (judged,) = ask("SELECT count(*) AS n FROM evaluations WHERE judge = 'lm' AND agent = 'eager:safe:lm:0.1'")
    assert judged["n"] == 2 * 6 * 2, "two metrics, half of twelve cases, two samples"
    points = ask("SELECT model, recipe FROM frontier_points WHERE judging = 'match' AND judge IS NULL")
    assert points == [{"model": "eager", "recipe": "safe"}]
    used = ask("SELECT DISTINCT asset FROM model_use WHERE role = 'judge' AND calls > 0 ORDER BY 1")
    evaluations = [f"{whose}_evaluations/lm/{metric}" for whose in ("agent", "source") for metric in ("help", "safe")]
    assert [row["asset"] for row in used] == sorted([*evaluations, "judge_calibration/lm"])


def test_the_environment_of_the_tests_has_no_key() -> None:
    assert "TEST_KEY" not in os.environ
