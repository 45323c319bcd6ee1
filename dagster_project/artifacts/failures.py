"""What failed: a small record for every failed attempt at a partition, beside the artifacts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from dagster_project.artifacts.refs import Ref
from dagster_project.artifacts.store import ArtifactStore
from toolemu.redaction import redact

FAILURES = "failures"


class Failure(BaseModel):
    """One failed attempt; `cause` is its kind, `message` the error's own words."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    asset: str
    partition: dict[str, str]
    run_id: str
    cause: str
    message: str
    started_at: datetime
    failed_at: datetime

    @property
    def ref(self) -> Ref:
        """The partition that was not made."""
        return Ref.of(self.asset, **self.partition)


def note_lost(store: ArtifactStore, refs: Iterable[Ref], run_id: str, message: str, started_at: datetime) -> None:
    """Keeps that the process of a run is gone, which could not note it itself."""
    for ref in refs:
        note_failure(
            store,
            Failure(
                asset=ref.asset,
                partition=dict(ref.partition),
                run_id=run_id,
                cause="lost",
                message=message,
                started_at=started_at,
                failed_at=datetime.now(UTC),
            ),
        )


def note_failure(store: ArtifactStore, failure: Failure) -> None:
    """Keeps a failure, without secrets that its message may quote."""
    failure = failure.model_copy(update={"message": redact(failure.message)})
    digest = hashlib.sha256(failure.model_dump_json().encode()).hexdigest()[:8]
    name = f"{failure.failed_at:%Y%m%dT%H%M%S}-{digest}.json"
    store.keep(f"{FAILURES}/{name}", failure.model_dump_json(indent=1).encode())


def failures(store: ArtifactStore) -> Iterator[Failure]:
    """Yields every failure that was noted, the earliest first."""
    for content in store.kept(FAILURES):
        yield Failure.model_validate_json(content)
