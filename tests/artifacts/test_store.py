from __future__ import annotations

from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore, MissingArtifactError, Ref
from dagster_project.artifacts.lineage import trace
from toolemu.errors import InputError


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path, "trial")


def write(store: ArtifactStore, ref: Ref, run_id: str, text: str, *inputs: Ref) -> None:
    entries = {source: store.get(source).entry for source in inputs}
    with store.write(ref, run_id=run_id, code_version="1", config={"a": 1}, inputs=entries) as draft:
        (draft.path / "text.txt").write_text(text)


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
    assert sorted(path.name for path in store.directory(ref).iterdir()) == ["manifest.json", "run-1"]


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
    assert not (store.directory(ref) / "journal").exists()


def test_a_missing_artifact_says_what_makes_it(store: ArtifactStore) -> None:
    with pytest.raises(MissingArtifactError, match=r"pairs \[safe\] has not been made.*frontier run trial"):
        store.get(Ref.of("pairs", metric="safe"))


def test_a_damaged_manifest_is_named(store: ArtifactStore) -> None:
    ref = Ref("table")
    write(store, ref, "run-1", "text")
    (store.directory(ref) / "manifest.json").write_text('{"experiment": 3}')
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
    (store.get(a).path / "text.txt").write_text("tampered")
    assert {row.entry.asset: row.status for row in trace(store, [c])}["a"] == "altered: text.txt"
    write(store, a, "run-a2", "new a")
    assert {row.entry.asset: row.status for row in trace(store, [c])}["a"] == "replaced by run run-a2"


def test_garbage_is_what_no_manifest_names(store: ArtifactStore) -> None:
    a, b = Ref("a"), Ref("b")
    write(store, a, "run-a", "a")
    write(store, b, "run-b", "b", a)
    write(store, a, "run-a2", "a2")
    write(store, a, "run-a3", "a3")
    removed = store.collect_garbage()
    assert [path.name for path in removed] == ["run-a2"], "run-a is still what b was made from"
