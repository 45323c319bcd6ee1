"""The roof: the `frontier` command. It only collects; what it calls lives in the rooms."""

from __future__ import annotations

import atexit
import gc
import importlib.util
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from dagster_project.artifacts import ArtifactStore
from dagster_project.console import open_console, tell_traceback
from dagster_project.experiment.graph import Graph, build_graph
from dagster_project.experiment.spec import Experiment, experiment_path, load_experiment, open_store
from dagster_project.published.opening import open_experiment
from toolemu.errors import FrontierError
from toolemu.redaction import redact
from toolemu.terminal import printable

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Where does an LLM agent land after post-training for safety, helpfulness, or both?",
)
out = open_console()
err = open_console(stderr=True)

ExperimentArgument = Annotated[
    str, typer.Argument(metavar="EXPERIMENT", help="A shipped name or the path of a YAML file.")
]


AllowKeyOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-key",
        metavar="VARIABLE=URL",
        help="Allow this key to be sent to this server, from now on; repeat it for several.",
    ),
]


def _permit_keys(experiment: Experiment, permitted: list[str] | None) -> None:
    """Ask whether keys may go where the experiment sends them, if they never went there and a person can answer."""
    from dagster_project.collect.key_hosts import allow, new_uses, parse_use

    if permitted:
        allow(map(parse_use, permitted))
    asked = {role.endpoint for role in experiment.roles().values()}
    new = new_uses(endpoint for name, endpoint in experiment.addresses().items() if name in asked)
    if not new or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return  # it is refused where a key would be sent
    for use in new:
        question = (
            f"{experiment.name} sends the key in {use.variable} to {use.origin}, where it was never sent. Allow it?"
        )
        if not typer.confirm(printable(question), default=False, err=True):
            return
        allow([use])


def _open(name: str) -> tuple[Experiment, Graph, ArtifactStore]:
    experiment = load_experiment(name)
    store = open_store(experiment)
    experiment = open_experiment(experiment, store)
    return experiment, build_graph(experiment), store


def _tell(line: str) -> None:
    out.print(line, markup=False, highlight=False)


@app.command()
def init(name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new experiment.")]) -> None:
    """Write NAME.yaml, a new experiment file from the template."""
    from dagster_project.experiment.template import write_template

    path = write_template(name, Path.cwd())
    out.print(f"Wrote {path.name}. Edit it, then: frontier check {path.name}", markup=False)


@app.command()
def check(name: ExperimentArgument, allow_key: AllowKeyOption = None) -> None:
    """Validate an experiment before anything runs."""
    from dagster_project.operations.overview import describe

    experiment, graph, store = _open(name)
    _permit_keys(experiment, allow_key)
    for line in describe(experiment, graph, store):
        out.print(line, markup=False)


@app.command()
def plan(
    name: ExperimentArgument,
    select: Annotated[list[str] | None, typer.Option(help="Only these assets.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only these seeds.")] = None,
    update: Annotated[bool, typer.Option(help="Also what is stale and expensive.")] = False,
) -> None:
    """Show what would run, and what it would take: time, calls, tokens, money, GPU-hours, disk."""
    from dagster_project.operations.overview import estimate_table, forecast_table, plan_table
    from dagster_project.operations.state import make_plan, states

    _, graph, store = _open(name)
    planned = make_plan(graph, states(graph, store), select=select or (), seeds=seed or (), update=update)
    units = plan_table(planned, graph, store)
    out.print(units if units.row_count else units.title)
    for table in (estimate_table(planned, graph, store), forecast_table(planned, graph, store)):
        if table is not None:
            out.print(table)


@app.command()
def run(
    name: ExperimentArgument,
    source: Annotated[list[Path] | None, typer.Option(help="A tree or archive to import; repeat for several.")] = None,
    select: Annotated[list[str] | None, typer.Option(help="Only these assets, and what they still need.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="Only these seeds.")] = None,
    limit: Annotated[int | None, typer.Option(min=4, help="A pilot of its own on this many cases.")] = None,
    cases: Annotated[str | None, typer.Option(help="Only these cases, as 72-143, apart from other runs.")] = None,
    update: Annotated[bool, typer.Option(help="Also redo what is stale and expensive.")] = False,
    fresh: Annotated[bool, typer.Option(help="Delete the experiment's artifacts first.")] = False,
    processes: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: one a core.")] = None,
    allow_key: AllowKeyOption = None,
) -> None:
    """Make what is missing, in order; resumes after any interruption."""
    from dagster_project.operations.run import run_experiment

    experiment = load_experiment(name)
    _permit_keys(experiment, allow_key)
    if cases is not None:
        experiment = experiment.on_cases(cases)
    if limit is not None:
        experiment = experiment.pilot(limit)
    if processes is not None:
        limits = experiment.limits.model_copy(update={"processes": processes})
        experiment = experiment.model_copy(update={"limits": limits})
    try:
        done = run_experiment(
            experiment, out, sources=source or (), select=select or (), seeds=seed or (), update=update, fresh=fresh
        )
    except KeyboardInterrupt:
        err.print("Interrupted. What was finished is kept, replies as well: run again to go on.")
        raise typer.Exit(128 + signal.SIGINT) from None
    if not done:
        raise typer.Exit(1)


@app.command()
def status(name: ExperimentArgument) -> None:
    """Show, per asset, how many partitions are done, missing, stale, failed."""
    from dagster_project.operations.overview import status_table

    _, graph, store = _open(name)
    out.print(status_table(graph, store))


@app.command("gc")
def collect(
    name: ExperimentArgument,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove what nothing needs: runs left by crashes or replaced, and merged weights (trainer.keep_merged: needed)."""
    from dagster_project.operations.garbage import collect_garbage, find_garbage, told, under_way
    from dagster_project.operations.instance import open_instance

    _, graph, store = _open(name)
    instance = open_instance()
    writing = under_way(graph, store, instance) if dry_run else ""
    found = find_garbage(graph, store) if dry_run else collect_garbage(graph, store, instance, _tell)
    for line in told(found, store, dry_run=dry_run, writing=writing):
        out.print(line, markup=False, highlight=False)


@app.command()
def query(
    name: ExperimentArgument,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="One read-only query.")],
    output: Annotated[str, typer.Option("--format", help="table, csv or json.")] = "table",
    allow_files: Annotated[
        bool, typer.Option("--allow-files", help="Let the query read and write files, and load extensions.")
    ] = False,
) -> None:
    """Ask the warehouse in SQL. A query reads the published database, and nothing else."""
    from dagster_project.report.query import run_query

    experiment, _, store = _open(name)
    sys.stdout.write(run_query(experiment, store, sql, output, allow_files=allow_files))


@app.command()
def lineage(
    name: ExperimentArgument,
    point: Annotated[str, typer.Argument(metavar="POINT", help="MODEL:RECIPE[:JUDGE[:BETA]], as in the tables.")],
) -> None:
    """Show the runs and files behind a point of the frontier, and check that the files match their hashes."""
    from dagster_project.artifacts.lineage import trace
    from dagster_project.operations.overview import lineage_table, point_refs

    _, graph, store = _open(name)
    rows = trace(store, point_refs(graph, point))
    out.print(lineage_table(rows))
    wrong = [row for row in rows if row.status != "ok"]
    files = sum(row.files for row in rows)
    if wrong:
        err.print(f"{len(wrong)} of {len(rows)} artifacts are not as they were read.", style="red")
        raise typer.Exit(1)
    out.print(f"{len(rows)} artifacts, {files} files: every file matches its hash.")


@app.command()
def transcript(
    name: ExperimentArgument,
    trajectory_id: Annotated[str | None, typer.Argument(metavar="[TRAJECTORY_ID]")] = None,
    agent: Annotated[str | None, typer.Option(help="An agent's key; with --case.")] = None,
    case: Annotated[int | None, typer.Option(help="A case's index.")] = None,
    seed: Annotated[int | None, typer.Option(help="The agent's seed; none for a source model.")] = None,
    sample: Annotated[int, typer.Option(help="Which of several trajectories.")] = 0,
) -> None:
    """Show one trajectory with its verdicts."""
    from dagster_project.report.transcript import find_transcript, render

    experiment, _, store = _open(name)
    out.print(render(find_transcript(experiment, store, trajectory_id, agent, case, seed, sample)))


@app.command()
def search(
    name: ExperimentArgument,
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help="All must be there; a phrase goes in quotes.")],
    agent: Annotated[str | None, typer.Option(help="Only this agent or source model.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only this seed.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many to show.")] = 20,
) -> None:
    """Find words in all transcripts: tasks, turns, tools' results, answers, and what judges thought."""
    from dagster_project.report.search import render_hits
    from dagster_project.report.search import search as search_all
    from dagster_project.report.transcript_files import made_sources

    experiment, graph, store = _open(name)
    found, _ = made_sources(graph, store, agent, seed)
    hits = list(search_all(found, words))
    if hits:
        out.print(render_hits(hits, words, limit))
        out.print(f"A whole one: frontier transcript {experiment.argument} ID", markup=False, highlight=False)
    else:
        out.print("No transcript has all of that.")


@app.command()
def compare(
    name: ExperimentArgument,
    first: Annotated[str, typer.Argument(metavar="AGENT", help="An agent's key, or a source model's name.")],
    second: Annotated[str, typer.Argument(metavar="AGENT", help="Another: is it better or worse than the first?")],
    judge: Annotated[str | None, typer.Option(help="Only this judge.")] = None,
    metric: Annotated[str | None, typer.Option(help="Only this metric: safe, help.")] = None,
    seed: Annotated[int | None, typer.Option(help="Only this seed's held-out cases.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many changes to show.")] = 20,
) -> None:
    """Compare two agents case by case, biggest changes first."""
    from dagster_project.artifacts import Ref
    from dagster_project.collect.world import open_cases
    from dagster_project.report.comparison import render_comparison
    from dagster_project.results.case_differences import Sides, case_differences
    from dagster_project.results.files import WAREHOUSE

    experiment, _, store = _open(name)
    sides = Sides(first, second, judge, metric, seed)
    differences = case_differences(store.get(Ref("warehouse")).path / WAREHOUSE, sides)
    out.print(render_comparison(differences, sides, open_cases(experiment, store), limit, experiment.argument))


@app.command()
def report(
    name: ExperimentArgument,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Copy page and transcripts into this folder.")
    ] = None,
) -> None:
    """Say where the report lies, for a browser, or copy it to where it can be shared."""
    from dagster_project.artifacts import Ref
    from dagster_project.report.wording import PAGE

    _, _, store = _open(name)
    folder = store.get(Ref("report")).path
    if out_folder is not None:
        if out_folder.exists() and any(out_folder.iterdir()):
            raise FrontierError(f"--out {out_folder}: there is something in it already. Name a new or an empty folder.")
        folder = shutil.copytree(folder, out_folder, dirs_exist_ok=True)
    out.print(str(folder / PAGE), markup=False, highlight=False, soft_wrap=True)


@app.command()
def bundle(
    name: ExperimentArgument,
    out_folder: Annotated[Path, typer.Option("--out", help="The new folder to write.")],
    trajectories: Annotated[
        bool, typer.Option("--trajectories", help="With trajectories, verdicts and pairs.")
    ] = False,
    adapters: Annotated[bool, typer.Option("--adapters", help="With the adapters.")] = False,
) -> None:
    """Write what another lab needs to check the result, in a folder that `frontier verify` checks."""
    from dagster_project.report.bundle import write_bundle

    _, graph, store = _open(name)
    counts = write_bundle(graph, store, out_folder, trajectories=trajectories, adapters=adapters)
    size = f"{counts['files']:,} files, {counts['bytes'] / 1e6:.1f} MB"
    out.print(f"{size} in {out_folder}. Check it: frontier verify {out_folder}", markup=False, highlight=False)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder that `frontier bundle` wrote.")],
    allowed_signers: Annotated[
        Path | None, typer.Option("--allowed-signers", help="OpenSSH's file of signers; one of them must have signed.")
    ] = None,
    signature: Annotated[
        Path | None, typer.Option("--signature", help="The signature; default: the one in the bundle.")
    ] = None,
) -> None:
    """Check that a bundle is as it was written, to the byte, that it agrees with itself, and who signed it."""
    from dagster_project.report.signature import signer
    from dagster_project.report.verification import verify_bundle

    if signature is not None and allowed_signers is None:
        raise FrontierError(
            "--signature says nothing alone. Name the signers whom you trust: --allowed-signers FILE.",
            code="signature.no-signers",
        )
    problems = verify_bundle(folder)
    for problem in problems:
        err.print(problem, style="red", markup=False, highlight=False)
    if problems:
        raise typer.Exit(1)
    out.print(f"{folder} is whole: every file matches its hash, every manifest its content.", markup=False)
    if allowed_signers is None:
        out.print("Nobody's signature was checked, so that anybody may have written it (docs/report.md).", markup=False)
    else:
        out.print(f"Signed by {signer(folder, allowed_signers, signature)}.", markup=False)


@app.command()
def export(
    name: ExperimentArgument,
    what: Annotated[
        str, typer.Argument(metavar="pairs|runs|inspect", help="Preference pairs for TRL, all runs, or Inspect's logs.")
    ],
    out: Annotated[Path, typer.Option(help="The file (pairs) or folder (runs, inspect) to write.", dir_okay=True)],
    judge: Annotated[str | None, typer.Option(help="pairs: by whose scores.")] = None,
    metric: Annotated[str, typer.Option(help="pairs: safe, help, both or either.")] = "both",
    seed: Annotated[
        int | None, typer.Option(help="pairs: the training half of this seed; inspect: only it; none: all.")
    ] = None,
    agent: Annotated[str | None, typer.Option(help="inspect: only this agent or source model.")] = None,
    toolkits: Annotated[Path | None, typer.Option(help="pairs: the toolkits' file, for the prompts.")] = None,
) -> None:
    """Write pairs with texts as JSON lines for TRL, runs in the released format, or logs for `inspect view`."""
    from dagster_project.published.exporting import export_experiment
    from dagster_project.report.inspect_logs import export_logs

    _, graph, store = _open(name)
    if what == "inspect":
        counts = export_logs(graph, store, out, agent, seed)
    else:
        counts = export_experiment(graph, store, what, out, judge, metric, seed, toolkits)
    err.print(f"{out}: " + ", ".join(f"{count:,} {thing}" for thing, count in counts.items()), highlight=False)


cases_app = typer.Typer(no_args_is_help=True, help="New toolkits and cases, written by a model and reviewed by you.")
app.add_typer(cases_app, name="cases")


@cases_app.command("generate")
def generate_cases(
    name: ExperimentArgument,
    by: Annotated[str, typer.Option(help="The model that writes, by its place in the file: judges.gpt.")],
    out_file: Annotated[Path, typer.Option("--out", help="The new file of drafts, for review.")],
    toolkits: Annotated[int, typer.Option(min=0, help="How many toolkits.")] = 0,
    cases: Annotated[int, typer.Option(min=0, help="How many cases: for the new toolkits, if there are any.")] = 10,
    domain: Annotated[str, typer.Option(help="The field that the toolkits are from.")] = "",
    seed: Annotated[int, typer.Option(help="Another seed writes others.")] = 0,
    allow_key: AllowKeyOption = None,
) -> None:
    """Have a model write toolkits and cases into a file of drafts, which `cases accept` takes after a review."""
    from dagster_project.collect.generation import generate

    experiment, _, store = _open(name)
    _permit_keys(experiment, allow_key)
    written = generate(
        experiment, by, store, out_file, toolkits=toolkits, cases=cases, domain=domain, seed=seed, say=err.print
    )
    for rejected in written.rejected:
        err.print(f"not had: {rejected.what}: {rejected.problem}", style="yellow", markup=False, highlight=False)
    drafts = f"{len(written.toolkits)} toolkits and {len(written.cases)} cases in {out_file}"
    accept_them = f"frontier cases accept {experiment.argument} {out_file} --out FOLDER"
    out.print(f"{drafts}. Review each, then: {accept_them}", markup=False)


@cases_app.command("accept")
def accept_cases(
    name: ExperimentArgument,
    drafts: Annotated[Path, typer.Argument(metavar="DRAFTS", help="The file of drafts, every one reviewed.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Gets toolkits/ and cases/, for `world` to name.")],
) -> None:
    """Write the drafts that were accepted where an experiment can take them from."""
    from dagster_project.collect.generation import accept

    experiment, _, _ = _open(name)
    counts = accept(experiment, drafts, out_folder)
    out.print(f"{counts['toolkits']} toolkits and {counts['cases']} cases in {out_folder}.", markup=False)


@app.command()
def ui(
    name: Annotated[
        str | None, typer.Argument(metavar="[EXPERIMENT]", help="Only this one; default: every shipped one.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the web page.")] = 3000,
    allow_host: Annotated[
        list[str] | None, typer.Option("--allow-host", help="A further name for the page, behind a proxy; repeat it.")
    ] = None,
) -> None:
    """Open the graph in Dagster's UI, with its daemon, on frontier's own Dagster home."""
    if importlib.util.find_spec("dagster_webserver") is None:
        raise FrontierError("Dagster's UI is not installed. Install it: pip install 'safety-frontier[view]'.")
    from dagster_project.operations.ui import serve

    if name is not None:
        # What is wrong with it is better said here than in the UI, and the daemon asks nobody.
        _permit_keys(load_experiment(name), None)
    serve(port, None if name is None else experiment_path(name), allow_host or ())


def _leave() -> None:
    # The interpreter would end with 0.7 s of looking for cycles in what Dagster leaves. DuckDB prints a page about what
    # leaks without that search; the commands that ask it do not import Dagster.
    if "duckdb" not in sys.modules:
        gc.freeze()


def main() -> None:
    """Runs the command; errors that the user can mend are shown without a traceback."""
    atexit.register(_leave)
    sys.excepthook = tell_traceback
    try:
        app()
    except FrontierError as error:
        err.print(f"error: {redact(str(error))} [{error.code}]", style="red", markup=False, highlight=False)
        sys.exit(1)
    except OSError as error:  # of a place that the user named: a full disk, a folder that is none
        if error.filename is None:
            raise
        err.print(f"error: {error.filename}: {error.strerror}.", style="red", markup=False, highlight=False)
        sys.exit(1)


if __name__ == "__main__":
    main()
