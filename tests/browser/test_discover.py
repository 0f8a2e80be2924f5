"""Discover in a browser: typing searches, verdicts come by themselves, a download shows its progress to its end."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import httpx2
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import Watch
from tests.browser.test_looks import NAMELESS, REPEATED, TOO_WIDE
from tests.live.process import LiveServer, fake_model, until
from tests.material.hub import BIG, MIB, Hub, HubRepo
from tests.models_admin.hub_site import GIB, repo

pytestmark = [pytest.mark.browser, pytest.mark.live]

HOSTILE = """# Card

<script>document.title = "stolen"</script>
<img src="http://evil.example/x.png" onerror="document.title = 'stolen'">

![a picture](http://evil.example/y.png) [a link](javascript:document.title='stolen') [at home](https://ok.example/)
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    repos = {
        "acme/nano-4bit": repo(4, downloads=500),
        "acme/nano-8bit": repo(8, downloads=400),
        "acme/huge-4bit": repo(4, downloads=300, weights=500 * GIB),
        "acme/nano-GGUF": HubRepo({"nano.gguf": b"GGUF"}, about={"tags": ["gguf"], "downloads": 900}),
        "acme/closed-4bit": repo(4, downloads=5, gated="manual"),
    }
    repos["acme/huge-4bit"].claimed["model.safetensors"] = 500 * GIB
    repos["acme/nano-8bit"].files["README.md"] = HOSTILE.encode()
    repos["acme/closed-4bit"].gated = True
    with Hub(repos) as found:
        yield found


@pytest.fixture(scope="module")
def server(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    home = tmp_path_factory.mktemp("home")
    fake_model(home, "calm")
    variables = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home / "hf"), "HF_HUB_DOWNLOAD_TIMEOUT": "60"}
    variables |= {"HF_TOKEN": ""} if "HF_TOKEN" in os.environ else {}
    server = LiveServer(home, variables)
    server.start()
    yield server
    assert server.stop() == 0
    server.close()


def opened(context: BrowserContext, server: LiveServer, path: str = "/discover") -> tuple[Page, Watch]:
    page = context.new_page()
    watch = Watch(page, server.url)
    page.goto(server.url + path)
    expect(page.locator("#link")).to_have_attribute("data-link", "live")
    return page, watch


def rows(page: Page) -> list[str]:
    return [str(row.get_attribute("data-model")) for row in page.locator(".found li").all()]


def test_typing_searches_and_verdicts_come(context: BrowserContext, server: LiveServer, hub: Hub) -> None:
    page, watch = opened(context, server)
    expect(page.locator(".found li")).to_have_count(4)
    page.locator("#q").press_sequentially("nano")
    expect(page.locator(".found li")).to_have_count(2)
    assert rows(page) == ["acme/nano-4bit", "acme/nano-8bit"]
    expect(page.locator('[data-model="acme/nano-4bit"] .chip')).to_have_attribute("data-verdict", "fits")
    assert page.url == f"{server.url}/discover?q=nano"
    page.locator("#format").select_option("any")
    expect(page.locator(".found li")).to_have_count(3)
    expect(page.locator('[data-model="acme/nano-GGUF"] .chip')).to_have_attribute("data-verdict", "unsupported")
    page.locator("#quantization").select_option("8bit")
    expect(page.locator(".found li")).to_have_count(1)
    assert page.url == f"{server.url}/discover?q=nano&format=any&quantization=8bit"
    page.reload()
    assert rows(page) == ["acme/nano-8bit"]
    expect(page.locator("#quantization")).to_have_value("8bit")
    page.locator("#q").fill("nonesuch")
    expect(page.locator("#results")).to_contain_text("No model was found")
    assert watch.complaints == []


def test_letters_typed_fast_are_one_search(context: BrowserContext, server: LiveServer, hub: Hub) -> None:
    page, _ = opened(context, server)
    expect(page.locator(".found li")).to_have_count(4)
    hub.asked.clear()
    page.locator("#q").press_sequentially("huge-4b")
    expect(page.locator(".found li")).to_have_count(1)
    assert [path for _, path, _ in hub.asked].count("api/models") < len("huge-4b")
    expect(page.locator('[data-model="acme/huge-4bit"] .chip')).to_have_attribute("data-verdict", "too_large")


def test_a_download_from_the_first_byte_to_the_last(context: BrowserContext, server: LiveServer, hub: Hub) -> None:
    page, watch = opened(context, server, "/discover?q=nano")
    page.get_by_role("link", name="nano-4bit", exact=True).click()
    expect(page.locator("h1")).to_have_text("nano-4bit")
    expect(page.locator("#card-title")).to_be_visible()
    hub.hold(BIG, MIB)
    page.get_by_role("button", name=re.compile(r"Download nano-4bit \(\d+ MB\)")).click()
    transfer = page.locator("#transfer")
    expect(transfer.locator("progress")).to_have_attribute("value", re.compile(r"[1-9]\d*"))
    page.reload()
    expect(transfer).to_contain_text("nano-4bit downloading 1 of")
    expect(transfer.locator("progress")).to_have_attribute("value", re.compile(r"[1-9]\d*"))
    hub.release()
    expect(transfer).to_contain_text("nano-4bit is on this machine.")
    page.reload()
    expect(page.locator("#model")).to_contain_text("On this machine")
    expect(page.get_by_role("button", name=re.compile("^Download"))).to_have_count(0)
    page.goto(f"{server.url}/discover?q=nano")
    page.locator('[data-model="acme/nano-4bit"]').get_by_role("link", name="on this machine").click()
    expect(page).to_have_url(f"{server.url}/models/one?model_id=acme%2Fnano-4bit")
    page.goto(server.url)
    events = page.locator("#events")
    expect(events).to_contain_text("download of acme/nano-4bit waits for its turn")
    expect(events).to_contain_text("download of acme/nano-4bit is done")
    assert watch.complaints == []


def test_a_download_is_cancelled(context: BrowserContext, server: LiveServer, hub: Hub) -> None:
    page, watch = opened(context, server, "/discover/model/acme/nano-8bit")
    hub.hold(BIG, MIB)
    page.get_by_role("button", name=re.compile("^Download nano-8bit")).click()
    page.get_by_role("button", name="Cancel download").click()
    expect(page.locator("#transfer")).to_contain_text("What was fetched is kept")
    hub.release()
    page.get_by_role("link", name="Look again").click()
    expect(page.locator("#model")).to_contain_text("is here already")
    assert watch.complaints == []


def test_a_hostile_card_does_nothing(context: BrowserContext, server: LiveServer, hub: Hub) -> None:
    page, watch = opened(context, server, "/discover/model/acme/nano-8bit")
    card = page.locator(".model-card")
    expect(card.get_by_role("heading", name="Card")).to_be_visible()
    expect(card.get_by_role("link", name="at home")).to_have_attribute("rel", "noreferrer nofollow")
    expect(card.locator("img, script, style, form, iframe, [onerror]")).to_have_count(0)
    assert page.title() == "nano-8bit · Opta-LMX"
    assert watch.complaints == []


def test_a_gated_model_says_what_to_do(context: BrowserContext, server: LiveServer, hub: Hub) -> None:
    page, watch = opened(context, server, "/discover/model/acme/closed-4bit")
    expect(page.locator(".steps")).to_contain_text("HF_TOKEN")
    address = f"{hub.url}/acme/closed-4bit"
    expect(page.locator(".steps").get_by_role("link", name=address)).to_have_attribute("rel", "noreferrer")
    expect(page.get_by_role("button", name=re.compile("^Download"))).to_have_count(0)
    assert watch.complaints == []


def test_the_palette_leads_there(context: BrowserContext, server: LiveServer) -> None:
    page, _ = opened(context, server, "/connect")
    page.keyboard.press("Control+k")
    page.keyboard.type("disc")
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_have_text("Discover")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_it_fits_the_screen_and_everything_has_a_name(browser: Browser, server: LiveServer, width: int) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844})
    for path in ("/discover", "/discover/model/acme/nano-4bit", "/discover/model/acme/closed-4bit"):
        page, watch = opened(context, server, path)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert [page.evaluate(script) for script in (TOO_WIDE, NAMELESS, REPEATED)] == [[], [], []]
        expect(page.locator("h1")).to_have_count(1)
        expect(page.locator('nav [aria-current="page"]')).to_have_count(1)
        assert watch.complaints == []
    context.close()


def test_without_scripts(browser: Browser, server: LiveServer, hub: Hub) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{server.url}/discover")
    page.locator("#q").fill("huge")
    page.get_by_role("button", name="Search").click()
    assert rows(page) == ["acme/huge-4bit"]
    page.get_by_role("link", name="huge-4bit").click()
    expect(page.locator(".verdict")).to_contain_text("Does not fit")
    context.close()


def test_a_hub_that_goes_away_and_comes_back(context: BrowserContext, server: LiveServer, hub: Hub) -> None:
    page, watch = opened(context, server)
    expect(page.locator(".found li")).not_to_have_count(0)
    hub.status = 503
    page.locator("#q").fill("another")
    expect(page.locator("#results")).to_contain_text("The Hub cannot be asked now")
    hub.status = None

    search = f"{server.url}/admin/hub/search?q=another"
    until(lambda: httpx2.get(search, timeout=60).status_code == 200, "the Hub to be asked again")
    page.get_by_role("link", name="Try again").click()
    expect(page.locator("#results")).to_contain_text("No model was found")
    assert watch.complaints == []


def test_the_first_click_after_typing_opens_what_it_hits(context: BrowserContext, server: LiveServer) -> None:
    """The field loses the focus when the button goes down: that is no search, which would swap the list away."""
    page, watch = opened(context, server)
    page.locator("#q").press_sequentially("huge")
    expect(page.locator(".found li")).to_have_count(1)
    page.get_by_role("link", name="huge-4bit", exact=True).click(delay=90)
    expect(page.locator("h1")).to_have_text("huge-4bit")
    assert watch.complaints == []
