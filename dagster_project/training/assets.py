"""Each agent's specification, its adapters and merged models, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import dagster as dg
import orjson

from dagster_project.artifacts import Artifact, Ref
from dagster_project.artifacts.manifest import gpu_name
from dagster_project.collect.endpoints import servers_folder
from dagster_project.collect.files import TRAJECTORIES
from dagster_project.collect.weights import model_folder, pinned_weights
from dagster_project.collect.world import open_world
from dagster_project.dagster_internals import DagsterPipesExecutionError
from dagster_project.experiment.agents import Stage
from dagster_project.experiment.assets import AssetFactory, AssetRun, Check
from dagster_project.experiment.graph import stage_adapters, template_arguments
from dagster_project.experiment.metadata import as_picture
from dagster_project.experiment.nodes import Input, Kind
from dagster_project.preferences.assets import PAIRS
from dagster_project.preferences.pairs import PreferencePair
from dagster_project.serving.leases import cards_alone
from dagster_project.serving.state import Servers
from dagster_project.training.card import (
    CARD,
    Base,
    MixedAdapter,
    mixture_card,
    model_card,
    push_adapter,
    repository_name,
    training_curve,
)
from dagster_project.training.concatenate import concatenate_adapters, read_adapter_config
from dagster_project.training.conversations import conversation_records
from dagster_project.training.dpo import PROBES, Listener, TrainingResult, TrainingStep, train_adapter
from dagster_project.training.job import NamedPair, TrainingJob, write_job
from dagster_project.training.launch import command, environment, failure_path, result_path
from dagster_project.training.merge import merge_adapter
from dagster_project.training.specs import write_spec
from toolemu.errors import FrontierError
from toolemu.jsonl import read_jsonl, write_jsonl
from toolemu.prompts.render import AgentPrompt
from toolemu.trajectory import Trajectory

STEPS = "steps.jsonl"
JOB = "job.json"
CONVERSATIONS = "conversations.jsonl"
REFERENCES = "reference_log_probabilities"
"""Folder of an experiment, beside its assets, with values that trainings share; never a result."""
TRACKING = "tensorboard"
CHECKS = {"learned": "Rewards tell chosen from rejected."}


def build(factory: AssetFactory) -> list[dg.AssetsDefinition]:
    """Returns the room's assets."""
    computed: dict[Kind, tuple[Callable[[AssetRun], None], dict[str, str], str]] = {
        Kind.specs: (_spec, {}, "json"),
        Kind.adapters: (_adapter, CHECKS, "peft"),
        Kind.merged: (_merge, {}, "huggingface"),
        Kind.interpolated: (_interpolate, {}, "peft"),
    }
    return [
        factory.asset(node.name, compute, checks=checks, kinds={kind})
        for node in factory.graph.find(*computed)
        for compute, checks, kind in (computed[node.kind],)
    ]


def _spec(run: AssetRun) -> None:
    write_spec(run.draft.path, run.experiment, run.graph.agent(run.ref))


def _named_base(base: Artifact) -> Base:
    """Return the base as a model card names it; a merged model is nowhere on the hub."""
    pinned, label = pinned_weights(base.path), base.manifest.ref.label
    return Base(label, pinned.source, pinned.commit) if pinned and pinned.commit else Base(label)


def _adapter(run: AssetRun) -> None:
    job = _job(run)
    path = job.workspace / JOB
    write_job(job, path)
    with _card(run, job):
        if job.trainer.mode == "in_process":
            result = train_adapter(job, Listener(run.log, run.progress))
        else:
            result = _in_processes_of_its_own(run, job, path)
    write_jsonl(run.draft.path / STEPS, result.steps)
    last = result.steps[-1]
    run.draft.counts.update(
        pairs=result.pairs,
        pairs_too_long=result.too_long,
        pairs_without_words=result.without_words,
        conversations=result.conversations,
        sequences=result.sequences,
        steps=len(result.steps),
        references_reused=result.references_reused,
        resumed_at=result.resumed_at,
        micro_batch=result.micro_batch,
        by_case=int(job.training.batch_by == "case"),
        computed_tokens=result.computed_tokens,
    )
    measured = {"mfu": result.mfu, "hfu": result.hfu, "peak_memory_bytes": result.peak_memory}
    run.draft.metrics.update(
        seconds=result.seconds,
        reference_seconds=result.reference_seconds,
        tokens_per_second=result.tokens_per_second,
        loss=last.loss,
        reward_accuracy=last.reward_accuracy,
        reward_margin=last.reward_margin,
        recomputed=result.recomputed,
        kl=result.kl,
        **{name: value for name, value in measured.items() if value is not None},
    )
    run.metadata["attention"] = result.attention
    (run.draft.path / CARD).write_text(model_card(job, result), encoding="utf-8")
    run.metadata["curve"] = as_picture("training", training_curve(result.steps))
    if result.notes:
        run.metadata["notes"] = " ".join(result.notes)
    run.checks.append(_learned(result.steps, run.experiment.limits.min_reward_accuracy))
    _push(run)


def _push(run: AssetRun) -> None:
    """Uploads the adapter in the draft if the experiment file asks for it."""
    prefix = run.experiment.trainer.push_to_hub
    if not prefix:
        return
    label = f"{run.ref.path[0]}-{run.ref.key('agent')}-{run.ref.seed}"
    try:
        address = push_adapter(run.draft.path, repository_name(prefix, run.experiment.name, label))
        run.metadata["hub"] = dg.MetadataValue.url(address)
    except FrontierError as error:  # the adapter is made, whatever the hub says of it
        run.metadata["hub"] = str(error)
        run.log(str(error))


def _card(run: AssetRun, job: TrainingJob) -> AbstractContextManager[None]:
    """Has the cards that a training takes to itself; without one there is nothing that servers could leave."""
    if not gpu_name():
        return nullcontext()
    return cards_alone(Servers(servers_folder(run.store.root)), range(job.trainer.processes), run.log)


def _job(run: AssetRun) -> TrainingJob:
    """Return the training, with the pairs and their conversations written for it."""
    experiment, agent, stage, seed = run.experiment, run.graph.agent(run.ref), run.node.stage, run.ref.seed
    assert stage is not None and seed is not None, "an adapter is of a stage and for a seed"
    this, base = agent.stages[stage - 1], run.one(Input.base)
    assert this.epochs is not None, "only imported agents' epochs are unknown"
    named = _named_base(base)
    world = open_world(experiment)
    pairs = read_jsonl(run.one(Input.pairs).path / PAIRS, PreferencePair)
    wanted = {pair.chosen_trajectory_id for pair in pairs} | {pair.rejected_trajectory_id for pair in pairs}
    trajectories = (
        trajectory
        for artifact in run.all(Input.trajectories)
        for trajectory in read_jsonl(artifact.path / TRAJECTORIES, Trajectory)
        if trajectory.trajectory_id in wanted
    )
    prompt = AgentPrompt(experiment.agent.prompt_style, experiment.prompts_dir, layout=experiment.agent.prompt_layout)
    work = run.draft.journal
    work.mkdir(parents=True, exist_ok=True)
    write_jsonl(work / CONVERSATIONS, conversation_records(trajectories, world.cases, world.toolkits, prompt))
    by_name = (NamedPair(chosen=pair.chosen_trajectory_id, rejected=pair.rejected_trajectory_id) for pair in pairs)
    write_jsonl(work / PAIRS, by_name)
    return TrainingJob(
        base=model_folder(experiment.models[agent.model], base.path),
        base_label=named.label,
        base_sha256=base.manifest.sha256,
        base_hub=named.source,
        base_commit=named.commit,
        pairs=work / PAIRS,
        conversations=work / CONVERSATIONS,
        out=run.draft.path,
        work=work,
        references=run.store.base / REFERENCES,
        tracking=run.store.base / TRACKING / run.ref.asset / run.ref.partition_label,
        name=f"{experiment.name}: {run.ref.label}",
        chat_template=template_arguments(experiment, agent.model),
        beta=this.beta,
        epochs=this.epochs,
        seed=seed,
        training=experiment.training_of(agent.model, agent.recipe),
        trainer=experiment.trainer,
        lineage={
            "experiment": experiment.name,
            "agent": f"{agent.key}, seed {seed}, stage {stage} of {len(agent.stages)}",
            "base": f"{named.label}, sha256 {base.manifest.sha256}",
            "pairs": f"{this.metric} by {this.judge}, {len(pairs)}",
        },
    )


def _in_processes_of_its_own(run: AssetRun, job: TrainingJob, path: Path) -> TrainingResult:
    """Does the job in a file, its log going to Dagster by Pipes.

    Raises:
        FrontierError: What the training said was wrong.
    """
    for left in (result_path(path), failure_path(path)):
        left.unlink(missing_ok=True)
    try:
        run.start(command(job.trainer, job.training, path), environment())
    except DagsterPipesExecutionError as error:
        if failure_path(path).is_file():
            raise FrontierError(failure_path(path).read_text(encoding="utf-8")) from error
        raise
    return TrainingResult.model_validate_json(result_path(path).read_bytes())


def _learned(steps: Sequence[TrainingStep], least: float) -> Check:
    """Returns the check that training did something, before the adapter is merged, trained on and tested."""
    last = steps[len(steps) // 2 :]
    accuracy = sum(step.reward_accuracy for step in last) / len(last)
    description = (
        f"In the last {len(last)} steps {accuracy:.0%} of the pairs had the right way round; at least {least:.0%} must "
        "(50% is chance). Train longer or at a higher learning rate, or look at the pairs: do they differ in what they "
        "are to teach? Or lower limits.min_reward_accuracy."
    )
    return Check("learned", accuracy >= least, description, metadata={"reward_accuracy": accuracy})


def _merge(run: AssetRun) -> None:
    model = run.experiment.models[run.graph.agent(run.ref).model]
    base, adapter = model_folder(model, run.one(Input.base).path), run.one(Input.adapters).path
    probes = orjson.loads((adapter / PROBES).read_bytes())
    report = merge_adapter(base, adapter, run.draft.path, probes)
    run.draft.metrics.update(report._asdict())


def _interpolate(run: AssetRun) -> None:
    agents, agent, seed, source = run.graph.agents, run.graph.agent(run.ref), run.ref.seed, run.one(Input.base)
    assert seed is not None, "an agent is of a seed"
    weights: dict[Ref, float] = {}
    stages: dict[Ref, Stage] = {}
    for key, weight in agent.parts:
        for ref, stage in zip(stage_adapters(agents[key], seed), agents[key].stages, strict=True):
            weights[ref] = weights.get(ref, 0.0) + weight  # a stage that both have in common is there once
            stages[ref] = stage
    base = model_folder(run.experiment.models[agent.model], source.path)
    concatenate_adapters(base, [run.inputs[ref].path for ref in weights], run.draft.path, list(weights.values()))
    rank = run.draft.counts["rank"] = read_adapter_config(run.draft.path)["r"]
    mixed = [
        MixedAdapter(
            ref.label,
            f"{stage.metric} by {stage.judge}, β = {stage.beta:g}",
            run.inputs[ref].manifest.sha256,
            weights[ref],
        )
        for ref, stage in stages.items()
    ]
    lineage = {
        "experiment": run.experiment.name,
        "agent": f"{agent.key}, seed {seed}",
        "base": f"{source.manifest.ref.label}, sha256 {source.manifest.sha256}",
    }
    name = f"{run.experiment.name}: {run.ref.label}"
    card = mixture_card(name, _named_base(source), rank, agent.parts, mixed, lineage)
    (run.draft.path / CARD).write_text(card, encoding="utf-8")
    run.metadata["mixed"] = ", ".join(f"{weight:g} × {key}" for key, weight in agent.parts)
    _push(run)
