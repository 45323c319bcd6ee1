"""The warehouse, and the result tables computed from it."""
