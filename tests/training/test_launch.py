"""Trainings in processes of their own: alone, several together, and under Dagster."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import pytest
from safetensors.torch import load_file

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.artifacts.snapshots import MARK
from dagster_project.definitions import build_definitions
from dagster_project.experiment.spec import load_experiment
from dagster_project.experiment.training import Trainer
from dagster_project.training.dpo import TrainingResult, train_adapter
from dagster_project.training.job import write_job
from dagster_project.training.launch import PARENT, PROGRAM, command, failure_path, result_path
from tests.conftest import ROOT, Lab

from .toy import FAST, Corpus, files_of


def start(job: Any, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    write_job(job, path)
    arguments = command(job.trainer, job.training, path)
    if job.trainer.sharding == "fsdp":
        place = arguments.index(PROGRAM)
        arguments[place - 1 : place + 1] = [str(Path(__file__).with_name("fsdp_on_cpus.py"))]
        environment["PYTHONPATH"] = str(ROOT)
    return subprocess.run(
        arguments, cwd=ROOT, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_a_job_file_gives_what_the_function_does(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    expected = train_adapter(corpus.job(base, tmp_path / "inside"))
    job = corpus.job(base, tmp_path / "outside", trainer=Trainer(mode="subprocess"))
    done = start(job, tmp_path / "job.json")
    assert done.returncode == 0, done.stderr
    result = TrainingResult.model_validate_json(result_path(tmp_path / "job.json").read_bytes())
    assert result.steps == expected.steps
    assert files_of(tmp_path / "inside") == files_of(tmp_path / "outside")
    assert "step 3 of 3" in done.stderr
    job.pairs.unlink()
    done = start(job, tmp_path / "job.json")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "pairs.jsonl: there is no such file" in failure_path(tmp_path / "job.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"shared_text": True}, {"sharding": "fsdp"}], ids=str)
def test_two_processes_train_what_one_does(
    corpus: Corpus, base: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    training = FAST.model_copy(update={"batch_size": 4, "learning_rate": 1e-3})
    expected = train_adapter(corpus.job(base, tmp_path / "one", training))
    trainer = Trainer.model_validate({"mode": "accelerate", "processes": 2, "checkpoint_every": 1, **settings})
    job = corpus.job(base, tmp_path / "two", training, trainer=trainer, references=tmp_path / "store")
    done = start(job, tmp_path / "job.json")
    assert done.returncode == 0, done.stderr[-3000:]
    result = TrainingResult.model_validate_json(result_path(tmp_path / "job.json").read_bytes())
    assert result.micro_batch == 2
    assert [step.loss for step in result.steps] == pytest.approx([step.loss for step in expected.steps], abs=1e-4)
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert ours.keys() == theirs.keys()
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-4
    files = files_of(tmp_path / "two")
    (last,) = job.workspace.glob("checkpoints-*/checkpoint-3")
    mark = (last.with_name("checkpoint-2") / MARK).read_text()
    assert all(f"rng_state_{rank}.pth" in mark for rank in range(2))
    if trainer.sharding == "ddp":  # with FSDP, that of the last step cannot be gone on from
        shutil.rmtree(last)
    assert start(job, tmp_path / "job.json").returncode == 0
    again = TrainingResult.model_validate_json(result_path(tmp_path / "job.json").read_bytes())
    assert again.resumed_at == 2
    assert again.steps == result.steps
    assert files_of(tmp_path / "two") == files


@pytest.mark.slow
def test_a_training_ends_with_the_process_that_started_it(corpus: Corpus, base: Path, tmp_path: Path) -> None:
    training = FAST.model_copy(update={"max_steps": 5000})
    job = corpus.job(base, tmp_path / "out", training, trainer=Trainer(mode="subprocess", checkpoint_every=1))
    write_job(job, tmp_path / "job.json")
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    child = subprocess.Popen(
        command(job.trainer, training, tmp_path / "job.json"),
        cwd=ROOT, env={**os.environ, PARENT: str(parent.pid)}, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not list(job.workspace.glob("checkpoints-*/checkpoint-*")):
        assert child.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    parent.kill()
    parent.wait()
    assert child.wait(60) == 1
    assert not psutil.pid_exists(child.pid)


@pytest.mark.slow
def test_dagster_is_told_of_a_training_in_a_process_of_its_own(
    finished: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished.directory / "data", tmp_path / "data")
    monkeypatch.setenv("FRONTIER_DATA", str(tmp_path / "data"))
    experiment = load_experiment(str(finished.experiment))
    own = experiment.model_copy(update={"trainer": Trainer(mode="subprocess")})
    store = ArtifactStore(tmp_path / "data", "small")
    ref = Ref.of("stage_1/adapters", agent="eager:safe:strict:0.1", seed="0")
    before = store.get(ref).manifest
    with dg.DagsterInstance.ephemeral() as instance:
        job = build_definitions(own).resolve_implicit_global_asset_job_def()
        done = job.execute_in_process(
            partition_key="eager:safe:strict:0.1|0",
            asset_selection=[dg.AssetKey(["small", "stage_1", "adapters"])],
            instance=instance,
        )
        log = [entry.user_message for entry in instance.all_logs(done.run_id)]
    assert done.success
    assert "step 4 of 4" in log
    assert any("steps, " in line and "operations" in line for line in log)  # what it would take, said beforehand
    after = store.get(ref).manifest
    assert after.run_id != before.run_id
    assert after.sha256 == before.sha256  # the same adapter, whichever process made it
