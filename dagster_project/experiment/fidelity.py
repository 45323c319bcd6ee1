"""The settings behind `fidelity: published`: those of the paper's released code, where they are not the sound ones."""

from __future__ import annotations

from typing import Any

from dagster_project.judges import JUDGES

PUBLISHED: dict[str, dict[str, Any]] = {
    "agent": {"stop_at_observation": False, "prompt_layout": "published"},
    "pairs": {"lead": "help", "exclude_self_observed": False, "exclude_failed": False},
    "training": {"preset": "published"},
}
"""The fields of each section that `fidelity: published` fills in, beside `judge_failed` and the judges' view."""


def with_fidelity(value: Any) -> Any:
    """Return an experiment's fields with what `fidelity: published` stands for, where the file says nothing else."""
    if not isinstance(value, dict) or value.get("fidelity") != "published":
        return value
    sections = {name: value.get(name, {}) for name in PUBLISHED}
    filled = {name: {**PUBLISHED[name], **given} for name, given in sections.items() if isinstance(given, dict)}
    judges = value.get("judges")
    if isinstance(judges, dict):
        filled["judges"] = {
            name: {"view": "published", **judge}
            if isinstance(judge, dict) and JUDGES.word(judge) == "openai"
            else judge
            for name, judge in judges.items()
        }
    return {"judge_failed": True, **value, **filled}
