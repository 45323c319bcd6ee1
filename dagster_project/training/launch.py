"""A training in processes of its own: how they are started, and that they end with the one that started them."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from dagster_project.experiment.training import Trainer, Training

PARENT = "FRONTIER_TRAINING_PARENT"
"""Environment variable with the process that a training must not outlive."""
PROGRAM = "dagster_project.training.dpo"
LOG_EVERY_S = 10.0


def command(trainer: Trainer, training: Training, job: Path) -> list[str]:
    """Returns the command that does the job in a file as the experiment file wants it."""
    if trainer.mode == "subprocess":
        return [sys.executable, "-m", PROGRAM, str(job)]
    options = ["--num_machines", "1", "--num_processes", str(trainer.processes), "--dynamo_backend", "no"]
    options += ["--mixed_precision", "no" if training.dtype == "float32" else "bf16", "--main_process_port", "0"]
    if trainer.sharding == "fsdp":
        options += ["--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP"]
        options += ["--fsdp_state_dict_type", "FULL_STATE_DICT", "--fsdp_cpu_ram_efficient_loading", "true"]
    elif trainer.processes > 1:
        options += ["--multi_gpu"]  # on CPUs, too: `--cpu` would start processes that know nothing of each other
    return [sys.executable, "-m", "accelerate.commands.launch", *options, "-m", PROGRAM, str(job)]


def environment() -> Mapping[str, str]:
    """Returns what processes of a training need in their environment besides this one's."""
    return {PARENT: str(os.getpid())}


def watch_parent() -> None:
    """Ends this process when the one that a training was started by is gone, however it went."""
    parent = os.environ.get(PARENT)
    if parent is None:
        return

    def watch() -> None:
        while psutil.pid_exists(int(parent)):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def result_path(job: Path) -> Path:
    """Returns where a job's result goes."""
    return job.with_suffix(".result.json")


def failure_path(job: Path) -> Path:
    """Returns where the reason goes, if a job cannot be done."""
    return job.with_suffix(".failure.txt")


def every_so_often(say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Returns what tells of progress in a line now and then."""
    last = time.monotonic()

    def progress(done: int, total: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > LOG_EVERY_S:
            last = time.monotonic()
            say(f"step {done} of {total}")

    return progress
