"""Why something failed, and what is therefore tried again."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_project.artifacts import ArtifactStore
from dagster_project.artifacts.failures import Failure, failures
from dagster_project.definitions import build_definitions
from dagster_project.experiment.assets import attended
from dagster_project.experiment.causes import REMEDIES, Cause, cause_of
from dagster_project.experiment.spec import load_experiment
from tests.collect.test_real_models import make_lab
from toolemu.chat.endpoint import EndpointError, SilentEndpointError
from toolemu.errors import FrontierError, InputError


class OutOfMemoryError(RuntimeError):
    """Stands for torch's, which has this name."""


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (SilentEndpointError("here", "down"), Cause.server),
        (EndpointError("refuses the key"), Cause.input),
        (InputError("a.yaml", "", "wrong"), Cause.input),
        (raised_from(RuntimeError("wrapped"), SilentEndpointError("here", "down")), Cause.server),
        (raised_from(FrontierError("training stopped"), OutOfMemoryError("CUDA")), Cause.memory),
        (OutOfMemoryError("CUDA out of memory"), Cause.memory),
        (MemoryError(), Cause.memory),
        (OSError(errno.ENOSPC, "No space left on device"), Cause.disk),
        (OSError(errno.ENOENT, "gone"), Cause.code),
        (ZeroDivisionError(), Cause.code),
    ],
)
def test_the_cause_follows_from_the_error(error: Exception, cause: Cause) -> None:
    assert cause_of(error) is cause
    assert REMEDIES[cause]


class Attempt:
    """What came of making a source model behind an endpoint."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
        lab = make_lab(folder / "lm", "", **changes)
        monkeypatch.chdir(lab.directory)
        monkeypatch.setenv("FRONTIER_DATA", str(folder / "data"))
        experiment = load_experiment("lm.yaml")
        job = build_definitions(experiment).resolve_implicit_global_asset_job_def()
        with dg.DagsterInstance.ephemeral() as instance:
            done = job.execute_in_process(
                instance=instance,
                partition_key="first",
                asset_selection=[dg.AssetKey(["lm", "source_models"])],
                raise_on_error=False,
            )
        assert not done.success
        self.waits = [
            event.step_retry_data.seconds_to_wait
            for event in done.filter_events(lambda event: event.is_step_up_for_retry)
        ]
        self.noted: list[Failure] = list(failures(ArtifactStore(folder / "data", "lm")))


def endpoint(**changes: Any) -> dict[str, Any]:
    here = {"url": "http://127.0.0.1:1/v1", "key": "TEST_KEY", "timeout_s": 1, "give_up_after_s": 0}
    return {"here": {**here, **changes}}


def test_a_silent_server_is_waited_for_and_every_attempt_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Attempt(tmp_path, monkeypatch, endpoints=endpoint(), operations={"retries": 2, "retry_after_s": 0.01})
    assert found.waits == [0.01, 0.01]
    assert [failure.cause for failure in found.noted] == ["server"] * 3
    assert "has answered nothing usable" in found.noted[0].message
    assert found.noted[0].ref.label == "source_models [first]"


def test_a_wrong_setting_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    found = Attempt(tmp_path, monkeypatch, endpoints=endpoint(key="NO_SUCH_KEY"))
    assert found.waits == []
    assert [failure.cause for failure in found.noted] == ["input"]


def test_a_person_who_waits_is_told_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = attended.set(True)
    try:
        assert Attempt(tmp_path, monkeypatch, endpoints=endpoint()).waits == []
    finally:
        attended.reset(token)
