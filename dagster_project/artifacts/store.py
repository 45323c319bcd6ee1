"""The artifact store: directories that are never changed once written, and manifests that say which one counts.

``<root>/<experiment>/<asset>/<dimension>=<key>/…/<run id>/`` holds the files of one run of one partition;
``manifest.json`` beside the run directories, replaced atomically, names the run that counts. A crash therefore
leaves the old artifact or the new one. What a crash leaves half-written is a directory that no manifest names;
`ArtifactStore.garbage` finds it.

The root is a folder, or an address in an object store (`s3://bucket/prefix`) with the same layout. Then artifacts are
written here, uploaded whole, and read from copies here; see `remote.py`.
"""

from __future__ import annotations

import fnmatch
import platform
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from dagster_project.artifacts.copies import bytes_below
from dagster_project.artifacts.files import write_atomically
from dagster_project.artifacts.lease import BusyError, Lease, Tell
from dagster_project.artifacts.manifest import (
    InputEntry,
    Manifest,
    altered_files,
    config_sha256,
    content_sha256,
    git_commit,
    gpu_name,
    package_versions,
    tree_entries,
)
from dagster_project.artifacts.objects import ObjectStore, in_parallel
from dagster_project.artifacts.private import make_folder
from dagster_project.artifacts.refs import Ref
from dagster_project.artifacts.remote import RemoteArtifacts, local_folder
from dagster_project.artifacts.unfinished import UnfinishedWork
from toolemu.errors import FrontierError, InputError, validation_problem

MANIFEST = "manifest.json"
JOURNAL = "journal"
DRAFTS = ".drafts"
"""With an object store, the folder of what is being written; a folder's drafts are where they will stay."""

Location = Path | str
"""Where artifacts are: a folder, or an address in an object store."""


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
        return altered_files(self.path, self.manifest.kept)


@dataclass
class Draft:
    """An artifact being written: put files under `path`, note counts and metrics; committed when its block ends.

    `journal` is a directory for unfinished work that outlives a crash; it goes when the artifact is committed. Code,
    configuration and inputs decide its name: work that was begun with others is never taken up. With an object store,
    its growing files (`parts.py`) and complete snapshots (`snapshots.py`) outlive the machine, too.

    `resume` brings back what another machine wrote of a growing file elsewhere, and keeps it safe from now on.
    """

    ref: Ref
    path: Path
    journal: Path
    resume: Callable[[Path], None] = field(default=lambda path: None, repr=False)
    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    committed: Artifact | None = None


class ArtifactStore:
    """The artifacts of one experiment.

    Attributes:
        location: Where all experiments' artifacts are.
        argument: What the command line calls the experiment, for hints: its name, or a path.
        root: The same as a folder of this machine: with an object store, that of the copies.
        base: The experiment's folder in `root`.
    """

    def __init__(self, location: Location, experiment: str, argument: str = "") -> None:
        self.location = location
        self.experiment = experiment
        self.argument = argument or experiment
        self.root = location if isinstance(location, Path) else local_folder(location)
        self.base = self.root / experiment
        remote = not isinstance(location, Path)
        self._remote = RemoteArtifacts(ObjectStore(str(location)), self.root, experiment) if remote else None
        self._lease: Lease | None = None

    @contextmanager
    def being_made(self, tell: Tell = lambda line: None) -> Iterator[None]:
        """Gives a block in which no other command changes the experiment.

        None of this machine, and with an object store none of any machine that has the same. From a machine that gave
        no sign for long, another may have taken over since: see `check_held`.

        Args:
            tell: Is told what is waited for.

        Raises:
            BusyError: Another command is at it.
        """
        try:
            lock = self._lock().acquire(timeout=3)
        except Timeout:
            raise BusyError(f"{self._under_way}. Wait until it ended.") from None
        with lock, self._remote_lease(tell) if self._remote else nullcontext() as self._lease:
            yield

    def check_held(self) -> None:
        """Makes sure that what `being_made` gave is still so.

        Raises:
            LostLeaseError: Another machine has taken over.
        """
        if self._lease:
            self._lease.check()

    def maker(self) -> str:
        """Returns, as a sentence, which command has the experiment in `being_made`; empty if none has."""
        try:
            with self._lock().acquire(timeout=0):
                holder = self._remote_lease().holder() if self._remote else None
        except Timeout:
            return f"{self._under_way}."
        return f"{self._under_way}, unless its machine was lost: {holder.who}." if holder else ""

    @property
    def _under_way(self) -> str:
        return f"A `frontier run {self.argument}` is under way on {self.place()}"

    def _lock(self) -> FileLock:
        return FileLock(self.root / f".{self.experiment}.run.lock")

    def _remote_lease(self, tell: Tell = lambda line: None) -> Lease:
        """Returns the lease beside the lock, whose holder alone may use it."""
        name = f".{self.experiment}.lease"
        return Lease(str(self.location), name, self._under_way, self.root / name, tell)

    def check(self) -> None:
        """Makes sure that artifacts can be read and written.

        Raises:
            StorageError: The object store cannot be reached, or does not allow it.
            OSError: The folder cannot be made.
        """
        if self._remote:
            self._remote.objects.check()
        make_folder(self.root)

    def directory(self, ref: Ref) -> Path:
        """Returns where a partition's runs and manifest lie, or would have their copies."""
        return self.base / ref.asset / ref.partition_label

    def place(self, ref: Ref | None = None, *parts: str) -> str:
        """Returns where something lies for everyone: below a partition's directory, or, without one, the experiment."""
        path = (self.base if ref is None else self.directory(ref)).joinpath(*parts)
        return f"{self.location}/{path.relative_to(self.root).as_posix()}"

    def manifest(self, ref: Ref) -> Manifest | None:
        """Returns the manifest of a partition, or None if it was never made.

        Raises:
            InputError: The manifest cannot be understood.
        """
        path = self.directory(ref) / MANIFEST
        if self._remote:
            content = self._remote.objects.get(self._remote.key(path))
            return None if content is None else self._parsed(path, content)
        try:
            return self._parsed(path, path.read_bytes())
        except FileNotFoundError:
            return None

    def _parsed(self, path: Path, content: bytes) -> Manifest:
        try:
            return Manifest.model_validate_json(content)
        except ValidationError as error:
            place, problem = validation_problem(error)
            remedy = "Delete the file to have the partition made again."
            raise InputError(f"{self.location}/{path.relative_to(self.root)}", place, problem, remedy) from error

    def get(self, ref: Ref) -> Artifact:
        """Returns a partition's artifact.

        Raises:
            MissingArtifactError: It was never made.
        """
        return self.get_all([ref])[ref]

    def get_all(self, refs: Iterable[Ref], *, partial: bool = False, skip: Collection[str] = ()) -> dict[Ref, Artifact]:
        """Returns the artifacts of many partitions, in their order.

        Args:
            refs: The partitions.
            partial: Leave out those that were never made.
            skip: Patterns of files that will not be read, and need no copy here.

        Raises:
            MissingArtifactError: One was never made, and not `partial`; or files of it were removed.
        """
        wanted = list(refs)
        manifests = in_parallel(self.manifest, wanted) if self._remote else map(self.manifest, wanted)
        found = {ref: manifest for ref, manifest in zip(wanted, manifests, strict=True) if manifest is not None}
        missing = next((ref for ref in wanted if ref not in found), None)
        if missing and not partial:
            raise MissingArtifactError(
                f"{self.experiment}: {missing.label} has not been made. "
                f"`frontier run {self.argument}` makes what is missing."
            )
        for ref, manifest in found.items():
            if any(not any(fnmatch.fnmatch(path, pattern) for pattern in skip) for path in manifest.removed):
                raise MissingArtifactError(
                    f"{self.experiment}: {ref.label} was made, and its weights were removed since to save room. "
                    f"`frontier run {self.argument}` makes them again where something needs them."
                )
        artifacts = {ref: Artifact(manifest, self.directory(ref) / manifest.run_id) for ref, manifest in found.items()}
        if self._remote:
            self._remote.fetch(((artifact.path, artifact.manifest) for artifact in artifacts.values()), skip)
        return artifacts

    def reading(self) -> AbstractContextManager[None]:
        """Returns a block; the copies of what is read in it may go after its end, those of what is read elsewhere not.

        Only with an object store are there copies.
        """
        return self._remote.copies.reading() if self._remote else nullcontext()

    def manifests(self) -> Iterator[Manifest]:
        """Yields every manifest of the experiment, in order of path.

        Raises:
            InputError: A manifest cannot be understood.
        """
        if self._remote:
            found = iter(self._remote.manifests(MANIFEST))
        else:
            paths = sorted(self.base.rglob(MANIFEST)) if self.base.is_dir() else []
            found = ((path, path.read_bytes()) for path in paths)
        for path, content in found:
            yield self._parsed(path, content)

    def altered_files(self, manifest: Manifest) -> list[str]:
        """Returns the files of an artifact that are missing where it lies, or no longer match the manifest."""
        run = self.directory(manifest.ref) / manifest.run_id
        return self._remote.altered_files(run, manifest) if self._remote else Artifact(manifest, run).altered_files()

    @contextmanager
    def write(
        self,
        ref: Ref,
        *,
        run_id: str,
        code_version: str,
        config: Mapping[str, Any],
        inputs: Mapping[Ref, InputEntry],
        kind: str = "",
    ) -> Iterator[Draft]:
        """Opens a draft of `ref`; committing it, when the block ends without an error, replaces what was there.

        Args:
            ref: The partition to write.
            run_id: Names the run's directory; a directory left by an earlier attempt of the same run is emptied.
            code_version: The version of the code that makes it.
            config: What decides the result besides code and inputs.
            inputs: What is read.
            kind: What the asset holds.
        """
        make_folder(self.root)
        directory = self.directory(ref)
        run_directory = directory / run_id
        if self._remote:
            run_directory = self.root / DRAFTS / run_directory.relative_to(self.root)
        if run_directory.exists():
            shutil.rmtree(run_directory)
        run_directory.mkdir(parents=True)
        draft = Draft(ref, run_directory, directory / JOURNAL / _begun_with(code_version, config, inputs.values()))
        started = datetime.now(UTC)
        try:
            with ExitStack() as unfinished:
                if self._remote:
                    work = UnfinishedWork(self._remote.objects, self.root, draft.journal)
                    draft.resume = unfinished.enter_context(work).resume
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
            kind=kind,
        )
        content = manifest.model_dump_json(indent=1).encode()
        if self._remote:
            self._remote.commit(run_directory, directory, manifest, MANIFEST, content)
            self._remote.delete(directory / JOURNAL)
        else:
            write_atomically(directory / MANIFEST, content)
        shutil.rmtree(directory / JOURNAL, ignore_errors=True)
        draft.committed = Artifact(manifest, directory / run_id)

    def keep(self, name: str, content: bytes) -> None:
        """Writes a small file that belongs to the experiment and to no partition; `name` is its path in there."""
        make_folder(self.root)
        path = self.base / name
        if self._remote:
            self._remote.objects.put(self._remote.key(path), content)
        else:
            write_atomically(path, content)

    def kept(self, folder: str) -> list[bytes]:
        """Returns the contents of the files that were kept in a folder, in order of name."""
        place = self.base / folder
        if self._remote:
            keys = sorted(entry.key for entry in self._remote.objects.entries(self._remote.key(place)))
            return [content for content in in_parallel(self._remote.objects.get, keys) if content is not None]
        names = sorted(place.iterdir()) if place.is_dir() else []
        return [path.read_bytes() for path in names if not path.name.startswith(".")]

    def clear(self) -> bool:
        """Deletes everything of the experiment, and returns whether there was anything."""
        found = self.base.is_dir() and any(self.base.iterdir())
        shutil.rmtree(self.base, ignore_errors=True)
        return bool(self._remote and self._remote.delete(self.base)) or found

    def release(self, manifest: Manifest, pattern: str) -> int:
        """Removes files of an artifact that can be made again, notes it in the manifest, and returns their bytes.

        Args:
            manifest: The artifact's; nothing happens if another one counts by now.
            pattern: Of the files' paths.
        """
        current, directory = self.manifest(manifest.ref), self.directory(manifest.ref)
        if current is None or current.run_id != manifest.run_id:
            return 0
        files = [file for file in current.kept if fnmatch.fnmatch(file.path, pattern)]
        if not files:
            return 0
        paths = [file.path for file in files]
        noted = current.model_copy(update={"removed": (*current.removed, *paths)})
        content = noted.model_dump_json(indent=1).encode()
        # The manifest first: what it calls removed may be there, what it does not is.
        if self._remote:
            self._remote.objects.put(self._remote.key(directory / MANIFEST), content)
            self._remote.delete_files(directory / current.run_id, paths)
        else:
            write_atomically(directory / MANIFEST, content)
        for path in paths:
            (directory / current.run_id / path).unlink(missing_ok=True)
        return sum(file.bytes for file in files)

    def garbage(self, refs: Iterable[Ref] = ()) -> dict[Path, int]:
        """Returns directories that nothing needs, and their bytes.

        They are those of runs that no manifest names: drafts in progress, and earlier runs of a partition unless some
        manifest's inputs name them, so that lineage stays checkable. And journals of what is made by now, left where a
        machine was lost between commit and clearing up.

        Args:
            refs: Partitions that may have been begun and never made; those that were made are known.
        """
        manifests = list(self.manifests())
        kept = {self.directory(manifest.ref) / manifest.run_id for manifest in manifests}
        kept |= {self.directory(entry.ref) / entry.run_id for manifest in manifests for entry in manifest.inputs}
        partitions = {self.directory(ref) for ref in (*(manifest.ref for manifest in manifests), *refs)}
        found = {
            path for partition in partitions if partition.is_dir() for path in partition.iterdir() if path.is_dir()
        }
        elsewhere = self._remote.folders() if self._remote else set()
        found |= {path for path in elsewhere if path.parent in partitions}
        unnamed = {path for path in found - kept if path.name != JOURNAL and "=" not in path.name}
        journals = {
            self.directory(manifest.ref)
            / JOURNAL
            / _begun_with(manifest.code_version, manifest.config, manifest.inputs)
            for manifest in manifests
        }
        unnamed |= {path for path in journals if path in elsewhere or path.is_dir()}
        sizes = {path: self._remote.bytes_of(path) if self._remote else bytes_below(path) for path in sorted(unnamed)}
        drafts = self.root / DRAFTS / self.experiment
        left = bytes_below(drafts)
        return {**sizes, drafts: left} if left else sizes

    def collect(self, garbage: Iterable[Path]) -> None:
        """Removes the directories that `garbage` found, for when nothing is being written."""
        for path in garbage:
            shutil.rmtree(path, ignore_errors=True)
            if self._remote:
                self._remote.delete_run(path)


def _begun_with(code_version: str, config: Mapping[str, Any], inputs: Iterable[InputEntry]) -> str:
    """Returns a journal's name: unfinished work is taken up only with the code, configuration and inputs it had."""
    read = sorted((str(entry.ref), entry.sha256) for entry in inputs)
    return config_sha256({"begun_with": [code_version, dict(config), read]})[:16]
