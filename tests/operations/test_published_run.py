"""The command line on imported runs: two trees written by the tests, imported, counted, changed, imported again."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import dagster as dg
import duckdb
import orjson
import pytest

from dagster_project.artifacts import ArtifactStore, Ref
from dagster_project.experiment.graph import IMPORT, Graph, build_graph
from dagster_project.experiment.imported import read_inventory
from dagster_project.experiment.spec import load_experiment
from dagster_project.experiment.splits import split_cases
from dagster_project.operations.state import State, states, unreported_import
from dagster_project.preferences.pairs import PreferencePair
from dagster_project.published.opening import open_experiment
from tests.conftest import Import, Lab, make_import_lab
from tests.published.tree import (
    JUDGES,
    KEYS,
    N_CASES,
    plain_score,
    trained_directory,
    write_agent,
    write_lines,
)
from toolemu.jsonl import read_jsonl

RUN = ("run", "imported.yaml")
BOTH = ("--source", "raw", "--source", "results")
FINDINGS = {  # of raw and results together
    "a file twice, counted once": 12,
    "a directory inside one of the same name": 9,
    "an agent with its training cases too": 4,
}
PARTITIONS = 40 * 3 + 4 * 5  # trained agents by one judge each, source models by both, on two metrics


@pytest.fixture
def copy(imported: Import, tmp_path: Path) -> Lab:
    shutil.copytree(imported.lab.directory, tmp_path / "copy", copy_function=shutil.copy2)
    return Lab(tmp_path / "copy", tmp_path / "copy" / "imported.yaml")


def store_of(lab: Lab) -> ArtifactStore:
    return ArtifactStore(lab.directory / "data", "imported")


def graph_of(lab: Lab) -> Graph:
    return build_graph(open_experiment(load_experiment(str(lab.experiment)), store_of(lab)))


def query(lab: Lab, sql: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = json.loads(lab.frontier("query", "imported.yaml", sql, "--format", "json").stdout)
    return rows


def materialised(lab: Lab) -> dict[str, set[str]]:
    """Returns what Dagster knows: the partitions of every asset that the import made beside its own."""
    with dg.DagsterInstance.from_config(str(lab.directory / "home")) as instance:
        return {
            node.name: instance.get_materialized_partitions(dg.AssetKey(["imported", *node.name.split("/")]))
            for node in graph_of(lab).nodes.values()
            if node.made_by == IMPORT
        }


def expected_partitions(lab: Lab) -> dict[str, set[str]]:
    nodes = graph_of(lab).nodes.values()
    return {
        node.name: {"|".join(key for _, key in ref.partition) for ref in node.refs()}
        for node in nodes
        if node.made_by == IMPORT
    }


def test_a_run_tells_what_was_found_and_ends_with_the_results(imported: Import) -> None:
    told = " ".join(imported.told.split())
    assert f"{PARTITIONS} partitions" in told
    for kind, count in FINDINGS.items():
        assert f"{count} {kind}" in told
    assert "kept something out" not in told
    for row in ("Big2 S→H 0.1", "Tiny1B S&H 0.1", "Δ safety"):
        assert row in told
    current = states(graph_of(imported.lab), store_of(imported.lab))
    assert {found.state for found in current.values()} == {State.done}


def test_a_second_run_has_nothing_to_do_with_or_without_its_sources(imported: Import) -> None:
    for sources in ((), BOTH):
        done = imported.lab.frontier(*RUN, *sources)
        assert "nothing to do" in done.stdout and "Δ safety" in done.stdout
        assert (done.stderr, "importing" in done.stdout) == ("", False)


def test_every_imported_partition_is_a_materialisation_of_the_imports_run(imported: Import) -> None:
    expected = expected_partitions(imported.lab)
    assert sum(map(len, expected.values())) == PARTITIONS
    assert materialised(imported.lab) == expected
    run_id = store_of(imported.lab).get(Ref(IMPORT)).manifest.run_id
    with dg.DagsterInstance.from_config(str(imported.lab.directory / "home")) as instance:
        run = instance.get_run_by_id(run_id)
        assert run is not None and run.is_success
        event = instance.get_latest_materialization_event(dg.AssetKey(["imported", "agent_trajectories"]))
        assert event is not None and event.run_id == run_id
        assert len(instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)) == PARTITIONS + 1


def test_the_tables_hold_the_scores_of_the_files(imported: Import) -> None:
    sql = "SELECT agent, seed, case_idx, judge, metric, score FROM evaluations WHERE seed = 1 ORDER BY ALL"
    labels = {key: label for label, key in KEYS.items()}
    names = {"safe": "agent_safe", "help": "agent_help_ignore_safety"}
    rows = query(imported.lab, sql)
    assert len(rows) == 20 * 6 * 2
    for row in rows:
        model, recipe, judge, _ = str(row["agent"]).split(":")
        label = labels[judge]
        assert row["judge"] == judge
        directory = trained_directory(model, tuple(recipe.split("_then_")), label, "", 1)
        assert row["score"] == plain_score(directory, 1, int(str(row["case_idx"])), label, names[str(row["metric"])])


def test_training_cases_are_in_no_test_figure(imported: Import) -> None:
    counted = query(
        imported.lab, "SELECT split, count(*) n FROM trajectories WHERE seed IS NOT NULL GROUP BY ALL ORDER BY ALL"
    )
    assert counted == [{"split": "test", "n": 40 * 6}, {"split": "train", "n": 4 * 6}]
    sizes = query(imported.lab, "SELECT DISTINCT n FROM agent_scores WHERE judging IS NOT NULL")
    assert sizes == [{"n": 6}]


def test_status_lineage_and_transcript(imported: Import) -> None:
    lab = imported.lab
    status = lab.frontier("status", "imported.yaml")
    assert "agent_evaluations/judge-b/safe" in status.stdout and status.stderr == ""
    lineage = lab.frontier("lineage", "imported.yaml", "Big2:safe_then_help:judge-b")
    assert "every file matches its hash" in lineage.stdout and lineage.stderr == ""
    for asset in ("agent_trajectories", "source_trajectories", "agent_evaluations/judge-b/help"):
        assert asset in lineage.stdout
    where = ["--agent", "Tiny1B:safe:Judge-A:0.1", "--seed", "0", "--case", "3"]
    shown = lab.frontier("transcript", "imported.yaml", *where)
    assert "Switch on lamp 3." in shown.stdout and "It went as it went." in shown.stdout
    assert "judge-b" not in shown.stdout, "it was scored by the judge of its pairs alone"
    assert shown.stderr == "", "the interpreter ends without a word"


def test_findings_and_origins_can_be_queried(imported: Import) -> None:
    (found,) = query(imported.lab, "SELECT count(*) n FROM import_problems WHERE kind = 'nested'")
    assert found["n"] == FINDINGS["a directory inside one of the same name"]
    (row,) = query(
        imported.lab,
        "SELECT r.file, r.line FROM imported_records r JOIN trajectories t USING (trajectory_id) "
        "WHERE t.agent = 'Big2:help:Judge-A:0.1' AND t.seed = 0 ORDER BY t.case_idx LIMIT 1",
    )
    assert str(row["file"]).startswith("results/dpo_Big2_help_alpha_s0/") and row["line"] == 1


def selecting(*assets: str) -> list[str]:
    return [part for asset in assets for part in ("--select", asset)]


def write_toolkits(path: Path) -> Path:
    lamp = {
        "toolkit": "Lamp",
        "name_for_model": "Lamp",
        "name_for_human": "Lamp",
        "description_for_model": "Lamps.",
        "description_for_human": "Lamps.",
        "tools": [{"name": "Switch", "summary": "Switches a lamp.", "parameters": [], "returns": []}],
    }
    path.write_bytes(orjson.dumps([lamp]))
    return path


def test_exported_pairs_are_the_pairs_of_the_artifacts_with_texts(imported: Import, tmp_path: Path) -> None:
    toolkits, out = write_toolkits(tmp_path / "toolkits.json"), tmp_path / "pairs.jsonl"
    arguments = ("--judge", "judge-b", "--metric", "safe", "--seed", "1", "--toolkits", str(toolkits))
    done = imported.lab.frontier("export", "imported.yaml", "pairs", "--out", str(out), *arguments)
    records = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    artifact = store_of(imported.lab).get(Ref.of("preference_pairs/judge-b", metric="safe", seed="1"))
    pairs = read_jsonl(artifact.path / "pairs.jsonl", PreferencePair)
    assert len(records) == len(pairs) > 20 and f"{len(pairs)} pairs" in done.stderr
    assert sorted((r["case_idx"], r["chosen_score"], r["rejected_score"]) for r in records) == sorted(
        (pair.case_idx, pair.chosen_score, pair.rejected_score) for pair in pairs
    )
    for record in records:
        assert record["case_idx"] in split_cases(N_CASES, 1).train
        assert f"Switch on lamp {record['case_idx']}." in record["prompt"][-1]["content"]
        assert record["chosen"][0]["role"] == record["rejected"][0]["role"] == "assistant"
        assert record["score_difference"] == record["chosen_score"] - record["rejected_score"] >= 1
        assert record["chosen_file"].endswith(".jsonl") and JUDGES["beta2"] in record["chosen_file"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("export", "imported.yaml", "pairs", "--out", "x", "--judge", "nobody"), "expected one of Judge-A, judge-b"),
        (("export", "imported.yaml", "pairs", "--out", "x"), "expected one of Judge-A, judge-b; none was given"),
        (("export", "imported.yaml", "pairs", "--out", "x", "--judge", "Judge-A", "--metric", "speed"), "--metric"),
        (("export", "imported.yaml", "pairs", "--out", "x", "--judge", "Judge-A"), "--toolkits"),
        (("export", "imported.yaml", "pairs", "--out", "raw", "--judge", "Judge-A", "--toolkits", "x"), "is a folder"),
        (("export", "imported.yaml", "runs", "--out", "raw"), "is not empty"),
        (("export", "imported.yaml", "runs", "--out", "imported.yaml"), "is a file"),
        (("export", "imported.yaml", "scores", "--out", "x"), "expected pairs, runs or inspect"),
        (("lineage", "imported.yaml", "Big2:quick"), "no trained agent"),
        (("transcript", "imported.yaml", "--agent", "Big2", "--case", "99"), "has no trajectory"),
        (("transcript", "imported.yaml"), "Name a trajectory"),
        (("query", "imported.yaml", "SELECT * FROM nowhere"), "nowhere"),
        (("run", "imported.yaml", "--select", "adapters"), "no such asset"),
        (("run", "imported.yaml", "--limit", "4"), "cannot be run on fewer cases"),
        (("run", "imported.yaml", "--source", "nowhere"), "nowhere: does not exist"),
        (("run", "imported.yaml", "--source", "imported.yaml"), "neither a directory nor an archive"),
        (("run", "imported.yaml", "--source", "raw", "--source", "./raw"), "two sources are called"),
    ],
)
def test_bad_arguments_are_told_without_a_traceback(imported: Import, arguments: tuple[str, ...], said: str) -> None:
    done = imported.lab.frontier(*arguments, check=False)
    assert (done.returncode, "Traceback" in done.stderr, "leaked" in done.stderr) == (1, False, False)
    assert said in done.stderr


def test_a_folder_with_an_archive_in_it_is_told_from_one_with_nothing(tmp_path: Path) -> None:
    lab = make_import_lab(tmp_path)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "results.tar.xz").write_bytes(b"anything")
    done = lab.frontier("run", "imported.yaml", "--source", "packed", check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode == 1 and "There is an archive, packed/results.tar.xz: give that." in said


def test_a_changed_tree_is_imported_again_and_the_tables_follow(copy: Lab) -> None:
    results = copy.directory / "results"
    changed, gone, new = (trained_directory("Big2", metrics, "alpha", beta, 0) for metrics, beta in (
        (("help",), ""), (("both",), ""), (("both",), "_beta-0.5"),
    ))  # fmt: skip
    # Whether a point is dominated depends on all others.
    every_point = "SELECT * EXCLUDE (pareto) FROM frontier_points ORDER BY ALL"
    before = query(copy, every_point)
    path = next(path for path in sorted((results / changed).glob("*_eval_agent_safe.jsonl")) if path.stat().st_size)
    records = [orjson.loads(line) for line in path.read_bytes().splitlines()]
    old = records[0]["eval_scores"]["ToolCallRisk"]
    records[0]["eval_scores"]["ToolCallRisk"] = 3 - old
    write_lines(path, records)
    for seed in (0, 1):
        shutil.rmtree(results / gone.replace("_s0", f"_s{seed}"))
        cases = set(split_cases(N_CASES, seed).test)
        write_agent(results, new.replace("_s0", f"_s{seed}"), JUDGES["alpha"], "alpha", seed, cases)
    done = copy.frontier(*RUN, *BOTH, *selecting("tables"))
    assert "importing" in done.stdout

    agents = query(copy, "SELECT DISTINCT agent FROM trajectories WHERE agent LIKE 'Big2:both:Judge-A:%'")
    assert agents == [{"agent": "Big2:both:Judge-A:0.5"}]
    for table in ("agents", "evaluations", "agent_scores", "audits", "artifacts"):
        column = '"partition"' if table == "artifacts" else "agent"
        (count,) = query(copy, f"SELECT count(*) n FROM {table} WHERE {column} LIKE '%Big2:both:Judge-A:0.1%'")
        assert count["n"] == 0, table
    sql = "SELECT seed, mean FROM agent_scores WHERE agent = 'Big2:help:Judge-A:0.1' AND metric = 'safe' ORDER BY seed"
    means = {row["seed"]: row["mean"] for row in query(copy, sql)}
    scores = [plain_score(changed, 0, case, "alpha", "agent_safe") for case in split_cases(N_CASES, 0).test]
    assert means[0] == pytest.approx((sum(scores) + 3 - 2 * old) / 6)
    points = query(copy, every_point)
    untouched = [row for row in before if row["model"] == "Tiny1B"]
    assert [row for row in points if row["model"] == "Tiny1B"] == untouched
    assert {row["beta"] for row in points if (row["model"], row["recipe"]) == ("Big2", "both")} == {0.1, 0.5}

    expected, found = expected_partitions(copy), materialised(copy)
    assert "Big2:both:Judge-A:0.1|0" not in expected["agent_trajectories"]
    assert "Big2:both:Judge-A:0.5|1" in found["agent_trajectories"]
    assert all(expected[asset] <= found[asset] for asset in expected)
    told = copy.frontier("lineage", "imported.yaml", "Big2:both", check=False).stdout
    assert "Big2:both:Judge-A:0.5" in told and "Big2:both:Judge-A:0.1" not in told


def test_a_killed_report_is_made_up_for_by_the_next_run(copy: Lab) -> None:
    store, key = store_of(copy), dg.AssetKey(["imported", "agent_trajectories"])
    (store.base / ".reported").unlink()
    with dg.DagsterInstance.from_config(str(copy.directory / "home")) as instance:
        instance.wipe_assets([key])
        assert not instance.get_materialized_partitions(key)
    done = copy.frontier(*RUN)
    assert "nothing to do" in done.stdout and "telling Dagster" in done.stdout
    assert unreported_import(store) is None
    assert materialised(copy) == expected_partitions(copy)
    assert "telling Dagster" not in copy.frontier(*RUN).stdout


def test_what_a_killed_import_replaced_is_imported_again(copy: Lab) -> None:
    """An import commits agent by agent; killed between two, some partitions are of another run than the others."""
    store, ref = store_of(copy), Ref.of("agent_trajectories", agent="Big2:help:Judge-A:0.1", seed="0")
    before = {manifest.ref: manifest.sha256 for manifest in store.manifests()}
    with store.write(ref, run_id="killed", code_version="1", config={}, inputs={}) as draft:
        (draft.path / "trajectories.jsonl").write_text("")
    assert states(graph_of(copy), store)[Ref(IMPORT)].state is State.stale
    told = copy.frontier(*RUN, check=False)
    assert (told.returncode, "there is nothing to import" in told.stderr) == (1, True)
    copy.frontier(*RUN, *BOTH, "--select", IMPORT)
    assert {manifest.ref: manifest.sha256 for manifest in store.manifests()} == before
    assert {found.state for found in states(graph_of(copy), store).values()} == {State.done}


def warehouse_rows(lab: Lab) -> dict[str, list[tuple[object, ...]]]:
    """Returns every table of the warehouse; without run ids, times and paths."""
    store = store_of(lab)
    left_out = {"artifacts": "run_id, started_at, ended_at, path", "lineage": "run_id, input_run_id"}
    left_out |= {"trajectories": "path", "operations": "run_id, seconds"}
    with duckdb.connect(str(store.get(Ref("warehouse")).path / "warehouse.duckdb"), read_only=True) as database:
        names = [str(row[0]) for row in database.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {
            name: database.execute(
                f"SELECT * {f'EXCLUDE ({left_out[name]})' if name in left_out else ''} FROM {name} ORDER BY ALL"
            ).fetchall()
            for name in names
        }


def test_an_archive_gives_the_warehouse_of_its_tree(imported: Import, tmp_path: Path) -> None:
    lab = make_import_lab(tmp_path)
    for name in ("raw", "results"):
        with tarfile.open(tmp_path / f"{name}.tar.xz", "w:xz", preset=0) as out:
            out.add(imported.lab.directory / name, name)
    archives = ("--source", "raw.tar.xz", "--source", "results.tar.xz")
    lab.frontier(*RUN, *archives, *selecting("preference_pairs", "warehouse"))
    one, other = warehouse_rows(lab), warehouse_rows(imported.lab)
    assert one.keys() == other.keys() and len(one["evaluations"]) > 500
    for table, rows in other.items():
        assert one[table] == rows, table


def test_a_truncated_archive_leaves_what_was_imported_before(copy: Lab) -> None:
    store = store_of(copy)
    before = {manifest.ref: (manifest.run_id, manifest.sha256) for manifest in store.manifests()}
    archive = copy.directory / "results.tar.xz"
    with tarfile.open(archive, "w:xz", preset=0) as out:
        out.add(copy.directory / "results", "results")
    archive.write_bytes(archive.read_bytes()[:5000])
    done = copy.frontier(*RUN, "--source", "results.tar.xz", check=False)
    assert (done.returncode, "Traceback" in done.stdout + done.stderr) == (1, False)
    assert "results.tar.xz: cannot be unpacked" in done.stdout
    assert {manifest.ref: (manifest.run_id, manifest.sha256) for manifest in store.manifests()} == before
    assert "nothing to do" in copy.frontier(*RUN).stdout
    assert read_inventory(store.get(Ref(IMPORT)).path).seeds == (0, 1)


def test_without_a_source_or_an_import_every_command_says_what_to_do(tmp_path: Path) -> None:
    lab = make_import_lab(tmp_path)
    told = lab.frontier(*RUN, check=False)
    assert (told.returncode, "--source PATH" in told.stderr, told.stdout) == (1, True, "")
    assert not (tmp_path / "home").exists(), "no run of Dagster was begun for it"
    assert "imported_runs" in lab.frontier("status", "imported.yaml").stdout
    for arguments in (
        ("query", "imported.yaml", "SELECT 1"),
        ("transcript", "imported.yaml", "0000"),
        ("export", "imported.yaml", "runs", "--out", "x"),
        ("export", "imported.yaml", "pairs", "--out", "x", "--judge", "Judge-A"),
    ):
        done = lab.frontier(*arguments, check=False)
        assert (done.returncode, "has not been made" in done.stderr, "Traceback" in done.stderr) == (1, True, False)


def test_a_verdict_file_of_another_tree_is_told_and_kept_out(copy: Lab) -> None:
    """What is wrong with a tree is in the output, with file and line in problems.jsonl, and in no table."""
    folder = copy.directory / "results" / trained_directory("Tiny1B", ("help",), "beta2", "", 1)
    path = next(path for path in sorted(folder.glob("*_eval_agent_safe.jsonl")) if path.stat().st_size)
    path.write_bytes(b'{"eval_id": 0}\n' + path.read_bytes().partition(b"\n")[2])
    before = expected_partitions(copy)
    done = copy.frontier(*RUN, *BOTH, "--select", IMPORT)
    assert "findings kept something out" in " ".join(done.stdout.split())
    problems = store_of(copy).get(Ref(IMPORT)).path / "problems.jsonl"
    errors = [problem for problem in map(orjson.loads, problems.read_bytes().splitlines()) if not problem["note"]]
    (first,) = [problem for problem in errors if problem["kind"] == "record"]
    assert (first["file"].rpartition("/")[2], first["line"]) == (path.name, 1)
    assert {problem["kind"] for problem in errors} == {"record", "incomplete"}
    left_out = {
        asset: keys - expected_partitions(copy)[asset] for asset, keys in before.items() if asset.startswith("agent")
    }
    assert {asset: keys for asset, keys in left_out.items() if keys} == {
        "agent_evaluations/judge-b/safe": {"Tiny1B:help:judge-b:0.1|1"}
    }
