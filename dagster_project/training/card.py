"""For people: an adapter's model card, a picture of its training, and the way to the hub."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import yaml

from toolemu.errors import FrontierError
from toolemu.redaction import redact, remember

if TYPE_CHECKING:
    from dagster_project.training.dpo import TrainingResult, TrainingStep
    from dagster_project.training.job import TrainingJob

CARD = "README.md"
LONGEST_NAME = 96
"""Characters of a repository's name on the hub, its owner's included."""
DPI = 60
"""Of the picture: a small one, since it goes into Dagster's event log."""


class Base(NamedTuple):
    """The model that an adapter is for.

    Attributes:
        label: What the adapter calls it.
        source, commit: Its name on the hub and its version there; empty if it is not there.
    """

    label: str
    source: str = ""
    commit: str = ""


class MixedAdapter(NamedTuple):
    """A trained adapter that is part of a mixture.

    Attributes:
        label: The partition it is.
        trained_on: Whose pairs, for what, with which beta.
        sha256: Of its content.
        weight: How much of it.
    """

    label: str
    trained_on: str
    sha256: str
    weight: float


def model_card(job: TrainingJob, result: TrainingResult) -> str:
    """Returns a trained adapter's model card."""
    last = result.steps[-1]
    about = [
        f"A LoRA adapter over `{job.label}`, trained by DPO with β = {job.beta:g} on {result.pairs} pairs of "
        f"{result.conversations} conversations{_sequences(result)} ({result.too_long} pairs were too long) in "
        f"{len(result.steps)} steps. "
        + ("Only the agent's own turns counted." if job.training.mask_observations else "Observations counted, too."),
        "",
        "| at the end | |",
        "|---|---|",
        f"| loss | {last.loss:.3f} |",
        f"| reward accuracy | {last.reward_accuracy:.2f} |",
        f"| reward margin | {last.reward_margin:.3f} |",
        f"| KL to the base per token | {result.kl:.4f} nats |",
    ]
    base, rank = Base(job.label, job.base_hub, job.base_commit), job.training.lora_rank
    sections = {
        "Made from": _listed(job.lineage),
        "Settings": _listed(job.training.model_dump(mode="json", exclude_none=True)),
    }
    return _card(job.name or job.label, base, rank, ["dpo", "lora"], about, sections)


def _sequences(result: TrainingResult) -> str:
    if result.sequences == result.conversations:
        return ""
    return f", which are {result.sequences} sequences, since the chat template or thinking changes earlier turns"


def mixture_card(
    name: str,
    base: Base,
    rank: int,
    ends: Iterable[tuple[str, float]],
    adapters: Iterable[MixedAdapter],
    lineage: Mapping[str, object],
) -> str:
    """Returns the model card of an adapter that is mixed from trained ones.

    Args:
        name: The card's title.
        base: The source model.
        rank: The adapter's.
        ends: The agents that it is mixed from, by their keys, each with its weight.
        adapters: Their adapters, all stages.
        lineage: What else it was made from.
    """
    parts = " and ".join(f"{weight:g} of what all stages of `{key}` add" for key, weight in ends)
    about = [f"A LoRA adapter over `{base.label}` that nobody trained: it adds {parts}, exact up to rounding."]
    mixed = [
        "| weight | adapter | trained on | sha256 |",
        "|---|---|---|---|",
        *(f"| {one.weight:g} | {one.label} | {one.trained_on} | {one.sha256} |" for one in adapters),
    ]
    return _card(name, base, rank, ["lora", "mixture"], about, {"Mixed from": mixed, "Made from": _listed(lineage)})


def _card(
    name: str,
    base: Base,
    rank: int,
    tags: Sequence[str],
    about: Sequence[str],
    sections: Mapping[str, Sequence[str]],
) -> str:
    """Returns a card; it says nothing of machine or time, so that equal adapters have equal cards."""
    front: dict[str, object] = {"library_name": "peft", "tags": [*tags, "safety-frontier"]}
    if base.source:  # the hub refuses a card whose base is no model id
        front["base_model"] = base.source
    weights = f'"{base.source}", revision="{base.commit}"' if base.source else f'"path/of/{base.label}"'
    loading = [
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f"base = AutoModelForCausalLM.from_pretrained({weights})",
        'model = PeftModel.from_pretrained(base, "path/of/this/adapter")',
        "```",
        "",
        f"Its rank is {rank}; vLLM takes it with a `max_lora_rank` of at least that.",
    ]
    lines = ["---", yaml.safe_dump(front, sort_keys=False).strip(), "---", "", f"# {name}", "", *about]
    for heading, content in {**sections, "Loading": loading}.items():
        lines += ["", f"## {heading}", "", *content]
    return "\n".join([*lines, ""])


def _listed(values: Mapping[str, object]) -> list[str]:
    return [f"- {name}: {value}" for name, value in values.items()]


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
    """Returns a hub repository's name for an adapter: `prefix`, then experiment and partition in its alphabet.

    One that is longer than the hub allows ends in a hash of what it would be.
    """
    name = prefix + re.sub(r"[^A-Za-z0-9._]+", "-", f"{experiment}-{label}").strip("-.")
    if len(name) <= LONGEST_NAME:
        return name
    end = f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name[: LONGEST_NAME - len(end)].rstrip("-.") + end


def push_adapter(folder: Path, repository: str) -> str:
    """Uploads an adapter, private, and returns its address.

    Raises:
        FrontierError: There is no token, or the hub refuses.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]

    token = os.environ.get("HF_TOKEN")
    if not token:
        raise FrontierError("trainer.push_to_hub needs a token that may write, in the environment variable HF_TOKEN.")
    remember(token)
    api = HfApi(token=token)
    try:
        address = api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Adapter")
    except (HTTPError, HFValidationError, OSError) as error:  # a connection's errors are no OSError
        raise FrontierError(f"The hub did not take {repository}: {redact(str(error))}") from None
    return str(address)
