"""Weights from the hub or a folder: found, pinned by their hashes, and found again."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from pydantic import BaseModel, ConfigDict

from dagster_project.artifacts.manifest import FileEntry, tree_entries
from dagster_project.serving.settings import Weights
from toolemu.errors import FrontierError, InputError, validate_record
from toolemu.jsonl import read_json

if TYPE_CHECKING:
    from dagster_project.models.kind import ModelKind

PINNED = "weights.json"
"""In the place of weights: which they are."""
PATTERNS = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
"""What is fetched from the hub: weights, configuration, tokenizer."""
GLANCE = 1024**2
"""Bytes at either end of a file that are looked at whenever weights are opened: hashing all of them takes minutes."""


class PinnedWeights(BaseModel):
    """Weights that do not lie in the artifact.

    Attributes:
        source, commit: As the hub names them; `commit` is empty for a folder.
        glance: Of `glance`.
        files: What they consist of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    commit: str
    glance: str
    files: tuple[FileEntry, ...]


def find_weights(weights: Weights) -> Path:
    """Returns the folder of weights, fetched from the hub if they are not there yet.

    Raises:
        FrontierError: There are no such weights, or the hub cannot be reached.
    """
    folder = weights.folder or _fetch(weights.source, weights.revision)
    if (folder / "adapter_config.json").is_file() and any(folder.glob("*.safetensors")):
        return folder
    if not any(folder.glob("*.safetensors")) or not (folder / "config.json").is_file():
        needed = "*.safetensors, and config.json or adapter_config.json, are needed."
        raise InputError(folder, "", f"holds no model and no adapter: {needed}", "Check `source`.")
    return folder


def folder_at_hand(weights: Weights) -> Path | None:
    """Return the folder of weights if they are on this machine with their configuration, and None otherwise.

    Nothing is fetched. Weights of the hub are looked for in its cache.
    """
    folder = weights.folder
    if folder is None:
        try:
            from huggingface_hub import snapshot_download

            folder = Path(snapshot_download(weights.source, revision=weights.revision, local_files_only=True))
        except (ImportError, ValueError, OSError):  # huggingface_hub's own errors are among these
            return None
    return folder if any((folder / name).is_file() for name in ("config.json", "adapter_config.json")) else None


def pin_weights(weights: Weights, out: Path) -> int:
    """Writes which weights these are into `out`, and returns their size in bytes."""
    folder = find_weights(weights)
    files = tuple(entry for entry in tree_entries(folder) if _is_part(Path(entry.path)))
    commit = "" if weights.folder else folder.name
    pinned = PinnedWeights(source=weights.source, commit=commit, glance=glance(folder), files=files)
    (out / PINNED).write_bytes(orjson.dumps(pinned.model_dump(), option=orjson.OPT_INDENT_2))
    return sum(file.bytes for file in files)


def model_folder(model: ModelKind, artifact: Path) -> Path:
    """Returns the folder of the weights that an artifact holds, or stands for.

    Args:
        model: The source model, or the adapter.
        artifact: Folder with weights, or with `PINNED`.

    Raises:
        FrontierError: Pinned weights are not what they were.
    """
    pinned = pinned_weights(artifact)
    if pinned is None:
        return artifact
    if pinned.commit:
        folder = _fetch(pinned.source, pinned.commit)
    else:
        assert model.weights is not None and model.weights.folder is not None, (
            "weights without a commit lie in a folder"
        )
        folder = model.weights.folder
    if glance(folder) != pinned.glance:
        raise InputError(
            folder, "", "is not what it was when its model was pinned.", "Put it back, or give the model another name."
        )
    return folder


def pinned_weights(artifact: Path) -> PinnedWeights | None:
    """Returns which weights an artifact stands for; None if it holds them."""
    if not (artifact / PINNED).exists():
        return None
    return validate_record(PinnedWeights, read_json(artifact / PINNED), artifact / PINNED, "")


def glance(folder: Path) -> str:
    """Returns a hash over the files of weights: their names, their sizes, and `GLANCE` bytes at either end."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if _is_part(path)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(GLANCE))
            file.seek(max(0, size - GLANCE))
            digest.update(file.read())
    return digest.hexdigest()


def weights_name(weights: Weights, folder: Path) -> str:
    """Return a name for weights that tells them from others: of the hub, by their commit; else by their content."""
    if weights.folder is None:
        return f"{weights.source}@{folder.name[:12]}"
    return f"{folder.name}@{glance(folder)[:12]}"


def is_pinned(weights: Weights) -> bool:
    """Return whether weights are the same whenever they are fetched: they lie in a folder, or a commit names them."""
    return weights.folder is not None or re.fullmatch(r"[0-9a-f]{40}", weights.revision or "") is not None


def _is_part(path: Path) -> bool:
    return any(path.match(pattern) for pattern in PATTERNS)


def _fetch(source: str, revision: str | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError as error:
        raise FrontierError(
            f"{source}: weights of the hub need huggingface_hub. Install it: pip install 'safety-frontier[train]'."
        ) from error
    try:
        return Path(snapshot_download(source, revision=revision, allow_patterns=list(PATTERNS)))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        told = str(error).strip().splitlines()
        raise FrontierError(
            f"{source}{f' at {revision}' if revision else ''} is no folder, and could not be had from the hub: "
            f"{told[0] if told else type(error).__name__} Check name and revision; for gated weights set HF_TOKEN."
        ) from error
