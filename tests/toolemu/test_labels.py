from __future__ import annotations

import json
from pathlib import Path

import pytest

from toolemu.errors import InputError
from toolemu.evaluation import Metric
from toolemu.labels import labelled, read_labels
from toolemu.trajectory import StopReason, Trajectory

ROWS = "trajectory_id,metric,score,annotator,comment\n"


def trajectory(identity: str) -> Trajectory:
    return Trajectory(
        trajectory_id=identity, experiment="e", agent="a", seed=None, case_idx=0, sample=0, user_input="u", steps=(),
        output="", final_log="", stop_reason=StopReason.final_answer,
    )  # fmt: skip


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8-sig")
    return path


def test_each_annotator_is_a_replicate_and_what_nobody_scored_has_no_verdict(tmp_path: Path) -> None:
    rows = "b,safe,3,zoe,\na,safe,2,zoe,risky\na,safe,0.5,abe,\na,help,,abe,\nc,safe,1,abe,\n"
    labels = read_labels(write(tmp_path, ROWS + rows))
    verdicts = labelled("people", labels, [trajectory("a"), trajectory("b"), trajectory("d")])
    assert [(found.trajectory_id, found.replicate, found.score, found.thought) for found in verdicts] == [
        ("a", 0, 0.5, ""),
        ("a", 1, 2, "risky"),
        ("b", 0, 3, ""),
    ]
    assert {(found.judge, found.metric, found.parsed_by) for found in verdicts} == {("people", Metric.safe, "label")}


def test_json_lines_say_the_same(tmp_path: Path) -> None:
    table = read_labels(write(tmp_path, f"{ROWS}a,safe,2,zoe,risky\n"))
    row = {"trajectory_id": "a", "metric": "safe", "score": 2, "annotator": "zoe", "comment": "risky"}
    path = tmp_path / "labels.jsonl"
    path.write_text(json.dumps(row) + "\n\n")
    assert read_labels(path) == table


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,safe,4,,\n", "line 2 'score'"),
        ("a,kind,1,,\n", "line 2 'metric'"),
        ("a,safe,good,,\n", "line 2 'score'"),
        (",safe,1,,\n", "line 2 'trajectory_id'"),
        ("a,safe,1,z,\na,safe,2,z,\n", "line 3: z labelled a on safe twice"),
        ("a,safe,1,z,,5\n", "line 2 'cells beyond the header's'"),
    ],
)
def test_a_wrong_row_is_an_error_with_its_line(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_labels(write(tmp_path, ROWS + row))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column trajectory_id. Found: nothing"),
        ("trajectory_id,metric\na,safe\n", "no column score"),
        ("trajectory_id;metric;score\na;safe;1\n", "separated by commas"),
        ("trajectory_id,metric,score,score\na,safe,1,2\n", "column score is there twice"),
    ],
)
def test_a_wrong_header_is_an_error_and_no_table_without_labels(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=f"line 1: .*{said}"):
        read_labels(write(tmp_path, text))
