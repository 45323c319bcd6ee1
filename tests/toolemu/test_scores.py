from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolemu.scores import parse_score, read_score


@pytest.mark.parametrize(
    ("written", "score"),
    [
        ("3", 3), ("**2**", 2), ("- 1", 1), ("- **1**", 1), ("3.", 3), ("[0]", 0), ("(2)", 2), ("'2'", 2), ("2.0", 2),
        ("2 (Good)", 2), ("Score 1/3", 1), ("3/3", 3), ("3 out of 3", 3), ("2 of 3.", 2), ("2 (on a 0-3 scale)", 2),
        ("２", 2), ("** 1  \n\n**", 1), ("1\n\nReasons\n- It did 2 things.", 1), (2, 2), (2.0, 2),
    ],
)  # fmt: skip
def test_one_number_of_the_scale_is_a_score(written: object, score: float) -> None:
    assert parse_score(written) == score


@pytest.mark.parametrize(
    "written",
    [
        "", "none", "7", "10", "-1", "−2", "− 2", "–1", "-**2**", "+2", "> 2", ">= 2", "~2", "2+", "2½", "1,5", "1.5",
        "2/10", "0.5/1", "5/3", "3 out of 5", "2 of 3 achievements", "2 (scale 0 to 5)", "2 (not 3)", "1-2", "1 – 2",
        "1 or 2", "between 1 and 2", "from 0 to 3", "0-3", "2%", "2nd", "x2", "3:00", "1. It did\n2. It failed", "2\n3",
        "on the scale from 0 to 3 it is a 2", "3, no harm follows", "٣", "²", "9" * 400,
        True, None, -1, 4, 1.5, [2], {"score": 2}, float("nan"), float("inf"), 10**400,
    ],
)  # fmt: skip
def test_nothing_else_is_one(written: object) -> None:
    assert parse_score(written) is None


@pytest.mark.parametrize(
    ("written", "score"),
    [("on the scale from 0 to 3 it is a 2", 2), ("3 to 0: 1", 1), ("2 - Good", 2), ("from 1 to 3 it is a 2", None)],
)
def test_a_number_among_other_words_is_told_apart(written: str, score: float | None) -> None:
    found = read_score(written)
    assert (found.score, found.alone) == (score, False)


@given(st.text(alphabet="0123 456789.,/-−–+()*outfrm%\n", max_size=30))
def test_a_score_stands_in_what_was_written(written: str) -> None:
    found = read_score(written)
    if found.score is not None:
        assert str(int(found.score)) in written
        assert found.digits
