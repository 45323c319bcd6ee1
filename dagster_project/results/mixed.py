"""One model of all scores: what each training does, with cases and source models as samples of something larger."""

from __future__ import annotations

import warnings
from pathlib import Path

import pandas as pd

from dagster_project.artifacts.database import open_database

COLUMNS = ["judging", "metric", "term", "estimate", "stderr", "low", "high", "p", "n", "converged"]
FORMULA = "score ~ C(recipe, Treatment('source')) + C(model)"
CELLS = """
    WITH tested AS (
        SELECT t.trajectory_id, a.model, coalesce(a.recipe, 'source') AS recipe, a.pairs_judge, t.case_idx
        FROM trajectories t
        JOIN splits s ON s.case_idx = t.case_idx AND s.split = 'test' AND coalesce(t.seed, s.seed) = s.seed
        JOIN agents a ON a.agent = t.agent AND coalesce(a.seed, s.seed) = s.seed
        WHERE a.recipe IS NOT NULL OR a.model IN (SELECT model FROM agents WHERE recipe IS NOT NULL)
    ), judged AS (
        SELECT *, CASE WHEN pairs_judge IS NULL THEN 'source' WHEN pairs_judge = judge THEN 'match' ELSE 'cross' END
            AS judging
        FROM tested JOIN evaluations USING (trajectory_id) WHERE score IS NOT NULL
    )
    SELECT judging, metric, model, recipe, case_idx, avg(score) AS score FROM judged GROUP BY ALL ORDER BY ALL
"""


def mixed_effects(warehouse: Path) -> pd.DataFrame:
    """Returns, for each way of judging and metric, every recipe's effect on the score against the source models.

    A linear mixed model, fitted by REML: recipes and source models as fixed effects, a random intercept for each case
    and one for each source model on each case. Seeds, betas and judges of a cell are averaged first. `term` is a
    recipe, or `sd_case`, `sd_case_model` and `sd_residual`, the standard deviations of the random parts. Where the
    scores are too few or too equal for such a fit (its matrices are singular), the recipes are there without estimates,
    and `converged` is false.
    """
    with open_database(warehouse) as database:
        cells = database.execute(CELLS).df()
    rows = []
    for judging in ("match", "cross"):
        for metric in ("safe", "help"):
            chosen = cells[(cells["metric"] == metric) & cells["judging"].isin([judging, "source"])]
            if (chosen["judging"] == judging).any() and chosen["recipe"].nunique() > 1:
                rows += [(judging, metric, *row) for row in _fit(chosen)]
    return pd.DataFrame(rows, columns=COLUMNS)


def _fit(cells: pd.DataFrame) -> list[tuple[object, ...]]:
    import numpy as np
    from statsmodels.regression.mixed_linear_model import MixedLM

    missing = float("nan")
    several = cells["model"].nunique() > 1
    formula = FORMULA if several else FORMULA.rpartition(" + ")[0]
    with warnings.catch_warnings():  # whether it converged is in the table
        warnings.simplefilter("ignore")
        model = MixedLM.from_formula(
            formula,
            cells,
            groups="case_idx",
            re_formula="1",
            vc_formula={"model": "0 + C(model)"} if several else None,
        )
        try:
            fit = model.fit(reml=True, method=["lbfgs", "powell"])  # the default, BFGS, did not converge
            intervals = fit.conf_int()
        except np.linalg.LinAlgError:
            recipes = sorted(set(cells["recipe"]) - {"source"})
            return [(recipe, *(missing,) * 5, len(cells), False) for recipe in recipes]
    rows: list[tuple[object, ...]] = []
    n, converged = len(cells), bool(fit.converged)
    for name, estimate in fit.fe_params.items():
        recipe = str(name).partition("[T.")[2].rstrip("]")
        if str(name).startswith("C(recipe"):
            low, high = (float(bound) for bound in intervals.loc[name])
            numbers = float(estimate), float(fit.bse_fe[name]), low, high, float(fit.pvalues[name])
            rows.append((recipe, *numbers, n, converged))
    deviations = {"sd_case": float(fit.cov_re.iloc[0, 0]) ** 0.5, "sd_residual": float(fit.scale) ** 0.5}
    if several:
        deviations["sd_case_model"] = float(fit.vcomp[0]) ** 0.5
    rows += [(term, value, missing, missing, missing, missing, n, converged) for term, value in deviations.items()]
    return rows
