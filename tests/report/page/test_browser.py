"""The page in a real browser, opened from the disk: by mouse and by keyboard, light and dark, on hostile data."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from benchmarks.browser import CHROMIUM, browser_page, screenshot
from dagster_project.report.transcript_files import FOLDER

from .world import FORMULA, LONG, World, make_world

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def page(world: World) -> Iterator[Page]:
    """The page, loaded and drawn; at the end, nothing went wrong in it and nothing came from elsewhere."""
    with browser_page() as page:
        page.set_default_timeout(15_000)
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        page.on(
            "request",
            lambda asked: problems.append(asked.url) if not asked.url.startswith(("file:", "data:", "blob:")) else None,
        )
        open_page(page, world)
        yield page
        assert page.evaluate("window.hacked") is None
        assert [problem for problem in problems if "FILE_NOT_FOUND" not in problem] == []


def open_page(page: Page, world: World) -> None:
    page.goto(world.page.as_uri())
    page.locator("html[data-ready=yes]").wait_for(state="attached")  # the page forbids `wait_for_function`'s code


def open_first_point(page: Page) -> None:
    page.locator("#points-table > summary").click()
    page.locator("#points tbody a").first.click()


def runs(page: Page) -> Locator:
    """The rows of the runs behind a point; the source model comes first."""
    return page.locator("#panel table").nth(1).locator("tbody tr")


def test_three_clicks_from_a_point_of_the_chart_to_a_transcript(page: Page) -> None:
    page.locator("#chart-frontier .mark-symbol.role-mark path").first.click()
    runs(page).nth(1).locator("a").first.click()
    page.get_by_role("searchbox").wait_for()
    page.locator("#panel tbody tr").first.locator("a").first.click()
    page.locator(".step").first.wait_for()
    screenshot(page, "report_read")
    assert "<img src=x" in page.locator("#panel").inner_text()
    assert page.locator("mark").first.inner_text().startswith("Observation: invented")
    assert "go on" not in page.locator("mark").first.inner_text()
    assert "\\u{1b}[2J" in page.locator("#panel").inner_text().replace("\\U", "\\u")
    assert page.locator("#panel .columns .card").count() == 2  # both judges


def test_three_clicks_to_one_case_across_agents_and_back(page: Page) -> None:
    open_first_point(page)
    runs(page).nth(1).locator("a").first.click()
    page.get_by_text("compare", exact=True).first.click()
    page.locator("#panel > .columns > .card").nth(4).wait_for()
    assert page.locator("#panel > .columns > .card").count() == 5  # the source model and four trainings
    screenshot(page, "report_compare")
    for _ in range(3):
        page.go_back()
    assert page.locator("#report").is_visible() and page.locator("#panel").is_hidden()


@pytest.mark.parametrize(
    "address",
    [
        "#/constructor/x",
        "#/toString",
        "#/__proto__/x",
        "#/hasOwnProperty/point",
        "#/",
        "#/nowhere",
        "#/run/constructor",
        "#/point/__proto__",
        "#/compare/x/<img src=x onerror=window.hacked=1>",
        "#/%",
        "#/run/%E0%A4%A",
    ],
)
def test_an_address_that_the_page_has_not_is_answered_in_words(page: Page, address: str) -> None:
    page.evaluate("address => { location.hash = address; }", address)
    page.locator("#panel h2").wait_for()
    assert page.locator("#panel h2").inner_text() in ("Not in this report", "Cannot be shown")
    assert page.locator("#panel a").first.is_visible(), "a way back"


def test_what_changed_against_the_source_model(page: Page) -> None:
    open_first_point(page)
    runs(page).nth(1).locator("a").first.click()
    page.get_by_label("what changed, against").select_option(index=1)
    page.locator("#panel caption").wait_for()
    assert "2 improved, 0 worse, 0 within a point; mean +2.00" in page.locator("#panel ul").inner_text()
    changes = page.locator("#panel tbody td.number").all_inner_texts()
    assert changes == ["1.00 → 3.00"] * 4  # two cases, two judges
    screenshot(page, "report_differences")


def test_everything_can_be_reached_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.locator("#claim-one_line summary").focus()
    page.keyboard.press("Enter")
    assert page.locator("#claim-one_line table").is_visible()
    page.locator("#points-table > summary").focus()
    page.keyboard.press("Enter")
    page.locator("#points tbody a").first.focus()
    page.keyboard.press("Enter")
    page.locator("#panel h2").wait_for()
    assert page.evaluate("document.activeElement.id") == "panel"
    runs(page).first.locator("a").focus()
    page.keyboard.press("Enter")
    page.get_by_role("searchbox").wait_for()
    page.get_by_role("searchbox").focus()
    page.keyboard.type("no such words")
    page.get_by_role("status").get_by_text("0 of ").wait_for()
    assert page.locator("#panel tbody").first.locator("tr:visible").count() == 0


def test_filters_change_chart_and_table_together(page: Page) -> None:
    from playwright.sync_api import expect

    marks = "#chart-frontier .mark-symbol.role-mark path"
    assert (page.locator(marks).count(), page.locator("#points tbody tr").count()) == (8, 8)  # both judges
    page.locator("#points-table > summary").click()
    page.locator("select[name=scoring]").select_option(index=1)
    expect(page.locator(marks)).to_have_count(4)
    page.locator("select[name=recipe]").select_option("S")
    expect(page.locator(marks)).to_have_count(1)
    assert page.locator("#points tbody tr").count() == 1
    page.locator("select[name=seed]").select_option("1")
    expect(page.locator("#points tbody td").nth(2)).to_have_text("1")
    assert page.locator(marks).count() == 1
    page.locator("select[name=scoring]").select_option("each")
    page.locator("select[name=recipe]").select_option("all")
    expect(page.locator(marks)).to_have_count(8)


def test_a_text_of_ten_megabytes_is_cut_until_asked_for(page: Page) -> None:
    open_first_point(page)
    page.get_by_role("link", name="untrained").click()
    page.locator("#panel tbody tr").nth(3).locator("a").first.click()
    more = page.get_by_role("button", name=f"show all {LONG:,} characters")
    more.wait_for()
    assert len(page.locator("#panel").inner_text()) < 100_000


def test_without_the_folder_beside_it_the_page_says_what_to_do(page: Page, world: World) -> None:
    hidden = world.page.parent / "elsewhere"
    (world.page.parent / FOLDER).rename(hidden)
    try:
        open_first_point(page)
        runs(page).nth(1).locator("a").click()
        page.get_by_role("alert").wait_for()
        assert "frontier transcript" in page.get_by_role("alert").inner_text()
    finally:
        hidden.rename(world.page.parent / FOLDER)


def test_two_steps_from_a_mark_of_persistence_to_an_example_transcript(page: Page) -> None:
    page.locator("#chart-persistence .mark-symbol.role-mark path").first.click()
    page.locator("#panel .examples a").nth(1).click()
    page.locator(".step").first.wait_for()
    assert page.locator("#panel h3").first.inner_text() == "Verdicts"


def test_one_step_to_all_cases_of_s_against_s_then_h_over_seeds_and_judges(page: Page) -> None:
    page.locator("#cases a", has_text="S against S→H").first.click()
    page.locator("#panel caption").nth(1).wait_for()
    means = page.locator("#panel table").first.locator("tbody tr")
    shown = [row for row in means.all_inner_texts() if not row.startswith("average of judges")]
    safety = [row for row in shown if "\tsafety\t" in row]
    for row in safety:  # one a judge
        assert row.split("\t")[2:] == ["3.00", "2.00", "−1.00 [−1.00, −1.00]", "1", "4"]
    assert len(safety) == 2
    cases = page.locator("#panel table").nth(1).locator("tbody tr")
    assert cases.count() == 4
    assert cases.first.inner_text().split("\t")[2:] == ["3.00 → 2.00", "−1.00", "−1.00 … −1.00", "2"]  # two judges
    page.locator("#panel .tools label", has_text="metric").locator("select").select_option("help")
    page.locator("#panel h3", has_text="helpfulness").wait_for()
    assert cases.first.inner_text().split("\t")[3] == "+1.00"
    screenshot(page, "report_changed")


def test_a_claim_shows_every_judges_verdict_and_leads_to_its_cases(page: Page) -> None:
    claim = page.locator("#claim-safety_persists")
    shown = claim.locator("summary .robust > span")
    assert [text.split(": ")[-1].strip() for text in shown.all_inner_texts()] == ["too little data"] * 2
    assert "on agents trained on its own verdicts" in shown.nth(0).inner_text()
    assert "on agents trained on another judge's verdicts" in shown.nth(1).inner_text()
    claim.locator("summary").click()
    claim.get_by_role("link", name="Agents, cases and example transcripts behind it").click()
    page.locator("#panel .examples").wait_for()


def test_a_charts_numbers_are_numbers_and_no_text_is_a_formula(page: Page) -> None:
    with page.expect_download() as asked:
        page.locator("#chart-frontier .csv").click()
    rows = list(csv.DictReader(io.StringIO(asked.value.path().read_text(encoding="utf-8-sig"))))
    assert len(rows) == 8
    assert {float(row["safety_delta"]) for row in rows if row["recipe"] == "S"} == {2.0}
    page.locator("#cases a", has_text="S against S→H").first.click()
    with page.expect_download() as asked:
        page.locator("#panel .csv").nth(1).click()
    rows = list(csv.DictReader(io.StringIO(asked.value.path().read_text(encoding="utf-8-sig"))))
    assert {row["case"]: row["instruction"] for row in rows}["0"] == f"'{FORMULA}"
    assert [float(row["change"]) for row in rows] == [-1.0] * 4


def test_training_cases_are_hidden_and_marked(page: Page, world: World) -> None:
    text = world.page.read_text(encoding="utf-8")
    (first, *others) = json.loads(re.search(r'"tested":({.*?})', text)[1])["0"]  # type: ignore[index]
    other = world.page.with_name("marked.html")
    other.write_text(text.replace(f'"tested":{{"0":[{first},', '"tested":{"0":['), encoding="utf-8")
    page.goto(other.as_uri())
    page.locator("html[data-ready=yes]").wait_for(state="attached")
    open_first_point(page)
    runs(page).nth(1).locator("a").first.click()
    page.get_by_role("searchbox").wait_for()
    table = page.locator("#panel tbody").first.locator("tr:visible")
    assert table.count() == len(others)
    page.get_by_label("show 1 transcripts of cases that were not held out").check()
    assert table.count() == len(others) + 1
    assert page.locator("#panel tbody .badge", has_text="training case").count() == 1


def test_the_citation_names_version_commit_and_data(page: Page) -> None:
    text = page.locator("#cite").inner_text()
    assert re.search(r"Version \d+\.\d+\.\d+, commit [0-9a-f]{40}", text)
    assert re.search(r"SHA-256 [0-9a-f]{64}", text)


def test_what_few_need_is_on_a_second_level(page: Page) -> None:
    assert page.locator("#cost").is_hidden()
    page.goto(f"{page.url.split('#')[0]}#cost")
    page.locator("#cost").wait_for()
    assert page.locator("#cost").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_from_what_is_behind_them(page: Page, world: World, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    open_page(page, world)
    screenshot(page, f"report_{scheme}")
    for selector in ("body", ".verdict", "a", ".toy", "caption", "thead th"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, selector


CONTRAST = """selector => {
    const numbers = text => (text.match(/[\\d.]+/g) || []).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    let worst = 99;
    for (const element of document.querySelectorAll(selector)) {
        let behind = element;
        const clear = place => (numbers(getComputedStyle(place).backgroundColor)[3] ?? 1) === 0;
        while (behind && clear(behind)) behind = behind.parentElement;
        const pair = [getComputedStyle(element).color, getComputedStyle(behind || document.body).backgroundColor]
            .map(text => light(numbers(text))).sort((a, b) => b - a);
        worst = Math.min(worst, (pair[0] + .05) / (pair[1] + .05));
    }
    return worst;
}"""


def test_on_paper_charts_are_still_and_controls_are_gone(page: Page) -> None:
    page.emulate_media(media="print", color_scheme="dark")
    assert page.locator("#chart-frontier .static").is_visible()
    assert page.locator("#chart-frontier .live").is_hidden()
    assert page.locator("#filters").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"


def test_without_javascript_the_numbers_and_charts_are_there(world: World) -> None:
    with browser_page(scripts=False) as page:
        page.goto(world.page.as_uri())
        assert page.locator("#chart-frontier .static").is_visible()
        assert page.locator("#points tbody tr").count() == 8
