"""Environments: one module per kind, with the fields of the experiment file, the cases, and who plays the tools."""

from __future__ import annotations

from typing import Annotated

from pydantic import PlainValidator, SerializeAsAny

from dagster_project.environments.kind import EmulatorTools, EnvironmentKind, World
from dagster_project.kinds import Registry

ENVIRONMENTS = Registry(
    "environments",
    EnvironmentKind,
    {
        "miniature": "dagster_project.environments.miniature:MiniatureWorld",
        "emulated": "dagster_project.environments.emulated:EmulatedWorld",
        "imported": "dagster_project.environments.imported:ImportedWorld",
    },
)
AnyEnvironment = Annotated[SerializeAsAny[EnvironmentKind], PlainValidator(ENVIRONMENTS.read)]
"""The environment (`world`) in the experiment file."""

__all__ = ["ENVIRONMENTS", "AnyEnvironment", "EmulatorTools", "EnvironmentKind", "World"]
