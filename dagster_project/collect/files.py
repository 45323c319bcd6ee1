"""Names of the files that hold records in artifacts."""

TRAJECTORIES = "trajectories.jsonl"
EVALUATIONS = "evaluations.jsonl"
