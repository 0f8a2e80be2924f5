"""Models, one model and Disk through Django: on real files and a real catalog, with an engine in memory."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from django.test import AsyncClient

from inference.api import deps
from inference.engine import set_engine
from inference.engine.contract import ModelStatus
from lmx_site import access
from monitoring import actions, disk_page
from monitoring.disk_page import Band
from monitoring.hub import Hub, set_hub
from monitoring.sampler import Sampler, set_sampler
from tests.material.many import ManyCatalog, many_rows
from tests.models_admin.site import WEIGHTS, Site, copy, rot, site_on
from tests.monitoring.fakes import FakeEngine

pytestmark = pytest.mark.django_db(transaction=True)
HTMX = {"HX-Request": "true"}
PAGES = ["/models", "/models?state=hidden", "/models/one?model_id=org/model", "/models/one?model_id=no", "/disk"]
PLANS = ["/models/delete/plan?model_id=org/model", "/disk/reclaim/plan?kind=partial"]
PARTS = ["/models/list", "/models/one/state?model_id=org/model", "/disk/use", *PLANS]
ACTIONS = ["load", "unload", "pin", "verify", "dismiss", "restore", "forget", "delete"]


class Shown:
    """A site, its engine, and a browser without JavaScript, or with htmx."""

    def __init__(self, site: Site, engine: FakeEngine) -> None:
        self.site, self.engine = site, engine
        self.client = AsyncClient()

    async def get(self, path: str, status: int = 200) -> str:
        response = await self.client.get(path)
        assert response.status_code == status, response.content
        return str(response.content.decode())

    async def post(self, url: str, /, **fields: str) -> Any:
        return await self.client.post(url, fields)

    async def press(self, url: str, /, **fields: str) -> Any:
        return await self.client.post(url, fields, headers=HTMX)


@pytest.fixture
async def shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Shown]:
    models = tmp_path / "models"
    copy(models / "org" / "model" / "r1", signed=True)
    copy(models / "<b>bold")
    (models / "org" / "other").mkdir()
    (models / "org" / "other" / f".{'0' * 40}.partial").mkdir()
    (models / "org" / "other" / f".{'0' * 40}.partial" / "x.part").write_bytes(b"x" * 3_000_000)
    async with site_on(models) as site:
        engine, hub = FakeEngine(*(ref.id for ref in site.catalog.all())), Hub()
        sampler = Sampler(hub, engine)
        monkeypatch.setattr(actions, "_actions", actions.Actions())
        set_engine(engine)
        set_hub(hub)
        set_sampler(sampler)
        deps.configure(catalog=site.catalog, keeper=site.keeper)
        sampler.tick()
        yield Shown(site, engine)
        await actions.get_actions().settled()
        deps.configure()
        set_sampler(None)
        set_hub(None)
        set_engine(None)


async def test_pages_run_no_script_or_style_but_our_files(shown: Shown) -> None:
    for path in (*PAGES, *PARTS):
        response = await shown.client.get(path)
        page = response.content.decode()
        assert response.status_code == (404 if path.endswith("=no") else 200), path
        assert "unsafe" not in response.headers["Content-Security-Policy"]
        for forbidden in (" style=", "<style", "<script>", "onclick", "https://", "<b>bold"):
            assert forbidden not in page, (path, forbidden)


@pytest.mark.parametrize("path", [*PAGES, *PARTS])
async def test_only_the_owner_sees_them(shown: Shown, path: str) -> None:
    access.set_keys(access.Keys.of(None, "a-secret", trust_lan=False))
    response = await shown.client.get(path)
    assert (response.status_code, response.headers["Location"].split("?")[0]) == (302, "/login")


@pytest.mark.parametrize("path", [*(f"/models/{action}" for action in ACTIONS), "/disk/reclaim"])
async def test_actions_are_posts_with_a_token(shown: Shown, path: str) -> None:
    client = AsyncClient(enforce_csrf_checks=True)
    assert (await client.get(path)).status_code == 405
    assert (await client.post(path, {"model": "org/model"})).status_code == 403
    assert shown.engine.loads == []


@pytest.mark.parametrize("action", [action for action in ACTIONS if action != "dismiss"])
async def test_a_form_without_a_name_is_refused(shown: Shown, action: str) -> None:
    assert (await shown.press(f"/models/{action}")).status_code == 400
    assert (await shown.press(f"/models/{action}", model="x" * 9000)).status_code == 400


async def test_the_list_is_searched_filtered_and_ordered_by_its_address(shown: Shown) -> None:
    assert 'data-model="org/model"' in await shown.get("/models")
    found = await shown.get("/models?search=ORG+mod&disk=verified")
    assert ('data-model="org/model"' in found, "1 of 2 models" in found) == (True, True)
    assert "No model fits" in await shown.get("/models?search=nothing&pinned=1")
    for nonsense in ("state=x", "disk=x", "sort=__class__", "order=x", "page=-1", "page=99999999999", "page=x"):
        assert 'data-model="org/model"' in await shown.get(f"/models?{nonsense}")
    header = re.search(r'aria-sort="descending"[^>]*><a href="\?([^"]+)"', await shown.get("/models?sort=size"))
    assert header is not None
    assert parse_qs(header[1].replace("&amp;", "&")) == {"sort": ["size"], "order": ["asc"]}


async def test_the_filters_put_the_page_into_the_address(shown: Shown) -> None:
    headers = {**HTMX, "HX-Trigger": "model-filters"}
    response = await shown.client.get("/models/list?search=org&state=&sort=size&pinned=", headers=headers)
    assert response.headers["HX-Replace-Url"] == "/models?search=org&sort=size"
    assert "HX-Replace-Url" not in (await shown.client.get("/models/list?search=org", headers=HTMX)).headers


async def test_ten_thousand_come_fifty_at_a_time(shown: Shown) -> None:
    many = ManyCatalog(many_rows(10_000, Path("/many")), Path("/many"))
    deps.configure(catalog=many, keeper=shown.site.keeper)
    shown.engine.statuses = {ref.id: ModelStatus(ref.id, "unloaded") for ref in many.all()}
    page = await shown.get("/models?page=3")
    assert page.count("<tr data-model=") == 50
    assert "101 to 150 of 10,000 models" in page
    assert len(page) < 300_000
    assert "9,951 to 10,000" in await shown.get("/models?page=9999")
    now = await shown.get("/")
    assert (now.count("<li data-model="), "9950 more on the page Models" in now) == (50, True)
    many.close()


async def test_a_corrupt_model_has_a_badge_of_its_own(shown: Shown) -> None:
    rot(shown.site.models / "org" / "model" / "r1" / WEIGHTS)
    await shown.site.verify("org/model")
    shown.engine.statuses["org/model"].state = "failed"
    shown.engine.statuses["org/model"].reason = shown.site.catalog.resolve("org/model").problem
    page = await shown.get("/models")
    assert 'data-disk="corrupt"' in page
    assert 'data-state="broken"' in page
    one = await shown.get("/models/one?model_id=org%2Fmodel")
    assert 'data-word="bad">bad<' in one
    assert one.count("Copy the actual hash of") >= 4
    now = await shown.get("/")
    assert 'data-disk="corrupt"' in now


async def test_one_model_with_its_facts(shown: Shown) -> None:
    page = await shown.get("/models/one?model_id=org/model")
    for words in (
        "42.1 K",
        "2,048 tokens",
        "chat, completion, tools",
        "huggingface",
        "llama",
        "config.json",
        "curl -N",
    ):
        assert words in page, words
    assert "/v1/embeddings" not in page
    assert 'hx-get="/models/settings?model_id=org%2Fmodel"' in page
    missing = await shown.get("/models/one?model_id=org%2Fmodl", 404)
    assert "?model_id=org%2Fmodel" in missing
    assert "No model is named" in await shown.get("/models/one", 404)


async def test_the_line_for_a_shell_holds_any_name(shown: Shown) -> None:
    name = "it's $(odd) `one`"
    copy(shown.site.models / name)
    await shown.site.catalog.refresh()
    page = await shown.get(f"/models/one?model_id={quote(name)}")
    found = re.search(r'<pre id="curl"[^>]*>(.*?)</pre>', page, re.DOTALL)
    assert found is not None
    *_, body = shlex.split(unescape(found[1]))
    assert json.loads(body)["model"] == name


async def test_a_server_that_stops_says_so(shown: Shown) -> None:
    deps.configure()
    response = await shown.client.get("/models")
    assert (response.status_code, response.headers["Retry-After"]) == (503, "1")


async def test_load_pin_and_unload_from_either_page(shown: Shown) -> None:
    answer = await shown.press("/models/load?search=org", model="org/model")
    assert answer.content.decode().lstrip().startswith("<section")
    assert 'data-model="org/model" data-state="ready"' in answer.content.decode()
    assert "&lt;b&gt;bold" not in answer.content.decode(), "still the list that was searched for"
    one = await shown.press("/models/unload?one=org%2Fmodel", model="org/model")
    assert 'id="model"' in one.content.decode()
    plain = await shown.post("/models/load?search=org&sort=size", model="org/model")
    assert (plain.status_code, plain.headers["Location"]) == (302, "/models?search=org&sort=size")
    plain = await shown.post("/models/unload?one=org%2Fmodel", model="org/model")
    assert plain.headers["Location"] == "/models/one?model_id=org%2Fmodel"
    loads = len(shown.engine.loads)
    await shown.press("/models/pin", model="org/model", on="0")
    assert len(shown.engine.loads) == loads, "what is not in memory is not loaded to be unpinned"
    await shown.press("/models/pin", model="org/model", on="1")
    assert shown.engine.statuses["org/model"].state == "ready"


async def test_verify_is_a_job_and_a_refusal_is_told(shown: Shown) -> None:
    await shown.press("/models/verify?one=org%2Fmodel", model="org/model")
    async with asyncio.timeout(60):
        while shown.site.busy.has("org/model", "verify"):
            await asyncio.sleep(0.01)
    with shown.site.busy.work("org/model", "fetch"):
        answer = await shown.press("/models/verify?one=org%2Fmodel", model="org/model")
    assert "was not verified" in answer.content.decode()
    assert "is being downloaded" in answer.content.decode()
    answer = await shown.press("/models/dismiss?one=org%2Fmodel", model="org/model")
    assert "was not verified" not in answer.content.decode()


async def test_delete_shows_what_it_frees_and_does_just_that(shown: Shown) -> None:
    path = shown.site.models / "org" / "model" / "r1"
    dialog = (await shown.client.get("/models/delete/plan?model_id=org/model", headers=HTMX)).content.decode()
    assert dialog.lstrip().startswith("<dialog")
    assert str(path) in dialog
    assert "frees" in dialog
    assert '<dialog class="confirm"' not in await shown.get("/models/delete/plan?model_id=org/model")
    shown.site.run_states[path] = "ready"
    refused = await shown.press("/models/delete", model="org/model", path=str(path))
    assert "unload it first" in refused.content.decode()
    assert path.exists()
    shown.site.run_states.clear()
    other = await shown.press("/models/delete", model="org/model", path=str(path.parent))
    assert "another model now" in other.content.decode()
    done = await shown.press("/models/delete", model="org/model", path=str(path))
    assert (done.status_code, done.headers["HX-Redirect"], path.exists()) == (204, "/models", False)
    gone = await shown.client.get("/models/one/state?model_id=org/model", headers=HTMX)
    assert gone.headers["HX-Redirect"] == "/models"
    assert "does not exist" in await shown.get("/models/delete/plan?model_id=org/model")


async def test_take_off_the_list_and_bring_back(shown: Shown) -> None:
    path = str(shown.site.models / "org" / "model" / "r1")
    done = await shown.post("/models/forget", model="org/model", path=path)
    assert done.headers["Location"] == "/models"
    assert 'data-model="org/model"' not in (page := await shown.get("/models"))
    assert "1 model off the list" in page
    assert path in await shown.get("/models?state=hidden")
    await shown.press("/models/restore?state=hidden", model="org/model@r1", path=path)
    assert 'data-model="org/model"' in await shown.get("/models")
    again = await shown.press("/models/restore?state=hidden", model="org/model@r1", path=path)
    assert "was not brought back" in again.content.decode()


async def test_the_disk_and_what_is_freed_of_it(shown: Shown) -> None:
    left = shown.site.models / "org" / "other" / f".{'0' * 40}.partial"
    page = await shown.get("/disk")
    assert "Free 3 MB of unfinished downloads" in page
    dialog = (await shown.client.get("/disk/reclaim/plan?kind=partial", headers=HTMX)).content.decode()
    assert str(left) in dialog
    nothing = await shown.press("/disk/reclaim", path="/etc")
    assert "nothing that the ledger says" in nothing.content.decode()
    with shown.site.busy.work("org/other", "verify"):
        kept = (await shown.press("/disk/reclaim", kind="partial")).content.decode()
    assert ("had to stay" in kept, left.exists()) == (True, True)
    done = await shown.post("/disk/reclaim", kind="partial")
    assert (done.headers["Location"], left.exists()) == ("/disk", False)
    assert "Nothing is left over" in await shown.get("/disk")
    assert "nothing to free any more" in await shown.get("/disk/reclaim/plan?kind=partial")


async def test_a_slow_disk_is_not_waited_for(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()
    look = shown.site.keeper._look

    async def slow() -> Any:
        await gate.wait()
        return await look()

    monkeypatch.setattr(shown.site.keeper, "_look", slow)
    monkeypatch.setattr(disk_page, "PATIENCE_S", 0.01)
    assert 'hx-get="/disk/use"' in await shown.get("/disk")
    gate.set()
    assert "Can be freed" in await shown.get("/disk/use")


async def test_bands_fill_no_more_than_the_bar(shown: Shown) -> None:
    context = disk_page.use_context(await shown.site.keeper.disk())
    for one in context["volumes"]:
        bands: list[Band] = one["bands"]
        assert 0 <= sum(band.width for band in bands) <= 100.001
        assert [band.start for band in bands] == sorted(band.start for band in bands)
        assert sum(band.bytes for band in bands) <= one["volume"].total_bytes


async def test_links_lead_to_the_pages(shown: Shown) -> None:
    page = await shown.get("/models")
    links = [urlsplit(link.replace("&amp;", "&")) for link in re.findall(r'href="(/models/one[^"]+)"', page)]
    assert {parse_qs(link.query)["model_id"][0] for link in links} == {"org/model", "<b>bold"}
    for link in links:
        await shown.get(link.geturl())
