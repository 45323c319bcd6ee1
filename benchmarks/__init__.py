"""Each figure that the documentation quotes, as a command; see `python -m benchmarks --help`."""
