"""A worker process: makes one run after another in process, on Dagster's instance."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
import traceback
import warnings
from ctypes import c_int
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, NamedTuple

from dagster_project.artifacts.processes import die_with_parent
from dagster_project.experiment.causes import REMEDIES, Cause, cause_of
from dagster_project.experiment.spec import Experiment
from dagster_project.operations.state import RunUnit

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

REPORT_EVERY_S = 0.2


class Started(NamedTuple):
    """The worker is ready for its first run."""


class Progressed(NamedTuple):
    """How far the current run's current asset is."""

    label: str
    done: int
    total: int


class Finished(NamedTuple):
    """The current run ended; `error` is empty if it succeeded, a traceback if it failed in a way nobody foresaw."""

    error: str


def say_unless_interrupted(found: UnraisableHookArgs) -> None:
    """Prints what Python cannot raise, as it does itself, but for an interrupt.

    Dagster has Ctrl-C raised in a run wherever that is, in the callback of a weak reference, too.
    """
    from dagster import DagsterExecutionInterruptedError

    if not issubclass(found.exc_type, (KeyboardInterrupt, DagsterExecutionInterruptedError)):
        sys.__unraisablehook__(found)


def work(commands: Connection, askers: c_int) -> None:
    """Serves runs until `commands` is closed; `askers` says how many workers ask models behind endpoints now.

    Receives an `Experiment`, which the runs after it belong to, and `RunUnit`s; sends `Started`, `Progressed`,
    `Finished`.
    """
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    # What a run has to say goes to the parent and to Dagster's event log, not between the parent's lines.
    warnings.filterwarnings("ignore")
    logging.lastResort = None
    logging.getLogger().handlers = []
    sys.unraisablehook = say_unless_interrupted
    os.environ.update({"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"})

    from dagster_project.collect.endpoints import sharing
    from dagster_project.definitions import build_definitions
    from dagster_project.experiment.assets import (
        AssetFactory,
        attended,
        dagster_partition_key,
        progress_sink,
        reported_later,
    )
    from dagster_project.operations.instance import OWNER_TAG, open_instance, owner
    from toolemu.errors import FrontierError
    from toolemu.redaction import redact

    with contextlib.suppress(ImportError):  # not installed where only results are computed
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
    instance = open_instance()
    last = [0.0]

    def report(label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - last[0] > REPORT_EVERY_S:
            last[0] = now
            commands.send(Progressed(label, done, total))

    progress_sink.set(report)
    reported_later.set(True)
    attended.set(True)
    sharing.set(lambda: askers.value)
    commands.send(Started())
    while True:
        try:
            command: Experiment | RunUnit = commands.recv()
        except EOFError:
            return
        if isinstance(command, Experiment):
            experiment, job = command, None
            continue
        unit = command
        error = ""
        try:
            job = job or build_definitions(experiment).resolve_implicit_global_asset_job_def()
            job.execute_in_process(
                partition_key=dagster_partition_key(unit.refs[0]),
                asset_selection=[AssetFactory.key_of(experiment, ref.asset) for ref in unit.refs],
                instance=instance,
                tags={OWNER_TAG: owner()},
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                raise_on_error=True,
            )
        except FrontierError as problem:
            error = redact(str(problem))
        except Exception as problem:  # noqa: BLE001 - whatever a run raises is the parent's to report
            error = redact(explain(problem))
        with contextlib.suppress(BrokenPipeError):
            commands.send(Finished(error))


def explain(problem: Exception) -> str:
    """Returns what a person is told of a failed run; a traceback only where nobody foresaw it."""
    description: str | None = getattr(problem, "description", None)  # of a check that failed
    if description:
        return description
    cause = cause_of(problem)
    if cause is Cause.code:
        return "".join(traceback.format_exception(problem))
    return f"{type(problem).__name__}: {problem}. {REMEDIES[cause]}"
