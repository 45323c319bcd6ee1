"""What every table and column of the database means: comments in it, which any client shows, and docs/warehouse.md.

``python -m dagster_project.results.schema DATABASE`` prints the page.
"""

from __future__ import annotations

import sys
from pathlib import Path

import dagster as dg
import duckdb
import pandas as pd

from dagster_project.artifacts.database import open_database
from dagster_project.experiment.metadata import as_text

RECORDS = {
    "artifacts": "an artifact: what one run made of one partition",
    "lineage": "an artifact that another one was made from",
    "agents": "a source model, or a trained agent of one seed",
    "splits": "a case under a seed",
    "trajectories": "what one agent did on one case",
    "evaluations": "a judge's verdict on a trajectory",
    "model_use": "what a role took of its model for one partition",
    "operations": "what making one partition took",
    "failures": "an attempt at a partition that failed",
    "preference_pairs": "a pair to train on",
    "training_runs": "an adapter",
    "training_steps": "an optimiser step",
    "imported_files": "a file that was imported",
    "imported_records": "a place in the imported files where a trajectory was found",
    "import_problems": "a finding of the import",
}
"""Tables of records, and what a row of each is."""
RESULTS = {
    "agent_scores": "an agent's scores under one seed, by judge and metric",
    "frontier_points": "a source model after one training",
    "recipe_points": "a training, averaged over source models",
    "source_points": "a source model before training",
    "frontier_fits": "a least-squares line of safety on helpfulness through a set of points",
    "frontier_bands": "the height of such a line at one place",
    "pareto": "a model's undominated points together",
    "persistence": "how much of the first training's gain is left after the second, and the paper's own measure",
    "persistence_differences": "safety's persistence against helpfulness's, from the same draws",
    "persistence_disagreements": "a number of `persistence` by one judge minus the same by another",
    "comparisons": "a trained agent against its source model, case by case",
    "contrasts": "the difference between two trainings, on equal cases",
    "frontier_disagreements": "a number of `contrasts` or `frontier_fits` by one judge minus the same by another",
    "judge_agreement": "two judges on the trajectories that both scored",
    "judge_confusion": "two judges' scores, counted",
    "metric_correlation": "safety and helpfulness by one judge",
    "metric_contingency": "safety and helpfulness by one judge, counted",
    "replicate_consistency": "a judge's replicates among themselves",
    "audits": "how an agent's trajectories ended under one seed, and what was invented in them",
    "token_limits": "trajectories that ran into a limit, and the others",
    "pair_audits": "the pairs to train on",
    "pair_options": "what another rule for pairs would give, over all cases",
    "audited_points": "as `frontier_points`, without some trajectories",
    "audited_fits": "as `frontier_fits`, without some trajectories",
    "audited_persistence": "as `persistence`, without some trajectories",
    "audited_persistence_differences": "as `persistence_differences`, without some trajectories",
    "audited_contrasts": "as `contrasts`, without some trajectories",
    "claims": "one of the paper's findings, held against these tables, by one judge or by all",
    "claim_evidence": "a number behind such a verdict",
}
"""Tables of results, and what a row of each is."""
_SHARE = "share of trajectories"
COLUMNS = {
    "agent": "Its key: `<source model>`, or `<source model>:<recipe>:<pairs' judge>:<beta>`.",
    "agent_characters": "Characters that the agent wrote.",
    "agent_tokens": "Tokens that the agent wrote; null: not known.",
    "agents": "Trained agents (by a judge) whose first training is in it.",
    "all_but_one_agree": "Share of trajectories where all replicates but one agree.",
    "alpha": "Krippendorff's alpha for ordinal scores.",
    "alpha_high": "Upper bound of that, over cases.",
    "alpha_low": "Lower bound of that, over cases.",
    "asset": "The asset.",
    "axis": "`safe`, `help`: the difference of scores; `best_of_both`: of that share; `distance`: how far `both` "
    "lies beyond the others' line.",
    "best_of_both": "Share of trajectories with 2 or more in safety and in helpfulness.",
    "best_of_both_high": "Upper bound of that.",
    "best_of_both_low": "Lower bound of that.",
    "beta": "DPO's beta; null for source models, and for agents whose stages have several.",
    "beta_minus": "The row is the difference at `beta` minus the difference at this beta; null: the difference at "
    "`beta`.",
    "better": "Cases that gained a point or more.",
    "by_case": "Whether a step's pairs were of one case or few (`training.batch_by: case`) and not drawn by chance.",
    "bytes": "Size.",
    "calls": "Calls of the model.",
    "candidates": "Pairs of trajectories of one case.",
    "case_idx": "The case.",
    "cases": "Distinct cases. Of a line: of the point with the fewest.",
    "cause": "`server`, `memory`, `disk`, `check`, `input`, `lost` (its process was killed) or `code`.",
    "cells": "Scores it is made from: (agent, judge, seed, case). Of a line: of the point with the fewest.",
    "chosen_best_of_both": "Share of chosen trajectories with 2 or more in safety and in helpfulness.",
    "chosen_score": "Score of the chosen trajectory.",
    "chosen_self_observed": "Share of chosen trajectories with results that the agent wrote itself.",
    "chosen_trajectory_id": "The better trajectory.",
    "chosen_without_tool_call": "Share of chosen trajectories that call no tool.",
    "claim": "The claim's name.",
    "code_version": "Version of the code that made it.",
    "completion_tokens": "Tokens that the model wrote.",
    "computed_tokens": "Tokens computed for it since `resumed_at`; shared ones once, if they were computed once.",
    "context_full": f"{_SHARE} that filled the model's context.",
    "conversations": "Distinct conversations in the pairs; the reference is computed once for each.",
    "cost": "At list prices, in the experiment's currency; null: no price given.",
    "cut_off": "Whether the final answer was cut off at its limit of tokens; null: not known.",
    "decided_by": "Of pairs for `either`: the metric on which the chosen trajectory is better.",
    "delta_corr": "Correlation of the two deltas over the draws: the ellipse's.",
    "df": "Degrees of freedom of interval and p: few where the variance between seeds dominates.",
    "difference": "Mean difference of the scores.",
    "difference_high": "Upper bound of `difference`.",
    "difference_low": "Lower bound of `difference`.",
    "empty_observations": "Answers of the emulator that could not be read.",
    "emulator": "Who played the tools.",
    "emulator_calls": "Tool calls that the emulator answered.",
    "emulator_unparsed": "Share of the emulator's answers that could not be read.",
    "ended_at": "When its making ended.",
    "entropy": "Mean entropy of the agent's next token, in nats.",
    "estimate": "The estimate.",
    "evidence": "Numbers behind it, in `claim_evidence`.",
    "exact": "Share with the same score.",
    "exact_high": "Upper bound of that, over cases.",
    "exact_low": "Lower bound of that, over cases.",
    "exact_match": "Share of trajectories where all replicates agree.",
    "expected": "What the number would have to be for the claim to hold.",
    "experiment": "The experiment.",
    "failed": "Whether it says nothing about the agent: a failure ended it, or the agent wrote nothing. It has no "
    "scores, unless the experiment file says `judge_failed: true`.",
    "failed_at": "When it failed.",
    "failures": "Attempts that failed before.",
    "file": "The file, as `<source>/<path below it>`; or what was left out.",
    "first": "A recipe.",
    "found_in": "The table that has the number by each judge.",
    "gain": "First training minus source model, points of the metric's score: S − source for `safe`, H − source for"
    " `help`.",
    "gain_high": "Upper bound of `gain`.",
    "gain_low": "Lower bound of `gain`.",
    "gain_p": "Two-sided p-value of `gain`.",
    "gain_verdict": "`gain`: its interval is above 0, and `gain_p` agrees; `no gain`: it is not; `no source`: the "
    "source model was not scored.",
    "generalises_to": "What interval and p-value are for: other `cases`, or other `cases and seeds` (trainings); "
    "always of these source models and judges.",
    "gpu": "The GPU's name.",
    "gpu_hours": "For how long it had a GPU; null: it needs none, or there was none.",
    "grad_norm": "Norm of the gradient.",
    "help": "The helpfulness score.",
    "help_limited": "Mean helpfulness of those that ran into a limit.",
    "help_other": "Mean helpfulness of the others.",
    "helpfulness": "Mean helpfulness on held-out cases, 0 to 3.",
    "helpfulness_delta": "Helpfulness minus the source model's on the same cases.",
    "helpfulness_delta_df": "Degrees of freedom of its interval and p.",
    "helpfulness_delta_high": "Upper bound of that.",
    "helpfulness_delta_low": "Lower bound of that.",
    "helpfulness_delta_p": "Two-sided p-value of the delta.",
    "helpfulness_delta_se": "Standard error of that, over cases and seeds.",
    "helpfulness_high": "Upper bound of helpfulness.",
    "helpfulness_low": "Lower bound of helpfulness.",
    "helpfulness_sd": "Standard deviation of helpfulness between runs.",
    "hfu": "As `mfu`, with the operations that were computed again.",
    "high": "Upper bound.",
    "host": "The machine.",
    "hypervolume": "Share of the square from 0 to 3 that is dominated.",
    "hypervolume_high": "Upper bound of that.",
    "hypervolume_low": "Lower bound of that.",
    "in_format": f"{_SHARE} that end in an answer.",
    "input_asset": "What was read.",
    "input_partition": "Its partition.",
    "input_run_id": "The run that had made it.",
    "input_sha256": "Hash of its content.",
    "intercept": "Safety's delta where helpfulness's is 0: safety gained at no cost.",
    "intercept_disattenuated": "Intercept of the true line.",
    "intercept_disattenuated_high": "Upper bound of that.",
    "intercept_disattenuated_low": "Lower bound of that.",
    "intercept_high": "Upper bound of `intercept`.",
    "intercept_low": "Lower bound of `intercept`.",
    "intercept_se": "Its standard error if points were independent, which they are not.",
    "invented_only": f"{_SHARE} with results that the agent wrote itself and none of the emulator's.",
    "judge": "The judge; in results, null: the average over judges.",
    "judge_a": "One judge.",
    "judge_b": "Another judge.",
    "judges_differ": "Whether the judges surely differ in the claim's numbers (`judges_differ_p` below 0.05).",
    "judges_differ_p": "Least p, after Holm, of the differences between two judges in the numbers that decide the "
    "claim.",
    "judging": "`match`: scored by the judge of the training pairs; `cross`: by another; `all`: by both.",
    "kendall": "Kendall's tau-b.",
    "kendall_p": "Its p-value.",
    "kept": "Both trainings in turn minus source model: S→H − source for `safe`, H→S − source for `help`.",
    "kept_high": "Upper bound of `kept`.",
    "kept_low": "Lower bound of `kept`.",
    "kept_p": "Two-sided p-value of `kept`.",
    "kind": "Kind of finding.",
    "kl": "Divergence of the agent from its base per token of its own, in nats; mean over some of the pairs.",
    "label": "What it is called in figures.",
    "learning_rate": "The learning rate.",
    "least_cases": "Distinct cases behind the number with the fewest.",
    "least_cells": "Scores behind the number with the fewest.",
    "limit": f"{_SHARE} that ran into a limit that nobody recorded the kind of.",
    "line": "Line in that file, from 1.",
    "logps_chosen": "Mean log-probability of the chosen trajectories.",
    "logps_rejected": "Mean log-probability of the rejected trajectories.",
    "loss": "DPO's loss.",
    "loss_high": "Upper bound of `loss`.",
    "loss_low": "Lower bound of `loss`.",
    "loss_p": "Two-sided p-value of `loss`.",
    "low": "Lower bound.",
    "main": "Whether this row answers the claim: all judges, all models, nothing left out.",
    "majority_agree": "Share of trajectories where most replicates agree.",
    "mean": "Mean score over cases.",
    "mean_a": "Mean score by `judge_a`.",
    "mean_agent_characters": "Mean characters that the agent wrote.",
    "mean_agent_tokens": "Mean tokens that the agent wrote.",
    "mean_b": "Mean score by `judge_b`.",
    "mean_help": "Mean helpfulness.",
    "mean_safe": "Mean safety.",
    "mean_std": "Mean standard deviation of a trajectory's replicates.",
    "mean_steps": "Mean steps.",
    "mean_variance": "Mean variance of a trajectory's replicates.",
    "message": "What was wrong, in the error's own words.",
    "metric": "`safe`, `help` (safety apart), `help_safe` (minding it); of pairs also `both`, `either`.",
    "mfu": "Share of the cards' peak operations that was of use; null: no card, or an unknown one.",
    "micro_batch": "Pairs on a card at once.",
    "mixture": "The agents whose adapters it is mixed from, each with its weight; null: it was trained.",
    "model": "The source model; in results, null: the average over models.",
    "n": "How many.",
    "n_bootstrap": "Draws that have a value.",
    "never_held_out": "Of `n`, trajectories on cases that no seed holds out.",
    "note": "True: taken nevertheless, by rule. False: left out.",
    "option": "A setting of `pairs`; `none`: as the experiment has it.",
    "order": "Place in the order of the released code.",
    "other": "The other training minus source model: H − source for `safe`, S − source for `help`.",
    "other_high": "Upper bound of `other`.",
    "other_low": "Lower bound of `other`.",
    "other_p": "Two-sided p-value of `other`.",
    "out_of_memory": f"{_SHARE} rescued from memory exhaustion.",
    "p": "Two-sided p-value (Student's t on the draws' standard error); null for ratios that have none. With few "
    "seeds, read p < 0.001 as p < 0.01.",
    "p_cases": "Wilcoxon's signed-rank test on the cases' mean differences: takes the agents as they are, "
    "generalises to cases alone.",
    "p_holm": "`p`, corrected by Holm for all tests of its judging and judge.",
    "pairs": "Pairs.",
    "pairs_judge": "The judge whose scores made the training pairs; null: source.",
    "pairs_too_long": "Pairs left out for their length.",
    "paper_denominator": "S − H (H − S for `help`), mean over the parts of an average.",
    "paper_invalid_share": "Share of draws in which a part's denominator was not positive.",
    "paper_p": "The paper's p-value of the line: as if points were independent, which they are not.",
    "paper_position": "The paper's persistence, a position between H and S: (S→H − H) / (S − H) for `safe`, (H→S − "
    "S) / (H − S) for `help`; 0 is the other training alone, 1 this one. Seeds are pooled before the ratio, models "
    "and judges averaged after it. It is no share of a gain.",
    "paper_position_high": "Upper bound of that.",
    "paper_position_low": "Lower bound of that.",
    "paper_released_high": "Upper bound as the released code draws it.",
    "paper_released_low": "Lower bound as the released code draws it.",
    "pareto": "Whether no other point of its judging and judge is better in both.",
    "parsed_by": "How the score was read.",
    "partition": "The partition.",
    "path": "The file, below the data folder.",
    "peak_memory_bytes": "Most memory taken of the card; null: no card.",
    "pearson": "Pearson's correlation.",
    "pearson_p": "Its p-value.",
    "point_set": "Which points: `model_recipe` are the published 30; `within_models` the same, each minus its "
    "model's mean; the others say in what they differ; a set that equals an earlier one is left out. Mixtures are "
    "in `interpolated` alone, with what they are mixed from.",
    "prompt_tokens": "Tokens that the model read.",
    "quantity": "What was measured.",
    "r": "Correlation.",
    "r2": "R² of the line through the points as measured.",
    "r2_disattenuated": "R² of the true line, without the points' errors of measurement (cases, trainings); null "
    "where it would be 1 or more.",
    "r2_disattenuated_clipped": "Whether the estimate or its upper bound would be 1 or more: the points scatter no "
    "more than their errors.",
    "r2_disattenuated_high": "Upper bound of that; null where it would be 1 or more.",
    "r2_disattenuated_low": "Lower bound of that: read it as “at least”.",
    "r2_high": "Upper bound of `r2`.",
    "r2_low": "Lower bound of `r2`.",
    "r2_uncentred": "Against zero, for the line through the origin.",
    "raw_score": "The score as the judge wrote it.",
    "reasoning_tokens": "Of those, tokens of reasoning.",
    "recipe": "What it was trained on, in order, `@` a variant of training; or what it is mixed from; null: source "
    "model.",
    "recomputed": "Share of tokens whose activations were computed again going back (gradient checkpointing).",
    "reference_seconds": "How long the reference took.",
    "references_reused": "Conversations whose reference was stored by an earlier training.",
    "rejected_best_of_both": "Share of rejected trajectories with 2 or more in safety and in helpfulness.",
    "rejected_score": "Score of the rejected trajectory.",
    "rejected_self_observed": "Share of rejected trajectories with results that the agent wrote itself.",
    "rejected_trajectory_id": "The worse trajectory.",
    "rejected_without_tool_call": "Share of rejected trajectories that call no tool.",
    "replicate": "Which of several verdicts of the same judge, from 0.",
    "replicates": "Verdicts on each.",
    "resumed_at": "The step that a killed training went on from; 0: none was killed.",
    "reward_accuracy": "Share of pairs whose chosen trajectory has the higher reward.",
    "reward_chosen": "Mean reward of the chosen trajectories.",
    "reward_margin": "Mean reward of chosen minus rejected.",
    "reward_rejected": "Mean reward of the rejected trajectories.",
    "role": "`agent`, `emulator` or `judge`.",
    "rule": "By which rule it is decided.",
    "run_id": "The run that made it.",
    "runaway": f"{_SHARE} that ran on to a limit, of whatever kind.",
    "runs": "Agents in it.",
    "safe": "The safety score.",
    "safe_limited": "Mean safety of those that ran into a limit.",
    "safe_other": "Mean safety of the others.",
    "safety": "Mean safety on held-out cases, 0 to 3.",
    "safety_delta": "Safety minus the source model's on the same cases.",
    "safety_delta_df": "Degrees of freedom of its interval and p.",
    "safety_delta_high": "Upper bound of that.",
    "safety_delta_low": "Lower bound of that.",
    "safety_delta_p": "Two-sided p-value of the delta.",
    "safety_delta_se": "Standard error of that, over cases and seeds.",
    "safety_high": "Upper bound of safety.",
    "safety_low": "Lower bound of safety.",
    "safety_sd": "Standard deviation of safety between runs.",
    "same": "Cases that did neither.",
    "same_model": "Share of pairs of one model with itself.",
    "sample": "Which of several on the same case, from 0.",
    "scatter": "Residual standard deviation around the line, points of safety; errors of measurement are in it.",
    "scatter_high": "Upper bound of `scatter`.",
    "scatter_low": "Lower bound of `scatter`.",
    "score": "0 to 3, higher is better; null: none could be read.",
    "score_0": "Cases whose score rounds to 0.",
    "score_1": "Cases whose score rounds to 1.",
    "score_2": "Cases whose score rounds to 2.",
    "score_3": "Cases whose score rounds to 3.",
    "score_a": "Score by `judge_a`.",
    "score_b": "Score by `judge_b`.",
    "scored": "Trajectories with verdicts on safety and helpfulness.",
    "second": "Another recipe; the difference is first minus second.",
    "seconds": "How long it took.",
    "seed": "Decides split and training; null: a source model's, of all cases.",
    "selected_on_outcome": "Whether trajectories are left out by how they ended, which training changes: what is "
    "left is a selection.",
    "self_observed": "Tool results that the agent wrote itself.",
    "sha256": "Hash of the content.",
    "share": "Of the gain, `kept` / `gain`, a ratio of averages; null without a clear gain. Below 0: worse than the"
    " source model. Where `gain_low` is near 0, its interval is too narrow: rely on `gain` and `kept`.",
    "share_high": "Upper bound of `share` (Fieller).",
    "share_low": "Lower bound of `share` (Fieller).",
    "slope": "Points of safety for a point of helpfulness.",
    "slope_disattenuated": "Slope of the true line, which errors of measurement flatten.",
    "slope_disattenuated_high": "Upper bound of that.",
    "slope_disattenuated_low": "Lower bound of that.",
    "slope_high": "Upper bound of `slope`.",
    "slope_low": "Lower bound of `slope`.",
    "slope_p": "Two-sided p-value of the slope.",
    "slope_se": "Its standard error if points were independent, which they are not.",
    "spearman": "Spearman's rank correlation.",
    "spearman_p": "Its p-value.",
    "split": "`train` or `test`; null: a source model's.",
    "stage": "Which training of the sequence, from 1.",
    "stages": "The trainings, as JSON.",
    "started_at": "When its making began.",
    "statement": "The claim in words.",
    "std": "Population standard deviation over cases.",
    "std_help": "Standard deviation of helpfulness.",
    "std_safe": "Standard deviation of safety.",
    "stderr": "Standard error over cases and seeds; of an agent's mean under one seed, over cases.",
    "step": "Which step.",
    "step_limit": f"{_SHARE} that ran out of steps.",
    "steps": "Steps.",
    "stop_reason": "How it ended.",
    "subject": "Of what the number is.",
    "text": "What was found, and what was expected.",
    "token_budget": f"{_SHARE} that ran out of tokens.",
    "token_limit_rate": f"{_SHARE} that ran into a limit.",
    "tokens": "Tokens that the judge wrote; null: not known.",
    "tokens_per_second": "Tokens trained on per second.",
    "toy": "Whether it is about a toy world.",
    "trajectories": "Trajectories.",
    "trajectory_id": "The trajectory.",
    "unparseable": f"{_SHARE} that ended in turns that could not be read.",
    "value": "The option's value.",
    "variant": "The name of its training's variant in the experiment file; null: trained as all are.",
    "verdict": "`holds`, `does not`, `not decided` (the intervals leave both open), `judges disagree` (holds by "
    "one, does not by another), `too little data` (fewer than 20 cases or 30 scores), or `no data`.",
    "verdict_of_average": "What the average over judges would say; it decides nothing. Null in rows of one judge.",
    "weighted_kappa": "Cohen's kappa with quadratic weights.",
    "weighted_kappa_high": "Upper bound of that, over cases.",
    "weighted_kappa_low": "Lower bound of that, over cases.",
    "whose": "`source` (of `judge_agreement`: on all cases; `source_held_out`: on cases that a seed holds out), "
    "`trained` (held-out cases) or `all`.",
    "within_1": "Share within a point.",
    "within_1_high": "Upper bound of that, over cases.",
    "within_1_low": "Lower bound of that, over cases.",
    "without": "What is left out: `self_observed`, `runaways`, or `self_observed_or_runaways`.",
    "without_tool_call": f"{_SHARE} in which no tool was called: the emulator answered nothing.",
    "worse": "Cases that lost a point or more.",
    "x": "Helpfulness's delta.",
    "y": "Safety's delta on the line.",
}
"""What a column means, where it means the same in every table that has it."""
OWN = {
    ("artifacts", "kind"): "What it holds: `trajectories`, `evaluations`, `pairs`, `adapters` … (`Kind` in the code).",
    ("artifacts", "side"): "Whose records it holds: `source` models' or `agent`s'; null: no one's, or both.",
    ("artifacts", "judge"): "The judge whose verdicts or pairs it holds; null: none.",
    ("artifacts", "metric"): "The metric of its verdicts; null: none.",
    ("artifacts", "stage"): "The training stage of its adapters or merged models, from 1; null: none.",
    ("operations", "tokens"): "Tokens that models behind endpoints read and wrote for it; null: none was asked.",
    ("failures", "run_id"): "The run that failed.",
    ("failures", "seconds"): "How long it had worked.",
    ("audits", "failed"): f"{_SHARE} that say nothing about the agent: a failure ended them, or the agent wrote "
    "nothing.",
    ("audits", "self_observed"): f"{_SHARE} with tool results that the agent wrote itself.",
    ("token_limits", "out_of_memory"): "Trajectories rescued from memory exhaustion.",
    ("persistence", "loss"): "First training minus both in turn: S − S→H for `safe`, H − H→S for `help`.",
    ("audited_persistence", "loss"): "First training minus both in turn: S − S→H for `safe`, H − H→S for `help`.",
    ("persistence_differences", "quantity"): "`share`: safety's share of its gain left minus helpfulness's; `points`: "
    "helpfulness lost (H − H→S) minus safety lost (S − S→H); `paper_position`: of the paper's positions. Above 0: "
    "safety persists better.",
    (
        "persistence_differences",
        "verdict",
    ): "Of `share`: `gain`, or `no gain` if one of the two has no clear gain to take a share of; else null.",
    ("audits", "best_of_both"): "Share of the `scored` trajectories that every judge gives 2 or more in safety and in "
    "helpfulness.",
    ("audits", "cases"): "Distinct held-out cases.",
    ("pair_audits", "cases"): "Cases.",
    ("pair_options", "cases"): "Cases.",
    ("pair_options", "share"): "Of the pairs without the option.",
    ("claims", "model"): "The source model it is held against; null: all of them.",
    ("claims", "judge"): "The judge whose scores alone it is held against; null: what all of them say together.",
    ("claim_evidence", "judge"): "The judge; null: the average over judges, which decides nothing.",
    ("claims", "without"): "What is left out; null: nothing.",
    ("claim_evidence", "without"): "What is left out; null: nothing.",
    ("agent_scores", "judging"): "Null for source models; else as everywhere.",
    ("model_use", "model"): "The model's name at its server, or in the experiment.",
    ("agents", "label"): "What its recipe is called in figures.",
    ("training_steps", "tokens"): "Tokens trained on so far, both sides' prompts included, padding not.",
    ("evaluations", "label"): "The judge's label in words, if it gave one.",
    ("evaluations", "error"): "Why there is no score; empty where there is one.",
}
"""What it means in one table alone."""
PREFACE = """# The warehouse

`frontier query EXPERIMENT SQL` reads one DuckDB file with these tables; any DuckDB client can open it (its path is
the last line that `frontier run` prints), and shows what is said here as comments. It is rebuilt whole, so it never
changes under a reader: who has it open while a run writes goes on reading what was there. `--format` is `table`,
`csv` or `json`: a null is `NULL`, nothing, or `null`; a number that is none is `nan`, in JSON the text `NaN`.

A query can read this database and nothing else. Reading or writing other files, the network, extensions, other
databases and settings are refused. If you trust a query that needs them, add `--allow-files`: `frontier query paper
"COPY frontier_points TO 'points.csv'" --allow-files`. Tables and CSV show a character that is not printable as its
number (`\\x1b`); JSON holds every value exactly.

Scores are 0 to 3, higher is better. A delta is a trained agent's score minus its source model's on the same held-out
cases by the same judge. Source models have a row a seed in `agent_scores`: their mean on that seed's held-out cases.

Intervals and p-values come from one error model. It draws seeds and cases, the same draws for all agents and judges,
since they share both, and adds the two deviations. The variance between seeds is the unbiased one, and an interval is
Student's. Its degrees of freedom (`df`) are Satterthwaite's, with the seeds' part of the variance raised by (ν + 2) / ν
for ν = seeds - 1, because the plain formula gives too many where there are few seeds. So intervals generalise to other
cases and other trainings of the same source models, scored by the same judges; `generalises_to` says so, and `cases`
alone where there was one seed. Source models and judges are not resampled. With three seeds, where the variance between
seeds dominates, there are few degrees of freedom and intervals are wide: that is what three trainings can say.
Exceptions: `p_cases` (Wilcoxon) takes the trained agents as they are; agreement of judges resamples cases alone;
`stderr` of `agent_scores` is over the cases of one agent; p-values of `metric_correlation` take trajectories as
independent, as the released tool does, which those of one case are not; `paper_p`, `slope_se` and `intercept_se` take
points as independent.

P-values are right near 0.05. Much smaller ones are too small with few seeds, since the variance between three seeds
can come out near 0 by chance. Of true null hypotheses, p is below 0.05 in 4.4 to 6.1%, below 0.01 in 0.9 to 2.4%, below
0.001 in 0.1 to 1.0%, and below 0.0001 in 0.01 to 0.5%, where the seeds' part of the variance is 10 to 90%. So read
p < 0.001 as p < 0.01. The report does not tell smaller p-values apart. Corrections for many tests (Holm) rest on small
p-values, too.

The interval of `share` is Fieller's. Those of R² and scatter are shifted so that the draws have the estimate as their
mean (on Fisher's z and on the logarithm): drawing adds noise to every point, and noise can only loosen a line.
Intervals of mean scores end at 0 and 3.

How often 95% intervals hold the truth was counted on 1,000 made-up experiments of the paper's size (`python -m
benchmarks.coverage --experiments 1000`). Their variances are those of the released runs, by metric (`python -m
benchmarks.variances`): standard deviations of a training's mean from seed to seed of 0.21 for helpfulness and 0.14 for
safety, of 0.05 and 0.04 for all of a source model's agents together, of 0.04 and 0.00 for all agents together, and of
single scores of 0.92 and 0.74. Counting errors are 0.5 points, 1.1 for the released code's intervals, 1.6 for the
line, and 3 to 4 for shares of helpfulness.

| interval of | helpfulness | safety |
|---|---|---|
| a point's change | 95.7% | 96.8% |
| a recipe's change, over source models | 95.6% | 97.1% |
| the difference of two recipes, over models | 94.8% | 95.8% |
| the same, of one model | 95.0% | 96.1% |
| `gain`, over models; of one model | 96.3%; 96.1% | 97.4%; 96.9% |
| `kept` | 95.2%; 95.6% | 97.0%; 96.7% |
| `other` | 96.3%; 95.6% | 96.9%; 96.5% |
| `loss` | 95.0%; 95.4% | 95.8%; 96.8% |
| `share` | 76%; 69%, see below | 95.8%; 96.7% |
| `paper_position` | 95.3% | 95.6% |
| the same as the released code draws it | 66% | 73% |

| interval of | held |
|---|---|
| helpfulness lost minus safety lost, over models; of one model | 95.2%; 95.3% |
| the true line's slope, intercept, R², by `*_disattenuated` | 99.6 to 99.9%: wider than need be |
| the true line's, by the line as measured | 3%, 42%, 33%: it is looser and flatter than the true one |

Intervals of safety are a little too wide: the noise of single scores is in both deviations that are added. A `share`
of helpfulness is only there where chance makes a small gain (0.04 points on average) look clear, in 6% of the rows, and
such gains are overestimated. Its interval is then wrong in 24 to 31% of the rows that have one, which is 1.5 to 1.8% of
all rows. A stricter threshold for a clear gain makes it rarer and no better. Where `gain_low` is near 0, rely on `gain`
and `kept`.

`claims` holds the paper's findings against these tables, by rules that are the same for every experiment and stand
beside each verdict, by each judge alone and for each source model. A claim holds, or does not, only if intervals say
so. It is `not decided` where they leave it open, `too little data` where fewer than 20 cases or 30 scores are behind
a number that it takes, `no data` where there is no such number, and `judges disagree` where it holds by one judge and
does not by another. In `match`, each judge scores the agents that were trained on its own verdicts, so that judges
who differ there differ as teachers and graders together.

There is no mixed model of all scores. One with seeds, cases, and recipes by source models as random parts would have
three seeds and three source models to learn their variances from; `recipe_points`, `contrasts` and `comparisons`
answer the same questions with seeds and cases as random, and with source models shown one by one.
"""


def meaning(table: str, column: str) -> str | None:
    """Returns what a column means, None if nobody said."""
    return OWN.get((table, column)) or COLUMNS.get(column)


def column_schema(name: str, table: pd.DataFrame) -> dg.TableSchema:
    """Return what the columns of a result table mean, for Dagster's catalogue."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(str(column), str(kind), description=as_text(meaning(name, str(column)) or ""))
            for column, kind in table.dtypes.items()
        ]
    )


def comment(database: duckdb.DuckDBPyConnection) -> None:
    """Writes what tables and columns mean into a database, as comments."""
    rows = {**RECORDS, **RESULTS}
    statements = []
    for table, columns in _tables(database).items():
        if table in rows:
            statements.append(f'COMMENT ON TABLE "{table}" IS {_text("A row is " + rows[table] + ".")}')
        for column in columns:
            said = meaning(table, column)
            if said:
                statements.append(f'COMMENT ON COLUMN "{table}"."{column}" IS {_text(said)}')
    database.execute(";".join(["BEGIN", *statements, "COMMIT"]))


def page(database: duckdb.DuckDBPyConnection) -> str:
    """Returns docs/warehouse.md for a database with comments, in Markdown."""
    said = database.execute("SELECT table_name, comment FROM duckdb_tables()").fetchall()
    tables: dict[str, str] = {str(name): str(text) for name, text in said if text}
    parts = [PREFACE]
    for title, names in (("Records", RECORDS), ("Results", RESULTS)):
        parts.append(f"\n## {title}\n")
        for name in names:
            if name in tables:
                parts.append(f"\n### {name}\n\n{tables[name]}\n\n| column | means |\n|---|---|\n")
                columns = database.execute(
                    "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = $name ORDER BY column_index",
                    {"name": name},
                ).fetchall()
                parts += [f"| `{column}` | {text or ''} |\n" for column, text in columns]
    return "".join(parts)


def _tables(database: duckdb.DuckDBPyConnection) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    rows = database.execute(
        "SELECT table_name, column_name FROM duckdb_columns() WHERE NOT internal ORDER BY table_name, column_index"
    )
    for table, column in rows.fetchall():
        found.setdefault(str(table), []).append(str(column))
    return found


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


if __name__ == "__main__":
    with open_database(Path(sys.argv[1])) as opened:
        sys.stdout.write(page(opened))
