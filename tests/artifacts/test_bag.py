from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dagster_project.artifacts.bag import DATA, PAYLOAD_LIST, SIGNATURE, read_bag, seal
from toolemu.errors import InputError


def problems_of(bag: Path) -> list[str]:
    return read_bag(bag).problems


NAMES = ("a.txt", "deep/er/b.json", "ünï cödé/→ c")


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    for place, name in enumerate(NAMES):
        path = tmp_path / "bag" / DATA / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(range(20 + place)))
    assert seal(tmp_path / "bag", {"External-Identifier": "x\ny"}) == len(NAMES)
    return tmp_path / "bag"


def test_a_bag_is_whole_and_others_can_check_it(bag: Path) -> None:
    assert problems_of(bag) == []
    checked = subprocess.run(
        ["sha256sum", "--check", "--quiet", PAYLOAD_LIST], cwd=bag, capture_output=True, check=False
    )
    assert checked.returncode == 0


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_byte_can_change_unnoticed(bag: Path, data: st.DataObject) -> None:
    copy = bag.parent / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(bag, copy)
    path = data.draw(st.sampled_from(sorted(path for path in copy.rglob("*") if path.is_file())))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    name = path.relative_to(copy).as_posix()
    try:
        problems = problems_of(copy)
    except InputError as error:
        problems = [str(error)]
    assert any(name in problem for problem in problems), (name, place, problems)


def test_missing_and_added_files_are_named(bag: Path) -> None:
    (bag / DATA / "a.txt").unlink()
    (bag / DATA / "new").write_text("")
    (bag / "note").write_text("")
    problems = problems_of(bag)
    assert "data/a.txt: missing" in problems
    assert f"data/new: not in {PAYLOAD_LIST}" in problems
    assert any(problem.startswith("note: not in") for problem in problems)


def test_a_link_is_no_content(bag: Path) -> None:
    (bag / DATA / "link").symlink_to("/etc/hostname")
    (bag / DATA / "above").symlink_to("..")
    (bag / "beside").symlink_to("/dev/zero")
    assert {"data/link: is a link", "data/above: is a link", "beside: is a link"} <= {*problems_of(bag)}


def test_whatever_is_in_no_list_is_named_wherever_it_lies(bag: Path) -> None:
    os.mkfifo(bag / DATA / "pipe")
    (bag / DATA / "empty").mkdir()
    (bag / "beside" / "deep").mkdir(parents=True)
    (bag / "beside" / "deep" / "file").write_text("x")
    (bag / DATA / ".hidden").write_text("x")
    (bag / DATA / "a\nb").write_text("x")
    (bag / DATA / "c\udcff").write_text("x")
    (bag / DATA / SIGNATURE).write_text("x")
    (bag / SIGNATURE).write_text("x")  # the one file that no list can hold
    named = {problem.partition(": ")[0] for problem in problems_of(bag)}
    assert named == {
        "data/pipe",
        "data/empty",
        "beside/deep/file",
        "data/.hidden",
        "'data/a\\nb'",
        "'data/c\\udcff'",
        f"data/{SIGNATURE}",
    }


def test_another_folder_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read_bag(tmp_path)
    assert caught.value.code == "bundle.none"


def test_a_list_that_is_a_device_is_not_read(bag: Path) -> None:
    (bag / PAYLOAD_LIST).unlink()
    (bag / PAYLOAD_LIST).symlink_to("/dev/zero")
    with pytest.raises(InputError) as caught:
        read_bag(bag)
    assert caught.value.code == "bundle.none"
