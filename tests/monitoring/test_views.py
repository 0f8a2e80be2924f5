"""The pages through Django: what they show, what their buttons do, and who is let in."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from django.test import AsyncClient

from inference.engine import set_engine
from inference.engine.words import gigabytes
from inference.errors import InsufficientMemory
from inference.ipc import Capabilities
from lmx_site import access, terminal
from lmx_site.config_model import ModelsSection
from monitoring import actions
from monitoring.hub import Hub, get_hub, set_hub
from monitoring.sampler import Sampler, set_sampler
from monitoring.templatetags.lmx import milliseconds, out_of, size
from tests.monitoring.fakes import GIB, FakeEngine, record

HTMX = {"HX-Request": "true"}


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeEngine]:
    """The parts that the runtime would start, with an engine in memory and one sample taken."""
    engine, hub = FakeEngine("org/one", "org/two", "org/<b>three"), Hub()
    sampler = Sampler(hub, engine)
    monkeypatch.setattr(actions, "_actions", actions.Actions())
    set_engine(engine)
    set_hub(hub)
    set_sampler(sampler)
    sampler.tick()
    yield engine
    set_sampler(None)
    set_hub(None)
    set_engine(None)


@pytest.fixture
def client(engine: FakeEngine) -> AsyncClient:
    return AsyncClient()


async def text(client: AsyncClient, path: str = "/") -> str:
    response = await client.get(path)
    assert response.status_code == 200
    return str(response.content.decode())


async def press(client: AsyncClient, path: str, **fields: Any) -> Any:
    return await client.post(path, fields, headers=HTMX)


async def test_it_works(client: AsyncClient, engine: FakeEngine) -> None:
    engine.make_ready("org/one", kv_bytes=GIB)
    page = await text(client)
    assert 'data-model="org/one" data-state="ready"' in page
    assert "Unload from memory" in page
    assert "36.0 / 96.0 GB" in page
    assert ">healthy<" in page


async def test_names_of_models_are_escaped(client: AsyncClient) -> None:
    page = await text(client)
    assert "<b>three" not in page
    assert "org/&lt;b&gt;three" in page


@pytest.mark.parametrize("path", ["/", "/?span=3600", "/?span=nonsense", "/connect"])
async def test_pages_run_no_script_or_style_but_our_files(client: AsyncClient, path: str) -> None:
    response = await client.get(path)
    page = response.content.decode()
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert " style=" not in page
    assert "<style" not in page
    assert "<script>" not in page
    assert "http://" not in page.replace("http://testserver", "")
    assert "https://" not in page


@pytest.mark.parametrize("path", ["/", "/connect", "/audit", "/audit/export", "/now/models", "/now/memory"])
async def test_only_the_owner_sees_pages(client: AsyncClient, path: str) -> None:
    access.set_keys(access.Keys.of(None, "a-secret", trust_lan=False))
    response = await client.get(path)
    assert (response.status_code, response.headers["Location"].split("?")[0]) == (302, "/login")


@pytest.mark.parametrize("path", ["/now/load", "/now/unload", "/now/dismiss", "/now/stop", "/chat/stream"])
async def test_actions_are_posts_with_a_token(engine: FakeEngine, path: str) -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    assert (await client.get(path)).status_code == 405
    assert (await client.post(path, {"model": "org/one"})).status_code == 403
    assert engine.loads == []


async def test_another_site_cannot_press_a_button(engine: FakeEngine) -> None:
    headers = {"Origin": "http://evil.example"}
    assert (await AsyncClient().post("/now/load", {"model": "org/one"}, headers=headers)).status_code == 403
    assert engine.loads == []


async def test_load_answers_with_the_fragment_while_it_goes_on(client: AsyncClient, engine: FakeEngine) -> None:
    engine.gate.clear()
    response = await press(client, "/now/load", model="org/one")
    assert 'data-model="org/one" data-state="loading"' in response.content.decode()
    assert "<html" not in response.content.decode()
    await press(client, "/now/load", model="org/one")  # a double click
    engine.gate.set()
    await actions.get_actions().settled()
    assert engine.loads == ["org/one"]
    assert 'data-model="org/one" data-state="ready"' in await text(client, "/now/models")


async def test_without_htmx_a_button_leads_back_to_the_page(client: AsyncClient, engine: FakeEngine) -> None:
    response = await client.post("/now/load", {"model": "org/one"})
    assert (response.status_code, response.headers["Location"]) == (302, "/")
    assert engine.loads == ["org/one"]


async def test_unload(client: AsyncClient, engine: FakeEngine) -> None:
    engine.make_ready("org/one")
    response = await press(client, "/now/unload", model="org/one")
    assert "No model is loaded" in response.content.decode()


async def test_what_does_not_fit_is_explained_with_the_button_that_helps(
    client: AsyncClient, engine: FakeEngine
) -> None:
    engine.make_ready("org/two")
    engine.refuse = InsufficientMemory(
        "one needs 6.1 GB; 4.8 GB is free. Unload two (idle 2 h)?", details={"unload": ["org/two"]}
    )
    page = (await press(client, "/now/load", model="org/one")).content.decode()
    assert "one needs 6.1 GB; 4.8 GB is free" in page
    assert "Unload two and load one" in page
    assert "507" not in page
    engine.refuse = None
    page = (await press(client, "/now/load", model="org/one", evict="org/two")).content.decode()
    assert 'data-model="org/one" data-state="ready"' in page
    assert engine.statuses["org/two"].state == "unloaded"
    assert "was not loaded" not in page


async def test_a_notice_can_be_dismissed(client: AsyncClient, engine: FakeEngine) -> None:
    engine.refuse = InsufficientMemory("it is too large")
    assert "it is too large" in (await press(client, "/now/load", model="org/one")).content.decode()
    assert "it is too large" not in (await press(client, "/now/dismiss", model="org/one")).content.decode()


async def test_notices_and_names_are_bounded(client: AsyncClient, engine: FakeEngine) -> None:
    engine.refuse = InsufficientMemory("it is too large")
    for number in range(actions.NOTICES_KEPT + 5):
        await actions.get_actions().load(f"org/{number}")
        await actions.get_actions().settled()
    kept = [notice["model"] for notice in actions.get_actions().notices()]
    assert kept == [f"org/{number}" for number in range(5, actions.NOTICES_KEPT + 5)]
    assert (await press(client, "/now/load", model="x" * 513)).status_code == 400


async def test_a_defect_is_not_shown_as_a_traceback(
    client: AsyncClient, engine: FakeEngine, caplog: pytest.LogCaptureFixture
) -> None:
    page = (await press(client, "/now/load", model="no/such")).content.decode()
    assert "the load failed; the server&#x27;s log says why" in page
    assert "KeyError" in caplog.text


async def test_stop_names_who_stopped(client: AsyncClient, engine: FakeEngine) -> None:
    engine.records = [record(id="r1")]
    assert (await press(client, "/now/stop", id="r1")).status_code == 204
    assert (await press(client, "/now/stop", id="r2")).status_code == 404
    assert engine.cancelled == [("r1", "owner")]


async def test_memory_gives_the_past_as_columns(client: AsyncClient) -> None:
    body = json.loads(await text(client, "/now/memory?span=3600"))
    assert (body["step"], body["used"], body["total"]) == (5, [36 * GIB], 96 * GIB)
    assert (await client.get("/now/memory?span=5")).status_code == 400


async def test_the_empty_state_says_what_to_do(client: AsyncClient, engine: FakeEngine) -> None:
    engine.statuses.clear()
    page = await text(client)
    assert "No model is on disk yet" in page
    keys = ModelsSection.model_fields
    named = re.findall(r"models\.(\w+)</code>", page)
    assert named
    assert set(named) <= set(keys)


@pytest.mark.parametrize(
    ("used", "total", "said"),
    [(71.2 * GIB, 96 * GIB, "71.2 / 96.0 GB"), (120 << 20, 320 << 20, "120 / 320 MB"), (None, None, "0.0 / 0.0 GB")],
)
def test_small_machines_are_counted_in_megabytes(used: float | None, total: float | None, said: str) -> None:
    assert out_of(used, total) == said


@pytest.mark.parametrize(("ms", "said"), [(None, "–"), (180.4, "180 ms"), (9617.0, "9.6 s")])
def test_times_have_their_unit(ms: float | None, said: str) -> None:
    assert milliseconds(ms) == said


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 MB"), (100, "1 KB"), (200 << 10, "200 KB"), (600 << 10, "1 MB"), (1843 * GIB, "1.8 TB")]
)
def test_very_small_and_very_large_sizes_have_their_own_units(count: float, said: str) -> None:
    assert size(count) == said


@pytest.mark.parametrize("written", [size, gigabytes, terminal.size])
@pytest.mark.parametrize(("count", "said"), [(312 << 20, "312 MB"), (1010 << 20, "1.0 GB"), (12.4 * GIB, "12.4 GB")])
def test_a_size_is_the_same_wherever_it_is_written(written: Callable[[float], str], count: float, said: str) -> None:
    assert written(count) == said


async def test_a_model_that_cannot_be_loaded_says_why_and_leads_to_its_page(
    client: AsyncClient, engine: FakeEngine
) -> None:
    engine.statuses["org/one"] = replace(engine.statuses["org/one"], state="failed", reason="<i>a file is missing")
    page = await text(client, "/now/models")
    assert "&lt;i&gt;a file is missing" in page
    assert 'aria-label="Load into memory: org/one"' not in page
    assert 'aria-label="Load into memory: org/two"' in page
    assert page.count('href="/models/one?model_id=org%2Fone"') == 2
    assert 'href="/models/one?model_id=org%2F%3Cb%3Ethree"' in page


async def test_a_model_that_leaves_does_not_claim_to_stay(client: AsyncClient, engine: FakeEngine) -> None:
    engine.make_ready("org/one")
    assert "stays until memory is needed" in await text(client, "/now/models")
    engine.statuses["org/one"] = replace(engine.statuses["org/one"], state="draining")
    page = await text(client, "/now/models")
    assert "unloading" in page
    assert "stays until memory is needed" not in page


async def test_a_load_says_what_it_does(client: AsyncClient, engine: FakeEngine) -> None:
    for progress, words in (
        ({"load_phase": "import"}, ">starting<"),
        ({"load_phase": "weights", "load_done": 60 << 20, "load_total": 120 << 20}, ">60 MB of 120 MB<"),
        ({"load_phase": "warmup", "load_done": 0, "load_total": 0}, ">warming up<"),
    ):
        engine.statuses["org/one"] = replace(engine.statuses["org/one"], state="loading", **progress)
        assert words in await text(client)


async def test_the_demo_shows_its_progress(client: AsyncClient, engine: FakeEngine) -> None:
    engine.statuses.clear()
    job = {"id": 1, "kind": "demo", "state": "running", "title": "SmolLM2", "done": 60 << 20, "total": 120 << 20}
    get_hub().publish("jobs", {**job, "message": "download 60 of 120 MB"}, key="1")
    page = await text(client)
    assert "download 60 of 120 MB" in page
    assert 'max="125829120"' in page


async def test_connect_has_lines_for_a_model_that_is_there(client: AsyncClient) -> None:
    page = await text(client, "/connect")
    assert "http://testserver/v1" in page
    assert "org/&lt;b&gt;three" in page


async def test_connect_names_a_model_that_can_be_chatted_with(client: AsyncClient, engine: FakeEngine) -> None:
    for name in ("org/<b>three", "org/one"):
        engine.statuses[name].kind = "embeddings"
    engine.make_ready("org/one").capabilities = Capabilities(embeddings=True)
    page = await text(client, "/connect")
    assert "org/two" in page
    assert "org/one" not in page
    assert "three" not in page


async def test_a_refused_chat_has_its_status_and_reason(client: AsyncClient) -> None:
    body = {"model": "none", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    response = await client.post("/chat/stream", json.dumps(body), content_type="application/json")
    assert response.status_code == 404
    assert json.loads(response.content)["error"]["message"] == "there is no model none"


async def test_no_task_is_left(client: AsyncClient, engine: FakeEngine) -> None:
    await press(client, "/now/load", model="org/one")
    await actions.get_actions().settled()
    await asyncio.sleep(0)
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("load")] == []
