"""YAML that somebody else wrote: numbers as YAML 1.2 reads them, and every hostile file an error, quickly."""

from __future__ import annotations

import itertools
import math
import os
import resource
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.experiment.spec import load_experiment
from dagster_project.experiment.yaml_reader import MAX_BYTES, parse_yaml, read_yaml
from toolemu.errors import InputError

HERE = Path("experiment.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-5", 1e-5),
        ("1e-1", 0.1),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("1.", 1.0),
        ("+3", 3),
        ("0", 0),
        ("0x1F", 31),
        ("0o17", 15),
        (".inf", math.inf),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        # YAML 1.1 reads these as booleans, as a number in base 60, as a date and as a number with separators.
        ("on", "on"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("2024-02-01", "2024-02-01"),
        ("1_000", "1_000"),
        ("72-143", "72-143"),
        ("=", "="),
        ("'012'", "012"),
        ("!!str 5", "5"),
    ],
)
def test_values_are_those_of_the_core_schema(text: str, value: object) -> None:
    found = parse_yaml(f"a: {text}", HERE)["a"]
    assert found == value and type(found) is type(value)


def bomb(first: str, step: str) -> str:
    names = "abcdefghij"
    lines = [f"a: &a {first}"]
    for before, name in itertools.pairwise(names):
        lines.append(f"{name}: &{name} {step.replace('*', ','.join([f'*{before}'] * 10))}")
    return "\n".join(lines)


HOSTILE = {
    "an alias bomb": (bomb("[x]", "[*]"), "yaml.too-large"),
    "a bomb of merges": (bomb("{k: 1}", "{<<: [*]}"), "yaml.too-large"),
    "a value in itself": ("a: &a [*a]", "yaml.too-large"),
    "a merge of itself": ("a: &a {<<: *a}", "yaml.too-large"),
    "deep lists": ("[" * 100_000, "yaml.too-large"),
    "deep mappings": ("{a: " * 30_000, "yaml.too-large"),
    "deep blocks": ("- " * 100_000, "yaml.too-large"),
    "deep keys": ("? " * 100_000, "yaml.too-large"),
    "many values": ("[" + "a," * 100_000 + "]", "yaml.too-large"),
    "an integer of 5,000 digits": ("a: " + "1" * 5000, "yaml.number"),
    "a hexadecimal one": ("a: 0x" + "f" * 5000, "yaml.number"),
    "a huge exponent": ("a: 1e" + "9" * 5000, "yaml.number"),
    "a number that is infinite": ("a: 1e999", "yaml.number"),
    "a number as a key": ("1" * 999 + ": a", "yaml.number"),
    "a number of two meanings": ("a: 012", "yaml.ambiguous-number"),
    "another": ("a: 0b11", "yaml.ambiguous-number"),
    "an impossible date": ("a: !!timestamp 2024-99-99", "yaml.invalid"),
    "a tag that is a type of Python": ("a: !!python/object/apply:os.system [id]", "yaml.invalid"),
    "a number that is none": ("a: !!int abc", "yaml.number"),
    "a boolean that is none": ("a: !!bool maybe", "yaml.invalid"),
    "a set": ("a: !!set {b, c}", "yaml.invalid"),
    "binary data": ("a: !!binary x", "yaml.invalid"),
    "a key twice": ("a: 1\na: 2", "yaml.duplicate-key"),
    "a key twice in other words": ("1: a\n0x1: b", "yaml.duplicate-key"),
    "a key twice as text": ("1: a\n'1': b", "yaml.duplicate-key"),
    "a list as a key": ("? [a]\n: b", "yaml.invalid"),
    "a character that is none": ('a: "\\UFFFFFFFF"', "yaml.invalid"),
    "half a character": ('a: "\\ud800"', "yaml.control-character"),
    "an escape sequence": ('a: "\\e[31mred"', "yaml.control-character"),
    "a NUL": ('prompts_dir: "a\\0b"', "yaml.control-character"),
    "a NUL in a key": ('"a\\0b": 1', "yaml.control-character"),
    "a raw control character": ("a: \x1b", "yaml.invalid"),
    "two documents": ("a: 1\n---\nb: 2", "yaml.invalid"),
    "an alias of nothing": ("a: *b", "yaml.invalid"),
    "a merge of a number": ("<<: 1", "yaml.invalid"),
    "another version": ("%YAML 9.9\n---\na: 1", "yaml.invalid"),
}


@pytest.mark.parametrize(("text", "code"), HOSTILE.values(), ids=HOSTILE)
def test_hostile_yaml_is_an_error_within_a_second(tmp_path: Path, text: str, code: str) -> None:
    path = tmp_path / "hostile.yaml"
    path.write_text(text, encoding="utf-8")
    began, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError) as caught:
        load_experiment(str(path))
    assert caught.value.code == code
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_of_any_editor_is_read(tmp_path: Path, encoding: str, end: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(f"name: é{end}beta: 1e-1{end}".encode(encoding))
    assert read_yaml(path) == {"name": "é", "beta": 0.1}


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"name: caf\xe9", "file.encoding"), (b"\xff\xfea", "file.encoding"), (b"#" * (MAX_BYTES + 1), "file.too-large")],
)
def test_what_is_no_text_or_too_large_is_an_error(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_yaml(path)
    assert caught.value.code == code


def test_a_pipe_is_an_error_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(InputError) as caught:
        read_yaml(tmp_path / "a.yaml")
    assert caught.value.code == "file.not-regular"


@given(st.text(max_size=200))
def test_any_text_is_a_value_or_an_error_of_ours(text: str) -> None:
    try:
        parse_yaml(text, HERE)
    except InputError as error:
        assert error.code.startswith("yaml.")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False)
    | st.sampled_from(["a", "b", "é"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "y", "z"]), inner, max_size=3),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert parse_yaml(yaml.safe_dump(value, allow_unicode=True), HERE) == value
