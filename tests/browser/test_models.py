"""Models, one model and Disk in a browser, on a server with models that a test may spoil and delete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from tests.browser.conftest import MIB, Watch
from tests.live.process import LiveServer, fake_model
from tests.models_admin.site import WEIGHTS, ask, copy, rot

pytestmark = [pytest.mark.browser, pytest.mark.live]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Sixty small models, two that can be loaded (one waits for ``gate``), one that rots, and what a download left."""
    home = tmp_path_factory.mktemp("models")
    fake_model(home, "calm", eat_bytes=MIB, tokens=200, context=4096)
    fake_model(home, "held", load_steps=3, load_gate=str(home / "gate"))
    copy(home / "models" / "org" / "rotten" / "r1", signed=True)
    for index in range(60):
        copy(home / "models" / "many" / f"model-{index:02}")
    left = home / "models" / "org" / "left" / f".{'0' * 40}.partial"
    left.mkdir(parents=True)
    (left / "x.part").write_bytes(b"x" * 3 * MIB)
    server = LiveServer(home, {"LMX_MEMORY__RESERVE_MB": "0"})
    server.start()
    yield server
    assert server.stop() == 0
    server.close()


@pytest.fixture
def page(context: BrowserContext, server: LiveServer) -> Iterator[Page]:
    """The list, live; fails for whatever ``Watch`` saw."""
    page = context.new_page()
    watch = Watch(page, server.url)
    go(page, server, "/models")
    yield page
    assert watch.complaints == []


def go(page: Page, server: LiveServer, path: str) -> None:
    page.goto(server.url + path)
    expect(page.locator("#link")).to_have_attribute("data-link", "live")


def rows(page: Page) -> Locator:
    return page.locator("#model-list tbody tr")


def row(page: Page, name: str, state: str) -> Locator:
    return page.locator(f'#model-list tr[data-model="{name}"][data-state="{state}"]')


def test_search_filters_and_pages_are_in_the_address(page: Page) -> None:
    expect(rows(page)).to_have_count(50)
    page.get_by_role("link", name="Next 50").click()
    expect(rows(page)).to_have_count(13)
    expect(page).to_have_url(re.compile(r"/models\?page=2$"))
    page.reload()
    expect(rows(page)).to_have_count(13)
    page.go_back()
    expect(rows(page)).to_have_count(50)
    page.get_by_label("Search").fill("model-4")
    expect(rows(page)).to_have_count(10)
    expect(page).to_have_url(re.compile(r"/models\?search=model-4$"))
    page.locator("select[name=sort]").select_option("size")
    expect(page).to_have_url(re.compile(r"search=model-4&sort=size$"))
    page.locator("select[name=disk]").select_option("corrupt")
    expect(page.get_by_text("No model fits.")).to_be_visible()
    page.get_by_role("link", name="Show all 63").click()
    expect(rows(page)).to_have_count(50)


def test_a_model_is_loaded_pinned_and_unloaded(page: Page, server: LiveServer) -> None:
    page.get_by_label("Search").fill("calm")
    expect(rows(page)).to_have_count(1)
    row(page, "calm", "unloaded").get_by_role("button", name="Load into memory: calm").dblclick()
    row(page, "calm", "ready").get_by_role("button", name=re.compile("^Pin")).click()
    expect(row(page, "calm", "ready").locator(".pin")).to_be_visible()
    row(page, "calm", "ready").get_by_role("button", name=re.compile("^Unpin")).click()
    expect(row(page, "calm", "ready").locator(".pin")).to_have_count(0)
    row(page, "calm", "ready").get_by_role("button", name="Unload from memory: calm").click()
    expect(row(page, "calm", "unloaded")).to_be_visible()
    expect(page.get_by_label("Search")).to_have_value("calm")


def test_what_others_do_shows_by_itself(page: Page, server: LiveServer) -> None:
    page.get_by_label("Search").fill("held")
    expect(rows(page)).to_have_count(1)
    assert ask(server, "/admin/model/load", {"model_id": "held", "wait": False})[0] == 202
    expect(row(page, "held", "loading").locator("[data-f=progress]")).to_have_text(re.compile(r"\d+ %"))
    (server.home / "gate").touch()
    expect(row(page, "held", "ready")).to_be_visible()
    assert ask(server, "/admin/model/unload", {"model_id": "held"})[0] == 200
    expect(row(page, "held", "unloaded")).to_be_visible()


def test_a_rotten_model_is_found_by_verifying_and_deleted(page: Page, server: LiveServer) -> None:
    model = server.home / "models" / "org" / "rotten" / "r1"
    rot(model / WEIGHTS)
    page.get_by_label("Search").fill("rotten")
    page.get_by_role("link", name="org/rotten", exact=True).click()
    expect(page).to_have_url(re.compile(r"model_id=org%2Frotten$"))
    expect(page.locator("h1")).to_have_text("org/rotten")
    expect(page.locator(".disk-state")).to_have_text("verified")
    page.get_by_role("button", name="Verify all files: org/rotten").click()
    expect(page.locator(".model-head .disk-state")).to_have_text("corrupt")
    bad = page.locator(".file-table tr", has_text=WEIGHTS)
    expect(bad.locator(".check-word")).to_have_text("bad")
    page.get_by_role("button", name="Delete from disk…").click()
    dialog = page.get_by_role("dialog", name="Delete from disk")
    expect(dialog).to_contain_text(str(model))
    dialog.get_by_role("button", name="Keep it").click()
    expect(dialog).to_be_hidden()
    assert model.exists()
    page.get_by_role("button", name="Delete from disk…").click()
    dialog.get_by_role("button", name="Delete from disk").click()
    expect(page).to_have_url(server.url + "/models")
    assert not model.exists()


def test_a_loaded_model_is_not_deleted_but_can_be_unloaded_right_there(page: Page, server: LiveServer) -> None:
    assert ask(server, "/admin/model/load", {"model_id": "calm"})[0] == 200
    go(page, server, "/models/one?model_id=calm")
    expect(page.locator("#model [data-f=memory]")).to_have_text(re.compile(r"^\d+ MB$"))
    page.get_by_role("button", name="Delete from disk…").click()
    dialog = page.get_by_role("dialog", name="Delete from disk")
    expect(dialog).to_contain_text("unload it first")
    dialog.get_by_role("button", name="Unload from memory").click()
    expect(page.locator("#model[data-state=unloaded]")).to_be_visible()
    expect(page).to_have_url(re.compile(r"model_id=calm$"))


def test_off_the_list_and_back(page: Page, server: LiveServer) -> None:
    go(page, server, "/models/one?model_id=many%2Fmodel-07")
    page.get_by_role("button", name="Take off the list").click()
    expect(page).to_have_url(server.url + "/models")
    page.get_by_role("link", name="1 model off the list").click()
    page.get_by_role("button", name="Bring back to the list: many/model-07").click()
    expect(page.get_by_text("No model was taken off the list.")).to_be_visible()
    go(page, server, "/models?search=model-07")
    expect(rows(page)).to_have_count(1)


def test_what_a_download_left_is_freed(page: Page, server: LiveServer) -> None:
    go(page, server, "/disk")
    left = server.home / "models" / "org" / "left" / f".{'0' * 40}.partial"
    page.get_by_role("button", name="Free 3 MB of unfinished downloads").click()
    dialog = page.get_by_role("dialog", name="Free space")
    expect(dialog).to_contain_text(str(left))
    dialog.get_by_role("button", name="Free 3 MB").click()
    expect(page.get_by_text("Nothing is left over")).to_be_visible()
    assert not left.exists()


def test_copies_of_id_path_and_hashes(page: Page, server: LiveServer, context: BrowserContext) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    go(page, server, "/models/one?model_id=calm")
    for button, text in (("Copy the model's id", "calm"), ("Copy the path", str(server.home / "models" / "calm"))):
        page.get_by_role("button", name=button).click()
        expect(page.get_by_role("button", name=button)).to_contain_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == text


@pytest.mark.parametrize("path", ["/models", "/models/one?model_id=calm", "/disk"])
def test_forms_work_without_a_script(browser_without_scripts: Page, server: LiveServer, path: str) -> None:
    page = browser_without_scripts
    page.goto(server.url + path)
    if path == "/models":
        page.get_by_label("Search").fill("model-11")
        page.get_by_role("button", name="Show", exact=True).click()
        expect(rows(page)).to_have_count(1)
    elif path == "/disk":
        expect(page.get_by_role("heading", name="Can be freed")).to_be_visible()
    else:
        page.get_by_role("button", name="Delete from disk…").click()
        expect(page.get_by_role("button", name="Delete from disk")).to_be_visible()
        page.get_by_role("link", name="Keep it").click()
        assert Path(server.home / "models" / "calm").exists()


@pytest.fixture
def browser_without_scripts(browser: object) -> Iterator[Page]:
    context: BrowserContext = browser.new_context(java_script_enabled=False)  # type: ignore[attr-defined]
    yield context.new_page()
    context.close()
