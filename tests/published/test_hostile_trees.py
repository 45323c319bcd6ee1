"""Trees of runs that somebody else made: the import ends soon, with a finding for each thing that it did not take."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from dagster_project.experiment.splits import split_cases
from dagster_project.published.names import BadNameError, parse_agent_name, parse_file_name
from dagster_project.published.problems import Problem
from dagster_project.published.sources import fingerprints, walk
from tests.published.importing import Result, run_import
from tests.published.tree import N_CASES, trajectory, write_agent, write_lines
from toolemu.errors import InputError

AGENT = "org_Tiny-1B"
STEM = "{}_emu-org_Emu_eval-org_Judge-A"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_agent(tmp_path / "results", AGENT, "org_Judge-A", "alpha", None, set(range(N_CASES)))
    return tmp_path / "results"


def imported(root: Path, tmp_path: Path) -> Result:
    """Imports the tree, and makes sure that the good agent came in and that nothing took long."""
    began = time.process_time()
    fingerprints([root])
    result = run_import(root, at=tmp_path / "at")
    assert time.process_time() - began < 10
    assert result.inventory.source_models == ("Tiny-1B",)
    assert [found.case_idx for found in result.trajectories("source_trajectories", model="Tiny-1B")] == list(
        range(N_CASES)
    )
    assert all((problem.file + problem.text).isprintable() for problem in result.problems)
    return result


def loop(root: Path) -> None:
    (root / AGENT / "loop").symlink_to(root)


def crossed(root: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (root / name).mkdir()
        (root / name / "over").symlink_to(root / other)


def many_ways(root: Path) -> None:
    for name in "abcdefghijkl":
        (root / name).mkdir()
        for other in "abcdefghijkl":
            (root / name / other).symlink_to(root / other)


def to_itself(root: Path) -> None:
    (root / "loop").symlink_to(root / "loop")


def above(root: Path) -> None:
    (root / "up").symlink_to("/")


def pipe(root: Path) -> None:
    os.mkfifo(root / "pipe")


def device(root: Path) -> None:
    (root / "zero").symlink_to("/dev/zero")


def dangling(root: Path) -> None:
    (root / "gone").symlink_to(root / "nowhere")


@pytest.mark.parametrize("plant", [loop, crossed, many_ways, to_itself, above, pipe, device, dangling])
def test_links_and_special_files_are_noted_and_not_followed_for_ever(
    root: Path, tmp_path: Path, plant: Callable[[Path], None]
) -> None:
    plant(root)
    result = imported(root, tmp_path)
    assert result.notes["link"] and not result.errors


def test_a_folder_that_two_links_lead_to_is_read_by_its_own_name(root: Path, tmp_path: Path) -> None:
    (root / "Aaa").symlink_to(root / AGENT)
    assert imported(root, tmp_path).notes == {
        "link": 1,
        "out_of_memory": imported(root, tmp_path).notes["out_of_memory"],
    }


def as_pipe(path: Path) -> None:
    os.mkfifo(path)


def as_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def as_dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def as_loop(path: Path) -> None:
    path.symlink_to(path)


def as_huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)  # a hole: it takes no room on the disk


@pytest.mark.parametrize("plant", [as_pipe, as_device, as_dangling, as_loop, as_huge])
def test_a_released_file_that_is_none_is_reported(root: Path, tmp_path: Path, plant: Callable[[Path], None]) -> None:
    (root / "org_Evil-1B").mkdir()
    plant(root / "org_Evil-1B" / f"{STEM.format('org_Evil-1B')}.jsonl")
    assert imported(root, tmp_path).errors["unreadable"] == 1


LONG = "9" * 60
NAMES = {
    "a range of 900,000,000,000": f"{STEM}_r0-900000000000",
    "a range of a huge number": f"{STEM}_r0-{LONG}",
    "a control character in the model": STEM.replace("{}", "org_E\x1b[31mvil"),
    "a line end in the model": STEM.replace("{}", "org_E\nvil"),
    "a tab in the judge": STEM.replace("Judge-A", "Ju\tdge"),
    "three full stops in the judge": STEM.replace("Judge-A", "Ju...dge"),
    "a bar in the judge": STEM.replace("Judge-A", "Ju|dge"),
    "a picture in the judge": STEM.replace("Judge-A", "![x](http:x)"),
    "markup in the judge": STEM.replace("Judge-A", "<img src=x>"),
    "a formula as the judge": STEM.replace("org_Judge-A", "=1+1"),
    "a formula as the emulator": STEM.replace("org_Emu", "@SUM(1)"),
    "a full stop first": STEM.replace("org_Judge-A", ".hidden"),
    "other digits": f"{STEM}_r٠-٥",
    "no UTF-8": STEM.replace("{}", "org_E\udcffvil"),
    "a mark that turns the text": STEM.replace("Judge-A", "Ju\u202edge"),
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_hostile_name_is_reported_and_the_rest_is_taken(root: Path, tmp_path: Path, name: str) -> None:
    directory = name.partition("_emu-")[0].format("org_Evil-1B")
    write_lines(root / directory / f"{name.format('org_Evil-1B')}.jsonl", [trajectory(0, "x")])
    result = imported(root, tmp_path)
    assert result.errors.keys() & {"name", "count", "range", "no_verdicts"}


@pytest.mark.parametrize(
    "name",
    [
        f"dpo_Tiny_safe_alpha_s{2**31}",
        f"dpo_Tiny_safe_alpha_s{'9' * 200}",
        "dpo_Tiny_safe_alpha_beta-0_s0",
        "dpo_Tiny_safe_alpha_beta-0.0_s0",
        "dpo_Tiny_safe_alpha_s٣",
    ],
)
def test_a_seed_or_beta_that_no_table_holds_is_an_error(name: str) -> None:
    with pytest.raises(BadNameError):
        parse_agent_name(name)


def test_every_released_spelling_is_still_a_name() -> None:
    name = "Qwen_Qwen2.5-7B-Instruct_emu-Qwen_Qwen3-8B_eval-Qwen_Qwen3-32B_int4_r0-15_2601_115149"
    fields = parse_file_name(f"{name}_eval_agent_safe_t0.5.jsonl")
    assert (fields.agent, fields.start, fields.end) == ("Qwen_Qwen2.5-7B-Instruct", 0, 15)


def test_two_betas_that_print_alike_are_not_one_agent(tmp_path: Path) -> None:
    root = tmp_path / "results"
    write_agent(root, AGENT, "org_Judge-A", "alpha", None, set(range(N_CASES)))
    cases = set(split_cases(N_CASES, 0).test)
    for beta in ("0.3", "0.3000001"):
        write_agent(root, f"dpo_Tiny-1B_safe_alpha_beta-{beta}_s0", "org_Judge-A", "alpha", 0, cases)
    result = imported(root, tmp_path)
    assert result.errors["name"] and len(result.inventory.agents) == 1


def test_two_judges_whose_names_dagster_would_mix_up_are_reported(root: Path, tmp_path: Path) -> None:
    write_agent(root, "org_Zeta-1B", "org_Judge.a", "alpha", None, set(range(N_CASES)))
    assert imported(root, tmp_path).errors.keys() == {"name"}


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


RECORDS = {
    "a deep output": lambda record: record.update(output=nested(200)),
    "deep steps": lambda record: record.update(intermediate_steps=[nested(200)]),
    "a deep case": lambda record: record["case"].update(Rules={"a": nested(200)}),
    "a case with another key": lambda record: record["case"].update(extra=1),
    "a case without its toolkits": lambda record: record["case"].pop("Toolkits"),
    "toolkits that are none": lambda record: record["case"].update(Toolkits=[1]),
}


@pytest.mark.parametrize("change", RECORDS.values(), ids=RECORDS)
def test_a_hostile_record_is_reported(root: Path, tmp_path: Path, change: Callable[[dict[str, object]], None]) -> None:
    record = trajectory(0, "org_Evil-1B")
    change(record)
    write_lines(root / "org_Evil-1B" / f"{STEM.format('org_Evil-1B')}.jsonl", [record])
    assert imported(root, tmp_path).errors["record"] == 1


@pytest.mark.parametrize("line", [b"[" * 100_000, b'{"case_idx": ' + b"1" * 5000 + b"}", b'{"a":' * 2000, b'"\\ud800"'])
def test_a_hostile_line_is_reported(root: Path, tmp_path: Path, line: bytes) -> None:
    path = root / "org_Evil-1B" / f"{STEM.format('org_Evil-1B')}.jsonl"
    path.parent.mkdir()
    path.write_bytes(line)
    assert imported(root, tmp_path).errors.keys() & {"json", "record"}


def test_too_many_files_are_an_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dagster_project.published.sources.MAX_ENTRIES", 5)
    with pytest.raises(InputError) as caught:
        walk(root)
    assert caught.value.code == "source.too-many-files"


def test_a_finding_is_printable_whatever_it_quotes(tmp_path: Path) -> None:
    problem = Problem("name", "a\x1b[31m\udcff/b\u202e", None, "found 'x\ny'")
    assert str(problem).isprintable() and orjson.dumps(problem.model_dump())
