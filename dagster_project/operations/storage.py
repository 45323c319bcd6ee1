"""Where Dagster keeps what it knows: in SQLite below its home, or in PostgreSQL where the environment names one.

Every process of an instance must agree on it, so it is written into the home's `dagster.yaml` once, when that is made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dagster_project.shipped import ROOT, shipped
from toolemu.errors import FrontierError, InputError

TEMPLATE = shipped("dagster.yaml")
POSTGRESQL = shipped("deploy", "dagster-postgresql.yaml")
HOST = "FRONTIER_POSTGRES_HOST"
"""Environment variable whose presence asks for PostgreSQL; `POSTGRESQL` names the others."""
STORAGES = {"storage", "run_storage", "event_log_storage", "schedule_storage"}
"""The settings of dagster.yaml that say where Dagster keeps what it knows; without any, in SQLite below its home."""


def write_settings(path: Path) -> None:
    """Writes the `dagster.yaml` of a new home: the shipped one, and PostgreSQL if the environment asks for it."""
    text = TEMPLATE.read_text(encoding="utf-8")
    if os.environ.get(HOST):
        text += POSTGRESQL.read_text(encoding="utf-8")
    path.write_text(text, encoding="utf-8")


def check_storage(path: Path, settings: Mapping[str, Any]) -> None:
    """Makes sure that a home keeps its records where the environment asks for.

    Args:
        path: The home's `dagster.yaml`.
        settings: What is in it.

    Raises:
        InputError: The environment asks for PostgreSQL, and the home was made without.
    """
    if os.environ.get(HOST) and not STORAGES & settings.keys():
        raise InputError(
            path,
            "",
            f"keeps Dagster's records in SQLite, but {HOST} is set.",
            f"Add the lines of {POSTGRESQL.relative_to(ROOT)} to it (old records stay behind), or unset {HOST}.",
        )


@contextmanager
def database_faults() -> Iterator[None]:
    """Turns what a database that cannot be used raises into an error for the reader."""
    import sqlalchemy.exc
    from dagster import DagsterInvalidConfigError

    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("dagster_postgres", "psycopg2"):
            raise
        raise FrontierError(
            "Dagster's records are in PostgreSQL, and its client is not installed. "
            "Install it: pip install 'safety-frontier[postgres]'."
        ) from error
    except DagsterInvalidConfigError as error:
        raise FrontierError(f"Dagster's settings are wrong: {error.errors[0].message}") from error
    except Exception as error:
        fault = error.__cause__ or error  # dagster-postgres gives up with an error of its own
        if not isinstance(fault, sqlalchemy.exc.OperationalError):
            raise
        raise FrontierError(
            f"Dagster's database cannot be used: {str(fault.orig).strip()}. "
            f"Check the server, and {HOST} and what goes with it."
        ) from error
