"""Source models, their trajectories and evaluations; and the computations that `measure` shares."""
