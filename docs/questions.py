"""The paper's questions, asked of any experiment: a marimo notebook.

Look at it with ``marimo edit docs/questions.py -- --experiment published`` (extra `view`).
"""

import marimo

app = marimo.App(width="medium", app_title="Does safety survive?")


@app.cell
def _():
    import marimo as mo

    from dagster_project.artifacts.database import open_database
    from dagster_project.experiment.spec import load_experiment, open_store
    from dagster_project.published.opening import open_experiment
    from dagster_project.report.query import database_path

    found = load_experiment(str(mo.cli_args().get("experiment") or "miniature"))
    store = open_store(found)
    experiment = open_experiment(found, store)
    database = open_database(database_path(experiment, store))
    note = "A toy world: it shows that the graph works, and says nothing of real agents." if experiment.toy else ""
    mo.md(f"# {experiment.name}\n\n{experiment.description}\n\n{note}")
    return database, mo


@app.cell
def _(database, mo):
    claims = database.execute("""
        SELECT statement, judge, verdict, judges_differ_p, rule FROM claims
        WHERE without IS NULL AND model IS NULL
            AND judging IS NOT DISTINCT FROM (SELECT any_value(judging) FROM claims WHERE main)
        ORDER BY statement, judge NULLS FIRST
    """).df()
    mo.vstack([mo.md("## What holds?"), claims])
    return (claims,)


@app.cell
def _(database, mo):
    kept = database.execute("""
        SELECT judging, judge, beta, metric, gain, gain_low, gain_high, gain_verdict, kept, kept_low, kept_high,
            share, share_low, share_high, paper_position, paper_position_low, paper_position_high
        FROM persistence WHERE model IS NULL ORDER BY ALL
    """).df()
    mo.vstack([mo.md("## Does what was trained first survive what is trained second?"), kept])
    return (kept,)


@app.cell
def _(database, mo):
    lines = database.execute("""
        SELECT judging, judge, point_set, n, slope, slope_low, slope_high, intercept, intercept_low, intercept_high,
            scatter, scatter_low, scatter_high, r2, r2_low, r2_high
        FROM frontier_fits ORDER BY judging, judge NULLS FIRST, r2 DESC
    """).df()
    mo.vstack([mo.md("## Do all agents lie on one line?"), lines])
    return (lines,)


@app.cell
def _(database, mo):
    landed = database.execute("""
        SELECT judging, recipe, beta, safety_delta, safety_delta_low, safety_delta_high,
            helpfulness_delta, helpfulness_delta_low, helpfulness_delta_high
        FROM recipe_points WHERE judge IS NULL AND recipe IS NOT NULL ORDER BY judging, beta, safety_delta DESC
    """).df()
    mo.vstack([mo.md("## Where does each training land, against its source models?"), landed])
    return (landed,)


@app.cell
def _(database, mo):
    agreement = database.execute("SELECT * FROM judge_agreement ORDER BY ALL").df()
    mo.vstack([mo.md("## How far do the judges agree?"), agreement])
    return (agreement,)


@app.cell
def _(database, mo):
    endings = database.execute("""
        SELECT stop_reason, count(*) AS n, avg((self_observed > 0)::INT) AS self_written,
            avg((emulator_calls = 0)::INT) AS no_tool
        FROM trajectories WHERE split IS DISTINCT FROM 'train' GROUP BY ALL ORDER BY n DESC
    """).df()
    mo.vstack([mo.md("## How did the trajectories end, and what did agents invent?"), endings])
    return (endings,)


@app.cell
def _(database, mo):
    without = database.execute("""
        SELECT without, judging, judge, beta, metric, gain, gain_verdict, share, share_low, share_high, cells, cases
        FROM audited_persistence WHERE model IS NULL ORDER BY ALL
    """).df()
    mo.vstack([mo.md("## And without those?"), without])
    return (without,)


if __name__ == "__main__":
    app.run()
