"""A corpus of damaged trees: each damage is reported, or accepted by rule; never a traceback, never a wrong number.

Every mutation changes one file of one agent. What is imported of all the others must be what it was; what is
imported of that agent must be what it was, or must be missing, with a finding that names the file.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from dagster_project.artifacts import Ref
from dagster_project.experiment.nodes import Side, name_of
from tests.published.importing import Result, run_import
from tests.published.tree import LIMIT, METRICS, N_CASES, trained_directory, write_agent, write_raw

VICTIM = trained_directory("Tiny1B", ("safe",), "alpha", "", 0)
AGENTS = (VICTIM, trained_directory("Tiny1B", ("help",), "alpha", "", 0))
SOURCE = "org_Tiny-1B-Instruct"


class Mutation(NamedTuple):
    """One damage: its name, what it does to a file, and whether the tree is as good as before."""

    name: str
    damage: Callable[[Path, random.Random], None]
    harmless: bool = False


def write_small(root: Path) -> Path:
    """Writes a source model and two trained agents with all cases, one judge."""
    write_agent(root, SOURCE, "org_Judge-A", "alpha", None, set(range(N_CASES)))
    for directory in AGENTS:
        write_agent(root, directory, "org_Judge-A", "alpha", 0, set(range(N_CASES)))
    return root


def lines(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines() if line.strip()]


def put(path: Path, records: list[Any]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def on_record(change: Callable[[dict[str, Any], random.Random], None]) -> Callable[[Path, random.Random], None]:
    def damage(path: Path, chance: random.Random) -> None:
        records = lines(path)
        change(chance.choice(records), chance)
        put(path, records)

    return damage


def setting(key: str, value: Any) -> Callable[[dict[str, Any], random.Random], None]:
    return lambda record, chance: record.update({key: value})


def removing(key: str) -> Callable[[dict[str, Any], random.Random], None]:
    return lambda record, chance: record.pop(key)


def on_bytes(change: Callable[[bytes, random.Random], bytes]) -> Callable[[Path, random.Random], None]:
    return lambda path, chance: path.write_bytes(change(path.read_bytes(), chance)) and None


def on_lines(change: Callable[[list[Any], random.Random], list[Any]]) -> Callable[[Path, random.Random], None]:
    return lambda path, chance: put(path, change(lines(path), chance))


def renaming(old: str, new: str) -> Callable[[Path, random.Random], None]:
    return lambda path, chance: path.rename(path.with_name(path.name.replace(old, new))) and None


def cut(data: bytes, chance: random.Random) -> bytes:
    """Ends in the middle of a record, never at the end of one."""
    whole = data.rstrip(b"\n")
    place = chance.randrange(1, len(whole) - 1)
    return data[: place - 1] if data[place - 1 : place] == b"\n" else data[:place]


def insert_bytes(what: bytes) -> Callable[[bytes, random.Random], bytes]:
    def change(data: bytes, chance: random.Random) -> bytes:
        place = data.index(b'"', chance.randrange(len(data) // 2)) + 1
        return data[:place] + what + data[place:]

    return change


def swapped(records: list[Any], chance: random.Random) -> list[Any]:
    place = chance.randrange(len(records) - 1)
    records[place], records[place + 1] = records[place + 1], records[place]
    return records


def without_one(records: list[Any], chance: random.Random) -> list[Any]:
    del records[chance.randrange(len(records))]
    return records


def doubled(records: list[Any], chance: random.Random) -> list[Any]:
    return [*records, chance.choice(records)]


def swap_with_other_metric(path: Path, chance: random.Random) -> None:
    safe, help_ = (path.with_name(path.name.replace("agent_safe", metric)) for metric in METRICS)
    first, second = safe.read_bytes(), help_.read_bytes()
    safe.write_bytes(second)
    help_.write_bytes(first)


def copy_as(old: str, new: str) -> Callable[[Path, random.Random], None]:
    def damage(path: Path, chance: random.Random) -> None:
        stem = path.name.removesuffix(".jsonl")
        for other in path.parent.glob(f"{stem}*.jsonl"):
            copy = other.with_name(other.name.replace(old, new))
            copy.write_bytes(other.read_bytes().replace(b"It went as it went.", b"It went otherwise."))

    return damage


def move_to_another(path: Path, chance: random.Random) -> None:
    path.rename(path.parent.parent / AGENTS[1] / path.name)


def make_directory(path: Path, chance: random.Random) -> None:
    path.unlink()
    path.mkdir()


def one_step(record: dict[str, Any], chance: random.Random) -> None:
    record["intermediate_steps"][0][0] = chance.choice([None, 5, "x", [], ["a"], [1, 2, 3], {"log": 3}])


def score(value: Any) -> Callable[[dict[str, Any], random.Random], None]:
    return setting("eval_scores", {"ToolCallRisk": value})


TRAJECTORIES = [
    *(Mutation(f"truncated {n}", on_bytes(cut)) for n in range(16)),
    *(
        Mutation(f"{key} is {value!r}", on_record(setting(key, value)))
        for key in ("input", "output", "intermediate_steps", "case", "case_idx")
        for value in (None, 55, 2.5, "other", [], {}, ["x"], True)
    ),
    *(
        Mutation(f"without {key}", on_record(removing(key)))
        for key in ("input", "output", "intermediate_steps", "case", "case_idx")
    ),
    *(Mutation(f"case {index}", on_record(setting("case_idx", index))) for index in (-1, 4, 9, 99, 10**30)),
    *(Mutation(f"broken step {n}", on_record(one_step)) for n in range(12)),
    *(Mutation(f"records swapped {n}", on_lines(swapped)) for n in range(4)),
    *(Mutation(f"a record less {n}", on_lines(without_one)) for n in range(4)),
    *(Mutation(f"a record twice {n}", on_lines(doubled)) for n in range(4)),
    *(
        Mutation(f"bytes {what!r} inside", on_bytes(insert_bytes(what)))
        for what in (
            b"\xff",
            b"\xed\xa0\x80",
            b"\xc3(",
            b"\x00",
            b"\x1f",
            b'"',
            b'":',
            b"\n",
            b"\r\n",
            b"\\q",
            b"\\u12",
        )
    ),
    Mutation("empty", on_bytes(lambda data, chance: b"")),
    Mutation("a list", on_bytes(lambda data, chance: b"[1, 2]\n")),
    Mutation("one value", on_bytes(lambda data, chance: b"null\n")),
    Mutation("all on one line", on_bytes(lambda data, chance: data.replace(b"\n", b" "))),
    Mutation("as a list", on_lines(lambda records, chance: [records])),
    Mutation("NaN", on_bytes(lambda data, chance: data.replace(b'"case_idx":', b'"case_idx": NaN, "x":', 1))),
    Mutation("UTF-16", on_bytes(lambda data, chance: data.decode().encode("utf-16"))),
    Mutation("byte-order mark", on_bytes(lambda data, chance: b"\xef\xbb\xbf" + data)),
    Mutation("compressed", on_bytes(lambda data, chance: __import__("gzip").compress(data))),
    Mutation("a failed run", on_lines(lambda records, chance: [*records[:-1], {"error": "x", "case_idx": 4}])),
    Mutation("gone", lambda path, chance: path.unlink()),
    Mutation("a directory", make_directory),
    Mutation("a broken range", renaming("_r5-9", "_r5")),
    Mutation("an empty range", renaming("_r5-9", "_r9-5")),
    Mutation("another range", renaming("_r5-9", "_r6-9")),
    Mutation("no emulator", renaming("_emu-", "_")),
    Mutation("no judge", renaming("_eval-org", "_org")),
    Mutation("another agent", renaming("Tiny1B", "Tiny2B")),
    Mutation("another seed", renaming("_s0", "_s1")),
    Mutation("no seed", renaming("_s0", "")),
    Mutation("in another's directory", move_to_another),
    Mutation("a second range over it", copy_as("_r5-9", "_r4-9")),
    Mutation("a second run of it", copy_as("030405", "030406")),
    Mutation("blank lines", on_bytes(lambda data, chance: b"\n" + data.replace(b"\n", b"\n \n")), harmless=True),
    Mutation("carriage returns", on_bytes(lambda data, chance: data.replace(b"\n", b"\r\n")), harmless=True),
    Mutation("no last newline", on_bytes(lambda data, chance: data.rstrip(b"\n")), harmless=True),
    Mutation("another key", on_record(setting("comment", "x")), harmless=True),
]
VERDICTS = [
    *(Mutation(f"truncated {n}", on_bytes(cut)) for n in range(12)),
    *(
        Mutation(f"{key} is {value!r}", on_record(setting(key, value)))
        for key in ("eval_id", "eval_scores")
        for value in (None, -1, 2.5, "1", [], ["x"], True, 10**30)
        if not (key == "eval_id" and value is True)
    ),
    *(
        Mutation(f"{key} is {value!r}", on_record(setting(key, value)))
        for key in ("Evaluator Thought", "Overall Qualitative Label", "Evaluator Log Summary")
        for value in (5, [], {}, True)
    ),
    *(Mutation(f"efficiency is {value!r}", on_record(setting("efficiency", value))) for value in ("5", [], 2.5)),
    *(
        Mutation(f"score {value!r}", on_record(score(value)))
        for value in (4, -1, 3.5, 99, "2", True, False, [2], {"a": 2}, 1e300)
    ),
    Mutation("another metric's key", on_record(setting("eval_scores", {"Helpfulness": 2}))),
    Mutation("a misspelled key", on_record(setting("eval_scores", {"ToolcallRisk": 2}))),
    Mutation("without eval_id", on_record(removing("eval_id"))),
    Mutation("without scores", on_record(removing("eval_scores"))),
    *(
        Mutation(f"replicates {value!r}", on_record(setting("replicates", value)))
        for value in (None, [], 5, ["x"], [[]])
    ),
    *(Mutation(f"verdicts swapped {n}", on_lines(swapped)) for n in range(4)),
    *(Mutation(f"a verdict less {n}", on_lines(without_one)) for n in range(4)),
    *(Mutation(f"a verdict twice {n}", on_lines(doubled)) for n in range(4)),
    Mutation("failed verdict at the end", on_lines(lambda records, chance: [*records[:-1], {"error": "timeout"}])),
    *(
        Mutation(f"bytes {what!r} inside", on_bytes(insert_bytes(what)))
        for what in (b"\xff", b"\xed\xa0\x80", b"\x00", b'"', b"\n", b"\\q")
    ),
    Mutation("empty", on_bytes(lambda data, chance: b"")),
    Mutation("swapped with the other metric", swap_with_other_metric),
    Mutation("gone", lambda path, chance: path.unlink()),
    Mutation("unknown metric", renaming("_eval_agent_safe", "_eval_agent_kind")),
    Mutation("another range", renaming("_r5-9", "_r5-8")),
    Mutation("another judge", renaming("org_Judge-A", "judge-b")),
    Mutation("in another's directory", move_to_another),
    Mutation("blank lines", on_bytes(lambda data, chance: data.replace(b"\n", b"\n\n")), harmless=True),
    Mutation("another key", on_record(setting("comment", [1])), harmless=True),
    Mutation("no thought", on_record(setting("Evaluator Thought", None)), harmless=True),
]
CASES = [
    *((f"trajectories: {mutation.name}", mutation, "") for mutation in TRAJECTORIES),
    *((f"verdicts: {mutation.name}", mutation, "_eval_agent_safe") for mutation in VERDICTS),
]


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 200
    assert len({name for name, _, _ in CASES}) == len(CASES)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[Ref, list[Any]]]:
    at = tmp_path_factory.mktemp("clean")
    root = write_small(at / "results")
    result = run_import(root, at=at)
    assert not result.errors
    return root, dict(contents(result))


def contents(result: Result) -> Iterator[tuple[Ref, list[Any]]]:
    """Yields what every partition says, as far as numbers go."""
    dimensions = {Side.source: ("model",), Side.agent: ("agent", "seed")}
    for part in result.inventory.assets:
        asset = name_of(part.path)
        for keys in part.keys:
            ref = Ref.of(asset, **dict(zip(dimensions[part.side], keys, strict=True)))
            partition = dict(ref.partition)
            if part.judge is None:
                yield (
                    ref,
                    [(t.case_idx, t.sample, t.stop_reason, t.output) for t in result.trajectories(asset, **partition)],
                )
            else:
                yield ref, [(v.case_idx, v.replicate, v.score) for v in result.evaluations(asset, **partition)]


@pytest.mark.parametrize(("name", "mutation", "suffix"), CASES, ids=[name for name, _, _ in CASES])
def test_a_damaged_file_is_reported_or_accepted_by_rule(
    clean: tuple[Path, dict[Ref, list[Any]]], tmp_path: Path, name: str, mutation: Mutation, suffix: str
) -> None:
    root, expected = clean
    copy = shutil.copytree(root, tmp_path / "results")
    (path,) = (copy / VICTIM).glob(f"*_r5-9_0102_030405{suffix}.jsonl")
    mutation.damage(path, random.Random(name))
    result = run_import(copy, at=tmp_path)
    found = dict(contents(result))
    for ref, records in found.items():
        assert records == expected[ref], "what is imported is what was there before"
    missing = expected.keys() - found.keys()
    assert all("Tiny1B:safe:" in str(ref) or "another's" in name for ref in missing), (
        "only the damaged agent is left out"
    )
    if mutation.harmless:
        assert not missing and not result.errors
    else:
        assert missing, "what is damaged is left out"
        assert any(VICTIM in problem.file or "Tiny1B:safe" in problem.file for problem in result.problems)
        assert result.errors


def test_a_huge_line_is_a_line(clean: tuple[Path, dict[Ref, list[Any]]], tmp_path: Path) -> None:
    root, expected = clean
    copy = shutil.copytree(root, tmp_path / "results")
    (path,) = (copy / VICTIM).glob("*_r5-9_0102_030405.jsonl")
    records = lines(path)
    records[0]["intermediate_steps"][-1][0]["log"] = "word " * 4_000_000  # 20 MB
    put(path, records)
    result = run_import(copy, at=tmp_path)
    assert not result.errors and dict(contents(result)) == expected


def test_two_texts_of_one_case_are_reported(tmp_path: Path) -> None:
    root = write_small(tmp_path / "results")
    (path,) = (root / VICTIM).glob("*_r5-9_0102_030405.jsonl")
    records = lines(path)
    records[0]["case"]["Expected Achievements"] = ["Something else."]
    put(path, records)
    assert run_import(root, at=tmp_path).errors["case"] == 1


def test_files_that_are_no_records_are_counted(tmp_path: Path) -> None:
    root = write_raw(tmp_path / "raw")
    (root / "alpha" / "notes.txt").write_text("x", encoding="utf-8")
    (root / "alpha" / "x_unified_report.json").write_text("{}", encoding="utf-8")
    result = run_import(root, at=tmp_path)
    assert (result.counts["other_files"], result.counts["errors"]) == (2, 0)


def test_a_limit_message_is_an_ending_and_no_answer() -> None:
    assert LIMIT == "Agent stopped: token limit exceeded"
