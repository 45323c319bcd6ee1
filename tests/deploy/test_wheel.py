"""The built wheel, installed outside a checkout: commands work, and nothing is read from the repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT, SMALL

pytestmark = pytest.mark.slow


def clean(**more: str) -> dict[str, str]:
    """Return the environment without what would lead to the checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("FRONTIER", "PYTHON"))} | more


@pytest.fixture(scope="module")
def frontier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the command `frontier` of a fresh environment with the wheel; libraries are those of this one."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # building leaves folders behind
    for name in ("toolemu", "dagster_project", "assets_data", "deploy"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "dagster.yaml", "workspace.yaml"):
        shutil.copy2(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*build, str(folder), str(source)], check=True, capture_output=True, timeout=300, env=clean())
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=300, env=clean())
    # A path file adds this environment's libraries, but not its editable install, which is a path file of its own.
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"])
    return folder / "venv" / "bin" / "frontier"


def call(frontier: Path, where: Path, *arguments: str) -> str:
    """Run a command of the wheel in a folder outside the checkout, and return what it prints."""
    environment = clean(DAGSTER_HOME=str(where / "home"), COLUMNS="200")
    command = [str(frontier), *arguments]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_a_new_experiment_is_written_and_checked(frontier: Path, tmp_path: Path) -> None:
    call(frontier, tmp_path, "init", "mine")
    assert "mine" in call(frontier, tmp_path, "check", "mine.yaml")
    assert "miniature" in call(frontier, tmp_path, "check", "miniature")


def test_an_experiment_runs(frontier: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL), encoding="utf-8")
    call(frontier, tmp_path, "run", "small.yaml")
    assert (tmp_path / "data" / "small" / "report").is_dir()


def test_the_package_is_the_wheels(frontier: Path, tmp_path: Path) -> None:
    python = frontier.with_name("python")
    code = "import dagster_project, toolemu; from dagster_project.shipped import ROOT; print(ROOT, toolemu.__file__)"
    said = subprocess.run(
        [str(python), "-c", code], cwd=tmp_path, env=clean(), capture_output=True, text=True, check=True
    ).stdout
    assert str(ROOT) not in said and "shipped" in said
