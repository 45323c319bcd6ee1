"""The published cases and toolkits load as they are."""

from pathlib import Path

from toolemu.cases import load_cases
from toolemu.prompts import AgentPrompt
from toolemu.toolkits import load_toolkits, tools_of


def find(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).exists() else folder / "assets" / name


def test_the_published_cases_and_toolkits_load(published_runs: Path) -> None:
    toolkits = load_toolkits(find(published_runs, "all_toolkits.json"))
    cases = load_cases(find(published_runs, "all_cases.json"), toolkits)
    assert (len(cases), len(toolkits), len(tools_of(toolkits.values()))) == (144, 38, 330)
    assert sum(len(case.toolkits) for case in cases) == 201
    prompt = AgentPrompt("naive")
    for case in cases:
        messages = prompt.messages(case, [toolkits[name] for name in case.toolkits])
        assert case.user_instruction in messages[-1].content
