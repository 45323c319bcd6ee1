"""How an experiment is operated: Dagster's instance, what is missing or stale, and the runs that make it."""
