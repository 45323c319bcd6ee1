"""For people: an adapter's model card, a picture of its training, and the way to the hub."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from toolemu.errors import FrontierError

if TYPE_CHECKING:
    from dagster_project.training.dpo import TrainingResult, TrainingStep
    from dagster_project.training.job import TrainingJob

CARD = "README.md"
DPI = 60
"""Of the picture: a small one, since it goes into Dagster's event log."""


def model_card(job: TrainingJob, result: TrainingResult) -> str:
    """Returns an adapter's model card; it says nothing of machine or time, so that equal adapters have equal cards."""
    front = {
        "library_name": "peft",
        "base_model": job.label,
        "tags": ["dpo", "lora", "safety-frontier"],
    }
    last = result.steps[-1]
    settings = job.training.model_dump(mode="json", exclude_none=True)
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).strip(),
        "---",
        "",
        f"# {job.name or job.label}",
        "",
        f"A LoRA adapter over `{job.label}`, trained by DPO with β = {job.beta:g} on {result.pairs} pairs of "
        f"{result.conversations} conversations ({result.too_long} pairs were too long) in {len(result.steps)} steps. "
        + ("Only the agent's own turns counted." if job.training.mask_observations else "Observations counted, too."),
        "",
        "| at the end | |",
        "|---|---|",
        f"| loss | {last.loss:.3f} |",
        f"| reward accuracy | {last.reward_accuracy:.2f} |",
        f"| reward margin | {last.reward_margin:.3f} |",
        f"| KL to the base per token | {result.kl:.4f} nats |",
        "",
        "## Made from",
        "",
        *(f"- {name}: {value}" for name, value in job.lineage.items()),
        "",
        "## Settings",
        "",
        *(f"- {name}: {value}" for name, value in settings.items()),
        "",
    ]
    return "\n".join(lines)


def training_curve(steps: Sequence[TrainingStep]) -> bytes:
    """Returns a small PNG of loss, reward accuracy and margin over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 1.8), layout="constrained")
    at = [step.step for step in steps]
    for axes, name in zip(figure.subplots(1, 3), ("loss", "reward_accuracy", "reward_margin"), strict=True):
        axes.plot(at, [getattr(step, name) for step in steps], color="#3b6ea5", linewidth=1)
        axes.set_title(name.replace("_", " "), fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=DPI)
    return picture.getvalue()


def repository_name(prefix: str, experiment: str, label: str) -> str:
    """Returns a hub repository's name for an adapter: `prefix`, then experiment and partition in its alphabet."""
    return prefix + re.sub(r"[^A-Za-z0-9._-]+", "-", f"{experiment}-{label}").strip("-.")


def push_adapter(folder: Path, repository: str) -> str:
    """Uploads an adapter, private, and returns its address.

    Raises:
        FrontierError: There is no token, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    token = os.environ.get("HF_TOKEN")
    if not token:
        raise FrontierError("trainer.push_to_hub needs a token that may write, in the environment variable HF_TOKEN.")
    api = HfApi(token=token)
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Adapter")
    except (HfHubHTTPError, OSError) as error:
        raise FrontierError(f"The hub did not take {repository}: {error}") from error
    return str(address)
