"""The import of a small tree with every oddity of the released one."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest

from dagster_project.artifacts import Ref
from dagster_project.experiment.nodes import Side, name_of
from dagster_project.experiment.splits import split_cases
from dagster_project.published.sources import fingerprints
from tests.published.importing import Result, run_import
from tests.published.tree import JUDGES, KEYS, METRICS, N_CASES, plain_score, trajectory, write_raw, write_tree
from toolemu.errors import FrontierError, InputError


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree") / "results")


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw") / "raw")


@pytest.fixture(scope="module")
def imported(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run_import(tree, at=tmp_path_factory.mktemp("imported"))


def test_everything_is_taken_and_every_oddity_is_noted(imported: Result) -> None:
    assert not imported.errors
    assert imported.notes["all_cases"] == 8  # safe, seed 0: two models, two judges, two betas
    assert imported.notes["out_of_memory"] > 0
    assert set(imported.notes) == {"all_cases", "out_of_memory"}


def test_names_become_fields(imported: Result) -> None:
    inventory = imported.inventory
    assert inventory.models == ("Big2", "Tiny1B"), "the trained agents' spelling, where there is one"
    assert inventory.judges == ("Judge-A", "judge-b")
    assert (inventory.seeds, len(inventory.agents)) == ((0, 1), 2 * 5 * 2 * 2)
    agent = next(agent for agent in inventory.agents if agent.key == "Tiny1B:safe_then_help:Judge-A:0.05")
    assert [(stage.metric, stage.judge, stage.beta) for stage in agent.stages] == [
        ("safe", "Judge-A", 0.05),
        ("help", "Judge-A", 0.05),
    ]


def test_scores_are_those_of_the_files(imported: Result) -> None:
    found = imported.evaluations("agent_evaluations/judge-b/help", agent="Big2:help:judge-b:0.1", seed="1")
    assert [verdict.case_idx for verdict in found] == list(split_cases(N_CASES, 1).test)
    directory, metric = "dpo_Big2_help_beta2_s1", "agent_help_ignore_safety"
    expected = [plain_score(directory, 1, verdict.case_idx, "beta2", metric) for verdict in found]
    assert [verdict.score for verdict in found] == expected


def test_a_trajectory_that_two_judges_scored_is_stored_once(imported: Result) -> None:
    trajectories = imported.trajectories("source_trajectories", model="Tiny1B")
    assert [trajectory.case_idx for trajectory in trajectories] == list(range(N_CASES))
    for judge in KEYS.values():
        for metric in ("safe", "help"):
            verdicts = imported.evaluations(f"source_evaluations/{judge}/{metric}", model="Tiny1B")
            assert {v.trajectory_id for v in verdicts} == {t.trajectory_id for t in trajectories}


def test_two_judges_with_other_trajectories_are_two_samples(tree: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tree, tmp_path / "results")
    (path,) = copy.glob("maker_big-2/*_eval-judge-b_r9-12_*030405.jsonl")
    path.write_bytes(path.read_bytes().replace(b"switches lamp 9", b"switches on lamp 9"))
    found = run_import(copy, at=tmp_path)
    samples = [(t.case_idx, t.sample) for t in found.trajectories("source_trajectories", model="Big2")]
    assert samples == [*((case, 0) for case in range(9)), (9, 0), (9, 1), (10, 0), (11, 0)]
    judged = {
        judge: [
            v.sample for v in found.evaluations(f"source_evaluations/{judge}/safe", model="Big2") if v.case_idx == 9
        ]
        for judge in KEYS.values()
    }
    assert judged == {"judge-b": [0], "Judge-A": [1]}, "in the order in which the files are visited"


def test_every_record_is_traced_to_its_file_and_line(imported: Result) -> None:
    import pyarrow.parquet as pq

    directory = imported.store.get(Ref("imported_runs")).path
    places = pq.read_table(directory / "imported_records.parquet").to_pylist()
    target = imported.trajectories("agent_trajectories", agent="Tiny1B:both:Judge-A:0.1", seed="0")[0]
    (place,) = [place for place in places if place["trajectory_id"] == target.trajectory_id]
    assert place["file"].startswith("results/dpo_Tiny1B_both_alpha_s0/") and place["line"] == 1
    manifest = imported.store.get(Ref.of("agent_trajectories", agent="Tiny1B:both:Judge-A:0.1", seed="0")).manifest
    files = {row["file"]: row["sha256"] for row in pq.read_table(directory / "imported_files.parquet").to_pylist()}
    assert manifest.config["files"] and all(files[name] == sha for name, sha in manifest.config["files"].items())


def test_labels_are_learned_from_the_layout_of_directories(raw: Path, tree: Path, tmp_path: Path) -> None:
    found = run_import(raw, tree, at=tmp_path, labels={})
    assert {agent.pairs_judge for agent in found.inventory.agents} == set(KEYS.values())
    assert not found.errors


def test_a_misspelt_label_is_an_error_and_one_that_this_tree_lacks_is_not(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(FrontierError, match=r"world\.pairs_judges names 'beta3'.*did you mean 'beta2'.*'alpha'"):
        run_import(tree, at=tmp_path, labels={"alpha": "org_Judge-A", "beta3": "judge-b"})
    labels = {**JUDGES, "gamma": "org_Judge-C"}
    assert not run_import(tree, at=tmp_path / "more", labels=labels).errors


def test_two_trees_add_and_what_both_hold_counts_once(raw: Path, tree: Path, tmp_path: Path) -> None:
    found = run_import(raw, tree, at=tmp_path)
    assert not found.errors
    assert found.inventory.source_models == ("Big2", "Huge-9-int4", "Huge-9-int8", "Tiny1B")
    assert found.notes["copy"] == 2 * 2 * 3, "two models, two judges, three files each"
    assert found.notes["nested"] == 3 * 3
    assert len(found.trajectories("source_trajectories", model="Big2")) == N_CASES


def test_an_archive_is_its_tree(tree: Path, imported: Result, tmp_path: Path) -> None:
    archive = tmp_path / "results.tar.xz"
    with tarfile.open(archive, "w:xz") as out:
        out.add(tree, "results")
    found = run_import(archive, at=tmp_path)
    assert found.inventory == imported.inventory
    shas = {ref: imported.store.get(ref).manifest.sha256 for ref in _refs(imported)}
    assert {ref: found.store.get(ref).manifest.sha256 for ref in _refs(found)} == shas
    assert not (tmp_path / "scratch").exists()


def test_a_tree_is_read_through_links_but_not_for_ever(tree: Path, imported: Result, tmp_path: Path) -> None:
    linked = tmp_path / "results"
    linked.mkdir()
    for folder in tree.iterdir():
        (linked / folder.name).symlink_to(folder)
    (linked / "up").symlink_to(tmp_path)
    found = run_import(linked, at=tmp_path / "out")
    assert found.inventory == imported.inventory and not found.errors


def test_processes_make_no_difference(tree: Path, imported: Result, tmp_path: Path) -> None:
    found = run_import(tree, at=tmp_path, processes=2)
    assert found.inventory == imported.inventory and found.problems == imported.problems
    path = "imported_records.parquet"
    one, other = (result.store.get(Ref("imported_runs")) for result in (found, imported))
    assert (one.path / path).read_bytes() == (other.path / path).read_bytes()


def _refs(result: Result) -> list[Ref]:
    dimensions = {Side.source: ("model",), Side.agent: ("agent", "seed")}
    return [
        Ref.of(name_of(part.path), **dict(zip(dimensions[part.side], keys, strict=True)))
        for part in result.inventory.assets
        for keys in part.keys
    ]


def test_verdicts_at_a_higher_temperature_are_noted_and_not_taken(tree: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tree, tmp_path / "results")
    (path,) = copy.glob("maker_big-2/*_eval-judge-b_r9-12_*_eval_agent_safe.jsonl")
    warm = path.with_name(path.name.replace(".jsonl", "_t0.3.jsonl"))
    warm.write_bytes(path.read_bytes().replace(b'"ToolCallRisk":1', b'"ToolCallRisk":3'))
    found = run_import(copy, at=tmp_path)
    assert (found.errors.total(), found.notes["temperature"]) == (0, 1)
    assert "_t0.3.jsonl" in found.about("temperature")[0]
    path.unlink()  # alone, it counts
    (tmp_path / "again").mkdir()
    alone = run_import(copy, at=tmp_path / "again")
    assert alone.notes["temperature"] == 0 and not alone.errors


def test_other_judges_models_betas_and_seeds_import(tmp_path: Path) -> None:
    from tests.published import tree as grammar

    root = tmp_path / "results"
    seed_7 = set(split_cases(N_CASES, 7).test)
    grammar.write_agent(root, "new_Model-X-Instruct", "a_New.Judge", "nj", None, set(range(N_CASES)))
    directory = "dpo_Model-X_both_nj_beta-0.7_s7"
    grammar.write_agent(root, directory, "a_New.Judge", "nj", 7, seed_7)
    found = run_import(root, at=tmp_path, labels={"nj": "a_New.Judge"})
    assert not found.errors
    (agent,) = found.inventory.agents
    assert (agent.key, found.inventory.seeds) == ("Model-X:both:New.Judge:0.7", (7,))


def test_stages_of_different_betas_have_no_beta(tmp_path: Path) -> None:
    from tests.published import tree as grammar

    root = tmp_path / "results"
    cases = set(split_cases(N_CASES, 0).test)
    directory = "dpo_Tiny1B_safe_alpha_beta-0.05_s0_help_alpha_s0"
    grammar.write_agent(root, directory, "org_Judge-A", "alpha", 0, cases)
    (agent,) = run_import(root, at=tmp_path).inventory.agents
    assert (agent.key, agent.beta) == ("Tiny1B:safe_then_help:Judge-A:0.05+0.1", None)


def test_unknown_recipes_are_reported_once(tmp_path: Path) -> None:
    from tests.published import tree as grammar

    root = tmp_path / "results"
    cases = set(split_cases(N_CASES, 0).test)
    grammar.write_agent(root, "dpo_Tiny1B_safe_alpha_s0_safe_alpha_s0", "org_Judge-A", "alpha", 0, cases)
    grammar.write_agent(root, "dpo_Tiny1B_safe_alpha_s0_help_beta2_s0", "org_Judge-A", "alpha", 0, cases)
    found = run_import(root, at=tmp_path)
    assert found.errors == {"recipe": 2} and not found.inventory.agents
    assert "safe_then_safe" in " ".join(found.about("recipe"))


def test_verdicts_without_a_score_are_counted_and_kept(tmp_path: Path) -> None:
    from tests.published import tree as grammar

    root = tmp_path / "results"
    everything = set(range(N_CASES))
    grammar.write_agent(root, "org_Tiny-1B", "org_Judge-A", "alpha", None, everything)
    (path,) = root.glob("*/*_r9-12_*_eval_agent_safe.jsonl")
    grammar.write_lines(path, [grammar.verdict(line, "agent_safe", None if line == 1 else 2) for line in range(3)])
    found = run_import(root, at=tmp_path)
    scores = [v.score for v in found.evaluations("source_evaluations/Judge-A/safe", model="Tiny-1B")]
    assert (scores.count(None), scores[10], found.notes["unscored"]) == (1, None, 1)


@pytest.mark.parametrize(("name", "said"), [("nowhere", "does not exist"), ("notes.txt", "neither")])
def test_what_is_no_source_is_an_error(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match=said):
        fingerprints([tmp_path / name])


def test_two_sources_of_one_name_are_an_error(tmp_path: Path) -> None:
    for parent in ("a", "b"):
        (tmp_path / parent / "results").mkdir(parents=True)
    with pytest.raises(InputError, match="two sources are called"):
        fingerprints([tmp_path / "a" / "results", tmp_path / "b" / "results"])


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"not an archive at all" * 9])
def test_a_damaged_archive_is_an_error_and_leaves_nothing(tree: Path, tmp_path: Path, damage: object) -> None:
    archive = tmp_path / "results.tar.xz"
    with tarfile.open(archive, "w:xz") as out:
        out.add(tree, "results")
    archive.write_bytes(damage(archive.read_bytes()))  # type: ignore[operator]
    with pytest.raises(InputError, match=r"results.tar.xz: cannot be unpacked"):
        run_import(archive, at=tmp_path)
    assert not (tmp_path / "scratch").exists()


def test_a_changed_file_changes_the_fingerprint(tmp_path: Path) -> None:
    root = write_raw(tmp_path / "raw")
    before = fingerprints([root])
    path = next(root.rglob("*.jsonl"))
    path.write_bytes(path.read_bytes() + b"\n")
    assert fingerprints([root]) != before


def test_the_case_and_metric_names_of_the_tree_are_the_released_ones() -> None:
    assert list(METRICS) == ["agent_safe", "agent_help_ignore_safety"]
    assert list(trajectory(0, "a"))[:4] == ["input", "underspecifications", "risky_outcome", "risky_actions"]
