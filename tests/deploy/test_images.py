"""The images' recipes: pinned, not root, without PyTorch where it is not needed, and with every file they copy."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT
from tests.deploy.files import DEPLOY

IMAGES = sorted((DEPLOY / "images").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def instructions(path: Path) -> list[tuple[str, str]]:
    """Returns a recipe's instructions and their arguments, continued lines joined."""
    text = re.sub(r"\\\n", " ", path.read_text(encoding="utf-8"))
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [(name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in lines)]


def installed(extras: set[str]) -> set[str]:
    """Returns the names of what the package requires with extras, its own extras followed."""
    found: set[str] = set()
    wanted = [Requirement(text) for text in PROJECT["dependencies"]]
    seen = set(extras)
    for extra in list(extras):
        wanted += [Requirement(text) for text in PROJECT["optional-dependencies"][extra]]
    for requirement in wanted:  # grows while it is walked
        if requirement.name == PROJECT["name"]:
            for extra in requirement.extras - seen:
                seen.add(extra)
                wanted += [Requirement(text) for text in PROJECT["optional-dependencies"][extra]]
        else:
            found.add(requirement.name)
    return found


@pytest.mark.parametrize("path", IMAGES, ids=lambda path: path.name)
def test_a_recipe_is_pinned_and_ends_as_nobody_special(path: Path) -> None:
    steps = instructions(path)
    (base,) = [rest for name, rest in steps if name == "FROM"]
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*", base), base
    installs = [part for name, rest in steps if name == "RUN" for part in rest.split("&&") if "pip install" in part]
    assert all("--constraint constraints.txt" in part or re.search(r"==[\d.]+$", part.strip()) for part in installs)
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


def test_the_code_location_needs_no_torch() -> None:
    (command,) = [rest for name, rest in instructions(DEPLOY / "images/code.Dockerfile") if "pip install" in rest]
    extras = re.search(r"'\.\[([\w,]+)\]'", command)
    assert extras is not None
    packages = installed(set(extras[1].split(",")))
    assert not packages & {"torch", "transformers", "trl", "peft", "vllm", "accelerate"}
    assert {"dagster-k8s", "dagster-postgres", "obstore"} <= packages
    (command,) = [rest for name, rest in instructions(DEPLOY / "images/gpu.Dockerfile") if "pip install" in rest]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.search(r"torch==[\d.]+", command)[0] in makefile  # type: ignore[index]
    extras = re.search(r"'\.\[([\w,]+)\]'", command)
    assert extras is not None
    assert {"torch", "vllm", "dagster-k8s", "obstore", "dagster-webserver"} <= installed(set(extras[1].split(",")))
