"""Telling somebody of a failure: what failed, why, what to do, and where to look."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from dagster_project.artifacts.failures import Failure
from dagster_project.experiment.causes import REMEDIES, Cause
from toolemu.errors import FrontierError
from toolemu.redaction import redact

TIMEOUT_S = 10.0
WAITS_S = (1.0, 4.0)
"""Between attempts at posting."""
SHOWN = 3
"""Failures that an alert quotes; it counts the rest."""


class Alert(BaseModel):
    """What is posted, as JSON; `text` is all of it in words, which is what Slack and Mattermost show."""

    model_config = ConfigDict(frozen=True)

    text: str
    experiment: str
    run_id: str
    cause: Cause
    remedy: str
    assets: tuple[str, ...]
    url: str


def alert_of(
    experiment: str, run_id: str, failed: Sequence[Failure], message: str, ui: str, unnoted: Cause = Cause.lost
) -> Alert:
    """Returns the alert for a failed run.

    Args:
        experiment: The experiment.
        run_id: The run.
        failed: What was noted of its failures.
        message: What Dagster says of it, where nothing was noted.
        ui: Where Dagster's UI is.
        unnoted: The cause where nothing was noted.
    """
    cause = Cause(failed[-1].cause) if failed else unnoted
    quoted = [f"{failure.ref.label}: {failure.message}" for failure in failed[:SHOWN]] or [message]
    more = f" … and {len(failed) - SHOWN} more" if len(failed) > SHOWN else ""
    url = f"{ui}/runs/{run_id}"
    text = redact(f"{experiment} failed ({cause.value}): {'; '.join(quoted)}{more}\n{REMEDIES[cause]}\n{url}")
    return Alert(
        text=text,
        experiment=experiment,
        run_id=run_id,
        cause=cause,
        remedy=REMEDIES[cause],
        assets=tuple(failure.ref.label for failure in failed),
        url=url,
    )


def post(url: str, alert: Alert) -> None:
    """Posts an alert; what may pass is tried again, twice.

    Raises:
        FrontierError: It could not be posted; never names the URL, which is mostly a secret.
    """
    request = urllib.request.Request(
        url, data=json.dumps(alert.model_dump(mode="json")).encode(), headers={"Content-Type": "application/json"}
    )
    problem = ""
    for wait in (*WAITS_S, None):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            problem = f"HTTP {error.code}"
            if error.code < 500 and error.code != 429:
                break
        except (OSError, http.client.HTTPException, ValueError) as error:  # whose words may quote the URL
            problem = type(error).__name__
        if wait is not None:
            time.sleep(wait)
    raise FrontierError(f"operations.webhook: the failure of run {alert.run_id} could not be posted ({problem}).")
