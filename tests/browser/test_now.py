"""The first page in a browser: it is live, its buttons work, the chat streams and stops."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import BrowserContext, Locator, Page, Route, expect

from tests.live.process import LiveServer

pytestmark = [pytest.mark.browser, pytest.mark.live]


def card(page: Page, model: str, state: str) -> Locator:
    return page.locator(f'.card[data-model="{model}"][data-state="{state}"]')


def loaded(page: Page, model: str) -> Locator:
    """The card of that model, loading it if need be."""
    button = page.get_by_role("button", name=f"Load into memory: {model}", exact=True)
    if button.count():
        button.click()
    ready = card(page, model, "ready")
    expect(ready).to_be_visible()
    return ready


def choose(page: Page, model: str) -> None:
    expect(page.locator(f'#chat-model option[value="{model}"]')).to_have_count(1)
    page.locator("#chat-model").select_option(model)


def ask(page: Page, text: str) -> Locator:
    """Send a message; the answer's list item."""
    items = page.locator("#messages > li")
    before = items.count()
    page.locator("#chat-text").fill(text)
    page.locator("#chat-text").press("Enter")
    expect(items).to_have_count(before + 2)
    return items.nth(before + 1)


def says(text: str, **fields: object) -> str:
    """A prompt to which the fake answers ``text``."""
    return f"go <<fake {json.dumps({'text': text, **fields})}>>"


def test_the_chart_moves(page: Page) -> None:
    chart = page.locator("#chart")
    expect(chart).to_have_attribute("data-last", re.compile(r"\d+"))
    first = chart.get_attribute("data-last")
    assert first is not None
    expect(chart).not_to_have_attribute("data-last", first)
    painted = page.evaluate(
        """() => {
          const canvas = document.querySelector("#chart canvas");
          const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          return pixels.filter((value, i) => i % 4 === 3 && value).length;
        }"""
    )
    assert painted > 1000
    expect(page.locator("#memory-figure")).to_have_text(re.compile(r"^\d+\.\d / \d+\.\d GB$"))
    expect(page.locator("#health")).to_have_attribute("data-health", "healthy")


def test_the_legend_reads_under_the_pointer(page: Page) -> None:
    expect(page.locator("#legend li")).not_to_have_count(0)
    expect(page.locator("#chart-time")).to_have_text("now")
    page.locator("#chart canvas").hover()
    expect(page.locator("#chart-time")).to_have_text(re.compile(r"^at \d\d:\d\d:\d\d$"))
    page.mouse.move(0, 0)
    expect(page.locator("#chart-time")).to_have_text("now")
    page.locator("#chart canvas").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#chart-time")).to_have_text(re.compile(r"^at "))


def test_the_chart_is_a_table_too_and_its_span_is_in_the_address(page: Page) -> None:
    page.get_by_text("Show as a table").click()
    expect(page.locator(".chart-table thead th").first).to_have_text("Time")
    expect(page.locator(".chart-table tbody tr")).not_to_have_count(0)
    page.get_by_role("button", name="1 h").click()
    expect(page).to_have_url(re.compile(r"span=3600"))
    page.reload()
    expect(page.get_by_role("button", name="1 h")).to_have_attribute("aria-pressed", "true")


def legend(page: Page, name: str) -> Locator:
    return page.locator("#legend li", has_text=name).locator(".number")


def test_load_and_unload(page: Page) -> None:
    ready = loaded(page, "calm")
    expect(ready.locator('[data-f="memory"]')).to_have_text(re.compile(r"^1\d\d MB"))
    expect(legend(page, "calm")).to_have_text(re.compile(r"^1\d\d MB$"))
    expect(page.locator("#events")).to_contain_text("loaded calm")
    ready.get_by_role("button", name="Unload from memory").click()
    expect(page.get_by_role("button", name="Load into memory: calm", exact=True)).to_be_visible()
    expect(page.locator("#events")).to_contain_text("unloaded calm by the owner")
    expect(legend(page, "calm")).to_have_text("–")


def test_a_double_click_loads_once(page: Page) -> None:
    page.get_by_role("button", name="Load into memory: bright", exact=True).dblclick()
    expect(card(page, "bright", "ready")).to_be_visible()
    expect(page.locator("#events li", has_text="loaded bright")).to_have_count(1)
    page.get_by_role("button", name="Unload from memory: bright").click()
    expect(page.get_by_role("button", name="Load into memory: bright", exact=True)).to_be_visible()


def test_the_chat_streams_and_is_stopped(page: Page, gate: Path) -> None:
    loaded(page, "calm")
    choose(page, "calm")
    answer = ask(page, says("one two three four", hold_after=2, gate=str(gate)))
    expect(answer.locator(".body")).to_have_text(re.compile("one"))
    expect(page.locator("#flight tr")).to_have_count(1)  # it streams: the answer is not over
    expect(page.locator("#flight [data-f='phase']")).to_have_text("decode")
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(answer.locator(".figures")).to_contain_text("stopped")
    expect(page.locator("#flight tr")).to_have_count(0)
    assert not gate.exists()


def test_the_strip_the_chart_and_the_card_agree(page: Page) -> None:
    loaded(page, "calm")
    figures = page.evaluate_handle(
        """() => new Promise((done) => {
          const text = (selector) => document.querySelector(selector).textContent;
          new MutationObserver(() => requestAnimationFrame(() => requestAnimationFrame(() => done([
            text("#memory-figure"),
            text('.card[data-model="calm"] [data-f="memory"]'),
            ...[...document.querySelectorAll("#legend li")].map((item) => item.textContent),
          ])))).observe(document.getElementById("chart"), { attributes: true, attributeFilter: ["data-last"] });
        })"""
    ).json_value()
    strip, card_text, *legend_texts = figures
    assert f"in use{strip.split(' / ')[0]} GB" in legend_texts
    assert f"calm{card_text.split(' + ')[0]}" in legend_texts


def test_a_request_says_that_it_waits_for_the_load(page: Page, server: LiveServer) -> None:
    choose(page, "held")
    answer = ask(page, "hello")
    expect(page.locator("#flight [data-f='phase']")).to_have_text("waits for the load")
    # Its weights are all there, and still it is not ready.
    expect(card(page, "held", "loading").locator("[data-f='load']")).to_have_text("warming up")
    (server.home / "gate").touch()
    expect(answer.locator(".figures")).to_contain_text("TTFT")
    expect(page.locator("#flight tr")).to_have_count(0)


def test_who_waits_sees_its_place_and_the_card_what_it_keeps(page: Page, server: LiveServer, gate: Path) -> None:
    load = {"model_id": "narrow", "ttl": 3600}
    assert httpx.post(f"{server.url}/admin/model/load", json=load).json()["ttl"] == 3600
    narrow = card(page, "narrow", "ready")
    expect(narrow.locator("[data-f='stay']")).to_have_text("leaves after 1 h without a request")
    expect(narrow.locator("[data-f='prefix']")).to_have_text("prompt cache 5 MB · 83 % of prompt tokens found")
    phases = page.locator("#flight [data-f='phase']")
    with ThreadPoolExecutor(3) as pool:
        for number, words in enumerate(["decode", "next in line", "2nd in line"]):
            message = {"role": "user", "content": says("one two three", hold_after=1, gate=str(gate))}
            body = {"model": "narrow", "messages": [message]}
            pool.submit(httpx.post, f"{server.url}/v1/chat/completions", json=body, timeout=60)
            expect(phases).to_have_count(number + 1)
            expect(phases.nth(number)).to_have_text(words)
        gate.touch()
    expect(phases).to_have_count(0)
    assert httpx.post(f"{server.url}/admin/model/unload", json={"model_id": "narrow"}).json()["status"] == "unloaded"


def test_the_row_of_a_request_stops_it(page: Page, gate: Path) -> None:
    loaded(page, "calm")
    choose(page, "calm")
    answer = ask(page, says("one two three four", hold_after=2, gate=str(gate)))
    expect(answer.locator(".body")).to_have_text(re.compile("one"))
    page.get_by_role("button", name="Stop the request of owner").click()
    expect(page.locator("#flight tr")).to_have_count(0)
    expect(answer.locator(".error")).to_contain_text("cancelled")
    expect(answer.locator(".body")).not_to_contain_text("cancelled")


def test_the_chat_keeps_text_as_text_until_it_is_cleared(page: Page) -> None:
    loaded(page, "calm")
    choose(page, "calm")
    answer = ask(page, says("<img src=x onerror=alert(1)>\n  two spaces"))
    expect(answer.locator(".figures")).to_have_text(re.compile(r"^TTFT [\d,.]+ m?s"))
    assert answer.locator("img").count() == 0
    assert "\n  two spaces" in answer.locator(".body").inner_text()
    page.reload()
    expect(page.locator("#messages > li")).to_have_count(2)
    page.get_by_role("button", name="Clear the conversation").click()
    expect(page.locator("#messages > li")).to_have_count(0)
    page.reload()
    expect(page.locator("#messages > li")).to_have_count(0)


def test_the_chat_asks_soberly(page: Page) -> None:
    loaded(page, "calm")
    choose(page, "calm")
    with page.expect_request("**/chat/stream") as sent:
        ask(page, "hello")
    assert (sent.value.post_data_json or {})["temperature"] == 0.7


def test_shift_enter_starts_a_new_line(page: Page) -> None:
    box = page.locator("#chat-text")
    box.fill("one")
    box.press("Shift+Enter")
    assert box.input_value() == "one\n"
    expect(page.locator("#messages > li")).to_have_count(0)


def test_a_chat_loads_a_model_that_is_not_in_memory(page: Page) -> None:
    choose(page, "bright")
    answer = ask(page, "hello")
    expect(answer.locator(".figures")).to_contain_text("TTFT")
    expect(card(page, "bright", "ready")).to_be_visible()


def test_a_model_that_makes_vectors_is_not_offered_for_a_chat(page: Page) -> None:
    row = page.locator('.disk li[data-model="vectors"]')
    expect(row).to_contain_text("embeddings")
    expect(page.locator('#chat-model option[value="narrow"]')).to_have_count(1)
    expect(page.locator('#chat-model option[value="vectors"]')).to_have_count(0)
    expect(loaded(page, "vectors")).to_contain_text("embeddings")
    loaded(page, "narrow")
    expect(page.locator('#chat-model optgroup[label="In memory"] option[value="narrow"]')).to_have_count(1)
    expect(page.locator('#chat-model option[value="vectors"]')).to_have_count(0)


def test_the_palette_goes_and_acts(page: Page, server: LiveServer) -> None:
    loaded(page, "calm")
    page.keyboard.press("Control+k")
    page.keyboard.type("unload calm")
    expect(page.locator("#palette-list li")).to_have_count(1)
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Load into memory: calm", exact=True)).to_be_visible()
    page.keyboard.press("Control+k")
    page.keyboard.type("connect")
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{server.url}/connect")
    expect(page.locator("#link")).to_have_attribute("data-link", "live")


def test_a_question_mark_lists_the_keys(page: Page) -> None:
    page.keyboard.press("?")
    expect(page.locator("#keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#keys")).to_be_hidden()
    page.locator("#chat-text").press("?")
    expect(page.locator("#keys")).to_be_hidden()


def a_button(page: Page) -> Locator:
    """One that loads or unloads."""
    return page.get_by_role("button", name="Load into memory: bright", exact=True).or_(
        page.get_by_role("button", name="Unload from memory: bright")
    )


@pytest.fixture
def cards(context: BrowserContext, server: LiveServer) -> tuple[Page, Route]:
    """A page that is loaded but for its cards, which are drawn again when the route goes on."""
    page = context.new_page()
    held: list[Route] = []
    page.route("**/now/models", lambda route: held.append(route))
    with page.expect_request("**/now/models"):
        page.goto(server.url)
    expect(page.locator("#link")).to_have_attribute("data-link", "live")
    page.evaluate("document.getElementById('models').dataset.old = 'yes'")
    return page, held[0]


def let_in(page: Page, cards: Route) -> None:
    with page.expect_response("**/now/models"):
        cards.continue_()
    page.unroute("**/now/models")


ACTION = re.compile("/now/(un)?load$")


def test_a_page_that_is_too_old_says_so_and_goes_on_saying_it(cards: tuple[Page, Route]) -> None:
    page, route = cards
    page.context.clear_cookies()
    a_button(page).click()
    expect(page.get_by_role("alert")).to_contain_text("Reload it")
    let_in(page, route)
    expect(page.locator("#models[data-old]")).to_have_count(0)
    expect(page.get_by_role("alert")).to_contain_text("Reload it")


def test_cards_that_arrive_before_the_answer_do_not_take_it_away(cards: tuple[Page, Route]) -> None:
    page, route = cards
    page.context.clear_cookies()
    answers: list[Route] = []
    page.route(ACTION, lambda answer: answers.append(answer))
    with page.expect_request(ACTION):
        a_button(page).click()
    let_in(page, route)
    answers[0].continue_()
    expect(page.get_by_role("alert")).to_contain_text("Reload it")
    expect(page.locator("#models[data-old]")).to_have_count(0)


def test_cards_that_arrive_while_a_button_is_held_down_do_not_take_it_away(cards: tuple[Page, Route]) -> None:
    page, route = cards
    a_button(page).hover()
    page.mouse.down()
    let_in(page, route)
    with page.expect_response(ACTION) as answer:
        page.mouse.up()
    assert answer.value.ok
    expect(page.locator("#models[data-old]")).to_have_count(0)
