from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore, Draft, MissingArtifactError, Ref
from dagster_project.artifacts.lineage import trace
from dagster_project.artifacts.objects import ObjectStore
from toolemu.errors import InputError


def write(store: ArtifactStore, ref: Ref, run_id: str, text: str, *inputs: Ref) -> None:
    entries = {source: store.get(source).entry for source in inputs}
    with store.write(ref, run_id=run_id, code_version="1", config={"a": 1}, inputs=entries) as draft:
        (draft.path / "text.txt").write_text(text)


def objects_of(store: ArtifactStore) -> ObjectStore | None:
    return None if isinstance(store.location, Path) else ObjectStore(store.location)


def alter(store: ArtifactStore, path: str, content: bytes) -> None:
    """Overwrites a file where it lies, as nothing of the project would."""
    objects = objects_of(store)
    if objects:
        objects.put(f"trial/{path}", content)
    else:
        (store.base / path).write_bytes(content)


def files_of(store: ArtifactStore) -> set[str]:
    """Returns every file that there is, here and in the object store."""
    objects = objects_of(store)
    there = {entry.key for entry in objects.entries("trial")} if objects else set()
    return there | {path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file()}


def test_an_artifact_lies_where_its_partition_says_and_reads_back(store: ArtifactStore) -> None:
    ref = Ref.of("stage_1/adapters", seed="0", agent="m:safe:j:0.1")
    write(store, ref, "run-1", "hello")
    artifact = store.get(ref)
    assert artifact.path == store.root / "trial/stage_1/adapters/agent=m:safe:j:0.1/seed=0/run-1"
    assert (artifact.path / "text.txt").read_text() == "hello"
    assert artifact.manifest.ref == ref
    assert artifact.altered_files() == []


def test_a_newer_run_replaces_the_older_and_equal_content_has_equal_hashes(store: ArtifactStore) -> None:
    ref = Ref.of("pairs", metric="safe")
    write(store, ref, "run-1", "same")
    first = store.get(ref).manifest.sha256
    write(store, ref, "run-2", "same")
    assert store.get(ref).manifest.run_id == "run-2"
    assert store.get(ref).manifest.sha256 == first
    write(store, ref, "run-3", "other")
    assert store.get(ref).manifest.sha256 != first


def test_a_failed_write_leaves_the_old_artifact_and_no_rubbish(store: ArtifactStore) -> None:
    ref = Ref("table")
    write(store, ref, "run-1", "old")
    with pytest.raises(RuntimeError), store.write(ref, run_id="run-2", code_version="1", config={}, inputs={}) as draft:
        (draft.path / "text.txt").write_text("half")
        raise RuntimeError("boom")
    assert (store.get(ref).path / "text.txt").read_text() == "old"
    assert [manifest.run_id for manifest in store.manifests()] == ["run-1"]
    assert "run-2" not in {name for path in files_of(store) for name in Path(path).parts}


def test_of_two_runs_that_write_a_partition_at_once_the_last_one_wins_whole(store: ArtifactStore) -> None:
    ref, options = Ref("table"), {"code_version": "1", "config": {}, "inputs": {}}
    with store.write(ref, run_id="slow", **options) as slow:  # type: ignore[arg-type]
        (slow.path / "slow.txt").write_text("slow")
        with store.write(ref, run_id="quick", **options) as quick:  # type: ignore[arg-type]
            (quick.path / "quick.txt").write_text("quick")
        assert [path.name for path in store.get(ref).path.iterdir()] == ["quick.txt"]
        (slow.path / "end.txt").write_text("slow")
    artifact = store.get(ref)
    assert sorted(path.name for path in artifact.path.iterdir()) == ["end.txt", "slow.txt"]
    assert artifact.altered_files() == [] == store.altered_files(artifact.manifest)


def test_the_journal_outlives_a_failure_and_goes_with_the_commit(store: ArtifactStore) -> None:
    ref = Ref("rollout")

    def begin(temperature: float) -> bool:
        """Begins the artifact, finds out whether begun work is there, and is killed."""
        config = {"temperature": temperature}
        found = False
        opened = store.write(ref, run_id="a", code_version="1", config=config, inputs={})
        with pytest.raises(KeyboardInterrupt), opened as draft:
            found = draft.journal.exists()
            draft.journal.mkdir(parents=True, exist_ok=True)
            raise KeyboardInterrupt
        return found

    assert [begin(0.5), begin(0.5)] == [False, True]
    assert begin(1.0) is False, "work begun with another configuration is not taken up"
    write(store, ref, "b", "whole")
    assert not any("journal" in path for path in files_of(store))


def test_a_missing_artifact_says_what_makes_it(store: ArtifactStore) -> None:
    with pytest.raises(MissingArtifactError, match=r"pairs \[safe\] has not been made.*frontier run trial"):
        store.get(Ref.of("pairs", metric="safe"))


def test_a_damaged_manifest_is_named(store: ArtifactStore) -> None:
    ref = Ref("table")
    write(store, ref, "run-1", "text")
    alter(store, "table/manifest.json", b'{"experiment": 3}')
    with pytest.raises(InputError, match=r"manifest\.json.*Delete the file"):
        store.manifest(ref)


def test_lineage_follows_what_was_consumed_and_notices_altered_files(store: ArtifactStore) -> None:
    a, b, c = Ref("a"), Ref("b"), Ref("c")
    write(store, a, "run-a", "a")
    write(store, b, "run-b", "b", a)
    write(store, c, "run-c", "c", b, a)
    assert [(row.depth, row.entry.asset, row.status) for row in trace(store, [c])] == [
        (0, "c", "ok"),
        (1, "b", "ok"),
        (1, "a", "ok"),
    ]
    alter(store, "a/run-a/text.txt", b"tampered")
    assert {row.entry.asset: row.status for row in trace(store, [c])}["a"] == "altered: text.txt"
    write(store, a, "run-a2", "new a")
    assert {row.entry.asset: row.status for row in trace(store, [c])}["a"] == "replaced by run run-a2"


def test_garbage_is_what_no_manifest_names(store: ArtifactStore) -> None:
    a, b = Ref("a"), Ref("b")
    write(store, a, "run-a", "a")
    write(store, b, "run-b", "b", a)
    write(store, a, "run-a2", "a2")
    write(store, a, "run-a3", "a3")
    found = store.garbage()
    assert {path.name: size for path, size in found.items()} == {"run-a2": 2}, "run-a is still what b was made from"
    store.collect(found)
    assert not any("run-a2" in path for path in files_of(store))
    assert not store.garbage()


def test_what_was_begun_and_never_made_is_garbage(tmp_path: Path) -> None:
    store, ref = ArtifactStore(tmp_path, "trial"), Ref.of("models", seed="0")
    run = store.directory(ref) / "killed"
    run.mkdir(parents=True)
    (run / "weights").write_bytes(b"half")
    (store.directory(ref) / "journal").mkdir()
    assert store.garbage() == {}
    assert store.garbage([ref]) == {run: 4}


def test_the_journal_of_what_is_made_is_garbage_and_that_of_what_is_not_stays(store: ArtifactStore) -> None:
    """A machine that is lost between commit and clearing up leaves the former, one lost before that the latter."""
    read, ref = Ref("read"), Ref.of("models", seed="0")
    write(store, read, "run", "input")

    def begin(run_id: str, code_version: str) -> AbstractContextManager[Draft]:
        entries = {read: store.get(read).entry}
        return store.write(ref, run_id=run_id, code_version=code_version, config={"a": 1}, inputs=entries)

    def left_behind(draft: Draft) -> str:
        line = draft.journal / "records.jsonl"
        line.parent.mkdir(parents=True, exist_ok=True)
        line.write_bytes(b"{}\n")
        objects, name = objects_of(store), line.relative_to(store.root).as_posix()
        if objects:
            objects.put(f"{name}.parts/000000000000000", b"{}\n")
        return name

    with begin("done", "1") as draft:
        pass
    finished = left_behind(draft)
    with pytest.raises(RuntimeError), begin("lost", "2") as draft:
        unfinished = left_behind(draft)
        raise RuntimeError("the machine is lost")
    found = store.garbage()
    assert [(path.relative_to(store.root).as_posix(), size) for path, size in found.items()] == [
        (finished.rpartition("/")[0], 3)
    ]
    store.collect(found)
    assert not any(path.startswith(finished) for path in files_of(store))
    assert any(path.startswith(unfinished) for path in files_of(store))
    assert not store.garbage()


def test_removed_files_are_noted_and_missed_only_by_those_that_read_them(store: ArtifactStore) -> None:
    ref = Ref.of("models", seed="0")
    write(store, ref, "run", "kept")
    manifest = store.get(ref).manifest
    assert store.release(manifest, "*.safetensors") == 0
    assert store.release(manifest, "*.txt") == len("kept")
    noted = store.manifest(ref)
    assert noted is not None
    assert (noted.removed, noted.sha256, noted.files) == (("text.txt",), manifest.sha256, manifest.files)
    assert "trial/models/seed=0/run/text.txt" not in files_of(store)
    assert store.altered_files(noted) == []
    assert [row.status for row in trace(store, [ref])] == ["ok"]
    assert list(store.get_all([ref], skip=["*.txt"])) == [ref]
    with pytest.raises(MissingArtifactError, match=r"models \[0\] was made, and its weights were removed"):
        store.get(ref)
    write(store, ref, "again", "kept")
    assert store.release(manifest, "*.txt") == 0, "another run counts by now"
    assert store.get(ref).manifest.removed == ()


def test_an_experiment_is_cleared_whole_and_no_other(store: ArtifactStore) -> None:
    other = ArtifactStore(store.location, "trial-2")
    for which in (store, other):
        write(which, Ref("a"), "run-a", "a")
    assert store.clear()
    assert not store.clear(), "there is nothing left"
    assert (list(store.manifests()), store.manifest(Ref("a"))) == ([], None)
    assert (other.get(Ref("a")).path / "text.txt").read_text() == "a"


def test_many_are_got_at_once_in_order_and_those_missing_are_named(store: ArtifactStore) -> None:
    refs = [Ref.of("pairs", metric=metric, seed=str(seed)) for seed in range(8) for metric in ("safe", "help")]
    for ref in refs[:-1]:
        write(store, ref, "run", ref.label)
    found = store.get_all(refs, partial=True)
    assert list(found) == refs[:-1]
    assert all((artifact.path / "text.txt").read_text() == ref.label for ref, artifact in found.items())
    with pytest.raises(MissingArtifactError, match=r"pairs \[help, 7\]"):
        store.get_all(refs)
    assert {manifest.ref for manifest in store.manifests()} == set(refs[:-1])
