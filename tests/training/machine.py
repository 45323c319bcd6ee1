"""A machine that makes an adapter in a store: ``python -m tests.training.machine LOCATION JOB``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dagster_project.artifacts import ArtifactStore, Ref, unfinished
from dagster_project.training.dpo import Listener, TrainingResult, train_adapter
from dagster_project.training.job import TrainingJob, read_job, write_job
from dagster_project.training.launch import command, environment, result_path

ADAPTER = Ref.of("adapters", seed="0")


def make(store: ArtifactStore, job: TrainingJob) -> None:
    """Does a job as the asset does, with the store's journal for unfinished work; counts the steps that it took."""
    unfinished.EVERY_S = 0.1
    with store.write(ADAPTER, run_id="run", code_version="1", config={}, inputs={}) as draft:
        job = job.model_copy(update={"out": draft.path, "work": draft.journal})
        if job.trainer.mode == "in_process":
            taken: list[int] = []
            result = train_adapter(job, Listener(progress=lambda done, _: taken.append(done)))
            draft.counts["taken"] = len(taken)
        else:
            path = draft.journal / "job.json"
            write_job(job, path)
            subprocess.run(command(job.trainer, job.training, path), env={**os.environ, **environment()}, check=True)
            result = TrainingResult.model_validate_json(result_path(path).read_bytes())
        draft.counts.update(resumed_at=result.resumed_at, steps=len(result.steps))
        (draft.path / "steps.json").write_text("\n".join(step.model_dump_json() for step in result.steps))


if __name__ == "__main__":
    place, job_file = sys.argv[1:]
    make(ArtifactStore(place if "://" in place else Path(place), "trial"), read_job(Path(job_file)))
