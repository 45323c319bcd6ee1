"""Dagster's UI in a real browser: make a partition, a whole seed, see its figure, follow a point to its run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from benchmarks.browser import CHROMIUM, browser_page, screenshot
from benchmarks.daemon import LOCATION, Daemon, Place, free_port, user_interface, wait_for, webserver
from dagster_project.artifacts import ArtifactStore, Ref
from tests.conftest import Lab, make_lab

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: apt-get install chromium"),
]


class Served(NamedTuple):
    """A lab whose UI is being served, and where."""

    lab: Lab
    url: str


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    lab = make_lab(tmp_path / "lab")
    with user_interface(Place(lab.directory, lab.environment), "small.yaml", free_port()) as (url, _):
        yield Served(lab, url)


@pytest.fixture
def page() -> Iterator[Page]:
    with browser_page(width=1600, height=1000) as page:
        page.add_init_script("localStorage.setItem('communityNux', '1')")
        page.set_default_timeout(60_000)
        yield page


def launch(page: Page, url: str, asset: str, keys: dict[str, str | None]) -> None:
    """Launches partitions of an asset as a user does; a key of None takes all of its dimension."""
    page.goto(f"{url}/assets/small/{asset}?view=partitions")
    page.get_by_role("button", name="Materialize…").click()
    dialog = page.get_by_role("dialog").first
    dialog.get_by_text("Partition selection").wait_for()
    for position, key in reversed(list(enumerate(keys.values()))):
        if key is None:
            dialog.get_by_role("button", name="All", exact=True).nth(position).click()
        else:
            dialog.get_by_text("Select a partition or create one").nth(position).click()
            page.get_by_role("menuitem").filter(has=page.get_by_text(key, exact=True)).first.click()
            dialog.get_by_text("Launch runs to materialize").click()  # closes the list
    screenshot(page, f"launch_{asset}")
    dialog.get_by_role("button", name="Launch").last.click()


def made(lab: Lab, asset: str) -> set[str]:
    folder = lab.directory / "data" / "small" / asset
    return {path.parent.relative_to(folder).as_posix() for path in folder.rglob("manifest.json")}


def test_a_partition_and_a_seed_are_made_from_the_page(served: Served, page: Page) -> None:
    lab, url = served
    page.goto(f"{url}/asset-groups")
    page.get_by_text("collect", exact=True).first.wait_for()
    page.keyboard.press("Alt+E")
    page.get_by_text("source_models").first.wait_for()
    screenshot(page, "graph")

    launch(page, url, "agent_specs", {"agent": "eager:safe:strict:0.1", "seed": "0"})
    wait_for(lambda: len(made(lab, "agent_specs")) == 1, 120, "the partition")
    assert made(lab, "agent_specs") == {"agent=eager:safe:strict:0.1/seed=0"}

    launch(page, url, "agent_specs", {"agent": None, "seed": "1"})
    wait_for(lambda: len(made(lab, "agent_specs")) == 4, 240, "the seed's backfill")
    assert {place.split("/")[1] for place in made(lab, "agent_specs") if not place.startswith("agent=eager:safe:")} == {
        "seed=1"
    }
    page.goto(f"{url}/assets/small/agent_specs?view=partitions")
    page.get_by_text("eager:help:strict:0.1").first.wait_for()
    screenshot(page, "partitions")


def test_a_seed_is_launched_watched_and_followed_to_its_runs(tmp_path: Path, page: Page) -> None:
    grid = {"models": ["eager"], "recipes": ["safe"], "pairs_judges": ["strict"], "seeds": [0]}
    lab = make_lab(tmp_path / "lab", grid=grid)
    port = free_port()
    own = {"FRONTIER_EXPERIMENT": "small.yaml", "FRONTIER_UI": f"http://127.0.0.1:{port}"}
    place = Place(lab.directory, {**lab.environment, **own})
    place.prepare(LOCATION.format(module="dagster_project.definitions", name="small"))
    with webserver(place, port) as url, Daemon(place):
        page.goto(f"{url}/locations/small/jobs/seeds/playground")
        page.get_by_role("button", name="Launch Run").click()
        page.get_by_text("RUN_SUCCESS").first.wait_for(timeout=120_000)
        page.goto(f"{url}/runs")
        page.get_by_role("link", name="seed_0_").first.click(timeout=120_000)
        page.get_by_text("100% completed").first.wait_for(timeout=600_000)
        screenshot(page, "backfill")
        ended = page.locator("div", has_text=re.compile(r"^Status\s*Succeeded$"))
        ended.first.wait_for(timeout=600_000)

        page.goto(f"{url}/assets/small/figures")
        page.get_by_text("[Show Markdown]").first.click()
        image = page.get_by_role("dialog").locator("img").first
        image.wait_for()
        assert image.evaluate("image => image.naturalWidth") > 300
        screenshot(page, "figure")

        store = ArtifactStore(lab.directory / "data", "small")
        page.goto((store.get(Ref("figures")).path / "frontier.svg").as_uri())
        point = page.locator("a[href*='/runs/']").first
        run_id = str(point.get_attribute("href")).rpartition("/")[2]
        assert run_id in {manifest.run_id for manifest in store.manifests() if manifest.asset.startswith("agent_")}
        with page.context.expect_page() as opened:
            point.click(force=True)
        run = opened.value
        run.get_by_text(run_id[:8]).first.wait_for()
        run.get_by_text("agent_evaluations").first.wait_for()
        screenshot(run, "run_of_a_point")
