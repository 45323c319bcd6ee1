"""Agents in LM-emulated tool environments, and the judges that score them."""
