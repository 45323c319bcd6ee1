"""Signatures of bundles, by `ssh-keygen`: who vouches for a bundle, which its hashes alone cannot say."""

from __future__ import annotations

import subprocess
from pathlib import Path

from dagster_project.artifacts.bag import SIGNATURE, TAG_LIST
from toolemu.errors import FrontierError, InputError
from toolemu.textfile import read_bytes

NAMESPACE = "safety-frontier-bundle"
"""What is signed for, so that a signature of something else is none of a bundle."""
TIMEOUT_S = 60


def signer(folder: Path, allowed: Path, signature: Path | None = None) -> str:
    """Return who signed a bundle: a principal in the file of allowed signers.

    The signature is of the list of the bundle's lists, so it covers every file of a bundle that `verify_bundle` calls
    whole, and says nothing of one that it does not.

    Args:
        folder: The bundle.
        allowed: OpenSSH's file of allowed signers; see `man ssh-keygen`, ALLOWED SIGNERS.
        signature: The signature; None: `tagmanifest-sha256.txt.sig` in the bundle.

    Raises:
        FrontierError: There is no `ssh-keygen`, no signature, or the signature is not of this bundle by such a signer.
    """
    path = signature or folder / SIGNATURE
    if not path.is_file():
        problem = "there is no signature."
        raise InputError(path, "", problem, "Ask for one, or leave --allowed-signers out.", code="signature.missing")
    content = read_bytes(folder / TAG_LIST)
    read_bytes(allowed)  # raises an error that names the file
    found = _ssh_keygen(["-Y", "find-principals", "-s", str(path), "-f", str(allowed)], content)
    principals = found.stdout.decode(errors="replace").splitlines()
    if found.returncode != 0 or not principals:
        problem = f"is by no signer in {allowed}."
        raise InputError(path, "", problem, "Do not trust the bundle.", code="signature.unknown-signer")
    checked = ["-Y", "verify", "-f", str(allowed), "-I", principals[0], "-n", NAMESPACE, "-s", str(path)]
    if _ssh_keygen(checked, content).returncode != 0:
        problem = f"is not a signature of this bundle by {principals[0]}."
        raise InputError(path, "", problem, "Do not trust the bundle.", code="signature.wrong")
    return principals[0]


def _ssh_keygen(arguments: list[str], content: bytes) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["ssh-keygen", *arguments], input=content, capture_output=True, timeout=TIMEOUT_S)
    except FileNotFoundError as error:
        problem = "ssh-keygen is needed to check a signature, and is not installed."
        raise FrontierError(f"{problem} Install OpenSSH's client.", code="signature.no-tool") from error
