"""The command line on a real run: real models, real DPO, real Dagster runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import dagster as dg
import duckdb
import pytest
import yaml

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.collect.world import open_world
from dagster_project.experiment.graph import build_graph
from dagster_project.experiment.spec import load_experiment
from dagster_project.operations.state import State, states
from dagster_project.preferences.assets import PAIRS
from dagster_project.preferences.pairs import PreferencePair
from dagster_project.published.export import source_trajectories
from dagster_project.training.conversations import conversation_records
from tests.conftest import Lab, make_lab
from toolemu.jsonl import read_jsonl
from toolemu.prompts import AgentPrompt


def query(lab: Lab, sql: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(lab.frontier("query", "small.yaml", sql, "--format", "json").stdout)
    return rows


@pytest.fixture
def copy(finished: Lab, tmp_path: Path) -> Lab:
    shutil.copytree(finished.directory, tmp_path / "copy")
    return Lab(tmp_path / "copy", tmp_path / "copy" / "small.yaml")


def test_the_catalogue_has_rows_and_columns(finished: Lab) -> None:
    def shown(*path: str) -> dict[str, object]:
        found = instance.get_latest_materialization_event(dg.AssetKey(["small", *path]))
        assert found is not None and found.asset_materialization is not None
        return {name: value.value for name, value in found.asset_materialization.metadata.items()}

    with dg.DagsterInstance.from_config(str(finished.directory / "home")) as instance:
        points, pairs = shown("frontier"), shown("preference_pairs", "strict")
    (counted,) = query(finished, "SELECT count(*) AS n FROM frontier_points")
    assert points["dagster/row_count"] == counted["n"] and pairs["dagster/row_count"] == pairs["pairs"]
    columns = {column.name: column.description for column in points["dagster/column_schema"].columns}  # type: ignore[attr-defined]
    assert {"safety_delta", "recipe"} <= columns.keys() and all(columns.values())


def store_of(lab: Lab) -> ArtifactStore:
    return ArtifactStore(lab.location, "small")


REMOTE = pytest.param("finished_remotely", marks=pytest.mark.slow, id="s3 and postgresql")


@pytest.fixture(params=[pytest.param("finished", id="folder and sqlite"), REMOTE])
def lab(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Lab:
    """The small experiment, run to its end, wherever artifacts and Dagster's records are."""
    ended: Lab = request.getfixturevalue(request.param)
    for name, value in ended.settings.items():
        monkeypatch.setenv(name, value)
    return ended


def test_a_run_ends_with_every_partition_and_a_result(lab: Lab) -> None:
    graph, store = build_graph(load_experiment(str(lab.experiment))), store_of(lab)
    assert {found.state for found in states(graph, store).values()} == {State.done}
    for artifact in (store.get(ref) for node in graph.nodes.values() for ref in node.refs()):
        assert artifact.altered_files() == []
    for kind in ("svg", "pdf", "png"):
        assert (store.get(Ref("figures")).path / f"frontier.{kind}").stat().st_size > 1000


def test_a_second_run_has_nothing_to_do(lab: Lab) -> None:
    done = lab.frontier("run", "small.yaml")
    assert "nothing to do" in done.stdout
    assert "Δ safety" in done.stdout


def test_every_partition_is_a_run_in_dagster(lab: Lab) -> None:
    import dagster as dg

    graph = build_graph(load_experiment(str(lab.experiment)))
    with dg.DagsterInstance.from_config(str(lab.directory / "home")) as instance:
        assert ("Postgres" in type(instance.event_log_storage).__name__) is bool(lab.settings)
        for node in graph.nodes.values():
            key = dg.AssetKey(["small", *node.name.split("/")])
            if node.dimensions:
                assert len(instance.get_materialized_partitions(key)) == len(node.refs())
            event = instance.get_latest_materialization_event(key)
            assert event is not None
            manifest_runs = {store_of(lab).get(ref).manifest.run_id for ref in node.refs()}
            assert event.run_id in manifest_runs


def test_what_models_of_this_process_took_is_under_their_names(lab: Lab) -> None:
    used = query(lab, "SELECT DISTINCT split_part(asset, '_', 1) AS whose, model FROM model_use ORDER BY ALL")
    assert [(row["whose"], row["model"]) for row in used] == [
        ("agent", "eager"), ("source", "cautious"), ("source", "eager"),
    ]  # fmt: skip


def test_what_a_training_says_is_in_dagsters_log(lab: Lab) -> None:
    import dagster as dg

    (adapter, *_) = build_graph(load_experiment(str(lab.experiment))).nodes["stage_1/adapters"].refs()
    with dg.DagsterInstance.from_config(str(lab.directory / "home")) as instance:
        logged = instance.all_logs(store_of(lab).get(adapter).manifest.run_id)
    assert any("conversations" in entry.user_message for entry in logged if not entry.is_dagster_event)


def test_the_warehouse_holds_what_the_artifacts_hold(lab: Lab) -> None:
    (counts,) = query(
        lab,
        "SELECT (SELECT count(*) FROM trajectories) AS trajectories, "
        "(SELECT count(*) FROM evaluations) AS evaluations, "
        "(SELECT count(*) FROM training_runs) AS adapters, (SELECT count(*) FROM frontier_points) AS points",
    )
    trajectories = 2 * 12 * 6 + 3 * 2 * 6 * 2  # source models: all cases; agents and seeds: half of them
    assert counts["trajectories"] == trajectories
    assert counts["evaluations"] == trajectories * 2 * 2
    assert counts["adapters"] == 6
    leaked = query(
        lab,
        "SELECT * FROM preference_pairs JOIN splits USING (seed, case_idx) WHERE split = 'test'",
    )
    assert leaked == []
    assert query(lab, "SELECT DISTINCT split FROM trajectories WHERE seed IS NOT NULL") == [{"split": "test"}]


def test_queries_are_read_only_and_wrong_ones_say_why(lab: Lab) -> None:
    done = lab.frontier("query", "small.yaml", "DELETE FROM trajectories", check=False)
    assert done.returncode == 1
    assert "read-only" in done.stderr
    assert "Traceback" not in done.stderr
    done = lab.frontier("query", "small.yaml", "SELECT nothing FROM nowhere", check=False)
    assert (done.returncode, "nowhere" in done.stderr) == (1, True)


def test_the_lineage_of_every_point_goes_back_to_the_source_models(lab: Lab) -> None:
    for point in query(lab, "SELECT DISTINCT model, recipe FROM frontier_points"):
        done = lab.frontier("lineage", "small.yaml", f"{point['model']}:{point['recipe']}")
        assert "every file matches its hash" in done.stdout
        for asset in ("stage_1/adapters", "preference_pairs/strict", "source_evaluations/lenient", "source_models"):
            assert asset in done.stdout, asset


def test_lineage_notices_an_altered_file(copy: Lab) -> None:
    store = store_of(copy)
    adapter = store.get(Ref.of("stage_1/adapters", agent="eager:safe:strict:0.1", seed="0"))
    (adapter.path / "adapter_config.json").write_text("{}")
    done = copy.frontier("lineage", "small.yaml", "eager:safe", check=False)
    assert done.returncode == 1
    assert "altered: adapter_config.json" in " ".join(done.stdout.split())


def test_a_transcript_shows_steps_and_verdicts(lab: Lab) -> None:
    (row,) = query(lab, "SELECT * FROM trajectories WHERE steps > 0 AND seed = 1 ORDER BY trajectory_id LIMIT 1")
    by_id = lab.frontier("transcript", "small.yaml", str(row["trajectory_id"])).stdout
    coordinates = ["--agent", row["agent"], "--case", row["case_idx"], "--seed", row["seed"], "--sample", row["sample"]]
    assert lab.frontier("transcript", "small.yaml", *map(str, coordinates)).stdout == by_id
    for text in ("Action:", "strict", "lenient", "safe", "help"):
        assert text in by_id
    done = lab.frontier("transcript", "small.yaml", "0000", check=False)
    assert (done.returncode, "has no trajectory 0000" in done.stderr) == (1, True)


def test_two_agents_are_compared_case_by_case(lab: Lab) -> None:
    done = lab.frontier("compare", "small.yaml", "eager", "eager:safe:strict:0.1", "--metric", "safe")
    assert "improved" in done.stdout and "strict" in done.stdout and "lenient" in done.stdout
    assert done.stderr == ""
    done = lab.frontier("compare", "small.yaml", "eager", "eager:saef:strict:0.1", check=False)
    assert (done.returncode, "Near it: eager:safe:strict:0.1" in done.stderr) == (1, True)


def test_a_bundle_is_checked_to_the_byte_and_says_nothing_of_the_machine(lab: Lab, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    lab.frontier("bundle", "small.yaml", "--out", str(folder), "--trajectories", "--adapters")
    assert "is whole" in lab.frontier("verify", str(folder)).stdout
    with duckdb.connect(str(folder / "data" / "small.duckdb"), read_only=True) as database:
        for table in ("artifacts", "trajectories"):
            paths = [row[0] for row in database.execute(f"SELECT path FROM {table}").fetchall()]
            assert paths and not any(path.startswith(("/", "s3:")) for path in paths)
    texts = [path for path in (folder / "data").rglob("*") if path.suffix in (".json", ".html", ".md", ".svg")]
    assert not [path for path in texts if str(lab.directory) in path.read_text(encoding="utf-8")]
    adapter = next((folder / "data" / "artifacts" / "stage_1").rglob("adapter_model.safetensors"))
    content = bytearray(adapter.read_bytes())
    content[100] ^= 1
    adapter.write_bytes(bytes(content))
    done = lab.frontier("verify", str(folder), check=False)
    assert done.returncode == 1
    assert f"{adapter.relative_to(folder)}: altered" in done.stderr
    again = lab.frontier("bundle", "small.yaml", "--out", str(folder), check=False)
    assert (again.returncode, "something already" in again.stderr) == (1, True)


def test_the_report_of_a_run_can_be_copied(lab: Lab, tmp_path: Path) -> None:
    page = Path(lab.frontier("report", "small.yaml", "--out", str(tmp_path / "site")).stdout.strip())
    assert "A toy world" in page.read_text(encoding="utf-8")
    assert len(list((page.parent / "transcripts").iterdir())) == 2 + 3 * 2  # models; agents and seeds
    assert query(lab, "SELECT count(*) AS n FROM claims WHERE main AND toy")[0]["n"] == 9


def test_exported_pairs_are_those_that_training_sees(finished: Lab, tmp_path: Path) -> None:
    lab, experiment = finished, load_experiment(str(finished.experiment))
    store, out = store_of(lab), tmp_path / "pairs.jsonl"
    lab.frontier(
        "export", "small.yaml", "pairs", "--judge", "strict", "--metric", "safe", "--seed", "0", "--out", str(out)
    )
    records = [json.loads(line) for line in out.read_text().splitlines()]
    made = store.get(Ref.of("preference_pairs/strict", metric="safe", seed="0")).path / PAIRS
    pairs = {(pair.chosen_trajectory_id, pair.rejected_trajectory_id) for pair in read_jsonl(made, PreferencePair)}
    assert {(record["chosen_file"], record["rejected_file"]) for record in records} == pairs
    world, texts = open_world(experiment), source_trajectories(build_graph(experiment), store)
    prompt = AgentPrompt("brief")
    (seen,) = conversation_records([texts[records[0]["chosen_file"]]], world.cases, world.toolkits, prompt)
    assert records[0]["prompt"] == [message._asdict() for message in seen.prompt]
    assert records[0]["chosen"] == [message._asdict() for message in seen.completion]
    told = lab.frontier("export", "small.yaml", "pairs", "--judge", "strict", "--out", str(out), check=False)
    assert told.returncode == 1 and "is there already" in told.stderr


@pytest.mark.parametrize("option", ["exclude_self_observed", "exclude_runaways"])
def test_what_pairs_leave_out_is_not_exported(copy: Lab, tmp_path: Path, option: str) -> None:
    experiment = yaml.safe_load(copy.experiment.read_text())
    texts = copy.directory / "data" / "small" / "source_trajectories"
    for file in texts.rglob("trajectories.jsonl"):  # as if every second one were such a one
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        for line in lines:
            odd = line["sample"] % 2 == 1
            line.update(final_self_observed=odd, stop_reason="step_limit" if odd else "final_answer")
            line["steps"] = [{**step, "self_observed": False} for step in line["steps"]]
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    graph, store = build_graph(load_experiment(str(copy.experiment))), store_of(copy)
    odd = {name for name, found in source_trajectories(graph, store).items() if found.sample % 2 == 1}
    for on in (True, False):
        none = {"exclude_self_observed": False, "exclude_runaways": False}
        changed = {**experiment, "pairs": {**experiment["pairs"], **none, option: on}}
        copy.experiment.write_text(yaml.safe_dump(changed))
        out = tmp_path / f"{on}.jsonl"
        copy.frontier("export", "small.yaml", "pairs", "--judge", "strict", "--metric", "safe", "--out", str(out))
        records = [json.loads(line) for line in out.read_text().splitlines()]
        sides = {record[side] for record in records for side in ("chosen_file", "rejected_file")}
        assert sides and bool(sides & odd) is not on


def test_a_changed_recipe_is_left_stale_and_redone_when_asked(copy: Lab) -> None:
    before = {manifest.ref: manifest.run_id for manifest in store_of(copy).manifests()}
    experiment = yaml.safe_load(copy.experiment.read_text())
    experiment["overrides"] = [{"recipe": "help", "training": {"max_steps": 5}}]
    copy.experiment.write_text(yaml.safe_dump(experiment))
    told = copy.frontier("run", "small.yaml").stdout
    assert "stale and expensive" in told and "frontier run small.yaml --update" in told
    copy.frontier("run", "small.yaml", "--update")
    after = {manifest.ref: manifest.run_id for manifest in store_of(copy).manifests()}
    redone = {ref for ref in before if ref.partition and before[ref] != after[ref]}
    assert {ref.key("agent") for ref in redone} == {"eager:help:strict:0.1"}
    assert {ref.asset.split("/")[0] for ref in redone} == {
        "agent_specs", "stage_1", "agent_trajectories", "agent_evaluations",
    }  # fmt: skip
    assert "nothing to do" in copy.frontier("run", "small.yaml").stdout


def test_bad_input_is_told_without_a_traceback(lab: Lab) -> None:
    for arguments, message in (
        (["run", "no-such.yaml"], "neither a shipped experiment"),
        (["run", "small.yaml", "--select", "nothing"], "no such asset"),
        (["lineage", "small.yaml", "nobody:safe"], "no trained agent"),
        (["query", "small.yaml", "SELECT 1", "--format", "xml"], "expected one of"),
        (["plan", "small.yaml", "--seed", "7"], "small has the seeds 0, 1"),
    ):
        done = lab.frontier(*arguments, check=False)
        assert done.returncode == 1
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_definitions_that_cannot_be_built_say_why(tmp_path: Path) -> None:
    lab = make_lab(tmp_path)._replace(settings={"FRONTIER_STEPS": "nonsense"})
    done = lab.frontier("run", "small.yaml", "--select", "source_models", check=False)
    assert done.returncode == 1
    assert "FRONTIER_STEPS=nonsense: expected kubernetes" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_check_status_plan_and_init(lab: Lab) -> None:
    assert "in order" in lab.frontier("check", "small.yaml").stdout
    assert "stage_2/adapters" in lab.frontier("status", "small.yaml").stdout
    assert "0 partitions in 0 runs" in lab.frontier("plan", "small.yaml").stdout
    lab.frontier("init", "another")
    assert load_experiment(str(lab.directory / "another.yaml")).name == "another"


@pytest.mark.slow
def test_merging_for_some_agents_alone_is_a_run_of_its_own(copy: Lab) -> None:
    """A served model's agents need merging only where a later stage is trained from them: of three, one does."""
    import dagster as dg

    store = store_of(copy)
    base = store.get(Ref.of("source_models", model="eager")).path
    changed = yaml.safe_load(copy.experiment.read_text())
    changed["models"]["eager"] = {"kind": "weights", "source": str(base), "backend": "vllm"}
    copy.experiment.write_text(yaml.safe_dump(changed))
    graph = build_graph(load_experiment(str(copy.experiment)))
    node = graph.nodes["stage_1/merged_models"]
    assert node.run == "merge_1" and len(node.refs()) < len(graph.nodes["stage_1/adapters"].refs())
    before = {ref: store.get(ref).manifest for ref in node.refs()}
    shutil.rmtree(store.base / "stage_1" / "merged_models")

    copy.frontier("run", "small.yaml", "--select", node.name)

    after = {manifest.ref: manifest for manifest in store.manifests() if manifest.asset == node.name}
    assert (
        after.keys()
        == before.keys()
        == {Ref.of(node.name, agent="eager:safe:strict:0.1", seed=seed) for seed in ("0", "1")}
    )
    assert {ref: made.sha256 for ref, made in after.items()} == {ref: made.sha256 for ref, made in before.items()}
    with dg.DagsterInstance.from_config(str(copy.directory / "home")) as instance:
        for made in after.values():
            (event,) = instance.all_logs(made.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
            assert (
                event.dagster_event
                and event.dagster_event.partition == f"eager:safe:strict:0.1|{made.partition['seed']}"
            )
