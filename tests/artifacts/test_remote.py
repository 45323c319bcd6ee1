"""Artifacts in a real S3 server: who wins, what is left after faults, what is read, and what the user is told."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.objects import ObjectStore, StorageError
from dagster_project.artifacts.parts import GrowingFiles
from tests.servers import BUCKET, s3_client

from .conftest import Machines

REF = Ref.of("pairs", metric="safe", seed="0")
FILES = 6


def write(store: ArtifactStore, run_id: str, text: str, files: int = FILES, ref: Ref = REF) -> None:
    with store.write(ref, run_id=run_id, code_version="1", config={}, inputs={}) as draft:
        for number in range(files):
            (draft.path / f"{number}.txt").write_text(text)


def text_of(store: ArtifactStore, ref: Ref = REF) -> str:
    """Returns the one text that all files of an artifact hold."""
    (text,) = {path.read_text() for path in store.get(ref).path.iterdir()}
    return text


def test_of_runs_that_write_a_partition_at_once_one_wins_whole(machine: Machines) -> None:
    stores = {f"run-{number}": machine(f"m{number}") for number in range(4)}
    for round_number in range(3):
        together = threading.Barrier(len(stores))

        def contend(run_id: str, store: ArtifactStore, number: int = round_number, gate: threading.Barrier = together):  # type: ignore[no-untyped-def]
            gate.wait()
            write(store, f"{run_id}-{number}", f"text of {run_id}-{number}")

        threads = [threading.Thread(target=contend, args=pair) for pair in stores.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        reader = machine(f"reader-{round_number}")
        artifact = reader.get(REF)
        assert text_of(reader) == f"text of {artifact.manifest.run_id}"
        assert reader.altered_files(artifact.manifest) == []


def test_two_attempts_of_one_run_never_mix(machine: Machines) -> None:
    """A machine that was given up goes on, while another makes the same run again."""
    lost, second = machine("lost"), machine("second")
    write(second, "run", "what the second made")
    with pytest.raises(StorageError, match=r"another attempt of run run made other content of pairs \[safe, 0\]"):
        write(lost, "run", "what the lost one made", files=FILES + 3)
    write(lost, "run", "what the second made")
    assert text_of(machine("reader")) == "what the second made"


@pytest.mark.parametrize("fault", ["upload", "put"])
def test_a_fault_on_the_way_leaves_what_was_there(
    machine: Machines, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = machine("one")
    write(store, "old", "old")
    sound = getattr(ObjectStore, fault)

    def failing(self: ObjectStore, *arguments: object, **options: object) -> object:
        if any(str(argument).endswith(("3.txt", "manifest.json")) for argument in arguments):
            raise StorageError("the network is gone")
        return sound(self, *arguments, **options)

    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, fault, failing)
        with pytest.raises(StorageError, match="the network is gone"):
            write(store, "new", "new")
        assert text_of(machine("reader")) == "old"
    write(store, "new", "new, tried again" if fault == "upload" else "new")
    assert text_of(machine("reader")).startswith("new")


def test_what_is_read_is_checked_and_kept(machine: Machines, bucket: str) -> None:
    write(machine("writer"), "run", "as it was written")
    objects = ObjectStore(bucket)
    reader = machine("reader")
    assert text_of(reader) == "as it was written"
    objects.put(f"trial/{REF.asset}/{REF.partition_label}/run/2.txt", b"altered")
    assert text_of(reader) == "as it was written", "its copy was checked, and is read again"
    assert reader.altered_files(reader.get(REF).manifest) == ["2.txt"]
    with pytest.raises(StorageError, match=r"pairs/metric=safe/seed=0/run/2\.txt has the hash .* it was altered"):
        machine("another").get(REF)
    objects.delete([f"trial/{REF.asset}/{REF.partition_label}/run/2.txt"])
    assert reader.altered_files(reader.get(REF).manifest) == ["2.txt"]
    with pytest.raises(StorageError, match=r"2\.txt.*there is no such object"):
        machine("another").get(REF)


def test_files_that_are_not_read_are_not_fetched(machine: Machines) -> None:
    writer = machine("writer")
    with writer.write(REF, run_id="run", code_version="1", config={}, inputs={}) as draft:
        (draft.path / "steps.jsonl").write_text("{}\n")
        (draft.path / "weights").mkdir()
        (draft.path / "weights" / "model.safetensors").write_bytes(b"many")
    artifact = machine("reader").get_all([REF], skip=["*.safetensors"])[REF]
    assert [path.name for path in artifact.path.rglob("*") if path.is_file()] == ["steps.jsonl"]
    assert (machine("reader").get(REF).path / "weights" / "model.safetensors").read_bytes() == b"many"


def test_a_bucket_and_a_folder_have_the_same_layout(machine: Machines, bucket: str, tmp_path: Path) -> None:
    store = machine("writer")
    write(store, "run", "text")
    objects = ObjectStore(bucket)
    for entry in objects.entries(""):
        target = tmp_path / "synced" / entry.key
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(objects.get(entry.key) or b"")
    local = ArtifactStore(tmp_path / "synced", "trial")
    assert text_of(local) == "text"
    assert [manifest.ref for manifest in local.manifests()] == [REF]
    assert store.place(REF) == f"{bucket}/trial/pairs/metric=safe/seed=0"


def test_only_manifests_that_changed_are_read_again(machine: Machines, monkeypatch: pytest.MonkeyPatch) -> None:
    store = machine("writer")
    refs = [Ref.of("pairs", seed=str(seed)) for seed in range(5)]
    for ref in refs:
        write(store, "run", "text", files=1, ref=ref)
    asked: list[str] = []
    get = ObjectStore.get

    def counted(self: ObjectStore, key: str) -> bytes | None:
        asked.append(key)
        return get(self, key)

    monkeypatch.setattr(ObjectStore, "get", counted)
    reader = machine("reader")
    for changed in (len(refs), 0):
        asked.clear()
        assert [manifest.ref for manifest in reader.manifests()] == refs
        assert len(asked) == changed
    write(machine("writer"), "run-2", "other", files=1, ref=refs[3])
    asked.clear()
    assert [manifest.run_id for manifest in reader.manifests()] == ["run", "run", "run", "run-2", "run"]
    assert asked == ["trial/pairs/seed=3/manifest.json"]


class Journal:
    """Unfinished work of a partition on one machine, as a rollout writes it."""

    def __init__(self, store: ArtifactStore) -> None:
        self.store = store

    def work(self, *lines: str, commit: bool = False, sees: str = "", replies: bool = False) -> None:
        """Goes on with what is there, which must be `sees`, and is then killed, unless it is to commit."""
        folder = self.store.base / "replies"
        opened = self.store.write(REF, run_id=f"run-{id(self)}", code_version="1", config={}, inputs={})
        try:
            with opened as draft:
                file = draft.journal / "records.jsonl"
                if replies:
                    file = folder / "seed=0.jsonl"
                    draft.resume(file)
                assert (file.read_text() if file.exists() else "") == sees
                file.parent.mkdir(parents=True, exist_ok=True)
                with file.open("a") as out:
                    out.writelines(lines)
                if not commit:
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass


@pytest.mark.parametrize("replies", [False, True])
def test_unfinished_work_is_taken_up_on_another_machine(machine: Machines, replies: bool) -> None:
    one, two = Journal(machine("one")), Journal(machine("two"))
    one.work("1\n", "2\n", "tor", replies=replies)
    two.work("3\n", sees="1\n2\n", replies=replies)
    one.work("4\n", sees="1\n2\n3\n", replies=replies)
    two.work(sees="1\n2\n3\n4\n", replies=replies, commit=True)
    kept = {entry.key.rpartition("/")[0] for entry in ObjectStore(str(two.store.location)).entries("trial")}
    assert ("trial/replies/seed=0.jsonl.parts" in kept) is replies, (
        "replies outlive the partition, its journal does not"
    )
    assert not any("journal" in key for key in kept)
    Journal(machine("three")).work(sees="1\n2\n3\n4\n" if replies else "", replies=replies)


def test_a_second_writer_of_a_growing_file_is_refused(
    bucket: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def at(name: str) -> tuple[GrowingFiles, Path]:
        return GrowingFiles(ObjectStore(bucket), tmp_path / name), tmp_path / name / "trial" / "records.jsonl"

    (one, first), (two, second), (three, third) = at("one"), at("two"), at("three")
    for files, path, line in ((one, first, "of the first\n"), (two, second, "of the second, longer\n")):
        files.resume(path)
        path.parent.mkdir(parents=True)
        path.write_text(line)
    one.copy()
    assert "another machine" not in caplog.text
    two.copy()
    assert "another machine is at this work, too" in caplog.text
    assert second.read_text() == "of the second, longer\n"
    three.resume(third)
    assert third.read_text() == "of the first\n"


def test_what_is_left_of_a_deleted_growing_file_is_nothing(bucket: str, tmp_path: Path) -> None:
    objects, path = ObjectStore(bucket), tmp_path / "trial" / "records.jsonl"
    objects.put("trial/records.jsonl.parts/000000000000000", b"1\n")
    objects.put("trial/records.jsonl.parts/000000000000004", b"3\n")
    for _ in range(2):
        GrowingFiles(objects, tmp_path).resume(path)
        assert path.read_text() == "1\n"
    assert [entry.bytes for entry in objects.entries("trial")] == [2]


def test_a_wrong_place_is_told_before_anything_is_written(
    s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRONTIER_CACHE", str(tmp_path))

    def told(location: str) -> str:
        with pytest.raises(StorageError) as problem:
            ArtifactStore(location, "trial").check()
        return str(problem.value)

    ArtifactStore(f"s3://{BUCKET}/good", "trial").check()
    assert "there is no such bucket. Make it, or mend FRONTIER_DATA." in told("s3://nowhere/data")
    assert "expected a local path, or s3://bucket/prefix" in told("gs://bucket/data")
    assert "expected a local path, or s3://bucket/prefix" in told("s3://")
    client = s3_client(s3)
    client.create_bucket(Bucket="closed")
    deny = {"Effect": "Deny", "Principal": "*", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::closed/*"}
    policy = {"Version": "2012-10-17", "Statement": [deny]}
    client.put_bucket_policy(Bucket="closed", Policy=json.dumps(policy))
    assert "writing .check/" in told("s3://closed/data") and "access is denied" in told("s3://closed/data")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached" in told(f"s3://{BUCKET}/data")
    monkeypatch.setitem(sys.modules, "obstore", None)
    assert "pip install 'safety-frontier[s3]'" in told(f"s3://{BUCKET}/data")


def test_work_goes_on_while_its_copy_cannot_be_written(
    machine: Machines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put = ObjectStore.put

    def failing(self: ObjectStore, key: str, content: bytes, *, new: bool = False) -> str:
        if ".parts/" in key:
            raise StorageError("the network is slow today")
        return put(self, key, content, new=new)

    monkeypatch.setattr(ObjectStore, "put", failing)
    store = machine("one")
    with store.write(REF, run_id="run", code_version="1", config={}, inputs={}) as draft:
        draft.journal.mkdir(parents=True)
        (draft.journal / "records.jsonl").write_text("1\n")
        (draft.path / "text.txt").write_text("done")
    assert "unfinished work is not copied for now: the network is slow today" in caplog.text
    assert text_of(machine("reader")) == "done"
    with (
        pytest.raises(ZeroDivisionError),
        store.write(REF, run_id="b", code_version="2", config={}, inputs={}) as draft,
    ):
        draft.journal.mkdir(parents=True)
        (draft.journal / "records.jsonl").write_text("1\n")
        _ = 1 / 0
