"""The images' recipes: pinned, not root, without PyTorch where it is not needed, and with every file they copy."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tests.deploy.files import DEPLOY

IMAGES = sorted((DEPLOY / "images").glob("*.Dockerfile"))
LOCKS = {"code": ("k8s",), "gpu": ("gpu", "k8s", "view")}
"""The locks, and the extras that each image installs."""
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions(path: Path) -> list[tuple[str, str]]:
    """Returns a recipe's instructions and their arguments, continued lines joined."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines)]


class Pin(NamedTuple):
    """A package in a lock: its version, and the hashes of its files."""

    version: str
    hashes: tuple[str, ...]


def requirements(extras: set[str]) -> list[Requirement]:
    """Returns what the package requires on Linux with extras, its own extras followed."""
    found: list[Requirement] = []
    wanted = [Requirement(text) for text in PROJECT["dependencies"]]
    seen = set(extras)
    for extra in extras:
        wanted += [Requirement(text) for text in PROJECT["optional-dependencies"][extra]]
    for requirement in wanted:  # grows while it is walked
        if requirement.name == PROJECT["name"]:
            for extra in requirement.extras - seen:
                seen.add(extra)
                wanted += [Requirement(text) for text in PROJECT["optional-dependencies"][extra]]
        elif requirement.marker is None or requirement.marker.evaluate({"sys_platform": "linux"}):
            found.append(requirement)
    return found


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_a_recipe_is_pinned_and_ends_as_nobody_special(path: Path) -> None:
    steps = instructions(path)
    assert steps[1] == ("FROM", "${BASE}"), "another image can be given"
    assert re.fullmatch(r"BASE=[\w./-]+:\d+\.\d+\.\d+[\w.-]*@sha256:[0-9a-f]{64}", steps[0][1]), steps[0]
    installs = [part for name, rest in steps if name == "RUN" for part in rest.split("&&") if "pip install" in part]
    dependencies, package = installs
    assert "--require-hashes --requirement requirements.lock" in dependencies
    assert "--no-deps --no-build-isolation --editable ." in package, "nothing is fetched that has no hash"
    users = [rest for name, rest in steps if name == "USER"]
    assert users == ["10001:10001"]
    assert [name for name, _ in steps][-2:] == ["USER", "CMD"], "nothing is done as root after it"


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_what_is_copied_is_there_and_not_ignored(path: Path) -> None:
    ignored = path.with_name(f"{path.name}.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored, "nothing goes into the context but what is named"
    for name, rest in instructions(path):
        if name == "COPY":
            *sources, _ = rest.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored, source


def pins(path: Path) -> dict[str, Pin]:
    """Returns the pinned packages of a lock by their names."""
    found: dict[str, Pin] = {}
    for entry in re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8")).splitlines():
        text, *hashes = entry.split(" --hash=")
        requirement = Requirement(text)
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", entry
        found[canonicalize_name(requirement.name)] = Pin(specifier.version, tuple(map(str.strip, hashes)))
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_every_file_by_its_hash_and_no_place_to_fetch_it(name: str) -> None:
    path = DEPLOY / "images" / f"{name}.lock"
    text = path.read_text(encoding="utf-8")
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    for package, pin in pins(path).items():
        assert pin.hashes and all(re.fullmatch(r"sha256:[0-9a-f]{64}", found) for found in pin.hashes), package


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_of_what_the_project_asks_for(name: str) -> None:
    """Fails where pyproject.toml changed and `make lock` was not run."""
    locked = pins(DEPLOY / "images" / f"{name}.lock")
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert (DEPLOY / "images" / "build.in").read_text(encoding="utf-8").splitlines()[1:] == build
    asked = [*requirements(set(LOCKS[name])), *map(Requirement, build)]
    for requirement in asked:
        pin = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin.version, prereleases=True), (requirement, pin.version)


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_what_its_packages_require_in_turn(name: str) -> None:
    """As far as the packages are installed here in the locked version."""
    locked = pins(DEPLOY / "images" / f"{name}.lock")
    linux = {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64", "extra": ""}
    looked_at = 0
    for package, pin in locked.items():
        try:
            here = metadata.distribution(package)
        except metadata.PackageNotFoundError:
            continue
        if here.version != pin.version:
            continue
        looked_at += 1
        for text in here.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate(linux):
                found = locked.get(canonicalize_name(requirement.name))
                assert found is not None, (package, text)
                assert requirement.specifier.contains(found.version, prereleases=True), (package, text, found.version)
    assert looked_at > 50


def test_the_code_locations_lock_is_what_the_tests_ran_with() -> None:
    constraints = (Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#")
    tested = {canonicalize_name(found.name): found.specifier for found in constraints}
    locked = pins(DEPLOY / "images" / "code.lock")
    assert not {name: pin.version for name, pin in locked.items() if pin.version not in tested.get(name, pin.version)}


def test_the_code_location_needs_no_torch() -> None:
    packages = pins(DEPLOY / "images" / "code.lock").keys()
    assert not packages & {"torch", "transformers", "trl", "peft", "vllm", "accelerate"}
    assert {"dagster-k8s", "dagster-postgres", "obstore"} <= packages
    gpu = pins(DEPLOY / "images" / "gpu.lock")
    assert f"torch=={gpu['torch'].version}" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"torch", "vllm", "dagster-k8s", "obstore", "dagster-webserver"} <= gpu.keys()
