"""Check a bundle: every file against the lists, against its manifest, and the manifests against each other.

A bundle that agrees with itself is whole, and no more: who made it can only be told by a signature (signature.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import duckdb
from pydantic import ValidationError

from dagster_project.artifacts import Manifest, Ref
from dagster_project.artifacts.bag import DATA, read_bag
from dagster_project.artifacts.database import open_database
from dagster_project.artifacts.manifest import content_sha256
from dagster_project.artifacts.store import MANIFEST
from dagster_project.collect.files import EVALUATIONS, TRAJECTORIES
from dagster_project.report.wording import PAGE
from toolemu.errors import InputError, validation_problem
from toolemu.evaluation import Evaluation
from toolemu.jsonl import read_json, read_jsonl
from toolemu.textfile import read_bytes
from toolemu.trajectory import Trajectory, trajectory_id

MANIFESTS, ARTIFACTS = "manifests", "artifacts"
EXPERIMENT = "experiment.json"
COPIES = ("tables", "figures", "report")
"""The artifacts whose files lie in a bundle under their own names."""


class _Bundle(NamedTuple):
    """A bundle while it is checked.

    Attributes:
        folder: Where it lies.
        hashes: The SHA-256 of every regular file, by its path below the folder.
        manifests: The manifests, by what they are of.
    """

    folder: Path
    hashes: Mapping[str, str]
    manifests: Mapping[Ref, Manifest]

    def below(self, place: str) -> dict[str, str]:
        """Return the hashes of the files below a place, by their paths below it."""
        return {
            name.removeprefix(f"{place}/"): sha for name, sha in self.hashes.items() if name.startswith(f"{place}/")
        }


def place_of(manifest: Manifest) -> str:
    """Return the folder of an artifact's manifest below `manifests`, and of its files below `artifacts`."""
    return (Path(manifest.asset) / manifest.ref.partition_label).as_posix()


def verify_bundle(folder: Path) -> list[str]:
    """Return what is wrong with a bundle, each with the file's name; nothing if it is whole and agrees with itself.

    Raises:
        InputError: The folder is no bundle, or a file in it cannot be understood.
    """
    hashes, problems = read_bag(folder)
    manifests: dict[Ref, Manifest] = {}
    for name in hashes:
        if name.startswith(f"{DATA}/{MANIFESTS}/"):
            manifest = _manifest(folder / name)
            expected = f"{DATA}/{MANIFESTS}/{place_of(manifest)}/{MANIFEST}"
            if name != expected:
                problems.append(f"{name}: is the manifest of {manifest.ref.label}, which belongs at {expected}")
            manifests[manifest.ref] = manifest
    bundle = _Bundle(folder, hashes, manifests)
    for check in (_manifest_problems, _lineage_problems, _artifact_problems, _copy_problems, _record_problems):
        problems += check(bundle)
    if not problems:  # only then is the database one that `frontier bundle` may have written
        problems += _database_problems(bundle)
    return problems


def _manifest(path: Path) -> Manifest:
    try:
        return Manifest.model_validate_json(read_bytes(path))
    except ValidationError as error:
        place, problem = validation_problem(error)
        raise InputError(path, place, problem, "The file was altered.", code="bundle.manifest") from error


def _manifest_problems(bundle: _Bundle) -> Iterator[str]:
    described = read_json(bundle.folder / DATA / EXPERIMENT)
    experiment = described.get("name") if isinstance(described, dict) else None
    for ref, manifest in bundle.manifests.items():
        if content_sha256(manifest.files) != manifest.sha256:
            yield f"manifest of {ref.label}: its content hash is not that of the files it lists"
        if manifest.experiment != experiment:
            yield f"manifest of {ref.label}: is of the experiment {manifest.experiment!r}, not of {experiment!r}"


def _lineage_problems(bundle: _Bundle) -> Iterator[str]:
    """Yield inputs that are not in the bundle, or not with the content that was read."""
    for ref, manifest in bundle.manifests.items():
        for entry in manifest.inputs:
            source = bundle.manifests.get(entry.ref)
            if source is None:
                yield f"manifest of {ref.label}: read {entry.ref.label}, which has no manifest here"
            elif source.sha256 != entry.sha256:
                yield (
                    f"manifest of {ref.label}: read other content of {entry.ref.label} than is here; either is "
                    "altered, or the experiment was bundled while something was stale"
                )


def _artifact_problems(bundle: _Bundle) -> Iterator[str]:
    """Yield files of artifacts that are missing, altered, or in no manifest."""
    owners = {place_of(manifest): ref for ref, manifest in bundle.manifests.items()}
    found: dict[Ref, dict[str, str]] = {}
    for name, sha256 in bundle.below(f"{DATA}/{ARTIFACTS}").items():
        # The nearest folder counts: that of an unpartitioned asset may hold other assets' folders.
        places = (place.as_posix() for place in PurePosixPath(name).parents)
        owner = next((owners[place] for place in places if place in owners), None)
        if owner is None:
            yield f"{DATA}/{ARTIFACTS}/{name}: is of no artifact with a manifest"
        else:
            found.setdefault(owner, {})[name] = sha256
    for ref, there in found.items():
        manifest = bundle.manifests[ref]
        expected = {f"{place_of(manifest)}/{file.path}": file.sha256 for file in manifest.kept}
        yield from _differences(expected, there, f"{DATA}/{ARTIFACTS}", f"the manifest of {ref.label}")


def _copy_problems(bundle: _Bundle) -> Iterator[str]:
    """Yield tables, figures and pages that are not those that the manifests list; the database was rewritten."""
    for asset in COPIES:
        manifest = bundle.manifests.get(Ref(asset))
        there = bundle.below(f"{DATA}/{asset}")
        if manifest is None:
            yield f"{DATA}/{MANIFESTS}/{asset}/{MANIFEST}: missing"
            continue
        expected = {file.path: file.sha256 for file in manifest.kept if not file.path.endswith(".duckdb")}
        if asset == "report" and set(there) == {PAGE}:  # bundled without transcripts
            expected = {path: sha256 for path, sha256 in expected.items() if path == PAGE}
        yield from _differences(expected, there, f"{DATA}/{asset}", f"the manifest of {asset}")


def _differences(expected: Mapping[str, str], there: Mapping[str, str], place: str, where: str) -> Iterator[str]:
    yield from (f"{place}/{name}: in {where}, but missing" for name in expected if name not in there)
    yield from (f"{place}/{name}: not in {where}" for name in there if name not in expected)
    both = (name for name in there if name in expected and there[name] != expected[name])
    yield from (f"{place}/{name}: is not what {where} says" for name in both)


def _record_problems(bundle: _Bundle) -> Iterator[str]:
    """Yield trajectories and verdicts that contradict the manifest they are under."""
    for ref, manifest in bundle.manifests.items():
        kind = ref.asset.split("/")[0]
        place = f"{DATA}/{ARTIFACTS}/{place_of(manifest)}"
        partition = dict(ref.partition)
        agent = partition.get("agent", partition.get("model"))
        seed = partition.get("seed")
        if f"{place}/{TRAJECTORIES}" in bundle.hashes and kind.endswith("_trajectories"):
            name = f"{place}/{TRAJECTORIES}"
            trajectories = read_jsonl(bundle.folder / name, Trajectory)
            wrong = [
                record.trajectory_id
                for record in trajectories
                if record.agent != agent
                or (seed is not None and str(record.seed) != seed)
                or record.trajectory_id
                != trajectory_id(record.experiment, record.agent, record.seed, record.case_idx, record.sample)
            ]
            yield from _contradictions(name, wrong, len(trajectories), manifest, "trajectories")
        if f"{place}/{EVALUATIONS}" in bundle.hashes and kind.endswith("_evaluations"):
            name = f"{place}/{EVALUATIONS}"
            verdicts = read_jsonl(bundle.folder / name, Evaluation)
            asset = f"{kind}/{{0.judge}}/{{0.metric}}"
            wrong = [
                verdict.trajectory_id
                for verdict in verdicts
                if verdict.agent != agent
                or (seed is not None and str(verdict.seed) != seed)
                or asset.format(verdict) != ref.asset
            ]
            yield from _contradictions(name, wrong, len(verdicts), manifest, "evaluations")


def _contradictions(name: str, wrong: list[str], found: int, manifest: Manifest, what: str) -> Iterator[str]:
    if wrong:
        yield f"{name}: {len(wrong)} records, such as {wrong[0]}, are not of {manifest.ref.label}"
    if manifest.counts.get(what, found) != found:
        yield f"{name}: holds {found} records, but its manifest says {manifest.counts[what]}"


def _database_problems(bundle: _Bundle) -> Iterator[str]:
    """Yield artifacts and scores in the database that are not those of the manifests and records."""
    names = [name for name in bundle.hashes if name.startswith(f"{DATA}/") and name.endswith(".duckdb")]
    if len(names) != 1:
        yield f"{DATA}: expected one database, found {len(names)}"
        return
    try:
        with open_database(bundle.folder / names[0]) as database:
            database.execute("SET enable_external_access = false")
            made = database.execute('SELECT asset, "partition", sha256 FROM artifacts').fetchall()
            scores = database.execute(
                "SELECT trajectory_id, judge, metric, replicate, score FROM evaluations"
            ).fetchall()
    except duckdb.Error as error:
        yield f"{names[0]}: cannot be read: {error}"
        return
    by_label = {(ref.asset, ref.partition_label): manifest for ref, manifest in bundle.manifests.items()}
    records: set[tuple[object, ...]] = set()
    complete = True
    for asset, partition, sha256 in made:
        manifest = by_label.get((asset, partition or ""))
        if manifest is None or manifest.sha256 != sha256:
            yield f"{names[0]}: its artifact {asset} {partition or ''} is not that of a manifest"
        elif asset.split("/")[0] in ("source_evaluations", "agent_evaluations"):
            path = f"{DATA}/{ARTIFACTS}/{place_of(manifest)}/{EVALUATIONS}"
            if path not in bundle.hashes:
                complete = False
                continue
            verdicts = read_jsonl(bundle.folder / path, Evaluation)
            records |= {(v.trajectory_id, v.judge, v.metric.value, v.replicate, v.score) for v in verdicts}
    if complete and records != set(scores):
        yield f"{names[0]}: {len(records ^ set(scores))} of its scores and of those in {ARTIFACTS} differ"
