"""What others may read and write: a new data folder is private, and a restrictive mask holds for all files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.private import check_private, private_folder, read_private, write_private
from dagster_project.operations.instance import open_instance
from toolemu.errors import FrontierError


@pytest.fixture
def mask() -> Iterator[None]:
    old = os.umask(0o022)
    yield
    os.umask(old)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def write(root: Path) -> None:
    store = ArtifactStore(root, "e")
    store.check()
    with store.write(Ref("a"), run_id="r", code_version="1", config={}, inputs={}) as draft:
        (draft.path / "file").write_text("x")
    store.keep("failures/x.json", b"{}")


def test_a_new_data_folder_is_for_its_user_alone_and_an_old_one_keeps_its_mode(mask: None, tmp_path: Path) -> None:
    write(tmp_path / "new")
    assert mode(tmp_path / "new") == 0o700
    (tmp_path / "shared").mkdir(mode=0o755)
    write(tmp_path / "shared")
    assert mode(tmp_path / "shared") == 0o755


def test_a_new_home_of_dagster_is_for_its_user_alone(
    mask: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    open_instance().dispose()
    assert mode(tmp_path / "home") == 0o700


def test_a_restrictive_mask_holds_for_every_file(mask: None, tmp_path: Path) -> None:
    os.umask(0o077)
    (tmp_path / "shared").mkdir(mode=0o755)
    write(tmp_path / "shared")
    assert not [path for path in (tmp_path / "shared").rglob("*") if mode(path) & 0o077]


def test_a_private_file_is_readable_by_its_user_alone(mask: None, tmp_path: Path) -> None:
    os.umask(0)
    folder = private_folder(tmp_path / "private")
    write_private(folder / "file", b"x")
    assert (mode(folder), mode(folder / "file"), read_private(folder / "file")) == (0o700, 0o600, b"x")
    assert read_private(folder / "other") is None
    (folder / "link").symlink_to(folder / "file")
    (folder / "file").chmod(0o622)
    for path in (folder / "link", folder / "file"):
        with pytest.raises(FrontierError) as raised:
            check_private(path)
        assert raised.value.code == "files.not-private"


def test_a_private_file_is_not_written_through_a_planted_link(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("mine")
    folder = private_folder(tmp_path / "private")
    (folder / f".file.{os.getpid()}.partial").symlink_to(tmp_path / "victim")
    write_private(folder / "file", b"x")
    assert (tmp_path / "victim").read_text() == "mine"
