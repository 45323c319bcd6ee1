from __future__ import annotations

import re

import pytest

from benchmarks.shared_text import Steps, card, quietest


@pytest.mark.slow
def test_what_a_card_is_to_measure_runs_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    card()
    title, *lines = capsys.readouterr().out.splitlines()
    assert "a rehearsal" in title
    figures = [
        re.search(r"(.+): .* steps of (\d+) tokens a pair, (\d+)% recomputed; .*, ratio ([\d.]+)$", line)
        for line in lines
    ]
    names, tokens, recomputed, ratios = zip(*(found.groups() for found in figures if found), strict=True)
    assert [name.strip() for name in names] == [
        "reference implementation's settings", "TRL's pass", "shared text", "shared text, by case",
    ]  # fmt: skip
    assert recomputed == ("100", "0", "0", "0")
    assert tokens[0] == tokens[1]
    assert int(tokens[1]) > 1.5 * int(tokens[2]) > 1.5 * 1.5 * int(tokens[3])
    assert ratios[0] == "1.00"


def test_a_step_counts_as_fast_as_it_was_in_its_fastest_round() -> None:
    rounds = [Steps([1.0, 5.0], 7, 0.5), Steps([3.0, 2.0], 7, 0.5)]
    assert quietest(rounds) == Steps([1.0, 2.0], 7, 0.5)
