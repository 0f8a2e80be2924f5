"""A page whose server goes away says so, keeps the last values dimmed, and catches up by itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, expect

from tests.live.process import LiveServer, fake_model

pytestmark = [pytest.mark.browser, pytest.mark.live]


def test_it_comes_back(context: BrowserContext, tmp_path: Path, free_port: int) -> None:
    fake_model(tmp_path, "calm", tokens=20, context=4096)
    server = LiveServer(tmp_path, {"LMX_SERVER__PORT": str(free_port)})
    server.start()
    page = context.new_page()
    page.goto(server.url)
    link, body = page.locator("#link"), page.locator("body")
    expect(link).to_have_attribute("data-link", "live")
    page.get_by_role("button", name="Load into memory: calm", exact=True).click()
    expect(page.locator("#events")).to_contain_text("loaded calm")
    assert server.stop() == 0
    expect(link).to_have_text(re.compile(r"^lost, \d+ s old$"))
    expect(body).to_have_attribute("data-stale", "")
    server.close()

    later = LiveServer(tmp_path, {"LMX_SERVER__PORT": str(free_port)})
    later.start()
    expect(link).to_have_attribute("data-link", "live")
    expect(body).not_to_have_attribute("data-stale", "")
    expect(page.get_by_role("button", name="Load into memory: calm", exact=True)).to_be_visible()
    last = page.locator("#chart").get_attribute("data-last") or ""
    expect(page.locator("#chart")).not_to_have_attribute("data-last", last)
    assert later.stop() == 0
    later.close()
