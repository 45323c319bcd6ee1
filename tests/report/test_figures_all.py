from __future__ import annotations

import itertools
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.transforms import Bbox

from dagster_project.report.figures import TOY, draw_all, intermediates_figure
from dagster_project.report.style import COLUMN_WIDTH, FORMATS, TEXT_WIDTH, freeze, look, save
from dagster_project.report.values import beta_name, point_id

from .test_figures import persistence_numbers

MODELS, JUDGES, BETAS = ("Llama3.1-8B", "Phi-4", "Qwen2.5-7B"), ("Qwen3-32B", "gpt-5-mini"), (0.05, 0.1)
JUDGINGS = ("match", "cross", "all")
LABELS = {"safe": "S", "help": "H", "both": "S&H", "safe_then_help": "S→H", "help_then_safe": "H→S"}
# Helpfulness and safety as recipes have them in the paper: some lie close to each other.
SCORES = {
    "safe": (1.60, 2.35), "help": (2.30, 1.45), "both": (1.80, 2.25), "safe_then_help": (1.80, 2.20),
    "help_then_safe": (1.70, 2.20),
}  # fmt: skip
BASE = (2.26, 1.34)
ALL = {
    "frontier", "frontier_averaged", "overall", "help_with_intermediates", "safe_with_intermediates", "delta_all",
    "persistence", "persistence_paper", "fits", "agreement", "audits", "training", "scores", "seeds", "cases_safe",
    "cases_help",
}  # fmt: skip


def values(scores: tuple[float, float], base: tuple[float, float], spread: float) -> dict[str, Any]:
    row: dict[str, Any] = {"delta_corr": -0.3, "runs": 6}
    for axis, score, source in zip(("helpfulness", "safety"), scores, base, strict=True):
        for name, value in ((axis, score), (f"{axis}_delta", score - source)):
            row |= {name: value, f"{name}_low": value - 2 * spread, f"{name}_high": value + 2 * spread}
        row |= {f"{axis}_delta_se": spread}
    return row


def make_tables(judgings: tuple[str, ...] = JUDGINGS, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Tables of the paper's size: three models, five recipes, two betas, two judges, three seeds."""
    generator = np.random.default_rng(seed)
    tables: dict[str, list[dict[str, Any]]] = {
        name: []
        for name in (
            "frontier_points", "recipe_points", "source_points", "frontier_fits", "frontier_bands", "persistence",
            "judge_agreement", "judge_confusion", "audits", "agents", "training_steps", "agent_scores", "case_scores",
            "changes",
        )
    }  # fmt: skip
    for judging, judge in itertools.product(judgings, (None, *JUDGES)):
        way = {"judging": judging, "judge": judge}
        tables["recipe_points"].append(
            {**way, "recipe": None, "beta": None, "label": "source", **values(BASE, BASE, 0)}
        )
        for (recipe, scores), beta in itertools.product(SCORES.items(), BETAS):
            key = {**way, "recipe": recipe, "beta": beta, "label": LABELS[recipe]}
            shift = generator.normal(0, 0.05, 2)
            tables["recipe_points"].append({**key, **values((scores[0] + shift[0], scores[1] + shift[1]), BASE, 0.08)})
            for model in MODELS:
                moved = scores + generator.normal(0, 0.15, 2)
                point = {**key, "model": model, **values((moved[0], moved[1]), BASE, 0.1)}
                tables["frontier_points"].append({**point, "pareto": bool(generator.random() < 0.2)})
        for model in MODELS:
            tables["source_points"].append({**way, "model": model, **values(BASE, BASE, 0.05)})
        for points in ("model_recipe", "without_both", "only_Phi-4"):
            line = {"r2": 0.7, "r2_low": 0.5, "r2_high": 0.8, "slope": -0.9, "slope_low": -1.1, "slope_high": -0.7}
            tables["frontier_fits"].append({**way, **line, "point_set": points, "n": 30, "intercept": 0.4, "r": -0.8})
        for x in np.linspace(-0.8, 0.3, 25):
            y = 0.4 - 0.9 * x
            band = {"x": x, "y": y, "low": y - 0.1, "high": y + 0.1}
            tables["frontier_bands"].append({**way, "point_set": "model_recipe", **band})
        for model, beta, metric in itertools.product((None, *MODELS), BETAS, ("safe", "help")):
            bounds = {"low": 0.6, "high": 1.0}
            kept = {"paper_position": 0.8, **{f"paper_position_{bound}": value for bound, value in bounds.items()}}
            kept = {**persistence_numbers(), **kept}
            kept |= {"paper_released_low": 0.7, "paper_released_high": 0.9}
            key = {**way, "model": model, "beta": beta, "metric": metric}
            tables["persistence"].append({**key, **kept, "paper_invalid_share": 0.0, "paper_denominator": 0.5})
    for metric in ("help", "safe"):
        names = {"metric": metric, "judge_a": JUDGES[0], "judge_b": JUDGES[1]}
        tables["judge_agreement"].append({**names, "n": 432, "weighted_kappa": 0.5, "alpha": 0.48})
        for a, b in itertools.product(range(4), range(4)):
            tables["judge_confusion"].append({**names, "score_a": a, "score_b": b, "n": 10 + 60 * (a == b)})
    grid = itertools.product(MODELS, SCORES, JUDGES, BETAS, range(3))
    runs: list[tuple[str, str | None, str | None, float | None, int | None]] = [
        *((model, None, None, None, None) for model in MODELS),
        *grid,
    ]
    for model, recipe, judge, beta, seed_ in runs:
        agent = model if recipe is None else f"{model}:{recipe}:{judge}:{beta}"
        names = {"agent": agent, "seed": seed_, "model": model, "recipe": recipe, "beta": beta}
        tables["agents"].append({**names, "pairs_judge": judge})
        shares = dict(zip(("runaway", "invented_only", "without_tool_call"), generator.random(3), strict=True))
        tables["audits"].append({**names, "trajectories": 72, "emulator_unparsed": 0.1, **shares})
        for scored_by, metric in itertools.product(JUDGES, ("safe", "help")):
            judging = None if judge is None else "match" if judge == scored_by else "cross"
            if judging not in (None, *judgings):
                continue
            key = {"agent": agent, "judge": scored_by, "metric": metric}
            for own_seed in range(3) if seed_ is None else (seed_,):
                counts = {f"score_{score}": int(generator.integers(1, 9)) for score in range(4)}
                mean = float(generator.normal(1.5, 0.3))
                tables["agent_scores"].append(
                    {**key, "seed": own_seed, "judging": judging, "mean": mean, "n": 9, **counts}
                )
                for case in range(5):
                    score = float(generator.integers(0, 4))
                    tables["case_scores"].append({**key, "seed": own_seed, "case_idx": case, "score": score})
        if recipe is not None:
            for step in (10, 5):  # not in order
                numbers = {"loss": 0.7 - step / 100 + generator.normal(0, 0.01), "reward_accuracy": 0.5}
                stage = 2 if "then" in recipe else 1
                tables["training_steps"].append(
                    {"agent": agent, "seed": seed_, "stage": stage, "step": step, **numbers}
                )
    for judging, judge in itertools.product([way for way in judgings if way != "all"], JUDGES):
        for model, beta, metric in itertools.product(MODELS, BETAS, ("safe", "help")):
            first = metric
            second = "safe_then_help" if metric == "safe" else "help_then_safe"
            names = {"judging": judging, "judge": judge, "model": model, "beta": beta, "metric": metric}
            numbers = {"before": 2.1, "after": 1.9, "change": -0.2, "low": -0.35, "high": 0.01, "cases": 5, "pairs": 1}
            tables["changes"].append({**names, "first": first, "second": second, **numbers})
    return {name: pd.DataFrame(rows) for name, rows in tables.items()}


def written(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    """Yields every text that is drawn, with its box in pixels."""
    freeze(figure)
    figure.draw_without_rendering()
    texts = [*figure.texts]
    for legend in figure.legends:
        texts += [*legend.get_texts(), legend.get_title()]
    for axes in figure.axes:
        if not axes.axison:
            continue
        texts += [*axes.texts, axes.title, axes.xaxis.label, axes.yaxis.label]
        for labels, (low, high), place in (
            (axes.get_xticklabels(), axes.get_xlim(), 0),
            (axes.get_yticklabels(), axes.get_ylim(), 1),
        ):
            ends = sorted((low, high))
            texts += [text for text in labels if ends[0] <= text.get_position()[place] <= ends[1]]
    for text in texts:
        if text.get_visible() and text.get_text().strip():
            yield text.get_text(), text.get_window_extent()


def markers(figure: Figure) -> Iterator[tuple[Line2D, float, float]]:
    """Yields every marker with an id, with its place in pixels."""
    for axes in figure.axes:
        for line in axes.lines:
            if str(line.get_gid()).startswith(("point:", "source:", "persistence:")):
                (x, y), *more = axes.transData.transform(np.column_stack(line.get_data()))
                assert not more
                yield line, x, y


@pytest.fixture(scope="module", params=[JUDGINGS, JUDGINGS[:1]], ids=["three", "one"])
def figures(request: pytest.FixtureRequest) -> dict[str, Figure]:
    return draw_all(make_tables(request.param), "an experiment of some length", toy=True)


def test_all_figures_are_drawn_and_say_that_they_are_of_a_toy(figures: dict[str, Figure]) -> None:
    assert set(figures) == ALL
    for name, figure in figures.items():
        assert TOY in " ".join(" ".join(text for text, _ in written(figure)).split()), name
        assert figure.get_size_inches()[0] in (COLUMN_WIDTH, TEXT_WIDTH), name
        assert figure.get_size_inches()[1] < 9, name


def test_no_text_overlaps_another_or_leaves_the_figure(figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        found = list(written(figure))
        assert len(found) > 5, name
        for text, box in found:
            assert box.x0 >= -1, (name, text)
            assert box.y0 >= -1, (name, text)
            assert box.x1 <= figure.bbox.x1 + 1, (name, text)
            assert box.y1 <= figure.bbox.y1 + 1, (name, text)
        for (text, box), (other, theirs) in itertools.combinations(found, 2):
            overlap = Bbox.intersection(box, theirs)
            assert overlap is None or min(overlap.width, overlap.height) <= 1, (name, text, other)


def test_no_text_is_smaller_than_six_points(figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        for text in figure.findobj(lambda artist: hasattr(artist, "get_fontsize")):
            assert text.get_fontsize() >= 6, (name, text)  # type: ignore[attr-defined]


def test_every_point_lies_in_its_panel_and_under_no_label(figures: dict[str, Figure]) -> None:
    for name, figure in figures.items():
        figure.draw_without_rendering()
        boxes = [(text.get_text(), text.get_window_extent()) for axes in figure.axes for text in axes.texts]
        for line, x, y in markers(figure):
            assert line.axes is not None
            assert line.axes.bbox.contains(x, y), (name, line.get_gid())
            if name != "agreement":
                assert not [text for text, box in boxes if box.contains(x, y)], (name, line.get_gid())


def test_ids_are_unique_and_name_every_point(figures: dict[str, Figure], tmp_path: Path) -> None:
    judgings = JUDGINGS[: len(figures["frontier_averaged"].axes)]
    ways = list(itertools.product([way for way in judgings if way != "all"], JUDGES))
    keys = list(itertools.product(MODELS, SCORES, BETAS))
    expected = {
        "frontier": {point_id(judging, *key, judge) for judging, judge in ways for key in keys},
        "frontier_averaged": {point_id(judging, *key) for judging in judgings for key in keys},
        "overall": {point_id(judging, *key) for judging in judgings for key in keys},
        "delta_all": {point_id("match", "average", *key[1:]) for key in keys},
    }
    for name, figure in figures.items():
        with look():
            figure.savefig(tmp_path / f"{name}.svg")
        ids = [node.get("id", "") for node in ET.parse(tmp_path / f"{name}.svg").iter() if "id" in node.attrib]
        assert len(ids) == len(set(ids)), name
        assert (
            expected.get(name, set()) == {found for found in ids if found.startswith("point:")} or name not in expected
        )


def test_a_point_is_where_its_numbers_say() -> None:
    tables = make_tables(("match",))
    drawn = draw_all(tables, "t", toy=False)
    rows = tables["frontier_points"]
    for name, kind in (("frontier_averaged", "_delta"), ("overall", "")):
        found = {line.get_gid(): line for line, _, _ in markers(drawn[name])}
        for row in rows[rows["judge"].isna()].to_dict("records"):
            line = found[point_id("match", row["model"], row["recipe"], row["beta"])]
            assert line.get_xydata().tolist() == [[row[f"helpfulness{kind}"], row[f"safety{kind}"]]]


def test_an_ellipse_is_one_standard_error_wide() -> None:
    tables = make_tables(("match",))
    points = tables["frontier_points"]
    points["helpfulness_delta_se"], points["safety_delta_se"], points["delta_corr"] = 0.2, 0.1, 0.0
    collection = next(
        found
        for found in draw_all(tables, "t", toy=False)["frontier"].axes[0].collections
        if isinstance(found, EllipseCollection)
    )
    assert collection.get_widths() == pytest.approx([2 * 0.2] * 30)
    assert collection.get_heights() == pytest.approx([2 * 0.1] * 30)
    assert collection.get_angles() % 180 == pytest.approx([0] * 30)


def test_a_fit_far_off_does_not_hide_the_others() -> None:
    tables = make_tables(("match",))
    fits = tables["frontier_fits"]
    fits.loc[fits["point_set"] == "only_Phi-4", ["r2_low", "slope_low", "slope_high"]] = [-40.0, -90.0, 50.0]
    figure = draw_all({"frontier_fits": fits}, "t", toy=False)["fits"]
    assert all(axes.get_xlim()[0] > -4 for axes in figure.axes)
    arrows = [line.get_marker() for axes in figure.axes for line in axes.lines if line.get_marker() in ("<", ">")]
    assert sorted(arrows) == ["<", "<", "<", "<", ">", ">"]  # by two judges
    assert "goes on" in {text for text, _ in written(figure)}


def test_no_bar_lies_on_another_and_trained_models_come_first() -> None:
    audits = make_tables(("match",))["audits"]
    audits = audits[(audits["model"] != "Llama3.1-8B") | audits["recipe"].isna()]
    axes = draw_all({"audits": audits}, "t", toy=False)["audits"].axes[0]
    places = sorted(bar.get_y() for bar in axes.patches)
    assert len(places) == 6 + 6 + 1
    assert min(np.diff(places)) >= 0.8
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == [
        "Phi-4  source", "S", "H", "S&H", "S→H", "H→S", "Qwen2.5-7B  source", "S", "H", "S&H", "S→H", "H→S",
        "Llama3.1-8B  source",
    ]  # fmt: skip


def test_without_optional_columns_and_tables_the_same_is_drawn() -> None:
    tables = make_tables(("match",))
    optional = ["helpfulness_delta_se", "safety_delta_se", "delta_corr", "runs", "pareto"]
    optional += ["paper_released_low", "paper_released_high", "alpha", "model", "recipe", "beta", "runaway"]
    lean = {
        name: table.drop(columns=[column for column in optional if column in table and name in LEAN[column]])
        for name, table in tables.items()
        if name not in ("frontier_bands", "source_points")
    }
    drawn = draw_all(lean, "t", toy=False)
    assert set(drawn) == ALL
    assert not any(isinstance(found, EllipseCollection) for found in drawn["frontier"].axes[0].collections)
    assert len(drawn["audits"].axes) == 3


LEAN = {name: {"frontier_points", "recipe_points"} for name in ("runs", "pareto", "delta_corr")}
LEAN |= {name: {"frontier_points", "recipe_points"} for name in ("helpfulness_delta_se", "safety_delta_se")}
LEAN |= {"paper_released_low": {"persistence"}, "paper_released_high": {"persistence"}, "alpha": {"judge_agreement"}}
LEAN |= {name: {"audits", "training_steps"} for name in ("model", "recipe", "beta", "runaway")}


def test_what_is_empty_or_missing_is_skipped() -> None:
    tables = make_tables(("match",))
    assert draw_all({}, "t", toy=False) == {}
    assert draw_all({name: table.iloc[:0] for name, table in tables.items()}, "t", toy=False) == {}
    some = {name: tables[name] for name in ("audits", "persistence")}
    assert set(draw_all(some, "t", toy=False)) == {"audits", "persistence", "persistence_paper"}


def test_stages_with_other_betas_have_points_of_their_own() -> None:
    tables = make_tables(("match",))
    for name in ("frontier_points", "recipe_points", "persistence"):
        tables[name]["beta"] = tables[name]["beta"].replace(0.1, np.nan)
    drawn = draw_all(tables, "t", toy=False)
    ids = {line.get_gid() for line, _, _ in markers(drawn["frontier"])}
    assert point_id("match", MODELS[0], "safe", None, JUDGES[0]) in ids
    assert beta_name(None) == beta_name(float("nan")) == "mixed"
    assert len(ids) == 60


def test_arrows_go_from_each_parent_to_its_children() -> None:
    points = make_tables(("match",))["recipe_points"]
    figure = intermediates_figure(points, "help", "t", toy=False)
    freeze(figure)
    arrows = [
        patch
        for patch in figure.axes[0].patches
        if isinstance(patch, FancyArrowPatch) and patch.get_mutation_scale() == 7
    ]
    shown = points[points["judge"].isna()].set_index(["recipe", "beta"])

    def place(recipe: str | None, beta: float | None) -> tuple[float, float]:
        row = shown[shown.index.get_level_values(0).isna()] if recipe is None else shown.loc[[(recipe, beta)]]
        return float(row["helpfulness"].iloc[0]), float(row["safety"].iloc[0])

    expected = {
        (place(parent, beta), place(child, beta))
        for parent, child in ((None, "help"), (None, "safe"), ("safe", "safe_then_help"))
        for beta in BETAS
    }
    assert {tuple(arrow._posA_posB) for arrow in arrows} == expected  # type: ignore[attr-defined]
    styles = {tuple(arrow._posA_posB): arrow.get_linestyle() for arrow in arrows}  # type: ignore[attr-defined]
    assert styles[place(None, None), place("help", 0.1)] == "solid"
    assert styles[place(None, None), place("safe", 0.1)] != "solid"
    assert styles[place("safe", 0.1), place("safe_then_help", 0.1)] == "solid"


def test_a_third_stage_has_an_arrow_from_the_second_and_mixtures_none() -> None:
    points = make_tables(("match",))["recipe_points"]
    third = points[points["recipe"] == "help_then_safe"].assign(recipe="safe_then_help_then_safe")
    mixed = points[points["recipe"] == "both"].assign(recipe="0.5_safe_and_0.5_help")
    figure = intermediates_figure(pd.concat([points, third, mixed]), "safe", "t", toy=False)
    texts = " ".join(text.get_text() for text in figure.axes[0].texts)
    assert "S→H→S 0.1" in texts
    assert "0.5 S" not in texts
    arrows = [patch for patch in figure.axes[0].patches if isinstance(patch, FancyArrowPatch)]
    assert len([arrow for arrow in arrows if arrow.get_mutation_scale() == 7]) == 5 * len(BETAS)


def test_no_arrow_runs_over_a_point_that_it_does_not_join() -> None:
    for metric in ("help", "safe"):
        figure = intermediates_figure(make_tables(("match",))["recipe_points"], metric, "t", toy=False)  # type: ignore[arg-type]
        figure.draw_without_rendering()
        places = [(x, y) for _, x, y in markers(figure)]
        for patch in figure.axes[0].patches:
            if isinstance(patch, FancyArrowPatch) and patch.get_mutation_scale() == 7:
                path = patch.get_transform().transform_path(patch.get_path()).interpolated(20).vertices
                ends = figure.axes[0].transData.transform(patch._posA_posB)  # type: ignore[attr-defined]
                for x, y in places:
                    if np.hypot(*(ends - (x, y)).T).min() > 15:  # not next to where the arrow must go
                        assert np.hypot(path[:, 0] - x, path[:, 1] - y).min() > 3 / 72 * figure.dpi


def test_the_start_is_the_mean_of_the_first_steps_of_the_last_stage() -> None:
    from dagster_project.report.figures import training_starts
    from dagster_project.report.values import START_STEPS

    where = {"model": "m", "recipe": "safe_then_help", "beta": float("nan")}
    rows = [
        {"agent": "a", "seed": 0, "stage": stage, "step": step, "loss": loss, "reward_accuracy": loss / 2, **where}
        for stage, step, loss in [(1, 1, 9.0), (2, 1, 0.7), (2, START_STEPS, 0.5), (2, START_STEPS + 1, 0.1)]
    ]
    (start,) = training_starts(pd.DataFrame(rows), pd.DataFrame()).to_dict("records")
    assert (start["stage"], start["loss"], start["reward_accuracy"]) == (2, pytest.approx(0.6), pytest.approx(0.3))
    tables = make_tables(("match",))
    starts = training_starts(tables["training_steps"], tables["agents"])
    assert len(starts) == 180
    assert starts["recipe"].notna().all()


def test_equal_tables_make_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        for stem, figure in draw_all(make_tables(("match",)), "t", toy=False).items():
            save(figure, tmp_path / name, stem)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(f"{stem}.{kind}" for stem in ALL for kind in FORMATS)
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
