"""The import as an asset: one run reads the trees and reports every partition it makes."""

from __future__ import annotations

import dagster as dg

from dagster_project.artifacts import Artifact
from dagster_project.environments.imported import ImportedWorld
from dagster_project.experiment.assets import AssetFactory, AssetRun, Check, partitions_definition
from dagster_project.experiment.graph import IMPORT
from dagster_project.experiment.metadata import as_table, as_text
from dagster_project.published.importer import import_runs
from dagster_project.published.opening import check_sources
from dagster_project.published.sources import archives_in, source_name
from toolemu.errors import FrontierError

SHOWN = 20
CHECKS = {"nothing_left_out": "Every file that was found was taken; `problems.jsonl` names those that were not."}


def build(factory: AssetFactory) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Returns the import, and the assets whose partitions it makes (Dagster only looks at those)."""
    beside = [
        dg.AssetSpec(
            factory.key(node.name),
            deps=[factory.key(IMPORT)],
            group_name=node.group,
            description=node.description,
            code_version=node.code_version,
            kinds={"jsonl"},
            partitions_def=partitions_definition(node),
        )
        for node in factory.graph.nodes.values()
        if node.made_by == IMPORT
    ]
    return [factory.asset(IMPORT, _import, checks=CHECKS, blocking=False, kinds={"jsonl"}), *beside]


def _import(run: AssetRun) -> None:
    world, name = run.experiment.world, run.experiment.name
    assert isinstance(world, ImportedWorld)
    check_sources(run.experiment)

    def report(artifacts: list[Artifact], done: int, total: int) -> None:
        for artifact in artifacts:
            run.report(artifact)
        run.progress(done, total)

    imported = import_runs(
        {source_name(path): path for path in world.paths},
        run.store,
        run_id=run.draft.path.name,
        n_cases=world.cases,
        labels=world.pairs_judges,
        out=run.draft.path,
        scratch=run.draft.journal / "unpacked",
        processes=run.experiment.limits.processes,
        report=report,
    )
    run.draft.counts.update(imported.counts)
    errors = [problem for problem in imported.problems if not problem.note]
    run.metadata["findings"] = as_table(problem.model_dump() for problem in imported.problems[:SHOWN])
    example = as_text(str(errors[0])) if errors else ""
    description = f"{len(errors)} findings kept something out, for instance: {example}" if errors else "all was taken"
    run.checks.append(Check("nothing_left_out", not errors, description, metadata={"errors": len(errors)}))
    if not imported.inventory.assets:
        raise FrontierError(
            f"{name}: nothing could be imported from {', '.join(map(str, world.paths))}. "
            + (f"{description}." if errors else "There is no file <agent>/<agent>_emu-…_eval-….jsonl below it.")
            + "".join(f" There is an archive, {path}: give that." for path in archives_in(world.paths))
        )
