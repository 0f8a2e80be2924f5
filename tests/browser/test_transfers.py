"""The page Transfers in a real browser: a model is downloaded, paused, resumed, cancelled and tried again there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from tests.browser.conftest import Watch
from tests.browser.test_looks import NAMELESS, REPEATED, TOO_WIDE
from tests.live.process import LiveServer, fake_model
from tests.material.hub import BIG, MIB, REPO, Hub, HubRepo, nano_files

pytestmark = [pytest.mark.browser, pytest.mark.live]
OTHER = "acme/other-4bit"


@pytest.fixture
def served(hub: Hub, tmp_path: Path) -> Iterator[LiveServer]:
    """One download at a time, which stands in the middle of its big file until ``hub.release()``."""
    hub.repos[OTHER] = HubRepo(nano_files(), commit="7" * 40)
    hub.hold(BIG, 2 * MIB)
    fake_model(tmp_path / "home")
    server = LiveServer(tmp_path / "home", {"LMX_MODELS__MAX_DOWNLOADS": "1"})
    yield server.start()
    assert server.stop() == 0
    server.close()


@pytest.fixture
def shown(context: BrowserContext, served: LiveServer) -> Iterator[Page]:
    """The page, live."""
    page = context.new_page()
    watch = Watch(page, served.url)
    page.goto(f"{served.url}/transfers")
    expect(page.locator("#link")).to_have_attribute("data-link", "live")
    yield page
    assert watch.complaints == []


def job(page: Page, number: int) -> Locator:
    return page.locator(f'.transfer[data-job="{number}"]')


def ask(page: Page, name: str) -> None:
    page.get_by_label("Download a model").fill(name)
    page.get_by_role("button", name="Download", exact=True).click()


def press(page: Page, verb: str, name: str) -> None:
    page.get_by_role("button", name=f"{verb}: {name}", exact=True).click()


def test_a_model_comes_and_everything_can_be_done_to_it(shown: Page, served: LiveServer, hub: Hub) -> None:
    expect(shown.get_by_text("Nothing is being downloaded")).to_be_visible()
    expect(shown.get_by_role("link", name="Discover models")).to_be_visible()
    ask(shown, f"{hub.url}/{REPO}")
    expect(job(shown, 1)).to_have_attribute("data-state", "running")
    expect(shown.get_by_label("Download a model")).to_have_value("")
    expect(job(shown, 1)).to_contain_text(re.compile(r"[12] MB of 4 MB"))
    job(shown, 1).get_by_text("Files").click()
    line = job(shown, 1).locator(f'[data-file="{BIG}"]')
    expect(line).to_contain_text("2 MB of 4 MB")
    ask(shown, OTHER)
    expect(job(shown, 2)).to_contain_text("it is the next")
    expect(line, "an open list stays open when the page is drawn again").to_be_visible()
    ask(shown, "no name")
    expect(shown.get_by_role("alert")).to_contain_text("write org/name")
    expect(shown.get_by_label("Download a model")).to_have_value("no name")

    press(shown, "Pause", REPO)
    expect(job(shown, 1)).to_have_attribute("data-state", "paused")
    expect(job(shown, 2)).to_have_attribute("data-state", "running")
    press(shown, "Resume", REPO)
    expect(job(shown, 1)).to_have_attribute("data-state", "queued")
    expect(job(shown, 2)).to_contain_text("2 MB of 4 MB")
    press(shown, "Cancel", OTHER)
    expect(job(shown, 2)).to_have_attribute("data-state", "cancelled")
    expect(job(shown, 2)).to_contain_text("stays on the disk until it is deleted")
    press(shown, "Try again", OTHER)
    expect(job(shown, 2)).to_have_attribute("data-state", "queued")
    hub.release()
    for number in (1, 2):  # without a reload: the page hears of it
        expect(job(shown, number)).to_have_attribute("data-state", "done")
    expect(shown.get_by_role("heading", name="Under way")).to_have_count(0)
    shown.reload()
    expect(job(shown, 1).locator(".path")).to_contain_text(f"models/{REPO}")


def test_it_is_found_by_the_palette_and_the_first_page_shows_what_runs(
    shown: Page, served: LiveServer, hub: Hub
) -> None:
    ask(shown, REPO)
    ask(shown, OTHER)
    expect(job(shown, 2)).to_have_attribute("data-state", "queued")
    shown.goto(served.url)
    expect(shown.locator("[data-job]")).to_have_count(1)
    expect(shown.locator('[data-job="1"]')).to_contain_text("downloading")
    shown.keyboard.press("Control+k")
    shown.locator("#palette-input").fill("transfers")
    shown.keyboard.press("Enter")
    expect(shown).to_have_url(f"{served.url}/transfers")


def test_without_scripts(browser: Browser, served: LiveServer, hub: Hub) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{served.url}/transfers")
    ask(page, REPO)
    expect(job(page, 1)).to_have_attribute("data-state", "running")
    press(page, "Pause", REPO)
    expect(job(page, 1)).to_have_attribute("data-state", "paused")
    ask(page, "../etc")
    expect(page.get_by_role("alert")).to_contain_text("org/name")
    expect(page.get_by_label("Download a model")).to_have_value("../etc")
    page.goto(f"{served.url}/transfers")
    press(page, "Cancel", REPO)
    expect(job(page, 1)).to_have_attribute("data-state", "cancelled")
    context.close()


def test_it_fits_and_everything_has_a_name(shown: Page, hub: Hub) -> None:
    hub.repos["acme/" + "very-long-name-" * 6 + "4bit"] = HubRepo(nano_files(), commit="8" * 40)
    assert shown.evaluate(TOO_WIDE) == []
    for name in [REPO, *(name for name in hub.repos if name != REPO)]:
        ask(shown, name)
        expect(shown.get_by_label("Download a model")).to_have_value("")
    expect(shown.locator('[data-state="queued"].transfer')).to_have_count(2)
    press(shown, "Pause", OTHER)
    expect(job(shown, 2)).to_have_attribute("data-state", "paused")
    job(shown, 1).get_by_text("Files").click()
    expect(job(shown, 1).locator(f'[data-file="{BIG}"]')).to_be_visible()
    for width in (390, 768, 1280):
        shown.set_viewport_size({"width": width, "height": 844})
        assert shown.evaluate(TOO_WIDE) == []
        assert shown.evaluate("document.documentElement.scrollWidth") == width
    assert shown.evaluate(NAMELESS) == []
    assert shown.evaluate(REPEATED) == []
    expect(shown.locator("h1")).to_have_count(1)
    expect(shown.locator('nav [aria-current="page"]')).to_have_count(1)
