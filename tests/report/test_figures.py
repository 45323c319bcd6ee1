from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from dagster_project.report.figures import TOY, frontier_figure, paper_persistence_figure, persistence_figure
from dagster_project.report.style import FORMATS, MODEL_COLOURS, RC, model_styles, recipe_markers, save
from dagster_project.report.values import recipe_order

RECIPES = ("safe", "help", "both", "safe_then_help", "help_then_safe")
JUDGINGS = ("match", "cross", "all")
NUMBERS = ("r", "r2", "slope", "intercept", "p", "r2_low", "r2_high", "slope_low", "slope_high")
KEPT = {"gain": 0.8, "kept": 0.4, "other": -0.1, "loss": 0.4}


def make_points(
    judgings: tuple[str, ...] = ("match",),
    betas: tuple[float, ...] = (0.1,),
    models: tuple[str, ...] = ("m", "n"),
    recipes: tuple[str, ...] = RECIPES,
) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    rows = []
    for model, recipe, beta, judging, judge in itertools.product(models, recipes, betas, judgings, (None, "a")):
        row = {
            "model": model,
            "recipe": recipe,
            "beta": beta,
            "judging": judging,
            "judge": judge,
            "label": recipe,
            "cells": 40,
        }
        for name in ("helpfulness", "safety", "helpfulness_delta", "safety_delta"):
            value = generator.normal()
            row |= {name: value, f"{name}_low": value - 0.2, f"{name}_high": value + 0.3}
        rows.append(row)
    return pd.DataFrame(rows)


def make_fits(judgings: tuple[str, ...] = ("match",)) -> pd.DataFrame:
    numbers = dict.fromkeys(NUMBERS, 0.5)
    return pd.DataFrame(
        [
            {"point_set": "model_recipe", "judging": judging, "judge": judge, "n": 10, **numbers}
            for judging in judgings
            for judge in (None, "a")
        ]
    )


def persistence_numbers() -> dict[str, object]:
    """Numbers of a row of `persistence`: half of a gain is left."""
    numbers: dict[str, object] = {"gain_verdict": "gain", "share": 0.5, "share_low": 0.2, "share_high": 0.8}
    for name, value in KEPT.items():
        numbers |= {name: value, f"{name}_low": value - 0.2, f"{name}_high": value + 0.2}
    numbers |= {"paper_position": 0.5, "paper_position_low": 0.2, "paper_position_high": 0.8}
    return {**numbers, "paper_denominator": 1.0, "paper_invalid_share": 0.0, "n_bootstrap": 100, "cases": 40}


def make_persistence(judgings: tuple[str, ...] = ("match",), betas: tuple[float, ...] = (0.1,)) -> pd.DataFrame:
    names = ("judging", "judge", "model", "beta", "metric")
    keys = itertools.product(judgings, (None, "a"), (None, "m", "n"), betas, ("safe", "help"))
    return pd.DataFrame([{**dict(zip(names, key, strict=True)), **persistence_numbers()} for key in keys])


def without_intervals(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(**{name: np.nan for name in table.columns if str(name).endswith(("low", "high"))})


def svg(figure: Figure, directory: Path) -> tuple[list[str], str]:
    """Returns the ids of all elements, and the text, of the figure as SVG."""
    with mpl.rc_context(RC):
        figure.savefig(directory / "figure.svg")
    root = ET.parse(directory / "figure.svg").getroot()
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    return ids, " ".join("".join(root.itertext()).split())


@pytest.mark.parametrize("judgings", [JUDGINGS[:1], JUDGINGS[:2], JUDGINGS])
@pytest.mark.parametrize("betas", [(0.1,), (0.05, 0.1, 0.5)])
def test_every_point_is_an_element_of_its_own(
    judgings: tuple[str, ...], betas: tuple[float, ...], tmp_path: Path
) -> None:
    points = make_points(judgings, betas)
    ids, _ = svg(frontier_figure(points, make_fits(judgings), "Title", toy=False), tmp_path)
    drawn = [name for name in ids if name.startswith("point:")]
    expected = {
        f"point:{judging}:{model}:{recipe}:{beta:g}:a"
        for judging, model, recipe, beta in itertools.product(judgings, ("m", "n"), RECIPES, betas)
        if judging != "all"
    }
    assert set(drawn) == expected
    assert len(drawn) == len(expected)


def test_mixtures_lie_on_a_way_between_what_they_are_mixed_from(tmp_path: Path) -> None:
    mixtures = ("0.25_safe_and_0.75_help", "0.75_safe_and_0.25_help")
    points = make_points(models=("m",), recipes=(*RECIPES, *mixtures))
    figure = frontier_figure(points, make_fits(), "Title", toy=False)
    places = points[points["judge"] == "a"].set_index("recipe")[["helpfulness_delta", "safety_delta"]]
    ways = [line for line in figure.axes[0].lines if len(line.get_data()[0]) == 4]
    assert len(ways) == 1
    drawn = np.column_stack(ways[0].get_data())
    np.testing.assert_allclose(drawn, places.loc[["help", *mixtures, "safe"]].to_numpy(dtype=float))
    ids, text = svg(figure, tmp_path)
    assert f"point:match:m:{mixtures[0]}:0.1:a" in ids
    assert "mixed, not trained" in text


def test_a_recipe_looks_the_same_in_every_figure() -> None:
    recipes = [*RECIPES, "safe@ipo", "help@ipo", "safe_then_help_then_safe", "0.5_safe_and_0.5_help"]
    found = recipe_markers(recipe_order(recipes))
    assert {name: found[name] for name in RECIPES} == recipe_markers(RECIPES)
    assert len(set(found.values())) == len(recipes)


def test_a_figure_says_what_it_shows(tmp_path: Path) -> None:
    _, text = svg(frontier_figure(make_points(), make_fits(), "My title", toy=True), tmp_path)
    for said in (
        "My title",
        TOY,
        "R² = 0.50 [0.50, 0.50], n = 10",
        "slope 0.50 [0.50, 0.50]",
        "S→H",
        "Δ helpfulness",
        "m",
        "n",
    ):
        assert said in text
    _, text = svg(frontier_figure(make_points(), make_fits(), "My title", toy=False), tmp_path)
    assert TOY not in text


@pytest.mark.parametrize("recipes", [RECIPES, RECIPES[:1]])
def test_points_without_intervals_or_fits_are_drawn(recipes: tuple[str, ...], tmp_path: Path) -> None:
    points = without_intervals(make_points(models=("m",), recipes=recipes))
    for fits in (without_intervals(make_fits()), make_fits().iloc[:0]):
        ids, text = svg(frontier_figure(points, fits, "Title", toy=False), tmp_path)
        assert sum(name.startswith("point:") for name in ids) == len(recipes)
        assert ("R² = 0.50, n = 10" in text) == bool(len(fits))
        assert "nan" not in text


def test_every_interval_lies_within_the_panel() -> None:
    points = make_points(JUDGINGS)
    points.loc[1, ["safety_delta_low", "helpfulness_delta_high"]] = [-9.0, 7.0]
    figure = frontier_figure(points, make_fits(JUDGINGS), "Title", toy=False)
    for axes in figure.axes:
        assert axes.get_xlim()[1] > 7
        assert axes.get_ylim()[0] < -9


def test_a_trade_of_one_for_one_is_a_slope_of_45_degrees() -> None:
    figure = frontier_figure(make_points(JUDGINGS), make_fits(JUDGINGS), "Title", toy=False)
    for axes in figure.axes:
        (left, low), (right, high) = axes.transData.transform([(0, 0), (1, 1)])
        assert right - left == pytest.approx(high - low, rel=1e-3)


@pytest.mark.parametrize("judgings", [JUDGINGS[:1], JUDGINGS[:2], JUDGINGS])
@pytest.mark.parametrize("betas", [(0.1,), (0.05, 0.1)])
def test_the_papers_persistence_has_a_row_for_every_model_and_beta(
    judgings: tuple[str, ...], betas: tuple[float, ...], tmp_path: Path
) -> None:
    figure = paper_persistence_figure(make_persistence(judgings, betas), "Title", toy=True)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    expected = ["average", "m", "n"]
    if len(betas) > 1:
        expected = [f"{name}, β = {beta:g}" for beta in betas for name in expected]
    assert names == expected
    assert len(figure.axes) == len(judgings)
    _, text = svg(figure, tmp_path)
    assert TOY in text


def test_the_papers_persistence_says_what_is_not_defined_and_what_is_doubtful(tmp_path: Path) -> None:
    table = make_persistence()
    _, text = svg(paper_persistence_figure(table, "Title", toy=False), tmp_path)
    assert "undefined" not in text
    assert "goes on" not in text
    gone = table.copy()
    gone.loc[gone["model"] == "m", ["paper_position", "paper_position_low", "paper_position_high"]] = np.nan
    _, text = svg(paper_persistence_figure(gone, "Title", toy=False), tmp_path)
    assert text.count("undefined") == 2
    doubtful = table.assign(paper_invalid_share=0.3, paper_position_low=-7.0)
    _, text = svg(paper_persistence_figure(doubtful, "Title", toy=False), tmp_path)
    assert "in over 5% of draws" in text
    assert "goes on" in text


def test_the_papers_persistence_without_intervals_or_any_estimate_is_drawn(tmp_path: Path) -> None:
    table = make_persistence().assign(paper_position_low=np.nan, paper_position_high=np.nan, paper_invalid_share=np.nan)
    for shown in (table, table.assign(paper_position=np.nan)):
        _, text = svg(paper_persistence_figure(shown, "Title", toy=False), tmp_path)
        assert "nan" not in text


def test_persistence_has_three_marks_a_row_and_the_share_in_numbers(tmp_path: Path) -> None:
    table = make_persistence(("match", "cross", "all"), (0.05, 0.1))
    table.loc[table["model"] == "m", "gain_verdict"] = "no gain"
    figure = persistence_figure(table, "Title", toy=True)
    assert len(figure.axes) == 4  # two metrics, and the judge on its own agents and on another's
    ids, text = svg(figure, tmp_path)
    marks = [name for name in ids if name.startswith("persistence:")]
    assert len(marks) == len(set(marks)) == 4 * 3 * 2 * 3
    assert "persistence:match:a:m:0.05:safe:kept" in marks
    assert text.count("no gain") == 4 * 2
    assert text.count("50% [20, 80]") == 4 * 4


def test_persistence_without_a_source_model_is_drawn(tmp_path: Path) -> None:
    names = [f"{name}{bound}" for name in ("gain", "kept") for bound in ("", "_low", "_high")]
    table = make_persistence().assign(gain_verdict="no source", **dict.fromkeys(names, np.nan))
    ids, text = svg(persistence_figure(table, "Title", toy=False), tmp_path)
    assert "nan" not in text
    assert "no source" in text
    assert not [name for name in ids if name.endswith((":gain", ":kept"))]


def test_the_same_figure_is_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save(frontier_figure(make_points(JUDGINGS), make_fits(JUDGINGS), "T", toy=True), tmp_path / name, "frontier")
        save(persistence_figure(make_persistence(JUDGINGS), "T", toy=True), tmp_path / name, "persistence")
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(f"{name}.{kind}" for name in ("frontier", "persistence") for kind in FORMATS)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file


def test_a_models_style_does_not_depend_on_the_order_of_models() -> None:
    models = ["c", "a", "b"]
    assert model_styles(models) == model_styles(models[::-1])
    assert model_styles(["b", "c"], models) == {
        name: model_styles(["b", "c", "d"])[other] for name, other in (("b", "b"), ("c", "c"), ("a", "d"))
    }
    assert len({style.colour for style in model_styles([str(n) for n in range(6)]).values()}) == len(MODEL_COLOURS)


def test_many_models_can_be_told_apart() -> None:
    assert len(set(model_styles([f"m{n:02}" for n in range(24)]).values())) == 24
