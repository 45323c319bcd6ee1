"""Build step: puts the data that the package ships into wheels. All other settings are in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ("assets_data", "dagster.yaml", "workspace.yaml", "deploy/dagster-postgresql.yaml")
"""Files and folders of the repository that the package reads; `dagster_project/shipped.py` finds them."""


class BuildWithData(build_py):
    """Copies the shipped data into the built package; an editable install reads it from the repository."""

    def run(self) -> None:
        """Build the package, then copy the data."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / "dagster_project" / "shipped"
        shutil.rmtree(target, ignore_errors=True)
        for name in SHIPPED:
            source, copy = Path(__file__).parent / name, target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, copy)
            else:
                shutil.copy2(source, copy)


setup(cmdclass={"build_py": BuildWithData})
