import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.toolemu import killed_rollout
from tests.toolemu.acting import LIGHTS, EchoEmulator, ScriptedChat, case, final, switch
from toolemu.agent import AgentSettings
from toolemu.cases import Case
from toolemu.errors import FrontierError
from toolemu.evaluation import Evaluation, Metric
from toolemu.rollout import evaluate_all, rollout
from toolemu.trajectory import StopReason, Trajectory

ROOT = Path(__file__).parents[2]


def run(journal: Path, model: ScriptedChat, *, cases: Sequence[int] = (4, 2), samples: int = 2) -> list[Trajectory]:
    return asyncio.run(
        rollout(
            {number: case(number) for number in cases},
            {"Lights": LIGHTS},
            model,
            EchoEmulator(),
            AgentSettings(prompt_style="brief"),
            experiment="test",
            agent="a",
            seed=3,
            samples=samples,
            journal=journal,
        )
    )


def test_every_case_is_sampled_in_order(tmp_path: Path) -> None:
    trajectories = run(tmp_path / "journal", ScriptedChat(final()))
    assert [(record.case_idx, record.sample) for record in trajectories] == [(4, 0), (4, 1), (2, 0), (2, 1)]
    assert {(record.experiment, record.agent, record.seed) for record in trajectories} == {("test", "a", 3)}
    assert trajectories[0].user_input == "Switch lamp 4 on."


def test_a_second_call_reads_the_journal(tmp_path: Path) -> None:
    first = run(tmp_path / "journal", ScriptedChat(final()))
    assert run(tmp_path / "journal", ScriptedChat(AssertionError("was asked"))) == first


def test_more_samples_only_add(tmp_path: Path) -> None:
    first = run(tmp_path / "journal", ScriptedChat(final("One.")))
    more = run(tmp_path / "journal", ScriptedChat(final("Two.")), samples=3)
    assert more[:2] == first[:2]
    assert [record.output for record in more] == ["One.", "One.", "Two.", "One.", "One.", "Two."]


def test_missing_toolkits_are_named_before_anything_runs(tmp_path: Path) -> None:
    settings = AgentSettings()
    with pytest.raises(FrontierError, match="Lights"):
        asyncio.run(
            rollout(
                {0: case()}, {}, ScriptedChat(final()), EchoEmulator(), settings,
                experiment="test", agent="a", seed=None, samples=1, journal=tmp_path / "journal",
            )
        )  # fmt: skip


class LengthJudge:
    """Scores by the number of steps."""

    name = "length"

    def __init__(self) -> None:
        self.asked = Counter[str]()

    async def evaluate(self, case: Case, trajectory: Trajectory, metric: Metric, replicate: int = 0) -> Evaluation:
        self.asked[trajectory.trajectory_id] += 1
        assert case.user_instruction == trajectory.user_input
        return Evaluation.of(
            trajectory,
            judge=self.name,
            metric=metric,
            replicate=replicate,
            score=min(3, len(trajectory.steps)),
            parsed_by="rules",
        )


def test_every_trajectory_is_judged_on_every_metric_and_replicate(tmp_path: Path) -> None:
    trajectories = run(tmp_path / "journal", ScriptedChat(switch()))
    cases, judge = {4: case(4), 2: case(2)}, LengthJudge()

    def judged(metrics: list[Metric], replicates: int) -> list[Evaluation]:
        journal = tmp_path / "evaluations"
        return asyncio.run(evaluate_all(judge, cases, trajectories, metrics, replicates=replicates, journal=journal))

    verdicts = judged([Metric.safe, Metric.help], 2)
    assert [(verdict.case_idx, verdict.sample, verdict.metric, verdict.replicate) for verdict in verdicts[:5]] == [
        (4, 0, "safe", 0), (4, 0, "safe", 1), (4, 0, "help", 0), (4, 0, "help", 1), (4, 1, "safe", 0),
    ]  # fmt: skip
    assert len(verdicts) == 16
    assert all(verdict.score == 3 for verdict in verdicts)
    judge.asked.clear()
    assert judged([Metric.help], 2) == [verdict for verdict in verdicts if verdict.metric is Metric.help]
    assert judge.asked == {}
    judged([Metric.help], 3)
    assert set(judge.asked.values()) == {1}


def _kill_until_done(folder: Path, kills: int, rng: random.Random) -> int:
    """Starts the rollout, kills it at random moments `kills` times, then lets it end; returns how often it was hit."""
    command = [sys.executable, "-m", "tests.toolemu.killed_rollout", str(folder)]
    journal, hit = folder / "journal.jsonl", 0
    for _ in range(kills):
        before = journal.stat().st_size if journal.exists() else 0
        process = subprocess.Popen(command, cwd=ROOT)
        while process.poll() is None and (not journal.exists() or journal.stat().st_size <= before):
            time.sleep(0.001)
        time.sleep(rng.random() / 20)
        hit += process.poll() is None
        process.kill()
        process.wait()
        if rng.random() < 0.5 and journal.exists() and (content := journal.read_bytes()):
            # A write that the machine, not the process, did not finish.
            journal.write_bytes(content[: -rng.randrange(1, 200)])
    subprocess.run(command, cwd=ROOT, check=True)
    return hit


def _check_killed(folder: Path, kills: int, seed: int) -> None:
    whole, killed = folder / "whole", folder / "killed"
    whole.mkdir()
    killed.mkdir()
    killed_rollout.main(whole)
    assert _kill_until_done(killed, kills, random.Random(seed)) >= 1
    assert (killed / "trajectories.jsonl").read_bytes() == (whole / "trajectories.jsonl").read_bytes()
    total = killed_rollout.CASES * killed_rollout.SAMPLES
    identities = [json.loads(line)["trajectory_id"] for line in (killed / "journal.jsonl").read_text().splitlines()]
    assert len(identities) == len(set(identities)) == total
    started = len((killed / "started").read_text().splitlines())
    # A kill costs at most what was under way, and a torn line at most the record it tears.
    assert total < started <= total + kills * (6 + 1)


def test_a_killed_rollout_gives_the_same_trajectories(tmp_path: Path) -> None:
    _check_killed(tmp_path, kills=2, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_rollout_killed_again_and_again_gives_the_same_trajectories(tmp_path: Path, seed: int) -> None:
    _check_killed(tmp_path, kills=8, seed=seed)


def test_endings_of_a_rollout_are_honest(tmp_path: Path) -> None:
    trajectories = run(tmp_path / "journal", ScriptedChat("chatter"))
    assert {record.stop_reason for record in trajectories} == {StopReason.unparseable}
