"""The experiment: its file, the agents it trains, its splits, and the graph of what depends on what."""
