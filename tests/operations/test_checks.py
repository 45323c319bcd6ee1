"""Checks that stop what depends on wrong data, before it costs anything: each says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.failures import failures
from dagster_project.collect.factories import _emulator_check
from dagster_project.experiment.spec import Experiment
from tests.collect.test_real_models import make_lab as make_lm_lab
from tests.conftest import SMALL, Lab
from tests.lm_world import experiment, play
from tests.operations.test_run import store_of
from tests.toolemu.chat.server import Answer, ChatServer, Refusal
from toolemu.trajectory import ObservationSource, Step, StopReason, Trajectory

pytestmark = pytest.mark.slow

AGENT = "eager:safe:strict:0.1"


def unwrapped(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("limit", "lost", "said"),
    [
        ("min_reward_accuracy", "stage_1/adapters", "the pairs had the right way round; at least 100%"),
        ("min_in_format", "agent_trajectories", "end in a final answer; at least 100%"),
    ],
)
def test_what_went_wrong_in_training_stops_what_comes_after(
    finished: Lab, tmp_path: Path, limit: str, lost: str, said: str
) -> None:
    lab = Lab(tmp_path / "copy", tmp_path / "copy" / "small.yaml")
    shutil.copytree(finished.directory, lab.directory)
    experiment = yaml.safe_load(lab.experiment.read_text())
    lab.experiment.write_text(yaml.safe_dump({**experiment, "limits": {**experiment["limits"], limit: 1.0}}))
    ref = Ref.of(lost, agent=AGENT, seed="0")
    shutil.rmtree(store_of(lab).directory(ref))
    done = lab.frontier("run", "small.yaml", "--select", lost, check=False)
    assert done.returncode == 1
    assert said in unwrapped(done.stdout) and f"limits.{limit}" in done.stdout
    assert store_of(lab).manifest(ref) is None
    lab.experiment.write_text(yaml.safe_dump(experiment))
    lab.frontier("run", "small.yaml", "--select", lost)
    assert store_of(lab).manifest(ref) is not None


def run_with(tmp_path: Path, play: Callable[[dict[str, Any]], str], select: str, **changes: Any) -> str:
    with ChatServer(play) as server:
        done = make_lm_lab(tmp_path, server.url, **changes).frontier("run", "lm.yaml", "--select", select, check=False)
    assert done.returncode == 1
    return unwrapped(done.stdout)


def test_an_agent_that_cannot_be_asked_stops_the_judges_and_is_asked_again(tmp_path: Path) -> None:
    server_is = {"mended": False}

    def refuse(body: dict[str, Any]) -> Answer:
        simple = body["messages"][-1]["content"] == "Say: ready"
        refused = body["model"] == "agent-a" and not simple and not server_is["mended"]
        return Refusal(400, "no roles but one") if refused else play(body)

    with ChatServer(refuse) as server:
        lab = make_lm_lab(tmp_path, server.url)
        done = lab.frontier("run", "lm.yaml", "--select", "source_evaluations/strict", check=False)
        told = unwrapped(done.stdout)
        assert done.returncode == 1 and "24 of 24 trajectories end because agent or emulator could not be asked" in told
        assert "no roles but one" in told and "limits.max_model_errors" in told
        assert {failure.cause for failure in failures(ArtifactStore(lab.location, "lm"))} == {"check"}
        server_is["mended"] = True
        before = len(server.requests)
        lab.frontier("run", "lm.yaml", "--select", "source_trajectories")
        assert {body["model"] for body in server.requests[before:]} == {"agent-a", "emulator-1"}, "of the first alone"


def test_a_source_model_out_of_format_stops_the_judges(tmp_path: Path) -> None:
    def ramble(body: dict[str, Any]) -> str:
        simple = body["messages"][-1]["content"] == "Say: ready"
        return "Let me see." if body["model"] == "agent-a" and not simple else play(body)

    told = run_with(tmp_path, ramble, "source_evaluations/strict")
    assert "source_trajectories [first]: 0% of the trajectories end in a final answer; at least 80% must" in told
    assert "take another model; or, if that is a finding, lower limits.min_in_format" in told
    store = ArtifactStore(tmp_path / "data", "lm")
    assert store.manifest(Ref.of("source_trajectories", model="first")) is None
    assert store.manifest(Ref.of("source_trajectories", model="second")) is not None


def test_an_emulator_that_cannot_be_read_stops_the_judges(tmp_path: Path) -> None:
    def mumble(body: dict[str, Any]) -> str:
        return "I would rather not." if body["model"].startswith("emulator") else play(body)

    told = run_with(tmp_path, mumble, "source_trajectories")
    assert "of the emulator's" in told and "world.emulator.max_revisions" in told


def test_a_judge_that_cannot_be_read_stops_the_pairs(tmp_path: Path) -> None:
    def mumble(body: dict[str, Any]) -> str:
        simple = body["messages"][-1]["content"] == "Say: ready"
        return "Hm." if body["model"] == "judge-x" and not simple else play(body)

    told = run_with(tmp_path, mumble, "source_evaluations/strict")
    assert "verdicts have no score; at most 1% may" in told and "limits.max_unparsed" in told
    judges = {"strict": {**experiment("")["judges"]["strict"], "revision": "mended"}}
    with ChatServer(play) as server:  # at another address, and with another revision it is another judge
        lab = make_lm_lab(tmp_path, server.url, judges=judges)
        lab.frontier("run", "lm.yaml", "--select", "source_evaluations/strict")
        assert {body["model"] for body in server.requests if "Say: ready" not in str(body)} == {"judge-x"}


def test_too_few_pairs_stop_training_and_say_what_gives_more(tmp_path: Path) -> None:
    few = {"grid": {"pairs_judges": ["strict"], "seeds": [0]}, "pairs": {"floor": 10_000}}
    told = run_with(tmp_path, play, "preference_pairs", **few)
    assert "fewer than 10000 train nothing" in told
    assert all(field in told for field in ("source.samples", "pairs.min_gap", "pairs.floor"))


def test_only_what_the_emulator_answered_counts_as_its_answers() -> None:
    def steps(source: ObservationSource, *problems: str) -> tuple[Step, ...]:
        return tuple(
            Step(
                log="", tool="t", tool_input="{}", observation="{}", observation_source=source, observation_problem=said
            )
            for said in problems
        )

    mixed = (*steps(ObservationSource.emulator, "no JSON"), *steps(ObservationSource.validation, *[""] * 30))
    trajectory = Trajectory(
        trajectory_id="t", experiment="e", agent="a", seed=None, case_idx=0, sample=0, user_input="u", steps=mixed,
        output="", final_log="", stop_reason=StopReason.final_answer,
    )  # fmt: skip
    run = SimpleNamespace(experiment=Experiment.model_validate(SMALL))
    check = _emulator_check(run, [trajectory])  # type: ignore[arg-type]
    assert not check.passed and "1 of the emulator's 1 answers" in check.description


def test_a_judge_that_drifts_is_found_at_the_next_seed(tmp_path: Path) -> None:
    judge = {"drifted": False}

    def drift(body: dict[str, Any]) -> str:
        said = play(body)
        if body["model"] == "judge-x" and judge["drifted"] and said.startswith("{"):
            return json.dumps({**json.loads(said), "score": 0, "label": ""})
        return said

    with ChatServer(drift) as server:
        models = {
            "first": {"kind": "openai", "endpoint": "here", "model": "agent-a"},
            "tiny": {"kind": "miniature", "temperament": "eager", "steps": 2},
        }
        grid = {"models": ["tiny"], "recipes": ["safe"], "pairs_judges": ["strict"], "seeds": [0, 1]}
        agent = {"max_steps": 1, "token_budget": 8, "max_tokens_per_turn": 8, "max_reprompts": 0}
        limits = {"processes": 2, "min_in_format": 0.0}
        lab = make_lm_lab(tmp_path, server.url, models=models, grid=grid, agent=agent, limits=limits)
        calibrate = ("run", "lm.yaml", "--select", "judge_calibration/strict", "--seed")
        lab.frontier(*calibrate, "0")
        judge["drifted"] = True
        done = lab.frontier(*calibrate, "1", check=False)
        assert done.returncode == 1
        assert "points otherwise than at first" in unwrapped(done.stdout)
        assert "pin its revision" in unwrapped(done.stdout)
        judge["drifted"] = False
        lab.frontier(*calibrate, "1")  # asks again and finds the judge of old
