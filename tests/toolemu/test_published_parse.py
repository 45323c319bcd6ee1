"""Our parser on everything the published agents wrote."""

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.parse_published import (
    DECORATED,
    INVENTED,
    REPAIRED,
    SAME,
    UNEXPLAINED,
    StoredStep,
    count,
    explain,
)

PublishedTree = Callable[[str], Path]


@pytest.mark.parametrize(
    ("name", "part", "steps", "same"),
    [("match_eval_results", ".", 16_625, 0.88), ("raw_data_by_eval", "gpt5m", 5_876, 0.99)],
)
def test_every_published_step_is_read_the_same_or_explained(
    published_tree: PublishedTree, name: str, part: str, steps: int, same: float
) -> None:
    classes = count(published_tree(name) / part).classes
    assert classes.total() == steps
    assert classes[UNEXPLAINED] == 0
    assert classes[SAME] / steps > same


@pytest.mark.parametrize(
    ("tool", "tool_input", "log", "name"),
    [
        ("Foo", '{"a": 1}', 'Action: Foo\nAction Input: {"a": 1}\n', SAME),
        ("`Foo`", "{}", "Action: `Foo`\nAction Input: {}\n", DECORATED),
        ("Foo", '{"b": 2}', 'Action: Foo\nAction Input: {"a": 1}\nObservation: ```{"b": 2}```', INVENTED),
        ("Foo", "{}", "Action: Foo\nAction Input: (none)\n```json\n{}\n```", REPAIRED),
        ("Foo", "{}", "Final Answer: no", UNEXPLAINED),
    ],
)
def test_classes_mean_what_they_say(tool: str, tool_input: str, log: str, name: str) -> None:
    assert explain(StoredStep("somewhere", tool, tool_input, log)) == name
