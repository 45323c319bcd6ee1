-- The base tables of the warehouse. Names and columns are public; docs/warehouse.md explains them.
CREATE TABLE artifacts (
    experiment VARCHAR, asset VARCHAR, "partition" VARCHAR, run_id VARCHAR, code_version VARCHAR,
    started_at TIMESTAMPTZ, ended_at TIMESTAMPTZ, path VARCHAR, sha256 VARCHAR, bytes BIGINT,
    kind VARCHAR, side VARCHAR, judge VARCHAR, metric VARCHAR, stage INTEGER,
    PRIMARY KEY (asset, "partition")
);
CREATE TABLE lineage (
    asset VARCHAR, "partition" VARCHAR, run_id VARCHAR,
    input_asset VARCHAR, input_partition VARCHAR, input_run_id VARCHAR, input_sha256 VARCHAR
);
CREATE TABLE agents (
    agent VARCHAR, model VARCHAR, recipe VARCHAR,
    stages STRUCT(metric VARCHAR, judge VARCHAR, beta DOUBLE, epochs DOUBLE)[],
    pairs_judge VARCHAR, beta DOUBLE, seed INTEGER, label VARCHAR, variant VARCHAR,
    mixture STRUCT(agent VARCHAR, weight DOUBLE)[]
);
CREATE TABLE splits (seed INTEGER, case_idx INTEGER, split VARCHAR, PRIMARY KEY (seed, case_idx));
CREATE TABLE trajectories (
    trajectory_id VARCHAR PRIMARY KEY, agent VARCHAR, seed INTEGER, case_idx INTEGER, sample INTEGER, split VARCHAR,
    emulator VARCHAR, stop_reason VARCHAR, steps INTEGER, self_observed INTEGER, agent_tokens BIGINT,
    path VARCHAR, line INTEGER,
    agent_characters BIGINT, emulator_calls INTEGER, empty_observations INTEGER, cut_off BOOLEAN,
    failed BOOLEAN
);
CREATE TABLE evaluations (
    trajectory_id VARCHAR, agent VARCHAR, seed INTEGER, case_idx INTEGER, judge VARCHAR, metric VARCHAR,
    replicate INTEGER, score DOUBLE, label VARCHAR, parsed_by VARCHAR, raw_score VARCHAR, tokens BIGINT, error VARCHAR,
    PRIMARY KEY (trajectory_id, judge, metric, replicate)
);
CREATE TABLE preference_pairs (
    judge VARCHAR, metric VARCHAR, seed INTEGER, case_idx INTEGER,
    chosen_trajectory_id VARCHAR, rejected_trajectory_id VARCHAR, chosen_score DOUBLE, rejected_score DOUBLE,
    decided_by VARCHAR
);
CREATE TABLE model_use (
    asset VARCHAR, "partition" VARCHAR, role VARCHAR, model VARCHAR, calls BIGINT, prompt_tokens BIGINT,
    completion_tokens BIGINT, reasoning_tokens BIGINT, cost DOUBLE, PRIMARY KEY (asset, "partition", role)
);
CREATE TABLE training_runs (
    agent VARCHAR, seed INTEGER, stage INTEGER, steps INTEGER, loss DOUBLE, reward_accuracy DOUBLE,
    tokens_per_second DOUBLE, gpu VARCHAR, seconds DOUBLE, pairs INTEGER, pairs_too_long INTEGER,
    conversations INTEGER, references_reused INTEGER, resumed_at INTEGER, micro_batch INTEGER, by_case BOOLEAN,
    computed_tokens BIGINT, recomputed DOUBLE,
    reward_margin DOUBLE, kl DOUBLE, reference_seconds DOUBLE, mfu DOUBLE, hfu DOUBLE, peak_memory_bytes BIGINT,
    PRIMARY KEY (agent, seed, stage)
);
CREATE TABLE training_steps (
    agent VARCHAR, seed INTEGER, stage INTEGER, step INTEGER, loss DOUBLE, reward_accuracy DOUBLE,
    reward_margin DOUBLE, reward_chosen DOUBLE, reward_rejected DOUBLE, logps_chosen DOUBLE, logps_rejected DOUBLE,
    entropy DOUBLE, grad_norm DOUBLE, learning_rate DOUBLE, tokens DOUBLE
);
CREATE TABLE imported_records (trajectory_id VARCHAR, judge VARCHAR, file VARCHAR, line INTEGER, "order" INTEGER);
CREATE TABLE imported_files (file VARCHAR PRIMARY KEY, sha256 VARCHAR, bytes BIGINT);
CREATE TABLE import_problems (kind VARCHAR, file VARCHAR, line INTEGER, text VARCHAR, note BOOLEAN);
CREATE TABLE operations (
    asset VARCHAR, "partition" VARCHAR, run_id VARCHAR, host VARCHAR, gpu VARCHAR, seconds DOUBLE, gpu_hours DOUBLE,
    tokens BIGINT, cost DOUBLE, failures INTEGER, PRIMARY KEY (asset, "partition")
);
CREATE TABLE failures (
    asset VARCHAR, "partition" VARCHAR, run_id VARCHAR, cause VARCHAR, message VARCHAR, failed_at TIMESTAMPTZ,
    seconds DOUBLE
);
