"""A real Chromium on the real server with fake models in real worker processes."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from tests.live.process import LiveServer, fake_model
from tests.material import encoder_model, place

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
MIB = 1024**2
PATIENCE_MS = 30_000
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Not for the whole session: while it is open its event loop runs in this thread, and async tests could not."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium on the path; CHROMIUM may name one")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Two models that hold 100 MiB each, one with one slot and a prefix cache, one whose load waits for ``gate``, and
    one that makes vectors.
    """
    home = tmp_path_factory.mktemp("home")
    for name in ("calm", "bright"):
        fake_model(home, name, eat_bytes=100 * MIB, tokens=200, context=4096)
    fake_model(home, "narrow", slots=1, prefix_bytes=5 * MIB, prefix_found=83)
    fake_model(home, "held", load_steps=3, load_gate=str(home / "gate"))
    vectors = place(encoder_model(), home / "models" / "vectors")
    (vectors / "fake.json").write_text(json.dumps({"embedding_dimensions": 8}))
    server = LiveServer(home, {"LMX_MEMORY__RESERVE_MB": "0"})
    server.start()
    yield server
    assert server.stop() == 0
    server.close()


class Watch:
    """What a page must not do: complain in the console, fail, or ask another host for anything."""

    def __init__(self, page: Page, base: str) -> None:
        self.complaints: list[str] = []
        self._base = base
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self._base, "data:", "blob:")):
            self.complaints.append(f"request to {request.url}")


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE_MS)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, server: LiveServer) -> Iterator[Page]:
    """The first page, live. Fails the test for whatever ``Watch`` saw."""
    page = context.new_page()
    watch = Watch(page, server.url)
    page.goto(server.url)
    expect(page.locator("#link")).to_have_attribute("data-link", "live")
    yield page
    assert watch.complaints == []


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file whose making lets a held answer go on."""
    return tmp_path / "gate"
