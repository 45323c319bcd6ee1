from __future__ import annotations

from importlib import import_module
from pathlib import Path

import dagster as dg
import pytest
import yaml

from dagster_project.definitions import build_definitions
from dagster_project.experiment.spec import Experiment
from tests.conftest import IMPORTED, ROOT, SMALL

LOCATIONS = [entry["python_module"] for entry in yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]]


@pytest.mark.parametrize("location", LOCATIONS, ids=lambda location: location["location_name"])
def test_a_code_location_loads_where_nothing_is_made_yet(
    location: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FRONTIER_DATA", str(tmp_path))
    definitions = getattr(import_module(location["module_name"]), location["attribute"])
    assert isinstance(definitions, dg.Definitions)
    keys = definitions.resolve_all_asset_keys()
    assert {key.path[0] for key in keys} == {location["attribute"]}
    assert dg.AssetKey([location["attribute"], "frontier"]) in keys


def test_the_workspace_has_every_shipped_experiment() -> None:
    shipped = {path.stem for path in (ROOT / "assets_data" / "experiments").glob("*.yaml")}
    own_files = {"paper"}  # it needs files of the user's, without which it would be a location that does not load
    assert {location["attribute"] for location in LOCATIONS} == shipped - own_files


@pytest.mark.parametrize(("sections", "executor"), [(SMALL, "forked"), (IMPORTED, "separate")])
def test_steps_are_forks_unless_loading_reads_the_store(sections: dict[str, object], executor: str) -> None:
    """A client of an object store that was used before a fork hangs after it."""
    definitions = build_definitions(Experiment.model_validate(sections))
    assert isinstance(definitions.executor, dg.ExecutorDefinition) and definitions.executor.name == executor


def test_a_place_in_a_pool_goes_to_what_is_furthest_along_and_what_needs_none_waits_for_none() -> None:
    experiment = Experiment.model_validate({**SMALL, "operations": {"gpu": True}})
    ops = {op.name: op for op in (found.op for found in build_definitions(experiment).assets or [])}  # type: ignore[union-attr]
    rooms = ["source_models", "source_trajectories", "stage_1__adapters", "stage_2__adapters", "agent_trajectories"]
    places = [ops[f"small__{room}"] for room in rooms]
    assert {op.pool for op in places} == {"gpu"}
    priorities = [int(op.tags["dagster/priority"]) for op in places]
    assert priorities == sorted(set(priorities))
    pairs = ops["small__preference_pairs__strict"]
    assert pairs.pool is None and "dagster/priority" not in pairs.tags


def test_a_report_is_overdue_after_as_long_as_the_file_says() -> None:
    def policies(**operations: object) -> set[str]:
        found = build_definitions(Experiment.model_validate({**SMALL, "operations": operations}))
        return {spec.key.path[-1] for spec in found.resolve_all_asset_specs() if spec.freshness_policy is not None}

    assert policies(fresh_within_h=12.0) == {"report"}
    assert policies() == set()


def test_the_catalogue_says_who_is_responsible_and_where_the_code_is() -> None:
    owners = ["team:agent safety", "lab@example.org"]
    found = build_definitions(Experiment.model_validate({**SMALL, "operations": {"owners": owners}}))
    places = set()
    for spec in found.resolve_all_asset_specs():
        assert list(spec.owners) == owners
        (reference,) = spec.metadata["dagster/code_references"].code_references
        assert isinstance(reference, dg.LocalFileCodeReference)
        places.add(Path(reference.file_path).relative_to(ROOT / "dagster_project").parts[0])
    assert places == {"collect", "preferences", "training", "results", "report"}
    with pytest.raises(ValueError, match=r"operations\.owners"):
        Experiment.model_validate({**SMALL, "operations": {"owners": ["nobody"]}})
