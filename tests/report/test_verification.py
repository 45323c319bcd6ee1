"""Bundles that somebody altered and sealed again: what contradicts itself is told, whatever the lists say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.bag import DATA, SIGNATURE, TAG_LIST, seal
from dagster_project.artifacts.manifest import Manifest, content_sha256, tree_entries
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.spec import Experiment
from dagster_project.report.bundle import write_bundle
from dagster_project.report.signature import NAMESPACE, signer
from dagster_project.report.verification import verify_bundle
from tests.conftest import SMALL
from toolemu.errors import FrontierError
from toolemu.evaluation import Evaluation, Metric
from toolemu.jsonl import write_jsonl
from toolemu.trajectory import StopReason, Trajectory, trajectory_id

RECORDS = [
    Trajectory(
        trajectory_id=trajectory_id("small", "eager", None, case, 0), experiment="small", agent="eager", seed=None,
        case_idx=case, sample=0, user_input="u", steps=(), output="", final_log="", stop_reason=StopReason.final_answer,
    )
    for case in range(3)
]  # fmt: skip
VERDICTS = [Evaluation.of(record, judge="strict", metric=Metric.safe, score=1, parsed_by="rules") for record in RECORDS]
VERDICT_PLACE = "source_evaluations/strict/safe/model=eager"


def write_store(folder: Path) -> ArtifactStore:
    """Writes the artifacts of an experiment of one model and judge."""
    store = ArtifactStore(folder, "small")
    trajectories, verdicts = (
        Ref.of("source_trajectories", model="eager"),
        Ref.of("source_evaluations/strict/safe", model="eager"),
    )
    with store.write(trajectories, run_id="run-1", code_version="1", config={}, inputs={}) as draft:
        draft.counts["trajectories"] = write_jsonl(draft.path / "trajectories.jsonl", RECORDS)
    inputs = {trajectories: store.get(trajectories).entry}
    with store.write(verdicts, run_id="run-2", code_version="1", config={}, inputs=inputs) as draft:
        draft.counts["evaluations"] = write_jsonl(draft.path / "evaluations.jsonl", VERDICTS)
    inputs = {ref: store.get(ref).entry for ref in (trajectories, verdicts)}
    for name in ("tables", "figures", "report"):
        with store.write(Ref(name), run_id=f"run-{name}", code_version="1", config={}, inputs=inputs) as draft:
            (draft.path / {"tables": "results.md", "figures": "a.svg", "report": "index.html"}[name]).write_text(name)
            if name == "tables":
                write_database(draft.path / "small.duckdb", store, [trajectories, verdicts])
    return store


def write_database(path: Path, store: ArtifactStore, refs: list[Ref]) -> None:
    with duckdb.connect(str(path)) as database:
        database.execute('CREATE TABLE artifacts (asset VARCHAR, "partition" VARCHAR, path VARCHAR, sha256 VARCHAR)')
        database.execute("CREATE TABLE operations (asset VARCHAR, host VARCHAR)")
        database.execute("INSERT INTO operations VALUES ('a', 'secret-host')")
        for ref in refs:
            made = store.get(ref)
            row = [ref.asset, ref.partition_label, str(made.path), made.manifest.sha256]
            database.execute("INSERT INTO artifacts VALUES (?, ?, ?, ?)", row)
        columns = "trajectory_id VARCHAR, judge VARCHAR, metric VARCHAR, replicate INTEGER, score DOUBLE"
        database.execute(f"CREATE TABLE evaluations ({columns})")
        rows = [[v.trajectory_id, v.judge, v.metric.value, v.replicate, v.score] for v in VERDICTS]
        database.executemany("INSERT INTO evaluations VALUES (?, ?, ?, ?, ?)", rows)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    store = write_store(folder / "data")
    write_bundle(build_graph(Experiment.model_validate(SMALL)), store, folder / "bundle", trajectories=True)
    return folder / "bundle"


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "bundle")


def test_a_bundle_is_whole_and_names_no_host(made: Path) -> None:
    assert verify_bundle(made) == []
    manifests = [Manifest.model_validate_json(path.read_bytes()) for path in made.rglob("manifest.json")]
    assert len(manifests) == 5 and {manifest.host for manifest in manifests} == {""}
    assert os.uname().nodename not in "".join(path.read_text() for path in made.rglob("*.json"))
    with duckdb.connect(str(made / DATA / "small.duckdb"), read_only=True) as database:
        assert database.execute("SELECT host FROM operations").fetchall() == [("",)]


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def change_manifest(bundle: Path, place: str, **changes: object) -> None:
    path = bundle / DATA / "manifests" / place / "manifest.json"
    manifest = Manifest.model_validate_json(path.read_bytes()).model_copy(update=changes)
    path.write_text(manifest.model_dump_json(), encoding="utf-8")


def rehash(bundle: Path, place: str) -> None:
    """Makes an artifact's manifest that of its files as they are now."""
    files = tree_entries(bundle / DATA / "artifacts" / place)
    change_manifest(bundle, place, files=files, sha256=content_sha256(files))


def scores(bundle: Path) -> Path:
    return bundle / DATA / "artifacts" / VERDICT_PLACE / "evaluations.jsonl"


def better_scores(bundle: Path) -> None:
    edit(scores(bundle), '"score":1.0', '"score":3.0')


def better_scores_with_their_manifest(bundle: Path) -> None:
    better_scores(bundle)
    rehash(bundle, VERDICT_PLACE)


def a_verdict_less(bundle: Path) -> None:
    scores(bundle).write_bytes(scores(bundle).read_bytes().partition(b"\n")[2])
    rehash(bundle, VERDICT_PLACE)
    for name in ("tables", "figures", "report"):
        follow(bundle, name)


def follow(bundle: Path, name: str) -> None:
    """Makes what another artifact has read what is there now."""
    entry = Manifest.model_validate_json((bundle / DATA / "manifests" / VERDICT_PLACE / "manifest.json").read_bytes())
    path = bundle / DATA / "manifests" / name / "manifest.json"
    inputs = tuple(
        source.model_copy(update={"sha256": entry.sha256}) if source.asset == entry.asset else source
        for source in Manifest.model_validate_json(path.read_bytes()).inputs
    )
    change_manifest(bundle, name, inputs=inputs)


def the_whole_lineage(bundle: Path) -> None:
    better_scores_with_their_manifest(bundle)
    for name in ("tables", "figures", "report"):
        follow(bundle, name)


def another_judge(bundle: Path) -> None:
    edit(scores(bundle), '"judge":"strict"', '"judge":"lenient"')
    rehash(bundle, VERDICT_PLACE)


def another_trajectory(bundle: Path) -> None:
    place = "source_trajectories/model=eager"
    edit(bundle / DATA / "artifacts" / place / "trajectories.jsonl", '"case_idx":0', '"case_idx":7')
    rehash(bundle, place)


def no_manifest(bundle: Path) -> None:
    shutil.rmtree(bundle / DATA / "manifests" / "source_evaluations")


def another_place(bundle: Path) -> None:
    place = bundle / DATA / "manifests" / "source_trajectories"
    (place / "model=eager").rename(place / "model=other")


def database_scores(bundle: Path) -> None:
    with duckdb.connect(str(bundle / DATA / "small.duckdb")) as database:
        database.execute("UPDATE evaluations SET score = 3")


def database_artifacts(bundle: Path) -> None:
    with duckdb.connect(str(bundle / DATA / "small.duckdb")) as database:
        database.execute("UPDATE artifacts SET sha256 = 'x'")


def database_that_reads_files(bundle: Path) -> None:
    with duckdb.connect(str(bundle / DATA / "small.duckdb")) as database:
        database.execute("DROP TABLE evaluations")
        database.execute("CREATE VIEW evaluations AS SELECT * FROM read_text('/etc/passwd')")


def no_database(bundle: Path) -> None:
    (bundle / DATA / "small.duckdb").write_bytes(b"none")


FORGERIES: list[Callable[[Path], object]] = [
    better_scores,
    better_scores_with_their_manifest,
    the_whole_lineage,
    a_verdict_less,
    another_judge,
    another_trajectory,
    no_manifest,
    another_place,
    database_scores,
    database_artifacts,
    database_that_reads_files,
    no_database,
    lambda bundle: edit(bundle / DATA / "tables" / "results.md", "tables", "other"),
    lambda bundle: edit(bundle / DATA / "figures" / "a.svg", "figures", "other"),
    lambda bundle: edit(bundle / DATA / "report" / "index.html", "report", "<script>"),
    lambda bundle: (bundle / DATA / "report" / "more.js").write_text("x"),
    lambda bundle: (bundle / DATA / "tables" / "results.md").unlink(),
    lambda bundle: (bundle / DATA / "artifacts" / VERDICT_PLACE / "more.jsonl").write_text("x"),
    lambda bundle: (bundle / DATA / "artifacts" / "unknown.jsonl").write_text("x"),
    lambda bundle: change_manifest(bundle, "tables", sha256="0" * 64),
    lambda bundle: change_manifest(bundle, "tables", experiment="other"),
    lambda bundle: change_manifest(bundle, VERDICT_PLACE, counts={"evaluations": 4}),
    lambda bundle: edit(bundle / DATA / "experiment.json", '"small"', '"other"'),
]


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: getattr(forge, "__name__", ""))
def test_a_forgery_that_was_sealed_again_is_told(bundle: Path, forge: Callable[[Path], object]) -> None:
    forge(bundle)
    for name in (TAG_LIST, "manifest-sha256.txt"):
        (bundle / name).unlink()
    seal(bundle, {"External-Identifier": "small", "Bag-Software-Agent": "safety-frontier"})
    assert verify_bundle(bundle)


def test_a_manifest_that_is_none_is_an_error_with_a_code(bundle: Path) -> None:
    path = bundle / DATA / "manifests" / "tables" / "manifest.json"
    for text in ("{}", "[" * 9999, json.dumps({"counts": 10**30}), '{"started_at": "2024-99-99"}'):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(FrontierError) as caught:
            verify_bundle(bundle)
        assert caught.value.code == "bundle.manifest"


def keys(folder: Path, name: str) -> Path:
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True)
    return path


def sign(bundle: Path, key: Path, namespace: str = NAMESPACE) -> None:
    (bundle / SIGNATURE).unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", namespace, str(bundle / TAG_LIST)]
    subprocess.run(command, check=True, capture_output=True)


def test_a_signature_says_who_vouches_for_a_bundle(bundle: Path, tmp_path: Path) -> None:
    ours, theirs = keys(tmp_path, "ours"), keys(tmp_path, "theirs")
    allowed = tmp_path / "allowed"
    allowed.write_text(f"zoe@lab {ours.with_suffix('.pub').read_text()}")

    def code() -> str:
        with pytest.raises(FrontierError) as caught:
            signer(bundle, allowed)
        return caught.value.code

    assert code() == "signature.missing"
    sign(bundle, ours)
    assert signer(bundle, allowed) == "zoe@lab"
    assert verify_bundle(bundle) == [], "the signature itself is in no list"
    (bundle / SIGNATURE).rename(tmp_path / "elsewhere.sig")
    assert signer(bundle, allowed, tmp_path / "elsewhere.sig") == "zoe@lab"
    sign(bundle, theirs)
    assert code() == "signature.unknown-signer"
    sign(bundle, ours, "file")
    assert code() == "signature.wrong", "of something else by the same key"
    sign(bundle, ours)
    edit(bundle / TAG_LIST, "bagit", "bagIt")
    assert code() == "signature.wrong"
    (bundle / SIGNATURE).write_text("none")
    assert code() == "signature.unknown-signer"


def test_without_ssh_keygen_the_error_says_so(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (bundle / SIGNATURE).write_text("x")
    (tmp_path / "allowed").write_text("x")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FrontierError) as caught:
        signer(bundle, tmp_path / "allowed")
    assert caught.value.code == "signature.no-tool"
