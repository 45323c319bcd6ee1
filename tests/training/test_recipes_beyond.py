"""Recipes beyond the paper's, from the experiment file to the frontier: a third stage, mixtures, another loss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.training.concatenate import read_adapter
from tests.conftest import SMALL, Lab

MIXTURE = "0.25_safe_and_0.75_help"
GRID: dict[str, Any] = {
    **SMALL["grid"],  # type: ignore[dict-item]
    "recipes": ["safe", "help", "safe_then_help", "safe_then_help_then_safe", "safe@ipo", "either"],
    "interpolate": [{"between": ["safe", "help"], "weights": [0.25]}],
}


@pytest.fixture(scope="module")
def beyond(finished: Lab, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """The small experiment with more recipes, run to its end."""
    folder = tmp_path_factory.mktemp("beyond") / "lab"
    shutil.copytree(finished.directory, folder)
    lab = Lab(folder, folder / "small.yaml")
    lab.experiment.write_text(yaml.safe_dump({**SMALL, "grid": GRID, "variants": {"ipo": {"loss": "ipo"}}}))
    told = lab.frontier("run", "small.yaml").stdout
    assert "source_models" not in told, "what is there is not made again"
    return lab


def rows(lab: Lab, sql: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lab.frontier("query", "small.yaml", sql, "--format", "json").stdout)
    return found


@pytest.mark.slow
def test_every_recipe_is_a_point_beside_the_others(beyond: Lab) -> None:
    points = rows(beyond, "SELECT recipe, label FROM frontier_points WHERE judging = 'match' AND judge IS NULL")
    labels = {point["recipe"]: point["label"] for point in points}
    assert set(labels) == {*GRID["recipes"], MIXTURE}
    assert [labels[name] for name in ("safe_then_help_then_safe", "safe@ipo", "either", MIXTURE)] == [
        "S→H→S",
        "S (ipo)",
        "S∪H",
        "0.25 S + 0.75 H",
    ]
    sets = {row["point_set"]: row["n"] for row in rows(beyond, "FROM frontier_fits WHERE judging = 'match'")}
    assert (sets["model_recipe"], sets["interpolated"]) == (6, 3)
    (mixed,) = rows(beyond, f"SELECT DISTINCT stages, mixture FROM agents WHERE recipe = '{MIXTURE}'")
    ends = [
        {"agent": f"eager:{recipe}:strict:0.1", "weight": weight} for recipe, weight in (("safe", 0.25), ("help", 0.75))
    ]
    assert mixed == {"stages": [], "mixture": ends}
    trained = rows(beyond, "SELECT agent, max(stage) AS stages FROM training_runs GROUP BY agent")
    stages = {row["agent"].split(":")[1]: row["stages"] for row in trained}
    assert stages == {
        "safe": 1,
        "help": 1,
        "safe@ipo": 1,
        "either": 1,
        "safe_then_help": 2,
        "safe_then_help_then_safe": 3,
    }


@pytest.mark.slow
def test_a_point_of_a_mixture_leads_to_both_adapters(beyond: Lab) -> None:
    told = beyond.frontier("lineage", "small.yaml", f"eager:{MIXTURE}").stdout
    assert "every file matches its hash" in told
    for name in ("safe", "help"):
        assert f"stage_1/adapters [eager:{name}:strict:0.1, 0]" in told
    assert "merged_models" not in told


@pytest.mark.slow
def test_a_mixture_adds_the_weighted_sum_of_what_both_add(beyond: Lab) -> None:
    store = ArtifactStore(beyond.location, "small")

    def adapter(asset: str, recipe: str) -> Path:
        return store.get(Ref.of(asset, agent=f"eager:{recipe}:strict:0.1", seed="0")).path

    mixed = adapter("interpolated_adapters", MIXTURE)
    parts = [(0.25, adapter("stage_1/adapters", "safe")), (0.75, adapter("stage_1/adapters", "help"))]
    for module in read_adapter(mixed).down:
        found, *added = (
            part.scale * (part.up[module].double() @ part.down[module].double())
            for part in map(read_adapter, (mixed, *(path for _, path in parts)))
        )
        expected = sum((weight * one for (weight, _), one in zip(parts, added, strict=True)), torch.zeros_like(found))
        torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-5)


@pytest.mark.slow
def test_claims_and_figures_stand(beyond: Lab) -> None:
    claims = rows(beyond, "SELECT claim, evidence FROM claims WHERE main")
    assert {row["claim"]: row["evidence"] for row in claims}["order_matters"] == 0, "it takes H→S, which is not there"
    store = ArtifactStore(beyond.location, "small")
    drawn = (store.get(Ref("figures")).path / "frontier.svg").read_text(encoding="utf-8")
    for recipe in (*GRID["recipes"], MIXTURE):
        assert f'id="point:match:eager:{recipe}:0.1:strict"' in drawn
    page = (store.get(Ref("report")).path / "index.html").read_text(encoding="utf-8")
    assert "0.25 S + 0.75 H" in page or "0.25 S \\u002b 0.75 H" in page


@pytest.mark.slow
def test_either_trains_on_as_many_pairs_of_each_metric(beyond: Lab) -> None:
    pairs = rows(beyond, "SELECT metric, decided_by, count(*) AS n FROM preference_pairs WHERE seed = 0 GROUP BY ALL")
    counted = {(row["metric"], row["decided_by"]): row["n"] for row in pairs}
    assert counted["either", "safe"] == counted["either", "help"] > 0
    assert counted["either", "safe"] == min(counted["safe", None], counted["help", None])
    (trained,) = rows(beyond, "SELECT pairs FROM training_runs WHERE agent = 'eager:either:strict:0.1' AND seed = 0")
    assert trained["pairs"] == 2 * counted["either", "safe"]


@pytest.mark.slow
def test_what_the_released_format_has_no_name_for_is_left_out_and_counted(beyond: Lab, tmp_path: Path) -> None:
    told = beyond.frontier("export", "small.yaml", "runs", "--out", str(tmp_path / "out"))
    assert "3 agents left out that have no name in that format" in told.stdout + told.stderr
    trained = {path.name for path in (tmp_path / "out" / "sample_0").iterdir() if path.name.startswith("dpo_")}
    sequences = [recipe.split("_then_") for recipe in GRID["recipes"] if recipe != "either" and "@" not in recipe]
    names = {"_".join(f"{metric}_strict_s{seed}" for metric in metrics) for metrics in sequences for seed in (0, 1)}
    assert trained == {f"dpo_eager_{name}" for name in names}


@pytest.mark.slow
def test_exported_pairs_for_either_say_for_which_metric(beyond: Lab, tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    which = ("--judge", "strict", "--metric", "either", "--seed", "0")
    beyond.frontier("export", "small.yaml", "pairs", *which, "--out", str(out))
    (known,) = rows(beyond, "SELECT count(*) AS n FROM preference_pairs WHERE metric = 'either' AND seed = 0")
    metrics = [json.loads(line)["decided_by"] for line in out.read_text().splitlines()]
    assert metrics.count("safe") == metrics.count("help") == known["n"] / 2
