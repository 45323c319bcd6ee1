from __future__ import annotations

from pathlib import Path

from dagster_project.artifacts import Ref
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.spec import Experiment
from dagster_project.report.transcript_files import (
    Source,
    file_name,
    packed,
    sources,
    transcripts,
    unpacked,
    write_transcripts,
)
from tests.conftest import SMALL
from tests.report.page.world import EVIL, trajectory
from toolemu.jsonl import write_jsonl

AGENT = "m:safe:a:0.1"


def source(directory: Path) -> Source:
    write_jsonl(directory / "trajectories.jsonl", [trajectory(AGENT, 0, case) for case in (1, 0)])
    return Source(AGENT, 0, directory / "trajectories.jsonl", ())


def test_a_file_gives_back_what_was_packed(tmp_path: Path) -> None:
    records = list(transcripts(source(tmp_path)))
    assert [record["case_idx"] for record in records] == [0, 1]
    script = packed("x.js", records)
    assert unpacked(script) == records
    assert script == packed("x.js", records)
    assert EVIL.encode() not in script and b"<" not in script


def test_a_file_a_seed_whatever_an_agent_is_called(tmp_path: Path) -> None:
    assert write_transcripts([source(tmp_path)], tmp_path) == 2
    assert (tmp_path / file_name(AGENT, 0)).exists()
    names = {file_name(name, seed) for name in ("../a", "A", "a", "") for seed in (None, 0, 1)}
    assert len(names) == 12 and all(name.removesuffix(".js").isalnum() for name in names)


def test_trajectories_meet_their_own_verdicts() -> None:
    places = {
        Ref.of("source_trajectories", model="m"): Path("1"),
        Ref.of("source_evaluations/strict/safe", model="m"): Path("2"),
        Ref.of("agent_trajectories", agent="x", seed="1"): Path("3"),
        Ref.of("agent_evaluations/strict/safe", agent="x", seed="1"): Path("4"),
        Ref.of("agent_evaluations/strict/safe", agent="x", seed="0"): Path("5"),
    }
    assert sources(build_graph(Experiment.model_validate(SMALL)), places) == [
        Source("m", None, Path("1/trajectories.jsonl"), (Path("2/evaluations.jsonl"),)),
        Source("x", 1, Path("3/trajectories.jsonl"), (Path("4/evaluations.jsonl"),)),
    ]
