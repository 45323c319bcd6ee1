"""Archives that somebody else made: nothing is written outside the target, and every hostile one is an error."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_project.published.archive import LIMITS, unpack
from dagster_project.published.sources import fingerprints, opened
from toolemu.errors import InputError

SMALL = LIMITS._replace(entries=50, file=10_000, total=500_000, ratio=50, ratio_from=20_000)


def entry(
    name: str, content: bytes = b"x", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as out:
        for info, content in entries:
            out.addfile(info, io.BytesIO(content))
    return file.getvalue()


def block(name: bytes, kind: bytes = b"0", size: bytes = b"00000000001") -> bytes:
    """Returns a header with the right checksum, whatever it says."""
    head = name.ljust(100, b"\0") + b"0000644\0" * 3 + size.ljust(12, b"\0") + b"0" * 12 + b" " * 8 + kind
    head = head.ljust(257, b"\0") + b"ustar\x0000"
    head = head.ljust(512, b"\0")
    return head[:148] + f"{sum(head):06o}\0 ".encode() + head[156:]


def extended(record: bytes, kind: bytes = b"x") -> bytes:
    return block(b"PaxHeader", kind, f"{len(record):011o}".encode()) + record.ljust(
        -len(record) % 512 + len(record), b"\0"
    )


def nested_links() -> bytes:
    """Returns the archive of CVE-2025-4517: links through a path so long that `realpath` gives up on it."""
    found, path = [], ""
    for step in "abcdefghijklmnop":
        found.append(entry(f"{path}{'d' * 247}", b"", tarfile.DIRTYPE))
        found.append(entry(f"{path}{step}", b"", tarfile.SYMTYPE, "d" * 247))
        path += f"{step}/"
    found.append(entry(f"{path}{'l' * 254}", b"", tarfile.SYMTYPE, "../" * 16))
    found.append(entry("escape", b"", tarfile.SYMTYPE, f"{path}{'l' * 254}/../outside"))
    return tar(*found, entry("escape/planted", b"planted"))


def with_dictionary(packed: bytes, size: int) -> bytes:
    """Returns an xz file that asks for a dictionary of another size; 40 is 4 GiB."""
    length = (packed[12] + 1) * 4
    header = packed[12 : 12 + length - 4]
    header = header.replace(b"\x21\x01" + header[4:5], b"\x21\x01" + bytes([size]))
    return packed[:12] + header + zlib.crc32(header).to_bytes(4, "little") + packed[12 + length :]


END = b"\0" * 1024
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    **{
        f"the name {name!r}": (lambda name=name: tar(entry(name)), "archive.unsafe-name")
        for name in (
            "/etc/planted",
            "../planted",
            "a/../../planted",
            "a/..",
            "..\\planted",
            "C:\\planted",
            "C:planted",
            "a/nul",
            "COM1.jsonl",
            "a /b",
            "a./b",
            "a\x1b[31m",
            "a\nb",
            "a\u202eb",
            "a\udcffb",
            "x" * 256,
            "a/" * 40 + "b",
        )
    },
    "nested links (CVE-2025-4517)": (nested_links, "archive.special-file"),
    "a link to a folder above": (
        lambda: tar(entry("a", b"", tarfile.SYMTYPE, ".."), entry("a/planted")),
        "archive.special-file",
    ),
    "a hard link": (lambda: tar(entry("a", b"", tarfile.LNKTYPE, "/etc/passwd")), "archive.special-file"),
    "a pipe": (lambda: tar(entry("a.jsonl", b"", tarfile.FIFOTYPE)), "archive.special-file"),
    "a device": (lambda: tar(entry("a", b"", tarfile.CHRTYPE)), "archive.special-file"),
    "a block device": (lambda: tar(entry("a", b"", tarfile.BLKTYPE)), "archive.special-file"),
    "an unknown kind": (lambda: tar(entry("a", b"", b"Z")), "archive.special-file"),
    "a sparse file": (lambda: tar(entry("a", b"", tarfile.GNUTYPE_SPARSE)), "archive.special-file"),
    "a file twice": (lambda: tar(entry("a"), entry("a")), "archive.twice"),
    "a file twice in other words": (lambda: tar(entry("a"), entry("./a")), "archive.twice"),
    "a file as a folder": (lambda: tar(entry("a"), entry("a/b")), "archive.twice"),
    "many files": (lambda: tar(*(entry(f"a{n}", b"") for n in range(60))), "archive.too-large"),
    "a large file": (lambda: tar(entry("a", b"x" * 20_000)), "archive.too-large"),
    "much in all": (
        lambda: tar(*(entry(f"a{n}", bytes([n]) * 9_999) for n in range(50)), entry("b", b"y" * 9_999)),
        "archive.too-large",
    ),
    "a bomb by xz": (
        lambda: lzma.compress(tar(*(entry(f"a{n}", b"\0" * 9_999) for n in range(30)))),
        "archive.too-large",
    ),
    "a bomb by gzip": (
        lambda: gzip.compress(tar(*(entry(f"a{n}", b"\0" * 9_999) for n in range(30)))),
        "archive.too-large",
    ),
    "a bomb by bzip2": (
        lambda: bz2.compress(tar(*(entry(f"a{n}", b"\0" * 9_999) for n in range(30)))),
        "archive.too-large",
    ),
    "a bomb behind the end": (lambda: lzma.compress(tar(entry("a")) + b"\0" * 400_000), "archive.too-large"),
    "a dictionary of 4 GiB": (
        lambda: with_dictionary(lzma.compress(tar(entry("a"))), 40),
        "archive.damaged",
    ),
    "a header of 8 GiB": (lambda: block(b"a", b"x", b"77777777777") + END, "archive.too-large"),
    "a long name of 8 GiB": (lambda: block(b"a", b"L", b"77777777777") + END, "archive.too-large"),
    "a size below zero": (lambda: block(b"a", b"0", b"\xff" * 12) + END, "archive.damaged"),
    "a size beyond all files": (lambda: block(b"a", b"0", b"\x80" + b"\x7f" * 11) + END, "archive.too-large"),
    "a size in words": (lambda: block(b"a", b"0", b"many") + END, "archive.damaged"),
    "a size of 5,000 digits": (
        lambda: extended(b"5012 size=" + b"9" * 5001 + b"\n") + block(b"a") + b"x" * 512 + END,
        "archive.damaged",
    ),
    "an extended header without end": (lambda: extended(b"99 path=a\n") + block(b"a") + END, "archive.damaged"),
    "an extended header that goes back": (lambda: extended(b"0 path=a\n") + block(b"a") + END, "archive.damaged"),
    "an extended header that repeats": (lambda: extended(b"1" * 200_000) + END, "archive.damaged"),
    "a name above in an extended header": (
        lambda: extended(b"14 path=../ab\n") + block(b"a") + b"x" * 512 + END,
        "archive.unsafe-name",
    ),
    "a name for all files": (lambda: extended(b"11 path=ab\n", b"g") + END, "archive.damaged"),
    "a sparse map": (lambda: extended(b"22 GNU.sparse.major=1\n") + END, "archive.damaged"),
    "a chain of headers": (lambda: block(b"a", b"x", b"0") * 900 + END, "archive.damaged"),
    "a wrong checksum": (lambda: tar(entry("a")).replace(b"ustar", b"Ustar"), "archive.damaged"),
    "a folder with a content": (lambda: block(b"a", b"5") + b"x" * 512 + END, "archive.damaged"),
    "an end within a header": (lambda: tar(entry("a"))[:300], "archive.damaged"),
    "an end within a file": (lambda: tar(entry("a", b"x" * 2000))[:1500], "archive.damaged"),
    "no end mark": (lambda: tar(entry("a"))[:1024], "archive.damaged"),
    "an archive behind the end": (lambda: tar(entry("a")) + tar(entry("b")), "archive.damaged"),
    "cut by xz": (lambda: lzma.compress(tar(entry("a")))[:-20], "archive.damaged"),
    "cut by gzip": (lambda: gzip.compress(tar(entry("a")))[:-9], "archive.damaged"),
    "a byte changed by xz": (lambda: lzma.compress(tar(entry("a")))[:-30] + b"?" * 30, "archive.damaged"),
    "something behind xz": (lambda: lzma.compress(tar(entry("a"))) + b"more", "archive.damaged"),
    "no archive": (lambda: b"not an archive at all" * 99, "archive.damaged"),
    "nothing": (lambda: b"", "archive.damaged"),
}


def below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*"))


@pytest.mark.parametrize(("make", "code"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_an_error_and_writes_nothing_outside(
    tmp_path: Path, make: Callable[[], bytes], code: str
) -> None:
    archive = tmp_path / "in" / "runs.tar.xz"
    archive.parent.mkdir()
    archive.write_bytes(make())
    began = time.process_time()
    with pytest.raises(InputError) as caught:
        unpack(archive, tmp_path / "out" / "target", SMALL)
    assert (caught.value.code, caught.value.path) == (code, str(archive))
    assert time.process_time() - began < 5
    assert {path.relative_to(tmp_path).parts[:2] for path in below(tmp_path)} <= {
        ("in",),
        ("in", "runs.tar.xz"),
        ("out",),
        ("out", "target"),
    }
    assert not any(path.is_symlink() or not (path.is_file() or path.is_dir()) for path in below(tmp_path))
    assert not list(tmp_path.rglob("planted"))


NAMES = st.lists(st.text("abcé -_.", min_size=1, max_size=60), min_size=1, max_size=4).map("/".join)


@settings(max_examples=40)
@given(
    st.dictionaries(NAMES, st.binary(max_size=1500), max_size=5),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
    st.sampled_from([bytes, gzip.compress, bz2.compress, lzma.compress, lambda data: lzma.compress(data) * 1]),
)
def test_what_another_program_packs_is_unpacked_as_it_was_or_refused(
    tmp_path_factory: pytest.TempPathFactory,
    files: dict[str, bytes],
    form: int,
    pack: Callable[[bytes], bytes],
) -> None:
    folder = tmp_path_factory.mktemp("archive")
    archive = folder / "runs.tar"
    archive.write_bytes(pack(tar(*(entry(name, content) for name, content in files.items()), form=form)))
    try:
        unpack(archive, folder / "target")
    except InputError as error:
        assert error.code in ("archive.unsafe-name", "archive.twice")
        return
    found = {path.relative_to(folder / "target").as_posix(): path for path in below(folder / "target")}
    assert {name: path.read_bytes() for name, path in found.items() if path.is_file()} == {
        "/".join(part for part in name.split("/") if part != "."): content for name, content in files.items()
    }


def test_long_names_large_numbers_and_folders_are_read(tmp_path: Path) -> None:
    name = "/".join(["folder" * 20] * 3)
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        info, content = entry(f"{name}/file")
        info.mtime = 2**40  # too large for octal digits
        folder = entry("./empty/", b"", tarfile.DIRTYPE)
        archive = tmp_path / f"{form}.tar.xz"
        packed = tar(entry(".", b"", tarfile.DIRTYPE), folder, (info, content), form=form)
        archive.write_bytes(lzma.compress(packed[:5000]) + b"\0" * 8 + lzma.compress(packed[5000:]))
        unpack(archive, tmp_path / str(form))
        assert (tmp_path / str(form) / name / "file").read_bytes() == b"x"
        assert (tmp_path / str(form) / "empty").is_dir()


@pytest.mark.parametrize("name", ["...tar.gz", ".tar.gz", "..tar", "con.tar.xz", "a\x1b.tar.gz", "a .tar"])
def test_an_archive_whose_name_leads_elsewhere_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(gzip.compress(tar(entry("a"))))
    with pytest.raises(InputError) as caught:
        fingerprints([tmp_path / name])
    assert caught.value.code == "source.name"


def test_what_an_import_that_was_killed_left_is_removed_first(tmp_path: Path) -> None:
    (tmp_path / "runs.tar").write_bytes(tar(entry("runs/a")))
    (tmp_path / "scratch" / "0" / "runs").mkdir(parents=True)
    (tmp_path / "scratch" / "0" / "runs" / "b").write_bytes(b"old")
    with opened({"runs": tmp_path / "runs.tar"}, tmp_path / "scratch") as roots:
        assert [path.name for path in roots["runs"].iterdir()] == ["a"]
