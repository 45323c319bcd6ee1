"""The ten tasks of docs/report.md, each done as a new reader would: by clicking what it names, and no more often."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from benchmarks.browser import CHROMIUM, browser_page

from .world import make_world

if TYPE_CHECKING:
    from playwright.sync_api import Download, Locator, Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]
ROOT = Path(__file__).parents[3]
TASKS = {
    task: int(steps)
    for task, steps in re.findall(
        r"^\| ([^|]+) \| [^|]+ \| (\d+) \|$", (ROOT / "docs" / "report.md").read_text("utf-8"), re.MULTILINE
    )
}
"""Each task of the table in docs/report.md, and the steps that it says."""


class Reader:
    """Somebody at the top of the page, whose clicks and choices are counted."""

    def __init__(self, page: Page) -> None:
        self.page, self.steps = page, 0

    def click(self, what: Locator) -> None:
        self.steps += 1
        what.click()

    def choose(self, what: Locator, value: str) -> None:
        self.steps += 1
        what.select_option(value)

    def save(self, what: Locator) -> Download:
        with self.page.expect_download() as asked:
            self.click(what)
        return asked.value


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_world(tmp_path_factory.mktemp("world")).page.as_uri()


@pytest.fixture
def reader(address: str) -> Iterator[Reader]:
    with browser_page() as page:
        page.set_default_timeout(15_000)
        page.goto(address)
        page.locator("html[data-ready=yes]").wait_for(state="attached")
        yield Reader(page)


def test_the_list_has_ten_tasks() -> None:
    assert len(TASKS) == 10


def test_transcript_behind_a_point(reader: Reader) -> None:
    page = reader.page
    reader.click(page.locator("#chart-frontier .mark-symbol.role-mark path").first)
    reader.click(page.locator("#panel table").nth(1).locator("tbody tr a").nth(1))
    reader.click(page.locator("#panel tbody tr:visible").first.locator("a").first)
    page.locator(".step").first.wait_for()
    assert reader.steps == TASKS["read a transcript behind a point"]


def test_where_safety_did_not_persist_with_a_transcript(reader: Reader) -> None:
    page = reader.page
    reader.click(page.locator("#chart-persistence .mark-symbol.role-mark path").first)
    reader.click(page.locator("#panel .examples a", has_text="after").first)
    page.locator(".step").first.wait_for()
    assert reader.steps == TASKS["find where safety did not persist for one model and β, with a transcript"]


def test_s_against_s_then_h_by_case(reader: Reader) -> None:
    page = reader.page
    reader.click(page.locator("#cases a", has_text="S against S→H").first)
    page.locator("#panel caption", has_text="A case's mean").wait_for()
    assert page.locator("#panel table").nth(1).locator("tbody tr").count() >= 4
    assert reader.steps == TASKS["see S against S→H by case"]


def test_a_figures_numbers(reader: Reader) -> None:
    saved = reader.save(reader.page.locator("#chart-frontier .csv"))
    rows = list(csv.DictReader(io.StringIO(saved.path().read_text(encoding="utf-8-sig"))))
    assert rows and all(float(row["safety_delta"]) is not None for row in rows)
    assert reader.steps == TASKS["save a figure's numbers"]


def test_cite(reader: Reader) -> None:
    page = reader.page
    reader.click(page.get_by_role("link", name="Cite this"))
    assert page.locator("#cite").is_visible() and "commit" in page.locator("#cite").inner_text()
    assert reader.steps == TASKS["cite the report"]


def test_which_claims_depend_on_the_judge(reader: Reader) -> None:
    page = reader.page
    reader.click(page.get_by_role("link", name="Claims"))
    for claim in page.locator("details.claim").all():
        assert claim.locator("summary .verdict").first.is_visible()
    assert page.locator("#claim-safety_persists summary .robust > span").count() == 2
    assert reader.steps == TASKS["see which claims depend on the judge"]


def test_numbers_behind_a_claim_by_judge(reader: Reader) -> None:
    claim = reader.page.locator("#claim-safety_persists")
    reader.click(claim.locator("summary"))
    heads = claim.locator("thead th").all_inner_texts()
    assert sum("[95%]" in head for head in heads) == 2
    assert claim.locator("tbody tr").first.is_visible()
    assert reader.steps == TASKS["see the numbers behind a claim, by judge"]


def test_a_source_models_own_scores(reader: Reader) -> None:
    page = reader.page
    reader.click(page.locator("#chart-frontier .mark-symbol.role-mark path").first)
    page.locator("#panel table").first.wait_for()
    assert page.locator("#panel table").first.locator("thead th").nth(2).inner_text() == "source model [95%]"
    assert re.match(r"\d\.\d\d", page.locator("#panel table").first.locator("tbody td").nth(1).inner_text())
    assert reader.steps == TASKS["see a source model's own scores"]


def test_one_judges_frontier(reader: Reader) -> None:
    from playwright.sync_api import expect

    page = reader.page
    marks = page.locator("#chart-frontier .mark-symbol.role-mark path")
    before = marks.count()
    way = page.locator("select[name=scoring] option").nth(1).get_attribute("value")
    reader.choose(page.locator("select[name=scoring]"), str(way))
    expect(marks).to_have_count(before // 2)
    assert reader.steps == TASKS["see one judge's frontier alone"]


def test_cost(reader: Reader) -> None:
    page = reader.page
    reader.click(page.locator("#more > summary"))
    page.locator("#cost table").first.wait_for()
    assert page.locator("#cost table").first.is_visible()
    assert reader.steps == TASKS["see what the artifacts cost to make"]
