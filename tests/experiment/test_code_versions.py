"""Nobody forgets to raise a code version: artifacts of older code would silently count as made by the new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.experiment import code_versions


def test_every_change_of_what_is_made_has_a_new_version_or_is_said_to_be_none() -> None:
    now, known = code_versions.current(), code_versions.recorded()
    changed = [name for name, entry in now.items() if known.get(name) != entry]
    assert not changed and now.keys() == known.keys(), (
        f"The sources or the version of {', '.join(changed)} changed. Raise the version if what is made differs, and "
        "run: python -m tests.experiment.code_versions (--same NAME if what is made is the same)"
    )


def test_a_version_that_was_forgotten_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "room.py"
    monkeypatch.setattr(code_versions, "ROOT", tmp_path)
    monkeypatch.setattr(code_versions, "RECORD", tmp_path / "record.json")

    def write(text: str, version: str = "1") -> None:
        source.write_text(text, encoding="utf-8")
        entry = code_versions.Versioned((version,), ("room.py",))
        monkeypatch.setattr(code_versions, "VERSIONED", {"room": entry})

    def record(*arguments: str) -> None:
        monkeypatch.setattr("sys.argv", ["code_versions", *arguments])
        code_versions.main()

    write('def f():\n    "Doc."\n    return 1\n')
    record()
    write('def f():  # a comment\n    "Another doc."\n    return 1\n')
    assert code_versions.forgotten() == [] and code_versions.current() == code_versions.recorded()
    write("def f():\n    if True:\n        pass\n    return 1\n")
    record("--same", "room")
    write("def f():\n    if True:\n        pass\n        return 1\n")  # no more than an indentation
    assert code_versions.forgotten() == ["room"]
    write("def f():\n    return 2\n")
    assert code_versions.forgotten() == ["room"]
    with pytest.raises(SystemExit):
        record()
    record("--same", "room")
    write("def f():\n    return 3\n", "2")
    record()
    assert code_versions.recorded() == code_versions.current()
