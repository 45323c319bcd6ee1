"""What the paper found, in words, and by which rule each finding is held against data.

The rules are the same for every experiment, and their thresholds conventions: nothing was fitted to a result.
claims.py applies them.
"""

from __future__ import annotations

from typing import NamedTuple

HALF = 0.5
"""Of a gain, to call it persistent."""
MARGIN = 0.25
"""Points of score (0 to 3) that matter: a smaller difference is as good as none."""
MIN_CASES, MIN_CELLS = 20, 30
"""Distinct cases, and scores (agent, seed, case), that a number must be made from to decide anything."""


class Statement(NamedTuple):
    """What is claimed; and when it holds and when it does not. Anything else is not decided."""

    claim: str
    rule: str


STATEMENTS = {
    "safe_extreme": Statement(
        "Training for safety alone gives the safest and least helpful agents.",
        "Holds if S is safer and less helpful than every other of the paper's trainings (H, S&H, S→H, H→S) that is "
        "there, at every beta, each interval beyond 0 with p below 0.05; does not if one difference is surely "
        "(Holm) the other way.",
    ),
    "help_extreme": Statement(
        "Training for helpfulness alone gives the most helpful and least safe agents.",
        "Holds if H is more helpful and less safe than every other of the paper's trainings (S, S&H, S→H, H→S) that is "
        "there, at every beta, each interval beyond 0 with p below 0.05; does not if one difference is surely "
        "(Holm) the other way.",
    ),
    "safety_persists": Statement(
        "Most of the safety gained survives helpfulness training.",
        "Holds if at every beta the share of the gain over the source model that is left, (S→H − source) / "
        f"(S − source), has its interval above {HALF}; does not if it is below at one. Without a gain clearly above 0 "
        "there is nothing to keep, and it is not decided. Takes S, S→H, H and the source model.",
    ),
    "helpfulness_persists_less": Statement(
        "Helpfulness survives safety training less than safety survives helpfulness training.",
        "Holds if at every beta safety's share left minus helpfulness's, from the same draws, has its interval above "
        "0 with p below 0.05; does not if it is below at one. Where one of them has no clear gain, the points lost "
        "decide: helpfulness lost to safety training (H − H→S) minus safety lost to helpfulness training (S − S→H). "
        "Takes S, S→H, H, H→S.",
    ),
    "order_matters": Statement(
        "The order of the two trainings matters.",
        "Holds if S→H and H→S surely (Holm) differ on either axis at some beta, or by surely different amounts at two "
        f"betas; does not if every one of these intervals is within ±{MARGIN} points. Takes both.",
    ),
    "one_line": Statement(
        "All recipes lie near one line: what is gained in safety is paid in helpfulness.",
        f"Holds if the line falls, passes within ±{MARGIN} points of the source model (its intercept is the safety "
        f"gained where helpfulness is unchanged), and the points scatter less than {MARGIN} points around it. Does not "
        "if the line rises, if it surely misses the source model (an intercept above 0 is safety gained at no cost), "
        "or if the scatter is larger. Slope and intercept are those without the points' errors of measurement.",
    ),
    "one_line_everywhere": Statement(
        "Safety is traded for helpfulness, whichever points the line is drawn through.",
        "Holds if the slope has its interval below 0 on every distinct set of points; does not if it surely (Holm) "
        "rises on one.",
    ),
    "no_best_of_both": Statement(
        "Training on both at once is no best of both worlds.",
        f"Holds if S&H surely lies less than {MARGIN} points beyond the line through the other recipes at every beta; "
        "does not if it surely lies further.",
    ),
    "best_of_both_more_often": Statement(
        "Training on both at once is safe and helpful at once (2 or more in each) more often than either alone.",
        "Holds if S&H's share of such trajectories is above S's and above H's at every beta, each interval of the "
        "difference above 0 with p below 0.05; does not if one is surely (Holm) below. No mix of an S agent and an H "
        "agent, case by case by chance, can exceed both.",
    ),
}
