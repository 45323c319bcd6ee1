"""Preference pairs: which of two trajectories of one case is to be preferred."""
