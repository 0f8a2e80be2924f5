"""The form of a model's settings in a browser, with scripts and without."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Watch
from tests.live.process import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.live]


def use(page: Page, server: LiveServer) -> None:
    page.goto(f"{server.url}/models/settings?model_id=calm")
    page.get_by_label("Temperature").fill("9")
    page.get_by_label("Idle limit").fill("never")
    page.get_by_role("button", name="Save settings").click()
    expect(page.get_by_label("Temperature")).to_have_attribute("aria-invalid", "true")
    expect(page.get_by_text("Temperature must be from 0 to 2.")).to_be_visible()
    expect(page.get_by_label("Idle limit")).to_have_value("never")
    page.get_by_label("Temperature").fill("0.5")
    page.get_by_role("button", name="Save settings").click()
    expect(page.get_by_text("Saved, and in force.")).to_be_visible()
    expect(page.get_by_label("Temperature")).to_have_value("0.5")
    page.get_by_label("Temperature").fill("")
    page.get_by_role("button", name="Save settings").click()
    expect(page.get_by_text("Saved, and in force.")).to_be_visible()
    expect(page.get_by_label("Temperature")).to_have_value("")


def test_with_scripts(page: Page, server: LiveServer) -> None:
    use(page, server)
    assert page.url.endswith("?model_id=calm")
    # What was just said is seen, not hidden by the strip above.
    strip, said = page.locator("#strip").bounding_box(), page.get_by_text("Saved, and in force.").bounding_box()
    assert strip is not None
    assert said is not None
    assert said["y"] >= strip["y"] + strip["height"]


def test_without_scripts(browser: Browser, server: LiveServer) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    watch = Watch(page, server.url)
    try:
        use(page, server)
        assert page.url.endswith("&saved=1")
    finally:
        context.close()
    assert [one for one in watch.complaints if "400" not in one] == []
