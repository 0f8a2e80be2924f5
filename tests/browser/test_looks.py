"""What can be checked of looks and access by computing: names, contrast, widths, themes, motion."""

from __future__ import annotations

import re
from itertools import product

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Watch
from tests.live.process import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.live]

PAGES = ["/", "/models", "/models?state=hidden", "/models/one?model_id=calm", "/disk", "/audit", "/connect"]
TEXT_ON = [*product(("--text", "--muted", "--accent", "--ok", "--warn", "--bad"), ("--bg", "--surface"))]
TEXT_ON += [("--text", "--raised"), ("--on-accent", "--accent")]
SHAPES_ON = [*product((f"--c{n}" for n in range(1, 9)), ("--surface",)), ("--edge", "--surface"), ("--edge", "--bg")]

COLOUR = """(name) => {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number);
  probe.remove();
  return found;
}"""

NAMELESS = """() => [
  ...document.querySelectorAll("button, a[href], input:not([type=hidden]), select, textarea, canvas"),
]
  .filter((element) => {
    const labels = [...(element.labels ?? [])].map((label) => label.textContent).join("");
    return !(element.getAttribute("aria-label") || element.title || labels || element.textContent).trim();
  })
  .map((element) => element.outerHTML)"""

REPEATED = """() => {
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  return ids.filter((id, i) => ids.indexOf(id) !== i);
}"""

TOO_WIDE = """() => [...document.querySelectorAll("main *, header *, nav *")]
  .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
  .filter((element) => !element.closest(".scroll, .unseen, pre"))
  .map((element) => element.outerHTML.slice(0, 120))"""


def luminance(colour: list[float]) -> float:
    parts = [part / 255 for part in colour]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(page: Page, first: str, second: str) -> float:
    light, dark = sorted((luminance(page.evaluate(COLOUR, name)) for name in (first, second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_colours_can_be_read(page: Page, theme: str) -> None:
    page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    low = {pair: round(contrast(page, *pair), 2) for pair in TEXT_ON if contrast(page, *pair) < 4.5}
    low |= {pair: round(contrast(page, *pair), 2) for pair in SHAPES_ON if contrast(page, *pair) < 3}
    assert low == {}


@pytest.mark.parametrize("path", PAGES)
def test_everything_has_a_name_and_one_heading_leads(page: Page, server: LiveServer, path: str) -> None:
    page.goto(server.url + path)
    expect(page.locator("#link")).to_have_attribute("data-link", "live")
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(REPEATED) == []
    expect(page.locator("h1")).to_have_count(1)
    expect(page.locator("main")).to_have_count(1)
    expect(page.locator('nav [aria-current="page"]')).to_have_count(1)
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_screen(browser: Browser, server: LiveServer, width: int, path: str) -> None:
    context = browser.new_context(viewport={"width": width, "height": 844})
    page = context.new_page()
    watch = Watch(page, server.url)
    page.goto(server.url + path)
    expect(page.locator("#link")).to_have_attribute("data-link", "live")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(TOO_WIDE) == []
    assert watch.complaints == []
    context.close()


OVERLAPS = """() => {
  const strip = document.getElementById("strip");
  const word = strip.querySelector("#health [data-word]");
  const before = word.textContent;
  word.textContent = "degraded: " + "a-model-with-a-long-name: its process died; ".repeat(4);
  const boxes = [...strip.children].map((child) => [child.id || child.className, child.getBoundingClientRect()]);
  const width = document.documentElement.scrollWidth;
  word.textContent = before;
  const over = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  const others = ([name, a], i) => boxes.slice(i + 1).filter(([, b]) => over(a, b)).map(([other]) => [name, other]);
  const found = boxes.flatMap(others);
  return { found, width };
}"""


@pytest.mark.parametrize("width", [390, 768, 1024, 1280])
def test_a_long_reason_leaves_room_for_the_figures(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate(OVERLAPS) == {"found": [], "width": width}


def test_the_theme_is_switched_by_hand_and_kept(page: Page) -> None:
    page.emulate_media(color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    button = page.get_by_role("button", name=re.compile("^Theme:"))
    button.click()
    button.click()
    expect(button).to_have_text("Theme: dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    assert page.evaluate(ground) == dark
    button.click()
    expect(button).to_have_text("Theme: system")
    assert page.evaluate(ground) == light


def test_who_wants_no_motion_gets_none(page: Page) -> None:
    page.emulate_media(reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.querySelector('.button')).transitionDuration") == "0s"


def test_a_keyboard_sees_where_it_is(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator("#chat-text").focus()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_copying_a_line(page: Page, server: LiveServer) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{server.url}/connect")
    page.locator('[data-copy="env"]').click()
    expect(page.locator('[data-copy="env"]')).to_have_text("Copied")
    assert f"OPENAI_BASE_URL={server.url}/v1" in page.evaluate("navigator.clipboard.readText()")
