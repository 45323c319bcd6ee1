"""Trained agents on held-out cases, and the judges' verdicts on them."""
