"""Artifacts in an object store, and their copies on this machine.

Keys are the paths of a local store, so either can be copied to the other as it is. A run's files are uploaded before
the manifest that names it. What was downloaded was checked against its hash and stays for the next reader, as long as
there is room (`copies.py`): files of a run never change.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from dagster_project.artifacts.copies import Copies
from dagster_project.artifacts.files import replacing
from dagster_project.artifacts.manifest import FileEntry, Manifest
from dagster_project.artifacts.objects import (
    SCHEME,
    ExistsError,
    ObjectStore,
    StorageError,
    endpoint,
    in_parallel,
)

CACHE = "FRONTIER_CACHE"
"""Environment variable: the folder for copies of artifacts and for unfinished work."""
KNOWN = ".manifests.json"
"""Manifests by key with their servers' tags: only those that changed since are read again."""


def local_folder(url: str) -> Path:
    """Returns where copies of what lies at `url` go on this machine.

    Raises:
        StorageError: It is no address of an object store that is known here.
    """
    place = urlsplit(url)
    if place.scheme != SCHEME or not place.netloc or place.query or place.fragment:
        raise StorageError(f"{url}: expected a local path, or s3://bucket/prefix. Mend FRONTIER_DATA.")
    server = re.sub(r"[^\w.-]+", "-", (endpoint() or "aws").partition("://")[2] or "aws")
    home = Path(os.environ.get(CACHE) or Path.home() / ".cache" / "safety-frontier")
    return home.resolve() / server / place.netloc / place.path.strip("/")


class RemoteArtifacts:
    """One experiment's artifacts in an object store.

    Args:
        objects: The objects of all experiments.
        root: The folder of their copies here.
        experiment: Whose artifacts.
    """

    def __init__(self, objects: ObjectStore, root: Path, experiment: str) -> None:
        self.objects = objects
        self.copies = Copies(root)
        self._root, self._experiment = root, experiment

    def key(self, path: Path) -> str:
        """Returns the key of what has, or would have, its copy at `path`."""
        return path.relative_to(self._root).as_posix()

    def manifests(self, name: str) -> list[tuple[Path, bytes]]:
        """Returns every manifest, in order of path, read again only if it changed.

        Args:
            name: The manifests' file name.
        """
        folders = self.objects.folders(f"{self._experiment}/")
        listed = {
            entry.key: entry.tag
            for entries in in_parallel(lambda folder: list(self.objects.entries(folder)), folders)
            for entry in entries
            if entry.key.endswith(f"/{name}")
        }
        known = self._known()
        changed = [key for key, tag in listed.items() if known.get(key, ("", ""))[0] != tag]
        contents = in_parallel(self.objects.get, changed)
        read = {key: (listed[key], text.decode()) for key, text in zip(changed, contents, strict=True) if text}
        current = {
            key: read[key] if key in read else known[key] for key in sorted(listed) if key in read or key in known
        }
        if current != known:
            with replacing(self._root / self._experiment / KNOWN) as partial:
                partial.write_bytes(orjson.dumps(current))
        return [(self._root / key, text.encode()) for key, (_, text) in current.items()]

    def _known(self) -> dict[str, tuple[str, str]]:
        try:
            known = orjson.loads((self._root / self._experiment / KNOWN).read_bytes())
        except (FileNotFoundError, orjson.JSONDecodeError):
            return {}
        return {key: (tag, text) for key, (tag, text) in known.items()}

    def commit(self, draft: Path, directory: Path, manifest: Manifest, name: str, content: bytes) -> None:
        """Uploads the files of a run, and then the manifest that makes it count; the draft becomes the copy here.

        Args:
            draft: Where the files are.
            directory: The partition's directory.
            manifest: What they are.
            name: The manifest's file name.
            content: The manifest's file.

        Raises:
            StorageError: An earlier attempt of the same run wrote other content, or the object store fails.
        """
        run = directory / manifest.run_id
        claim = self._claim_of(run)
        self._claim(claim, manifest)
        try:
            in_parallel(lambda file: self.objects.upload(draft / file.path, self.key(run / file.path)), manifest.files)
        except StorageError:
            with contextlib.suppress(StorageError):
                self.objects.delete([claim])
            raise
        shutil.rmtree(run, ignore_errors=True)
        run.parent.mkdir(parents=True, exist_ok=True)
        draft.rename(run)
        self.copies.add(run)
        self.copies.make_room()
        self.objects.put(self.key(directory / name), content)

    def _claim(self, claim: str, manifest: Manifest) -> None:
        """Makes sure that under a run's name there is one content only, whoever else believes to be that run."""
        sha256 = manifest.sha256.encode()
        try:
            self.objects.put(claim, sha256, new=True)
        except ExistsError:
            if self.objects.get(claim) != sha256:
                raise StorageError(
                    f"{self.objects.url}: another attempt of run {manifest.run_id} made other content of "
                    f"{manifest.ref.label}. What was there stays; make it in a new run."
                ) from None

    def _claim_of(self, run: Path) -> str:
        return self.key(run.with_name(f".{run.name}.claim"))

    def fetch(self, runs: Iterable[tuple[Path, Manifest]], skip: Collection[str] = ()) -> None:
        """Makes sure that the files of runs are here.

        Args:
            runs: The runs' directories here, and what they hold.
            skip: Patterns of files that are not needed.

        Raises:
            StorageError: A file is not there, or not as its manifest says.
        """
        found = list(runs)
        self.copies.use(directory for directory, _ in found)
        wanted = [
            (directory / file.path, file)
            for directory, manifest in found
            for file in manifest.kept
            if not any(fnmatch.fnmatch(file.path, pattern) for pattern in skip)
        ]
        missing = [(path, file) for path, file in wanted if not path.is_file()]
        if missing:
            self.copies.make_room(sum(file.bytes for _, file in missing))
        in_parallel(lambda pair: self._fetch(*pair), missing)

    def _fetch(self, path: Path, file: FileEntry) -> None:
        with replacing(path) as partial:
            found = self.objects.download(self.key(path), partial)
            if found != file.sha256:
                raise StorageError(
                    f"{self.objects.url}: {self.key(path)} has the hash {found[:12]}…, its manifest says "
                    f"{file.sha256[:12]}…: it was altered. Restore it, or delete its manifest to have it made again."
                )

    def altered_files(self, run: Path, manifest: Manifest) -> list[str]:
        """Returns the files that are missing in the object store or do not match the manifest there."""
        found = in_parallel(lambda file: self.objects.sha256(self.key(run / file.path)), manifest.kept)
        return [file.path for file, sha256 in zip(manifest.kept, found, strict=True) if sha256 != file.sha256]

    def delete(self, folder: Path) -> int:
        """Deletes everything below a folder, and returns how many objects that were."""
        keys = [entry.key for entry in self.objects.entries(self.key(folder))]
        self.objects.delete(keys)
        self.copies.forget(folder)
        return len(keys)

    def bytes_of(self, folder: Path) -> int:
        """Returns the size of everything below a folder."""
        return sum(entry.bytes for entry in self.objects.entries(self.key(folder)))

    def delete_run(self, run: Path) -> None:
        """Deletes a run's files, after which the run's name is free again."""
        self.delete(run)
        self.objects.delete([self._claim_of(run)])

    def delete_files(self, run: Path, paths: Iterable[str]) -> None:
        """Deletes some of a run's files; the run's name stays taken."""
        self.objects.delete([self.key(run / path) for path in paths])

    def folders(self) -> set[Path]:
        """Returns all folders of the experiment, as paths here."""
        base = self._root / self._experiment
        files = (self._root / entry.key for entry in self.objects.entries(self._experiment))
        return {folder for file in files for folder in file.parents if base in folder.parents}
