"""The experiment: what is run, in which order, with what, and what it shows."""
