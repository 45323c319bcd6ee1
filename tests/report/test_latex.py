from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_project.report.latex import latex_tables, to_latex
from dagster_project.report.tabular import escape, number, tabular

from .test_figures_all import JUDGES, make_tables

CELL = re.compile(r"(?<!\\)&")


def rows_of(text: str) -> list[list[str]]:
    """Returns the cells of header and body, after checking that the table is one that LaTeX can read."""
    lines = text.splitlines()
    begin = re.fullmatch(r"\\begin\{tabular\}\{([lr]+)\}", lines[0])
    assert begin is not None
    assert lines[1] == r"\toprule"
    assert lines[3] == r"\midrule"
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert text.count(r"\begin{") == text.count(r"\end{") == 1
    assert text.isascii()
    rows = [line.removesuffix(r" \\") for line in lines[2:-2] if line != r"\midrule"]
    assert all(line.endswith(r" \\") for line in lines[2:-2] if line != r"\midrule")
    cells = [[cell.strip() for cell in CELL.split(row)] for row in rows]
    assert {len(row) for row in cells} == {len(begin[1])}
    for row in cells:
        for cell in row:
            plain = cell.replace(r"\{", "").replace(r"\}", "").replace(r"\$", "")
            assert plain.count("{") == plain.count("}"), cell
            assert plain.count("$") % 2 == 0, cell
    return cells


def test_latex_escapes_what_it_must() -> None:
    columns = {"model": "a_b 100% $1 #2 {x} ~ ^ \\", "trained on": "S&H", "Δ safety": "S→H", "β": "1"}
    latex = to_latex(pd.DataFrame([columns]))
    cells = [r"a\_b 100\% \$1 \#2 \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}"]
    cells += [r"S\&H", r"S$\to$H", "1"]
    assert " & ".join(cells) + r" \\" in latex
    assert r"model & trained on & $\Delta$ safety & $\beta$ \\" in latex
    assert latex.splitlines()[0] == r"\begin{tabular}{llll}"
    rows_of(latex)


@given(st.text(st.characters(max_codepoint=126, min_codepoint=9)))
def test_no_text_breaks_a_table(text: str) -> None:
    assert len(rows_of(to_latex(pd.DataFrame({"a": [text], "b": ["x"]})))) == 2
    assert "\n" not in escape(text)


def test_the_end_of_a_row_takes_no_option_from_the_next() -> None:
    lines = to_latex(pd.DataFrame({"a": ["[2pt]", "*"]})).splitlines()
    assert lines[4:6] == [r"{[}2pt] \\", r"{*} \\"]


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 columns has a row of 1"):
        tabular(["a", "b"], [["x"]], "ll")


def test_numbers_have_true_signs() -> None:
    assert number(-0.5) == "$-0.50$"
    assert number(0.5, sign=True) == "$+0.50$"
    assert number(0.5) == "0.50"
    assert number(-0.001) == "0.00"
    assert number(float("nan")) == "N/A"


@pytest.mark.parametrize("judgings", [("match",), ("match", "cross", "all")])
def test_every_table_is_well_formed(judgings: tuple[str, ...]) -> None:
    texts = latex_tables(make_tables(judgings), {"training": {"learning_rate": 5e-5, "quantised": None}})
    assert set(texts) == {
        *(f"results_{judge}" for judge in JUDGES), "aggregated_results", "aggregated_deltas", "persistence",
        "persistence_paper", "frontier_fits", "audits", "training_metrics", "hyperparameters",
    }  # fmt: skip
    for name, text in texts.items():
        rows = rows_of(text)
        by_judging = name.startswith(("results", "aggregated", "persistence", "frontier"))
        assert (rows[0][0] == "Scored by") == (by_judging and len(judgings) > 1), name
        if by_judging and len(judgings) > 1:
            averaged = ["all judges"] * (name != "persistence")  # which has single judges alone
            found = list(dict.fromkeys(row[0] for row in rows[1:]))
            assert found == ["training pairs' judge", "another judge", *averaged]


def test_source_models_come_first_and_recipes_in_order() -> None:
    tables = make_tables(("match",))
    shuffled = {name: table.sample(frac=1, random_state=1) for name, table in tables.items()}
    rows = rows_of(latex_tables(shuffled, None)[f"results_{JUDGES[0]}"])
    configs = [
        "base",
        *(f"{label}, {beta}" for label in ("S", "H", r"S\&H", r"S$\to$H", r"H$\to$S") for beta in (0.05, 0.1)),
    ]
    assert [row[1] for row in rows[1:12]] == configs
    assert {row[0] for row in rows[1:12]} == {"Llama3.1-8B"}
    assert rows[1][2:] == ["2.26", "1.34"]
    aggregated = rows_of(latex_tables(shuffled, None)["aggregated_results"])
    assert [row[0] for row in aggregated[1:]] == configs
    deltas = rows_of(latex_tables(shuffled, None)["aggregated_deltas"])
    assert [row[0] for row in deltas[1:]] == configs[1:]
    assert all(re.fullmatch(r"\$[+-]\d\.\d\d\$|0\.00", cell) for row in deltas[1:] for cell in row[1:])


def test_a_judges_table_holds_that_judges_numbers() -> None:
    tables = make_tables(("match",))
    points = tables["frontier_points"]
    points.loc[points["judge"] == JUDGES[1], "safety"] = 2.99
    texts = latex_tables(tables, None)
    assert {row[3] for row in rows_of(texts[f"results_{JUDGES[1]}"])[1:] if row[1] != "base"} == {"2.99"}
    assert not any("2.99" in row[3] for row in rows_of(texts[f"results_{JUDGES[0]}"]))


def test_persistence_has_its_averages_last_and_says_what_is_not_defined() -> None:
    tables = make_tables(("match",))
    table = tables["persistence"]
    table.loc[
        (table["model"] == "Phi-4") & (table["metric"] == "help"),
        ["paper_position", "paper_position_low", "paper_position_high"],
    ] = np.nan
    table.loc[
        (table["model"] == "Phi-4") & (table["metric"] == "safe"), ["paper_position_low", "paper_position_high"]
    ] = np.nan
    table.loc[table["model"].isna(), "paper_position_low"] = -0.25
    text = latex_tables(tables, None)["persistence_paper"]
    rows = rows_of(text)
    assert [row[1] for row in rows[1:]] == ["Llama3.1-8B", "Phi-4", "Qwen2.5-7B", "Average"] * 2
    assert [row[0] for row in rows[1:]] == ["0.05"] * 4 + ["0.1"] * 4
    assert rows[2][2:] == ["0.80", "N/A"]
    assert rows[4][2] == r"0.80 {\scriptsize [$-0.25$, 1.00]}"
    lines = text.splitlines()
    assert next(place for place, line in enumerate(lines) if "Average" in line) + 1 == lines.index(r"\midrule", 5)


def test_every_judge_has_its_own_persistence() -> None:
    tables = make_tables(("match",))
    table = tables["persistence"]
    table.loc[(table["judge"] == JUDGES[0]) & (table["metric"] == "help"), "gain_verdict"] = "no gain"
    rows = rows_of(latex_tables(tables, None)["persistence"])[1:]
    assert [row[0] for row in rows] == [JUDGES[0]] * 16 + [JUDGES[1]] * 16
    assert {row[6] for row in rows if row[0] == JUDGES[0] and row[1] == "helpfulness"} == {"no gain"}
    assert {row[6] for row in rows if row[0] == JUDGES[1]} == {r"50\% [20, 80]"}
    assert rows[3][3:5] == ["Average", r"0.80 {\scriptsize [0.60, 1.00]}"]


def test_fits_keep_a_set_of_points_together() -> None:
    rows = rows_of(latex_tables(make_tables(("match",)), None)["frontier_fits"])
    assert [row[0] for row in rows[1:]] == [r"all models, recipes, $\beta$"] * 3 + [r"without S\&H"] * 3 + [
        "only Phi-4"
    ] * 3
    assert [row[1] for row in rows[1:4]] == ["average", *JUDGES]
    assert rows[1][3] == r"0.70 {\scriptsize [0.50, 0.80]}"


def test_audits_are_weighted_by_trajectories() -> None:
    audits = pd.DataFrame(
        [
            {
                "agent": "a",
                "seed": seed,
                "trajectories": n,
                "runaway": share,
                "model": "m",
                "recipe": "safe",
                "beta": 0.1,
            }
            for seed, n, share in ((0, 30, 0.0), (1, 10, 1.0))
        ]
    )
    rows = rows_of(latex_tables({"audits": audits}, None)["audits"])
    assert rows == [
        ["Source model", "Trained on", "$n$", r"\shortstack[r]{Ran \\ on \\ (\%)}"],
        ["m", "S", "40", "25.0"],
    ]


def test_hyperparameters_are_those_given() -> None:
    given_ones = {
        "training": {"learning_rate": 5e-5, "modules": ["q_proj", "v"], "quantised": None, "packed": False},
        "judge": "a_b",
    }
    assert rows_of(latex_tables({}, given_ones)["hyperparameters"])[1:] == [
        [r"training.learning\_rate", "5e-05"],
        ["training.modules", r"q\_proj, v"],
        ["training.quantised", "none"],
        ["training.packed", "no"],
        ["judge", r"a\_b"],
    ]


def test_what_is_empty_or_missing_is_skipped() -> None:
    assert latex_tables({}, None) == {}
    assert latex_tables({name: table.iloc[:0] for name, table in make_tables(("match",)).items()}, None) == {}


def test_a_judges_name_makes_a_file_name() -> None:
    tables = make_tables(("match",))
    tables["frontier_points"]["judge"] = tables["frontier_points"]["judge"].replace(JUDGES[0], "../org/Judge 7B")
    assert "results_org-Judge-7B" in latex_tables(tables, None)
