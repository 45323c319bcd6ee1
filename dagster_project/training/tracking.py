"""Where a training is reported to besides Dagster and the database: TensorBoard and W&B, by transformers' callbacks."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import orjson

from dagster_project.training.job import TrainingJob
from toolemu.errors import FrontierError

PROJECT = "safety-frontier"


@contextmanager
def tracked(job: TrainingJob, identity: str) -> Iterator[None]:
    """Has what is trained meanwhile reported as one run of its own, which a resumed training goes on with.

    Args:
        job: What is trained.
        identity: What its checkpoints are known by.

    Raises:
        FrontierError: W&B does not take it.
    """
    if "tensorboard" in job.trainer.track:
        os.environ["TENSORBOARD_LOGGING_DIR"] = str(job.tracking or job.workspace / "tensorboard")
    if "wandb" not in job.trainer.track or os.environ.get("RANK", "0") != "0":
        yield
        return
    import wandb

    job.workspace.mkdir(parents=True, exist_ok=True)
    named = orjson.dumps([identity, job.name, str(job.workspace)])
    try:
        # transformers would take any run that is open for its own, and so put one training's steps into another's
        run = wandb.init(
            project=job.trainer.wandb_project or os.environ.get("WANDB_PROJECT", PROJECT),
            entity=job.trainer.wandb_entity,
            name=job.name or None,
            id=hashlib.sha256(named).hexdigest()[:16],
            resume="allow",
            dir=job.workspace,
            reinit="finish_previous",
        )
    except wandb.Error as error:
        raise FrontierError(
            f"trainer.track: W&B does not take the training: {error} Set WANDB_API_KEY, or WANDB_MODE=offline."
        ) from error
    try:
        yield
    finally:
        run.finish()
