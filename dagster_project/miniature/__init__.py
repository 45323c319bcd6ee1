"""The embedded toy world: cases from templates, rule-based emulator and judges, tiny models trained on the spot.

Nothing here says anything about real agents. It is the smallest world in which the experiment's question makes sense:
acting at once is quick and mostly praised, checking first is safe, and not everything can be had at the same time.
"""
