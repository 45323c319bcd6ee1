"""The artifact store: directories that are never changed once written, and manifests that say which one counts.

``<root>/<experiment>/<asset>/<dimension>=<key>/…/<run id>/`` holds the files of one run of one partition;
``manifest.json`` beside the run directories, replaced atomically, names the run that counts. A crash therefore
leaves the old artifact or the new one. What a crash leaves half-written is a directory that no manifest names;
`ArtifactStore.collect_garbage` removes it.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dagster_project.artifacts.manifest import (
    InputEntry,
    Manifest,
    config_sha256,
    content_sha256,
    file_sha256,
    git_commit,
    gpu_name,
    package_versions,
    tree_entries,
)
from dagster_project.artifacts.refs import Ref
from toolemu.errors import FrontierError, InputError, validation_problem

MANIFEST = "manifest.json"
JOURNAL = "journal"


class MissingArtifactError(FrontierError):
    """A partition that is needed has not been made."""


@dataclass(frozen=True)
class Artifact:
    """One finished artifact: its manifest and the directory with its files."""

    manifest: Manifest
    path: Path

    @property
    def entry(self) -> InputEntry:
        """What a reader's manifest says of this artifact."""
        manifest = self.manifest
        return InputEntry(
            asset=manifest.asset, partition=manifest.partition, run_id=manifest.run_id, sha256=manifest.sha256
        )

    def altered_files(self) -> list[str]:
        """Returns the files that are missing or whose content no longer matches the manifest."""
        return [
            file.path
            for file in self.manifest.files
            if not (self.path / file.path).is_file() or file_sha256(self.path / file.path) != file.sha256
        ]


@dataclass
class Draft:
    """An artifact being written: put files under `path`, note counts and metrics; committed when its block ends.

    `journal` is a directory for unfinished work that outlives a crash; it goes when the artifact is committed. Code,
    configuration and inputs decide its name: work that was begun with others is never taken up.
    """

    ref: Ref
    path: Path
    journal: Path
    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    committed: Artifact | None = None


class ArtifactStore:
    """The artifacts of one experiment below `root`."""

    def __init__(self, root: Path, experiment: str) -> None:
        self.root = root
        self.experiment = experiment
        self.base = root / experiment

    def directory(self, ref: Ref) -> Path:
        """Returns where a partition's runs and manifest lie."""
        return self.base / ref.asset / ref.partition_label

    def manifest(self, ref: Ref) -> Manifest | None:
        """Returns the manifest of a partition, or None if it was never made.

        Raises:
            InputError: The manifest cannot be understood.
        """
        path = self.directory(ref) / MANIFEST
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            place, problem = validation_problem(error)
            raise InputError(path, place, problem, "Delete the file to have the partition made again.") from error

    def get(self, ref: Ref) -> Artifact:
        """Returns a partition's artifact.

        Raises:
            MissingArtifactError: It was never made.
        """
        manifest = self.manifest(ref)
        if manifest is None:
            raise MissingArtifactError(
                f"{self.experiment}: {ref.label} has not been made. "
                f"`frontier run {self.experiment}` makes what is missing."
            )
        return Artifact(manifest, self.directory(ref) / manifest.run_id)

    def manifests(self) -> Iterator[Manifest]:
        """Yields every manifest of the experiment, in order of path."""
        for path in sorted(self.base.rglob(MANIFEST)) if self.base.is_dir() else []:
            yield Manifest.model_validate_json(path.read_bytes())

    @contextmanager
    def write(
        self,
        ref: Ref,
        *,
        run_id: str,
        code_version: str,
        config: Mapping[str, Any],
        inputs: Mapping[Ref, InputEntry],
    ) -> Iterator[Draft]:
        """Opens a draft of `ref`; committing it, when the block ends without an error, replaces what was there.

        Args:
            ref: The partition to write.
            run_id: Names the run's directory; a directory left by an earlier attempt of the same run is emptied.
            code_version: The version of the code that makes it.
            config: What decides the result besides code and inputs.
            inputs: What is read.
        """
        directory = self.directory(ref)
        run_directory = directory / run_id
        if run_directory.exists():
            shutil.rmtree(run_directory)
        run_directory.mkdir(parents=True)
        begun_with = [
            code_version,
            dict(config),
            sorted((str(source), entry.sha256) for source, entry in inputs.items()),
        ]
        draft = Draft(ref, run_directory, directory / JOURNAL / config_sha256({"begun_with": begun_with})[:16])
        started = datetime.now(UTC)
        try:
            yield draft
        except BaseException:
            shutil.rmtree(run_directory, ignore_errors=True)
            raise
        files = tree_entries(run_directory)
        manifest = Manifest(
            experiment=self.experiment,
            asset=ref.asset,
            partition=dict(ref.partition),
            run_id=run_id,
            code_version=code_version,
            config=dict(config),
            packages=package_versions(),
            git_commit=git_commit(),
            started_at=started,
            ended_at=datetime.now(UTC),
            host=platform.node(),
            gpu=gpu_name(),
            files=files,
            sha256=content_sha256(files),
            counts=draft.counts,
            metrics=draft.metrics,
            inputs=tuple(inputs.values()),
        )
        write_atomically(directory / MANIFEST, manifest.model_dump_json(indent=1).encode())
        shutil.rmtree(directory / JOURNAL, ignore_errors=True)
        draft.committed = Artifact(manifest, run_directory)

    def collect_garbage(self) -> list[Path]:
        """Removes run directories that no manifest names, and returns them.

        Only for when nothing is being written: a draft in progress is such a directory. Earlier runs of a
        partition go too, unless some manifest's inputs name them, so that lineage stays checkable.
        """
        manifests = list(self.manifests())
        kept = {self.directory(manifest.ref) / manifest.run_id for manifest in manifests}
        kept |= {self.directory(entry.ref) / entry.run_id for manifest in manifests for entry in manifest.inputs}
        removed = []
        for manifest in manifests:
            for path in self.directory(manifest.ref).iterdir():
                partition_of_another = "=" in path.name
                if path.is_dir() and path.name != JOURNAL and not partition_of_another and path not in kept:
                    shutil.rmtree(path)
                    removed.append(path)
        return removed


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`, durably: a reader or a crash sees the old file or the new one."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    partial.replace(path)
